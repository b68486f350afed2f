"""A safetensors file that is written block by block, for latents that together do not fit into memory.

The format is a length, a JSON header of names, shapes and places, then the tensors' bytes. How many clips there will be
is known only at the end, when the unreadable ones have been left out: so room is left for the header, and it is filled
in last. Reading is safetensors' own, which maps the file: a latent is read from disk when it is looked at.
"""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from minivdm.errors import UserError

HEADER_BYTES = 504  # with the 8 of its length the tensors begin at 512

Block = tuple[Sequence[int], Tensor]  # numbers of clips, and their latents (B, C, T', h, w) float16 on the CPU


def write_latents(file: Path, blocks: Iterable[Block]) -> None:
    """Write `latents` (N, C, T', h, w) float16 and `clips` (N,) int64, under another name until all is there.

    Raises UserError when the disk is full or not writable.
    """
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    clips, shape = [], ()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as out:
            out.write(bytes(8 + HEADER_BYTES))
            for numbers, latents in blocks:
                clips += numbers
                shape = latents.shape[1:]
                out.write(latents.contiguous().numpy())
            middle = out.tell() - 8 - HEADER_BYTES
            out.write(torch.tensor(clips, dtype=torch.int64).numpy())
            header = {
                "latents": {"dtype": "F16", "shape": [len(clips), *shape], "data_offsets": [0, middle]},
                "clips": {"dtype": "I64", "shape": [len(clips)], "data_offsets": [middle, middle + 8 * len(clips)]},
            }
            out.seek(0)
            out.write(HEADER_BYTES.to_bytes(8, "little") + json.dumps(header).encode().ljust(HEADER_BYTES))
        os.replace(partial, file)
    except OSError as fault:
        raise UserError(f"cannot write {file}: {fault.strerror or fault}; make room or set flow.cache") from None
    finally:
        partial.unlink(missing_ok=True)


def read_latents(file: Path) -> tuple[Tensor, Tensor]:
    """`latents` and `clips` as they were written. Raises UserError for a damaged file."""
    try:
        stored = load_file(file)
        return stored["latents"], stored["clips"]
    except (OSError, SafetensorError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"cannot read latents from {file} ({reason}); delete it, and they are computed anew") from None
