"""Exercises of notebook 09, text to video: language, hearing it, steering by it, and the whole way to a film."""

import torch
from torch import Tensor

from minivdm.course.exercise import Case, Exercise
from minivdm.course.exercises import n09_film_mistakes as film_mistakes
from minivdm.course.exercises import n09_hearing_mistakes as hearing_mistakes
from minivdm.course.exercises.n09_generate_mistakes import GENERATE
from minivdm.course.exercises.n09_language import LANGUAGE
from minivdm.course.exercises.n09_parts import Parts, calls_the_parts_well, with_own_parts
from minivdm.course.inputs import randn

CLIP = (2, 3, 5, 4, 6)


def masked_cross_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    scores = q @ k.transpose(2, 3) * q.shape[3] ** -0.5
    scores = scores.masked_fill(~mask[:, None, None, :], float("-inf"))
    return torch.softmax(scores, dim=3) @ v


def null_dropout(y: Tensor, null: Tensor, drop: Tensor) -> Tensor:
    return torch.where(drop[:, None, None], null, y)


def image_guidance(cond: Tensor, image_only: Tensor, uncond: Tensor, text_scale: float, image_scale: float) -> Tensor:
    return uncond + image_scale * (image_only - uncond) + text_scale * (cond - image_only)


def oscillate(scale: float, step: int, first: int = 10) -> float:
    return scale if step % 2 == 0 or step < first else 1.0


def freeze_frames(z: Tensor, z_ref: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask[:, None, :, None, None], z_ref, z)


def generate(prompt: str, parts: Parts, steps: int, scale: float, seed: int) -> Tensor:
    text, none = parts.encode([prompt]), parts.null(1)
    z = torch.randn((1, *parts.latent_shape), generator=torch.Generator().manual_seed(seed))
    for step in range(steps):
        t = torch.full((1,), 1000 * (1 - step / steps))
        cond, uncond = parts.velocity(z, t, *text), parts.velocity(z, t, *none)
        z = z + (uncond + scale * (cond - uncond)) / steps
    return parts.decode(z).clamp(-1, 1)


def _cross_cases(g: torch.Generator) -> list[Case]:
    def case(batch: int, heads: int, queries: int, width: int, lengths: list[int], note: str, **dtype) -> Case:
        tokens = 7
        q = 1.5 * randn(g, batch, heads, queries, width, **dtype)
        k, v = (1.5 * randn(g, batch, heads, tokens, width, **dtype) for _ in range(2))
        mask = torch.arange(tokens) < torch.tensor(lengths)[:, None]
        return Case({"q": q, "k": k, "v": v, "mask": mask}, note)

    gaps = torch.tensor([[True, False, True, True, False], [False, False, False, True, False]])
    q, k, v = (randn(g, *shape, dtype=torch.float64) for shape in ((2, 3, 6, 4), (2, 3, 5, 4), (2, 3, 5, 4)))
    return [
        case(3, 2, 5, 8, [4, 1, 6], "three prompts, 2 heads"),
        Case({"q": q, "k": k, "v": v, "mask": gaps}, "padding in between, float64"),
        case(1, 4, 9, 6, [2], "a single prompt"),
        case(2, 3, 4, 5, [6, 6], "two prompts of one length"),
    ]


def _dropout_cases(g: torch.Generator) -> list[Case]:
    def case(tokens: int, width: int, drop: list[bool], note: str, **dtype: torch.dtype) -> Case:
        y, null = randn(g, len(drop), tokens, width, **dtype), randn(g, tokens, width, **dtype)
        return Case({"y": y, "null": null, "drop": torch.tensor(drop)}, note)

    return [
        case(4, 6, [False, True, True, False, False], "five captions, two of them dropped"),
        case(5, 2, [True, False, True], "three captions, two of them dropped, float64", dtype=torch.float64),
        case(3, 7, [True], "a lone caption, dropped"),
        case(5, 3, [False, False], "none dropped"),
    ]


def _guidance_cases(g: torch.Generator) -> list[Case]:
    def case(shape: tuple[int, ...], text: float, image: float, note: str, **dtype: torch.dtype) -> Case:
        cond, image_only, uncond = (randn(g, *shape, **dtype) for _ in range(3))
        args = {"cond": cond, "image_only": image_only, "uncond": uncond}
        return Case({**args, "text_scale": text, "image_scale": image}, note)

    return [
        case(CLIP, 7.5, 3.0, "text 7.5, image 3"),
        case((4, 3), 1.0, 1.0, "both scales 1"),
        case((1, 5, 2), 0.0, 2.5, "text 0, image 2.5"),
        case((5, 2, 3), 4.0, 1.0, "text 4, image 1, float64", dtype=torch.float64),
    ]


def _oscillate_cases(g: torch.Generator) -> list[Case]:
    def case(scale: float, step: int, note: str, **first: int) -> Case:
        return Case({"scale": scale, "step": step, **first}, note)

    return [
        case(7.5, 0, "the first step"),
        case(7.5, 3, "an odd step before step 10"),
        case(7.5, 9, "step 9"),
        case(7.5, 10, "step 10, even"),
        case(7.5, 11, "step 11, odd"),
        case(4.0, 3, "step 3 where that is the first", first=3),
        case(4.0, 4, "step 4 from step 3 on", first=3),
        case(4.0, 5, "step 5 from step 3 on", first=3),
        case(6.0, 1, "step 1, oscillating from the start", first=0),
        case(3.5, 15, "step 15 before step 20", first=20),
        case(0.5, 17, "a scale below 1, odd"),
        case(0.5, 18, "a scale below 1, even"),
    ]


def _freeze_cases(g: torch.Generator) -> list[Case]:
    def case(shape: tuple[int, ...], frozen: list[list[int]], note: str, **dtype: torch.dtype) -> Case:
        mask = torch.zeros(shape[0], shape[2], dtype=torch.bool)
        for row, frames in zip(mask, frozen, strict=True):
            row[frames] = True
        return Case({"z": randn(g, *shape, **dtype), "z_ref": randn(g, *shape, **dtype), "mask": mask}, note)

    return [
        case(CLIP, [[0], [1, 4]], "one film with its first frame given, one with two others"),
        case(
            (3, 4, 6, 2, 5),
            [[0, 5], [2], [0, 1, 2, 3, 4, 5]],
            "both ends, one frame, all frames, float64",
            dtype=torch.float64,
        ),
        case((1, 2, 4, 5, 3), [[3]], "a lone film with its last frame given"),
    ]


def _generate_cases(g: torch.Generator) -> list[Case]:
    def case(prompt: str, latents: tuple[int, ...], steps: int, scale: float, seed: int, note: str) -> Case:
        parts = Parts(g, latents, tokens=len(prompt.split()) + 4, null_tokens=2)
        args = {"prompt": prompt, "parts": parts, "steps": steps, "scale": scale, "seed": seed}
        return Case(args, note, with_own_parts)

    return [
        case("a large red peony high on the left", (4, 3, 5, 2), 6, 3.0, 7, "6 steps, scale 3"),
        case("a blue ring", (2, 4, 3, 5), 3, 1.0, 12, "3 steps, scale 1"),
        case("gold willow", (5, 1, 2, 3), 1, 2.0, 0, "a picture in a single step, scale 2"),
        case("a small palm, then a spiral", (4, 2, 3, 7), 7, 0.0, 3, "7 steps, scale 0"),
    ]


EXERCISES = (
    *LANGUAGE,
    Exercise(
        "09.masked_cross_attention",
        masked_cross_attention,
        _cross_cases,
        hearing_mistakes.MASKED_CROSS_ATTENTION,
        (
            "Every place of the film asks every word of its prompt: who has what I need? Padding has nothing to say: "
            "it must not get any share, before the shares are made to sum to 1.",
            "softmax over tokens of (q·kᵀ/√d, −∞ where the mask is False), times v",
            "`scores.masked_fill(~mask[:, None, None], -math.inf)` before the softmax, or "
            "`F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])`",
        ),
    ),
    Exercise(
        "09.null_dropout",
        null_dropout,
        _dropout_cases,
        hearing_mistakes.NULL_DROPOUT,
        (
            "Now and then the network must learn without words. Then a caption is replaced by one and the same text "
            "that says nothing. What that text is like, the network learns as well.",
            "out[b] = null if drop[b], else y[b]",
            "`torch.where(drop[:, None, None], null, y)`",
        ),
        gradients=("null",),
    ),
    Exercise(
        "09.image_guidance",
        image_guidance,
        _guidance_cases,
        film_mistakes.IMAGE_GUIDANCE,
        (
            "Two stairs: from nothing to the given image, and from the image to image and text. Each has a length of "
            "its own.",
            "uncond + image_scale · (image_only − uncond) + text_scale · (cond − image_only)",
            "`uncond + image_scale * (image_only - uncond) + text_scale * (cond - image_only)`",
        ),
    ),
    Exercise(
        "09.oscillate",
        oscillate,
        _oscillate_cases,
        film_mistakes.OSCILLATE,
        (
            "At the beginning, guide in every step: there it is decided what will be seen. Later, guide in every "
            "second step only, and let the model go its own way in between.",
            "scale if step is even or step < first, else 1 (the model's own prediction with the text)",
            "`scale if step % 2 == 0 or step < first else 1.0`",
        ),
    ),
    Exercise(
        "09.freeze_frames",
        freeze_frames,
        _freeze_cases,
        film_mistakes.FREEZE_FRAMES,
        (
            "Some frames are given and the others are being made. In every step, put the given ones back where they "
            "belong. The mask speaks of films and frames; the latents have channels, rows and columns as well.",
            "out[b, :, t] = z_ref[b, :, t] where mask[b, t], else z[b, :, t]",
            "`torch.where(mask[:, None, :, None, None], z_ref, z)`",
        ),
    ),
    Exercise(
        "09.generate",
        generate,
        _generate_cases,
        GENERATE,
        (
            "Everything from the first page on: words become numbers, a seed becomes noise, and in small straight "
            "steps the noise becomes latents, each step towards what the words add to no words at all. The decoder "
            "makes the film.",
            "z = noise; for i = 0 … steps − 1: t = 1000 · (1 − i/steps), v = v_null + scale · (v_text − v_null), "
            "z ← z + v/steps; film = decode(z), cut to [−1, 1]",
            "`y, mask = parts.encode([prompt])`, `none, none_mask = parts.null(1)`, then in each step "
            "`t = torch.full((1,), 1000 * (1 - i / steps))` and two calls such as `parts.velocity(z, t, y, mask)`; at "
            "last `parts.decode(z).clamp(-1, 1)`",
        ),
        rtol=1e-3,
        atol=3e-5,
        rule=calls_the_parts_well,
        makes_inputs=True,
    ),
)
