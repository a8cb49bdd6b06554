"""``flowclf planes`` and ``example6``: the paper's analytic case, in a picture and in numbers.

Torch is imported when a command runs, not before.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flowclf.cli.models import DATA, MODEL, check_model
from flowclf.cli.options import DEVICE, JSON, Device

__all__ = ["example6", "planes"]


def planes(
    model: Annotated[str, MODEL],
    data: Annotated[str | None, DATA] = None,
    out: Annotated[Path, typer.Option("--out", metavar="FILE.png", help="Picture to write; its data lie beside it.")] = Path(
        "planes.png"
    ),
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the pair of inputs.")] = 0,
    device: DEVICE = Device.auto,
    as_json: JSON = False,
) -> None:
    """Draw decision boundaries.

    Two planes, that of two test inputs and that of one and its metamer, as the classifier and as a probe of its nuisances see them.
    """
    from flowclf.cli.output import print_json, print_results
    from flowclf.cli.progress import showing_progress

    check_model(model)
    import flowclf.run

    with showing_progress() as progress:
        results = flowclf.run.planes(model, data, out, seed, device.value, progress)
    if as_json:
        print_json(results)
    else:
        print_results(results)


def example6(
    dimension: Annotated[int, typer.Option("--dimension", min=2, help="Of the spheres' space.")] = 100,
    points: Annotated[int, typer.Option("--points", min=2, help="How many, half on each sphere.")] = 200_000,
    inner: Annotated[float, typer.Option("--inner", help="Radius of the inner sphere.")] = 1.0,
    outer: Annotated[float, typer.Option("--outer", help="Radius of the outer sphere.")] = 10.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the points.")] = 0,
    as_json: JSON = False,
) -> None:
    """Measure a blind classifier.

    It reads the norm of all coordinates but the last: its error on two spheres, and after a shift that it does not see, each beside
    what geometry predicts.
    """
    from flowclf.cli.output import print_json, print_results
    from flowclf.example6 import example6

    results = example6(dimension=dimension, points=points, inner=inner, outer=outer, seed=seed)
    if as_json:
        print_json(results)
    else:
        print_results(results)
