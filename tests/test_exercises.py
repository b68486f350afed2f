"""The table: exercises × {stub, each mistake, reference, other algebra, other dtype}, all with the right verdict."""

from importlib import import_module
from pathlib import Path

import pytest
import torch
from mutation import score, total

from minivdm.course.exercise import exercises
from minivdm.course.judging import examine

REQUIRED = """
01.linear_betas 01.cosine_betas 01.alphas_cumprod 01.noise_one_step 01.snr 01.gaussian_kl
02.extract 02.q_sample 02.predict_x0 02.q_posterior 02.p_sample 02.ddim_step
03.reparameterize 03.kl_to_standard_normal 03.spatial_attention 03.latent_scale 03.downsample_pad 03.nll
04.causal_pad 04.causal_conv3d 04.latent_frames 04.pad_front 04.depth_to_time 04.is_causal
05.conv3d_output_numel 05.num_chunks 05.chunked_conv3d 05.pad_3x3x3 05.row_parallel_conv3d
06.hinge_d_loss 06.vanilla_d_loss 06.wgan_d_loss 06.gradient_penalty 06.adopt_weight 06.adaptive_weight
06.receptive_field 06.perplexity
07.sinusoidal_embedding 07.film 07.temporal_attention 07.relative_position_bucket 07.rotate 07.guided
07.focus_present_mask 07.ema_update
08.patchify 08.unpatchify 08.modulate 08.space_time_rearrange 08.pos_embed_2d 08.flow_interpolate 08.flow_loss
08.euler_sample 08.shift_timestep
09.text_mask 09.masked_cross_attention 09.null_dropout 09.image_guidance 09.oscillate 09.freeze_frames 09.generate
10.memory_plan 10.clip_order 10.ema_warmup 10.accumulate 10.loss_scale_step 10.first_not_finite 10.atomic_save
""".split()
# Right answers in other words, and patterns of mutants that are right too, from every file of them.
OTHERS = [import_module(path.stem) for path in sorted(Path(__file__).parent.glob("exercise_alternatives*.py"))]
ALTERNATIVES = {exercise_id: answers for module in OTHERS for exercise_id, answers in module.ALTERNATIVES.items()}
EQUIVALENT = {key: text for module in OTHERS for key, text in getattr(module, "EQUIVALENT", {}).items()}
ALL = list(exercises().values())
MISTAKES = [(exercise, mistake) for exercise in ALL for mistake in exercise.mistakes]


def ids(exercise):
    return exercise.id


def is_float(value):
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def test_every_required_exercise_exists():
    assert set(REQUIRED) <= set(exercises())


@pytest.mark.parametrize("exercise", ALL, ids=ids)
def test_stub_fails_and_says_that_it_is_not_written(exercise):
    def stub(*args):
        raise NotImplementedError(f"exercise {exercise.id}")

    verdict = examine(exercise, stub)
    assert not verdict.passed and verdict.not_written
    assert verdict.message.startswith(f"Exercise {exercise.id} is not written yet")


@pytest.mark.parametrize("exercise", ALL, ids=ids)
def test_reference_passes(exercise):
    verdict = examine(exercise, exercise.reference)
    assert verdict.passed and verdict.mistake is None, verdict.message


@pytest.mark.parametrize("exercise", ALL, ids=ids)
def test_other_algebra_passes(exercise):
    for alternative in ALTERNATIVES[exercise.id]:
        verdict = examine(exercise, alternative)
        assert verdict.passed, f"{alternative.__name__}: {verdict.message}"


@pytest.mark.parametrize("exercise", ALL, ids=ids)
@pytest.mark.parametrize("dtype", [torch.float64, None], ids=["float64", "as given"])
def test_other_dtype_passes(exercise, dtype):
    """The reference in the dtype of its inputs (float32 rounding), and in float64 whatever the inputs are."""
    if dtype and exercise.id == "06.adaptive_weight":
        return  # no loss hangs on a converted copy of a layer

    def answer(*args):
        return exercise.reference(*(converted(arg) for arg in args))

    def converted(arg):
        return arg.to(dtype) if dtype and is_float(arg) else arg

    verdict = examine(exercise, answer)
    assert verdict.passed, verdict.message


@pytest.mark.parametrize(("exercise", "mistake"), MISTAKES, ids=lambda value: getattr(value, "id", None) or value.name)
def test_mistake_is_recognised(exercise, mistake):
    verdict = examine(exercise, mistake.wrong)
    assert not verdict.passed
    assert verdict.mistake == mistake.name, verdict.message
    assert verdict.message == mistake.message()


@pytest.mark.parametrize("exercise", ALL, ids=ids)
def test_mistakes_are_enough_and_their_messages_differ(exercise):
    assert len(exercise.mistakes) >= 3
    for part in ("name", "seen", "question"):
        texts = [getattr(mistake, part) for mistake in exercise.mistakes]
        assert part == "question" or len(set(texts)) == len(texts)
    for mistake in exercise.mistakes:
        assert mistake.seen.endswith((".", ")")) and mistake.why.endswith(".") and mistake.question.endswith("?")
        assert len(mistake.message()) < 420, f"{exercise.id} {mistake.name} is long"


@pytest.mark.parametrize("exercise", ALL, ids=ids)
def test_hints_go_from_idea_to_line(exercise):
    idea, _, line = exercise.hints
    assert "`" not in idea.replace("`start` ", "").replace("`end`", "").replace("`q_sample`", "")
    assert "`" in line
    assert len(set(exercise.hints)) == 3


@pytest.mark.parametrize("exercise", ALL, ids=ids)
def test_inputs_have_pairwise_different_sizes_and_two_float_widths(exercise):
    cases = exercise.cases(torch.Generator().manual_seed(0))
    assert len({case.note for case in cases}) == len(cases)
    for case in cases:
        for value in case.args.values():
            sizes = [n for n in value.shape if n > 1] if isinstance(value, torch.Tensor) else []
            square = len(sizes) != len(set(sizes))
            assert not square or "bias" in case.args, f"{exercise.id}: {case.note} has equal sizes {sizes}"
    dtypes = {value.dtype for case in cases for value in case.args.values() if is_float(value)}
    assert dtypes in ({torch.float32, torch.float64}, set())


@pytest.mark.parametrize("exercise", ALL, ids=ids)
def test_answers_that_break_the_common_rules_fail(exercise):
    reference = exercise.reference

    def half(*args):
        out = reference(*args)
        return tuple(each.half() for each in out) if isinstance(out, tuple) else out.half()

    def draws(*args):
        torch.rand(1)
        return reference(*args)

    def spoils(*args):
        out = reference(*args)
        tensors = [arg for arg in args if isinstance(arg, torch.Tensor)]
        if tensors:
            tensors[-1].data.zero_()  # torch itself would refuse to change a layer's weight
        return out

    case = exercise.cases(torch.Generator().manual_seed(0))[0]
    out = reference(*case.args.values())
    if isinstance(out, tuple) or is_float(out):
        assert not examine(exercise, half).passed
    assert examine(exercise, draws).mistake == "draws its own noise"
    if any(isinstance(value, torch.Tensor) for value in case.args.values()):
        assert examine(exercise, spoils).mistake == "changes an input"
    assert not examine(exercise, lambda *args: None).passed
    assert not examine(exercise, lambda *args: args[0]).passed


def test_mutants_of_every_reference_fail():
    of_all = total([score(exercise, EQUIVALENT.get(exercise.id, "$^")) for exercise in ALL])
    print(of_all)
    assert of_all.caught > 250
    assert len(of_all.alive) <= 0.05 * (of_all.caught + len(of_all.alive)), "\n\n".join(of_all.alive)
