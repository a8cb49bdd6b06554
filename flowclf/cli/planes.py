"""``flowclf planes``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flowclf.cli.options import DATA, DATA_ROOT, DEVICE, FIGURE, JSON, MODEL, Device, check_model


def planes(
    model: MODEL,
    data: Annotated[str | None, DATA("Data set whose inputs span the planes. Default: the data set of MODEL.")] = None,
    out: FIGURE = Path("planes.png"),
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Random seed for the pair of inputs.")] = 0,
    data_root: DATA_ROOT = None,
    device: DEVICE = Device.auto,
    as_json: JSON = False,
) -> None:
    """Draw decision boundaries in two planes (Figure 3 of the paper).

    One plane is spanned by two test inputs, the other by an input and its metamer. Both show the boundaries of the classifier and
    those of a probe trained on its nuisances.
    """
    from flowclf.cli.output import print_results
    from flowclf.cli.progress import showing_progress

    check_model(model)
    import flowclf.run

    with showing_progress() as progress:
        results = flowclf.run.planes(model, data, out, seed, device.value, progress, data_root)
    print_results(results, as_json)
