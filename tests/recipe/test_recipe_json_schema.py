from __future__ import annotations

import copy
import json

import jsonschema
import pytest

from flowclf import registry
from flowclf.cli.main import main
from flowclf.files import resource
from flowclf.recipe import bundled, json_schema, load, loads, reader, resolved

SCHEMA = json_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
BASE = {"name": "a", "data": {"name": "mnist"}, "model": {"name": "firevnet"}, "loss": {"name": "cross_entropy"}}


def test_it_is_a_json_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert "x-flowclf-kind" not in json.dumps(SCHEMA)


def said(schema, place=()):
    """What a schema says of each property: its values and limits, and not in which words or in which form a release of pydantic
    writes them."""
    if isinstance(schema, list):
        return {item for inner in schema for item in said(inner, place)}
    if not isinstance(schema, dict):
        return set()
    kept = ("enum", "const", "default", "required", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "$ref")
    own = {(place, key, json.dumps(schema[key], sort_keys=True)) for key in kept if key in schema}
    for key, value in schema.items():
        if key in ("properties", "$defs"):
            own |= {item for name, inner in value.items() for item in {((*place, name), "", ""), *said(inner, (*place, name))}}
        elif key not in kept:
            own |= said(value, place)
    return own


def test_the_file_beside_the_recipes_is_up_to_date(capsys):
    assert main(["recipe", "schema"]) == 0
    printed, stored = (said(json.loads(text)) for text in (capsys.readouterr().out, resource("recipes", "schema.json").read_text()))
    assert stored == printed, "run: flowclf recipe schema > recipes/schema.json"
    assert (("evaluate", "protocol"), "enum", '["quick", "full"]') in printed


@pytest.mark.parametrize("name", bundled())
def test_it_accepts_the_bundled_recipes(name):
    loaded = load(name)
    VALIDATOR.validate(reader.parse(loaded.source_text, name).plain())
    VALIDATOR.validate(resolved(loaded.recipe))


def test_every_registered_component_is_in_it():
    text = json.dumps(SCHEMA)
    for kind in ("nodes", "subnets", "models", "losses", "datasets", "optimizers", "schedules"):
        for name in registry.registries[kind].names():
            assert f'"{name}"' in text


NUISANCE = {"name": "independence_cross_entropy", "nuisance": {"weight": 1, "hidden": [8]}, "likelihood": {"weight": 2}}


@pytest.mark.parametrize(
    "change",
    [
        {"loss": NUISANCE},
        {"loss": [NUISANCE | {"weight": 2}, {"name": "cross_entropy"}]},
        {"data": {"name": "image_folder", "root": "images", "bits": None, "validation": 0.1}},
        {"model": ["squeeze", {"affine_coupling": {"subnet": "conv"}}, {"repeat": 2, "nodes": ["actnorm"]}, "split_head"]},
        {"model": {"name": "firevnet", "width": [32, 64], "logit_scale": 2}},
        {"train": {"optimizer": {"name": "sgd", "momentum": 0.9}, "schedule": {"name": "step", "factor": 0.1}}},
        {"train": {"optimizer": {"lr": 0.1}}},
    ],
)
def test_it_accepts_what_the_checker_accepts(change):
    document = BASE | change
    loads(json.dumps(document))
    VALIDATOR.validate(document)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "Not A Slug"},
        {"seed": -1},
        {"extra": 1},
        {"loss": {"name": "nothing"}},
        {"loss": {"name": "cross_entropy", "weight": 2}},
        {"loss": NUISANCE | {"nuisance": {"stpes": 1}}},
        {"loss": NUISANCE | {"nuisance_weight": 1}},
        {"loss": NUISANCE | {"nuisance": {"network": "cnn"}}},
        {"loss": []},
        {"data": {"name": "image_folder"}},
        {"data": {"name": "mnist", "root": "x"}},
        {"data": {"name": "mnist", "bits": 9}},
        {"data": {"bits": 4}},
        {"data": {"name": "image_folder", "root": "x", "channels": 2}},
        {"model": {"name": "firevnet", "widht": 3}},
        {"model": {"name": "firevnet", "width": "3"}},
        {"model": "firevnet"},
        {"model": []},
        {"model": ["sqeeze"]},
        {"model": [{"squeeze": {"factor": 0}}]},
        {"model": [{"squeeze": {}, "actnorm": {}}]},
        {"model": [{"affine_coupling": {"subnet": {"conv": {"widht": 3}}}}]},
        {"model": [{"repeat": 0, "nodes": ["squeeze"]}]},
        {"model": [{"nflows": {}}]},
        {"train": {"epochs": True}},
        {"train": {"optimizer": {"name": "sgd", "betas": [0.9, 0.9]}}},
        {"train": {"optimizer": {"name": "adam", "betas": [0.9]}}},
        {"train": {"schedule": {"name": "step", "peak": 0.1}}},
        {"train": {"schedule": {"every_epochs": 3}}},
        {"evaluate": {"protocol": "slow"}},
    ],
)
def test_it_refuses_what_the_checker_refuses(change):
    document = copy.deepcopy(BASE) | change
    with pytest.raises(Exception, match=r"."):
        loads(json.dumps(document))
    assert not VALIDATOR.is_valid(document)


@pytest.mark.parametrize("key", ["name", "data", "model", "loss"])
def test_it_requires_what_has_no_default(key):
    assert not VALIDATOR.is_valid({k: v for k, v in BASE.items() if k != key})


def test_a_required_argument_is_required(monkeypatch):
    monkeypatch.setattr(registry.losses, "_local", {})

    def loss(*, a_b: int, c: int = 1) -> None: ...

    registry.losses.register("test_required")(loss)
    validator = jsonschema.Draft202012Validator(json_schema())
    for given, valid in [({"a_b": 1}, True), ({}, False), ({"a": {"b": 1}}, False), ({"a_b": "1"}, False)]:
        assert validator.is_valid(BASE | {"loss": {"name": "test_required", **given}}) is valid
