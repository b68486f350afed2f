"""A pickle runs code when it is read. Where somebody else's file is taken, one is refused, and its code never runs."""

import hashlib
import json
import pickle
import shutil
import zipfile

import pytest
import torch
from hostile_bytes import Payload, npz, pickled_array

from minivdm.data.io import read_video
from minivdm.denoisers.stdit3 import STDiT3
from minivdm.errors import UserError
from minivdm.paths import checkpoint_dir
from minivdm.training.checkpoint import load_newest, read_optimizer, read_tensors, save_checkpoint
from minivdm.vae.lpips import LPIPS
from minivdm.weights import read_weights

CPU = torch.device("cpu")


@pytest.fixture
def evil(tmp_path):
    """A pickle that would make the file `ran`."""
    content = pickle.dumps({"optimizer": Payload(tmp_path / "ran")}, protocol=2)  # torch's
    yield content
    assert not (tmp_path / "ran").exists()
    pickle.loads(content)
    assert (tmp_path / "ran").exists()  # so it was not a dud


def refused(read) -> str:
    with pytest.raises(UserError) as caught:
        read()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def tiny_run(folder):
    weight = {"weight": torch.zeros(2, 3)}
    optimizer = torch.optim.AdamW([torch.nn.Parameter(weight["weight"])])
    return save_checkpoint(folder, 5, weight, weight, {"optimizer": optimizer.state_dict()}, {}, keep=2)


def as_torch_saves(content: bytes, path) -> None:
    """The pickle inside the zip that torch.save makes."""
    torch.save({"optimizer": None}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, member in members.items():
            archive.writestr(name, content if name.endswith("data.pkl") else member)


@pytest.mark.parametrize("wrapped", [False, True], ids=["bare pickle", "torch's zip"])
def test_an_optimizer_with_a_matching_checksum(tmp_path, evil, wrapped):
    checkpoint = tiny_run(tmp_path / "run")
    assert "param_groups" in read_optimizer(checkpoint / "optimizer.pt", CPU)["optimizer"]
    if wrapped:
        as_torch_saves(evil, checkpoint / "optimizer.pt")
    else:
        (checkpoint / "optimizer.pt").write_bytes(evil)
    state = json.loads((checkpoint / "state.json").read_text())
    state["sha256"]["optimizer.pt"] = hashlib.sha256((checkpoint / "optimizer.pt").read_bytes()).hexdigest()
    (checkpoint / "state.json").write_text(json.dumps(state))
    assert load_newest(tmp_path / "run")[0] == checkpoint  # nothing but its content gives it away
    told = refused(lambda: read_optimizer(checkpoint / "optimizer.pt", CPU))
    assert "not the state of an optimiser (UnpicklingError), and nothing in it was run" in told


@pytest.mark.parametrize("state", ["[]", "{}", '{"sha256": 3}', '{"sha256": ["model.safetensors"]}', "\0"])
def test_a_state_that_is_none_is_a_damaged_checkpoint(tmp_path, state):
    (tiny_run(tmp_path) / "state.json").write_text(state)
    assert "1 damaged checkpoints" in refused(lambda: load_newest(tmp_path))


def test_safetensors_that_are_a_pickle(tmp_path, evil):
    for name in ("model.safetensors", "diffusion_pytorch_model.safetensors"):
        (tmp_path / name).write_bytes(evil)
        assert "not a readable safetensors file" in refused(lambda: read_weights(tmp_path))
        assert "cannot read weights" in refused(lambda name=name: read_tensors(tmp_path / name))
        (tmp_path / name).unlink()


def test_a_model_that_has_nothing_but_a_pickle(tmp_path, evil):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps({"depth": 1, "hidden_size": 16, "num_heads": 2}))
    (tmp_path / "model" / "pytorch_model.bin").write_bytes(evil)
    assert "holds no model.safetensors" in refused(lambda: STDiT3.from_pretrained(tmp_path / "model"))


def test_published_weights_of_a_trunk(tmp_path, evil):
    (tmp_path / "vgg16.pth").write_bytes(evil)
    assert "cannot read" in refused(lambda: LPIPS("vgg16", files=[tmp_path / "vgg16.pth"]))


def test_clips(tmp_path, evil):
    for name, content in {"a": npz(frames__npy=pickled_array(tmp_path / "ran")), "b": evil}.items():
        (tmp_path / f"{name}.npz").write_bytes(content)
        assert "cannot read the clip" in refused(lambda name=name: read_video(tmp_path / f"{name}.npz"))


def test_a_text_encoder(tmp_path, evil):
    from minivdm.text.encoder import TextEmbedder  # transformers takes seconds

    shutil.copytree(checkpoint_dir("toy/t5"), tmp_path / "t5")
    for file in ("tokenizer.json", "model.safetensors"):
        (tmp_path / "t5" / file).write_bytes(evil)
        assert "cannot load the text encoder" in refused(lambda: TextEmbedder(tmp_path / "t5", local_files_only=True))
    (tmp_path / "t5" / "model.safetensors").unlink()
    (tmp_path / "t5" / "pytorch_model.bin").write_bytes(evil)
    assert "holds pickled weights" in refused(lambda: TextEmbedder(tmp_path / "t5", local_files_only=True))
