"""Wrong answers that newcomers really give about saving a file so that a power cut cannot hurt it."""

from minivdm.course.exercise import Mistake


def _in_place(disk, name, data):
    written = disk.write(name, data)
    disk.flush(name)
    return written


def _unflushed(disk, name, data):
    disk.write(name + ".new", data)
    disk.rename(name + ".new", name)
    return len(data)


def _flushed_late(disk, name, data):
    _unflushed(disk, name, data)
    disk.flush(name)
    return len(data)


def _deleted_first(disk, name, data):
    disk.write(name + ".new", data)
    disk.flush(name + ".new")
    if name in disk.files:
        disk.delete(name)
    disk.rename(name + ".new", name)
    return len(data)


def _not_renamed(disk, name, data):
    disk.write(name + ".new", data)
    disk.flush(name + ".new")
    return len(data)


def _kept_old(disk, name, data):
    disk.write(name + ".new", data)
    disk.flush(name + ".new")
    if name in disk.files:
        disk.write(name + ".old", disk.read(name))
        disk.flush(name + ".old")
    disk.rename(name + ".new", name)
    return len(data)


def _nothing_returned(disk, name, data):
    disk.write(name + ".new", data)
    disk.flush(name + ".new")
    disk.rename(name + ".new", name)


SAVE = (
    Mistake(
        "in place",
        _in_place,
        "You write over the good file. If the power fails in between, neither the old nor the new one is there.",
        "`torch.save(state, path)` does just that. Write beside it, then let the new file take the name.",
        "at which moment is there a whole file on your disk?",
    ),
    Mistake(
        "renamed before it was flushed",
        _unflushed,
        "You rename a file whose bytes may not be on the disk yet.",
        "The new name can get there before the bytes: after a power cut it then belongs to an empty file.",
        "what does `write` promise about the disk, and what does `flush`?",
    ),
    Mistake(
        "flushed too late",
        _flushed_late,
        "You flush after renaming.",
        "In between, the good name belongs to bytes that may not be there. The order is write, flush, rename.",
        "what would be found if the power failed just before your flush?",
    ),
    Mistake(
        "old one deleted first",
        _deleted_first,
        "You delete the old file before the new one takes its name.",
        "`rename` replaces it in one go. In between your way leaves no file under that name.",
        "how long is there no checkpoint at all?",
    ),
    Mistake(
        "never renamed",
        _not_renamed,
        "The new file is whole, but the name still belongs to the old one, or to none.",
        "Who resumes looks under the agreed name.",
        "which operation is missing?",
    ),
    Mistake(
        "the old one is kept",
        _kept_old,
        "The file is safe, but a copy of the old one stays on the disk.",
        "After a thousand checkpoints the disk is full. How many are kept is for somebody else to decide.",
        "how many files are there after ten saves?",
    ),
    Mistake(
        "nothing returned",
        _nothing_returned,
        "The file is safe, but you return nothing.",
        "Like `write`, say how many bytes it was.",
        "what does `len(data)` give?",
    ),
)
