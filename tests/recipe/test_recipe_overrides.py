from __future__ import annotations

import pytest

from flowclf.errors import RecipeError
from flowclf.recipe import loads

TEXT = """\
name: example
data: {name: mnist, augment: {shift: 2}}
model: {name: firevnet, width: [32, 64]}
loss:
  name: independence_cross_entropy
  nuisance: {weight: 2, steps: 1}
  likelihood: {weight: 3}
train:
  optimizer:
"""
GRAPH = "name: g\ndata: {name: mnist}\nloss: [{name: cross_entropy}]\nmodel: [squeeze, {repeat: 2, nodes: [actnorm]}, split_head]\n"


def changed(*overrides: str, text: str = TEXT.replace("  optimizer:\n", "  epochs: 2\n")):
    return loads(text, overrides).recipe


def test_values_are_set():
    recipe = changed("train.epochs=3", "model.width.1=96", "data.bits=null", "train.optimizer={name: sgd, lr: 1e-2}", "seed=0x10")
    assert recipe.train.epochs == 3
    assert recipe.model.arguments["width"] == [32, 96]
    assert recipe.data.bits is None
    assert (recipe.train.optimizer.name, recipe.train.optimizer.arguments["lr"]) == ("sgd", 0.01)
    assert recipe.seed == 16


@pytest.mark.parametrize("text", ["/x/plain #3", "#3", "it # is", "a\t#b"])
def test_a_command_line_has_no_comments(text):
    assert changed(f"description={text}").description == text.strip()
    assert changed(f"description='{text}'").description == text
    assert changed("train.optimizer={name: sgd} # a note").train.optimizer.name == "sgd"


def test_sections_that_are_not_there_are_made():
    recipe = changed("evaluate.protocol=full", "train.schedule.name=step", "data.augment.flip=true")
    assert recipe.evaluate.protocol == "full"
    assert recipe.train.schedule.name == "step"
    assert recipe.data.augment.shift == 2
    assert recipe.data.augment.flip


def test_an_empty_section_becomes_a_mapping():
    assert changed("train.optimizer.lr=0.5", text=TEXT).train.optimizer.arguments["lr"] == 0.5


def test_the_last_one_wins():
    assert changed("train.epochs=3", "train.epochs=4", "train={epochs: 5}", "train.epochs=6").train.epochs == 6
    assert changed("train.epochs=3", "train={precision: fp32}").train.epochs == 10


def test_a_broken_value_is_mended():
    assert (
        loads(TEXT.replace("shift: 2", "shift: true"), ["data.augment.shift=1", "train.optimizer.lr=1"]).recipe.data.augment.shift
        == 1
    )


def test_lists_are_followed_by_index():
    recipe = changed("model.1.repeat=5", "model.1.nodes.0={squeeze: {factor: 1}}", "loss.0.weight=0.5", text=GRAPH)
    assert recipe.model[1] == {"repeat": 5, "nodes": [{"squeeze": {"factor": 1}}]}
    assert recipe.loss[0].weight == 0.5


def test_nested_arguments_are_followed():
    arguments = changed("loss.nuisance.weight=5", "loss.likelihood.weight=6", "loss.nuisance.hidden=[8]").loss.arguments
    assert (arguments["nuisance"].weight, arguments["likelihood"].weight, arguments["nuisance"].hidden) == (5.0, 6.0, [8])
    assert arguments["nuisance"].steps == 1


def test_the_text_as_given_is_kept():
    loaded = loads(TEXT, ["train.optimizer.lr=1"])
    assert loaded.source_text == TEXT
    assert loaded.overrides == ("train.optimizer.lr=1",)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.epochs", "expected KEY=VALUE"),
        ("=3", "expected KEY=VALUE"),
        ("train..epochs=3", "expected KEY=VALUE"),
        (".".join(["a"] * 31) + "=3", "expected KEY=VALUE"),
        ("train.epochs=", "expected a value, found nothing"),
        ("train.epochs=[", "expected YAML"),
        ("train.epochs=&a 3", "anchors are not allowed"),
        ("train.epochs=!!int 3", "tags are not allowed"),
        ("train.epochs=.nan", "expected a finite number"),
        ("train.epochs=1\n---\n2", "expected one document"),
        ("train.epochs={a: 1, a: 2}", "given twice"),
        ("train.epochs=" + "[" * 2000, "nested more than 40"),
        ("train.epochs=true", "train.epochs: --set train.epochs=true: Input should be a valid integer, found true"),
        ("train.epoch=3", "train.epoch: --set train.epoch=3: unknown key 'epoch'; did you mean 'epochs'?"),
        ("train.epochs.x=3", "train.epochs is a single value and has no 'x'"),
        ("model.width.2=3", "model.width is a list of 2: expected an index from 0 to 1, found '2'"),
        ("model.width.-1=3", "found '-1'"),
        ("model.width.x=3", "found 'x'"),
        ("model.width.0=x", "model.width.0: --set model.width.0=x: Input should be a valid integer, found 'x'"),
        ("trian.epochs=3", "unknown key 'trian'; did you mean 'train'?"),
        ("data={bits: 4}", "data.name: --set data={bits: 4}: missing"),
        ("loss.label.smoothing=0.1", "loss.label: --set loss.label.smoothing=0.1: unknown key 'label'"),
    ],
)
def test_an_override_that_is_wrong_is_named(override, words):
    with pytest.raises(RecipeError) as caught:
        changed(override)
    assert len(caught.value.problems) == 1
    assert f"--set {override[:20]}" in str(caught.value)
    assert words in str(caught.value)


def test_all_wrong_overrides_and_the_file_come_at_once():
    with pytest.raises(RecipeError) as caught:
        loads(TEXT.replace("shift: 2", "shift: x"), ["train.epochs=x", "a", "train.optimizer={lr: 0}"], source="r.yaml")
    assert str(caught.value).splitlines() == [
        "r.yaml:2:38: data.augment.shift: Input should be a valid integer or a valid number, found 'x'",
        "r.yaml: train.epochs: --set train.epochs=x: Input should be a valid integer, found 'x'",
        "r.yaml: train.optimizer.lr: --set train.optimizer={lr: 0}: Input should be greater than 0, found 0",
        "r.yaml: --set a: expected KEY=VALUE with a dotted key, such as train.epochs=3",
    ]
