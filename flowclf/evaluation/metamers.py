"""Metamers: the logits of one input with the nuisances of another; interpolations; what a saved picture keeps.

Everything takes and returns network inputs, without gradients; :func:`quantized` turns them into images.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from flowclf.classifier import InvertibleClassifier, require_invertible
from flowclf.data import Oracle
from flowclf.errors import UsageError
from flowclf.labels import class_numbers
from flowclf.modes import evaluating


@torch.no_grad()
def metamer(clf: InvertibleClassifier, logits_of: Tensor, nuisance_of: Tensor) -> Tensor:
    """x_met = F^-1(z_s(x1), z_n(x2)): the logits of x1 with the nuisances of x2 (paper, section 2.2), without optimisation.

    Args:
        clf: the classifier, in eval mode unless its batch statistics are wanted.
        logits_of: x1, (B, *input_shape), network inputs.
        nuisance_of: x2, of the same shape.

    Returns:
        Network inputs (B, *input_shape), possibly outside the range of pixels.

    Raises:
        UsageError: if the two shapes differ, or are not the network's, or the classifier has no inverse.

    Example:
        >>> import flowclf
        >>> nodes = ["squeeze", "actnorm", "affine_coupling", "split_head"]
        >>> clf = flowclf.build_classifier((1, 8, 8), nodes, classes=10)
        >>> x1, x2 = clf.preprocessing(torch.rand(6, 1, 8, 8)).chunk(2)
        >>> x_met = metamer(clf, logits_of=x1, nuisance_of=x2)
        >>> torch.allclose(clf(x_met).logits, clf(x1).logits, atol=1e-4)
        True
    """
    require_invertible(clf, "a metamer")
    _check_pair(logits_of, nuisance_of)
    return clf.inverse(clf.latents(logits_of)[0], clf.latents(nuisance_of)[1])


@torch.no_grad()
def interpolate(clf: InvertibleClassifier, x1: Tensor, x2: Tensor, steps: int) -> Tensor:
    """From x1 to its metamer with the nuisances of x2, all with the logits of x1 (paper, Figure 6).

    Step t is F^-1(z_s(x1), (1 - w) z_n(x1) + w z_n(x2)) with w = t / (steps - 1).

    Args:
        clf: the classifier, in eval mode unless its batch statistics are wanted.
        x1: (B, *input_shape), network inputs that provide the logits and the first nuisances.
        x2: of the same shape; provides the last nuisances.
        steps: T, at least 2, both ends included.

    Returns:
        Network inputs (T, B, *input_shape): x1 first, ``metamer(clf, x1, x2)`` last.

    Raises:
        UsageError: if the two shapes differ, or are not the network's, or ``steps`` is below 2.
    """
    _check_pair(x1, x2)
    if steps < 2:
        raise UsageError(f"interpolate: expected at least 2 steps, found {steps}")
    logits, start = clf.latents(x1)
    end = clf.latents(x2)[1]
    return torch.stack([clf.inverse(logits, torch.lerp(start, end, weight)) for weight in torch.linspace(0, 1, steps).tolist()])


def quantized(clf: InvertibleClassifier, x: Tensor) -> Tensor:
    """Network inputs (B, *input_shape) as saved pictures: clipped to the pixel range and rounded to 8 bits.

    Returns:
        Images (B, C, H, W) in [0, 1], every value k / 255. ``clf.preprocessing`` turns them into network inputs again.

    Raises:
        UsageError: if the classifier's data are not images of pixel values (its preprocessing has no ``bits``).
    """
    if clf.preprocessing.bits is None:
        raise UsageError("quantized: expected a classifier of images of pixel values, found one of continuous data")
    return (255 * clf.preprocessing.inverse(x)).round().clamp(0, 255) / 255


def draw_pairs(labels: Tensor, n: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Indices, two tensors (n,) on the CPU, of n random pairs of examples of different classes (N,), with replacement.

    The first of a pair is uniform over all examples, the second over those of any other class.

    Raises:
        UsageError: if n is below 1, the labels are not integers (N,) from 0 up, or there are not two classes.
    """
    labels = class_numbers(labels, None).cpu()
    if n < 1:
        raise UsageError(f"draw_pairs: expected at least 1 pair, found {n}")
    counts = torch.bincount(labels)
    present = counts.nonzero().flatten()
    if len(present) < 2:
        raise UsageError(f"draw_pairs: expected examples of at least two classes, found {present.tolist()}")
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(len(labels), (n,), generator=generator)
    order = labels.argsort(stable=True)
    starts = counts.cumsum(0) - counts
    own = labels[first]
    others = len(labels) - counts[own]
    # In sorted order the examples of the own class are one run, which places from its start on skip.
    place = (torch.rand(n, generator=generator, dtype=torch.float64) * others).long().clamp_max(others - 1)
    place += torch.where(place >= starts[own], counts[own], 0)
    return first, order[place]


def metamer_statistics(
    clf: InvertibleClassifier,
    x: Tensor,
    labels: Tensor,
    *,
    pairs: int = 1000,
    seed: int = 0,
    oracle: Oracle | None = None,
    batch_size: int = 128,
    advance: Callable[[int], object] | None = None,
) -> dict[str, float]:
    """What metamers of random pairs of different classes keep, in eval mode.

    Args:
        clf: the classifier.
        x: (N, *input_shape), network inputs.
        labels: (N,) their classes.
        pairs: number of pairs; see :func:`draw_pairs`.
        seed: random seed of the pairs.
        oracle: labels metamers as computed, so also images outside [0, 1]; see :data:`flowclf.data.Oracle`.
        batch_size: pairs per batch.
        advance: called with the number of pairs after each batch.

    Returns:
        The values ``metamers.*`` of :mod:`flowclf.evaluation.metrics.metamers`: those that end in ``_8bit`` only for images,
        ``metamers.oracle.*`` and ``metamers.adversarial`` (paper, definition 3: o(x_met) != o(x1) while the prediction stays) only
        with an oracle.

    Raises:
        UsageError: if there is less than one pair, the labels are not N classes, or there are fewer than two.
    """
    labels = class_numbers(labels, clf.classes, len(x))
    first, second = draw_pairs(labels, pairs, seed=seed)
    x, labels = x.to(clf.device, clf.dtype), labels.to(clf.device)
    total: dict[str, float] = {}
    worst: list[Tensor] = []

    def add(name: str, of_each_pair: Tensor) -> None:
        total[name] = total.get(name, 0.0) + of_each_pair.double().sum().item()

    with evaluating(nn.ModuleList(part for part in (clf, oracle) if isinstance(part, nn.Module))):
        for batch in torch.split(torch.stack([first, second]).to(clf.device), batch_size, dim=1):
            one, two = batch
            logits, nuisance = clf.latents(x[one])[0], clf.latents(x[two])[1]
            x_met = clf.inverse(logits, nuisance)
            of_metamer = clf.latents(x_met)[0]
            worst.append((of_metamer - logits).abs().max())
            add("logit_change_mean", (of_metamer - logits).abs().mean(1))
            kept = of_metamer.argmax(1) == logits.argmax(1)
            add("prediction_kept", kept)
            add("distance_mean", (x_met - x[one]).flatten(1).norm(dim=1))
            shown = {"": (clf.preprocessing.inverse(x_met), kept)}
            if clf.preprocessing.bits is not None:
                picture = quantized(clf, x_met)
                of_picture = clf.latents(clf.preprocessing(picture))[0]
                kept = of_picture.argmax(1) == logits.argmax(1)
                add("prediction_kept_8bit", kept)
                add("logit_change_8bit_mean", (of_picture - logits).abs().mean(1))
                add("pixels_out_of_range", clf.preprocessing.outside(x_met).double().flatten(1).mean(1))
                shown["_8bit"] = (picture, kept)
            if oracle is not None:
                before = oracle(clf.preprocessing.inverse(x[one])).argmax(1)
                for suffix, (data, kept) in shown.items():
                    after = oracle(data).argmax(1)
                    by_logits, by_nuisance = after == labels[one], after == labels[two]
                    add(f"oracle.donor{suffix}", by_nuisance)
                    add(f"oracle.logits{suffix}", by_logits)
                    add(f"oracle.neither{suffix}", ~(by_logits | by_nuisance))
                    add(f"adversarial{suffix}", kept & (after != before))
            if advance is not None:
                advance(len(one))
    results = {"metamers.pairs": pairs, "metamers.logit_change_max": torch.stack(worst).max().item()}
    return results | {f"metamers.{name}": value / pairs for name, value in total.items()}


def _check_pair(x1: Tensor, x2: Tensor) -> None:
    for x in (x1, x2):
        if not isinstance(x, Tensor):
            raise UsageError(f"expected two batches of network inputs as tensors, found a {type(x).__name__}")
    if x1.shape != x2.shape:
        raise UsageError(f"expected two batches of one shape, found {tuple(x1.shape)} and {tuple(x2.shape)}")
