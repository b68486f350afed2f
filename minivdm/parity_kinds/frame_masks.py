"""Recompute Open-Sora 1.2's mask strategies and the masks that its generator can draw."""

from collections.abc import Iterator

import torch
from torch import Tensor

from minivdm.diffusion.masks import apply_mask_strategy, find_nearest_point, training_mask

_ENDS, _POINT, _DRAWS = (10, 15, 20, 33), 5, 3000


def compare(config: dict, cases: dict, tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor, Tensor, str]]:
    """Lines for every case of the file."""
    references, z = [tensors["strategy/in/ref0"], tensors["strategy/in/ref1"]], tensors["strategy/in/z"]
    for k, strategy in enumerate(config["strategies"]):
        for loop in config["loop"]:
            for align in config["align"]:
                filled, mask = apply_mask_strategy(z[0], references, strategy, loop, align)
                key = f"strategy/out/s{k}_loop{loop}_align{align}"
                yield f"{key}_mask", mask[None], tensors[f"{key}_mask"], "table"
                yield f"{key}_z", filled[None], tensors[f"{key}_z"], "table"

    table = tensors["nearest/out/table"]
    ours = torch.tensor([[find_nearest_point(v, _POINT, end) for v in range(table.shape[1])] for end in _ENDS])
    yield "nearest/out/table", ours, table, "exact"

    generator = torch.Generator().manual_seed(0)
    for case in sorted({key.split("/")[0] for key in tensors if key.startswith("gen_")}):
        kind = case.removeprefix("gen_").replace("intepolate", "interpolate")
        drawn = torch.stack([training_mask(kind, config["T"], generator) for _ in range(_DRAWS)]).int()
        yield f"{case}/out/support", drawn.unique(dim=0), tensors[f"{case}/out/support"], "exact"
        yield f"{case}/out/single_frame", training_mask(kind, 1), tensors[f"{case}/out/single_frame"], "exact"
