"""Labels of any integer type are taken as the classes that they are; all others are refused in words, wherever they come in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import flowclf
from flowclf import InvertibleClassifier
from flowclf.data import DataSet, Split
from flowclf.errors import DataError, UsageError
from flowclf.evaluation.metamers import draw_pairs, metamer_statistics
from flowclf.evaluation.metrics.error import error
from flowclf.evaluation.metrics.likelihood import cross_entropy_nats
from flowclf.labels import class_numbers

Y = torch.arange(20) % 2
X = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))

RIGHT: dict[str, Any] = {
    **{str(dtype): Y.to(dtype) for dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)},
    "array": Y.numpy().astype(np.int16),
    "list": Y.tolist(),
}
WRONG: dict[str, tuple[Any, str]] = {
    "floats": (Y.float(), "expected integer labels .*found torch.float32"),
    "booleans": (Y.bool(), "found torch.bool"),
    "one-hot": (torch.nn.functional.one_hot(Y), r"found torch.int64 of shape \(20, 2\); argmax\(1\) makes class numbers"),
    "one-hot floats": (torch.nn.functional.one_hot(Y).float(), r"found torch.float32 of shape \(20, 2\); argmax"),
    "a column": (Y[:, None], r"of shape \(20, 1\)"),
    "texts": (["a"] * 20, "found a list of str"),
    "array of texts": (np.array(["a"] * 20), "found ndarray"),
    "ragged": ([[0], [0, 1]], "found a list of list"),
    "negative": (Y - 1, "expected class numbers from 0 .*found -1 to 0"),
    "ignored": (-100 * Y, "found -100 to 0"),
}
TOO_FEW = Y[1:]
HERE = {"too large": (Y + 1, "expected class numbers from 0 to 1, found 1 to 2"), "too few": (TOO_FEW, r"of shape \(20,\)")}

Use = Callable[[InvertibleClassifier, Any], Any]
USES: dict[str, Use] = {
    "log_prob": lambda clf, y: clf.log_prob(X, y),
    "prior": lambda clf, y: clf.prior.log_prob(clf(X).logits, clf(X).nuisance, y),
    "sample": lambda clf, y: clf.sample(20, y, generator=torch.Generator().manual_seed(0)),
    "cross-entropy": lambda clf, y: flowclf.losses.CrossEntropy().bind(clf)(clf(X), y).total,
    "likelihood": lambda clf, y: flowclf.losses.FactorialPriorMLE().bind(clf)(clf(X), y).total,
    "sum": lambda clf, y: (flowclf.losses.CrossEntropy() + flowclf.losses.FactorialPriorMLE()).bind(clf)(clf(X), y).total,
    "statistics": lambda clf, y: torch.tensor(list(metamer_statistics(clf, X, y, pairs=3).values())),
    "error": lambda clf, y: torch.tensor(error(clf(X).logits, y)),
    "nats": lambda clf, y: torch.tensor(cross_entropy_nats(clf(X).logits, y)),
}


@pytest.mark.parametrize("use", USES)
def test_every_use_takes_any_integers_and_refuses_the_rest(use: str, vector_classifier: InvertibleClassifier) -> None:
    with torch.no_grad():
        expected = USES[use](vector_classifier, Y)
        for labels in RIGHT.values():
            assert torch.equal(USES[use](vector_classifier, labels), expected)
        for labels, words in (WRONG | HERE).values():
            own = "expected one class or 20 classes, found 19" if use == "sample" and labels is TOO_FEW else words
            with pytest.raises(UsageError, match=own):
                USES[use](vector_classifier, labels)


def test_one_class_for_all_samples(vector_classifier: InvertibleClassifier) -> None:
    for label in (1, np.int8(1), torch.tensor(1), torch.tensor([1]), [1]):
        assert vector_classifier.sample(3, label).shape == (3, 3)
    for wrong in (1.0, "a", True):
        with pytest.raises(UsageError, match="sample: expected integer labels"):
            vector_classifier.sample(3, wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="sample: expected class numbers from 0 to 1, found 2 to 2"):
        vector_classifier.sample(3, 2)


def test_pairs_of_any_integers() -> None:
    expected = draw_pairs(Y, 5)
    for labels in RIGHT.values():
        assert all(map(torch.equal, draw_pairs(labels, 5), expected))
    for labels, words in WRONG.values():
        with pytest.raises(UsageError, match=words):
            draw_pairs(labels, 5)


def test_a_data_set_has_classes_for_labels() -> None:
    def built(labels: Any) -> DataSet:
        return DataSet("made", ("a", "b"), *(Split(X, part) for part in (Y, labels, Y)))

    for name, (labels, _) in (WRONG | HERE).items():
        out_of_range = "data set 'made': validation labels: expected class numbers from 0 to 1, found"
        with pytest.raises(DataError, match=out_of_range if name in ("negative", "ignored", "too large") else "labels: expected"):
            built(labels)
    with pytest.raises(DataError, match=r"several lengths"):
        DataSet.from_arrays(X, [[0], [0, 1]])


def test_no_check_of_the_range_is_traced() -> None:
    seen = torch.compile(lambda labels: class_numbers(labels, 2) + 1, backend="eager", fullgraph=True)(Y.int())
    assert torch.equal(seen, Y + 1)


@pytest.mark.parametrize("value", [X.numpy(), X.tolist(), None, "a.png"], ids=["array", "list", "none", "text"])
def test_inputs_that_are_no_tensors(value: Any, vector_classifier: InvertibleClassifier) -> None:
    clf = vector_classifier
    for use in (
        clf, clf.log_prob, clf.logits, clf.preprocessing, clf.preprocessing.dequantize, clf.logits_only(),
        lambda x: clf.inverse(x, x), lambda x: flowclf.metamers.metamer(clf, x, x), lambda x: flowclf.metamers.metamer(clf, X, x),
        lambda x: flowclf.metamers.interpolate(clf, x, x, 3),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=r"as (a tensor|tensors), found a \w+"):
            use(value)


def test_evaluate_takes_a_classifier_and_data(vector_classifier: InvertibleClassifier) -> None:
    data = DataSet("made", ("a", "b"), *(Split(X, Y) for _ in range(3)))
    wrong: dict[str, tuple[Any, Any, dict[str, Any]]] = {
        "expected a flowclf DataSet, found a Tensor": (vector_classifier, X, {}),
        "expected a flowclf Classifier, found a Linear": (torch.nn.Linear(3, 2), data, {}),
        "unknown evaluation protocol '3'": (vector_classifier, data, {"protocol": 3}),
        "seed: expected an integer, found 'x'": (vector_classifier, data, {"seed": "x"}),
        "the oracle: expected a classifier or a function, found a int": (vector_classifier, data, {"oracle": 3}),
    }
    for words, (clf, given, options) in wrong.items():
        with pytest.raises(UsageError, match=words):
            flowclf.evaluate(clf, given, **options)


def test_labels_stay_on_their_device() -> None:
    found: Tensor = class_numbers(Y.to("meta"), None, sync=False)
    assert found.device.type == "meta"
