"""Every row of the comparison."""

from benchmarks import clips, sampling, stdit3, unet3d, vae
from benchmarks.work import Work


def works(tiny: bool = False) -> list[Work]:
    """In the order of the table; `tiny` ones take no time and prove only that everything runs."""
    return [row for module in (unet3d, sampling, clips, stdit3, vae) for row in module.works(tiny)]
