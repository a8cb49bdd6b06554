"""What figures have in common: colours, layout, and saving, without pyplot's global state or a display."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from flowclf.errors import UsageError
from flowclf.evaluation import Arrays
from flowclf.files import atomic_write, write_json

DPI = 150
INK = "#22262b"
MUTED = "#6b7280"
WRONG = "#b3261e"
BLUE = "#1f6fb2"
ORANGE = "#c8641b"
PURPLE = "#7a4fa3"


@dataclass(frozen=True)
class FigureFile:
    """A figure on disk.

    Attributes:
        path: path of the PNG; its data are beside it under the same name, as .npz or .json.
        title: a few words.
        caption: how to read it, in full sentences.
    """

    path: Path
    title: str
    caption: str


def save_figure(figure: Figure, path: Path, data: Arrays | Sequence[Mapping[str, Any]]) -> None:
    """Write a figure as PNG and its data beside it: arrays as .npz, rows as .json; each atomically.

    Raises:
        UsageError: if an array contains Python objects, which only a pickle could store.
    """
    if isinstance(data, Sequence):
        write_json(path.with_suffix(".json"), [dict(row) for row in data])
    else:
        save_arrays(data, path.with_suffix(".npz"))
    with atomic_write(path) as temporary, warnings.catch_warnings():
        FigureCanvasAgg(figure)
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(temporary, format="png", dpi=DPI, facecolor="white")


def save_arrays(arrays: Arrays, path: Path) -> None:
    """Write arrays as .npz, atomically.

    Raises:
        UsageError: if an array contains Python objects, which only a pickle could store.
    """
    if pickled := sorted(name for name, array in arrays.items() if array.dtype.hasobject):
        raise UsageError(f"figure {path.stem}: expected arrays of numbers or text, found objects in {pickled}")
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches, whose parts do not overlap."""
    return Figure(figsize=(width, height), dpi=DPI, layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))


def tidy(axis: Axes) -> None:
    """Fewer lines, smaller text."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(MUTED)
    axis.tick_params(labelsize=8, colors=INK)
    axis.grid(axis="y", color="#e5e7eb", linewidth=0.6)
    axis.set_axisbelow(True)
    for text in (axis.xaxis.label, axis.yaxis.label, axis.title):
        text.set_fontsize(9)


def short(name: str) -> str:
    """The name of a class in at most 12 characters, in which a $ begins no formula."""
    return (name if len(name) <= 12 else f"{name[:11]}…").replace("$", r"\$")
