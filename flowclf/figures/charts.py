"""Charts: calibration, and training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from flowclf.errors import UsageError
from flowclf.evaluation import Arrays
from flowclf.evaluation.metric import describe
from flowclf.figures.style import BLUE, INK, MUTED, ORANGE, PURPLE, new_figure, tidy


def calibration_diagram(arrays: Arrays) -> Figure:
    """Accuracy against confidence, with the number of predictions below.

    Args:
        arrays: ``counts``, ``confidence`` and ``accuracy`` of bins of equal width, as
            :func:`flowclf.evaluation.metrics.calibration.reliability_bins` gives them.
    """
    counts, confidence, accuracy = arrays["counts"], arrays["confidence"], arrays["accuracy"]
    bins = len(counts)
    left = np.arange(bins) / bins
    filled = counts > 0
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
    below.set(
        yscale="log",
        ylim=(0.7, 2 * counts.max()),
        xlabel="confidence: probability of the predicted class",
        ylabel="predictions",
    )
    tidy(above)
    tidy(below)
    return figure


def training_curves(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """The metrics over epochs, one panel per quantity, training and validation together.

    Args:
        rows: one mapping per epoch; keys such as ``validation.error`` are a part and a quantity.

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
    epochs = [row.get("epoch", index + 1) for index, row in enumerate(rows)]
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    for axis, (quantity, keys) in zip(axes.flat, panels.items(), strict=False):
        percent = describe(quantity)[0] == "share"
        for key in keys:
            values = [np.nan if row.get(key) is None else float(row[key]) for row in rows]
            colour, name = _style(key)
            scaled = [100 * value for value in values] if percent else values
            axis.plot(epochs, scaled, marker="o", markersize=3, linewidth=1.5, color=colour, label=name)
        if percent:
            axis.set_ylim(bottom=max(0.0, axis.get_ylim()[0]))
        axis.set_title(_quantity(quantity), fontsize=9, color=INK)
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
        if numeric and part in ("", "train", "validation") and quantity not in ("epoch", "step", "train"):
            panels.setdefault(quantity, []).append(key)
    return dict(sorted(panels.items(), key=lambda panel: _rank(panel[0])))


def _rank(quantity: str) -> int:
    order = ("error", "cross_entropy_nats", "bits_per_dim", "nuisance_cross_entropy_nats")
    last = ("gradient_norm", "learning_rate", "seconds")
    if quantity in order:
        return order.index(quantity)
    return 100 + last.index(quantity) if quantity in last else 50


def _quantity(quantity: str) -> str:
    name, unit = quantity.replace("_", " "), describe(quantity)[0]
    if unit == "share":
        return f"{name}, %"
    if unit == "nats":
        return f"{name.removesuffix(' nats')}, nats"
    return "bits per dimension" if quantity == "bits_per_dim" else name


def _style(key: str) -> tuple[str, str]:
    part = key.rpartition(".")[0]
    return {"train": (ORANGE, "training"), "validation": (BLUE, "validation")}.get(part, (PURPLE, key))
