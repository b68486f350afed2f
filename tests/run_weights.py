"""The weights that a training left behind."""

from minivdm.training.checkpoint import list_checkpoints, read_tensors


def run_weights(folder):
    """All tensors of the newest checkpoint of a run; those of the average under names that begin with `ema.`"""
    newest = list_checkpoints(folder)[-1]
    return read_tensors(newest / "model.safetensors") | {
        f"ema.{name}": tensor for name, tensor in read_tensors(newest / "ema.safetensors").items()
    }
