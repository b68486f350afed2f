"""What an entry of the atlas is."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A symptom.

    name: of its picture. title: what one sees, its heading on the page. exercise, mistake: whose listed mistake it is.
    stages: the module that draws it. seen, why: for the page. alt: for those who do not see the picture.
    unseen: the film looks right. also: other exercises and mistakes that look the same.
    """

    name: str
    title: str
    exercise: str
    mistake: str
    stages: str
    seen: str
    why: str
    alt: str
    unseen: bool = False
    also: tuple[tuple[str, str], ...] = ()

    @property
    def anchor(self) -> str:
        return anchor(self.title)


def anchor(heading: str) -> str:
    """Where a heading lies on a page, as GitHub names it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
