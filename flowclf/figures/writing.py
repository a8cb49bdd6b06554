"""All figures of a run, written with the words that explain them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from flowclf.evaluation import Arrays, Evaluation
from flowclf.figures.charts import calibration_diagram, training_curves
from flowclf.figures.grids import interpolation_grid, metamer_grid, sample_grid
from flowclf.figures.planes import plane_panels
from flowclf.figures.style import FigureFile, save_figure

__all__ = ["write_figures"]


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
        if "planes" in arrays:
            write("planes", *_WORDS["planes"], plane_panels(arrays["planes"], names), arrays["planes"])
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
    "planes": (
        "Decision regions in planes",
        "Two planes through 0 in the space of inputs: on the left that of two data points, on the right that of x and its "
        "metamer, which has the logits of x and the nuisances of a point of another class. Above what the classifier decides, "
        "below what a fresh probe of its nuisances decides; hatched is where they differ from the oracle. On the way from x "
        "to its metamer, which need not stay in the plane and is shown as its shadow, no logit changes: where the metamer "
        "lies on the other side of the oracle's boundary, it is an invariance-based adversarial example.",
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


def _drawable(arrays: Arrays) -> bool:
    """Whether the pictures are grey or RGB."""
    return all(array.shape[-3] in (1, 3) for array in arrays.values() if array.ndim >= 4)
