"""Verifying: what agrees with its card passes, and every kind of disagreement is found."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from servers import serving

import flowclf
from flowclf import zoo
from flowclf.cli.main import main
from flowclf.data import load
from flowclf.errors import ChecksumError, DataError, UsageError
from flowclf.run.opening import open_model
from flowclf.zoo import Comparison, measuring
from flowclf.zoo.index import bundled_zoo


@pytest.fixture(scope="module")
def added(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zoo with two models."""
    folder = tmp_path_factory.mktemp("added")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLOWCLF_CACHE", str(folder / "cache"))
        for name in ("one", "two"):
            zoo.add(run_folder, name=name, to=folder / "zoo")
    return folder / "zoo"


@pytest.fixture
def spoilt(added: Path, tmp_path: Path) -> Path:
    """A copy that the test may spoil."""
    return Path(shutil.copytree(added, tmp_path / "zoo"))


def change(folder: Path, of_entry: Callable[[dict[str, Any]], Any]) -> None:
    document = json.loads((folder / "index.json").read_text())
    of_entry(document["models"][0])
    (folder / "index.json").write_text(json.dumps(document))


def test_what_agrees(added: Path, capsys: Any) -> None:
    for one in zoo.verify(index=added):
        assert one.agrees
        assert [row.metric for row in one.comparisons] == list(zoo.info(one.name, index=added).measured)
    assert [one.name for one in zoo.verify(["two"], index=added)] == ["two"]
    assert main(["zoo", "verify", "--index", str(added)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "name\tmetric\tcard\tfound\ttolerance\tverdict"
    assert len(lines) == 9
    assert all(line.endswith("\tagrees") for line in lines[1:])
    assert main(["zoo", "verify", "one", "--json", "--index", str(added)]) == 0
    (document,) = json.loads(capsys.readouterr().out)
    assert document["agrees"] is True
    assert document["metrics"]["test.error"]["tolerance"] == 0


def test_one_image_is_a_disagreement(spoilt: Path, capsys: Any) -> None:
    def one_more(entry: dict[str, Any]) -> None:
        entry["measured"]["test.error"]["value"] += 1 / entry["data"]["examples"]

    change(spoilt, one_more)
    assert main(["zoo", "verify", "--index", str(spoilt)]) == 1
    output = capsys.readouterr()
    assert sum("DIFFERS" in line for line in output.out.splitlines()) == 1
    assert output.err.endswith("error: model 'one': measured values differ from its card\n")


@pytest.mark.parametrize("metric", ["test.cross_entropy_nats", "test.bits_per_dim", "numerics.inverse_error_max", "test.unknown"])
def test_other_metrics_have_a_tolerance(metric: str, spoilt: Path) -> None:
    def beyond(entry: dict[str, Any]) -> None:
        measured = entry["measured"].setdefault(metric, {"value": 0.5, "tolerance": 0.1})
        measured["value"] += 1.1 * measured["tolerance"]

    change(spoilt, beyond)
    first, second = zoo.verify(index=spoilt)
    assert [row.metric for row in first.comparisons if not row.agrees] == [metric]
    assert second.agrees


@pytest.mark.parametrize("file", ["model.safetensors", "model.json", "recipe.yaml", "README.md", "metamers.png"])
def test_a_changed_file_is_exit_code_3(file: str, spoilt: Path, capsys: Any) -> None:
    path = spoilt / "one" / file
    path.write_bytes(path.read_bytes() + b" ")
    first, second = zoo.verify(index=spoilt)
    assert isinstance(first.error, ChecksumError)
    assert second.agrees
    assert main(["zoo", "verify", "--index", str(spoilt)]) == 3
    assert f"error: one/{file}" in capsys.readouterr().err
    assert main(["zoo", "verify", "two", "--index", str(spoilt)]) == 0


OTHERS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "classes": (lambda entry: entry.update(classes=4), "classes are not those of the index"),
    "preprocessing": (lambda entry: entry["preprocessing"].update(bits=8), "preprocessing or classes"),
    "examples": (lambda entry: entry["data"].update(examples=21), "expected 21 test examples, found 20"),
    "data": (
        lambda entry: entry["data"].update(name="spheres", arguments={"train_size": 10, "test_size": 20}),
        "the classifier takes 3 of (1, 8, 8)",
    ),
    "arguments of the wrong kind": (
        lambda entry: entry["data"].update(name="spheres", arguments={"dimension": "x"}),
        "data set 'spheres' of an index: dimension: ",
    ),
    "an argument that is the loader's": (
        lambda entry: entry["data"]["arguments"].update(validation=3),
        "data set 'arrays' of an index: validation: ",
    ),
    "unknown data": (lambda entry: entry["data"].update(name="mnits"), "did you mean 'mnist'?"),
}


@pytest.mark.parametrize(("of_entry", "words"), OTHERS.values(), ids=OTHERS)
def test_an_index_that_is_about_something_else(of_entry: Callable[[Any], Any], words: str, spoilt: Path) -> None:
    change(spoilt, of_entry)
    first, second = zoo.verify(index=spoilt)
    assert words in str(first.error)
    assert second.agrees


def test_an_index_from_elsewhere_names_no_files_of_this_machine(spoilt: Path) -> None:
    with serving(spoilt) as server:
        (found,) = zoo.verify(["one"], index=server.url)
    assert "'arrays' is chosen by path, which an index read from a URL may not do" in str(found.error)


def test_the_probe_is_not_trained_on_other_data(spoilt: Path) -> None:
    other = spoilt / "other.npz"
    shutil.copyfile(zoo.list(index=spoilt)[0].data.arguments["path"], other)
    change(spoilt, lambda entry: entry["reported"].update({"probe.test_error": 0.5}))
    change(spoilt, lambda entry: entry["data"]["arguments"].update(path=str(other)))
    (found,) = zoo.verify(["one"], full=True, index=spoilt)
    assert "the data of its recipe are not those of the index" in str(found.error)


def test_data_that_are_gone(spoilt: Path) -> None:
    change(spoilt, lambda entry: entry["data"]["arguments"].update(path=str(spoilt / "absent.npz")))
    first, _ = zoo.verify(index=spoilt)
    assert isinstance(first.error, DataError | UsageError)


def test_a_name_that_is_not_there_comes_first(added: Path) -> None:
    with pytest.raises(UsageError, match="there is no model 'three'"):
        zoo.verify(["one", "three"], index=added)


def test_in_full_the_probe_is_trained_again(spoilt: Path, capsys: Any) -> None:
    assert all(row.metric != "probe.test_error" for row in zoo.verify(["one"], full=True, index=spoilt)[0].comparisons)
    change(spoilt, lambda entry: entry["reported"].update({"probe.test_error": 2.0}))
    (found,) = zoo.verify(["one"], full=True, index=spoilt)
    row = found.comparisons[-1]
    assert (row.metric, row.expected, row.agrees) == ("probe.test_error", 2.0, False)
    change(spoilt, lambda entry: entry["reported"].update({"probe.test_error": row.found}))
    assert main(["zoo", "verify", "one", "--full", "--index", str(spoilt)]) == 0
    assert "probe.test_error" in capsys.readouterr().out


def test_a_comparison() -> None:
    assert Comparison("m", 0.1, 0.1 + 1e-15, 0.0).agrees
    assert not Comparison("m", 0.1, 0.1001, 0.0).agrees
    assert Comparison("m", 1.0, 1.1, 0.2).agrees
    for found in (math.nan, math.inf):
        assert not Comparison("m", 1.0, found, 1e9).agrees


@pytest.fixture
def little_data(run_folder: Path) -> flowclf.data.DataSet:
    entry = zoo.schema.DataRecord(name="arrays", arguments={"path": str(run_folder / "data.npz")}, examples=20)
    return measuring.test_data(entry)


def test_a_plain_network_is_measured_by_its_logits(run_folder: Path, little_data: flowclf.data.DataSet) -> None:
    clf = flowclf.load(run_folder / "checkpoints" / "final")
    plain = flowclf.PlainClassifier(clf.logits_only(preprocess=False), (1, 8, 8), 3, preprocessing=clf.preprocessing)
    of_flow, of_network = measuring.measure(clf, little_data, 3), measuring.measure(plain.train(), little_data, 3)
    assert of_network == pytest.approx({name: of_flow[name] for name in ("test.error", "test.cross_entropy_nats")}, rel=1e-5)


def test_data_of_other_classes_are_refused(little_data: flowclf.data.DataSet) -> None:
    other = flowclf.plain_classifier((1, 8, 8), {"plain_cnn": {"widths": [4], "hidden": 0}}, classes=2)
    with pytest.raises(UsageError, match=r"has 3 classes .* the classifier takes 2"):
        measuring.measure(other, little_data, 3)


def test_the_same_numbers_as_an_evaluation(run_folder: Path) -> None:
    from flowclf.run import evaluate_model

    clf = flowclf.load(run_folder / "checkpoints" / "final")
    data = flowclf.data.load("arrays", path=str(run_folder / "data.npz"), validation=4, seed=3)
    results = evaluate_model(str(run_folder))
    found = measuring.measure(clf, data, 3)
    assert len(found) == 4
    assert {name: results[name] for name in found} == found


def test_measuring_does_not_depend_on_the_random_state(run_folder: Path, little_data: flowclf.data.DataSet) -> None:
    clf = flowclf.load(run_folder / "checkpoints" / "final")
    first = measuring.measure(clf, little_data, 3)
    torch.manual_seed(99)
    assert measuring.measure(clf, little_data, 3) == first
    assert measuring.measure(clf, little_data, 4) != first


def test_the_models_that_travel_with_flowclf_are_whole() -> None:
    """Their hashes and sizes; the command ``flowclf zoo verify`` measures them."""
    folder = bundled_zoo()
    entries = zoo.list(index=folder)
    for entry in entries:
        assert zoo.download(entry.name, index=folder, offline=True) == folder / entry.name
        assert entry.files["model.safetensors"].bytes <= zoo.adding.MAX_WEIGHT_BYTES
        assert {"README.md", "recipe.yaml"} <= set(entry.files)
        assert open_model(entry.name, "cpu").recipe is not None
    named = {file.path for entry in entries for file in entry.files.values()} | {"index.json"}
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == named


@torch.no_grad()
def test_images_without_noise_are_classified_as_well_as_those_with_it() -> None:
    clf, test = zoo.load("mnist-best"), load("mnist").test.head(500)
    inputs = (clf.preprocessing(test.inputs / 255), clf.preprocessing.dequantize(test.inputs, torch.Generator().manual_seed(0)))
    quiet, noisy = (int((clf.logits(x).argmax(1) != test.labels).sum()) for x in inputs)
    assert quiet <= noisy + 3
