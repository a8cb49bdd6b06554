"""Figures of an evaluation and of a training, each a PNG with its data beside it.

Drawn through matplotlib's object API on the Agg canvas: nothing here touches pyplot's global state or needs a display.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from flowclf.errors import UsageError
from flowclf.evaluation import Arrays, Evaluation
from flowclf.files import atomic_write, write_json

__all__ = [
    "FigureFile",
    "calibration_diagram",
    "interpolation_grid",
    "metamer_grid",
    "sample_grid",
    "save_figure",
    "training_curves",
    "write_figures",
]

_DPI = 150
_INK = "#22262b"
_MUTED = "#6b7280"
_WRONG = "#b3261e"
_BLUE = "#1f6fb2"
_ORANGE = "#c8641b"
_PURPLE = "#7a4fa3"
_GAP, _CAPTION, _MARGIN = 8, 28, 14
"""Pixels of the PNG: between pictures, for a line of text, around everything."""


@dataclass(frozen=True)
class FigureFile:
    """A figure on disk.

    Attributes:
        path: of the PNG; its data lie beside it under the same name, as .npz or .json.
        title: a few words.
        caption: how to read it, in plain sentences.
    """

    path: Path
    title: str
    caption: str


@dataclass(frozen=True)
class _Row:
    """A row of pictures in a grid: what it is, the pictures (P, C, H, W), and a caption and its colour below each."""

    name: str
    pictures: NDArray[np.uint8]
    captions: Sequence[tuple[str, str]] = ()


def metamer_grid(arrays: Arrays, class_names: Sequence[str]) -> Figure:
    """Metamers between their donors, as in the paper's Figure 4.

    Args:
        arrays: as :func:`flowclf.evaluation.metamer_pictures` gives them; ``logits_of_label`` and
            ``nuisance_of_label`` as well where the donors' classes are known.
        class_names: of the classes.
    """
    reads = arrays["metamer_prediction"]
    target = arrays["logits_of_prediction"]
    kept = [
        (f"reads {_short(class_names[got])}", _INK if got == wanted else _WRONG) for got, wanted in zip(reads, target, strict=True)
    ]
    return _grid(
        [
            _Row("logits from", arrays["logits_of"], _donor_captions(arrays, "logits_of", class_names)),
            _Row("metamer", arrays["metamer"], kept),
            _Row("nuisances from", arrays["nuisance_of"], _donor_captions(arrays, "nuisance_of", class_names)),
        ]
    )


def interpolation_grid(arrays: Arrays, class_names: Sequence[str]) -> Figure:
    """From an image to its metamer with the nuisances of another, down each column, as in the paper's Figure 6.

    Args:
        arrays: ``steps`` (T, P, C, H, W), the original first, and ``target`` (P, C, H, W), with the labels (P,) of
            both, ``logits_of_label`` and ``nuisance_of_label``.
        class_names: of the classes.
    """
    steps = arrays["steps"]
    between = [_Row(f"{round(100 * index / (len(steps) - 1))} %", pictures) for index, pictures in enumerate(steps[1:-1], start=1)]
    return _grid(
        [
            _Row("original", steps[0], _labels(arrays["logits_of_label"], class_names)),
            *between,
            _Row("metamer", steps[-1]),
            _Row("target", arrays["target"], _labels(arrays["nuisance_of_label"], class_names)),
        ]
    )


def sample_grid(arrays: Arrays, class_names: Sequence[str]) -> Figure:
    """Samples from the prior through the inverse, a class a row.

    Args:
        arrays: ``samples`` (K, n, C, H, W).
        class_names: of the classes.
    """
    return _grid([_Row(_short(class_names[label]), row) for label, row in enumerate(arrays["samples"])], cell=84)


def calibration_diagram(arrays: Arrays) -> Figure:
    """Accuracy against confidence, with the number of predictions below.

    Args:
        arrays: ``counts``, ``confidence`` and ``accuracy`` of bins of equal width, as
            :func:`flowclf.metrics.reliability_bins` gives them.
    """
    counts, confidence, accuracy = arrays["counts"], arrays["confidence"], arrays["accuracy"]
    bins = len(counts)
    left = np.arange(bins) / bins
    filled = counts > 0
    gap = float((counts / counts.sum() * np.abs(accuracy - confidence)).sum())
    figure = _figure(4.6, 4.8)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot([0, 1], [0, 1], color=_MUTED, linewidth=1, linestyle="--", label="confidence = accuracy")
    above.bar(left[filled], accuracy[filled], 1 / bins, align="edge", color=_BLUE, alpha=0.35, edgecolor="white")
    above.plot(confidence[filled], accuracy[filled], "o", color=_BLUE, markersize=4, label="predictions of the bin")
    above.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy", title=f"calibration error {100 * gap:.2f} %")
    above.legend(loc="upper left", frameon=False, fontsize=8)
    below.bar(left[filled], counts[filled], 1 / bins, align="edge", color=_MUTED, edgecolor="white")
    below.set(
        yscale="log",
        ylim=(0.7, 2 * counts.max()),
        xlabel="confidence: probability of the predicted class",
        ylabel="predictions",
    )
    _tidy(above)
    _tidy(below)
    return figure


def training_curves(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Every number of the metrics rows over epochs, a panel for each quantity, training and validation together.

    Args:
        rows: one mapping an epoch; keys such as ``validation.error`` are a part and a quantity.

    Raises:
        UsageError: there are no rows.
    """
    if not rows:
        raise UsageError("training curves: expected at least one row of metrics, found none")
    panels = _panels(rows)
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure = _figure(3.4 * columns, 2.5 * lines)
    axes = figure.subplots(lines, columns, squeeze=False)
    epochs = [row.get("epoch", index + 1) for index, row in enumerate(rows)]
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    for axis, (quantity, keys) in zip(axes.flat, panels.items(), strict=False):
        percent = quantity.endswith("error")
        for key in keys:
            values = [np.nan if row.get(key) is None else float(row[key]) for row in rows]
            colour, name = _style(key)
            scaled = [100 * value for value in values] if percent else values
            axis.plot(epochs, scaled, marker="o", markersize=3, linewidth=1.5, color=colour, label=name)
        axis.set_title(_quantity(quantity), fontsize=9, color=_INK)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_xlabel("epoch", fontsize=8)
        if any("." in key for key in keys):
            axis.legend(frameon=False, fontsize=8)
        _tidy(axis)
    return figure


def save_figure(figure: Figure, path: Path, data: Arrays | Sequence[Mapping[str, Any]]) -> None:
    """Write a figure as PNG and its data beside it: arrays as .npz, rows as .json; each atomically.

    Args:
        figure: drawn by one of the functions here.
        path: of the PNG.
        data: arrays, or rows that JSON can hold.

    Raises:
        UsageError: an array of Python objects, which only a pickle could hold.
    """
    if not isinstance(data, Sequence):
        pickled = sorted(name for name, array in data.items() if array.dtype.hasobject)
        if pickled:
            raise UsageError(f"figure {path.name}: expected arrays of numbers or text, found objects in {pickled}")
    with atomic_write(path) as temporary:
        FigureCanvasAgg(figure)
        figure.savefig(temporary, format="png", dpi=_DPI, facecolor="white")
    if isinstance(data, Sequence):
        write_json(path.with_suffix(".json"), [dict(row) for row in data])
        return
    with atomic_write(path.with_suffix(".npz")) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **data)  # type: ignore[arg-type]


def write_figures(folder: Path, evaluation: Evaluation | None, rows: Sequence[Mapping[str, Any]] = ()) -> list[FigureFile]:
    """All figures of a run that there are data for, in the order of a report.

    Args:
        folder: made if need be.
        evaluation: with its arrays; None draws the training alone.
        rows: metrics of the epochs.
    """
    files: list[FigureFile] = []

    def write(name: str, title: str, caption: str, figure: Figure, data: Arrays | Sequence[Mapping[str, Any]]) -> None:
        path = folder / f"{name}.png"
        save_figure(figure, path, data)
        files.append(FigureFile(path, title, caption))

    if evaluation is not None:
        arrays, names = evaluation.arrays, evaluation.class_names
        drawn = {"metamers": metamer_grid, "interpolations": interpolation_grid, "samples": sample_grid}
        for name, draw in drawn.items():
            if name in arrays and _drawable(arrays[name]):
                write(name, *_WORDS[name], draw(arrays[name], names), arrays[name])
        write("calibration", *_WORDS["calibration"], calibration_diagram(arrays["calibration"]), arrays["calibration"])
    if rows:
        write("training", *_WORDS["training"], training_curves(rows), list(rows))
    return files


_WORDS: Mapping[str, tuple[str, str]] = {
    "metamers": (
        "Metamers",
        "Each column is a pair. The picture in the middle has exactly the logits of the one above and the nuisances of "
        "the one below. Where it looks like the picture below, the classifier ignores what makes the class; where it "
        "looks like the one above, the logits hold the class and the nuisances only the style. Under a donor stands "
        "its label, and in red how the classifier reads it where that differs; under a metamer how the classifier "
        "reads it as an 8-bit picture, in red where it reads the picture above differently. All pictures carry the "
        "dequantisation noise that the network gets.",
    ),
    "interpolations": (
        "Interpolations",
        "Down each column the logits stay those of the original, while the nuisances go in equal steps from the "
        "original's to the target's, which the metamer has. Where the logits hold all that makes the class, only the "
        "style changes on the way down.",
    ),
    "samples": (
        "Samples by class",
        "Drawn from the prior at temperature 1, a class a row, and run through the inverse. They show what the "
        "likelihood term has learnt; without one in the loss they mean little.",
    ),
    "calibration": (
        "Calibration",
        "Test predictions grouped by the probability that the classifier gives to its answer. On the diagonal, answers "
        "given with 90 % are right nine times of ten; below it the classifier is too sure. The lower panel counts the "
        "predictions, on a logarithmic scale.",
    ),
    "training": (
        "Training",
        "What the training loop measured: on the training part means over each epoch, with augmentation; on the "
        "validation part after it.",
    ),
}


def _grid(rows: Sequence[_Row], cell: int = 112) -> Figure:
    """Pictures in rows, each named on the left; a picture is about ``cell`` pixels, a whole multiple of its own."""
    count, _, height, width = rows[0].pictures.shape
    scale = max(1, round(cell / max(height, width)))
    cell_width, cell_height = scale * width, scale * height
    names = 12 + 11 * max(len(row.name) for row in rows)
    total_width = 2 * _MARGIN + names + count * (cell_width + _GAP)
    total_height = 2 * _MARGIN + sum(cell_height + (_CAPTION if row.captions else _GAP) for row in rows)
    figure = Figure(figsize=(total_width / _DPI, total_height / _DPI), dpi=_DPI)
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set_axis_off()
    top = float(_MARGIN)
    for row in rows:
        axis.text(_MARGIN + names - 12, top + cell_height / 2, row.name, ha="right", va="center", fontsize=9, color=_INK)
        for column, picture in enumerate(row.pictures):
            left = _MARGIN + names + column * (cell_width + _GAP)
            extent = (left, left + cell_width, top + cell_height, top)
            shown = picture[0] if len(picture) == 1 else picture.transpose(1, 2, 0)
            axis.imshow(shown, cmap="gray", vmin=0, vmax=255, interpolation="nearest", extent=extent)
            if row.captions:
                text, colour = row.captions[column]
                middle = left + cell_width / 2
                axis.text(middle, top + cell_height + 3, text, ha="center", va="top", fontsize=8, color=colour)
        top += cell_height + (_CAPTION if row.captions else _GAP)
    axis.set(xlim=(0, total_width), ylim=(total_height, 0))
    return figure


def _drawable(arrays: Arrays) -> bool:
    """Whether the pictures are grey or RGB."""
    return all(array.shape[-3] in (1, 3) for array in arrays.values() if array.ndim >= 4)


def _labels(labels: NDArray[np.int64], class_names: Sequence[str]) -> list[tuple[str, str]]:
    return [(_short(class_names[label]), _INK) for label in labels]


def _donor_captions(arrays: Arrays, name: str, class_names: Sequence[str]) -> list[tuple[str, str]]:
    predictions = arrays[f"{name}_prediction"]
    labels = arrays.get(f"{name}_label", predictions)
    return [
        (_short(class_names[label]), _INK)
        if label == predicted
        else (f"{_short(class_names[label])}, read as {_short(class_names[predicted])}", _WRONG)
        for label, predicted in zip(labels, predictions, strict=True)
    ]


def _short(name: str) -> str:
    return name if len(name) <= 12 else f"{name[:11]}…"


def _panels(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Keys of the rows' numbers by quantity: what is measured on several parts of the data shares a panel."""
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
    if quantity.endswith("error"):
        return f"{quantity.replace('_', ' ')}, %"
    for ending, unit in (("_nats", "nats"), ("bits_per_dim", "bits per dimension")):
        if quantity.endswith(ending):
            rest = quantity.removesuffix(ending).replace("_", " ").strip()
            return f"{rest}, {unit}" if rest else unit
    return quantity.replace("_", " ")


def _style(key: str) -> tuple[str, str]:
    part = key.rpartition(".")[0]
    return {"train": (_ORANGE, "training"), "validation": (_BLUE, "validation")}.get(part, (_PURPLE, key))


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), dpi=_DPI, layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))


def _tidy(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(_MUTED)
    axis.tick_params(labelsize=8, colors=_INK)
    axis.grid(axis="y", color="#e5e7eb", linewidth=0.6)
    axis.set_axisbelow(True)
    for text in (axis.xaxis.label, axis.yaxis.label, axis.title):
        text.set_fontsize(9)
