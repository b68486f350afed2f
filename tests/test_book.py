"""The book: pages that fetch nothing, formulas without a script, pictures that lie in the page."""

import re
import xml.etree.ElementTree as ET

import nbformat
import pytest

from minivdm.course import book
from minivdm.course.mathml import mathml
from minivdm.errors import UserError
from minivdm.paths import repo_root

PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
FILM = '<figure><img src="data:image/webp;base64,UklGRg==" alt="a red peony"></figure>'


def notebook(path, title, *outputs, text=""):
    code = nbformat.v4.new_code_cell("x = '<b>' # what", outputs=list(outputs), execution_count=3)
    cells = [nbformat.v4.new_markdown_cell(f"# {title}\n\n{text}"), code]
    path.parent.mkdir(exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


def display(**data):
    return nbformat.v4.new_output("display_data", data={key.replace("_", "/"): value for key, value in data.items()})


@pytest.fixture
def folder(tmp_path):
    picture = display(image_png=PICTURE)
    picture.metadata = {"image/png": {"alt": "two curves"}}
    slider = nbformat.v4.new_output(
        "display_data", data={book.WIDGET: {"model_id": "1"}, "text/plain": "IntSlider(value=1)"}
    )
    links = "see [two](../notebooks/02_two.ipynb#end), [notes](../notes.md), `$5`."
    prose = f"By $a^2 < b$ and\n\n$$\\frac12 \\sum_{{i \\le t}} x_i$$\n\n{links}"
    hidden = "\n\n<details><summary>Why</summary>\n\nBecause $\\bar\\alpha_t$.\n\n</details>"
    notebook(
        tmp_path / "lessons" / "01_one.ipynb", "01 One: why?", picture, display(text_html=FILM), text=prose + hidden
    )
    stream = nbformat.v4.new_output("stream", text="\x1b[31mred <b>\x1b[0m\n")
    notebook(tmp_path / "lessons" / "02_two.ipynb", "02 Two & more", slider, stream)
    return tmp_path / "lessons"


def test_a_page_for_each_notebook_and_an_index(folder, tmp_path):
    pages = book.build(folder, tmp_path / "book")
    assert [page.name for page in pages] == ["index.html", "01_one.html", "02_two.html"]
    index, one, two = (page.read_text(encoding="utf-8") for page in pages)
    assert '<a href="02_two.html">02 Two &amp; more</a>' in index
    assert "default-src 'none'" in one and "<script" not in one + two and not book.FETCHED.search(one)
    assert '<a href="02_two.html#end">two</a>' in one and '<a href="../notes.md">notes</a>' in one
    assert "Next: 02 Two &amp; more" in one and "Next" not in two
    assert f"data:image/png;base64,{PICTURE}" in one and 'alt="two curves"' in one
    assert 'src="data:image/webp;base64,UklGRg=="' in one and 'alt="a red peony"' in one
    formulas = re.findall(r"<math.*?</math>", one, flags=re.S)
    assert len(formulas) == 3 and sum('display="block"' in formula for formula in formulas) == 1
    assert "$" not in re.sub(r"<math.*?</math>|<code>\$5</code>", "", one.partition("<main>")[2], flags=re.S)
    assert "IntSlider" not in two and "run the lesson in Jupyter" in two
    assert "red &lt;b&gt;" in two and "\x1b" not in two
    for text in (one, two):
        assert text.count("<div") == text.count("</div>") and 'aria-current="page"' in text
    (tmp_path / "book" / "old.html").write_text("")
    assert book.build(folder, tmp_path / "book") == pages
    assert not (tmp_path / "book" / "old.html").exists()


@pytest.mark.parametrize(
    ("html", "text", "words"),
    [
        ('<script src="https://cdn.example/x.js"></script>', "", "would fetch"),
        ("<img alt='' src=//example.org/x.png>", "", "would fetch"),
        ("<b>fine</b>", "$\\nosuch x$", "unknown command"),
    ],
)
def test_what_cannot_be_shown_offline_is_one_line(tmp_path, html, text, words):
    notebook(tmp_path / "in" / "01_one.ipynb", "01", display(text_html=html), text=text)
    with pytest.raises(UserError, match=words) as error:
        book.build(tmp_path / "in", tmp_path / "out")
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


def test_other_files_are_never_cleared_away(folder, tmp_path):
    with pytest.raises(UserError, match="holds other files"):
        book.build(folder, folder)
    with pytest.raises(UserError, match="no notebooks in"):
        book.build(tmp_path / "nosuch", tmp_path / "out")
    assert (folder / "01_one.ipynb").exists()


@pytest.mark.parametrize(
    ("latex", "expected"),
    [
        ("x_t^2", "<msubsup><mi>x</mi><mi>t</mi><mn>2</mn></msubsup>"),
        ("x'^2", "<msup><mi>x</mi><mrow><mo>′</mo><mn>2</mn></mrow></msup>"),
        (r"\tfrac12", '<mstyle displaystyle="false"><mfrac><mn>1</mn><mn>2</mn></mfrac></mstyle>'),
        (
            r"\sqrt{\bar\alpha_t}",
            '<msub><mover accent="true"><mi>α</mi><mo stretchy="false">¯</mo></mover><mi>t</mi></msub>',
        ),
        (r"\mathbb E\,x", '<mi mathvariant="normal">𝔼</mi><mspace width="0.167em"></mspace><mi>x</mi>'),
        (r"\text{two words }", "<mtext>two\u00a0words\u00a0</mtext>"),
        ("10^{-4}", "<msup><mn>10</mn><mrow><mo>−</mo><mn>4</mn></mrow></msup>"),
    ],
)
def test_formulas(latex, expected):
    assert expected in mathml(latex)


def test_sums_carry_their_limits_in_displays_only():
    assert "<munderover>" in mathml(r"\sum_{i}^n i", display=True) and "<msubsup>" in mathml(r"\sum_{i}^n i")
    braced = mathml(r"\underbrace{ab}_{0}")
    assert braced.count("<munder>") == 2


@pytest.mark.parametrize(
    "latex", [r"\nosuch", "{x", "x}", "a & b", r"\left( x", "x_1_2", r"\frac{1}", r"\mathbb{x}", r"\left x"]
)
def test_what_is_not_understood_is_said(latex):
    with pytest.raises(UserError, match="formula"):
        mathml(latex)


def test_every_formula_of_the_lessons_is_understood():
    formulas = 0
    for lesson in book.lessons(repo_root() / "solutions"):
        for cell in lesson.notebook.cells:
            if cell.cell_type == "markdown":
                source = re.sub(r"`[^`]*`", "", cell.source)
                displays = re.findall(r"\$\$(.+?)\$\$", source, flags=re.S)
                inline = re.findall(r"\$(.+?)\$", re.sub(r"\$\$.+?\$\$", "", source, flags=re.S), flags=re.S)
                for formula in [*displays, *inline]:
                    ET.fromstring(mathml(formula))
                    formulas += 1
    assert formulas > 300
