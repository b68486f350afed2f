"""Every picture says in words what it shows: in the solved lessons, in the book, and when a lesson is built."""

import re
from html.parser import HTMLParser

import nbformat
import pytest

from minivdm.course.book import _Exporter, lessons
from minivdm.course.build import STILL, WIDGET, solved_edition, sources, with_words
from minivdm.errors import UserError
from minivdm.paths import repo_root

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SOLUTIONS = repo_root() / "solutions"


class Pictures(HTMLParser):
    """The alternative text of every picture of a page, "" where there is none."""

    def __init__(self, page: str):
        super().__init__()
        self.said: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        if tag in ("img", "svg"):
            found = dict(attributes)
            self.said.append((found.get("alt") or found.get("aria-label") or "").strip())


def drawn(data: dict, alt: str = "", **metadata) -> nbformat.NotebookNode:
    """A notebook of one cell with one output; alt: the words in the cell's line."""
    output = nbformat.v4.new_output("display_data", data=data, metadata=metadata)
    cell = nbformat.v4.new_code_cell("draw()", outputs=[output], metadata={"alt": alt} if alt else {})
    return nbformat.v4.new_notebook(cells=[cell])


@pytest.mark.parametrize("path", sorted(SOLUTIONS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_no_picture_of_a_solved_lesson_is_without_words(path):
    seen = 0
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            assert not [kind for kind in data if kind.startswith("image/")], f"{cell.id}: JupyterLab drops its words"
            said = Pictures(data.get("text/html", "")).said
            assert all(said), cell.id
            seen += len(said)
        assert cell.cell_type != "markdown" or not re.search(r"!\[\s*\]\(", cell.source), cell.id
    assert seen >= 10


def test_no_picture_of_the_book_is_without_words():
    smallest = min(SOLUTIONS.glob("*.ipynb"), key=lambda path: path.stat().st_size).stem
    lesson = next(lesson for lesson in lessons(SOLUTIONS) if lesson.name == smallest)
    page, _ = _Exporter(template_name="basic").from_notebook_node(lesson.notebook)
    said = Pictures(page).said
    assert len(said) >= 10 and all(said)


def test_words_come_from_the_cells_line_or_from_the_picture():
    for notebook in (
        drawn({"image/png": PNG}, "two <curves>"),
        drawn({"image/png": PNG}, **{"image/png": {"alt": "two <curves>"}}),
    ):
        (output,) = with_words(notebook).cells[0].outputs
        assert Pictures(output.data["text/html"]).said == ["two <curves>"] and PNG in output.data["text/html"]
        assert output.data["text/plain"] == "two <curves>" and "image/png" not in output.data
        nbformat.validate(notebook)
        again = with_words(nbformat.from_dict(notebook)).cells[0].outputs[0]
        assert again == output
    derived = drawn({"text/html": f'<img src="data:image/png;base64,{PNG}" alt="curves">'}, "what the author says")
    assert Pictures(with_words(derived).cells[0].outputs[0].data["text/html"]).said == ["what the author says"]


def test_a_picture_without_words_is_refused_by_the_name_of_its_cell():
    notebook = drawn({"image/png": PNG})
    with pytest.raises(UserError, match=f"{notebook.cells[0].id} draws a picture without words"):
        with_words(notebook)


def test_the_words_in_a_cells_line_stay_in_both_editions():
    said = [cell.metadata.alt for cell in solved_edition(sources(repo_root())[6]).cells if cell.metadata.get("alt")]
    assert len(said) == 15 and len(set(said)) == 15


def test_a_slider_is_a_sentence_where_no_kernel_runs():
    notebook = drawn({WIDGET: {"model_id": "1"}, "text/plain": "SelectionSlider(options=(0, 2…"})
    (output,) = with_words(notebook).cells[0].outputs
    assert output.data["text/plain"] == STILL and WIDGET in output.data
    bar = with_words(drawn({WIDGET: {"model_id": "1"}, "text/plain": "training:   0%|"})).cells[0].outputs[0]
    assert bar.data["text/plain"] == "training:   0%|"
