"""What the two processes of `test_processes.py` do: train, with the weights shared out or not, and denoise together."""

import os

import pytest
import torch
import torch.nn.functional as F
from accelerate.state import AcceleratorState
from stdit3_models import awake, inputs
from tiny_runs import tiny_config

from minivdm.denoisers.sequence_parallel import frames_for_places, places_for_frames, sequence_parallel
from minivdm.errors import UserError
from minivdm.training.sharding import whole
from minivdm.training.start import make_task
from minivdm.training.trainer import Interrupted, Trainer

STEPS, HALF = 4, 2
SETTINGS = {
    "training.steps": STEPS,
    "training.batch_size": 4,
    "training.accumulate": 2,
    "training.log_every": 1,
    "training.milestone_every": 100,
    "training.clip_grad": 100.0,  # so that gradients can be compared as they are
}
UNET = {"data.size": 8, "unet3d.dim": 8, "unet3d.dim_mults": [1, 2], "unet3d.patch": 1, "unet3d.attn_dim_head": 8}
UNET |= {"unet3d.init_kernel_size": 3, "diffusion.num_steps": 20}
# Few pixels, since its last bias adds up what all of them say; and a small rate, since Adam enlarges what is rounding.
VAE2D = {"data.size": 8, "vae2d.ch": 12, "vae2d.ch_mult": [1, 2], "vae_loss.frames_per_clip": 1}
VAE2D |= {"training.learning_rate": 2e-5}
TASKS = {
    "unet3d": UNET,
    "vae2d": VAE2D,
    "temporal_vae": {"temporal_vae.filters": 8, "temporal_vae.num_groups": 4, "vae_loss.images": 0.0},
    "toy_t5": {},
    "stdit3": {"flow.image_head": 0.3, "training.optimizer": "muon"},
}
SHARDED = {"stdit3"}  # by FSDP; the others by DDP
SIZES = {"even": (4, 4, 8), "uneven": (3, 5, 6), "a picture of one token": (1, 2, 1)}


def trainer_of(task, parts, run, resume=False, **overrides):
    """A Trainer whose network has no silent layer."""
    below = {"vae_loss.vae2d": f"{parts['flow.vae']}/vae2d"}
    config = tiny_config(task, parts | below, **SETTINGS | TASKS[task] | overrides)
    made = make_task(config)
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for weight in made.model.parameters():
            if weight.requires_grad:
                weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return Trainer(made, config, run, resume=resume, progress=False)


def first_gradients(trainer):
    """A dict that fills with the gradients of the first step."""
    found, clip = {}, trainer.accelerator.clip_grad_norm_

    def remember(weights, most):
        if not found:
            grads = {name: weight.grad for name, weight in trainer._unwrapped.named_parameters()}
            found.update(whole({name: grad.clone() for name, grad in grads.items() if grad is not None}))
        return clip(trainer.model.parameters(), most)

    trainer.accelerator.clip_grad_norm_ = remember
    return found


def interrupt(trainer, process=0):
    """Run until Ctrl-C, which reaches one process only, in step HALF."""
    take_step = trainer._optimiser_step

    def interrupted(batches):
        trainer._stop = trainer.step + 1 == HALF and trainer.accelerator.process_index == process
        return take_step(batches)

    trainer._optimiser_step = interrupted
    with pytest.raises(Interrupted, match=f"stopped after step {HALF}"):
        trainer.run()


def everything(rank, folder, parts):
    """Training in `folder`, and denoising. The caller finds files there, and here what files do not show."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    exchange(rank)
    return {"denoising": denoise(), "training": {task: train(task, rank, folder, parts) for task in TASKS}}


def train(task, rank, folder, parts):
    os.environ["ACCELERATE_USE_FSDP"] = str(task in SHARDED).lower()
    AcceleratorState._reset_state(reset_partial_state=True)
    # the second process has a folder of its own, in which nothing must appear
    trainer = trainer_of(task, parts, folder / f"{task}-two" if rank == 0 else folder / "nobody")
    trainer.task.metrics = lambda: {"process": rank}
    gradients = first_gradients(trainer)
    interrupt(trainer, process=1)
    trainer_of(task, parts, folder / f"{task}-one", resume=True).run()
    with pytest.raises(UserError, match="batch_size 5 cannot be shared by 2 processes; use 6"):
        trainer_of(task, parts, folder / "nobody", **{"training.batch_size": 5})
    moments = [entry["exp_avg"] for entry in trainer.optimizer.state_dict()["state"].values()]
    kept = {"weights": trainer.model.parameters(), "average": trainer.ema.module.parameters(), "moments": moments}
    return {"gradients": gradients, "held": {name: share_held(list(tensors)) for name, tensors in kept.items()}}


def share_held(tensors):
    """How much of some tensors' numbers lies in this process."""
    held = [tensor.to_local() if hasattr(tensor, "to_local") else tensor for tensor in tensors]
    return sum(tensor.numel() for tensor in held) / sum(tensor.numel() for tensor in tensors)


@torch.no_grad()
def denoise():
    """Largest difference between two processes and one, by size."""
    found, seen, model = {}, [], awake()
    mask = torch.tensor([[1, 1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0]])
    model.temporal_blocks[1].register_forward_hook(lambda block, given, out: seen.append(out.shape))
    for name, size in SIZES.items():
        clip = inputs(model, size=size) | {"mask": mask, "x_mask": torch.arange(2 * size[0]).reshape(2, -1) % 3 != 1}
        alone = model(**clip)
        with sequence_parallel(model):
            together = model(**clip)
        assert together.shape == alone.shape and torch.equal(model(**clip), alone), "the model is as it was"
        places = -(-size[1] // 2) * -(-size[2] // 2)
        assert [shape[2] for shape in seen[-3:]] == [places, -(-places // 2), places], "together, each has a half"
        found[name] = (together - alone).abs().max().item()
    with pytest.raises(UserError, match="no gradients"), torch.enable_grad(), sequence_parallel(model):
        model(**clip)
    return found


def exchange(rank):
    """Numbered tokens are where they should be after each exchange."""
    clip = torch.arange(2 * 3 * 5 * 4.0).reshape(2, 3, 5, 4)
    some_places = F.pad(clip, (0, 0, 0, 1)).chunk(2, dim=2)[rank]
    some_frames = F.pad(clip, (0, 0, 0, 0, 0, 1)).chunk(2, dim=1)[rank]
    assert torch.equal(places_for_frames(some_places, 5), some_frames)
    assert torch.equal(frames_for_places(some_frames, 3), some_places)
