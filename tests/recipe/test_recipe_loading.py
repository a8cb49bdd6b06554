from __future__ import annotations

import copy
import inspect
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowclf import registry
from flowclf.argument_types import PositiveInt
from flowclf.component_schema.sections import from_code
from flowclf.errors import RecipeError, UsageError
from flowclf.recipe import bundled, dump, find, load, loads, reader, resolved
from flowclf.recipe.schema import Data
from flowclf.settings import TrainSettings

DESIGN = """\
name: mnist
seed: 0
data: {name: mnist, batch_size: 128, bits: 8, pad: 0, augment: {shift: 2}}
model:
  name: firevnet
  stages: 2
  blocks: 4
  width: 64
  coupling: affine
loss:
  name: independence_cross_entropy
  nuisance: {weight: 1.0, steps: 3, hidden: [512, 512]}
  likelihood: {weight: 1.0}
train:
  epochs: 10
  optimizer: {name: adamax, lr: 2.0e-3, weight_decay: 1.0e-4}
  schedule: {name: one_cycle}
  precision: bf16
  activations: store          # or recompute
  checkpoint_every_steps: 500 # and after every epoch
evaluate: {protocol: quick}
"""
GRAPH = """\
name: graph
data: {name: arrays, path: "no", test_seed: 3, validation: 0.1, augment: {shift: 2}}
model:
  - squeeze
  - repeat: 2
    nodes: [actnorm, {affine_coupling: {subnet: {conv: {width: 8}}}}, {repeat: 3, nodes: [{additive_coupling: {subnet: conv}}]}]
  - dct2d
  - {split_head: {dct: false}}
loss: [{name: cross_entropy, weight: 2}, {name: factorial_prior_mle}]
train: {optimizer: {name: sgd}, schedule: {name: trapezoid, warmup_steps: 3}, ema: 0.99}
"""


def test_the_example_of_the_design():
    recipe = loads(DESIGN).recipe
    assert (recipe.name, recipe.seed, recipe.data.name, recipe.data.batch_size) == ("mnist", 0, "mnist", 128)
    assert recipe.data.augment.model_dump() == {
        "rotation": 0.0,
        "zoom": 0.0,
        "elastic": 0.0,
        "unwarped": 0.0,
        "interpolation": "bilinear",
        "shift": 2,
        "crop": 0,
        "flip": False,
        "noise": 0.0,
        "resized_crop": None,
        "color": {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0},
    }
    assert recipe.data.arguments == {}
    assert recipe.model.name == "firevnet"
    assert recipe.model.arguments | {"stages": 2, "blocks": 4, "width": 64, "coupling": "affine"} == recipe.model.arguments
    assert recipe.loss.arguments["nuisance"].hidden == [512, 512]
    assert recipe.train.optimizer.name == "adamax"
    assert recipe.train.optimizer.arguments == {"lr": 2e-3, "weight_decay": 1e-4, "betas": (0.9, 0.999), "eps": 1e-8}
    assert recipe.train.precision == "bf16"


def test_activations_are_stored_or_recomputed():
    assert loads(DESIGN.replace("activations: store ", "activations: recompute ")).recipe.train.activations == "recompute"
    with pytest.raises(RecipeError, match="Input should be 'store' or 'recompute', found 'forget'"):
        loads(DESIGN.replace("activations: store ", "activations: forget "))


def test_the_stream_is_of_floats_or_in_fixed_point():
    assert loads(DESIGN).recipe.train.stream == "float"
    assert loads(DESIGN.replace("epochs: 10", "epochs: 10\n  stream: fixed_point")).recipe.train.stream == "fixed_point"
    with pytest.raises(RecipeError, match="Input should be 'float' or 'fixed_point', found 'integer'"):
        loads(DESIGN.replace("epochs: 10", "epochs: 10\n  stream: integer"))


def test_a_graph_is_completed():
    recipe = loads(GRAPH).recipe
    assert recipe.model[0] == {"squeeze": {"factor": 2}}
    inner = recipe.model[1]["nodes"]
    assert inner[1]["affine_coupling"]["subnet"] == {"conv": {"width": 8, "kernel": 3, "normalization": "none"}}
    assert inner[2]["nodes"][0]["additive_coupling"]["subnet"]["conv"]["width"] == 64
    assert recipe.model[2] == "dct2d"
    assert recipe.data.arguments == {"path": "no", "kind": None, "pixel_max": None, "test_fraction": 0.1, "test_seed": 3}
    assert [(term.name, term.weight) for term in recipe.loss] == [("cross_entropy", 2.0), ("factorial_prior_mle", 1.0)]


def test_a_minimal_recipe_has_sensible_defaults():
    recipe = loads("name: a\ndata: {name: mnist}\nmodel: {name: firevnet}\nloss: {name: cross_entropy}\n").recipe
    assert (recipe.train.optimizer.name, recipe.train.schedule.name) == ("adamax", "constant")
    assert (recipe.train.gradient_clip, recipe.train.ema, recipe.train.checkpoint_every_steps) == (None, None, None)
    assert (recipe.train.precision, recipe.evaluate.protocol) == ("auto", "quick")


@pytest.mark.parametrize("text", [DESIGN, GRAPH], ids=["architecture", "graph"])
def test_dump_then_load_is_identity(text):
    recipe = loads(text).recipe
    assert loads(dump(recipe)).recipe == recipe
    assert loads(dump(recipe)).source_text == dump(recipe)
    assert resolved(loads(dump(recipe)).recipe) == resolved(recipe)


@pytest.mark.parametrize("name", bundled())
def test_dump_then_load_is_identity_for_bundled_recipes(name):
    recipe = load(name).recipe
    assert recipe.name == name.rpartition("/")[2]
    assert recipe.description
    assert loads(dump(recipe)).recipe == recipe


@pytest.mark.parametrize("name", bundled())
def test_a_bundled_recipe_begins_with_its_command(name):
    text = load(name).source_text
    first, second = text.splitlines()[:2]
    assert first.startswith(f"# flowclf recipe run recipes/{name}.yaml")
    assert second == f"# yaml-language-server: $schema={'../' * name.count('/')}schema.json"


@given(st.text(max_size=30), st.floats(1e-300, 1e300), st.integers(0, 2**62))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_any_text_and_number_survives_a_dump(text, number, seed):
    recipe = loads(DESIGN).recipe.model_copy(update={"description": text, "seed": seed})
    train = from_code(TrainSettings, {"optimizer": {"lr": number}}, "train")
    recipe = recipe.model_copy(update={"train": train})
    if reader._UNPRINTABLE.search(text):
        # YAML escapes what it cannot print, so the document itself stays readable.
        assert not reader._UNPRINTABLE.search(dump(recipe))
    assert loads(dump(recipe)).recipe == recipe


@pytest.mark.parametrize(
    "text", ["no", "1e-3", "12:30", "true", "null", "~", "0x1F", ".inf", "- a", "a: b", "# c", "", " a", "*a", "3"]
)
def test_text_that_looks_like_something_else_survives_a_dump(text):
    recipe = loads(DESIGN).recipe.model_copy(update={"description": text})
    assert loads(dump(recipe)).recipe.description == text


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [place for key, item in value.items() for place in [(*path, key), *_leaves(item, (*path, key))]]
    if isinstance(value, list):
        return [place for index, item in enumerate(value) for place in _leaves(item, (*path, index))]
    return []


DOCUMENTS = [yaml.safe_load(DESIGN), yaml.safe_load(GRAPH)]


@given(st.sampled_from([0, 1]), st.data())
def test_any_mutated_key_is_named_in_the_error(which, data):
    document = copy.deepcopy(DOCUMENTS[which])
    path = data.draw(st.sampled_from(_leaves(document)))
    mutated = path[-1] + data.draw(st.sampled_from(["x", "_", "s", "é"]))
    parent = document
    for part in path[:-1]:
        parent = parent[part]
    items = list(parent.items())
    parent.clear()
    parent.update({mutated if key == path[-1] else key: value for key, value in items})
    text = yaml.dump(document, sort_keys=False, allow_unicode=True)
    with pytest.raises(RecipeError) as caught:
        loads(text)
    lines = text.splitlines()
    named = [p for p in caught.value.problems if repr(mutated) in p.message or mutated in p.location.split(".")]
    assert named
    assert any(lines[p.line - 1][p.column - 1 :].startswith(mutated) for p in named)


def test_recipes_are_found_by_path_and_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find("mnist").name == "mnist.yaml"
    assert load("mnist").path == find("mnist")
    (tmp_path / "mnist").mkdir()
    assert find("mnist").name == "mnist.yaml"
    (tmp_path / "mine").write_text(DESIGN)
    assert find("mine").name == "mine"
    assert load("mine").recipe == loads(DESIGN).recipe


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("mnits", "no bundled recipe of that name; did you mean 'mnist'?"),
        ("recipes/mnist.yaml", "did you mean the bundled recipe 'mnist'?"),
        ("mnist.yml", "did you mean the bundled recipe 'mnist'?"),
        ("../recipes/mnist", "did you mean"),
        (".", "which is not a regular file"),
        ("a\0b", r"'a\x00b'"),
        ("x" * 5000, "cannot read"),
        ("", "which is not a regular file"),
    ],
)
def test_a_recipe_that_is_not_there_is_told(source, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        find(source)
    assert words in str(caught.value)


def test_a_component_of_the_running_process_can_be_used(monkeypatch):
    monkeypatch.setattr(registry.losses, "_local", {})

    @registry.losses.register("test_margin")
    class Margin:
        """A margin loss.

        Args:
            margin: m.
        """

        def __init__(self, *, margin: float = 1.0, soft_margin: bool = False) -> None: ...

    text = DESIGN.replace("name: independence_cross_entropy", "name: test_margin")
    with pytest.raises(RecipeError, match="unknown key 'nuisance'"):
        loads(text)
    text = GRAPH.replace("{name: factorial_prior_mle}", "{name: test_margin, soft_margin: true, weight: 0.5}")
    term = loads(text).recipe.loss[1]
    assert (term.name, term.weight, term.arguments) == ("test_margin", 0.5, {"margin": 1.0, "soft_margin": True})


def test_the_keys_of_data_are_those_of_load():
    from flowclf.data import load as load_data

    settings_of_load = set(inspect.signature(load_data).parameters) - {"name", "seed", "arguments"}
    assert set(Data.model_fields) - {"name", "bits", "pad", "standardize"} == settings_of_load


def test_code_and_recipes_have_the_same_settings_of_training():
    minimal = "name: a\ndata: {name: mnist}\nmodel: {name: firevnet}\nloss: {name: cross_entropy}\n"
    assert loads(minimal).recipe.train == from_code(TrainSettings, {}, "train") == TrainSettings()
    wrong = {"epochs": 0, "optimizer": {"name": "adam", "momentum": 0.9}, "schedule": {"name": "step", "factor": 2.0}}
    with pytest.raises(UsageError) as of_code:
        from_code(TrainSettings, wrong, "train")
    with pytest.raises(RecipeError) as of_recipe:
        loads(minimal + yaml.safe_dump({"train": wrong}))
    messages = str(of_code.value).split("; train.")
    assert len(messages) == 3
    assert all(message in str(of_recipe.value) for message in messages)


def test_optimisers_and_schedules_of_ones_own_are_in_recipes(scratch_registries):
    @registry.schedules.register("test_halving")
    def halving(total_steps, steps_per_epoch, *, every: PositiveInt = 1):
        return lambda step: 0.5 ** (step // (every * steps_per_epoch))

    registry.optimizers.register("test_radam")(torch.optim.RAdam)
    text = "name: a\ndata: {name: mnist}\nmodel: {name: firevnet}\nloss: {name: cross_entropy}\ntrain:\n"
    optimizer, schedule = (
        "  optimizer: {name: test_radam, lr: 0.01}\n",
        "  schedule: {name: test_halving, every: 2, warmup_steps: 3}\n",
    )
    train = loads(text + optimizer + schedule).recipe.train
    assert (train.optimizer.name, train.optimizer.arguments["lr"]) == ("test_radam", 0.01)
    assert (train.schedule.arguments, train.schedule.warmup_steps) == ({"every": 2}, 3)
    assert "every: 2" in dump(loads(text + optimizer + schedule).recipe)
    with pytest.raises(RecipeError, match=r"train\.schedule\.every: Input should be greater than or equal to 1, found 0"):
        loads(text + schedule.replace("every: 2", "every: 0"))
    with pytest.raises(RecipeError, match="unknown key 'params'"):
        loads(text + optimizer.replace("lr", "params"))
