"""The solved lessons and the atlas of symptoms as a small static site: a page each, an index, and nothing to fetch.

    python -m minivdm.course.book              solutions/*.ipynb into build/book; open build/book/index.html
    python -m minivdm.course.book --out site   into another folder

Notebooks are shown with the outputs that are stored in them; nothing is run. The pages hold no script and fetch
nothing, which they also forbid the browser (a content security policy): pictures and films lie in them, formulas are
MathML. What needs a kernel, such as a slider, is a sentence that says so.
"""

import argparse
import base64
import html
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from string import Template

import nbformat
from jinja2 import pass_context
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode
from pygments.formatters import HtmlFormatter

from minivdm.course.atlas.entries import PAGE as ATLAS
from minivdm.course.atlas.entry import anchor
from minivdm.course.build import WIDGET
from minivdm.course.mathml import mathml
from minivdm.errors import UserError
from minivdm.paths import repo_root

LOCAL_LINK = re.compile(r'href="(?!#|\w+:)([^"#]+)')
FETCHED = re.compile(
    r"""<(?:script|img|link|iframe|video|audio|source|object|embed)\b[^>]*?\b(?:src|href|data)=(?!["']?data:)[^\s>]{0,80}"""
)
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Lesson:
    """A solved notebook and the page that becomes of it. title: its first heading."""

    name: str
    title: str
    notebook: NotebookNode

    @property
    def page(self) -> str:
        return f"{self.name}.html"


class _Renderer(IPythonRenderer):
    """Markdown whose formulas are MathML from the start."""

    def block_math(self, body: str) -> str:
        return mathml(body, display=True)

    def inline_math(self, body: str) -> str:
        return mathml(body)


class _Exporter(HTMLExporter):
    """Cells and outputs alone; the page around them is ours."""

    @pass_context
    def markdown2html(self, context: object, source: str) -> str:
        return MarkdownWithMath(renderer=_Renderer(escape=False, anchor_link_text="#")).render(source)


def lessons(folder: Path) -> list[Lesson]:
    """The notebooks of a folder in the order of their names; UserError when there is none."""
    found = []
    for path in sorted(folder.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
        heading = re.search(r"^# +(.+)$", prose, flags=re.M)
        found.append(Lesson(path.stem, heading[1] if heading else path.stem, notebook))
    if not found:
        raise UserError(f"no notebooks in {folder}; clone the repository whole, or run make notebooks")
    return found


def atlas(page: Path) -> Lesson:
    """The atlas as a lesson: its pictures lie in the text, and headings are linked by the names that they get here."""
    text = page.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", text, flags=re.M)

    def data(picture: re.Match) -> str:
        return f'src="data:image/webp;base64,{base64.b64encode((page.parent / picture[1]).read_bytes()).decode()}"'

    text = re.sub(r'src="([^"]+)"', data, text)
    for heading in headings:
        text = text.replace(f"](#{anchor(heading)})", f"](#{heading.replace(' ', '-')})")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)])
    return Lesson(page.parent.name, headings[0], notebook)


def body(lesson: Lesson, links: Callable[[str], str]) -> str:
    """The cells of a lesson as HTML. links: where a link to another file leads."""
    notebook = deepcopy(lesson.notebook)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if WIDGET in output.get("data", {}):
                output.data = NotebookNode({"text/plain": "(Something to move: run the lesson in Jupyter.)"})
    exporter = _Exporter(template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True)
    text, _ = exporter.from_notebook_node(notebook)
    text = LOCAL_LINK.sub(lambda link: f'href="{links(link[1])}', text)
    if fetched := FETCHED.search(text):
        raise UserError(f"{lesson.name}: the page would fetch {fetched[0]}…>; store it in the notebook instead")
    return text


def build(folder: Path, out: Path, beside: Sequence[Lesson] = ()) -> list[Path]:
    """Makes `out` anew with a page for each notebook in `folder`, those `beside` them, and an index; returns the pages,
    the index first.

    Raises UserError when there is no notebook, when one would fetch something or holds a formula that is not known,
    and when `out` holds files that are no book.
    """
    found = [*lessons(folder), *beside]
    if out.exists() and not (out / "index.html").is_file() and any(out.iterdir()):
        raise UserError(f"{out} holds other files; give a new or an empty folder")
    template = Template((HERE / "book.html").read_text(encoding="utf-8"))
    pages = {lesson.name: lesson.page for lesson in found}

    def links(target: str) -> str:
        """To a lesson: its page; to any other file: that file, seen from the book."""
        name = Path(target).parent.name if Path(target).name == "README.md" else Path(target).stem
        return pages.get(name) or Path(os.path.relpath(folder / target, out)).as_posix()

    texts = {"index.html": _page(template, found, None, _index(found))}
    texts |= {lesson.page: _page(template, found, lesson, body(lesson, links)) for lesson in found}
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for name, text in texts.items():
        (out / name).write_text(text, encoding="utf-8", newline="\n")
    return [out / name for name in texts]


def _page(template: Template, found: list[Lesson], here: Lesson | None, text: str) -> str:
    entries = []
    for lesson in found:
        mark = ' aria-current="page"' if lesson is here else ""
        entries.append(f'<li><a href="{lesson.page}"{mark}>{html.escape(lesson.title.partition(":")[0])}</a></li>')
    after = found[found.index(here) + 1 :] if here else found
    onward = f'<a href="{after[0].page}">Next: {html.escape(after[0].title)}</a>' if after else ""
    title = html.escape(here.title if here else "minivdm")
    return template.substitute(title=title, style=_style(), menu="".join(entries), onward=onward, body=text)


def _index(found: list[Lesson]) -> str:
    entries = "".join(f'<li><a href="{lesson.page}">{html.escape(lesson.title)}</a></li>' for lesson in found)
    return f"<h1>Learn video diffusion by building it</h1><p>The lessons, solved.</p><ul>{entries}</ul>"


def _style() -> str:
    light, dark = (HtmlFormatter(style=name).get_style_defs(".highlight") for name in ("default", "github-dark"))
    own = (HERE / "book.css").read_text(encoding="utf-8")
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n{own}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m minivdm.course.book", description="The solved lessons as a site.")
    parser.add_argument("--out", type=Path, default=repo_root() / "build" / "book", help="folder to make anew")
    options = parser.parse_args(arguments)
    try:
        pages = build(repo_root() / "solutions", options.out, [atlas(repo_root() / ATLAS)])
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    size = sum(page.stat().st_size for page in pages)
    print(f"{len(pages)} pages, {size / 2**20:.1f} MB; open {pages[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
