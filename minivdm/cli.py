"""The command line: `minivdm COMMAND …`. Heavy imports wait until a command needs them, so that help is instant."""

import argparse
import os
import select
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

from minivdm.errors import UserError

EXIT_USER_ERROR, EXIT_INTERRUPTED = 2, 130


def data(argv: list[str]) -> None:
    """render fireworks clips with captions, or report on a folder of clips"""
    if argv[:1] == ["report"]:
        return _data_report(argv[1:])
    parser = _parser("data", data)
    parser.epilog = "minivdm data report DIR: what is in a folder of your own, and what to do about it"
    parser.add_argument("world", choices=["fireworks"], help="what to render")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--clips", type=int, default=256, help="how many")
    parser.add_argument("--level", choices=["single", "scene"], default="single", help="one shell, or one to three")
    parser.add_argument("--size", type=int, default=32, help="height and width in pixels")
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--split", choices=["train", "test"], default="train", help="test has combinations that train lacks"
    )
    parser.add_argument("--format", choices=["gif", "mp4", "webp", "npz"], default="gif")
    parser.add_argument("--fps", type=float, default=8.0)
    options = parser.parse_args(argv)
    from minivdm.data.write_dataset import write_fireworks

    write_fireworks(
        options.out,
        clips=options.clips,
        level=options.level,
        size=options.size,
        frames=options.frames,
        seed=options.seed,
        split=options.split,
        format=options.format,
        fps=options.fps,
    )
    print(f"wrote {options.clips} clips and captions.jsonl to {options.out}")


def _data_report(argv: list[str]) -> None:
    """say what is in a folder of clips: lengths, sizes, captions, bad files, copies, buckets, and what to do"""
    parser = _parser("data report", _data_report)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, help="folder to write report.md with plots to")
    parser.add_argument("--buckets", help="data.buckets to try, such as '[{size: 32px, frames: 9, batch: 16}]'")
    parser.add_argument("--multiple", type=int, default=8, help="sides of buckets are multiples of it (toy: 8)")
    options = parser.parse_args(argv)
    from minivdm.config import load_preset, parse_overrides
    from minivdm.data.report import survey
    from minivdm.data.report_page import as_text, write_page

    given = parse_overrides(["--data.buckets", options.buckets]) if options.buckets else {}
    buckets = load_preset("toy", given | {"data.folder": str(options.folder)}, task="stdit3").data.buckets
    found = survey(options.folder, buckets, options.multiple)
    print(as_text(found))
    if options.out:
        print(f"\nwrote {write_page(found, options.out)}, with plots")


def train(argv: list[str]) -> None:
    """train a model; any setting of a preset can follow, such as --training.steps 500"""
    parser = _parser("train", train)
    tasks = ["unet3d", "vae2d", "temporal_vae", "toy_t5", "stdit3", "all"]
    parser.add_argument("task", choices=tasks, help="what to train; all: every part of text to video, from nothing")
    parser.add_argument("--preset", help="settings to start from: toy, small, fireworks_a6000 (default: toy)")
    parser.add_argument("--data", help="folder of GIF, MP4 or WebP clips (default: fireworks rendered in memory)")
    parser.add_argument("--run", type=Path, help="folder that keeps the run (default: runs/TASK-PRESET)")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint of --run")
    options, rest = parser.parse_known_args(argv)
    from minivdm.config import load_config, load_preset, parse_overrides
    from minivdm.training.start import check_memory, describe, make_task
    from minivdm.training.trainer import Trainer

    overrides = parse_overrides(rest) | ({"data.folder": options.data} if options.data else {})
    run = options.run or Path("runs") / f"{options.task}-{options.preset or 'toy'}"
    if options.task == "all":
        from minivdm.training.chain import STAGES, train_all

        for stage in STAGES:
            check_memory(load_preset(options.preset or "toy", overrides, task=stage, chain=True))
        train_all(options.preset or "toy", run, overrides, options.resume)
        print(f"done: the pipeline is in {run / 'pipeline'}, films in {run / 'films.gif'}")
        return
    if options.resume:
        if not (run / "config.yaml").is_file():
            raise UserError(
                f"nothing to resume: {run} holds no run; start one without --resume, or give its folder with --run"
            )
        config = load_config(run / "config.yaml", overrides)
        for name, given, trained in (("preset", options.preset, config.preset), ("task", options.task, config.task)):
            if given not in (None, trained):
                raise UserError(f"{run} was trained with {name} {trained}, not {given}; say {trained}")
    else:
        config = load_preset(options.preset or "toy", overrides, task=options.task)
    planned = check_memory(config)
    task = make_task(config, run if options.resume else None)
    trainer = Trainer(task, config, run, resume=options.resume)
    if trainer.is_main:
        print(describe(task, trainer), planned, sep="\n")
    trainer.run()
    if trainer.is_main:
        print(f"done: checkpoints, samples, loss.png and metrics.jsonl are in {run}")


def plan(argv: list[str]) -> None:
    """say what a training or a film takes before it runs: memory part by part, computing, time, what to change"""
    parser = _parser("plan", plan)
    tasks = ["unet3d", "vae2d", "temporal_vae", "toy_t5", "stdit3"]
    parser.add_argument("--preset", default="toy", help="whose settings; any of them can follow, as in train")
    parser.add_argument("--task", choices=tasks, help="what to train, or draw films with (default: one after another)")
    parser.add_argument("--gpu", help="memory of the GPU to plan for, such as 24GB (default: this machine)")
    parser.add_argument("--sample", action="store_true", help="one film, instead of a training")
    parser.add_argument("--probe", action="store_true", help="take ten real steps here, on random clips, for the time")
    options, rest = parser.parse_known_args(argv)
    from minivdm.config import load_preset, parse_overrides
    from minivdm.planner.machine import parse_memory
    from minivdm.planner.report import film_lines, training_lines

    memory, overrides = options.gpu and parse_memory(options.gpu), parse_overrides(rest)
    if options.probe and (options.gpu or options.sample):
        raise UserError("--probe takes training steps on this machine: leave --gpu and --sample out")
    for task in [options.task] if options.task else ["unet3d", "stdit3"] if options.sample else tasks:
        config = load_preset(options.preset, overrides, task=task)
        lines = film_lines(config, memory) if options.sample else training_lines(config, memory, options.probe)
        for line in lines:
            print(line, flush=True)
        print()


def sample(argv: list[str]) -> None:
    """draw films from a trained model and write them as GIF and MP4"""
    parser = _parser("sample", sample)
    parser.add_argument("prompts", nargs="*", default=[""], help='such as "a large red peony bursts high on the left"')
    parser.add_argument("--checkpoint", default="toy", help="shipped model, run or saved pipeline (default: toy)")
    parser.add_argument("--model", choices=["unet3d", "stdit3"], help="which of the shipped models")
    parser.add_argument("--out", type=Path, default=Path("outputs/sample"), help="folder to write")
    parser.add_argument("--clips", type=int, default=1, help="films per prompt")
    parser.add_argument("--method", choices=["ddpm", "ddim", "dpmpp", "euler", "midpoint"])
    parser.add_argument("--steps", type=int, help="network calls per film")
    parser.add_argument("--guidance", type=float, help="1: as trained; more: closer to the prompt, less varied")
    parser.add_argument("--eta", type=float, help="noise on the way: 0 none (DDIM), 1 all (DDPM)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=int, default=4, help="each pixel is drawn this many times larger")
    stdit3 = parser.add_argument_group("text-to-video models (STDiT3) only")
    stdit3.add_argument("--frames", help="of each clip, or seconds such as 5s; 1 is a picture")
    stdit3.add_argument("--size", help="pixels: a side, HEIGHTxWIDTH, or a ratio of width to height such as 16:9")
    stdit3.add_argument("--image", type=Path, help="picture to begin with")
    stdit3.add_argument("--last-image", type=Path, help="picture to end with")
    stdit3.add_argument("--video", type=Path, help="clip to go on from, or with --strength to work from")
    stdit3.add_argument("--strength", type=float, help="how much to change --video or --image: 0 nothing, 1 all")
    together = "under torchrun: all processes draw every film together, instead of some films each"
    stdit3.add_argument("--sequence-parallel", action="store_true", help=together)
    options = vars(parser.parse_args(argv))
    if options["clips"] < 1 or options["scale"] < 1:
        raise UserError(f"--clips {options['clips']}, --scale {options['scale']}: expected whole numbers above 0")
    from minivdm.pipelines.write_films import sample_films
    from minivdm.planner.report import check_sampling

    films = len(options["prompts"]) * options["clips"]
    if planned := check_sampling(options["checkpoint"], options["model"], films, options):
        print(planned, file=sys.stderr)
    for path in sample_films(options.pop("prompts"), options.pop("out"), **options):
        print(path)


def judge(argv: list[str]) -> None:
    """say which fireworks are in the clips of a folder"""
    parser = _parser("judge", judge)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args(argv)
    from minivdm.data.grade import grade_folder

    for line in grade_folder(options.folder):
        print(line)


def parity(argv: list[str]) -> int:
    """compare our modules with tensors recorded from the upstream implementations"""
    parser = _parser("parity", parity)
    parser.add_argument("files", nargs="+", type=Path, help="golden .safetensors or .json files")
    options = parser.parse_args(argv)
    from minivdm.parity import run

    return run(options.files)


def check(argv: list[str]) -> int:
    """check the exercises of your notebooks: a number such as 02, or all"""
    parser = _parser("check", check)
    parser.add_argument("which", help="01, 02, …, or all")
    options = parser.parse_args(argv)
    from minivdm.course.progress import check_notebooks

    return check_notebooks(options.which)


def progress(argv: list[str]) -> None:
    """show which exercises you have passed, or what a class has"""
    parser = _parser("progress", progress)
    parser.add_argument(
        "--folder",
        type=Path,
        help="a class's notebooks, a subfolder per student; they run with limits, not in a sandbox",
    )
    parser.add_argument("--csv", type=Path, help="file to write the table of --folder to, with every outcome")
    options = parser.parse_args(argv)
    if options.folder:
        from minivdm.course.classroom import class_progress

        class_progress(options.folder, options.csv)
        return
    if options.csv:
        raise UserError("--csv goes with --folder, the folder of a class's submissions")
    from minivdm.course.progress import progress_table

    print(progress_table())


def hint(argv: list[str]) -> None:
    """a hint for an exercise: the idea, then the equation, then the line"""
    parser = _parser("hint", hint)
    parser.add_argument("exercise", help="such as 02.q_sample")
    options = parser.parse_args(argv)
    from minivdm.course import hint as show_hint

    show_hint(options.exercise)


COMMANDS: dict[str, Callable[[list[str]], Any]] = {
    function.__name__: function for function in (data, plan, train, sample, judge, parity, check, progress, hint)
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 (a check failed), 2 (a mistake of the user), 130 (Ctrl-C)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a console that cannot show a sign gets another one, and no traceback
            stream.reconfigure(errors="replace")
    try:
        status = _run(arguments)
        sys.stdout.flush()
        return status
    except UserError as error:
        print(f"minivdm: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt as error:
        print(f"minivdm: {error or 'interrupted'}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except OSError as error:  # a full disk, a folder that may not be written
        if isinstance(error, BrokenPipeError) and hasattr(select, "poll") and _nobody_reads(sys.stdout):
            return 0
        print(f"minivdm: {error.filename or 'file error'}: {error.strerror or error}", file=sys.stderr)
        return EXIT_USER_ERROR


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: minivdm COMMAND …\n\nLearn video diffusion by building it.\n")
        for name, function in COMMANDS.items():
            print(f"  {name:<10} {function.__doc__}")
        print("\nminivdm COMMAND --help says more.")
        return 0
    if arguments[0] == "--version":
        from minivdm import __version__

        print(__version__)
        return 0
    if arguments[0] not in COMMANDS:
        raise UserError(f"unknown command {arguments[0]!r}; commands: {', '.join(COMMANDS)}")
    return COMMANDS[arguments[0]](arguments[1:]) or 0


def _nobody_reads(stream: TextIO) -> bool:
    """Whether the reader, `head` for one, has seen enough and gone. Then the rest is not written, at exit neither."""
    watch = select.poll()  # which Windows lacks, where a reader that goes is another error
    watch.register(stream, select.POLLOUT)
    if any(event & (select.POLLERR | select.POLLHUP) for _, event in watch.poll(0)):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return True
    return False


class _Parser(argparse.ArgumentParser):
    """argparse that answers a mistake in one line."""

    def error(self, message: str) -> None:
        raise UserError(f"{message} ({self.prog} --help)")


def _parser(name: str, function: Callable[..., Any]) -> argparse.ArgumentParser:
    return _Parser(prog=f"minivdm {name}", description=function.__doc__, allow_abbrev=False)


if __name__ == "__main__":
    sys.exit(main())
