"""Where the repository's own files live: shipped checkpoints and the small data set."""

from pathlib import Path

from minivdm.errors import UserError

PACKAGE = Path(__file__).resolve().parent


def repo_root() -> Path:
    """The folder that holds `minivdm/`, `notebooks/` and `checkpoints/` in a clone."""
    return PACKAGE.parent


def checkpoint_dir(name: str) -> Path:
    """Folder of a shipped checkpoint such as `toy/unet3d`: in the clone, or packed into an installed wheel.

    Raises UserError when neither place has it.
    """
    places = [repo_root() / "checkpoints" / name, PACKAGE / "_checkpoints" / name]
    for place in places:
        if place.is_dir():
            return place
    raise UserError(
        f"no shipped checkpoint {name!r}: looked in {places[0]}; clone the repository whole or pass --checkpoint"
    )
