"""All figures of a run, with their titles and captions."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from flowclf.evaluation import Arrays, Evaluation
from flowclf.figures.charts import calibration_diagram, confusion_chart, training_curves
from flowclf.figures.grids import interpolation_grid, metamer_grid, sample_grid
from flowclf.figures.planes import plane_panels
from flowclf.figures.style import FigureFile, save_figure

Draw = Callable[[Arrays, Sequence[str]], Figure]

_FIGURES: Mapping[str, tuple[Draw, str, str]] = {
    "metamers": (
        metamer_grid,
        "Metamers",
        "Each column is a pair. The picture in the middle has exactly the logits of the one above and the nuisances of "
        "the one below. If it looks like the picture below, the classifier ignores what makes the class; if it "
        "looks like the one above, the logits hold the class and the nuisances only the style. Below a donor is "
        "its label, in red with the predicted class if they differ; below a metamer is the class predicted for it as an 8-bit "
        "picture, in red if it is not that of the picture above. All pictures contain the dequantisation noise of the "
        "network's inputs.",
    ),
    "interpolations": (
        interpolation_grid,
        "Interpolations",
        "In each column the logits stay those of the original, while the nuisances change in equal steps from the "
        "original's to the target's, which the metamer has. If the logits hold all that makes the class, only the "
        "style changes from top to bottom.",
    ),
    "samples": (
        sample_grid,
        "Samples by class",
        "Drawn from the prior at temperature 1, one class per row, and mapped through the inverse. They show what the "
        "likelihood term has learnt; if the loss has none, they mean little.",
    ),
    "planes": (
        plane_panels,
        "Decision regions in planes",
        "Two planes through 0 in the space of inputs: left that of two data points, right that of x and its "
        "metamer, which has the logits of x and the nuisances of a point of another class. The decisions of the classifier are "
        "above, those of a probe trained afresh on its nuisances below; hatching marks where they differ from the oracle. On the "
        "path from x to its metamer, which need not stay in the plane and is projected onto it, no logit changes: if the metamer "
        "is on the other side of the oracle's boundary, it is an invariance-based adversarial example.",
    ),
    "confusion": (
        confusion_chart,
        "Confusion matrix",
        "Test examples by class (rows) and predicted class (columns). The colour is the share of the class's examples, on a scale "
        "that shows rare confusions too; the diagonal, where the prediction is right, is grey.",
    ),
    "calibration": (
        lambda arrays, names: calibration_diagram(arrays),
        "Calibration",
        "Test predictions grouped by the probability of the predicted class. On the diagonal, predictions with a "
        "probability of 90 % are right nine times out of ten; below it the classifier is overconfident. The lower panel shows "
        "the number of predictions on a logarithmic scale.",
    ),
}
_TRAINING = (
    "Training",
    "Measured during training: means over each epoch on the training data, with augmentation; and values on the "
    "validation data after each epoch. The nuisance cross-entropy is the adversary's: at chance, log K nats for K classes, it "
    "finds nothing. If it is low on the training data alone, the adversary knows them by heart.",
)


def write_figures(folder: Path, evaluation: Evaluation | None, rows: Sequence[Mapping[str, Any]] = ()) -> list[FigureFile]:
    """Write all figures for which there are data, in the order of a report; a figure that fails is left out, with a warning.

    Args:
        folder: created if necessary.
        evaluation: the results with their arrays, if any.
        rows: metrics, one row per epoch.
    """
    files: list[FigureFile] = []

    def write(name: str, title: str, caption: str, draw: Callable[[], Figure], data: Arrays | Sequence[Mapping[str, Any]]) -> None:
        path = folder / f"{name}.png"
        try:
            save_figure(draw(), path, data)
        except Exception as error:  # A picture is no reason to lose a run.
            warnings.warn(f"the figure {path.name} cannot be drawn and is left out: {error}", stacklevel=3)
        else:
            files.append(FigureFile(path, title, caption))

    if evaluation is not None:
        for name, (draw, title, caption) in _FIGURES.items():
            arrays = evaluation.arrays.get(name)
            # Pictures that are neither grey nor RGB cannot be drawn.
            if arrays and all(part.shape[-3] in (1, 3) for part in arrays.values() if part.ndim >= 4):
                write(name, title, caption, functools.partial(draw, arrays, evaluation.class_names), arrays)
    if rows:
        classes = len(evaluation.class_names) if evaluation is not None else None
        write("training", *_TRAINING, functools.partial(training_curves, rows, classes), list(rows))
    return files
