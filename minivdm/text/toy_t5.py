"""The toy T5: a tokenizer of whole words, and three ways of learning language from captions alone.

    tokenizer = make_tokenizer()
    listing("a tiny red ring on the left high up, then a big palm in blue at the bottom right")
    # "high left : small red ring first ; low right : large blue palm second"

*Span corruption*, T5's own (Raffel et al. 2020), hides some words and asks for them: it teaches which words stand
where, and so makes all colours alike, since any of them could have stood there. *Listing*, text to text as well, asks
for the meaning of the whole: who is where, with which colour, shape and size, and in which order. *Reading* asks every
word for what it says itself, and where and when the shell is that it says it of: "red" has to know that it is the red
of the one high on the left. That is what a picture model needs to look words up by place.
"""

import itertools

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from minivdm.data.captions import ANY_SHAPE, MEANING, VOCABULARY, parse_caption
from minivdm.data.scenes import ATTRIBUTES, COLUMNS, ONE_AFTER_ANOTHER, ROWS, Scene

SPECIAL = ("<pad>", "</s>", "<unk>")  # their numbers are 0, 1, 2, as in every T5
SENTINELS = tuple(f"<extra_id_{number}>" for number in range(8))
ORDINALS = ("first", "second", "third")
WHEN = ("at once", *ORDINALS)  # in a clip whose shells burst together, and in one where they do not
QUESTIONS = ATTRIBUTES | {"when": WHEN}  # what a word may be asked about its shell, and the answers there are
OF_ALL = ("column", "row", "when")  # asked of every word of a shell; the others only of words that say it themselves
UNSAID = 0  # answer number k + 1 is the k-th name, this one that the caption does not say it
NOBODY = -100  # instead of an answer, where a word is not asked; `cross_entropy` leaves it out
MAX_TOKENS = 64  # the longest caption of three shells has 50
SPAN = 2  # mean number of words hidden in a row
HIDDEN = 0.25  # share of the words hidden; T5's 0.15 would leave most short captions whole


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Lower-case words and punctuation marks to numbers; every text ends in </s>, unknown words become <unk>."""
    words = sorted({*VOCABULARY, *ORDINALS, *ROWS, *COLUMNS, "firework", "somewhere", ",", ":", ";"})
    vocabulary = {token: number for number, token in enumerate((*SPECIAL, *words, *SENTINELS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\w+|[^\w\s]"), behavior="removed", invert=True)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=list(SENTINELS),
        model_max_length=MAX_TOKENS,
    )


def listing(text: str) -> str:
    """The meaning of a caption, place by place: what a taught T5 answers. Empty when the caption has none."""
    scene = parse_caption(text)
    return "" if scene is None else " ; ".join(f"{place} : {rest}" for place, rest in sorted(_entries(scene)))


def _entries(scene: Scene) -> list[tuple[str, str]]:
    entries = []
    for shell, step in zip(scene.shells, burst_steps(scene), strict=True):
        place = " ".join(word for word in (shell.row, shell.column) if word) or "somewhere"
        words = (shell.size, shell.colour, shell.shape or "firework", ORDINALS[min(step, len(ORDINALS) - 1)])
        entries.append((place, " ".join(word for word in words if word)))
    return entries


def burst_steps(scene: Scene) -> list[int]:
    """For each shell, how many times something burst clearly before it."""
    gaps = [later.burst - earlier.burst for earlier, later in itertools.pairwise(scene.shells)]
    return list(itertools.accumulate((gap > ONE_AFTER_ANOTHER for gap in gaps), initial=0))


def answers_for(tokens: list[str], owners: list[int | None], said: Scene) -> Tensor:
    """What each token (L,) should answer to QUESTIONS: (L, 6) long, from the shell that its word belongs to.

    owners: one per word, as `caption_with_owners` counts them; said: the shells as far as the caption tells. Where a
    token is not asked there is NOBODY: for what other words say, and for words that speak of no shell.
    """
    steps = burst_steps(said)
    whens = [step + 1 if max(steps) else 0 for step in steps]
    rows = [
        [_answer(names, getattr(shell, question)) for question, names in ATTRIBUTES.items()] + [when + 1]
        for shell, when in zip(said.shells, whens, strict=True)
    ]
    nobody, left = [NOBODY] * len(QUESTIONS), iter(owners)
    owned = ((token, next(left) if token[0].isalnum() else None) for token in tokens)
    return torch.tensor([nobody if owner is None else _asked(token, rows[owner]) for token, owner in owned])


def _asked(token: str, row: list[int]) -> list[int]:
    """The answers `row` of a shell, as far as this one of its words is asked for them."""
    says = "shape" if token in ANY_SHAPE else MEANING.get(token, ("",))[0]
    answers = zip(QUESTIONS, row, strict=True)
    return [answer if question in OF_ALL or question == says else NOBODY for question, answer in answers]


def _answer(names: tuple[str, ...], name: str | None) -> int:
    return UNSAID if name is None else 1 + names.index(name)


def corrupt_spans(tokens: Tensor, generator: torch.Generator, first_sentinel: int) -> tuple[Tensor, Tensor]:
    """Hide spans of a text (L,): (inputs, targets), as in T5's pre-training (Raffel et al. 2020, section 3.1.4).

    Each hidden span is one sentinel in the inputs; the targets are each sentinel followed by what it hides.
    """
    end, words = tokens[-1:], tokens[:-1]
    count = max(1, min(len(SENTINELS), round(HIDDEN * len(words) / SPAN)))
    starts = torch.randperm(len(words), generator=generator)[:count].sort().values.tolist()
    lengths = torch.randint(1, 2 * SPAN, (count,), generator=generator).tolist()
    inputs, targets, done = [], [], 0
    for number, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        start = max(start, done)
        stop = min(start + length, len(words))
        if start == stop:
            break
        sentinel = tokens.new_tensor([first_sentinel + number])
        inputs += [words[done:start], sentinel]
        targets += [sentinel, words[start:stop]]
        done = stop
    return torch.cat([*inputs, words[done:], end]), torch.cat([*targets, end])
