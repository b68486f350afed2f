"""The numbers of a run: a line of JSON each time, and the same for TensorBoard."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from minivdm.data.io import write_atomically
from minivdm.errors import UserError
from minivdm.viz.plots import read_rows


class RunLog:
    """Writes `metrics.jsonl` and `tensorboard/` of a run that has taken `step` steps; later lines are forgotten.

    `counting`: the losses of the last line are still being added up, because it came before its turn, at the end of a
    run that was to be shorter. That line is forgotten too.
    """

    def __init__(self, run: Path, step: int, counting: bool):
        self.path = run / "metrics.jsonl"
        rows = read_rows(self.path) if self.path.is_file() else []
        kept = [json.dumps(row) + "\n" for row in rows if row["step"] < step + (not counting)]
        write_atomically(self.path, "".join(kept).encode())
        self.board = SummaryWriter(run / "tensorboard", purge_step=step + 1)

    def write(self, row: dict[str, float]) -> None:
        """Add a line. Raises UserError when the disk is full or not writable."""
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            for name, value in row.items():
                if name != "step":
                    self.board.add_scalar(name, value, row["step"])
        except OSError as error:
            raise self._fault(error) from None

    def settle(self) -> None:
        """Bring all lines to the disk: those of a checkpoint must not be lost where it is not."""
        try:
            with self.path.open("rb+") as file:
                os.fsync(file.fileno())
        except OSError as error:
            raise self._fault(error) from None

    def _fault(self, error: OSError) -> UserError:
        return UserError(
            f"cannot write {self.path}: {error.strerror or error}; make room, or make it writable, then add --resume "
            f"(the last checkpoint is whole)"
        )

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        # after an error, of a full disk say, closing may fail again: the first one is what matters
        with contextlib.suppress(OSError) if kind else contextlib.nullcontext():
            self.board.close()
