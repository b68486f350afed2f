import json
import math

import pytest
import torch
from stdit3_models import SIZES, awake, inputs

from minivdm.denoisers import STDiT3, STDiT3Config
from minivdm.errors import UserError


def test_a_new_model_is_an_image_model():
    """Silent temporal blocks: every frame of a clip is what it would be as a picture, whatever the other frames are."""
    model = awake()
    with torch.no_grad():
        for block in model.temporal_blocks:
            for layer in (block.attn.proj, block.cross_attn.proj, block.mlp.fc2):
                layer.weight.zero_()
                layer.bias.zero_()
        clip = inputs(model)
        y = model(**clip)
        for frame in range(3):
            alone = model(**clip | {"x": clip["x"][:, :, frame : frame + 1]})
            torch.testing.assert_close(y[:, :, frame : frame + 1], alone, rtol=1e-5, atol=1e-5)
    for block in STDiT3(**SIZES).temporal_blocks:
        for layer in (block.attn.proj, block.cross_attn.proj, block.mlp.fc2):
            assert not layer.weight.any() and not layer.bias.any()


def test_frames_meet_in_the_temporal_blocks_only():
    model = awake()
    clip = inputs(model)
    other = clip["x"].clone()
    other[:, :, 2] += 1
    with torch.no_grad():
        assert (model(**clip) - model(**clip | {"x": other}))[:, :, 0].abs().max() > 1e-3


def test_a_new_model_predicts_zero_and_does_not_hear_the_text():
    torch.manual_seed(0)
    model = STDiT3(**SIZES)
    clip = inputs(model)
    assert not model(**clip).any()
    torch.nn.init.normal_(model.final_layer.linear.weight)
    torch.testing.assert_close(model(**clip), model(**clip | {"y": clip["y"] + 1}), rtol=0, atol=0)


@torch.no_grad()
def test_masked_tokens_have_no_influence():
    model = awake()
    clip = inputs(model)
    mask = torch.tensor([[1, 1, 0, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0]])
    loud = torch.where(mask[:, None, :, None] != 0, clip["y"], 1e3)
    y = model(**clip, mask=mask)
    torch.testing.assert_close(y, model(**clip | {"y": loud}, mask=mask), rtol=0, atol=0)
    assert (y - model(**clip)).abs().max() > 1e-3
    # texts may also be cut to the longest
    torch.testing.assert_close(y, model(**clip | {"y": clip["y"][:, :, :4]}, mask=mask[:, :4]), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_clips_of_a_batch_do_not_see_each_other():
    model = awake()
    clip = inputs(model)
    clip["height"], clip["width"] = torch.tensor([40.0, 90.0]), torch.tensor([48.0, 30.0])
    together = model(**clip)
    for b in range(2):
        alone = model(**{name: value[b : b + 1] for name, value in clip.items()})
        torch.testing.assert_close(together[b : b + 1], alone, rtol=1e-5, atol=1e-5)
    upstream = STDiT3(model.config, first_size_only=True).eval()
    upstream.load_state_dict(model.state_dict())
    assert (upstream(**clip) - together)[0].abs().max() < 1e-5 < (upstream(**clip) - together)[1].abs().max()


@torch.no_grad()
def test_a_guidance_pair_shares_its_masks():
    """Texts in front, no text behind, the masks of the prompts for both: a, b, a, b."""
    model = awake()
    clip = inputs(model, batch=4)
    clip["y"][2:] = model.null_text(2)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0]])
    torch.testing.assert_close(model(**clip, mask=mask), model(**clip, mask=mask.repeat(2, 1)), rtol=0, atol=0)
    wrong = mask.repeat_interleave(2, dim=0)
    assert (model(**clip, mask=mask) - model(**clip, mask=wrong)).abs().max() > 1e-3


@torch.no_grad()
def test_a_dropped_text_is_the_null_text():
    model = awake()
    clip = inputs(model)
    drop = torch.tensor([False, True])
    expected = clip["y"].clone()
    expected[1] = model.null_text(1)
    torch.testing.assert_close(model(**clip, drop_text=drop), model(**clip | {"y": expected}), rtol=0, atol=0)
    with pytest.raises(UserError, match="4 text tokens .* model_max_length 7"):
        model(**clip | {"y": clip["y"][:, :, :4]}, drop_text=drop)


def test_the_share_of_dropped_texts():
    model = STDiT3(**SIZES | {"class_dropout_prob": 0.3})
    drops = model.draw_text_drop(5000, torch.Generator().manual_seed(0))
    assert drops.dtype == torch.bool and abs(drops.float().mean() - 0.3) < 0.02
    assert not STDiT3(**SIZES | {"class_dropout_prob": 0.0}).draw_text_drop(50).any()


@torch.no_grad()
def test_clean_frames_are_told_timestep_zero():
    model = awake()
    clip = inputs(model)
    moving = torch.ones(2, 3, dtype=torch.bool)
    torch.testing.assert_close(model(**clip, x_mask=moving), model(**clip), rtol=1e-6, atol=1e-6)
    at_zero = model(**clip | {"timestep": torch.zeros(2)})
    torch.testing.assert_close(model(**clip, x_mask=~moving), at_zero, rtol=1e-6, atol=1e-6)
    moving[0, 1] = False
    twice = STDiT3(model.config, double_modulate=True).eval()
    twice.load_state_dict(model.state_dict())
    difference = (twice(**clip, x_mask=moving) - model(**clip, x_mask=moving)).abs().amax((1, 3, 4))
    assert difference[0, 1] > 1e-3 and difference.count_nonzero() == 1


def test_checkpointing_keeps_less_and_changes_no_gradient():
    gradients, kept = [], []

    def keep(tensor):
        kept[-1] += tensor.numel()
        return tensor

    for checkpointing in (False, True):
        model = awake().train()
        model.gradient_checkpointing = checkpointing
        clip = inputs(model)
        clip["x"].requires_grad_()
        kept.append(0)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = model(**clip, x_mask=torch.tensor([[0, 1, 1], [1, 1, 1]])).square().sum()
        loss.backward()
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
        gradients.append([clip["x"].grad, *(p.grad for p in model.parameters() if p.requires_grad)])
    assert kept[1] < 0.5 * kept[0]
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, again, rtol=0, atol=0)


@torch.no_grad()
def test_half_precision_stays_close():
    model = awake()
    clip = inputs(model)
    exact = model(**clip)
    rough = model.to(torch.bfloat16)(**clip)
    assert rough.dtype == torch.float32 and (rough - exact).abs().max() < 0.1 * exact.abs().max()


def test_saved_and_read_again(tmp_path):
    model = awake(patch_size=(2, 1, 2), double_modulate=True)
    model.save_pretrained(tmp_path)
    again = STDiT3.from_pretrained(tmp_path, gradient_checkpointing=True)
    assert again.config == model.config and again.gradient_checkpointing and not again.training
    for key, value in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[key], value, rtol=0, atol=0)
    with pytest.raises(UserError, match="depth|lacks"):
        STDiT3.from_pretrained(tmp_path, depth=3)


def test_a_folder_saved_by_upstream(tmp_path):
    """Its config.json says more than sizes."""
    model = awake()
    model.save_pretrained(tmp_path)
    extra = {"model_type": "STDiT3", "architectures": ["STDiT3"], "input_size": [None] * 3, "drop_path": 0.0}
    extra |= {"enable_flash_attn": True, "skip_y_embedder": False, "torch_dtype": "float32"}
    (tmp_path / "config.json").write_text(json.dumps(SIZES | extra))
    assert STDiT3.from_pretrained(tmp_path).config == model.config


def test_configurations_of_upstream():
    given = {"type": "STDiT3-3B/2", "from_pretrained": "somewhere", "force_huggingface": True, "in_channels": 16}
    assert STDiT3Config.from_dict(given) == STDiT3Config(hidden_size=1872, num_heads=26, in_channels=16)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"width": 3}, "has no width: known are in_channels"),
        ({"skip_y_embedder": True}, "has no skip_y_embedder"),
        ({"type": "STDiT3-9B/2"}, "'STDiT3-9B/2': known are STDiT3, STDiT3-XL/2"),
        ({"num_heads": 5}, "hidden_size 24 with num_heads 5"),
        ({"hidden_size": 6, "num_heads": 3}, "hidden_size 6"),
        ({"depth": 0}, "depth is 0"),
        ({"patch_size": (2, 2)}, "expected \\(frames, rows, columns\\)"),
        ({"patch_size": (1, 0, 2)}, "every patch_size is 0"),
        ({"class_dropout_prob": 1.5}, "class_dropout_prob is 1.5"),
    ],
)
def test_impossible_sizes_are_one_line(fields, says):
    with pytest.raises(UserError, match=says) as caught:
        STDiT3(**SIZES | fields)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"x": torch.zeros(2, 4, 3, 5, 6)}, r"latent of shape \(2, 4, 3, 5, 6\): expected \(B, 3, T, H, W\)"),
        ({"x": torch.zeros(2, 3, 0, 5, 6)}, "all from 1 on"),
        ({"x": torch.zeros(2, 3, 5, 6)}, "latent of shape"),
        ({"timestep": torch.zeros(1)}, r"timestep of shape \(1,\): expected \(2,\)"),
        ({"y": torch.zeros(2, 1, 7, 11)}, r"expected \(2, 1, L, 10\)"),
        ({"y": torch.zeros(3, 1, 7, 10)}, "text of shape"),
        ({"mask": torch.ones(2, 6)}, r"text mask of shape \(2, 6\): expected \(2, 7\)"),
        ({"mask": torch.ones(3, 7)}, "text mask of shape"),
        ({"mask": torch.ones(0, 7)}, "text mask of shape"),
        ({"x_mask": torch.ones(2, 5)}, r"frame mask of shape \(2, 5\): expected \(2, 3\)"),
        ({"fps": torch.ones(3)}, r"fps of shape \(3,\): expected \(2,\)"),
        ({"width": torch.ones(2, 1)}, r"width of shape \(2, 1\): expected \(2,\)"),
    ],
)
def test_inputs_that_do_not_fit_are_one_line(changes, says):
    model = STDiT3(**SIZES)
    with pytest.raises(UserError, match=says) as caught:
        model(**inputs(model) | changes)
    assert "\n" not in str(caught.value)


@torch.no_grad()
def test_one_size_serves_the_batch_and_texts_come_with_or_without_their_axis():
    model = awake()
    clip = inputs(model)
    clip["fps"] = torch.full((2,), 12.0)
    one = {name: clip[name][:1] for name in ("fps", "height", "width")}
    torch.testing.assert_close(model(**clip), model(**clip | one | {"y": clip["y"][:, 0]}), rtol=0, atol=0)


@torch.no_grad()
def test_a_text_of_nothing_is_finite():
    model = awake()
    y = model(**inputs(model), mask=torch.zeros(2, 7))
    assert math.isfinite(y.abs().max().item())
