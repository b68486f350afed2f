"""The files that say which packages are needed agree with each other."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def _name(requirement: str) -> str:
    return re.match(r"[A-Za-z0-9_.-]+", requirement).group().lower().replace("_", "-")


def _project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def _pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {_name(line): line.partition("==")[2] for line in lines if "==" in line}


def test_every_direct_dependency_is_pinned_within_its_range():
    project, pins = _project(), _pins()
    for requirement in project["dependencies"] + project["optional-dependencies"]["dev"]:
        floor = requirement.partition(">=")[2]
        pin = pins[_name(requirement)]
        found, least = ([int(part) for part in re.findall(r"\d+", version)] for version in (pin, floor))
        assert found >= least, requirement


def test_conda_file_names_the_same_packages_and_versions():
    project, pins = _project(), _pins()
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    listed = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    listed = {_name(line): line.partition("==")[2] for line in listed if not line.startswith("--")}
    wanted = [_name(requirement) for requirement in project["dependencies"] + project["optional-dependencies"]["dev"]]
    assert listed == {name: pins[name] for name in wanted}


def test_torchvision_is_not_wanted():
    assert "torchvision" not in _pins(), "its wheels clash with CPU builds of torch"


def test_makefile_and_constraints_name_one_torch():
    assert f"torch=={_pins()['torch']}" in (ROOT / "Makefile").read_text()
