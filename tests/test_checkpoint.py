"""A checkpoint is whole or it is not there."""

import json

import pytest
import torch

from minivdm.errors import UserError
from minivdm.training import checkpoint
from minivdm.training.checkpoint import list_checkpoints, load_newest, read_tensors, save_checkpoint


def _save(run, step, keep=5):
    tensors = {"weight": torch.full((2, 3), float(step))}
    return save_checkpoint(run, step, tensors, tensors, {"optimizer": {"step": step}}, {"loss_sum": 0.0}, keep)


def test_round_trip_and_only_the_newest_are_kept(tmp_path):
    for step in (3, 20, 100):
        _save(tmp_path, step, keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000020", "step-00000100"]
    folder, state, damaged = load_newest(tmp_path)
    assert (folder.name, state["step"], damaged) == ("step-00000100", 100, [])
    assert read_tensors(folder / "model.safetensors")["weight"].eq(100).all()


def test_an_unfinished_one_is_never_seen(tmp_path):
    _save(tmp_path, 3)
    partial = tmp_path / "checkpoints" / ".step-00000009.partial"
    partial.mkdir()
    (partial / "state.json").write_text("{}")
    assert load_newest(tmp_path)[1]["step"] == 3


@pytest.mark.parametrize("damage", ["truncate", "remove", "state"])
def test_a_damaged_newest_one_falls_back_and_says_so(tmp_path, damage):
    _save(tmp_path, 3)
    newest = _save(tmp_path, 9)
    if damage == "truncate":
        file = newest / "ema.safetensors"
        file.write_bytes(file.read_bytes()[:-3])
    elif damage == "remove":
        (newest / "optimizer.pt").unlink()
    else:
        (newest / "state.json").write_text("{")
    folder, state, damaged = load_newest(tmp_path)
    assert state["step"] == 3
    assert len(damaged) == 1 and "step-00000009" in damaged[0]


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path, monkeypatch):
    _save(tmp_path, 3)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.safetensors.torch, "save_file", full)
    with pytest.raises(UserError, match="No space left on device") as error:
        _save(tmp_path, 9)
    assert "\n" not in str(error.value)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000003"]


def test_nothing_to_resume(tmp_path):
    with pytest.raises(UserError, match="no checkpoint"):
        load_newest(tmp_path)
    newest = _save(tmp_path, 9)
    state = json.loads((newest / "state.json").read_text())
    state["sha256"]["model.safetensors"] = "0"
    (newest / "state.json").write_text(json.dumps(state))
    with pytest.raises(UserError, match="1 damaged"):
        load_newest(tmp_path)


def test_unreadable_weights_are_one_line(tmp_path):
    (tmp_path / "model.safetensors").write_text("hello")
    with pytest.raises(UserError, match="cannot read weights"):
        read_tensors(tmp_path / "model.safetensors")
