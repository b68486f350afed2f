"""Compute Open-Sora's tables of sizes and its choice of buckets again, from the inputs in the recorded JSON.

These files have no tensors. Each table becomes one line of the comparison: its leaves as numbers, words by their
checksum, so that another word is a large error.
"""

import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minivdm.data.aspect import (
    OPEN_SORA_12,
    RATIO_NAMES_12,
    closest_ratio,
    even_size,
    frames_12,
    height_to_width,
    num_pixels,
    resolution,
    sizes_of,
    target_fps,
)
from minivdm.data.buckets import Bucket, Buckets, closest_smaller, open_sora_buckets
from minivdm.errors import UserError

_STEPS = (1, 16, 32, 64)  # what `closest_smaller_bucket` was recorded with
_GIVEN = ("config", "fps_max")  # entries of "bucket" that are inputs
Lines = Iterator[tuple[str, Tensor, Tensor, str]]


def read_tables(path: Path) -> tuple[dict[str, Tensor], Callable[[dict, dict, dict], Lines]]:
    """The recorded outputs of a file by name, and what compares them. UserError for anything else than tables."""
    try:
        tables = json.loads(path.read_text("utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: not readable JSON ({' '.join(str(error).split())})") from None
    compute = next((kind for key, kind in _KINDS.items() if isinstance(tables, dict) and key in tables), None)
    if compute is None:
        raise UserError(f"{path}: unknown kind of JSON; known are Open-Sora's aspect and bucket tables")
    recorded = {name: _numbers(value) for name, value in _named(tables)}

    def compare(config: dict, cases: dict, tensors: dict[str, Tensor]) -> Lines:
        try:
            ours = {name: table for name, table in compute(tables).items() if name in tables}
        except KeyError as error:
            raise UserError(f"{path} speaks of {error}, which is in none of our tables") from None
        for name, value in _named(ours):
            if name in recorded:
                yield name, _numbers(value), recorded[name], "exact"

    return recorded, compare


def _named(tables: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """(name, value) of every table: `section/out/entry`, one for each resolution where there are several."""
    for section, table in tables.items():
        if not isinstance(table, dict) or not any(isinstance(part, dict | list | tuple) for part in table.values()):
            yield f"{section}/out/table", table
            continue
        for entry, part in table.items():
            if section != "bucket" or entry not in _GIVEN:
                yield f"{section}/out/{entry}", part


def _numbers(value: Any) -> Tensor:
    def leaves(part: Any) -> Iterator[float]:
        if isinstance(part, dict):
            for key in sorted(part):
                yield from (*leaves(key), *leaves(part[key]))
        elif isinstance(part, list | tuple):
            yield len(part)
            for each in part:
                yield from leaves(each)
        else:
            yield -1 if part is None else zlib.crc32(part.encode()) if isinstance(part, str) else float(part)

    return torch.tensor(list(leaves(value)), dtype=torch.float64)


def _open_sora_2(file: dict[str, Any]) -> dict[str, Any]:
    ratios, bucket = file["aspect_ratios_dict"], file["bucket"]
    buckets = open_sora_buckets(bucket["config"], "2")
    tokens = {name: {key: h * w / 16**2 for key, (h, w) in resolution(name)[1].items()} for name in file["num_tokens"]}
    return {
        "get_ratio": {name: height_to_width(name) for name in file["get_ratio"]},
        "num_pixels_from_name": {name: num_pixels(name) for name in file["num_pixels_from_name"]},
        "aspect_ratios_dict": {
            name: {training: sizes_of(num_pixels(name), training == "true") for training in ratios[name]}
            for name in ratios
        },
        "num_tokens": tokens,
        "resolution_with_aspect_ratio": {name: resolution(name) for name in file["resolution_with_aspect_ratio"]},
        "closest_ratio": [
            (height, width, name, closest_ratio(height, width, resolution(name)[1]))
            for height, width, name, _ in file["closest_ratio"]
        ],
        "image_size": [
            (name, ratio, training, resolution(name, training)[1][ratio])
            for name, ratio, training, _ in file["image_size"]
        ],
        "map_target_fps": [(fps, most, target_fps(fps, most)) for fps, most, _ in file["map_target_fps"]],
        "bucket": _answers(buckets, bucket, lambda query: target_fps(query["fps"], bucket["fps_max"])[1]),
        "shapes": _shapes(bucket["config"], file["shapes"]),
    }


def _shapes(config: dict[str, Any], recorded: list) -> list:
    """(batch, 3, frames, height, width) of all buckets of those resolutions that were recorded."""
    shapes = []
    for name, lengths in config.items():
        of_name = [
            [batch, 3, int(frames), *size]
            for frames, (_, batch) in lengths.items()
            for size in resolution(name)[1].values()
        ]
        shapes += of_name if of_name[0] in recorded else []
    return shapes


def _open_sora_12(file: dict[str, Any]) -> dict[str, Any]:
    bucket = file["bucket"]
    exact = [int(height) / int(width) for height, width in (ratio.split(":") for ratio in RATIO_NAMES_12)]
    exact = {f"{ratio:.4f}": ratio for ratio in exact}
    buckets = open_sora_buckets(bucket["config"], "1.2")
    return {
        "aspect_ratio_map": {ratio: RATIO_NAMES_12[ratio] for ratio in file["aspect_ratio_map"]},
        "num_pixels": {name: OPEN_SORA_12[name][0] for name in file["num_pixels"]},
        "aspect_ratios": {name: OPEN_SORA_12[name][1] for name in file["aspect_ratios"]},
        "computed_h_w": {
            pixels: {key: even_size(exact.get(key, float(key)), int(pixels)) for key in table}
            for pixels, table in file["computed_h_w"].items()
        },
        "closest_ratio": [
            (height, width, name, closest_ratio(height, width, OPEN_SORA_12[name][1]))
            for height, width, name, _ in file["closest_ratio"]
        ],
        "image_size": [
            (name, ratio, OPEN_SORA_12[name][1][RATIO_NAMES_12[ratio]]) for name, ratio, _ in file["image_size"]
        ],
        "num_frames": {name: frames_12(name) for name in file["num_frames"]},
        "closest_smaller_bucket": [
            (value, closest_smaller(value, _STEPS)) for value, _ in file["closest_smaller_bucket"]
        ],
        "bucket": _answers(buckets, bucket, lambda query: query["frame_interval"]),
    }


def _answers(buckets: Buckets, recorded: dict, interval: Callable[[dict], int]) -> dict[str, Any]:
    """What our buckets say to the queries of a file, and to its list of shapes and batch sizes."""
    found = [
        query | {"bucket": buckets.find(query["T"], query["H"], query["W"], interval(query))}
        for query in recorded["queries"]
    ]
    listed = [Bucket(*bucket) for bucket, *_ in recorded["thw"]]
    return {
        "num_bucket": len(buckets),
        "queries": found,
        "thw": [(bucket, buckets.shape(bucket), buckets.batch_size(bucket)) for bucket in listed],
    }


_KINDS = {"aspect_ratios_dict": _open_sora_2, "aspect_ratio_map": _open_sora_12}
