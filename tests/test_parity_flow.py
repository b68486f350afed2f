"""The comparisons of rectified flow and frame masks, on files of other seeds and sizes, and on real mistakes."""

import inspect

import pytest
from rflow_by_hand import KINDS, write_flow, write_masks

from minivdm import parity
from minivdm.diffusion import masks, rectified_flow
from minivdm.parity_kinds import frame_masks
from minivdm.parity_kinds import rectified_flow as flow_kind

FLOW = {
    "seed": 5,
    "shape": [2, 3, 4, 2, 5],
    "steps": 6,
    "cfg_scale": 2.5,
    "meta": {"height": [144, 720], "width": [256, 400], "num_frames": [17, 51]},
    "mask": [[0.0, 1.0, 0.5, 1.0], [0.8, 0.0, 0.1, 0.35]],  # 0.5 is the noise level of step 3 itself
    "grid_frames": [1, 18, 40, 300],
    "grid_res": [[96, 160], [1080, 1920]],
    "short": [3, 9, 16],
    "scales": [1.0, 0.7],
}
IMAGES = {
    "seed": 6,
    "shape": [3, 1, 5, 3, 2],
    "steps": 16,
    "cfg_scale": 7.0,
    "meta": {"height": [512, 64, 333], "width": [90, 64, 512], "num_frames": [1, 1, 1]},
    "mask": [[1.0] * 5, [0.0] * 5, [0.2, 0.9375, 0.4, 0.6, 1.0]],
}
ONE_STEP = {
    "seed": 7,
    "shape": [1, 4, 1, 6, 3],
    "steps": 1,
    "meta": {"height": [96], "width": [128], "num_frames": [204]},
    "mask": [[0.5]],
    "scales": [3.0],
}
MASKS = {
    "seed": 8,
    "frames": 16,
    "strategies": ["", "0,1", "0,0,-3,-2,9,0.25;0,1,4,0,3", "1,1,2,7,30,1;0,0,1", "0,0,3,6,2,0.5", "0,1,8,8,5"],
    "loop": [0, 1, 2],
    "align": [None, 3, 4],
    "size": [3, 2, 1],
}


def verdicts(path, capsys):
    """The exit status of a comparison, and the cases in which an output is off."""
    status = parity.run([path])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:-1]]
    return status, {line[1].split("/")[0] for line in lines if "OFF" in line}


@pytest.mark.parametrize("change", [{}, IMAGES, ONE_STEP], ids=["films", "images", "one step"])
def test_flow_of_other_seeds_sizes_and_masks(change, tmp_path, capsys):
    write_flow(tmp_path / "flow.safetensors", **FLOW | change)
    assert verdicts(tmp_path / "flow.safetensors", capsys) == (0, set())


@pytest.mark.parametrize("frames", [9, 21])
def test_masks_of_other_lengths_and_strategies(frames, tmp_path, capsys):
    write_masks(tmp_path / "masks.safetensors", **MASKS | {"frames": frames, "seed": frames})
    assert verdicts(tmp_path / "masks.safetensors", capsys) == (0, set())


def edited(thing, right, wrong):
    """A class or function with one piece of its source exchanged."""
    source, space = inspect.getsource(thing), dict(vars(inspect.getmodule(thing)))
    assert source.count(right) == 1
    exec(source.replace(right, wrong), space)
    return space[thing.__name__]


SAMPLES = {f"sample{ending}" for ending in ("", "_discrete", "_transform", "_mask", "_mask_transform", "_guidance1")}
MASKED, MOVED = {"sample_mask", "sample_mask_transform"}, {"sample_transform", "sample_mask_transform"}
# In the code -> the mistake, and where it shows.
FLOW_MISTAKES = {
    "the sign of version 2.0": ("moved = z + v * dt", "moved = z - v * dt", SAMPLES),
    "the target's sign": ("- (x0 - noise)) ** 2", "- (noise - x0)) ** 2", {"losses", "losses_masked"}),
    "time the other way": (
        "(1 - u) * x0 + u * noise",
        "u * x0 + (1 - u) * noise",
        {"add_noise", "losses", "losses_masked", *MASKED},
    ),
    "no shift": (
        "(t / self.num_steps, ratio)",
        "(t / self.num_steps, 1.0)",
        {"transform", "transform_degenerate", *MOVED},
    ),
    "times that are not rounded": ("float(round(t) if discrete else t)", "float(t)", {"sample_discrete"}),
    "a step too short": ("(1 - k / steps)", "(1 - (k + 1) / (steps + 1))", SAMPLES),
    "a loss over all frames": ("** 2, mask)", "** 2)", {"losses_masked"}),
    "given frames noised": ("x_t = torch.where(_over_frames(mask), x_t, x0)", "pass", {"losses_masked"}),
    "frames opened too late": ("self.num_steps >= t", "self.num_steps > t", MASKED),
    "noise before the first step": ("mask == 1", "mask > 1", MASKED),
    "frames never noised again": ("open_now & ~opened", "open_now & opened & ~opened", MASKED),
    "frames noised in every step": ("open_now & ~opened", "open_now", MASKED),
    "given frames moved": ("z = _kept(open_now, moved, z)", "z = moved", MASKED),
}


@pytest.mark.parametrize("mistake", FLOW_MISTAKES)
def test_mistakes_in_the_flow_are_seen(mistake, tmp_path, capsys, monkeypatch):
    right, wrong, cases = FLOW_MISTAKES[mistake]
    write_flow(tmp_path / "flow.safetensors", **FLOW)
    monkeypatch.setattr(flow_kind, "RectifiedFlow", edited(rectified_flow.RectifiedFlow, right, wrong))
    assert verdicts(tmp_path / "flow.safetensors", capsys) == (1, cases)


def test_branches_in_the_wrong_order_are_seen(tmp_path, capsys, monkeypatch):
    write_flow(tmp_path / "flow.safetensors", **FLOW)
    right = flow_kind.classifier_free
    monkeypatch.setattr(flow_kind, "classifier_free", lambda cond, uncond, scale: right(uncond, cond, scale))
    assert verdicts(tmp_path / "flow.safetensors", capsys) == (1, SAMPLES)


DRAWN = {f"gen_{kind}" for kind in KINDS}
MASK_MISTAKES = {
    "the whole list for one loop": ("apply_mask_strategy", "if of_loop != loop:", "if False:", {"strategy"}),
    "the length of the first end only": (
        "apply_mask_strategy",
        "mask[target : target + length] = ratio",
        "mask[target] = ratio",
        {"strategy"},
    ),
    "blocks never moved up": (
        "find_nearest_point",
        "if value % point > point / 2",
        "if False",
        {"strategy", "nearest"},
    ),
    "half-way moved up": ("find_nearest_point", "> point / 2", ">= point / 2", {"strategy"}),
    "the last block open": ("find_nearest_point", "end // point - 1", "end // point", {"strategy", "nearest"}),
    "given and generated exchanged": ("training_mask", "torch.ones(", "torch.zeros(", DRAWN),
    "always a whole quarter": (
        "training_mask",
        "_integer(1, max(1, frames // 4), generator)",
        "frames // 4",
        {case for case in DRAWN if "quarter" in case},
    ),
    "a start too early": (
        "training_mask",
        "_integer(0, frames - size, generator)",
        "_integer(0, frames - size - 1, generator)",
        {"gen_image_random", "gen_quarter_random"},
    ),
    "every second frame from the first": (
        "training_mask",
        "_integer(0, 1, generator)",
        "0",
        {"gen_intepolate"},
    ),
}


@pytest.mark.parametrize("mistake", MASK_MISTAKES)
def test_mistakes_in_the_masks_are_seen(mistake, tmp_path, capsys, monkeypatch):
    name, right, wrong, cases = MASK_MISTAKES[mistake]
    kinds = KINDS if name == "training_mask" else []
    write_masks(tmp_path / "masks.safetensors", **MASKS, kinds=kinds)
    wrong_one = edited(getattr(masks, name), right, wrong)
    monkeypatch.setattr(masks, name, wrong_one)
    monkeypatch.setattr(frame_masks, name, wrong_one)
    assert verdicts(tmp_path / "masks.safetensors", capsys) == (1, cases)
