"""Encoding the parts of a data set once for all measures, after a check that they fit the classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from flowclf.classifier import Classifier, InvertibleClassifier
from flowclf.data import DataSet, Split
from flowclf.errors import FlowclfError, UsageError
from flowclf.evaluation.metrics import Encoded, classify, encode
from flowclf.training.progress import Progress

__all__ = ["check_fits", "classify_all", "encode_all"]


def check_fits(clf: Classifier, data: DataSet, parts: Sequence[str] = ("train", "validation", "test")) -> None:
    """Check that a classifier can be evaluated on data.

    Args:
        clf: any.
        data: of its shape and classes.
        parts: which parts of the data are needed.

    Raises:
        UsageError: data of another shape or number of classes, or whose classes have other names, unless one side has numbers
            for names; a part that is empty, or test data of a single class, which have no metamers.
    """
    if tuple(data.image_shape) != clf.preprocessing.image_shape or data.classes != clf.classes:
        raise UsageError(
            f"data set '{data.name}' has {data.classes} classes of shape {tuple(data.image_shape)}; "
            f"the classifier takes {clf.classes} of {clf.preprocessing.image_shape}"
        )
    unnamed = tuple(map(str, range(clf.classes)))
    if data.class_names != clf.class_names and unnamed not in (data.class_names, clf.class_names):
        raise UsageError(f"data set '{data.name}' has the classes {data.class_names}; the classifier's are {clf.class_names}")
    for name in parts:
        split: Split = getattr(data, name)
        if not len(split):
            raise UsageError(f"data set '{data.name}': expected {name} data to evaluate on, found none")
        if name == "test" and isinstance(clf, InvertibleClassifier) and bool((split.labels == split.labels[0]).all()):
            raise UsageError(f"data set '{data.name}': expected test data of at least two classes, for metamers")


def encode_all(clf: InvertibleClassifier, splits: Mapping[str, Split], seed: int, progress: Progress) -> dict[str, Encoded]:
    """Every part, encoded.

    Raises:
        FlowclfError: an output that is not finite.
    """
    encoded = {}
    with progress.task("encoding", sum(map(len, splits.values()))) as task:
        for name, split in splits.items():
            encoded[name] = encode(clf, split.inputs, seed=seed, advance=task.advance)
            _check_finite(name, torch.isfinite(encoded[name].log_prob))
    return encoded


def classify_all(clf: Classifier, splits: Mapping[str, Split], seed: int, progress: Progress) -> dict[str, Tensor]:
    """The logits (N, K) of every part.

    Raises:
        FlowclfError: a logit that is not finite.
    """
    logits = {}
    with progress.task("classifying", sum(map(len, splits.values()))) as task:
        for name, split in splits.items():
            logits[name] = classify(clf, split.inputs, seed=seed, advance=task.advance)
            _check_finite(name, torch.isfinite(logits[name]).all(1))
    return logits


def _check_finite(name: str, finite: Tensor) -> None:
    if not finite.all():
        raise FlowclfError(
            f"the classifier cannot be evaluated: its outputs are not finite for {int((~finite).sum())} of "
            f"{len(finite)} {name} inputs, the first at index {int(finite.int().argmin())}"
        )
