"""A folder of your own clips as training data: GIF, MP4, WebP and npz files, with captions or without."""

import copy
import hashlib
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from minivdm.data.caption_files import read_captions, swap_left_right
from minivdm.data.fit import fit_frame
from minivdm.data.io import EXTENSIONS, from_uint8, read_video
from minivdm.data.listing import list_folder
from minivdm.data.packed import Chosen
from minivdm.errors import UserError
from minivdm.seeds import generator_for

FITS = ("cut", "stride", "loop", "repeat")
logger = logging.getLogger(__name__)


class VideoFolder(Dataset):
    """All clips of a folder and its subfolders, in the order of their paths, brought to one size and length.

    folder: searched for files with these `extensions`; hidden files and folders are passed over. Captions come from
        `captions.jsonl`, `captions.csv`, `metadata.csv` or `clip.txt` beside `clip.gif` (see `caption_files`), and are
        "" where there are none.
    size: pixels, a number or (height, width). A clip is scaled, with antialiasing, until it just covers this, then the
        centre is cut out.
    frames, fit: the length, and how a clip of another length is brought to it; see `choose_frames`.
    flip: mirror every second clip or so, all its frames together, and say "left" for "right" in its caption.
    seed: decides, with the epoch and the index, and nothing else, every random choice: flip, wording, start of a cut.
    cache_bytes: decoded clips are kept in memory up to this amount, so that a small set is decoded once. Every worker
        process of a DataLoader keeps its own.

    `dataset[i]`, or `dataset[i, epoch]` for another draw of the same clip, is a dictionary:
        video    (3, T, H, W) float32 in [-1, 1]
        caption  str
        fps      float, of the frames chosen
        path     str

    A file that cannot be read is named in one warning and in `bad_files` (name -> what is wrong), and the next clip
    that can be read takes its place. `paths[i]`, `wordings[i]` and `attributes[i]` are where clip i lies, all that can
    be said of it, and the further keys of its line in `captions.jsonl`. Only names and captions are held in memory, and
    these packed: the clips may be far more than fit into it.
    Raises UserError for impossible arguments and for a folder in which there is no readable clip.
    """

    def __init__(
        self,
        folder: str | Path,
        size: int | tuple[int, int],
        frames: int,
        fit: str = "cut",
        flip: bool = False,
        seed: int = 0,
        extensions: Sequence[str] = EXTENSIONS,
        cache_bytes: int = 2**29,
    ):
        height, width = (size, size) if isinstance(size, int) else size
        if min(height, width, frames) < 1:
            raise UserError(f"clips of {frames} frames of {height}×{width} pixels; expected at least 1 of each")
        if fit not in FITS:
            raise UserError(f"fit {fit!r} is not known; expected one of {', '.join(FITS)}")
        self.folder, self.size, self.frames = Path(folder).expanduser(), (height, width), frames
        self.fit, self.flip, self.seed = fit, flip, seed
        listing = list_folder(self.folder, extensions)
        captions = read_captions(listing)
        self.names: Sequence[str] = listing.names
        self.paths: Sequence[Path] = listing.paths
        self.wordings: Sequence[list[str]] = captions.wordings
        self.attributes: Sequence[dict] = captions.attributes
        self.bad_files: dict[str, str] = {}
        self.cache_bytes = cache_bytes
        self._cache: dict[int, tuple[Tensor, float]] = {}
        self._cached_bytes = 0
        self._decode_next_good(0)  # a folder without a readable clip is found now, not in the first training step

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, which: int | tuple[int, int]) -> dict:
        index, epoch = which if isinstance(which, tuple) else (which, 0)
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        flipped, generator = self._view(index, epoch)
        index, stored, fps = self._decode_next_good(index)
        wordings = self.wordings[index]
        wording = int(torch.randint(max(1, len(wordings)), (), generator=generator))
        chosen = choose_frames(len(stored), self.frames, self.fit, generator)
        if self.fit == "stride" and self.frames > 1 and len(stored) > 1:
            fps *= (self.frames - 1) / (len(stored) - 1)  # the same time, told in fewer or more frames
        video = from_uint8(stored.index_select(0, torch.tensor(chosen)))
        caption = wordings[wording] if wordings else ""
        return {
            "video": video.flip(-1) if flipped else video,
            "caption": swap_left_right(caption) if flipped else caption,
            "fps": fps,
            "path": str(self.paths[index]),
        }

    def narrowed(self, members: Sequence[int], size: tuple[int, int], frames: int, cache_bytes: int) -> "VideoFolder":
        """The clips with these numbers alone, in another size and length."""
        some = copy.copy(self)
        some.size, some.frames, some.cache_bytes = size, frames, cache_bytes
        for name in ("names", "paths", "wordings", "attributes"):
            setattr(some, name, Chosen(getattr(self, name), members))
        some.bad_files, some._cache, some._cached_bytes = {}, {}, 0
        return some

    def identity(self) -> tuple:
        """What decides every pixel of epoch 0: equal identities are equal clips, unless a file keeps size and date."""
        dated = hashlib.sha256()
        for name, path in zip(self.names, self.paths, strict=True):
            stat = path.stat()
            dated.update(repr((name, stat.st_size, stat.st_mtime_ns)).encode())
        return "folder", dated.hexdigest(), self.size, self.frames, self.fit, self.flip, self.seed

    def caption(self, index: int, epoch: int = 0) -> str:
        """The wording that an epoch has for clip `index` as epoch 0 shows it: whoever keeps clips, keeps one view."""
        wordings = self.wordings[index]
        if not wordings:
            return ""
        flipped, _ = self._view(index, 0)
        _, generator = self._view(index, epoch)
        wording = wordings[int(torch.randint(len(wordings), (), generator=generator))]
        return swap_left_right(wording) if flipped else wording

    def _view(self, index: int, epoch: int) -> tuple[bool, torch.Generator]:
        """Whether a draw is mirrored, and the generator that decides the rest of it."""
        generator = generator_for(self.seed, epoch, index)
        return self.flip and bool(torch.randint(2, (), generator=generator)), generator

    def __getstate__(self) -> dict:
        # A worker process starts with an empty cache: to send it decoded clips would take longer than to decode them.
        return self.__dict__ | {"_cache": {}, "_cached_bytes": 0}

    def captions(self) -> list[str]:
        """Every wording that any epoch can show: the first wording of each clip, then all others. None is empty."""
        unpacked = list(self.wordings)
        first = [wordings[0] for wordings in unpacked if wordings]
        every = first + [wording for wordings in unpacked for wording in wordings[1:]]
        return every + [swap_left_right(wording) for wording in every] if self.flip else every

    def _decode_next_good(self, asked: int) -> tuple[int, Tensor, float]:
        """(index, frames (T, h, w, 3) uint8, fps) of clip `asked`, or of the first after it that can be read."""
        found: dict[str, str] = {}  # what is wrong with files that nobody had tried before
        for step in range(len(self)):
            index = (asked + step) % len(self)
            name = self.names[index]
            if name in self.bad_files:
                continue
            try:
                stored, fps = self._decode(index)
            except UserError as error:
                self.bad_files[name] = found[name] = str(error)
                continue
            if found:
                total = f"{len(self.bad_files)} of {len(self)} clips so far"
                logger.warning("skipped (%s): %s; other clips take their place", total, "; ".join(found.values()))
            return index, stored, fps
        first = next(iter(self.bad_files.values()))
        raise UserError(f"none of the {len(self)} clips in {self.folder} can be read: {first}; replace them")

    def _decode(self, index: int) -> tuple[Tensor, float]:
        if index not in self._cache:
            fit = partial(fit_frame, size=self.size)
            clip = read_video(self.paths[index], each_frame=fit, inside=self.folder)
            decoded = torch.from_numpy(clip.frames), clip.fps
            if self._cached_bytes + clip.frames.nbytes > self.cache_bytes:
                return decoded
            self._cache[index] = decoded
            self._cached_bytes += clip.frames.nbytes
        return self._cache[index]


def choose_frames(stored: int, wanted: int, fit: str, generator: torch.Generator) -> list[int]:
    """Which of a clip's `stored` frames make up a clip of `wanted` frames.

    | fit      | of a longer clip                  | of a shorter clip                      |
    |----------|-----------------------------------|----------------------------------------|
    | "cut"    | a stretch with a random start     | all of it, then its last frame again   |
    | "stride" | evenly spaced ones, first to last | evenly, so that some are shown twice   |
    | "loop"   | its beginning                     | all of it, again and again             |
    | "repeat" | its beginning                     | all of it, then its last frame again   |

    Nothing is ever filled with black. The generator is used by "cut" alone.
    """
    if fit == "stride":
        # Half-way places are rounded up, by integers: to the same frames on every machine.
        return [(2 * i * (stored - 1) + wanted - 1) // (2 * (wanted - 1)) for i in range(wanted)] if wanted > 1 else [0]
    start = 0
    if fit == "cut" and stored > wanted:
        start = int(torch.randint(stored - wanted + 1, (), generator=generator))
    places = range(start, start + wanted)
    return [place % stored if fit == "loop" else min(place, stored - 1) for place in places]
