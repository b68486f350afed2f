"""How the weights of a text-to-video model came about: trainings, each begun with the weights of the one before."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from minivdm.config import Config, differences, load_config
from minivdm.settings import TrainingConfig
from minivdm.training.checkpoint import load_newest
from minivdm.viz.plots import read_rows

EVALUATION = "evaluation.json"  # beside published weights
FOLDERS = ("flow.init", "flow.text", "flow.vae", "flow.cache")  # where a machine keeps things is no setting


@dataclass(frozen=True)
class Stage:
    """One training of the denoiser."""

    preset: str
    steps: int
    minutes: float  # that its steps took, by its log
    learning_rate: float
    optimizer: str
    settings: dict[str, Any] = field(default_factory=dict)  # that are not the preset's, without the folders

    def command(self, run: str, init: str | None) -> str:
        """What to type for it, with its folder, and that of the stage before."""
        begun = [f"--flow.init {init}"] if init else []
        return " ".join([f"minivdm train stdit3 --preset {self.preset} --run {run}", *begun, *self._options()])

    def _options(self) -> list[str]:
        return [f"--{name} {json.dumps(value).strip(chr(34))}" for name, value in self.settings.items()]


def stages(run: Path) -> list[Stage]:
    """The trainings that made the newest checkpoint of `run`, the first one first.

    The runs they began as have to be there still, or to be published folders, which tell theirs.
    """
    folder, state, _ = load_newest(run)
    config = load_config(folder / "config.yaml")
    here = Stage(
        config.preset,
        state["step"],
        round(minutes_by(run / "metrics.jsonl", config.training), 1),
        config.training.learning_rate,
        config.training.optimizer,
        _settings(config),
    )
    return [*(_before(Path(config.flow.init)) if config.flow.init else []), here]


def minutes_of(run: Path) -> float:
    """What the steps of a run took, by its log."""
    return minutes_by(run / "metrics.jsonl", load_config(load_newest(run)[0] / "config.yaml").training)


def minutes_by(log: Path, training: TrainingConfig) -> float:
    """What the steps took that a `metrics.jsonl` tells of."""
    seconds, before = 0.0, 0
    for row in read_rows(log):
        clips = (row["step"] - before) * training.batch_size * training.accumulate
        seconds, before = seconds + clips / row["clips_per_second"], row["step"]
    return seconds / 60


def _before(init: Path) -> list[Stage]:
    if (init / EVALUATION).is_file():
        told = json.loads((init / EVALUATION).read_text(encoding="utf-8"))["stages"]
        return [Stage(**stage) for stage in told]
    return stages(init)


def _settings(config: Config) -> dict[str, Any]:
    return {name: value for name, value in differences(config).items() if name not in FOLDERS}


def as_json(made: list[Stage]) -> list[dict[str, Any]]:
    """For `evaluation.json`."""
    return [asdict(stage) for stage in made]
