"""From no weights at all to films that obey: the four trainings of a text-to-video model, one after another.

    minivdm train all --preset toy --run runs/mine

    mine/vae2d  ->  mine/temporal_vae  ->  mine/toy_t5  ->  mine/stdit3  ->  mine/pipeline, mine/films.gif

Each stands on the ones before it. A preset may say under `chain` what is different here: `toy` learns one shell per
clip, which takes minutes.
"""

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minivdm.config import load_config, load_preset
from minivdm.data.captions import parse_caption
from minivdm.data.io import write_video
from minivdm.data.judge import prompt_accuracy
from minivdm.errors import UserError
from minivdm.pipelines.text_to_video import TextToVideoPipeline
from minivdm.training.checkpoint import list_checkpoints, load_newest
from minivdm.training.evaluate_text_to_video import draw, unseen_prompts
from minivdm.training.interrupts import Interrupted
from minivdm.training.start import describe, make_task
from minivdm.training.tasks import tile
from minivdm.training.trainer import Trainer

STAGES = ("vae2d", "temporal_vae", "toy_t5", "stdit3")
PROMPTS, SHOWN = 200, 8


def train_all(
    preset: str, run: Path, overrides: dict[str, Any], resume: bool = False, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Train the four in folders of `run`, then draw films from unseen captions; returns how well they obey.

    With `resume` finished stages are passed over, and the one that was stopped goes on.
    Raises UserError when `run` holds something and `resume` is off, and on several processes; Interrupted after Ctrl-C.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise UserError("train all runs on one process: start it without torchrun, or train its parts one by one")
    if run.exists() and any(run.iterdir()) and not resume:
        raise UserError(f"{run} is not empty; add --resume to go on with what is there, or choose another --run")
    parts = {
        "vae_loss.vae2d": str(run / "vae2d"),
        "flow.vae": str(run / "temporal_vae"),
        "flow.text": str(run / "toy_t5"),
        "flow.cache": str(run / "latents"),
    }
    for number, stage in enumerate(STAGES, start=1):
        folder = run / stage
        say(f"{number}. {stage}")
        started = bool(list_checkpoints(folder))
        if started:
            config = load_config(folder / "config.yaml", overrides)
        else:
            config = load_preset(preset, parts | overrides, task=stage, chain=True)
        if started and load_newest(folder)[1]["step"] >= config.training.steps:
            say(f"   is finished in {folder}")
            continue
        trainer = Trainer(make_task(config), config, folder, resume=started)
        say(f"   {describe(trainer.task, trainer)}")
        try:
            trainer.run()
        except Interrupted:
            command = shlex.join(["minivdm", "train", "all", "--preset", preset, "--run", str(run), "--resume"])
            raise Interrupted(
                f"stopped in {stage} after step {trainer.step}, saved in {run}; go on with: {command}"
            ) from None
    return _finish(run, say)


def _finish(run: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Save the pipeline, show some films, and ask the judge about more of them."""
    pipeline = TextToVideoPipeline.from_pretrained(run / "stdit3")
    pipeline.save_pretrained(run / "pipeline")
    config = load_config(run / "stdit3" / "config.yaml")
    prompts, _ = unseen_prompts(PROMPTS, config.data.level, seed=1)
    films = draw(pipeline, prompts, seed=0)
    enlarged = tile(films[:SHOWN]).repeat_interleave(4, -1).repeat_interleave(4, -2)
    write_video(run / "films.gif", enlarged, fps=config.data.fps)
    shares = prompt_accuracy(films, [parse_caption(prompt) for prompt in prompts])
    guessed = shares["chance"]["joint"]
    say(f"{shares['joint']:.0%} of {PROMPTS} films are all that an unseen caption asked for; guessing: {guessed:.1%}")
    return shares
