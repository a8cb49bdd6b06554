"""Figure 6 of the paper for two models; the command is ``flowclf paper figure6``.

Along each row the logits stay those of the first image, while the nuisances move from its own to those of a test image of another
class. The caption of each image, as saved at 8 bits, is the class that the oracle assigns.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowclf.classifier import InvertibleClassifier, require_invertible
from flowclf.data import DataSet, Oracle
from flowclf.errors import UsageError
from flowclf.evaluation import ready_oracle
from flowclf.evaluation.encoding import network_inputs
from flowclf.evaluation.metamers import draw_pairs, interpolate, quantized
from flowclf.figures import PictureRow, picture_grid, save_figure
from flowclf.figures.style import INK, WRONG
from flowclf.modes import evaluating
from flowclf.run.opening import check_png, open_data, open_model


def pairs_by_class(labels: Tensor, rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw indices of pairs of different classes; the classes of the first images cycle through all classes."""
    first, second = draw_pairs(labels, max(1000, 100 * rows), seed=seed)
    classes = labels.unique(sorted=True)  # type: ignore[no-untyped-call]
    chosen: list[int] = []
    for row in range(rows):
        own = (labels[first] == classes[row % len(classes)]).nonzero().flatten().tolist()
        index = next((index for index in own if index not in chosen), None)
        if index is None:
            raise UsageError(f"--rows {rows}: expected at most as many as there are pairs to draw")
        chosen.append(index)
    return first[chosen], second[chosen]


def interpolations(
    clf: InvertibleClassifier, oracle: Oracle, data: DataSet, pairs: tuple[Tensor, Tensor], steps: int, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Compute the images along each pair's path, (P, T, C, H, W), and the classes that the oracle assigns to them, (P, T)."""
    generator = torch.Generator().manual_seed(seed)
    with evaluating(clf):
        x1, x2 = (network_inputs(clf, data.test.take(indices).inputs, generator) for indices in pairs)
        path = [quantized(clf, step) for step in interpolate(clf, x1, x2, steps)]
        pictures = torch.stack([(255 * step).round().to(torch.uint8) for step in path], dim=1)
        readings = torch.stack([oracle(step).argmax(1) for step in path], dim=1)
    return pictures.cpu().numpy(), readings.cpu().numpy()


def draw(
    ce: str,
    ice: str,
    oracle: str,
    out: Path,
    *,
    data: str | None,
    rows: int,
    steps: int,
    seed: int,
    data_root: Path | None = None,
) -> str:
    """Write the figure and its data; return a Markdown table of the classes that the oracle assigns at the ends of the rows.

    Raises:
        UsageError: if a model does not exist, is not invertible, or does not take images of the same classes.
    """
    check_png(out)
    independent = open_model(oracle, "cpu").classifier
    opened = [open_model(model, "cpu") for model in (ce, ice)]
    chosen = open_data(opened[0], data, data_root)
    labels, names = chosen.test.labels, chosen.class_names
    pairs = pairs_by_class(labels, rows, seed)
    arrays: dict[str, NDArray[np.generic]] = {"first": pairs[0].numpy(), "second": pairs[1].numpy()}
    lines = [
        "| trained with | the oracle assigns the logits' class | it assigns the class of the nuisances' donor |",
        "|---|---|---|",
    ]
    drawn = []
    own, donor = labels[pairs[0]].numpy(), labels[pairs[1]].numpy()
    for name, model in zip(("CE", "iCE"), opened, strict=True):
        clf = require_invertible(model.classifier, name)
        pictures, readings = interpolations(clf, ready_oracle(independent, clf), chosen, pairs, steps, seed)
        arrays |= {f"{name}.pictures": pictures, f"{name}.readings": readings}
        for row in range(rows):
            captions = [(names[reading], INK if reading == own[row] else WRONG) for reading in readings[row].tolist()]
            title = f"{name}: {names[own[row]]} to {names[donor[row]]}"
            drawn.append(PictureRow(title, pictures[row], captions))
        end = readings[:, -1]
        lines.append(f"| {name} | {int((end == own).sum())} of {rows} | {int((end == donor).sum())} of {rows} |")
    columns = [f"{round(100 * step / (steps - 1))} %" for step in range(steps)]
    save_figure(picture_grid(drawn, columns=columns), out, arrays)
    return "\n".join(lines)
