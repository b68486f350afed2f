"""The check machine itself: what it tells a learner, what it refuses, and what it keeps."""

import random
import sys

import numpy as np
import pytest
import torch

from minivdm.course import Case, Exercise, ExerciseNotDone, Mistake, Verdict, check, exercise, hint, runner
from minivdm.course.display import show
from minivdm.course.exercise import get
from minivdm.course.judging import examine
from minivdm.errors import UserError


@pytest.fixture(autouse=True)
def own_workbook(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIVDM_WORKBOOK", str(tmp_path / "workbook"))
    return tmp_path / "workbook"


def make(reference, cases, **options):
    """A small exercise whose inputs are these dicts."""
    listed = [Case(args, f"case {number}") for number, args in enumerate(cases)]
    defaults = {"mistakes": (), "hints": ("idea", "equation", "line")}
    return Exercise("01.toy", reference, lambda generator: listed, **{**defaults, **options})


ROW = {"x": torch.tensor([[1.0, -2.0, 3.0], [0.5, 4.0, -1.5]])}
DOUBLE = make(lambda x: 2 * x, [ROW])


def message(exercise, answer):
    verdict = examine(exercise, answer)
    assert isinstance(verdict, Verdict) and not verdict.passed
    return verdict.message


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (lambda x: None, "got None: a `return` is missing"),
        (lambda x: "text", "got a str"),
        (lambda x: (2 * x).numpy(), "got a numpy array"),
        (lambda x: (2 * x).T, "right axes in another order"),
        (lambda x: (2 * x)[None], "axes of size 1"),
        (lambda x: (2 * x).sum(0), "an axis was summed"),
        (lambda x: (2 * x)[:1], "whole batch was treated as one sample"),
        (lambda x: (2 * x).flatten(), "merged or split"),
        (lambda x: (2 * x).long(), "Expected float numbers for the result, got integer"),
        (lambda x: (2 * x).bfloat16(), "bfloat16: digits were thrown away"),
        (lambda x: 2 * x + 0j, "got complex"),
        (lambda x: 2 * x.sqrt(), "are NaN"),
        (lambda x: x / 0, "are infinite"),
        (lambda x: torch.empty_like(x, device="meta"), "on cpu, got it on meta"),
        (lambda x: x, "your answer is the input `x`, unchanged"),
        (lambda x: 0 * x, "all your numbers are zero"),
        (lambda x: -2 * x, "a sign is flipped"),
        (lambda x: 4 * x, "off by the same factor everywhere, 2"),
        (lambda x: 2 * x + 7, "off by the same amount everywhere, 7"),
        (lambda x: torch.cat([2 * x[:1], x[1:]]), "index 1 (the last) of axis 0"),
        (lambda x: 2 * x.flip(1), "reverse order along axis 1"),
        (lambda x: (2 * x).clamp(-1, 1), "clamped to [−1, 1]"),
        (lambda x: 2 * x * torch.tensor([[3.0], [5.0]]), "a factor of its own (3, 5)"),
        (lambda x: 2 * x.sort(1).values, "right numbers in another order"),
        (lambda x: torch.sin(50 * x), "6 of 6 numbers are off; expected values from -4 to 8"),
    ],
)
def test_first_suspects(answer, text):
    assert text in message(DOUBLE, answer)


def test_a_single_wrong_number_is_told_as_a_factor_or_a_difference():
    total = make(lambda x: x.sum(), [ROW])
    assert "your number is the expected one times 1/2." in message(total, lambda x: x.sum() / 2)
    assert "your number is the expected one times 0.4." in message(total, lambda x: x.sum() * 0.4)
    assert "your number is off by 995." in message(total, lambda x: x.sum() * 200)


def test_factors_are_told_only_when_they_explain_every_number():
    edge = make(lambda x: torch.nn.functional.pad(x, (0, 1)), [ROW])
    assert "factor" not in message(edge, lambda x: torch.nn.functional.pad(x, (0, 1), value=3.0))


def test_lost_digits_are_told_from_a_wrong_formula():
    third = make(lambda x: x / 3, [ROW])
    assert "nearly right: were digits lost" in message(third, lambda x: (x / 3).half().float())
    assert "nearly right" in message(third, lambda x: 0.333 * x)
    assert "nearly right" not in message(third, lambda x: 0.34 * x)


def test_where_t_is_wrong():
    cases = [{"x": torch.ones(4, 3), "t": torch.tensor([3, 0, 2, 5])}]
    times_t = make(lambda x, t: x * (t[:, None] + 1.0), cases)
    assert "right for t = 0 only" in message(times_t, lambda x, t: 1 * x + 0.1 * (t[:, None] > 0))
    assert "wrong for t = 0 only" in message(times_t, lambda x, t: x * (t[:, None] + 1.0) + (t[:, None] == 0))
    assert "right for t = 3, 0, wrong for t = 2, 5" in message(
        times_t, lambda x, t: torch.cat([(x * (t[:, None] + 1.0))[:2], 3.1 * x[2:] * torch.tensor([1.0, 2.0, 4.0])])
    )


def test_the_ingredient_with_the_wrong_number_is_named():
    generator = torch.Generator().manual_seed(0)
    inputs = {name: torch.randn(2, 5, 3, generator=generator) for name in ("clip", "noise")}
    mix = make(lambda clip, noise: 0.8 * clip + 0.6 * noise, [inputs])
    text = message(mix, lambda clip, noise: 0.8 * clip + 0.36 * noise)
    assert "in sample 0 you multiply `noise` by 0.36 instead of 0.6." in text


def test_several_outputs_and_numbers():
    two = make(lambda x: (x, x.abs()), [ROW], outputs=("value", "size"))
    assert "Expected 2 values (value, size), got one Tensor" in message(two, lambda x: x)
    assert "returned None" in message(two, lambda x: None)
    assert "`size`" in message(two, lambda x: (x, x))
    assert examine(two, lambda x: [x, abs(x)]).passed
    count = make(lambda x: int((x > 0).sum()), [ROW])
    for right in (
        lambda x: 4,
        lambda x: torch.tensor(4),
        lambda x: np.int64(4),
        lambda x: torch.tensor(4, dtype=torch.int32),
    ):
        assert examine(count, right).passed
    for wrong in (lambda x: 4.0, lambda x: torch.tensor([4]), lambda x: True, lambda x: 3):
        assert not examine(count, wrong).passed
    truth = make(lambda x: True, [ROW])
    assert examine(truth, lambda x: torch.tensor(True)).passed
    assert not examine(truth, lambda x: 1).passed
    assert "Expected True for the result, got False." in message(truth, lambda x: False)
    number = make(lambda x: 0.5, [ROW])
    assert examine(number, lambda x: torch.tensor(0.5)).passed
    assert not examine(make(lambda x: x.sum(), [ROW]), lambda x: float(x.sum())).passed


def test_wider_floats_pass_and_narrower_fail():
    wide = make(lambda x: 2 * x, [{"x": ROW["x"].double()}])
    assert examine(DOUBLE, lambda x: 2 * x.double()).passed
    assert "inputs are float64 and the result is float32" in message(wide, lambda x: 2 * x.float())


def test_views_and_non_contiguous_answers_pass():
    same = make(lambda x: x, [ROW])
    assert examine(same, lambda x: x).passed
    assert examine(make(lambda x: x.T, [ROW]), lambda x: x.T).passed


def test_changing_an_input_fails_and_names_it():
    add = make(lambda x, y: x + y, [{"x": ROW["x"], "y": 2 * ROW["x"]}])
    verdict = examine(add, lambda x, y: y.add_(x))
    assert "changes its input `y` in place" in verdict.message and verdict.mistake == "changes an input"
    assert not examine(make(lambda x: x[None], [ROW]), lambda x: x.unsqueeze_(0)).passed
    assert examine(make(lambda x: x.exp(), [ROW], gradients=("x",)), lambda x: x.exp_()).mistake == "changes an input"
    assert ROW["x"][0, 0] == 1  # the check works on copies


@pytest.mark.parametrize(
    "draw", [lambda: torch.rand(1), lambda: np.random.rand(), lambda: random.random(), lambda: torch.manual_seed(3)]
)
def test_touching_global_randomness_fails_even_with_the_right_value_and_is_undone(draw):
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()

    def answer(x):
        draw()
        return 2 * x

    assert examine(DOUBLE, answer).mistake == "draws its own noise"
    assert torch.equal(torch.get_rng_state(), before[0]) and random.getstate() == before[2]
    assert np.array_equal(np.random.get_state()[1], before[1])


def test_a_private_generator_is_recognised():
    answer = examine(DOUBLE, lambda x: x + torch.randn(x.shape, generator=torch.Generator().manual_seed(1)))
    assert answer.mistake == "draws its own noise"


def test_an_answer_that_makes_its_own_inputs_needs_a_private_generator():
    asks = make(lambda fn: bool((fn(torch.zeros(2)) == 0).all()), [{"fn": torch.sin}], makes_inputs=True)

    def private(fn, generator=None):
        x = torch.rand(3, generator=generator or torch.Generator().manual_seed(1))
        return bool((fn(x) / x > 0.1).all())

    assert examine(asks, private).passed
    assert "Give it a generator of its own" in message(asks, lambda fn: private(fn, torch.default_generator))
    assert "Expected True for the result, got False." in message(asks, lambda fn: not private(fn))
    assert "fn = a function" in message(asks, lambda fn: fn("text"))


def test_errors_are_shown_as_the_learners_own():
    def answer(x):
        y = x * 2
        return y @ y

    text = message(DOUBLE, answer)
    assert "RuntimeError: mat1 and mat2" in text and "`return y @ y`" in text and "x = a float32 tensor (2, 3)" in text
    assert "Traceback" not in text
    assert "The check calls `toy(x)`" in message(DOUBLE, lambda: 1)
    assert "SystemExit" in message(DOUBLE, lambda x: sys.exit("bye"))
    assert "Pass the function itself" in message(DOUBLE, 3)


def test_endless_loops_end(monkeypatch):
    monkeypatch.setattr(runner, "TIME_LIMIT_S", 0.1)

    def answer(x):
        while True:
            x = x * 1

    assert "stopped after 0.1 seconds" in message(DOUBLE, answer)


def test_stubs_of_this_and_of_another_exercise():
    def needs_extract(x):
        raise NotImplementedError("exercise 02.extract")

    def bare(x):
        raise NotImplementedError

    def torchs(x):
        raise NotImplementedError("Could not run 'aten::x'")

    assert "calls exercise 02.extract, which is not written yet" in message(DOUBLE, needs_extract)
    assert "01.toy is not written yet" in message(DOUBLE, bare)
    assert "Your code raised" in message(DOUBLE, torchs)


def test_right_for_some_cases_is_said():
    both = make(lambda x: 2 * x, [ROW, {"x": torch.ones(1, 3)}])
    assert "It is right for case 1. It is wrong for case 0." in message(both, lambda x: x + 1)


def test_a_mistake_must_fit_every_case_and_may_be_an_error():
    mistake = Mistake("plus one", lambda x: x + 1, "You add one.", "Doubling is asked for.", "what is 2 · 0?")
    raises = Mistake("keys", lambda x: {}[0], "You look up a key.", "There is none.", "where?")
    both = make(lambda x: 2 * x, [ROW, {"x": torch.ones(1, 3)}], mistakes=(mistake, raises))
    assert examine(both, lambda x: 1 + x).mistake == "plus one"
    assert examine(both, lambda x: x + 1 if len(x) > 1 else x).mistake is None
    assert examine(both, lambda x: {}["a"]).mistake == "keys"
    assert examine(both, lambda x: [][0]).mistake is None


SQUARES = [{"x": torch.tensor([1.0, 2.0, 3.0]), "y": torch.tensor([0.5, -1.0, 2.0])}]


def test_gradients_are_compared_where_they_matter():
    detached = Mistake("detached", lambda x, y: x.detach() * y, "No gradient.", "It was cut.", "where?")
    product = make(lambda x, y: x * y, SQUARES, gradients=("x", "y"), mistakes=(detached,))
    assert examine(product, lambda x, y: torch.stack([a * b for a, b in zip(x, y, strict=True)])).passed
    assert "`y` is not: none arrives" in message(product, lambda x, y: x * y.detach())
    assert examine(product, lambda x, y: x.detach() * y).mistake == "detached"
    assert "expected 0.25 first, got 0.5" in message(product, lambda x, y: x * y + x * y - (x * y).detach())
    half = make(lambda x, y: x.detach() * y, SQUARES, gradients=("x", "y"))
    assert "should have been detached" in message(half, lambda x, y: x * y)
    with torch.no_grad():
        assert examine(product, lambda x, y: x * y).passed


def test_check_prints_returns_and_keeps_right_answers(capsys, own_workbook):
    def snr(alphas_cumprod):
        return alphas_cumprod / (1 - alphas_cumprod)

    verdict = check("01.snr", snr)
    assert verdict.passed and verdict.mistake is None
    assert capsys.readouterr().out == "✓ 01.snr\n  Right, on every input tried. Kept as workbook/01.snr.py.\n"
    assert (own_workbook / "01.snr.py").read_text().startswith("def snr(alphas_cumprod):")
    space = {}
    exec((own_workbook / "01.snr.py").read_text(), space)
    assert space["snr"](0.5) == 1
    assert [path.name for path in own_workbook.iterdir()] == ["01.snr.py"]  # nothing unfinished


def test_wrong_answers_are_not_kept(own_workbook):
    assert not check("01.snr", lambda a: a).passed
    assert not own_workbook.exists()


def test_lambdas_and_other_names_are_kept_under_the_exercises_name(own_workbook):
    check("01.snr", lambda a: a / (1 - a))
    assert (own_workbook / "01.snr.py").read_text() == "snr = lambda a: a / (1 - a)\n"

    def mine(a):
        return 1 / (1 / a - 1)

    check("01.snr", mine)
    assert (own_workbook / "01.snr.py").read_text().endswith("\n\nsnr = mine\n")


def test_answers_without_source_or_place_still_pass(own_workbook, capsys):
    space = {}
    exec("def snr(a):\n    return a / (1 - a)", space)
    assert check("01.snr", space["snr"]).passed
    assert "cannot find its source" in capsys.readouterr().out
    own_workbook.write_text("a file where the folder should be")
    assert check("01.snr", lambda a: a / (1 - a)).passed
    assert "could not be kept" in capsys.readouterr().out


def test_unknown_exercises_suggest_near_ones():
    with pytest.raises(UserError, match="02.q_sample"):
        check("02.qsample", lambda: None)
    with pytest.raises(UserError, match="did you mean"):
        get("nonsense")


def test_hints_come_one_after_the_other(capsys, monkeypatch):
    monkeypatch.setattr(exercise, "_hints_given", exercise.Counter())
    assert [hint("02.q_sample").level for _ in range(4)] == [1, 2, 3, 3]
    printed = capsys.readouterr().out
    assert "hint 1 of 3: the idea" in printed and "√ᾱ_t · x0" in printed
    assert hint("02.q_sample", level=2).message == get("02.q_sample").hints[1]
    with pytest.raises(UserError, match="level 4"):
        hint("02.q_sample", level=4)


def test_html_is_escaped_and_marks_code(capsys):
    verdict = Verdict(False, "`a < b` & more\nThink: why?", None, "01.toy")
    html = verdict.to_html()
    assert "<code>a &lt; b</code> &amp; more<br>Think" in html and "✗ 01.toy" in html
    show(verdict)
    assert capsys.readouterr().out == "✗ 01.toy\n  `a < b` & more\n  Think: why?\n"


def test_the_line_that_stops_a_notebook():
    error = ExerciseNotDone(Verdict(False, "Exercise 01.toy is not written yet", None, "01.toy", not_written=True))
    assert error._render_traceback_() == ["✎ Exercise 01.toy is not written yet"]
