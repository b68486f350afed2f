"""How verdicts and hints look: a bordered box in Jupyter, plain lines everywhere else."""

import html
import re
import sys
from dataclasses import dataclass

PASS_COLOUR, FAIL_COLOUR, HINT_COLOUR = "#009E73", "#D55E00", "#0072B2"  # distinguishable without red-green sight


class _Shown:
    """Shows itself once: `show` displays it, and as the last value of a cell it stays silent."""

    def _ipython_display_(self) -> None:
        """Silent on purpose: `check` and `hint` have shown it already, in a loop and in mid-cell too."""

    def __str__(self) -> str:
        return f"{self.heading()}\n{_indented(self.message)}"

    def to_html(self) -> str:
        colour, text = self.colour(), _markup(self.message)
        return (
            f'<div style="border-left: 4px solid {colour}; padding: 0.3em 0.9em; margin: 0.3em 0; line-height: 1.5">'
            f'<b style="color: {colour}">{html.escape(self.heading())}</b><br>{text}</div>'
        )


@dataclass(frozen=True)
class Verdict(_Shown):
    """What a check found. `mistake` names the known wrong answer that it recognised, None when it recognised none."""

    passed: bool
    message: str
    mistake: str | None = None
    exercise: str = ""
    not_written: bool = False

    def heading(self) -> str:
        return f"{'✓' if self.passed else '✗'} {self.exercise}"

    def colour(self) -> str:
        return PASS_COLOUR if self.passed else FAIL_COLOUR


@dataclass(frozen=True)
class Hint(_Shown):
    """One of the three hints of an exercise."""

    exercise: str
    level: int
    message: str

    def heading(self) -> str:
        return f"{self.exercise}, hint {self.level} of 3: {('the idea', 'the equation', 'the line')[self.level - 1]}"

    def colour(self) -> str:
        return HINT_COLOUR


class ExerciseNotDone(Exception):
    """Stops a notebook at an exercise that is still a stub. Jupyter shows its one line and no traceback."""

    def __init__(self, verdict: Verdict):
        super().__init__(verdict.message)
        self.verdict = verdict

    def _render_traceback_(self) -> list[str]:
        return [f"✎ {self.verdict.message}"]


def in_notebook() -> bool:
    """True inside a Jupyter kernel, False in IPython's terminal, in scripts and in tests."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and shell.has_trait("kernel") and getattr(shell, "kernel", None) is not None


def show(shown: _Shown) -> None:
    """Display in Jupyter (HTML with a text twin), print elsewhere."""
    if in_notebook():
        from IPython.display import display

        display({"text/plain": str(shown), "text/html": shown.to_html()}, raw=True)
    else:
        print(shown)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _markup(text: str) -> str:
    """Escaped text with `code` spans and line breaks."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text)).replace("\n", "<br>")
