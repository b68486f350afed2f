"""Answers that learners might give and nobody listed: from every file `unlisted_answers_NN.py`."""

from importlib import import_module
from pathlib import Path

import pytest

from minivdm.course.exercise import get
from minivdm.course.judging import examine

FILES = [import_module(path.stem) for path in sorted(Path(__file__).parent.glob("unlisted_answers*.py"))]


def ids(value):
    return value if isinstance(value, str) else value.__name__.strip("<>")


@pytest.mark.parametrize(("exercise_id", "answer"), [pair for file in FILES for pair in file.WRONG], ids=ids)
def test_a_wrong_answer_that_nobody_listed_fails(exercise_id, answer):
    verdict = examine(get(exercise_id), answer)
    assert not verdict.passed
    assert verdict.message and not verdict.not_written


@pytest.mark.parametrize(("exercise_id", "answer"), [pair for file in FILES for pair in file.RIGHT], ids=ids)
def test_a_right_answer_of_another_sort_passes(exercise_id, answer):
    verdict = examine(get(exercise_id), answer)
    assert verdict.passed, verdict.message
