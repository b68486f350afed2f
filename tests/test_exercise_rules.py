"""What a check sees besides the value: how it was computed, and what an answer leaves behind."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from minivdm.course.compare import Problem
from minivdm.course.convolutions import Convolution, convolutions
from minivdm.course.exercise import Case, Exercise, Mistake, get
from minivdm.course.judging import examine

g = torch.Generator().manual_seed(0)
X, W, HALVES = (torch.randn(shape, generator=g) for shape in [(2, 4, 3, 5, 6), (7, 4, 3, 1, 2), (6, 2, 3, 1, 2)])


def make(reference, case, **options):
    return Exercise("01.toy", reference, lambda g: [case], (), ("idea", "equation", "line"), **options)


def layer(x, weight):
    conv = nn.Conv3d(4, 7, (3, 1, 2), bias=False, device="meta")
    conv.weight = nn.Parameter(weight.clone())
    return conv(x)


def without_gradients(x, weight):
    with torch.inference_mode():
        return F.conv3d(x, weight)


def by_name(x, weight):
    settings = {"stride": (1, 1, 1), "padding": (0, 0, 0), "dilation": (1, 1, 1), "output_padding": (0, 0, 0)}
    return torch.convolution(input=x, weight=weight, bias=None, transposed=False, groups=1, **settings)


@pytest.mark.parametrize("answer", [F.conv3d, torch.conv3d, layer, without_gradients, by_name])
def test_every_way_to_call_a_convolution_is_seen(answer):
    seen = convolutions(answer, Case({"x": X, "weight": W}, "a convolution"))
    assert seen == [Convolution((2, 4, 3, 5, 6), (2, 7, 1, 5, 5), 4)]


def test_groups_clips_without_batch_and_pictures_are_seen():
    case = Case({"x": X}, "a convolution")
    assert convolutions(lambda x: F.conv3d(x, HALVES, groups=2), case)[0].channels_per_group == 2
    assert convolutions(lambda x: F.conv3d(x[0], W), case)[0].read == (1, 4, 3, 5, 6)
    assert convolutions(lambda x: F.conv2d(x[:, :, 0], W[:, :, 0]), case)[0].written == (2, 7, 5, 5)
    assert convolutions(lambda x: x + 1, case) == []
    assert convolutions(lambda x: x.no_such_thing, case) == []  # the learner's error is told elsewhere


def test_a_rule_fails_a_right_value_and_tells_mistakes_apart():
    def no_loops(answer, case):
        return Problem(answer.kind, f"broken: {answer.kind}") if hasattr(answer, "kind") else None

    def breaks(kind):
        def answer(x):
            return 2 * x

        answer.kind = kind
        return answer

    known = Mistake("loops", breaks("loop"), "You loop.", "No.", "why?")
    exercise = make(lambda x: 2 * x, Case({"x": torch.ones(3)}, "ones"), rule=no_loops)
    exercise = Exercise(**{**vars(exercise), "mistakes": (known,)})
    assert examine(exercise, lambda x: x + x).passed
    assert examine(exercise, breaks("loop")).mistake == "loops"
    other = examine(exercise, breaks("goto"))
    assert not other.passed and other.mistake is None and other.message == "broken: goto"
    assert "numbers of the result differ" in examine(exercise, lambda x: 3 * x).message


def test_tied_inputs_hang_together_in_every_call():
    def tie(args):
        weight = args["weight"].detach().clone().requires_grad_(True)
        return {"loss": (weight**3).sum(), "weight": weight}

    case = Case(tie({"weight": torch.tensor([1.0, 2.0])}), "a loss and its weight", tie)
    exercise = make(lambda loss, weight: torch.autograd.grad(loss, weight)[0], case)
    assert examine(exercise, lambda loss, weight: 3 * weight.detach() ** 2).passed
    assert examine(exercise, lambda loss, weight: torch.autograd.grad(2 * loss, weight)[0] / 2).passed
    assert not examine(exercise, lambda loss, weight: torch.autograd.grad(2 * loss, weight)[0]).passed


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("exercise_id", ["06.hinge_d_loss", "06.gradient_penalty", "06.adaptive_weight"])
def test_a_notebook_may_have_turned_gradients_off(off, exercise_id):
    with off():
        verdict = examine(get(exercise_id), get(exercise_id).reference)
    assert verdict.passed, verdict.message


def test_a_loss_whose_graph_is_used_up_fails_and_says_so():
    exercise = make(lambda x: (x**2).sum(), Case({"x": torch.tensor([1.0, 3.0])}, "a row"), gradients=("x",))

    def used_up(x):
        loss = (x**2).sum()
        loss.backward()
        return loss

    assert "used it up (`backward`)" in examine(exercise, used_up).message


def test_runtime_errors_are_the_same_mistake_only_with_the_same_message():
    known = Mistake("product", lambda x: x @ x, "You multiply.", "It does not fit.", "which sizes?")
    exercise = make(lambda x: 2 * x, Case({"x": torch.ones(2, 3)}, "a table"))
    exercise = Exercise(**{**vars(exercise), "mistakes": (known,)})
    assert examine(exercise, lambda x: x.mm(x)).mistake == "product"
    assert examine(exercise, lambda x: x.reshape(5)).mistake is None


def test_a_bias_that_is_there_too_often_is_the_first_suspect():
    case = Case({"x": HALVES[:2, 0, :, 0], "bias": torch.tensor([1.5, -2.0, 0.5])}, "a row")
    exercise = make(lambda x, bias: 2 * x + bias[:, None], case)
    assert (
        "`bias` is 2 times too often in your result" in examine(exercise, lambda x, b: 2 * x + 3 * b[:, None]).message
    )
    assert "`bias` is missing from your result" in examine(exercise, lambda x, b: 2 * x).message


def test_an_input_that_is_no_number_counts_as_unchanged():
    case = Case({"x": torch.tensor([1.0, float("nan"), 3.0])}, "a row with a NaN")
    exercise = make(lambda x: x.nan_to_num(), case)
    assert examine(exercise, lambda x: torch.where(x.isnan(), 0, x)).passed
    assert examine(exercise, lambda x: x.nan_to_num_()).mistake == "changes an input"
