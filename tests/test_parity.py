import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from minivdm import parity
from minivdm.diffusion.schedules import (
    alphas_cumprod,
    betas_from_alphas_cumprod,
    linear_betas,
    rescale_zero_terminal_snr,
)
from minivdm.errors import UserError
from minivdm.parity_kinds.rounding import of_a_sinusoid, of_a_zero_terminal_snr, per_rounding

GOLDEN = Path(__file__).parent / "golden"
SCHEDULERS, DIFFUSION = GOLDEN / "diffusers_schedulers.safetensors", GOLDEN / "ld_gaussian_diffusion.safetensors"


def load(path):
    with safe_open(str(path), "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata())


@pytest.fixture
def scheduler_file(tmp_path):
    """A copy of the schedulers' file with chosen cases only, and changes made to its tensors and metadata."""

    def write(*cases, change=lambda tensors, metadata: None, name="copy.safetensors"):
        tensors, metadata = load(SCHEDULERS)
        tensors = {key: value for key, value in tensors.items() if key.split("/")[0] in cases}
        metadata["cases"] = json.dumps({case: json.loads(metadata["cases"])[case] for case in cases})
        change(tensors, metadata)
        save_file(tensors, tmp_path / name, metadata)
        return tmp_path / name

    return write


def lines_of(capsys):
    return [line.split() for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.safetensors")), ids=lambda path: path.stem)
def test_every_output_of_the_references_is_reproduced(path, capsys):
    status = parity.run([path])
    head, *lines, total = lines_of(capsys)
    assert status == 0
    assert head == ["file", "output", "max_abs_err", "tol", "ok"]
    assert all(line[-1] == "ok" and float(line[2]) <= float(line[3]) for line in lines)
    recorded = {key for key in load(path)[0] if "/out/" in key or "/grad/" in key}
    assert recorded <= {line[1] for line in lines}
    assert total[0] == str(len(lines))


def test_lines_are_aligned_over_several_files(scheduler_file, capsys):
    short = scheduler_file("fme", name="a.safetensors")
    long = scheduler_file("ddim_scaled_offset", name="a_longer_name.safetensors")
    assert parity.run([short, long]) == 0
    head, *lines, _ = capsys.readouterr().out.splitlines()
    assert len({line.index("  ok") for line in [head, *lines]}) == 1


def test_the_kind_is_told_by_the_metadata_not_by_the_name(tmp_path):
    shutil.copy(DIFFUSION, tmp_path / "diffusers_schedulers.safetensors")
    assert "sd/betas" in parity.read_golden(tmp_path / "diffusers_schedulers.safetensors").tensors
    assert parity.run([tmp_path / "diffusers_schedulers.safetensors"]) == 0


def test_one_digit_off_is_off(scheduler_file, capsys):
    def change(tensors, metadata):
        tensors["fme/out/sigmas"][2] += 2e-6

    assert parity.run([scheduler_file("fme", change=change)]) == 1
    off = [line for line in lines_of(capsys) if "OFF" in line]
    assert len(off) == 1 and off[0][1] == "fme/out/sigmas" and float(off[0][2]) == pytest.approx(2e-6, rel=0.1)


def test_a_case_without_a_comparison_is_off(scheduler_file, capsys):
    def change(tensors, metadata):
        tensors["fme/out/variance"] = torch.zeros(3)

    assert parity.run([scheduler_file("fme", change=change)]) == 1
    assert "fme/out/variance" in capsys.readouterr().out


def _new_trajectory(tensors, metadata):
    """Another start, batch and step count; the outputs are recomputed below, without our code."""
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(1, 4, 3, generator=generator)
    shift, steps, num_steps = 2.5, 4, 500
    once = lambda s: shift * s / (1 + (shift - 1) * s)  # noqa: E731
    ends = [once(1.0), once(1 / num_steps)]
    sigmas = [once(ends[0] + (ends[1] - ends[0]) * k / (steps - 1)) for k in range(steps)] + [0.0]
    states, state = [], x
    for now, then in zip(sigmas, sigmas[1:], strict=False):
        state = state + (then - now) * (0.7 * torch.cos(state + 2 * now) - 0.3 * state * now)
        states.append(state)
    x0, noise = torch.randn(1, 4, 3, generator=generator), torch.randn(1, 4, 3, generator=generator)
    tensors.clear()
    tensors |= {"other/in/x": x, "other/in/x0": x0, "other/in/noise": noise}
    tensors |= {
        "other/out/timesteps": torch.tensor(sigmas[:-1], dtype=torch.float64) * num_steps,
        "other/out/sigmas": torch.tensor(sigmas, dtype=torch.float64),
        "other/out/trajectory": torch.stack(states),
        "other/out/final": state.clone(),
        "other/out/scale_noise": (1 - sigmas[1]) * x0 + sigmas[1] * noise,
    }
    case = {"kind": "FME", "steps": steps, "kw": {"num_train_timesteps": num_steps, "shift": shift}}
    metadata["cases"] = json.dumps({"other": case})


def test_other_seeds_sizes_and_step_counts(scheduler_file, capsys):
    assert parity.run([scheduler_file("fme", change=_new_trajectory)]) == 0
    assert len(lines_of(capsys)) == 7


def test_strided_ancestral_sampling_is_compared_too(scheduler_file):
    """Fewer steps than were trained: the path of the deterministic sampler, with the noise of the ancestral one."""

    def change(tensors, metadata):
        x, noises = tensors["ddpm_cosine/in/x"], tensors["ddpm_cosine/in/noises"][:4]
        cases = json.loads(metadata["cases"])
        cases["ddpm_cosine"]["steps"] = 4
        metadata["cases"] = json.dumps(cases)
        betas = [min(1 - _cosine((k + 1) / 8) / _cosine(k / 8), 0.999) for k in range(8)]
        abar = torch.cumprod(1 - torch.tensor(betas, dtype=torch.float64), 0).tolist()
        states, timesteps = [], [6, 4, 2, 0]
        for k, t in enumerate(timesteps):
            before = abar[t - 2] if t >= 2 else 1.0
            eps = 0.6 * torch.sin(x + 0.01 * t) + 0.25 * x
            x0 = ((x - (1 - abar[t]) ** 0.5 * eps) / abar[t] ** 0.5).clamp(-1, 1)
            alpha = abar[t] / before
            mean = before**0.5 * (1 - alpha) / (1 - abar[t]) * x0 + alpha**0.5 * (1 - before) / (1 - abar[t]) * x
            x = mean + ((1 - before) / (1 - abar[t]) * (1 - alpha)) ** 0.5 * noises[k]
            states.append(x)
        first = abar[6] ** 0.5 * tensors["ddpm_cosine/in/x0"] + (1 - abar[6]) ** 0.5 * tensors["ddpm_cosine/in/noise"]
        tensors |= {
            "ddpm_cosine/in/noises": noises.clone(),
            "ddpm_cosine/out/timesteps": torch.tensor(timesteps, dtype=torch.float64),
            "ddpm_cosine/out/trajectory": torch.stack(states),
            "ddpm_cosine/out/final": x.clone(),
            "ddpm_cosine/out/add_noise": first,
        }

    assert parity.run([scheduler_file("ddpm_cosine", change=change)]) == 0


def _cosine(u):
    return torch.cos(torch.tensor((u + 0.008) / 1.008 * torch.pi / 2, dtype=torch.float64)).item() ** 2


def _set(key, value):
    def change(tensors, metadata):
        metadata[key] = value

    return change


def _drop(key):
    def change(tensors, metadata):
        (metadata if key in metadata else tensors).pop(key)

    return change


def _edit_case(**changes):
    def change(tensors, metadata):
        cases = json.loads(metadata["cases"])
        cases["fme"] = {key: value for key, value in (cases["fme"] | changes).items() if value is not None}
        metadata["cases"] = json.dumps(cases)

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_set("reference", "somebody 1.0 Thing"), "unknown kind 'somebody 1.0 Thing'"),
        (_drop("reference"), "no reference"),
        (_drop("cases"), "no cases"),
        (_set("config", "{"), "not JSON"),
        (_set("config", "[]"), "JSON objects"),
        (_drop("fme/in/x"), "no 'fme/in/x'"),
        (_drop("fme/out/sigmas"), "no 'fme/out/sigmas'"),
        (_edit_case(steps=None), "no 'steps'"),
        (_edit_case(kind="UniPC"), "unknown kind 'UniPC'"),
        (_edit_case(kw={"use_beta_sigmas": True}), "use_beta_sigmas"),
        (_edit_case(kind="DDIM", kw={"beta_schedule": "sigmoid"}), "beta_schedule 'sigmoid'"),
        (_edit_case(kind="DDIM", kw={"prediction_type": "flow"}), "prediction_type 'flow'"),
        (_edit_case(steps=0), "0 steps"),
    ],
)
def test_a_damaged_or_foreign_file_is_one_line(change, says, scheduler_file):
    path = scheduler_file("fme", change=change)
    with pytest.raises(UserError, match=says) as caught:
        parity.run([path])
    assert "\n" not in str(caught.value)


def test_sizes_that_contradict_each_other_are_one_line(scheduler_file):
    def change(tensors, metadata):
        tensors["ddim_eta/in/noises"] = torch.zeros(6, 5)

    path = scheduler_file("ddim_eta", change=change)
    with pytest.raises(UserError, match="do not fit") as caught:
        parity.run([path])
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_what_is_not_a_safetensors_file_is_one_line(tmp_path):
    (tmp_path / "text.safetensors").write_text("hello")
    (tmp_path / "cut.safetensors").write_bytes(SCHEDULERS.read_bytes()[:5000])
    save_file({"x": torch.zeros(2)}, tmp_path / "bare.safetensors")
    for name, says in {
        "text": "not a readable",
        "cut": "not a readable",
        "bare": "no config",
        "gone": "no such",
    }.items():
        with pytest.raises(UserError, match=says) as caught:
            parity.run([SCHEDULERS, tmp_path / f"{name}.safetensors"])
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no such"):
        parity.run([tmp_path])


def test_every_file_is_opened_before_the_first_is_compared(tmp_path, capsys):
    with pytest.raises(UserError):
        parity.run([SCHEDULERS, tmp_path / "gone.safetensors"])
    assert capsys.readouterr().out == ""


def measured(ours, expected, tolerance=1e-5):
    return parity.measure("y", ours, expected, tolerance)


def test_tolerance_grows_with_the_recorded_values_from_one_on():
    assert measured(torch.tensor([0.0, 1e-5]), torch.zeros(2)).ok
    assert not measured(torch.tensor([0.0, 1.1e-5]), torch.tensor([0.5, 0.0])).ok
    assert measured(torch.tensor([-1000.0, 5e-3]), torch.tensor([-1000.0, 0.0])).ok
    assert not measured(torch.tensor([-1000.0, 2e-2]), torch.tensor([-1000.0, 0.0])).ok


def test_integers_and_booleans_are_exact():
    big = torch.tensor([1_000_000])
    assert measured(big, big).ok and not measured(big + 1, big).ok
    assert not measured(torch.tensor([True]), torch.tensor([False])).ok


def test_nan_shape_and_infinity():
    nan, inf = torch.tensor([torch.nan]), torch.tensor([torch.inf])
    assert not measured(nan, torch.zeros(1)).ok and not measured(torch.zeros(1), nan).ok
    mixed = torch.tensor([0.0, torch.nan, 1.0])
    assert not measured(mixed, torch.tensor([0.0, 0.0, 1.0])).ok
    assert measured(inf, inf).ok and not measured(-inf, inf).ok and not measured(torch.zeros(1), inf).ok
    wrong = measured(torch.zeros(1, 3), torch.zeros(3))
    assert not wrong.ok and "(1, 3), not (3,)" in wrong.note


def test_rounding_is_forgiven_where_it_is_amplified_and_nothing_else():
    t, width = torch.tensor([0.0, 512.25, 999.5]), 64
    frequencies = torch.exp(-math.log(10000) / 32 * torch.arange(32, dtype=torch.float64))

    def off(change):
        expected = torch.cat([wave(t.double()[:, None] * frequencies) for wave in (torch.cos, torch.sin)], dim=1)
        changed = torch.cat([wave(t.double()[:, None] * change(frequencies)) for wave in (torch.cos, torch.sin)], dim=1)
        ours, theirs = per_rounding(changed, expected, of_a_sinusoid(t, width))
        return (ours - theirs).abs().max().item()

    assert off(lambda frequencies: frequencies * (1 + 2**-23)) <= 1e-6  # the last digit
    assert off(lambda frequencies: frequencies * (1 + 16 * 2**-23)) > 1e-6
    assert off(lambda frequencies: frequencies**1.00001) > 1e-6


@pytest.mark.parametrize("product", [False, True], ids=["betas", "abar"])
def test_a_schedule_that_ends_elsewhere_is_off(product):
    betas = linear_betas(10)
    abar = alphas_cumprod(betas)

    def table(betas):
        return alphas_cumprod(betas) if product else betas

    def off(other):
        ours, expected = table(other), table(rescale_zero_terminal_snr(betas))
        ours, expected = per_rounding(ours, expected, of_a_zero_terminal_snr(abar, product))
        return (ours - expected).abs().max().item()

    assert off(rescale_zero_terminal_snr(betas.float()).double()) <= 1e-6  # as float32 rounds it
    one_is_off = betas * torch.where(torch.arange(10) == 5, 1 + 1e-3, 1.0)
    assert off(rescale_zero_terminal_snr(one_is_off)) > 1e-5
    shifted = (abar - abar[-1]) * (abar[0] / (abar[0] - abar[-1]))  # without the roots
    assert off(betas_from_alphas_cumprod(shifted)) > 1e-3
    assert off(betas) > 1e-3
