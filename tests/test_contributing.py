"""What CONTRIBUTING.md and the development container tell people to do can be done."""

import json
import re
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
CODE = re.findall(r"```bash\n(.*?)```", TEXT, flags=re.S) + re.findall(r"`([^`\n]+)`", TEXT)
TO_COME = {"minivdm/course/exercises/n11.py", "solutions/11_name.py"}


def test_files_modules_and_targets_exist():
    words = {word for code in CODE for word in code.split()}
    paths = {word.rstrip(",;.") for word in words if re.fullmatch(r"[\w.]+(/[\w.*]+)+", word) and ".venv" not in word}
    assert len(paths) > 15
    for path in paths - TO_COME - {"build/book/"}:
        assert list(ROOT.glob(path)), path
    modules = {match for code in CODE for match in re.findall(r"-m (minivdm\S+)", code)}
    assert modules == {"minivdm.course.atlas", "minivdm.course.build", "minivdm.course.verdicts"}
    assert all(find_spec(module) for module in modules)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`make (\w+)", TEXT):
        assert f"\n{target}: " in makefile, target


def test_container_sets_up_what_the_makefile_does():
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    assert container["postCreateCommand"] == "make .venv/.ready"
    assert "READY := $(VENV)/.ready" in (ROOT / "Makefile").read_text(encoding="utf-8")
