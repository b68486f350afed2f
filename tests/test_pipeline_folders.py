"""Text-to-video pipelines in folders: what is saved comes back, and what does not belong together is told."""

import json
import shutil

import pytest
import safetensors.torch
import torch
from video_pipelines import TOKENS, tiny_denoiser, tiny_pipeline, tiny_vae, write_t5

from minivdm.config import load_preset
from minivdm.denoisers import STDiT3
from minivdm.errors import UserError
from minivdm.pipelines import TextToVideoPipeline, VideoSettings
from minivdm.pipelines.loading import OPEN_SORA, holds_text_to_video
from minivdm.training.checkpoint import save_checkpoint
from minivdm.vae import AutoEncoder2D, TemporalVAE, autoencoder_to_diffusers


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved pipeline."""
    folder = tmp_path_factory.mktemp("pipelines")
    tiny_pipeline(folder / "t5", carried=2, fps=12.0).save_pretrained(folder / "saved")
    return folder / "saved"


def test_a_saved_pipeline_draws_the_same_film(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["denoiser", "pipeline.json", "text_encoder", "vae"]
    assert not list(folder.rglob("*.bin")) and holds_text_to_video(folder)
    back = TextToVideoPipeline.from_pretrained(folder)
    assert back.settings == VideoSettings(5, 8, 12, 12.0, 3, 2.5, carried=2)
    assert torch.equal(back("a red ring", seed=2), tiny_pipeline(folder.parent / "again")("a red ring", seed=2, fps=12))


def test_half_precision_on_disk_is_single_precision_in_memory(folder, tmp_path):
    pipe = TextToVideoPipeline.from_pretrained(folder)
    pipe.save_pretrained(tmp_path, dtype=torch.float16)
    for part in ("denoiser", "vae/vae2d", "vae/temporal"):
        stored = safetensors.torch.load_file(tmp_path / part / "model.safetensors")
        assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    back = TextToVideoPipeline.from_pretrained(tmp_path)
    assert {parameter.dtype for parameter in (*pipe.denoiser.parameters(), *back.denoiser.parameters())} == {
        torch.float32
    }
    torch.testing.assert_close(back("a red ring"), pipe("a red ring"), atol=0.02, rtol=0)


def test_shipped_parts_are_named_instead_of_written(folder, tmp_path):
    pipe = TextToVideoPipeline.from_pretrained(folder)
    pipe.save_pretrained(tmp_path, shipped=("text", "vae"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["denoiser", "pipeline.json"]
    values = json.loads((tmp_path / "pipeline.json").read_text())
    assert values["text"] == values["vae"] == "toy"
    with pytest.raises(UserError, match="shipped parts denoiser: expected text, vae"):
        pipe.save_pretrained(tmp_path, shipped=("denoiser",))


def test_the_newest_checkpoint_of_a_run_and_a_checkpoint_alone(tmp_path):
    tiny_vae().save_pretrained(tmp_path / "vae")
    settings = {"data.frames": 5, "data.size": 8, "sampling.steps": 2, "sampling.guidance": 2.5}
    settings |= {"flow.text": str(write_t5(tmp_path / "t5")), "flow.tokens": TOKENS, "flow.vae": str(tmp_path / "vae")}
    sizes = {"hidden_size": 16, "depth": 1, "num_heads": 2, "mlp_ratio": 2.0, "input_sq_size": 16, "pred_sigma": True}
    config = load_preset("toy", settings | {f"stdit3.{name}": value for name, value in sizes.items()}, task="stdit3")
    run = tmp_path / "run"
    for step, seed in ((1, 4), (2, 3)):
        weights = tiny_denoiser(seed).state_dict()
        checkpoint = save_checkpoint(run, step, tiny_denoiser(9).state_dict(), weights, {}, {}, keep=2)
        config.save(checkpoint / "config.yaml")
    config.save(run / "config.yaml")
    assert holds_text_to_video(run) and holds_text_to_video(checkpoint)
    pipe = TextToVideoPipeline.from_pretrained(run)
    assert all(torch.equal(pipe.denoiser.state_dict()[name], weight) for name, weight in weights.items())
    assert pipe.settings == VideoSettings(5, 8, 8, config.data.fps, 2, 2.5, eta=1.0)
    film = pipe("a red ring")
    assert film.shape == (1, 3, 5, 8, 8)
    assert torch.equal(TextToVideoPipeline.from_pretrained(checkpoint)("a red ring"), film)
    older = checkpoint.with_name("step-00000001")
    assert not torch.equal(TextToVideoPipeline.from_pretrained(older)("a red ring"), film)
    load_preset("toy").save(checkpoint / "config.yaml")
    with pytest.raises(UserError, match="holds a trained unet3d; expected a run of `minivdm train stdit3`"):
        TextToVideoPipeline.from_pretrained(checkpoint)


def write_open_sora(folder, **t5):
    """The three pieces of Open-Sora 1.2, as they are published but tiny."""
    torch.manual_seed(5)
    vae2d = AutoEncoder2D(ch=4, ch_mult=(1, 2), num_res_blocks=1, norm_groups=2, quant_conv=True)
    sizes = {"filters": 4, "num_res_blocks": 1, "channel_multipliers": [1, 1, 1], "num_groups": 2}
    sizes["temporal_downsample"] = [True, True]
    temporal = TemporalVAE(**sizes, norm="group")
    weights = {
        f"spatial_vae.module.{key}": value for key, value in autoencoder_to_diffusers(vae2d.state_dict()).items()
    }
    weights |= {f"temporal_vae.{key}": value for key, value in temporal.state_dict().items()}
    weights |= {"shift": torch.full((1, 4, 1, 1, 1), 0.2), "scale": torch.full((1, 4, 1, 1, 1), 1.5)}
    (folder / "vae").mkdir()
    safetensors.torch.save_file({k: v.contiguous() for k, v in weights.items()}, folder / "vae" / "model.safetensors")
    entries = {"model_type": "VideoAutoencoderPipeline", "micro_frame_size": 17}
    entries["vae_temporal"] = {"type": "VAE_Temporal", "from_pretrained": None} | sizes
    (folder / "vae" / "config.json").write_text(json.dumps(entries))
    kl = {"block_out_channels": [4, 8], "layers_per_block": 1, "latent_channels": 4, "norm_num_groups": 2}
    (folder / "kl").mkdir()
    (folder / "kl" / "config.json").write_text(json.dumps(kl))
    tiny_denoiser(in_channels=4).save_pretrained(folder / "denoiser")
    config = json.loads((folder / "denoiser" / "config.json").read_text())
    config |= {"model_type": "STDiT3", "enable_flash_attn": True, "input_size": [None, None, None]}
    (folder / "denoiser" / "config.json").write_text(json.dumps(config))
    write_t5(folder / "t5", **t5)
    pieces = {"denoiser": folder / "denoiser", "vae": folder / "vae", "vae2d": folder / "kl", "text": folder / "t5"}
    return pieces, vae2d.eval(), temporal.eval()


def test_open_sora_from_its_pieces(tmp_path):
    pieces, vae2d, temporal = write_open_sora(tmp_path)
    pipe = TextToVideoPipeline.from_open_sora(**pieces)
    assert pipe.settings == OPEN_SORA and pipe.vae.micro_frame_size == 17 and isinstance(pipe.denoiser, STDiT3)
    clip = torch.rand(1, 3, 19, 8, 12, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = vae2d.encode(clip.transpose(1, 2).flatten(0, 1), sample=False).unflatten(0, (1, 19)).transpose(1, 2)
    pieces_apart = [temporal.encode(piece, sample=False) for piece in latents.split(17, dim=2)]
    torch.testing.assert_close(pipe.vae.encode(clip, sample=False), (torch.cat(pieces_apart, dim=2) - 0.2) / 1.5)
    film = pipe("a red ring", frames=19, size=(8, 12), steps=2)
    assert film.shape == (1, 3, 19, 8, 12) and film.isfinite().all()


def test_a_text_encoder_of_another_width_is_told_with_both(tmp_path):
    pieces, *_ = write_open_sora(tmp_path, width=20)
    with pytest.raises(UserError, match="width of the text encoder 20, but the denoiser was made for 12"):
        TextToVideoPipeline.from_open_sora(**pieces)
    config = tmp_path / "vae" / "config.json"
    config.write_text(json.dumps({"vae_temporal": {"type": "VAE_Other"}}))
    with pytest.raises(UserError, match="a temporal VAE of type 'VAE_Other'; expected VAE_Temporal_SD or VAE_Temporal"):
        TextToVideoPipeline.from_open_sora(**pieces)


def test_folders_without_a_pipeline_are_one_line(folder, tmp_path):
    with pytest.raises(UserError, match="no trained model in .*nowhere; expected a run folder"):
        TextToVideoPipeline.from_pretrained(tmp_path / "nowhere")
    assert not holds_text_to_video(tmp_path / "nowhere")
    broken = shutil.copytree(folder, tmp_path / "broken")
    for content, line in [
        ("{", "cannot read .*pipeline.json"),
        ("{}", "cannot read .*pipeline.json .*'settings'"),
        ("[]", "cannot read .*pipeline.json"),
        ('{"settings": {"framse": 5}}', "unknown pipeline settings framse: known are frames"),
        ('{"settings": {"frames": 0}}', "frames is 0"),
    ]:
        (broken / "pipeline.json").write_text(content)
        with pytest.raises(UserError, match=line) as error:
            TextToVideoPipeline.from_pretrained(broken)
        assert "\n" not in str(error.value)
    shutil.copy(folder / "pipeline.json", broken / "pipeline.json")
    shutil.rmtree(broken / "text_encoder")
    with pytest.raises(UserError, match="text encoder .*text_encoder"):
        TextToVideoPipeline.from_pretrained(broken)
