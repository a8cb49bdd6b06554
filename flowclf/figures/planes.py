"""Decision regions in planes of the input space (paper, Figure 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Patch

from flowclf.evaluation import Arrays
from flowclf.evaluation.planes import disagreement
from flowclf.figures.style import BLUE, INK, MUTED, ORANGE, PURPLE, new_figure, short

_SOURCES = {"classifier": "classifier on the logits", "probe": "probe of the nuisances"}
_PLANES = {"pair": ("plane of two data points", ("$x_1$", "$x_2$")), "metamer": ("plane of x and its metamer", ("x", "$x_{met}$"))}
_PALENESS = 0.72


def plane_panels(arrays: Arrays, class_names: Sequence[str]) -> Figure:
    """Four panels: the classifier above, the probe of its nuisances below; left the plane of two points, right that of x and x_met.

    The arrays are those of :func:`flowclf.evaluation.planes.plane_arrays`. Colours are decisions; hatching marks where they differ
    from the oracle's, whose boundary is dashed.
    """
    colours = _colours(len(class_names))
    figure = new_figure(8.6, 9.4)
    axes = figure.subplots(len(_SOURCES), len(_PLANES))
    for row, source in zip(axes, _SOURCES, strict=True):
        for axis, plane in zip(row, _PLANES, strict=True):
            part = {key.removeprefix(f"{plane}."): array for key, array in arrays.items() if key.startswith(f"{plane}.")}
            _panel(axis, part, source, colours)
            title = f"{_SOURCES[source]}, {_PLANES[plane][0]}"
            if "oracle" in part:
                title += f"\nunlike the oracle on {100 * disagreement(part[source], part['oracle']):.0f} % of the area"
            axis.set_title(title, fontsize=9, color=INK)
            if plane == "metamer":
                axis.plot(*arrays["path.points"].T, color=PURPLE, linewidth=1.2, linestyle=(0, (4, 2)), zorder=4)
            _mark(axis, part, _PLANES[plane][1], class_names)
    figure.legend(handles=_legend(arrays, colours, class_names), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


def _panel(axis: Axes, part: Arrays, source: str, colours: Sequence[str]) -> None:
    edge = float(part["axis"][-1])
    pale = ListedColormap([tuple(1 - (1 - value) * (1 - _PALENESS) for value in to_rgb(colour)) for colour in colours])
    decision = part[source].argmax(-1)
    extent = (-edge, edge, -edge, edge)
    axis.imshow(decision, extent=extent, origin="lower", cmap=pale, vmin=-0.5, vmax=len(colours) - 0.5, interpolation="nearest")
    _boundaries(axis, part, source, "solid")
    if "oracle" in part:
        wrong = (decision != part["oracle"].argmax(-1)).astype(float)
        if wrong.any():
            hatching = axis.contourf(part["axis"], part["axis"], wrong, levels=(0.5, 1.5), colors="none", hatches=["////"])
            hatching.set_edgecolor(MUTED)
            hatching.set_linewidth(0)
        _boundaries(axis, part, "oracle", "dashed")
    for number, (u, v, radius) in enumerate(part["circles"]):
        axis.add_patch(Circle((u, v), radius, fill=False, edgecolor=colours[number % len(colours)], linewidth=1.4, zorder=3))
    axis.set(xlim=(-edge, edge), ylim=(-edge, edge), aspect="equal")
    axis.tick_params(labelsize=8, colors=INK)
    axis.spines[:].set_color(MUTED)


def _boundaries(axis: Axes, part: Arrays, source: str, style: str) -> None:
    classes = part[source].shape[-1]
    # Two classes have one boundary, not two.
    for label in range(1 if classes == 2 else classes):
        lead = part[source][..., label] - np.delete(part[source], label, axis=-1).max(-1)
        if lead.min() < 0 < lead.max():
            axis.contour(part["axis"], part["axis"], lead, levels=[0.0], colors=[INK], linewidths=1.1, linestyles=style)


def _mark(axis: Axes, part: Arrays, names: Sequence[str], class_names: Sequence[str]) -> None:
    edge = float(part["axis"][-1])
    for (u, v), name, label in zip(part["points"], names, part["points_label"], strict=True):
        axis.plot(u, v, "o", color=INK, markersize=5, markeredgecolor="white", zorder=5)
        text = name if label < 0 else f"{name} ({short(class_names[label])})"
        left = u > 0.35 * edge
        place: dict[str, Any] = {"xytext": (-6 if left else 6, 5), "textcoords": "offset points", "ha": "right" if left else "left"}
        box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.75}
        axis.annotate(text, (u, v), **place, fontsize=8, color=INK, bbox=box, zorder=6)


def _legend(arrays: Arrays, colours: Sequence[str], class_names: Sequence[str]) -> list[Patch | Line2D]:
    names = [(short(name), colour) for name, colour in zip(class_names, colours, strict=True)]
    handles: list[Patch | Line2D] = [Patch(fc=colour, alpha=1 - _PALENESS, label=f"decides {name}") for name, colour in names[:10]]
    handles.append(Line2D([], [], color=INK, linewidth=1.1, label="its boundary"))
    if "pair.oracle" in arrays:
        handles.append(Line2D([], [], color=INK, linewidth=1.1, linestyle="dashed", label="the oracle's boundary"))
        handles.append(Patch(facecolor="none", edgecolor=MUTED, hatch="////", linewidth=0, label="unlike the oracle"))
    if len(arrays["pair.circles"]):
        handles += [Line2D([], [], color=colour, linewidth=1.4, label=f"where {name} lies") for name, colour in names]
    handles.append(Line2D([], [], color=PURPLE, linewidth=1.2, linestyle="dashed", label="latent path, projected"))
    return handles


def _colours(classes: int) -> list[str]:
    if classes == 2:
        return [BLUE, ORANGE]
    return [to_hex(colormaps["tab20"](label % 20)) for label in range(classes)]
