"""A classifier's outputs on stored data, and the check that the two fit each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from flowclf.classifier import Classifier, InvertibleClassifier
from flowclf.data import DataSet, Split
from flowclf.errors import UsageError
from flowclf.modes import evaluating


class Encoded(NamedTuple):
    """Outputs of a classifier on a split, on the CPU.

    Attributes:
        logits: (N, K).
        nuisance: (N, D-K); (N, 0) for a plain network.
        log_prob: (N,), nats: log p(x) of the network's input, marginal over the classes; 0 for a plain network.
    """

    logits: Tensor
    nuisance: Tensor
    log_prob: Tensor


def check_fits(clf: Classifier, data: DataSet, parts: Sequence[str] | None = None) -> None:
    """Check that a classifier can be evaluated on data.

    Raises:
        UsageError: if the data have another shape, number of classes or names of classes (unless one side has numbers for names);
            if one of these parts is empty, by default of all three, or of the test part alone if the data are all test; or if the
            data are not all test, and the test part is of a single class, which allows no metamers.
    """
    if tuple(data.image_shape) != clf.preprocessing.image_shape or data.classes != clf.classes:
        raise UsageError(
            f"data set '{data.name}' has {data.classes} classes of shape {tuple(data.image_shape)}; "
            f"the classifier takes {clf.classes} of {clf.preprocessing.image_shape}"
        )
    unnamed = tuple(map(str, range(clf.classes)))
    if data.class_names != clf.class_names and unnamed not in (data.class_names, clf.class_names):
        raise UsageError(f"data set '{data.name}' has the classes {data.class_names}; the classifier's are {clf.class_names}")
    for name in parts or (("test",) if data.all_test else ("train", "validation", "test")):
        split: Split = getattr(data, name)
        if not len(split):
            raise UsageError(f"data set '{data.name}': expected {name} data to evaluate on, found none")
        if (
            name == "test"
            and not data.all_test
            and isinstance(clf, InvertibleClassifier)
            and bool((split.labels == split.labels[0]).all())
        ):
            raise UsageError(f"data set '{data.name}': expected test data of at least two classes, for metamers")


def network_inputs(clf: Classifier, data: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Stored data (uint8 images or float vectors), dequantised, on the classifier's device and in its precision.

    Args:
        clf: the classifier.
        data: (B, C, H, W) uint8, 0..255, or (B, D) continuous.
        generator: source of the noise; a generator on the CPU gives the same noise on every device.
    """
    return clf.preprocessing.dequantize(data, generator).to(clf.device, clf.dtype)


def encode(
    clf: Classifier,
    data: Tensor | Split,
    *,
    seed: int = 0,
    batch_size: int = 128,
    advance: Callable[[int], object] | None = None,
    labelled: Callable[[Tensor], object] | None = None,
) -> Encoded:
    """Encode stored data batch by batch, in eval mode, without gradients.

    The dequantisation noise comes from a CPU generator, so it depends neither on the device nor on ``batch_size``.

    Args:
        clf: the classifier.
        data: (N, C, H, W) uint8, 0..255, or (N, D) continuous; or a split, whose images may be in files.
        seed: random seed of the noise.
        batch_size: inputs per batch. On a CPU, batches whose feature maps outgrow its caches take twice as long.
        advance: called with the number of inputs after each batch.
        labelled: called with the labels of each batch of a split, in which images that cannot be read are left out.

    Raises:
        UsageError: if there are no data, none that can be read, or the batch size is below 1.

    Example:
        >>> import flowclf
        >>> clf = flowclf.build_classifier(input_shape=(4,), nodes=["actnorm", "split_head"], classes=2)
        >>> encode(clf, torch.zeros(3, 4)).nuisance.shape
        torch.Size([3, 2])
    """
    if not len(data):
        raise UsageError("expected at least one input to evaluate, found none")
    if batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, found {batch_size}")
    generator = torch.Generator().manual_seed(seed)
    rows: list[tuple[Tensor, ...]] = []
    parts = data.batches(batch_size) if isinstance(data, Split) else torch.split(data, batch_size)
    with evaluating(clf):
        for part in parts:
            batch = part.inputs if isinstance(part, Split) else part
            logits, nuisance, log_prob = clf(network_inputs(clf, batch, generator))
            if isinstance(clf, InvertibleClassifier):
                log_prob = clf.prior.log_prob(logits, nuisance) + log_prob
            rows.append((logits.cpu(), nuisance.cpu(), log_prob.cpu()))
            if advance is not None:
                advance(len(batch))
            if labelled is not None and isinstance(part, Split):
                labelled(part.labels)
    if not rows:
        raise UsageError(f"expected at least one input that can be read, found none of {len(data)}")
    return Encoded(*map(torch.cat, zip(*rows, strict=True)))
