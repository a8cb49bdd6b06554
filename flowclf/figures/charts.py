"""Charts: calibration, confusions, and training curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from flowclf.errors import UsageError
from flowclf.evaluation import Arrays
from flowclf.evaluation.metric import describe
from flowclf.figures.style import BLUE, INK, MUTED, ORANGE, PURPLE, new_figure, short, tidy

_STYLES = {"train": (ORANGE, "training"), "validation": (BLUE, "validation")}
_FIRST = ("error", "cross_entropy_nats", "bits_per_dim", "nuisance_cross_entropy_nats")
_LAST = ("gradient_norm", "learning_rate", "seconds")


def calibration_diagram(arrays: Arrays) -> Figure:
    """Accuracy against confidence, with the number of predictions, from the fields of a calibration's ``ReliabilityBins``."""
    counts, confidence, accuracy = arrays["counts"], arrays["confidence"], arrays["accuracy"]
    bins = len(counts)
    left, filled = np.arange(bins) / bins, counts > 0
    gap = float((counts / counts.sum() * np.abs(accuracy - confidence)).sum())
    figure = new_figure(4.6, 4.8)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--", label="confidence = accuracy")
    above.bar(left[filled], accuracy[filled], 1 / bins, align="edge", color=BLUE, alpha=0.35, edgecolor="white")
    above.plot(confidence[filled], accuracy[filled], "o", color=BLUE, markersize=4, label="predictions of the bin")
    above.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy")
    above.set_title(f"calibration error {100 * gap:.2f} %", pad=20)
    above.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False, fontsize=8)
    below.bar(left[filled], counts[filled], 1 / bins, align="edge", color=MUTED, edgecolor="white")
    below.set(yscale="log", ylim=(0.7, 2 * counts.max()), ylabel="predictions")
    below.set_xlabel("confidence: probability of the predicted class")
    tidy(above)
    tidy(below)
    return figure


def confusion_chart(arrays: Arrays, class_names: Sequence[str]) -> Figure:
    """The confusion matrix ``counts`` (K, K), classes in rows, predicted classes in columns, with the numbers in the cells."""
    counts, classes = arrays["counts"], len(class_names)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    wrong = np.where(np.eye(classes, dtype=bool), np.nan, shares)
    side = max(3.6, 1.4 + 0.36 * classes)
    figure = new_figure(side + 0.4, side)
    axis = figure.subplots()
    axis.set_facecolor("#e5e7eb")
    # The root shows one error in a hundred beside one in two.
    norm = PowerNorm(0.5, vmin=0, vmax=max(0.01, float(np.nanmax(wrong))))
    image = axis.imshow(wrong, cmap="Oranges", norm=norm)
    for row, column in zip(*np.nonzero(counts), strict=True):
        strong = row != column and norm(wrong[row, column]) > 0.6
        colour, size = "white" if strong else INK, 7 if counts.max() < 10_000 else 6
        axis.text(column, row, f"{counts[row, column]}", fontsize=size, color=colour, ha="center", va="center")
    names = [short(name) for name in class_names]
    long = max(map(len, names)) > 3
    axis.set_xticks(range(classes), names, rotation=90 if long else 0)
    axis.set_yticks(range(classes), names)
    axis.set(xlabel="predicted class", ylabel="class")
    axis.tick_params(labelsize=8, colors=INK, length=0)
    axis.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axis, shrink=0.7, format=lambda share, _: f"{100 * share:g} %")
    bar.ax.tick_params(labelsize=7, colors=INK)
    bar.set_label("share of the class's examples", fontsize=8)
    return figure


def training_curves(rows: Sequence[Mapping[str, Any]], classes: int | None = None) -> Figure:
    """Metrics over epochs (one row each), a panel per quantity: ``train.error`` and ``validation.error`` share one.

    Args:
        rows: metrics, one row per epoch.
        classes: K; cross-entropies then have a line at chance, log K nats, which all classes with equal probability give.

    Raises:
        UsageError: if there are no rows.
    """
    if not rows:
        raise UsageError("training curves: expected at least one row of metrics, found none")
    panels = _panels(rows)
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure = new_figure(3.4 * columns, 2.5 * lines)
    axes = figure.subplots(lines, columns, squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    epochs = [row.get("epoch", index + 1) for index, row in enumerate(rows)]
    for axis, (quantity, keys) in zip(axes.flat, panels.items(), strict=False):
        unit, name = describe(quantity)[0], quantity.replace("_", " ").replace("bits per dim", "bits per dimension")
        for key in keys:
            values = np.array([np.nan if row.get(key) is None else float(row[key]) for row in rows])
            colour, label = _STYLES.get(key.rpartition(".")[0], (PURPLE, key))
            scaled = 100 * values if unit == "share" else values
            axis.plot(epochs, scaled, marker="o", markersize=3, linewidth=1.5, color=colour, label=label)
        if classes and quantity.endswith("cross_entropy_nats"):
            axis.axhline(math.log(classes), color=MUTED, linewidth=1, linestyle="--", label="chance")
        if unit == "share":
            axis.set_ylim(bottom=max(0.0, axis.get_ylim()[0]))
        titles = {"share": f"{name}, %", "nats": f"{name.removesuffix(' nats')}, nats"}
        axis.set_title(titles.get(unit, name), fontsize=9, color=INK)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_xlabel("epoch", fontsize=8)
        if any("." in key for key in keys):
            axis.legend(frameon=False, fontsize=8)
        tidy(axis)
    return figure


def _panels(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Keys of the rows' numbers by quantity: training and validation share a panel."""
    panels: dict[str, list[str]] = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        part, _, quantity = key.rpartition(".")
        numeric = any(isinstance(row.get(key), int | float) for row in rows)
        if numeric and part in ("", *_STYLES) and quantity not in ("epoch", "step", "train"):
            panels.setdefault(quantity, []).append(key)
    order = dict.fromkeys((*_FIRST, *(quantity for quantity in panels if quantity not in _LAST), *_LAST))
    return {quantity: panels[quantity] for quantity in order if quantity in panels}
