"""Evaluations on a part of the data, and on data that are all test."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_evaluation import NODES, Oracle, image_classifier, image_data, vector_data

import flowclf
from flowclf.data import DataSet, Split
from flowclf.errors import DataError, UsageError
from flowclf.evaluation import Metric, MetricContext, evaluate, evaluate_with_artifacts
from flowclf.evaluation.limiting import limited, stratified
from flowclf.losses import CrossEntropy
from flowclf.progress import SilentProgress


class Messages:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)

    def row(self, row: dict[str, Any]) -> None: ...

    def task(self, description: str, total: int) -> Any:
        return SilentProgress().task(description, total)


@pytest.mark.parametrize("n", [1, 7, 50, 333, 999, 1000])
def test_a_choice_keeps_the_shares_of_the_classes(n: int) -> None:
    labels = torch.randint(0, 6, (1000,), generator=torch.Generator().manual_seed(n)) ** 2 // 5
    chosen = stratified(labels, n)
    assert len(chosen.unique()) == n
    assert torch.equal(chosen, chosen.sort().values)
    assert torch.equal(chosen, stratified(labels, n))
    wanted = torch.bincount(labels).double() * n / 1000
    assert (torch.bincount(labels[chosen], minlength=6) - wanted).abs().max() <= 1


def test_fewer_examples_than_classes_are_spread_over_all_classes() -> None:
    chosen = torch.arange(1000).repeat_interleave(5)[stratified(torch.arange(1000).repeat_interleave(5), 100)]
    assert len(chosen.unique()) == 100
    assert chosen.min() < 20
    assert chosen.max() > 980


def test_a_limited_evaluation_is_that_of_its_part_and_says_so() -> None:
    clf, data, messages = image_classifier(), image_data(), Messages()
    results = evaluate(clf, data, limit=30, progress=messages)
    assert (results["evaluation.limit"], results["evaluation.limit_of"]) == (30, 90)
    assert (results["train.examples"], results["validation.examples"], results["test.examples"]) == (80, 20, 30)
    assert results["probe.train_examples"] == 80
    assert results["metamers.pairs"] == 30
    assert results["test.class_examples"] == [10, 10, 10]
    (line,) = messages.lines
    assert line.startswith("limited evaluation: 80 of 240 train, 20 of 60 validation, 30 of 90 test examples; probes find less")
    part = evaluate(clf, limited(data, 30))
    assert "evaluation.limit" not in part
    assert {
        key: part[key] for key in ("train.error", "test.error", "probe.test_error", "test.bits_per_dim")
    }.items() <= results.items()


def test_a_limit_above_the_test_data_changes_nothing() -> None:
    clf, data = image_classifier(), image_data()
    limited_ones, full = evaluate(clf, data, limit=90), evaluate(clf, data)
    limited_ones.pop("seconds.evaluate"), full.pop("seconds.evaluate")
    assert limited_ones == full


def test_all_models_and_seeds_are_limited_to_the_same_test_examples() -> None:
    data = image_data()
    one, other = (MetricContext(image_classifier(), data, limit=20, seed=seed).data.test for seed in (0, 5))
    assert torch.equal(one.inputs, other.inputs)


@pytest.mark.parametrize("limit", [0, -3, True, 2.0, "20"])
def test_a_limit_is_a_number_of_examples(limit: Any) -> None:
    with pytest.raises(UsageError, match="limit: expected an integer of at least 1"):
        evaluate(image_classifier(), image_data(), limit=limit)


def all_test(data: DataSet) -> DataSet:
    return DataSet.from_test(data.test.inputs, data.test.labels, class_names=data.class_names)


def test_data_that_are_all_test_give_what_needs_no_training() -> None:
    clf, data, messages = image_classifier(), image_data(), Messages()
    results = evaluate(clf, all_test(data), oracle=Oracle(), progress=messages)
    whole = evaluate(clf, data, oracle=Oracle())
    expected = {key for key in whole if key.split(".")[0] not in ("train", "validation", "probe")}
    assert set(results) == expected | {"evaluation.left_out"}
    same = expected - {"data.name", "seconds.evaluate"}
    assert {key: results[key] for key in same} == {key: whole[key] for key in same}
    assert results["evaluation.left_out"] == "probe.*, train.*, validation.* (the data are all test)"
    assert messages.lines == ["left out: probe.*, train.*, validation.* (the data are all test)"]
    # Figures and a limit work as with other data.
    few = evaluate_with_artifacts(clf, all_test(data), limit=12)
    assert few.results["evaluation.limit"] == 12
    assert set(few.arrays) == {"calibration", "confusion", "metamers", "interpolations", "samples"}


def test_a_single_class_has_no_metamers() -> None:
    clf, data = image_classifier(), image_data()
    one = data.test.take((data.test.labels == 1).nonzero().flatten())
    evaluation = evaluate_with_artifacts(clf, DataSet.from_split(one, class_names=data.class_names))
    assert evaluation.results["evaluation.left_out"].endswith("metamers.*, paths.* (the test data are of a single class)")
    assert evaluation.results["test.examples"] == 30
    assert not any(key.startswith(("metamers.", "paths.")) for key in evaluation.results)
    assert set(evaluation.arrays) == {"calibration", "confusion"}


def test_truth_without_training_data_has_no_planes() -> None:
    import dataclasses

    truth = dataclasses.replace(all_test(vector_data()), oracle=lambda x: torch.stack((4 - x[:, 0], x[:, 0] - 4), dim=1))
    results = evaluate(flowclf.build_classifier((4,), ["split_head"], 2), truth)
    assert results["evaluation.left_out"].startswith("planes.*, probe.*")
    assert results["metamers.oracle.logits"] == 1


@pytest.mark.usefixtures("scratch_registries")
def test_a_metric_that_reads_training_data_must_say_that_it_needs_them() -> None:
    read = Metric("mine.confidence", "share", "mine", lambda context: context.logits("train").softmax(1).max(1).values.mean())
    flowclf.registry.metrics.register("mine")(read)
    with pytest.raises(
        UsageError, match=r"'mine.confidence': expected train data, found data that are all test; .* needs 'training'"
    ):
        evaluate(image_classifier(), all_test(image_data()))


def test_data_that_are_all_test_are_not_trained_on() -> None:
    with pytest.raises(UsageError, match="expected training data, found data that are all test"):
        flowclf.fit(flowclf.build_classifier((1, 8, 8), NODES, 3), CrossEntropy(), all_test(image_data()), epochs=1)
    with pytest.raises(DataError, match="labels: expected 0 to 1, found 2"):
        DataSet.from_test(torch.zeros(3, 4), [0, 1, 2], class_names="ab")
    x = Split(torch.zeros(3, 4), torch.arange(3))
    with pytest.raises(UsageError, match="at least 2 training examples, found 0"):
        DataSet("none", ("a", "b", "c"), x.head(0), x, x)
