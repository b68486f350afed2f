"""A stranger's walk through a whole lesson in a real browser: every exercise unwritten, wrong, then right.

    .venv/bin/python tests/browser_walk.py 02               the first listed mistake of each exercise
    .venv/bin/python tests/browser_walk.py 02 --every       every listed mistake

Prints one line per exercise and what the page had to complain of; status 1 when something was not as it should be.
build/screenshots/walk-* shows the lesson from top to bottom, in light and in dark.
"""

import argparse
import re
import sys
import time

from browser_lab import ROOT, Lab, jupyter_lab, missing

from minivdm.course.build import chosen, exercise_ids, solved_edition
from minivdm.course.exercise import get

ON_THE_PAGE = """() => {
    const count = selector => document.querySelectorAll(`.jp-Notebook ${selector}`).length;
    const pictures = [...document.querySelectorAll('.jp-Notebook .jp-OutputArea img')];
    const prose = [...document.querySelectorAll('.jp-Notebook .jp-MarkdownCell .jp-RenderedMarkdown')].map(each => {
        const words = each.cloneNode(true);
        words.querySelectorAll('code, mjx-container').forEach(part => part.remove());
        return words.textContent;
    });
    return {
        'formulas': count('mjx-container'),
        'formulas with an error': count('mjx-merror, mjx-container [data-mjx-error]'),
        'paragraphs with a formula left as source': prose.filter(text => /\\$|\\\\[a-z({[]/.test(text)).length,
        'pictures': pictures.length,
        'pictures that do not load': pictures.filter(each => each.complete && !each.naturalWidth).length,
        'pictures without words': pictures.filter(each => !each.alt).length,
        'sliders and menus': count('.jp-OutputArea .widget-slider, .jp-OutputArea .widget-dropdown'),
        'tracebacks': count('[data-mime-type="application/vnd.jupyter.error"]'),
        'warnings': count('[data-mime-type="application/vnd.jupyter.stderr"]'),
    };
}"""
HARMLESS = {"formulas", "pictures", "sliders and menus"}


def walk(lab: Lab, name: str, every: bool) -> bool:
    """Prints the table of one lesson; True when all was as it should be."""
    from browser_notebook import open_notebook  # needs Playwright

    solved = solved_edition(ROOT / "solutions" / f"{name}.py")
    answers = [cell.source for cell in solved.cells]
    with open_notebook(lab, f"{name}.ipynb") as page:
        fine, done = True, ""
        for exercise_id in exercise_ids(solved):
            begun, checked = time.monotonic(), f'check("{exercise_id}"'
            stopped = page.run_below(done, until=checked) if done else page.run_all(until=checked)
            stub = f"Exercise {exercise_id} is not written yet" in stopped.text_content()
            marker = f"# exercise: {exercise_id}\n"
            answer = next(text for text in answers if marker in text)
            seen, tried, tick = judge(page, exercise_id, marker, answer, every)
            fine &= stub and tick and seen == tried
            marks = f"stub {'✓' if stub else '✗'}  own messages {seen} of {tried}  tick {'✓' if tick else '✗'}"
            print(f"{exercise_id:<26} {marks}  {time.monotonic() - begun:5.0f} s", flush=True)
            done = checked
        begun = time.monotonic()
        page.run_below(done, until=next(filter(None, reversed(page.sources))))
        print(f"from there to the end: {time.monotonic() - begun:.0f} s", flush=True)
        page.photograph_all(f"walk-{name[:2]}-light")
        counts = page.page.evaluate(ON_THE_PAGE)
        page.in_the_dark()
        page.photograph_all(f"walk-{name[:2]}-dark")
        print("\n".join(f"{count:5d} {what}" for what, count in counts.items()))
        print(f"{len(page.faults):5d} errors on the console, failed requests, requests to the network")
        print("".join(f"      {fault}\n" for fault in page.faults), end="")
    return fine and not page.faults and not any(count for what, count in counts.items() if what not in HARMLESS)


def judge(page, exercise_id: str, marker: str, answer: str, every: bool) -> tuple[int, int, bool]:
    """Wrong answers, then the right one: how many were told their own message, of how many, and is there a tick."""
    exercise, checked, seen = get(exercise_id), f'check("{exercise_id}"', 0
    listed = exercise.mistakes if every else exercise.mistakes[:1]
    for number, mistake in enumerate(listed):
        wrong = f'{exercise.name} = get("{exercise_id}").mistakes[{number}].wrong'
        page.write(marker, f"{answer}\n\n\nfrom minivdm.course.exercise import get\n\n{wrong}")
        page.run(marker)
        said = page.run(checked).text_content()
        own = f"✗ {exercise_id}" in said and squeezed(mistake.message()) in squeezed(said)
        seen += own
        if not own:
            print(f"  {exercise_id}, {mistake.name!r} is told: {said}")
    page.write(marker, answer)
    page.run(marker)
    return seen, len(listed), f"✓ {exercise_id}" in page.run(checked).text_content()


def squeezed(text: str) -> str:
    """Without white space and marks of code: on the page both have become layout."""
    return re.sub(r"[\s`]", "", text)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python tests/browser_walk.py", description="A stranger's walk.")
    parser.add_argument("lessons", nargs="+", metavar="NN", help="numbers of lessons")
    parser.add_argument("--every", action="store_true", help="every listed mistake, not only the first")
    options = parser.parse_args()
    if reason := missing():
        print(reason, file=sys.stderr)
        return 2
    fine = True
    for source in chosen(ROOT, options.lessons):
        print(f"\n{source.stem}")
        with jupyter_lab([f"{source.stem}.ipynb"]) as lab:
            fine &= walk(lab, source.stem, options.every)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
