"""Golden files: does our code compute what the reference implementations computed, number by number?

A golden file is a safetensors file with a state dict (`sd/<key>`), inputs (`<case>/in/<name>`), outputs
(`<case>/out/<name>`), gradients (`<case>/grad/<name>`) and, in its metadata, JSON under `config` and `cases` and a line
`reference` that names the code it was recorded from. `reference` decides the *kind* of a file; its name, seed and sizes
are free. Open-Sora's tables of sizes and buckets, which are no tensors, come in JSON files of their own
(`parity_kinds.aspect_buckets`).

To add a kind, add one line to `KINDS` below, pointing to a function

    def compare(config, cases, tensors) -> Iterator[tuple[str, Tensor, Tensor, str]]:
        yield "full/out/y", ours, tensors["full/out/y"], "model"

in a module of `minivdm.parity_kinds`. `config` and `cases` are the parsed JSON, `tensors` maps every key of the file to
its tensor, and `state_dict(tensors)` gives the entries below `sd/` without that prefix. A key that is missing in any of
the three becomes a one-line error by itself. Yield the key of the output as it is spelt in the file, our value, the
recorded value, and the name of a tolerance in `TOLERANCES`; integers and booleans are always compared exactly. An
output or gradient of the file that is never yielded is reported as not compared, and counts as off.
"""

import importlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from minivdm.errors import UserError
from minivdm.parity_kinds.aspect_buckets import read_tables

# Pattern for the `reference` line of a file -> "module:function" that recomputes its outputs.
KINDS: dict[str, str] = {
    r"video-diffusion-pytorch .*GaussianDiffusion": "minivdm.parity_kinds.gaussian_diffusion:compare",
    r"video-diffusion-pytorch .*Unet3D": "minivdm.parity_kinds.unet3d:compare",
    r"video-diffusion-pytorch .*building blocks": "minivdm.parity_kinds.unet3d_blocks:compare",
    r"diffusers .*Scheduler": "minivdm.parity_kinds.schedulers:compare",
    r"Open-Sora .*ChannelChunkConv3d": "minivdm.parity_kinds.chunk_conv:compare",
    r"Open-Sora v1\.2 .*discriminator\.py": "minivdm.parity_kinds.discriminators:compare_os12",
    r"Open-Sora main .*discriminator\.py": "minivdm.parity_kinds.discriminators:compare_os2",
    r"Open-Sora .*losses\.py": "minivdm.parity_kinds.vae_losses:compare",
    r"Open-Sora v1.2 .*CausalConv3d": "minivdm.parity_kinds.temporal_vae:compare_convolutions",
    r"Open-Sora v1.2 .*VAE_Temporal": "minivdm.parity_kinds.temporal_vae:compare_temporal",
    r"Open-Sora v1.2 .*VideoAutoencoderPipeline": "minivdm.parity_kinds.temporal_vae:compare_pipeline",
    r"Open-Sora main .*autoencoder_2d": "minivdm.parity_kinds.autoencoder2d:compare",
    r"Open-Sora v1\.2 .*STDiT3Block": "minivdm.parity_kinds.stdit3_blocks:compare",
    r"Open-Sora v1\.2 .*STDiT3$": "minivdm.parity_kinds.stdit3:compare",
    r"Open-Sora v1\.2 .*RFLOW": "minivdm.parity_kinds.rectified_flow:compare",
    r"Open-Sora v1\.2 .*MaskGenerator": "minivdm.parity_kinds.frame_masks:compare",
    r"Open-Sora main .*sampling\.py": "minivdm.parity_kinds.os2_sampling:compare",
}

# Largest |ours - recorded| / max(1, max|recorded|). Real mistakes can be as small as 1e-5: do not loosen these.
TOLERANCES: dict[str, float] = {
    "exact": 0.0,
    "table": 1e-6,  # tables, schedules, masks with float values, analytic trajectories
    "layer": 1e-5,  # single layers and blocks, losses
    "model": 1e-5,  # outputs of whole denoisers
    "gradient": 5e-5,
    "vae": 5e-5,
    "loop": 5e-5,  # loops that call a network
}

Compare = Callable[[dict, dict, dict[str, Tensor]], Iterator[tuple[str, Tensor, Tensor, str]]]


class _Section(dict):
    """A dict whose missing keys are one-line errors that name the file and the place."""

    def __init__(self, items: dict, place: str) -> None:
        super().__init__(items)
        self.place = place

    def __missing__(self, key: str) -> NoReturn:
        raise UserError(f"{self.place} has no {key!r}: record the file again, or compare an intact copy")


@dataclass(frozen=True)
class GoldenFile:
    """What one golden file holds, and the function that recomputes its outputs."""

    path: Path
    config: dict
    cases: dict
    tensors: dict[str, Tensor]
    compare: Compare

    @property
    def outputs(self) -> list[str]:
        """Keys of everything that has to be compared."""
        return [key for key in self.tensors if re.match(r"(?!sd/)[^/]+/(out|grad|after)/", key)]


@dataclass(frozen=True)
class Comparison:
    """One output: how far ours is from the recorded value, how far it may be, and `note` if there is no number."""

    output: str
    max_abs_err: float
    tolerance: float
    note: str = ""

    @property
    def ok(self) -> bool:
        return not self.note and self.max_abs_err <= self.tolerance  # False for NaN


def state_dict(tensors: dict[str, Tensor], prefix: str = "sd/") -> dict[str, Tensor]:
    """The entries of `tensors` below `prefix`, keyed without it."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def read_golden(path: str | Path) -> GoldenFile:
    """Open a golden file and find its kind. Raises UserError for anything that is not a golden file of a known kind."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a golden .safetensors or .json file")
    if path.suffix == ".json":
        recorded, compare = read_tables(path)
        return GoldenFile(path, {}, {}, recorded, compare)
    try:
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a readable safetensors file ({_first_line(error)})") from error

    missing = [key for key in ("config", "cases", "reference") if key not in metadata]
    if missing:
        raise UserError(f"{path}: the metadata has no {', '.join(missing)}; expected a golden file with all three")
    try:
        config, cases = (
            json.loads(metadata[name], object_hook=lambda items, name=name: _Section(items, f"{path}: {name}"))
            for name in ("config", "cases")
        )
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: config or cases in the metadata is not JSON ({error})") from error
    if not isinstance(config, dict) or not isinstance(cases, dict):
        raise UserError(f"{path}: config and cases in the metadata must be JSON objects")

    reference = metadata["reference"]
    for pattern, target in KINDS.items():
        if re.search(pattern, reference):
            module, function = target.split(":")
            compare = getattr(importlib.import_module(module), function)
            return GoldenFile(path, config, cases, _Section(tensors, str(path)), compare)
    raise UserError(f"{path}: unknown kind {reference!r}; known are references that match {', '.join(KINDS)}")


def compare_file(golden: GoldenFile) -> Iterator[Comparison]:
    """Recompute the outputs of a golden file and measure each against the recorded one."""
    seen = set()
    try:
        for output, ours, expected, kind in golden.compare(golden.config, golden.cases, golden.tensors):
            seen.add(output)
            yield measure(output, ours, expected, TOLERANCES[kind])
    except UserError:
        raise
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        # Sizes, weights and arguments that contradict each other inside the file surface deep inside torch.
        raise UserError(f"{golden.path}: its config, weights and inputs do not fit ({_first_line(error)})") from error
    for output in golden.outputs:
        if output not in seen:
            yield Comparison(output, float("nan"), float("nan"), "not compared")


def measure(output: str, ours: Tensor, expected: Tensor, tolerance: float) -> Comparison:
    """Is `max|ours - expected| <= tolerance * max(1, max|expected|)`? Integers and booleans have to be equal."""
    if ours.shape != expected.shape:
        return Comparison(output, float("nan"), tolerance, f"shape {tuple(ours.shape)}, not {tuple(expected.shape)}")
    if not expected.is_floating_point():
        tolerance = 0.0
    if expected.numel() == 0:
        return Comparison(output, 0.0, tolerance)
    ours, expected = ours.detach().double(), expected.double()
    # Equal infinities differ by nothing; any other infinity or NaN makes the error infinite or NaN, hence off.
    error = torch.where(ours == expected, 0.0, (ours - expected).abs()).max()
    largest = torch.cat([expected[expected.isfinite()].abs(), expected.new_ones(1)]).max()
    return Comparison(output, error.item(), tolerance * largest.item())


def run(paths: Sequence[str | Path]) -> int:
    """Compare golden files and print `file  output  max_abs_err  tol  ok`, a line per output.

    Returns the exit status: 0 when every output is within its tolerance, 1 when one is off. `tol` is the tolerance of
    the output's kind scaled by max(1, max|recorded|). Every file is opened before the first one is compared; a file
    that is missing, unreadable or of an unknown kind raises UserError.
    """
    goldens = [read_golden(path) for path in paths]
    file_width = max([4, *(len(str(golden.path)) for golden in goldens)])
    output_width = max([6, *(len(output) for golden in goldens for output in golden.outputs)])
    print(f"{'file':<{file_width}}  {'output':<{output_width}}  max_abs_err      tol  ok")
    total = off = 0
    for golden in goldens:
        for result in compare_file(golden):
            verdict = "ok" if result.ok else f"OFF {result.note}".rstrip()
            print(
                f"{str(golden.path):<{file_width}}  {result.output:<{output_width}}  "
                f"{result.max_abs_err:11.1e}  {result.tolerance:7.1e}  {verdict}"
            )
            total, off = total + 1, off + (not result.ok)
    print(f"{total} outputs compared, {off} off" if off else f"{total} outputs compared, all ok")
    return 1 if off else 0


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
