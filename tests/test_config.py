"""Presets are differences from base, and mistakes in them are answered in one line that names the fix."""

import dataclasses

import pytest
import yaml

from minivdm import config as configuration
from minivdm.config import Config, load_config, load_preset, parse_overrides, preset_names
from minivdm.errors import UserError


def _raw(name):
    return yaml.safe_load((configuration.PRESETS / f"{name}.yaml").read_text())


def _below(name, task=""):
    """What a preset starts from: base, and the preset that it is like."""
    like = _raw(name).get("like")
    return configuration._read_preset("base", task) | (configuration._read_preset(like, task) if like else {})


def _own(name):
    """What a preset says for all of its tasks."""
    parts = {"tasks", "chain", "like"}
    return configuration._flatten({key: value for key, value in _raw(name).items() if key not in parts})


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads_and_states_only_its_difference(name):
    own, below = _own(name), _below(name)
    assert load_preset(name).preset == name
    assert set(own) <= set(below)
    assert [key for key in own if own[key] == below[key]] == []


def test_a_preset_that_is_like_another_has_what_that_one_has_for_the_task():
    toy, grown = (load_preset(name, task="stdit3") for name in ("toy", "toy_64"))
    assert grown.stdit3.hidden_size == toy.stdit3.hidden_size and grown.training == toy.training
    assert (grown.data.size, grown.data.level, toy.data.size) == (64, "scene", 32)


@pytest.mark.parametrize("name", [name for name in preset_names() if "tasks" in _raw(name)])
def test_a_task_states_only_its_difference_from_its_preset(name):
    for task, differences in _raw(name)["tasks"].items():
        general = _below(name, task) | _own(name)
        assert load_preset(name, task=task).task == task
        flat = configuration._flatten(differences)
        assert set(flat) <= set(general)
        assert [key for key in flat if flat[key] == general[key]] == []


def test_base_names_every_field():
    base = configuration._read_preset("base", "")
    fields = {
        f"{group.name}.{leaf.name}" if leaf else group.name
        for group in dataclasses.fields(Config)
        for leaf in (dataclasses.fields(group.type) if dataclasses.is_dataclass(group.type) else [None])
    }
    assert set(base) | {"preset"} == fields


def test_a_saved_configuration_from_before_a_group_existed_still_loads(tmp_path):
    load_preset("toy", {"training.steps": 7}).save(tmp_path / "config.yaml")
    saved = yaml.safe_load((tmp_path / "config.yaml").read_text())
    del saved["vae2d"], saved["task"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(saved))
    config = load_config(tmp_path / "config.yaml")
    assert (config.task, config.training.steps, config.vae2d.ch) == ("unet3d", 7, 128)


def test_the_a6000_run_is_the_one_of_the_source_document():
    config = load_preset("fireworks_a6000")
    assert (config.unet3d.dim, config.unet3d.dim_mults) == (64, (1, 2, 4, 8))
    assert (config.data.size, config.data.frames) == (64, 10)
    assert (config.diffusion.num_steps, config.diffusion.loss, config.diffusion.prediction) == (1000, "l1", "noise")
    training = config.training
    assert (training.batch_size, training.accumulate, training.learning_rate) == (16, 2, 1e-4)
    assert (training.steps, training.ema_decay, training.milestone_every) == (700_000, 0.995, 1000)
    assert training.precision == "fp16"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"training.stpes": 3}, ["training.stpes", "training.steps"]),
        ({"learning_rate": 3}, ["learning_rate", "training.learning_rate"]),
        ({"training.steps": "many"}, ["training.steps", "'many'", "int"]),
        ({"training.steps": 0}, ["training.steps", "above 0"]),
        ({"data.level": "hard"}, ["data.level", "single", "scene"]),
        ({"data.size": 30}, ["data.size 30", "24 or 32"]),
        ({"training.ema_decay": 1.5}, ["training.ema_decay", "0 to 1"]),
        ({"sampling.steps": 2000}, ["sampling.steps", "1000"]),
        ({"unet3d.init_kernel_size": 4}, ["init_kernel_size", "5"]),
        ({"unet3d.dim_mults": 5}, ["unet3d.dim_mults", "tuple"]),
        ({"data": 5}, ["'data'"]),
    ],
)
def test_impossible_settings_are_one_line_that_names_the_fix(overrides, words):
    with pytest.raises(UserError) as error:
        load_preset("toy", overrides)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("value", [None, 10**400, float("nan"), [[]], {}], ids=str)
def test_no_setting_takes_a_value_it_does_not_understand(value):
    """Whatever the setting: a configuration, or one line that names it."""
    for name in configuration._read_preset("base", ""):
        try:
            load_preset("toy", {name: value})
        except UserError as error:
            assert "\n" not in str(error) and name.rpartition(".")[2] in str(error)


def test_unknown_preset_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'toy'"):
        load_preset("toi")


def test_configuration_survives_a_file(tmp_path):
    config = load_preset("toy", {"training.steps": 7, "diffusion.threshold": None, "unet3d.dim_mults": [1, 3]})
    config.save(tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config
    assert load_config(tmp_path / "config.yaml", {"training.steps": 9}).training.steps == 9


def test_a_file_that_is_not_settings_is_one_line(tmp_path):
    (tmp_path / "config.yaml").write_text("- a\n- b\n")
    with pytest.raises(UserError, match="expected settings"):
        load_config(tmp_path / "config.yaml")
    (tmp_path / "config.yaml").write_text("a: [")
    with pytest.raises(UserError, match="cannot read"):
        load_config(tmp_path / "config.yaml")


def test_overrides_from_the_command_line():
    assert parse_overrides(["--training.steps", "500", "--data.flip=true", "--unet3d.dim_mults", "[1, 2]"]) == {
        "training.steps": 500,
        "data.flip": True,
        "unet3d.dim_mults": [1, 2],
    }
    for wrong in (["steps"], ["--training.steps"], ["--training.steps", "--data.flip"]):
        with pytest.raises(UserError):
            parse_overrides(wrong)
