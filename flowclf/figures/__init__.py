"""Figures of an evaluation and of training, each a PNG with its data beside it."""

from __future__ import annotations

from flowclf.figures.charts import calibration_diagram, training_curves
from flowclf.figures.grids import PictureRow, interpolation_grid, metamer_grid, picture_grid, sample_grid
from flowclf.figures.planes import plane_panels
from flowclf.figures.style import FigureFile, save_arrays, save_figure
from flowclf.figures.writing import write_figures

__all__ = [
    "FigureFile",
    "PictureRow",
    "calibration_diagram",
    "interpolation_grid",
    "metamer_grid",
    "picture_grid",
    "plane_panels",
    "sample_grid",
    "save_arrays",
    "save_figure",
    "training_curves",
    "write_figures",
]
