"""Class weights: their values, where they come from, what they do to data of which a class is rare, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

import flowclf
from flowclf import Encoding
from flowclf.cli.main import main
from flowclf.data import DataSet
from flowclf.errors import UsageError
from flowclf.losses import CrossEntropy, FactorialPriorMLE, IndependenceCrossEntropy

LABELS = torch.tensor([0, 0, 0, 1, 1, 2])


def encoding() -> Encoding:
    return Encoding.of_logits(torch.randn(6, 3))


def of_each(logits: Tensor) -> Tensor:
    return functional.cross_entropy(logits, LABELS, reduction="none")


def test_balanced_weights_give_every_class_the_same_share() -> None:
    given = encoding()
    loss = CrossEntropy(class_weights="balanced")
    loss.set_class_counts(torch.bincount(LABELS))
    each = of_each(given.logits)
    expected = torch.stack([each[LABELS.eq(label)].mean() for label in range(3)]).mean()
    torch.testing.assert_close(loss(given, LABELS).total, expected)


def test_given_weights_multiply_the_losses_of_examples() -> None:
    given = encoding()
    weights = torch.tensor([1.0, 4.0, 0.5])
    found = CrossEntropy(class_weights=weights.tolist())(given, LABELS)
    torch.testing.assert_close(found.total, (of_each(given.logits) * weights[LABELS]).mean())
    assert torch.equal(CrossEntropy(class_weights=[1.0] * 3)(given, LABELS).total, of_each(given.logits).mean())


def test_the_mean_over_batches_is_that_over_the_training_set() -> None:
    """Also where batches hold the classes in other shares."""
    given = encoding()
    loss = CrossEntropy(class_weights="balanced")
    loss.set_class_counts(torch.bincount(LABELS))
    parts = [loss(Encoding.of_logits(given.logits[i : i + 3]), LABELS[i : i + 3]).total for i in (0, 3)]
    torch.testing.assert_close(sum(parts) / 2, loss(given, LABELS).total)


def test_the_nuisance_classifier_has_the_weights_too() -> None:
    clf = flowclf.build_classifier((6,), ["actnorm", "split_head"], classes=3)
    arguments: dict[str, Any] = {"nuisance": {"hidden": [8], "target": "labels"}}
    loss = IndependenceCrossEntropy(classification={"weight": 2.0, "class_weights": [1.0, 4.0, 0.5]}, **arguments).bind(clf)
    plain = IndependenceCrossEntropy(classification={"weight": 2.0}, **arguments).bind(clf)
    plain.load_state_dict(loss.state_dict())
    found = clf(torch.randn(6, 6)).detach()
    factors = torch.tensor([1.0, 4.0, 0.5])[LABELS]
    adversary = functional.cross_entropy(loss.adversaries[0](found.nuisance), LABELS, reduction="none")
    torch.testing.assert_close(loss.adversary_loss(found, LABELS), (adversary * factors).mean())
    difference = loss(found, LABELS).total - plain(found, LABELS).total
    of_logits = functional.cross_entropy(found.logits, LABELS, reduction="none")
    torch.testing.assert_close(difference, 2 * (of_logits * (factors - 1)).mean() - (adversary * (factors - 1)).mean())
    parts = loss(found, LABELS).parts
    torch.testing.assert_close(parts["nuisance_cross_entropy_nats"], (adversary * factors).mean())


def test_sums_count_once_for_all_their_losses() -> None:
    loss = CrossEntropy(class_weights="balanced") + 0.1 * FactorialPriorMLE()
    loss.set_class_counts(torch.bincount(LABELS))
    assert loss.class_weights() == "balanced"
    assert (CrossEntropy() + FactorialPriorMLE()).class_weights() is None
    assert CrossEntropy(class_weights=[1, 2.5]).class_weights() == "1, 2.5"
    assert len(CrossEntropy(class_weights=[1.5] * 5000).class_weights() or "") < 1000


def rare(n: int = 600) -> DataSet:
    """Two overlapping classes of which one has a twentieth of the examples."""
    random = np.random.default_rng(0)
    labels = (np.arange(n) % 20 == 0).astype(np.int64)
    return DataSet.from_arrays(random.normal(size=(n, 4)) + labels[:, None], labels, batch_size=50)


def test_balanced_weights_find_a_rare_class() -> None:
    data, errors = rare(), {}
    for weights in (None, "balanced"):
        torch.manual_seed(0)
        clf = flowclf.build_classifier((4,), ["affine_coupling", {"affine_coupling": {"swap": True}}, "split_head"], classes=2)
        flowclf.fit(clf, CrossEntropy(class_weights=weights), data, epochs=10, optimizer={"name": "adam", "lr": 3e-3})
        results = flowclf.evaluate(clf, data)
        errors[weights] = results["train.error"], results["test.balanced_error"]
    assert errors["balanced"][1] < errors[None][1] - 0.1
    assert errors[None][0] < errors["balanced"][0]


def test_the_weights_are_part_of_the_results(tmp_path: Path) -> None:
    data = rare(200)
    np.savez(tmp_path / "data.npz", images=data.train.inputs.numpy(), labels=data.train.labels.numpy())
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"name: rare\ndata: {{name: arrays, path: '{tmp_path / 'data.npz'}', validation: 0.2}}\n"
        "model: [actnorm, affine_coupling, split_head]\n"
        "loss: {name: independence_cross_entropy, classification: {class_weights: balanced}, nuisance: {hidden: [8]}}\n"
        "train: {epochs: 1, precision: fp32}\n"
    )
    assert main(["recipe", "run", str(recipe), "--out", str(tmp_path / "run"), "--device", "cpu"]) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["train.class_weights"] == "balanced"
    assert 0 <= results["test.balanced_error"] <= 1
    assert "class_weights: balanced" in (tmp_path / "run" / "resolved.yaml").read_text()


@pytest.mark.parametrize("weights", ["equal", [1.0, 0.0], [1.0, -1.0], [1.0, float("inf")]])
def test_weights_that_are_refused(weights: Any) -> None:
    with pytest.raises(UsageError, match="class_weights: expected 'balanced' or a positive number for each class"):
        CrossEntropy(class_weights=weights)
    with pytest.raises(UsageError, match=r"classification\.class_weights"):
        IndependenceCrossEntropy(classification={"class_weights": weights})


def test_weights_that_do_not_fit_the_data_are_refused() -> None:
    clf = flowclf.build_classifier((4,), ["actnorm", "split_head"], classes=2)
    with pytest.raises(UsageError, match="class_weights: expected 2 weights, one per class, found 3"):
        flowclf.fit(clf, CrossEntropy(class_weights=[1, 2, 3]), rare(), epochs=1)
    with pytest.raises(UsageError, match="balanced: expected training examples of every class, found none of 1"):
        CrossEntropy(class_weights="balanced").set_class_counts(torch.tensor([3, 0]))
    with pytest.raises(UsageError, match="balanced needs the number of examples of each class: "):
        CrossEntropy(class_weights="balanced")(encoding(), LABELS)
