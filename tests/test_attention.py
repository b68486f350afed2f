import pytest
import torch
import torch.nn.functional as F
from einops import rearrange

from minivdm.denoisers import attention as module
from minivdm.denoisers.attention import LinearAttention, SpatialAttention, TemporalAttention
from minivdm.denoisers.embeddings import RelativePositionBias, RotaryEmbedding, rotate

BATCH, FRAMES, HEIGHT, WIDTH, HEADS, DIM_HEAD = 2, 5, 3, 4, 3, 6


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def temporal(dim, generator):
    """A temporal attention and what it needs to know about time."""
    torch.manual_seed(0)
    attention = TemporalAttention(dim, HEADS, DIM_HEAD)
    return attention, RotaryEmbedding(DIM_HEAD, 4)(FRAMES), RelativePositionBias(HEADS)(FRAMES)


def clips(dim, generator):
    return torch.randn(BATCH * FRAMES, dim, HEIGHT, WIDTH, generator=generator)


@pytest.mark.parametrize("dim", [9, 20], ids=["tokens narrower than two heads", "wider"])
@pytest.mark.parametrize("way", ["_attend_by_head", "_attend_at_once"])
def test_temporal_attention_equals_its_definition(dim, way, generator, monkeypatch):
    monkeypatch.setattr(module, "_attend_by_head", getattr(module, way))
    attention, rotation, bias = temporal(dim, generator)
    tokens = torch.randn(BATCH, 7, FRAMES, dim, generator=generator)
    qkv = rearrange(attention.to_qkv(tokens), "b s t (three h d) -> three b s h t d", three=3, h=HEADS)
    query, key, value = rotate(qkv[0], rotation), rotate(qkv[1], rotation), qkv[2]
    logits = torch.einsum("bshid,bshjd->bshij", query, key) / DIM_HEAD**0.5 + bias
    expected = torch.einsum("bshij,bshjd->bshid", logits.softmax(-1), value)
    expected = attention.to_out(rearrange(expected, "b s h t d -> b s t (h d)"))
    torch.testing.assert_close(attention.attend(tokens, rotation, bias), expected, atol=1e-5, rtol=1e-5)


def test_both_ways_of_temporal_attention_have_the_same_gradients(generator):
    attention, rotation, bias = temporal(9, generator)
    x = torch.randn(7, FRAMES, 9, generator=generator)
    inputs = [x, attention.to_qkv.weight.detach(), attention.to_out.weight.detach(), rotation, bias.detach()]
    gradients = []
    for way in (module._attend_by_head, module._attend_at_once):
        leaves = [tensor.clone().requires_grad_(not tensor.is_complex()) for tensor in inputs]
        way(*leaves).square().sum().backward()
        gradients.append([leaf.grad for leaf in leaves if leaf.requires_grad])
    for ours, other in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, other, atol=1e-4, rtol=1e-4)


def test_fused_attention_in_portions_equals_the_whole(generator):
    query, key, value = torch.randn(3, 7, HEADS, FRAMES, DIM_HEAD, generator=generator)
    bias = torch.randn(HEADS, FRAMES, FRAMES, generator=generator)
    torch.testing.assert_close(module._fused(query, key, value, bias, 3), module._fused(query, key, value, bias, 7))


def test_temporal_attention_keeps_pixels_and_clips_apart(generator):
    attention, rotation, bias = temporal(9, generator)
    x = clips(9, generator).requires_grad_()
    y = rearrange(attention(x, rotation, bias), "(b t) c h w -> b t c h w", b=BATCH)
    (gradient,) = torch.autograd.grad(y[1, 2, :, 0, 3].sum(), x)
    reached = rearrange(gradient, "(b t) c h w -> b t h w c", b=BATCH).abs().sum(-1) > 0
    assert reached[1, :, 0, 3].all()
    assert reached.sum() == FRAMES


def test_focused_clips_take_their_own_values_and_leave_the_bias_alone(generator):
    attention, rotation, bias = temporal(9, generator)
    tokens = torch.randn(BATCH, 7, FRAMES, 9, generator=generator)
    free = attention.attend(tokens, rotation, bias)
    focused = attention.attend(tokens, rotation, bias, torch.tensor([False, True]))
    torch.testing.assert_close(focused[0], free[0])
    value = F.linear(tokens[1], attention.to_qkv.weight.chunk(3)[2])
    torch.testing.assert_close(focused[1], attention.to_out(value))


def test_linear_attention_equals_its_definition(generator):
    torch.manual_seed(0)
    attention = LinearAttention(9, HEADS, DIM_HEAD)
    tokens = torch.randn(4, 11, 9, generator=generator)
    qkv = rearrange(attention.to_qkv(tokens), "n s (three h d) -> three n h s d", three=3, h=HEADS)
    query, key, value = qkv[0].softmax(-1) / DIM_HEAD**0.5, qkv[1].softmax(-2), qkv[2]
    expected = torch.einsum("nhsd,nhpd,nhpe->nhse", query, key, value)  # compares every pair of positions
    expected = attention.to_out(rearrange(expected, "n h s d -> n s (h d)"))
    torch.testing.assert_close(attention.attend(tokens), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", [LinearAttention, SpatialAttention])
def test_attention_within_frames_keeps_frames_apart_and_does_not_know_positions(kind, generator):
    torch.manual_seed(0)
    attention = kind(9, HEADS, DIM_HEAD)
    x = clips(9, generator).requires_grad_()
    y = attention(x)
    (gradient,) = torch.autograd.grad(y[3, :, 1, 2].sum(), x)
    reached = gradient.abs().sum(1) > 0
    assert reached[3].all() and reached.sum() == HEIGHT * WIDTH
    torch.testing.assert_close(attention(x.flip(-1)), y.flip(-1), atol=1e-6, rtol=1e-5)


def test_spatial_attention_equals_its_definition(generator):
    torch.manual_seed(0)
    attention = SpatialAttention(9, HEADS, DIM_HEAD)
    x = clips(9, generator)
    tokens = rearrange(x, "n c h w -> n (h w) c")
    qkv = rearrange(attention.to_qkv(attention.norm(tokens)), "n s (three h d) -> three n h s d", three=3, h=HEADS)
    logits = qkv[0] @ qkv[1].transpose(-1, -2) / DIM_HEAD**0.5
    expected = attention.to_out(rearrange(logits.softmax(-1) @ qkv[2], "n h s d -> n s (h d)"))
    expected = x + rearrange(expected, "n (h w) c -> n c h w", h=HEIGHT)
    torch.testing.assert_close(attention(x), expected, atol=1e-5, rtol=1e-5)
