"""What you have done: the table of all notebooks, its widget, and checking whole notebooks from the command line."""

import html
import textwrap
from dataclasses import dataclass
from typing import Any

from minivdm.course import workbook
from minivdm.course.definitions import code_cells, define, marked
from minivdm.course.display import in_notebook
from minivdm.course.exercise import NUM_NOTEBOOKS, check, exercises
from minivdm.errors import UserError

TITLES = (
    "DDPM math",
    "q_sample and the posterior",
    "the 2D VAE",
    "the causal temporal VAE",
    "chunked Conv3D",
    "PatchGAN and losses",
    "the Unet3D",
    "STDiT3 and rectified flow",
    "text to video",
    "training in practice",
)
WIDTH = 110


@dataclass(frozen=True)
class Progress:
    """The exercises of one notebook, and whether each lies in the workbook."""

    notebook: int
    done: dict[str, bool]

    def heading(self) -> str:
        title = f"notebook {self.notebook:02d}, {TITLES[self.notebook - 1]}"
        return f"{title}: {sum(self.done.values())} of {len(self.done)} exercises passed"

    def __str__(self) -> str:
        marks = "  ".join(map(_marked, self.done, self.done.values()))
        return f"{self.heading()}\n  {marks}".replace("\N{NO-BREAK SPACE}", " ")

    def to_html(self) -> str:
        """Takes its colours from the page, light or dark; what is passed is told by sign and words, not by colour."""
        names = "".join(
            f'<li style="display: inline-block; margin: 0 1.2em 0.2em 0; opacity: {1 if done else 0.75}">'
            f'<span aria-label="{"passed" if done else "open"}">{"✓" if done else "○"}</span> '
            f"<code>{html.escape(name)}</code></li>"
            for name, done in self.done.items()
        )
        passed, most = sum(self.done.values()), max(1, len(self.done))
        bar = f'<progress value="{passed}" max="{most}" aria-hidden="true"></progress>'
        box = "border: 1px solid currentColor; border-radius: 4px; padding: 0.4em 0.9em; line-height: 1.6"
        title = f"{bar} <b>{html.escape(self.heading())}</b>"
        return f'<div style="{box}">{title}<ul style="margin: 0.3em 0 0; padding: 0">{names}</ul></div>'

    def _ipython_display_(self) -> None:
        """Silent on purpose: `progress_widget` has shown it already."""


def of_notebook(number: int) -> Progress:
    """What of notebook `number` (from 1) lies in the workbook."""
    if number not in range(1, NUM_NOTEBOOKS + 1):
        raise UserError(f"no notebook {number!r}; expected a number from 1 to {NUM_NOTEBOOKS}")
    ours = [exercise for exercise in exercises().values() if exercise.notebook == number]
    return Progress(number, {exercise.name: workbook.path_of(exercise.id).exists() for exercise in ours})


_on_screen: set[int] = set()


def progress_widget(notebook: int) -> Progress:
    """Shows what is passed and what is open in one notebook; in Jupyter it follows every check from then on."""
    shown = of_notebook(notebook)
    if in_notebook():
        from IPython.display import display

        display(_pictured(shown), raw=True, display_id=f"minivdm-progress-{notebook}")
        _on_screen.add(notebook)
    else:
        print(shown)
    return shown


def refresh(notebook: int) -> None:
    """Redraws the widget of this notebook where it stands, if it is on the screen."""
    if notebook in _on_screen:
        from IPython.display import update_display

        update_display(_pictured(of_notebook(notebook)), raw=True, display_id=f"minivdm-progress-{notebook}")


def _pictured(shown: Progress) -> dict[str, str]:
    return {"text/plain": str(shown), "text/html": shown.to_html()}


def progress_table() -> str:
    """All notebooks and their exercises: ✓ for each that lies in the workbook, · for each that does not yet."""
    lines = []
    done_in_all = 0
    for number, title in enumerate(TITLES, start=1):
        done = of_notebook(number).done
        done_in_all += sum(done.values())
        count = f"{sum(done.values())} of {len(done)}" if done else "to come"
        marks = " ".join(map(_marked, done, done.values()))
        first, *rest = textwrap.wrap(marks, WIDTH - 42, break_on_hyphens=False) or [""]
        lines.append(f"{number:02d} {title:<28}{count:>8}   {first}".rstrip())
        lines += [f"{'':42}{line}" for line in rest]
    lines.append(f"\n{done_in_all} of {len(exercises())} exercises in {workbook.folder()}")
    return "\n".join(lines).replace("\N{NO-BREAK SPACE}", " ")


def _marked(name: str, done: bool) -> str:
    return f"{'✓' if done else '·'}\N{NO-BREAK SPACE}{name}"


def check_notebooks(which: str) -> int:
    """Checks every exercise in the learner's notebook `which` ("01", "02", … or "all"); 0 when all pass, else 1.

    Of the notebook only imports, definitions and plain constants are run, not the experiments around them.
    """
    numbers = [f"{n:02d}" for n in range(1, NUM_NOTEBOOKS + 1)] if which == "all" else [which.zfill(2)]
    folder = workbook.course_root() / "notebooks"
    notebooks = [path for number in numbers for path in sorted(folder.glob(f"{number}_*.ipynb"))]
    if not notebooks:
        raise UserError(f"no notebook {which!r} in {folder}; expected 01 to {NUM_NOTEBOOKS:02d} or all")
    passed = True
    for path in notebooks:
        cells = code_cells(path)
        space: dict[str, Any] = {"__name__": path.stem}
        problems = define(path.name, cells, space)
        answers = {each: space.get(each.split(".", 1)[1]) for each in marked(source for _, source in cells)}
        if None in answers.values():  # else what did not run was an experiment that needs the cells before it
            for problem in problems:
                print(f"✗ {problem}")
        for exercise_id, answer in answers.items():
            if answer is None:
                print(f"✗ {exercise_id}\n  {path.name} does not define it: run the notebook once to see why.")
            passed &= answer is not None and check(exercise_id, answer).passed
    return 0 if passed else 1
