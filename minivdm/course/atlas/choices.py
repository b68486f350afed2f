"""Symptoms that no mistake makes: the code is right, and the film is as it was asked for."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from minivdm.course.atlas.entry import anchor
from minivdm.course.atlas.flow_stages import PROMPT, SEED, pipeline


@dataclass(frozen=True)
class Choice:
    """name, title, seen, why, alt: as of an `Entry`. left, right: the pipeline's arguments. remedy: what helps."""

    name: str
    title: str
    left: dict[str, Any]
    right: dict[str, Any]
    seen: str
    why: str
    remedy: str
    alt: str

    @property
    def anchor(self) -> str:
        return anchor(self.title)

    def films(self) -> tuple[Tensor, Tensor]:
        """The two films (1, 3, T, H, W), drawn by the shipped text-to-video model from the same noise."""
        left, right = (pipeline()(**asked) for asked in (self.left, self.right))
        return left, right

    def calls(self) -> tuple[str, str]:
        """The calls that drew them, as one would write them."""
        left, right = (_written(**asked) for asked in (self.left, self.right))
        return left, right


def _written(prompts: str, **options: Any) -> str:
    return f"pipe({', '.join([repr(prompts), *(f'{name}={value!r}' for name, value in options.items())])})"


CHOICES: tuple[Choice, ...] = (
    Choice(
        "guided-too-hard",
        "A few thick strokes instead of sparks",
        {"prompts": PROMPT, "guidance": 12.0, "seed": SEED},
        {"prompts": PROMPT, "guidance": 2.0, "seed": SEED},
        "The right colour in the right place, but the flash has corners, and the ball is a net of a few thick strokes.",
        "Guidance exaggerates what the words change. What they do not speak of, such as how many sparks there are, is "
        "driven to where it differs most from films without words.",
        "Less guidance: 1.5 to 3 for the toy model. With too little some films do not obey; `minivdm judge` counts.",
        "left: a red net of few strokes; right: a red ball of sparks",
    ),
    Choice(
        "one-step",
        "A ball without sparks, and squares in the dark",
        {"prompts": PROMPT, "steps": 1, "seed": SEED, "eta": 0.0},
        {"prompts": PROMPT, "steps": 20, "seed": SEED, "eta": 0.0},
        "The burst is one red patch, and later the dark around it shows the squares of the latents.",
        "The first velocity points to the average of all films that fit the words. One step walks all the way there.",
        "More steps: from ten on the films of the toy model hardly change.",
        "left: a red patch, later a faint grid; right: a red ball of sparks",
    ),
)
