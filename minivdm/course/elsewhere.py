"""Lessons that open on somebody else's machine: badges for Colab and Binder, and the cell that sets Colab up.

Both need to know where the project is published: `Repository` under `[project.urls]` in pyproject.toml, an address on
GitHub. While it says nothing, lessons are as they are.
"""

import re
import tomllib
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from minivdm.errors import UserError

GITHUB = re.compile(r"https://github\.com/(?P<owner>[\w-]+)/(?P<name>[\w.-]+?)(?:\.git|/)?")
COLAB = "https://colab.research.google.com"
BINDER = "https://mybinder.org"
SETUP = """# On Colab this fetches the project; everywhere else it does nothing.
import sys

if "google.colab" in sys.modules:
    %cd -q /content
    !test -d {name} || git clone -q --depth 1 https://github.com/{owner}/{name}
    %pip install -q ./{name}
    %cd -q {name}/notebooks
    sys.path.insert(0, "/content/{name}")"""


def repository(root: Path) -> dict[str, str] | None:
    """{"owner", "name"} of the published project, or None. Raises UserError for an address that is not on GitHub."""
    file = root / "pyproject.toml"
    told = tomllib.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if (address := told.get("project", {}).get("urls", {}).get("Repository")) is None:
        return None
    if not (found := GITHUB.fullmatch(address)):
        raise UserError(f"Repository in pyproject.toml is {address}; expected https://github.com/OWNER/NAME")
    return found.groupdict()


def with_badges(notebook: NotebookNode, stem: str, root: Path) -> NotebookNode:
    """The learner's edition `stem` with its badges and its first cell of code, where the project is published."""
    if (place := repository(root)) is None:
        return notebook
    where = f"{place['owner']}/{place['name']}"
    colab = f"{COLAB}/github/{where}/blob/HEAD/notebooks/{stem}.ipynb"
    binder = f"{BINDER}/v2/gh/{where}/HEAD?labpath=notebooks/{stem}.ipynb"
    badges = [
        f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({colab})",
        f"[![Open in Binder]({BINDER}/badge_logo.svg)]({binder})",
    ]
    notebook.cells.insert(1, nbformat.v4.new_markdown_cell("\n".join(badges), id="badges"))
    tags = {"tags": ["nbval-ignore-output"]}
    notebook.cells.insert(2, nbformat.v4.new_code_cell(SETUP.format(**place), id="elsewhere", metadata=tags))
    return notebook
