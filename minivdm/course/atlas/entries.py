"""All entries of the atlas, and the one that a mistake has. Nothing that takes time is imported here."""

from minivdm.course.atlas.entry import Entry
from minivdm.course.atlas.latent_entries import LATENTS
from minivdm.course.atlas.pixel_entries import PIXELS

ENTRIES: tuple[Entry, ...] = (*PIXELS, *LATENTS)
PAGE = "docs/symptoms/README.md"


def where_to_look(exercise: str, mistake: str | None) -> str | None:
    """A line that leads to the picture of a mistake; None when there is none."""
    for entry in ENTRIES:
        if (exercise, mistake) in ((entry.exercise, entry.mistake), *entry.also):
            return f"What it looks like: {PAGE}#{entry.anchor}"
    return None
