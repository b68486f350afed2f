"""The table of verdicts holds every answer there is, and a wrong verdict stands out in it."""

from dataclasses import replace

from minivdm.course import verdicts
from minivdm.course.exercise import exercises, get
from minivdm.course.verdicts import Row, answers, clone_modules, counts, main, rows


def test_every_answer_is_in_the_table():
    table = [(exercise.id, *answer[:2]) for exercise in exercises().values() for answer in answers(exercise)]
    kinds = {kind: sum(row[1] == kind for row in table) for kind in verdicts.KINDS}
    alternatives, unlisted = clone_modules("exercise_alternatives*.py"), clone_modules("unlisted_answers*.py")
    right = sum(len(answers) for file in alternatives for answers in file.ALTERNATIVES.values())
    assert kinds == {
        "stub": len(exercises()),
        "mistake": sum(len(exercise.mistakes) for exercise in exercises().values()),
        "reference": len(exercises()),
        "other right answer": right + sum(len(file.RIGHT) for file in unlisted),
        "other wrong answer": sum(len(file.WRONG) for file in unlisted),
    }
    assert right > 100 and kinds["other wrong answer"] > 500


def test_all_verdicts_of_a_notebook_are_right(capsys):
    """Of the first; those of all notebooks are asserted one by one in test_exercises and test_unlisted_answers."""
    assert main(["01"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert all(line.startswith("✓ 01.") for line in lines) and len(lines) > 60
    assert last.startswith(f"8 exercises, {len(lines)} answers, judged as they should be: stubs 8 of 8, mistakes")


def test_a_wrong_verdict_stands_out(monkeypatch, capsys):
    ratio = get("01.snr")
    twins = (replace(ratio.mistakes[0], name="first"), replace(ratio.mistakes[0], name="second"))
    monkeypatch.setattr(
        verdicts, "exercises", lambda: {"01.snr": replace(ratio, mistakes=twins, reference=lambda a: a)}
    )
    assert main([]) == 1
    printed = capsys.readouterr().out
    assert "✗ expected 'wrong, second'" in printed
    (stub, *_) = rows([ratio])
    assert stub.right and counts([stub, replace(stub, expected="right")]).endswith("stubs 1 of 2")
    assert isinstance(stub, Row) and str(stub).startswith("✓ 01.snr")
