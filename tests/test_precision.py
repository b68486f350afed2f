"""Half precision where it is fast, and never where sums need their digits."""

import json

import pytest
import torch
from any_task import SIZES, assert_same, write_all_parts
from tiny_runs import train
from torch.utils._python_dispatch import TorchDispatchMode

from minivdm.config import load_config, load_preset, preset_names
from minivdm.errors import UserError
from minivdm.training import precision as precision_module
from minivdm.training import trainer as trainer_module
from minivdm.training.checkpoint import list_checkpoints
from minivdm.training.precision import autocast, choose_precision, cpu_flags, forget_precision
from minivdm.training.sharding import make_accelerator
from minivdm.training.start import describe, make_task
from minivdm.training.tasks import collate
from minivdm.training.trainer import Trainer

HALF = (torch.bfloat16, torch.float16)
PRODUCTS = {"convolution", "mm", "bmm", "addmm", "baddbmm", "linear", "matmul"}
# What runs over many numbers: the sums of norms, softmaxes and losses, and the logarithms in them.
SUMS = {
    "native_layer_norm", "native_group_norm", "_softmax", "_log_softmax", "_safe_softmax", "mean", "sum", "var",
    "var_mean", "norm", "linalg_vector_norm", "rsqrt", "nll_loss_forward", "mse_loss", "l1_loss", "softplus", "log",
    "logsumexp",
}  # fmt: skip


class Recorder(TorchDispatchMode):
    """Which operations took 16-bit numbers, below autocast and with all conversions done."""

    def __init__(self):
        super().__init__()
        self.half, self.seen = set(), set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.seen.add(name)
        wide = (kwargs or {}).get("dtype") in (torch.float32, torch.float64)  # summed in what is asked for
        if not wide and any(isinstance(value, torch.Tensor) and value.dtype in HALF for value in args):
            self.half.add(name)
        return func(*args, **(kwargs or {}))


def of_cpu(monkeypatch, flags, cuda=None):
    """Pretend to be on that machine: cuda None is none, else whether it has bf16."""
    monkeypatch.setattr(precision_module, "cpu_flags", lambda: flags)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda is not None)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bool(cuda) or including_emulation)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("flags", "cuda", "chosen", "why"),
    [
        ({"avx2", "avx512f"}, None, "fp32", "on this CPU bf16 is not faster"),
        ({"avx2", "avx512_bf16"}, None, "bf16", "this CPU has avx512_bf16"),
        ({"amx_bf16", "amx_tile"}, None, "bf16", "this CPU has amx_bf16"),
        ({"avx2"}, True, "bf16", "this GPU computes in it"),
        ({"amx_bf16"}, False, "fp32", "this GPU has no bf16"),
    ],
)
def test_auto_takes_bf16_where_it_is_fast(monkeypatch, flags, cuda, chosen, why):
    of_cpu(monkeypatch, flags, cuda)
    assert choose_precision("auto") == (chosen, why)
    for setting in ("fp32", "bf16"):
        assert choose_precision(setting)[0] == setting


def test_flags_are_read_in_linuxs_words(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: X\nflags\t\t: fpu avx2 amx_bf16\n\n")
    assert cpu_flags(tmp_path / "cpuinfo") == {"fpu", "avx2", "amx_bf16"}
    assert cpu_flags(tmp_path / "none") == set()


def test_fp16_needs_a_gpu(monkeypatch):
    of_cpu(monkeypatch, {"amx_bf16"})
    with pytest.raises(UserError, match="fp16, which needs a GPU.*use auto") as error:
        choose_precision("fp16")
    assert "\n" not in str(error.value)
    of_cpu(monkeypatch, set(), cuda=True)
    assert choose_precision("fp16")[0] == "fp16"


def test_a_run_says_and_records_what_auto_chose(tmp_path, monkeypatch, capsys):
    of_cpu(monkeypatch, {"avx512_bf16"})
    config = load_preset("toy", SIZES | {"training.precision": "auto"})
    trainer = Trainer(make_task(config), config, tmp_path, progress=False)
    assert capsys.readouterr().out == "training.precision auto: bf16, because this CPU has avx512_bf16\n"
    assert ", bf16, " in describe(trainer.task, trainer) and trainer.accelerator.mixed_precision == "bf16"
    trainer.task.save(tmp_path)
    of_cpu(monkeypatch, set())  # on another machine
    again = load_config(tmp_path / "config.yaml")
    assert again.training.precision == "bf16"
    other = load_preset("toy", SIZES | {"training.precision": "auto"})
    assert Trainer(make_task(other), other, tmp_path / "b", progress=False).accelerator.mixed_precision == "no"


def test_no_preset_leaves_its_precision_to_the_machine():
    """What is published says how it was trained."""
    for name in preset_names():
        assert load_preset(name).training.precision != "auto"


CRITIC = {"vae_loss.critic": "hinge", "vae_loss.perceptual": 0.1, "vae_loss.images": 0.0, "data.frames": 7}


@pytest.mark.parametrize("name", ["unet3d", "vae2d", "temporal_vae", "stdit3", "toy_t5", "toy_t5 spans"])
def test_norms_softmaxes_and_losses_stay_in_float32(tmp_path, name):
    kind, *objective = name.split()
    settings = SIZES | CRITIC | write_all_parts(tmp_path) | {"training.precision": "bf16"}
    config = load_preset("toy", settings | {"toy_t5.objective": (objective or ["reading"])[0]}, task=kind)
    task = make_task(config)
    if "vae" in name:
        task.model.adversary.switch.started.fill_(0.0)
    batch = collate([task.dataset[index] for index in range(3)])
    seeds = [1, 2, 3]
    if name == "temporal_vae":  # clips in full, so that the critic takes part
        lengths = {seed: task._length(7, torch.Generator().manual_seed(seed ^ 1)) for seed in range(99)}
        batch["seed"] = next(seed for seed, length in lengths.items() if length == 7)
    precise = task.loss(task.model, batch, seeds).mean().item()
    trainer = Trainer(task, config, tmp_path / "run", progress=False)
    with autocast(trainer.accelerator), Recorder() as recorder:
        loss = task.loss(trainer.model, batch, seeds)
    assert loss.dtype == torch.float32
    assert recorder.half & PRODUCTS, "nothing ran in bf16: this test would prove nothing"
    assert recorder.seen & SUMS and recorder.half & SUMS == set()
    assert loss.mean().item() == pytest.approx(precise, rel=0.02)
    loss.mean().backward()
    assert all(weight.grad.dtype == torch.float32 for weight in task.model.parameters() if weight.grad is not None)


# fp16, whose gradients are scaled up so that they do not vanish: on a CPU, which can do it if it has to


def train_in_fp16(monkeypatch, scale):
    """Trainers made from now on train in fp16, with gradients scaled by this at first."""

    def make(precision, model):
        forget_precision("fp32")  # what the one before pretended
        accelerator = make_accelerator("fp32", model)
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1000)
        accelerator.native_amp, accelerator.state._mixed_precision = True, "fp16"
        return accelerator

    monkeypatch.setattr(trainer_module, "choose_precision", lambda setting: ("fp16", "as set"))
    monkeypatch.setattr(trainer_module, "make_accelerator", make)


def test_fp16_passes_over_overflows_lowers_its_scale_and_resumes(tmp_path, monkeypatch):
    train_in_fp16(monkeypatch, scale=2.0**22)
    config = load_preset("toy", SIZES | {"training.log_every": 1, "training.steps": 10})
    train(config, tmp_path / "whole")
    train(config, tmp_path / "parts", stop=4)
    train(config, tmp_path / "parts", resume=True)
    assert_same(tmp_path / "whole", tmp_path / "parts")
    files = [list_checkpoints(tmp_path / run)[-1] / "optimizer.pt" for run in ("whole", "parts")]
    saved = [torch.load(file, weights_only=True) for file in files]
    assert saved[0]["scaler"] == saved[1]["scaler"]
    taken = int(next(iter(saved[0]["optimizer"]["state"].values()))["step"])
    assert 0 < taken < 10, "steps must overflow, and others not, for this test to prove something"
    assert saved[0]["scaler"]["scale"] == 2.0 ** (22 - (10 - taken))
    rows = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert ["gradient_norm" in row for row in rows] == [False] * (10 - taken) + [True] * taken


def test_fp16_gives_up_when_there_is_nothing_left_to_lower(tmp_path, monkeypatch):
    train_in_fp16(monkeypatch, scale=1.0)
    config = load_preset("toy", SIZES)
    task = make_task(config)
    loss = task.loss
    task.loss = lambda model, batch, seeds: loss(model, batch, seeds) * 1e30
    with pytest.raises(UserError, match=r"step 0: the gradient of \S+ is not finite at clip"):
        Trainer(task, config, tmp_path, progress=False).run()
