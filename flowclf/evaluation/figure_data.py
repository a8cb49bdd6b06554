"""Arrays that figures are drawn from: pictures of metamers, interpolations and samples, calibration bins, planes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowclf.classifier import InvertibleClassifier
from flowclf.evaluation.context import MetricContext
from flowclf.evaluation.metamers import interpolate, metamer, quantized
from flowclf.evaluation.metrics.calibration import reliability_bins
from flowclf.evaluation.metrics.confusion import confusion_of
from flowclf.evaluation.metrics.planes import PLANES_NEED, planes_of
from flowclf.modes import evaluating

Arrays = dict[str, NDArray[Any]]

_COLUMNS = 12
_CONFUSION_CLASSES = 25
_INTERPOLATION_STEPS = 7
_SAMPLES_PER_CLASS = 10


def metamer_pictures(clf: InvertibleClassifier, x1: Tensor, x2: Tensor) -> Arrays:
    """Metamers of pairs as 8-bit pictures, beside their donors, each with the class that the classifier predicts for the picture.

    Args:
        clf: a classifier of images.
        x1: (P, *input_shape), network inputs that provide the logits.
        x2: of the same shape; provide the nuisances.

    Returns:
        ``logits_of``, ``metamer``, ``nuisance_of``: (P, C, H, W), uint8; with ``_prediction``, the predicted classes (P,).

    Raises:
        UsageError: if the shapes differ, or the classifier's data are not images.
    """
    arrays: Arrays = {}
    with evaluating(clf):
        for name, x in (("logits_of", x1), ("metamer", metamer(clf, x1, x2)), ("nuisance_of", x2)):
            images = quantized(clf, x)
            arrays[name] = _pixels(images)
            arrays[f"{name}_prediction"] = clf.logits(clf.preprocessing(images)).argmax(1).cpu().numpy()
    return arrays


def figure_arrays(context: MetricContext) -> dict[str, Arrays]:
    """Arrays by figure: ``calibration``; ``confusion`` for at most 25 classes; for invertible classifiers of images ``metamers``,
    ``interpolations`` and ``samples``, their pictures (columns, C, H, W) or (rows, columns, C, H, W) in uint8; and ``planes`` if
    the truth is known."""
    bins = reliability_bins(context.logits("test"), context.labels("test"))
    arrays: dict[str, Arrays] = {"calibration": {name: value.numpy() for name, value in bins._asdict().items()}}
    if context.classifier.classes <= _CONFUSION_CLASSES:
        arrays["confusion"] = {"counts": context.once(confusion_of).numpy()}
    if context.has("inverse") and context.has("images") and context.has("pairs"):
        arrays |= _picture_arrays(context.invertible, *context.test_sample, context.seed)
    if all(context.has(need) for need in PLANES_NEED):
        arrays["planes"] = context.once(planes_of)[0]
    return arrays


def _picture_arrays(clf: InvertibleClassifier, x: Tensor, labels: Tensor, seed: int) -> dict[str, Arrays]:
    generator = torch.Generator().manual_seed(seed)
    labels = labels.cpu()
    first, second = _pairs_by_class(labels, generator)
    pair_labels = {"logits_of_label": labels[first].numpy(), "nuisance_of_label": labels[second].numpy()}
    steps = [_pixels(quantized(clf, step)) for step in interpolate(clf, x[first], x[second], _INTERPOLATION_STEPS)]
    labels_shown = range(min(clf.classes, _COLUMNS))
    samples = [clf.sample(_SAMPLES_PER_CLASS, labels=label, generator=generator) for label in labels_shown]
    return {
        "metamers": metamer_pictures(clf, x[first], x[second]) | pair_labels,
        "interpolations": pair_labels | {"steps": np.stack(steps), "target": _pixels(quantized(clf, x[second]))},
        "samples": {"samples": np.stack([_pixels(quantized(clf, row)) for row in samples])},
    }


def _pairs_by_class(labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Up to 12 pairs of different classes: the first of each pair goes through the classes in turn."""
    classes = labels.unique(sorted=True)  # type: ignore[no-untyped-call]
    own = [classes[column % len(classes)] for column in range(min(_COLUMNS, max(len(classes), 8)))]

    def one_of(mask: Tensor) -> Tensor:
        indices = mask.nonzero().flatten()
        return indices[torch.randint(len(indices), (), generator=generator)]

    first = [one_of(labels == label) for label in own]
    return torch.stack(first), torch.stack([one_of(labels != label) for label in own])


def _pixels(images: Tensor) -> NDArray[np.uint8]:
    return (255 * images).round().to(torch.uint8).cpu().numpy()
