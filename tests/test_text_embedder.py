import json
import subprocess
import sys
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from text_models import CLIP_POSITIONS, CLIP_WIDTH, T5_WIDTH, WORDS, awake, clip_config, save_clip, save_t5, t5_config
from transformers import CLIPConfig, CLIPModel, CLIPTextModel, T5EncoderModel, T5ForConditionalGeneration

from minivdm.errors import UserError
from minivdm.text import T5Encoder, T5EncoderConfig, TextEmbedder

PROMPTS = ["a large red peony high on the left", "", "blue ring"]
LENGTHS = [9, 1, 3]  # with the closing token


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    return save_t5(tmp_path_factory.mktemp("text") / "t5")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return save_clip(tmp_path_factory.mktemp("text") / "clip")


@pytest.fixture(scope="module")
def embedder(t5):
    return TextEmbedder(t5, 13)


def test_t5_gives_a_vector_for_each_token_and_says_which_are_real(embedder, t5):
    y, mask = embedder(PROMPTS)
    assert y.shape == (3, 13, T5_WIDTH) == (3, embedder.max_length, embedder.dim)
    assert y.dtype == torch.float32 and not y.requires_grad
    assert mask.dtype == torch.bool and mask.sum(1).tolist() == LENGTHS
    ids, _ = embedder.tokenize(PROMPTS)
    assert ids[1].tolist() == [1] + 12 * [0]  # nothing said: only </s>
    reference = T5EncoderModel.from_pretrained(t5).eval()
    with torch.no_grad():
        expected = reference(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    torch.testing.assert_close(y, expected, rtol=0, atol=0)


def test_our_own_t5_takes_its_weights_and_gives_its_numbers(embedder):
    ours = T5Encoder(T5EncoderConfig.from_dict(embedder.model.config.to_dict()))
    ours.load_state_dict(embedder.model.state_dict())
    y, mask = embedder(PROMPTS)
    with torch.no_grad():
        torch.testing.assert_close(ours(*embedder.tokenize(PROMPTS))[mask], y[mask], rtol=1e-5, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(texts=st.lists(st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join), min_size=1, max_size=4))
def test_a_text_means_the_same_whatever_it_is_padded_to_and_beside(embedder, texts):
    y, mask = embedder(texts)
    for row, text in enumerate(texts):
        alone = embedder.tokenizer(text)["input_ids"]
        with torch.no_grad():
            expected = embedder.model(input_ids=torch.tensor([alone])).last_hidden_state[0]
        torch.testing.assert_close(y[row, mask[row]], expected, rtol=1e-5, atol=1e-5)


def test_without_the_mask_pads_steer_the_real_tokens(t5):
    """The same prompt at two lengths: one meaning with the mask, two without."""
    spread = {}
    for attention_mask in (True, False):
        short, mask = TextEmbedder(t5, 13, attention_mask=attention_mask)(PROMPTS)
        long, long_mask = TextEmbedder(t5, 31, attention_mask=attention_mask)(PROMPTS)
        assert mask.sum(1).tolist() == long_mask.sum(1).tolist() == LENGTHS
        spread[attention_mask] = (short[mask] - long[long_mask]).abs().max()
    assert spread[True] < 1e-5 < 1e-2 < spread[False]


def test_without_the_mask_it_is_open_sora_2(t5):
    embedder = TextEmbedder(t5, 13, attention_mask=False)
    ids, _ = embedder.tokenize(PROMPTS)
    with torch.no_grad():
        expected = T5EncoderModel.from_pretrained(t5).eval()(input_ids=ids, attention_mask=None).last_hidden_state
    torch.testing.assert_close(embedder(PROMPTS)[0], expected, rtol=0, atol=0)


def test_clip_gives_tokens_and_one_vector_for_the_whole_text(clip):
    embedder = TextEmbedder(clip, 10)
    y, mask = embedder(PROMPTS)
    assert y.shape == (3, 10, CLIP_WIDTH) and mask.sum(1).tolist() == [10, 2, 4]
    pooled = embedder.pooled(PROMPTS)
    assert pooled.shape == (3, CLIP_WIDTH) == (3, embedder.dim)
    closing = mask.sum(1) - 1
    torch.testing.assert_close(pooled, y[torch.arange(3), closing], rtol=0, atol=0)
    reference = CLIPTextModel.from_pretrained(clip).eval()
    with torch.no_grad():  # upstream's call: no mask; CLIP only looks back, so the pads behind change nothing
        expected = reference(input_ids=embedder.tokenize(PROMPTS)[0], attention_mask=None).pooler_output
    torch.testing.assert_close(pooled, expected, rtol=1e-5, atol=1e-6)


def test_clip_ends_where_its_positions_end_and_t5_does_not(clip, t5):
    text = " ".join(WORDS)
    embedder = TextEmbedder(clip)
    assert embedder.max_length == CLIP_POSITIONS
    with pytest.warns(UserWarning, match="longer than 11 tokens"):
        y, mask = embedder([text])
    assert y.shape == (1, CLIP_POSITIONS, CLIP_WIDTH) and mask.all()
    y, mask = TextEmbedder(t5)([text])
    assert y.shape == (1, 300, T5_WIDTH) and mask.sum() == len(WORDS) + 1


def test_t5_has_no_vector_for_a_whole_text(embedder):
    with pytest.raises(UserError, match="expected CLIP"):
        embedder.pooled(PROMPTS)


def test_what_is_cut_off_is_named_once(t5):
    embedder = TextEmbedder(t5, 5)
    with pytest.warns(UserWarning) as caught:
        y, mask = embedder(["red ring", "a large red peony high\non the LEFT", "a small blue ring low on the right"])
    assert [str(warning.message) for warning in caught] == [
        "2 of 3 texts are longer than 5 tokens; cut off: 'high on the LEFT'"
    ]
    assert caught[0].filename == __file__
    assert y.shape == (3, 5, T5_WIDTH)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = embedder("a large red peony")[0]  # as long as there is room for
    torch.testing.assert_close(y[1:2], kept, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("align", [1, 4, 7])
@pytest.mark.parametrize("added", [0, 1, 10])
def test_lengths_are_aligned_with_pads(t5, align, added):
    embedder = TextEmbedder(t5, 10, seq_align=align)
    y, mask = embedder(PROMPTS, added_tokens=added)
    ids, _ = embedder.tokenize(PROMPTS, added)
    length = y.shape[1]
    assert (added + length) % align == 0 and 10 <= length < 10 + align
    assert ids.shape == mask.shape == (3, length) and mask.sum(1).tolist() == LENGTHS
    assert (ids[~mask] == embedder.tokenizer.pad_token_id).all()
    plain, plain_mask = TextEmbedder(t5, 10)(PROMPTS)
    torch.testing.assert_close(y[mask], plain[plain_mask], rtol=1e-5, atol=1e-5)


def test_clip_cannot_be_padded_beyond_its_positions(clip):
    assert TextEmbedder(clip, 7, seq_align=5)(PROMPTS[1:])[0].shape[1] == 10
    with pytest.raises(UserError, match="to 15, this CLIP has 11 positions"):
        TextEmbedder(clip, seq_align=5)(PROMPTS[1:])


def test_it_is_frozen_and_stays_so_inside_a_model_that_trains(embedder):
    whole = torch.nn.ModuleList([embedder]).train()
    assert not any(module.training for module in embedder.modules()) and whole.training
    assert not any(weight.requires_grad for weight in embedder.parameters())


def test_one_text_is_a_list_of_one_and_unknown_words_are_no_error(embedder):
    torch.testing.assert_close(embedder("red ring")[0], embedder(["red ring"])[0], rtol=0, atol=0)
    assert embedder.tokenize("red 불꽃놀이 ring")[0][0, :5].tolist() == [3 + WORDS.index("red"), 2, 3 + 7, 1, 0]
    with pytest.raises(UserError, match="no texts"):
        embedder([])


def test_saved_and_loaded_it_is_the_same(embedder, clip, tmp_path):
    for name, one in {"t5": embedder, "clip": TextEmbedder(clip, 10)}.items():
        one.save_pretrained(tmp_path / name)
        other = TextEmbedder(str(tmp_path / name), one.max_length)
        for found, expected in zip(other(PROMPTS), one(PROMPTS), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=0)
        assert other.model.state_dict().keys() == one.model.state_dict().keys()


def test_loading_and_saving_print_nothing(t5, tmp_path, capfd):
    TextEmbedder(t5, 13).save_pretrained(tmp_path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("feed_forward", ["gated-gelu", "relu"])
def test_float16_stays_right_where_plain_float16_overflows(tmp_path, feed_forward):
    model = awake(T5EncoderModel(t5_config(feed_forward_proj=feed_forward)))
    for name, weight in model.named_parameters():
        if "DenseReluDense" in name:
            weight.data *= 300
    save_t5(tmp_path, model)
    expected, mask = TextEmbedder(tmp_path, 13)(PROMPTS)
    embedder = TextEmbedder(tmp_path, 13, dtype=torch.float16)
    y, _ = embedder(PROMPTS)
    assert y.dtype == torch.float16
    torch.testing.assert_close(y[mask].float(), expected[mask], rtol=0.02, atol=0.02)
    with torch.no_grad():
        plain = model.eval().half()(*embedder.tokenize(PROMPTS)).last_hidden_state[mask].float()
    assert plain.isnan().any() or (plain - expected[mask]).abs().max() > 0.2  # the sums of a ReLU are clamped instead


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_optimised_is_the_same(t5, monkeypatch, dtype):
    compile_model = torch.compile
    calls = []

    def compile_quickly(function, dynamic):
        calls.append(dynamic)
        return compile_model(function, dynamic=dynamic, backend="eager")

    monkeypatch.setattr(torch, "compile", compile_quickly)
    plain = TextEmbedder(t5, 13, dtype=dtype)
    optimised = TextEmbedder(t5, 13, dtype=dtype, optimize=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for texts in (PROMPTS, PROMPTS[:2]):
            for found, expected in zip(optimised(texts), plain(texts), strict=True):
                assert found.dtype == expected.dtype
                torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)
    assert calls == [True]
    assert not any(weight.requires_grad for weight in optimised.parameters())
    assert optimised.state_dict().keys() == plain.state_dict().keys()


def test_where_nothing_can_be_compiled_it_runs_as_before(t5, embedder, monkeypatch):
    def no_compiler(*args, **kwargs):
        raise RuntimeError("no C++ compiler found\nmany more lines")

    monkeypatch.setattr(torch, "compile", lambda function, dynamic: no_compiler)
    optimised = TextEmbedder(t5, 13, optimize=True)
    with pytest.warns(UserWarning) as caught:
        y, _ = optimised(PROMPTS)
    assert [str(warning.message) for warning in caught] == [
        "the text encoder runs uncompiled (RuntimeError: no C++ compiler found)"
    ]
    torch.testing.assert_close(y, embedder(PROMPTS)[0], rtol=0, atol=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimised(PROMPTS)


def test_the_text_half_of_whole_models_is_taken(t5, clip, tmp_path):
    whole_t5 = awake(T5ForConditionalGeneration(t5_config(is_encoder_decoder=True)))
    vision = {"hidden_size": 8, "intermediate_size": 9, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = clip_config().to_dict()
    vision |= {"image_size": 4, "patch_size": 2}
    whole_clip = awake(CLIPModel(CLIPConfig(text_config=text, vision_config=vision)))
    found = TextEmbedder(save_t5(tmp_path / "t5", whole_t5), 13)
    for name, weight in found.model.encoder.state_dict().items():
        torch.testing.assert_close(weight, whole_t5.encoder.state_dict()[name], rtol=0, atol=0)
    found = TextEmbedder(save_clip(tmp_path / "clip", whole_clip), 10)
    with torch.no_grad():
        expected = whole_clip.eval().text_model(*found.tokenize(PROMPTS)).pooler_output
    torch.testing.assert_close(found.pooled(PROMPTS), expected, rtol=1e-5, atol=1e-6)


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def rewrite(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights, next(name for name in weights if "wo" in name))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def custom_code(folder):
    edit(folder / "config.json", model_type="mine", auto_map={"AutoConfig": "mine.Config"})
    (folder / "mine.py").write_text(f"open({str(folder / 'it_ran')!r}, 'w')")


def pickle_only(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


BROKEN = {
    "config.json": lambda folder: (folder / "config.json").unlink(),
    "is not a valid JSON": lambda folder: (folder / "config.json").write_text("{"),
    "type 'bert'": lambda folder: edit(folder / "config.json", model_type="bert"),
    "custom code": custom_code,
    "no model.safetensors": lambda folder: (folder / "model.safetensors").unlink(),
    "pickled weights": pickle_only,
    "deserializing header": lambda folder: (folder / "model.safetensors").write_bytes(b"torn"),
    "lacks 1 weights": lambda folder: rewrite(folder, lambda weights, key: weights.pop(key)),
    "another shape": lambda folder: rewrite(folder, lambda w, key: w.update({key: w[key][:, :3].contiguous()})),
    "beyond what its config": lambda folder: edit(folder / "config.json", num_layers=1),
    "no tokenizer": lambda folder: (folder / "tokenizer.json").unlink(),
    "has 21 tokens and its model 20": lambda folder: save_t5(folder, T5EncoderModel(t5_config(vocab_size=20))),
}


@pytest.mark.parametrize("words", BROKEN)
def test_what_is_no_encoder_is_refused_in_one_line(tmp_path, words, capfd):
    BROKEN[words](save_t5(tmp_path / "t5"))
    capfd.readouterr()
    with pytest.raises(UserError, match=words) as refusal:
        TextEmbedder(tmp_path / "t5", 13)
    assert "\n" not in str(refusal.value) and "t5" in str(refusal.value) and "expected" in str(refusal.value)
    assert not (tmp_path / "t5" / "it_ran").exists()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("source", ["/no/such/folder", "nobody/no-such-model"])
def test_what_does_not_exist_is_told_in_one_line(source):
    with pytest.raises(UserError, match=f"{source}.*no such folder") as refusal:
        TextEmbedder(source, local_files_only=True)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("options, words", [({"max_length": 1}, "no room"), ({"seq_align": 0}, "seq_align=0")])
def test_impossible_lengths_are_refused(t5, options, words):
    with pytest.raises(UserError, match=words):
        TextEmbedder(t5, **options)


def test_transformers_is_imported_only_when_an_encoder_is_loaded():
    code = "import sys, minivdm.text; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
