"""Pictures in rows: metamers, interpolations, samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from flowclf.evaluation import Arrays
from flowclf.figures.style import DPI, INK, WRONG, short

_GAP, _CAPTION, _LINE, _MARGIN = 8, 28, 21, 14
"""Pixels of the PNG: between pictures, for a line of text, for each further line, around everything."""

_NARROW, _WIDE = 5.5, 10.5
"""Pixels of the PNG that a character of a caption takes, or less: a narrow one, such as a space, and any other."""


@dataclass(frozen=True)
class PictureRow:
    """A row of pictures in a grid: its name, the pictures (P, C, H, W), uint8, and a caption and its colour for each."""

    name: str
    pictures: NDArray[np.uint8]
    captions: Sequence[tuple[str, str]] = ()


def metamer_grid(arrays: Arrays, class_names: Sequence[str]) -> Figure:
    """Metamers between their donors (paper, Figure 4).

    The arrays are those of :func:`flowclf.evaluation.metamer_pictures`, with the donors' classes ``logits_of_label`` and
    ``nuisance_of_label``, if known.
    """
    kept = [
        (f"reads {short(class_names[got])}", INK if got == wanted else WRONG)
        for got, wanted in zip(arrays["metamer_prediction"], arrays["logits_of_prediction"], strict=True)
    ]
    return picture_grid(
        [
            PictureRow("logits from", arrays["logits_of"], _donors(arrays, "logits_of", class_names)),
            PictureRow("metamer", arrays["metamer"], kept),
            PictureRow("nuisances from", arrays["nuisance_of"], _donors(arrays, "nuisance_of", class_names)),
        ]
    )


def interpolation_grid(arrays: Arrays, class_names: Sequence[str]) -> Figure:
    """From an image to its metamer with the nuisances of another, down each column (paper, Figure 6).

    The arrays are ``steps`` (T, P, C, H, W), the original first, and ``target`` (P, C, H, W), with the labels (P,) of both,
    ``logits_of_label`` and ``nuisance_of_label``.
    """
    original, *between, metamer = arrays["steps"]
    return picture_grid(
        [
            PictureRow("original", original, _donors(arrays, "logits_of", class_names)),
            *(PictureRow(f"{round(100 * i / (len(between) + 1))} %", row) for i, row in enumerate(between, start=1)),
            PictureRow("metamer", metamer),
            PictureRow("target", arrays["target"], _donors(arrays, "nuisance_of", class_names)),
        ]
    )


def sample_grid(arrays: Arrays, class_names: Sequence[str]) -> Figure:
    """Samples (K, n, C, H, W) from the prior through the inverse, one class per row."""
    return picture_grid([PictureRow(short(class_names[label]), row) for label, row in enumerate(arrays["samples"])], cell=84)


def picture_grid(rows: Sequence[PictureRow], *, cell: int = 112, columns: Sequence[str] = ()) -> Figure:
    """Pictures in rows, each row with its name on the left.

    Args:
        rows: at least one, all with the same number of pictures of the same size.
        cell: approximate size of a picture in pixels of the figure; each pixel of the picture becomes a whole number of them.
        columns: names of the columns, above the first row.
    """
    count, _, height, width = rows[0].pictures.shape
    scale = max(1, round(cell / max(height, width)))
    cell_width, cell_height = scale * width, scale * height
    names = 12 + 11 * max(len(row.name) for row in rows)
    total_width = 2 * _MARGIN + names + count * (cell_width + _GAP)
    head = _CAPTION if columns else 0
    captions = [[(_wrapped(text, cell_width), colour) for text, colour in row.captions] for row in rows]
    below = [_CAPTION + _LINE * max(text.count("\n") for text, _ in texts) if texts else _GAP for texts in captions]
    total_height = 2 * _MARGIN + head + sum(below) + len(rows) * cell_height
    figure = Figure(figsize=(total_width / DPI, total_height / DPI), dpi=DPI)
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set_axis_off()
    top = float(_MARGIN + head)
    for column, text in enumerate(columns):
        middle = _MARGIN + names + column * (cell_width + _GAP) + cell_width / 2
        axis.text(middle, top - 6, text, ha="center", va="bottom", fontsize=8, color=INK)
    for row, texts, space in zip(rows, captions, below, strict=True):
        axis.text(_MARGIN + names - 12, top + cell_height / 2, row.name, ha="right", va="center", fontsize=9, color=INK)
        for column, picture in enumerate(row.pictures):
            left = _MARGIN + names + column * (cell_width + _GAP)
            extent = (left, left + cell_width, top + cell_height, top)
            shown = picture[0] if len(picture) == 1 else picture.transpose(1, 2, 0)
            axis.imshow(shown, cmap="gray", vmin=0, vmax=255, interpolation="nearest", extent=extent)
            if texts:
                text, colour = texts[column]
                middle = left + cell_width / 2
                axis.text(middle, top + cell_height + 3, text, ha="center", va="top", fontsize=8, color=colour)
        top += cell_height + space
    axis.set(xlim=(0, total_width), ylim=(total_height, 0))
    return figure


def _wrapped(text: str, width: int) -> str:
    """A caption in lines that are no wider than a picture; a word is not divided."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and sum(_NARROW if character in " ,.:;'!|ijl" else _WIDE for character in longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines)


def _donors(arrays: Arrays, name: str, class_names: Sequence[str]) -> list[tuple[str, str]]:
    """Captions of donors: their labels, with the predictions that differ; one of the two may be unknown."""
    known = [arrays[key] for key in (f"{name}_label", f"{name}_prediction") if key in arrays]
    captions = []
    for label, predicted in zip(known[0], known[-1], strict=True):
        text = short(class_names[label])
        captions.append((text, INK) if label == predicted else (f"{text}, read as {short(class_names[predicted])}", WRONG))
    return captions
