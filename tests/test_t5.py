import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import T5Config, T5EncoderModel
from transformers.models.t5.modeling_t5 import T5Attention

from minivdm.errors import UserError
from minivdm.text import T5Encoder, T5EncoderConfig
from minivdm.text.t5 import buckets

SIZES = {"vocab_size": 23, "d_model": 12, "d_kv": 5, "d_ff": 19, "num_layers": 2, "num_heads": 3}
SIZE = st.integers(1, 9)


def normal_(model, seed=0):
    """Every weight drawn anew, also those that start at 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in dict.fromkeys(model.parameters()):
            weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    return model.eval().requires_grad_(False)


def ours(**sizes):
    return normal_(T5Encoder(T5EncoderConfig(**SIZES | sizes)))


def theirs(config):
    return T5EncoderModel(T5Config(**dataclasses.asdict(config), feed_forward_proj="gated-gelu")).eval()


def tokens(batch, length, vocab_size=SIZES["vocab_size"], seed=0):
    return torch.randint(0, vocab_size, (batch, length), generator=torch.Generator().manual_seed(seed))


@settings(max_examples=30, deadline=None)
@given(
    st.builds(
        T5EncoderConfig,
        vocab_size=st.integers(2, 40),
        d_model=st.integers(2, 13),
        d_kv=SIZE,
        d_ff=st.integers(1, 17),
        num_layers=st.integers(1, 3),
        num_heads=st.integers(1, 4),
        relative_attention_num_buckets=st.integers(4, 33),
        relative_attention_max_distance=st.integers(17, 40),
        layer_norm_epsilon=st.sampled_from([1e-6, 1e-3]),
    ),
    st.data(),
)
def test_it_equals_the_t5_of_transformers_and_weights_go_both_ways(config, data):
    batch, length, seed = data.draw(SIZE), data.draw(st.integers(1, 50)), data.draw(st.integers(0, 99))
    model, reference = normal_(T5Encoder(config), seed), theirs(config)
    reference.load_state_dict(model.state_dict())
    ids = tokens(batch, length, config.vocab_size, seed)
    real = torch.arange(length) <= tokens(batch, 1, length, seed)
    with torch.no_grad():
        for mask in (None, real, real.flip(1)):
            found = model(ids, mask)
            assert found.shape == (batch, length, config.d_model)
            expected = reference(input_ids=ids, attention_mask=None if mask is None else mask.long()).last_hidden_state
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        normal_(reference, seed + 1)
        model.load_state_dict(reference.state_dict())
        torch.testing.assert_close(model(ids), reference(ids).last_hidden_state, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_buckets, max_distance", [(32, 128), (8, 20), (7, 9), (33, 64)])
def test_distances_are_told_apart_as_in_t5(num_buckets, max_distance):
    found = buckets(300, num_buckets, max_distance)
    ahead = torch.arange(300)[None] - torch.arange(300)[:, None]
    expected = T5Attention._relative_position_bucket(ahead, True, num_buckets, max_distance)
    assert torch.equal(found, expected)
    assert found[0, 0] == 0 and found.max() < num_buckets
    assert found[5, 7] == found[50, 52] != found[7, 5]  # the distance and its direction count, not the place


def test_names_and_numbers_of_weights_are_those_of_the_published_models():
    sizes = {"vocab_size": 32128, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
    with torch.device("meta"):
        model = T5Encoder(T5EncoderConfig(**sizes))
        reference = theirs(model.config)
    shapes = {name: weight.shape for name, weight in model.state_dict().items()}
    assert shapes == {name: weight.shape for name, weight in reference.state_dict().items()}
    assert round(sum(weight.numel() for weight in model.parameters()) / 1e9, 2) == 4.76


def test_new_weights_are_as_large_as_in_transformers():
    torch.manual_seed(0)
    model = T5Encoder(T5EncoderConfig(300, 60, 20, 150, 2, 5))
    reference = theirs(model.config)
    for name, weight in reference.state_dict().items():
        found = model.state_dict()[name].std(correction=0)
        torch.testing.assert_close(found, weight.std(correction=0), rtol=0.15, atol=0)


def test_pads_have_no_influence_where_they_are_masked():
    model, ids = ours(), tokens(2, 9)
    mask = torch.arange(9) < torch.tensor([[6], [4]])
    y = model(ids, mask)
    other = torch.where(mask, ids, (ids + 1) % SIZES["vocab_size"])
    torch.testing.assert_close(model(other, mask)[mask], y[mask], rtol=0, atol=0)
    assert (model(other) - model(ids))[mask].abs().max() > 1e-3
    torch.testing.assert_close(model(ids[1:, :4])[0], y[1, :4], rtol=1e-5, atol=1e-6)


def test_texts_of_a_batch_do_not_see_each_other():
    model, ids = ours(), tokens(3, 7)
    together = model(ids)
    for row in range(3):
        torch.testing.assert_close(together[row], model(ids[row : row + 1])[0], rtol=1e-5, atol=1e-6)


def test_order_is_known_from_the_relative_bias_alone():
    """Without it, other orders give the same vectors in another order; there is no table of positions."""
    model, ids = ours(), tokens(2, 8)
    order = torch.tensor([3, 0, 7, 1, 6, 2, 5, 4])
    assert (model(ids[:, order]) - model(ids)[:, order]).abs().max() > 1e-2
    model.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight.zero_()
    torch.testing.assert_close(model(ids[:, order]), model(ids)[:, order], rtol=1e-5, atol=1e-6)


def test_all_layers_share_the_bias_of_the_first():
    owners = [name for name, _ in ours(num_layers=3).named_parameters() if "relative_attention_bias" in name]
    assert owners == ["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]


def test_half_precision_stays_close_and_finite_where_sums_exceed_it():
    model, ids = ours(), tokens(2, 7)
    layer = model.encoder.block[0].layer[1]["DenseReluDense"]
    for weight in (layer.wi_0.weight, layer.wi_1.weight):
        weight.mul_(3000)  # one half of the feed-forward is within float16, their product is not
    y = model(ids)
    reference = theirs(model.config)
    reference.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert not reference.half()(ids).last_hidden_state.isfinite().all()
    half = model.half()(ids)
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), y, rtol=0.02, atol=0.02)


def test_a_configuration_of_transformers_is_read():
    stored = T5Config(**SIZES | {"feed_forward_proj": "gated-gelu", "layer_norm_epsilon": 1e-5}).to_dict()
    assert T5EncoderConfig.from_dict(stored) == T5EncoderConfig(**SIZES, layer_norm_epsilon=1e-5)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"feed_forward_proj": "relu"}, "'relu'; expected 't5', 'gated-gelu'"),
        ({"model_type": "bert"}, "'bert'"),
        ({"d_kv": None}, "lacks d_kv;"),
    ],
)
def test_other_configurations_are_refused_in_one_line(change, words):
    stored = {"model_type": "t5", "feed_forward_proj": "gated-gelu"} | SIZES | change
    with pytest.raises(UserError, match=words) as refusal:
        T5EncoderConfig.from_dict({name: value for name, value in stored.items() if value is not None})
    assert "\n" not in str(refusal.value)
