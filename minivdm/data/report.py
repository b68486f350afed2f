"""What is in a folder of clips, and what to do about it, before anything is trained on it."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from minivdm.data.aspect import RATIOS, height_to_width
from minivdm.data.bucketed import sort_clips
from minivdm.data.buckets import BucketConfig, Buckets
from minivdm.data.caption_files import Captions, read_captions
from minivdm.data.listing import list_folder
from minivdm.data.measure import CACHE, Measures, measure

SECONDS = (2, 15)  # what Open-Sora is trained on; shorter clips show no story, and longer ones several
NAMED = 5  # examples of each kind
COMMON = 12  # words shown
FEW_WORDS = 3  # a caption of fewer says too little to be obeyed
QUIET = frozenset("a an and at by for from in is it its of on or over the then this to with".split())
WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


@dataclass
class Section:
    """A title, and rows of a label and what is to be said of it."""

    title: str
    rows: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Survey:
    """What a report says, and the numbers that its plots show."""

    folder: Path
    sections: list[Section]
    advice: list[str]
    numbers: dict[str, np.ndarray]  # frames, seconds, fps, height, width of the readable clips; words of the captions


def survey(
    folder: str | Path, buckets: Sequence[BucketConfig] = (), multiple: int = 8, cache: Path | None = CACHE
) -> Survey:
    """Look at every clip and caption of a folder.

    buckets: what `data.buckets` is going to be; none: a plausible choice. multiple: of pixels, for the sizes of these.
    Raises UserError when there are no clips. Clips that cannot be read are part of the report.
    """
    listing = list_folder(Path(folder).expanduser())
    captions, measures = read_captions(listing), measure(listing, cache)
    good = np.flatnonzero(measures.rows["frames"])
    rows = measures.rows[good]
    words = [len(wording.split()) for wordings in captions.wordings for wording in wordings]
    numbers = {name: rows[name].astype(float) for name in ("frames", "fps", "height", "width")}
    numbers |= {"seconds": rows["frames"] / rows["fps"], "words": np.array(words, float)}
    advice: list[str] = []
    sections = [_files(listing.names, measures, advice)]
    if len(good):
        sections += [_lengths(numbers, advice), _sizes(rows)]
    sections.append(_captions(listing.names, captions, words, advice))
    if len(good):
        sections.append(_buckets(listing.names, measures, list(buckets) or suggested(rows), multiple, advice))
    return Survey(listing.folder, sections, advice or ["nothing stands out"], numbers)


def suggested(rows: np.ndarray) -> list[BucketConfig]:
    """Sizes and lengths for clips like these: 32, 64, ... pixels a side, 1, 5, 9, ... frames; fewer at once of more."""
    largest, longest = math.sqrt((rows["height"] * rows["width"]).max()), rows["frames"].max()
    sides = [side for side in (32, 64, 128, 256, 512) if side <= 32 or side**2 * 0.8 <= largest**2]
    lengths = [1] + [frames for frames in (5, 9, 17, 33, 65, 129) if frames <= longest]
    return [
        BucketConfig(f"{side}px", frames, max(1, 16 * 32**2 * 17 // (side**2 * max(frames, 4))))
        for side in sides
        for frames in lengths
    ]


def _files(names: Sequence[str], measures: Measures, advice: list[str]) -> Section:
    kinds = Counter(name.rpartition(".")[2].lower() for name in names)
    section = Section("files", [("clips", f"{len(names):,} ({_counted(kinds)})")])
    section.rows.append(("cannot be read", f"{len(measures.bad):,}"))
    for number, reason in list(measures.bad.items())[:NAMED]:
        section.rows.append((f"  {names[number]}", reason.partition(": ")[2] or reason))
    if measures.bad:
        some = "all" if len(measures.bad) == len(names) else f"{len(measures.bad):,} of {len(names):,}"
        advice.append(f"{some} clips cannot be read and are passed over in training: replace or delete them")
    same = defaultdict(list)
    for number in np.flatnonzero(measures.rows["frames"]):
        same[int(measures.rows["pixels"][number])].append(names[int(number)])
    groups = [group for group in same.values() if len(group) > 1]
    copies = sum(len(group) - 1 for group in groups)
    section.rows.append(("copies of others", f"{copies:,}"))
    section.rows += [("  the same pixels", " = ".join(group[:NAMED])) for group in groups[:NAMED]]
    if copies:
        advice.append(f"{copies:,} clips have the pixels of another one and count twice: delete all but one of each")
    return section


def _lengths(numbers: dict[str, np.ndarray], advice: list[str]) -> Section:
    section = Section(
        "lengths and rates", [("frames", _range(numbers["frames"])), ("seconds", _range(numbers["seconds"]))]
    )
    section.rows.append(("frames per second", _range(numbers["fps"])))
    short, long = (numbers["seconds"] < SECONDS[0]).sum(), (numbers["seconds"] > SECONDS[1]).sum()
    section.rows.append((f"under {SECONDS[0]} s, over {SECONDS[1]} s", f"{short:,}, {long:,}"))
    if long:
        advice.append(f"{long:,} clips are longer than {SECONDS[1]} s: cut them where the scene changes")
    rates = np.unique(numbers["fps"])
    if len(rates) > 1 and rates[-1] >= 2 * rates[0]:
        advice.append(
            f"rates differ from {rates[0]:g} to {rates[-1]:g} frames per second: with data.fit cut the same motion "
            "is slow in some clips and quick in others; bring them to one rate"
        )
    return section


def _sizes(rows: np.ndarray) -> Section:
    sizes = Counter(f"{row['width']}×{row['height']}" for row in rows)
    upright = [ratio for ratio in RATIOS if ":" in ratio]
    names = dict.fromkeys(upright + [":".join(reversed(ratio.split(":"))) for ratio in upright])
    ratios = Counter(
        min(names, key=lambda name: abs(math.log(height_to_width(name) * row["width"] / row["height"]))) for row in rows
    )
    section = Section("sizes", [("width × height", _counted(sizes)), ("nearest ratios", _counted(ratios))])
    section.rows.append(("pixels of a frame", _range(rows["height"].astype(float) * rows["width"])))
    return section


def _captions(names: Sequence[str], captions: Captions, words: list[int], advice: list[str]) -> Section:
    clips_of, common = defaultdict(int), Counter()
    without, few = [], 0
    for name, wordings in zip(names, captions.wordings, strict=True):
        if not wordings:
            without.append(name)
        for wording in wordings:
            clips_of[" ".join(wording.lower().split())] += 1
            common.update(word for word in WORD.findall(wording.lower()) if word not in QUIET)
            few += len(wording.split()) < FEW_WORDS
    section = Section("captions")
    section.rows.append(("clips with a caption", f"{len(names) - len(without):,} of {len(names):,}"))
    section.rows += [("wordings", f"{len(words):,}, {len(clips_of):,} different")] if words else []
    section.rows += [("words in each", _range(np.array(words, float)))] if words else []
    section.rows += [("most common words", _counted(common, COMMON))] if words else []
    if without:
        section.rows.append(("without, such as", ", ".join(without[:NAMED])))
        what = 'captions.jsonl with lines {"file": ..., "caption": ...}, or clip.txt beside each'
        advice.append(f"{len(without):,} clips have no caption, and teach no words: write {what}")
    repeated = {text: count for text, count in clips_of.items() if count > 1}
    if repeated:
        text, count = max(repeated.items(), key=lambda item: item[1])
        section.rows.append(("said of several clips", f"{len(repeated):,} captions; {count:,} times: {text[:60]}"))
    if words and len(clips_of) == 1 < len(names):
        advice.append("all captions are the same: a model cannot learn what the words mean")
    if few:
        advice.append(f"{few:,} captions have fewer than {FEW_WORDS} words: say what is seen, where, and what happens")
    for label, problems in (("cannot be used", captions.unusable), ("for files not there", captions.missing)):
        if problems.count:
            section.rows.append((label, f"{problems.count:,}"))
            section.rows += [("  such as", problem) for problem in problems.named[:NAMED]]
            advice.append(f"{problems.count:,} lines with captions are {label}: mend them, the first are named above")
    return section


def _buckets(
    names: Sequence[str], measures: Measures, configs: list[BucketConfig], multiple: int, advice: list[str]
) -> Section:
    buckets = Buckets(configs, multiple=multiple)
    members = sort_clips(names, measures, buckets)
    left_out = members.pop(None, [])
    section = Section("buckets")
    for bucket, numbers in members.items():
        frames, height, width = buckets.shape(bucket)
        shape = f"{frames} frames of {width}×{height}, {buckets.batch_size(bucket)} at once"
        section.rows.append((f"{bucket.size} {bucket.ratio}", f"{len(numbers):,} clips as {shape}"))
    section.rows.append(("left out", f"{len(left_out):,}"))
    if left_out:
        section.rows.append(("  such as", ", ".join(names[number] for number in left_out[:NAMED])))
        advice.append(
            f"{len(left_out):,} clips are too short or too small for every bucket: add one that they fit into"
        )
    small = [bucket for bucket, numbers in members.items() if len(numbers) < buckets.batch_size(bucket)]
    if small:
        advice.append(
            f"{len(small)} buckets hold fewer clips than one batch of theirs, which then repeats them: "
            "take fewer buckets, or smaller batches"
        )
    return section


def _range(values: np.ndarray) -> str:
    """Least, middle and most, or the one there is."""
    low, middle, high = (
        f"{value:,.4g}" if value < 1000 else f"{value:,.0f}" for value in np.quantile(values, (0, 0.5, 1))
    )
    return low if low == high else f"{low} to {high}, half of them up to {middle}"


def _counted(counts: Counter[str], most: int = 8) -> str:
    """The most frequent with their counts."""
    more = len(counts) - most
    listed: Iterable[str] = (f"{what} {count:,}" for what, count in counts.most_common(most))
    return ", ".join(listed) + (f", and {more} more" if more > 0 else "")
