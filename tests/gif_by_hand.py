"""GIF files made byte by byte, so that the reader is tested on files that no code of ours or Pillow's wrote."""

import struct

import numpy as np


def colour_table(colours: list[tuple[int, int, int]]) -> bytes:
    """A colour table, filled up with black to a power of two."""
    size = max(2, 1 << (len(colours) - 1).bit_length())
    return bytes(channel for colour in colours for channel in colour).ljust(3 * size, b"\0")


def flag(table: bytes) -> int:
    """The flag bits that announce a colour table of this size."""
    return (0x80 | (len(table) // 3).bit_length() - 2) if table else 0


def lzw(index: np.ndarray, code_size: int) -> bytes:
    """Codes that never need to be looked up: literals, with a "clear" before the table could grow by a bit."""
    clear, end, width = 1 << code_size, (1 << code_size) + 1, code_size + 1
    codes = []
    for position, value in enumerate(index.reshape(-1).tolist()):
        if position % ((1 << code_size) - 2 or 1) == 0:
            codes.append(clear)
        codes.append(value)
    codes.append(end)
    bits = sum(code << (width * i) for i, code in enumerate(codes))
    packed = bits.to_bytes((width * len(codes) + 7) // 8, "little")
    blocks = [packed[i : i + 255] for i in range(0, len(packed), 255)]
    return bytes([code_size]) + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"


def picture(
    index: np.ndarray,
    place: tuple[int, int] = (0, 0),
    delay: int = 10,
    disposal: int = 0,
    transparent: int | None = None,
    table: bytes = b"",
    interlaced: bool = False,
    code_size: int = 8,
) -> bytes:
    """Control block and picture block; `place` is (top, left)."""
    height, width = index.shape
    if interlaced:
        order = [*range(0, height, 8), *range(4, height, 8), *range(2, height, 4), *range(1, height, 2)]
        index = index[order]
    has_transparent = transparent is not None
    control = struct.pack("<BBBBHBB", 0x21, 0xF9, 4, disposal << 2 | has_transparent, delay, transparent or 0, 0)
    flags = flag(table) | 0x40 * interlaced
    head = struct.pack("<BHHHHB", 0x2C, place[1], place[0], width, height, flags)
    return control + head + table + lzw(index, code_size)


def gif(height: int, width: int, *pictures: bytes, table: bytes = b"", background: int = 0, end: bytes = b";") -> bytes:
    head = struct.pack("<6sHHBBB", b"GIF89a", width, height, flag(table), background, 0) + table
    comment = b"\x21\xfe\x05hello\x00"
    return head + comment + b"".join(pictures) + end
