"""``flowclf paper`` (Table 2, Figure 6, variation between seeds) and ``flowclf example6``.

Torch is imported only by commands that need it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flowclf.cli.options import DATA, DATA_ROOT, FIGURE, JSON

app = typer.Typer(help="Reproduce results of the paper (arXiv:1811.00401).", no_args_is_help=True, rich_markup_mode=None)

RESULTS = "a run directory, or a file that `flowclf evaluate --json` printed"


@app.command()
def table2(
    ce: Annotated[str, typer.Argument(metavar="CE-RUN", help=f"Run with cross-entropy: {RESULTS}.")],
    ice: Annotated[str, typer.Argument(metavar="ICE-RUN", help="Run with independence cross-entropy, likewise.")],
) -> None:
    """Print Table 2: two runs beside the paper's results, in Markdown."""
    from flowclf.paper.table2 import table
    from flowclf.recipe.results import read_results

    print(table(read_results(ce), read_results(ice)))


@app.command()
def figure6(
    ce: Annotated[str, typer.Argument(metavar="CE-MODEL", help="A model trained with cross-entropy.")],
    ice: Annotated[str, typer.Argument(metavar="ICE-MODEL", help="A model trained with independence cross-entropy.")],
    oracle: Annotated[str, typer.Option("--oracle", metavar="MODEL", help="Independent classifier that labels every image.")],
    out: FIGURE = Path("figure6.png"),
    data: Annotated[str | None, DATA("Data set whose test images are used. Default: the data set of CE-MODEL.")] = None,
    data_root: DATA_ROOT = None,
    rows: Annotated[int, typer.Option(metavar="N", min=1, help="Pairs of images per model.")] = 5,
    steps: Annotated[int, typer.Option(metavar="N", min=2, help="Images per row.")] = 7,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Random seed for the pairs and the dequantisation noise.")] = 0,
) -> None:
    """Draw Figure 6: nuisances interpolated at fixed logits.

    Along each row the nuisances move from those of one test image to those of another, and the logits stay. Prints, in Markdown,
    how often the oracle labels the end of a row with the class of the logits. Takes a few seconds.
    """
    from flowclf.paper.figure6 import draw

    print(draw(ce, ice, oracle, out, data=data, rows=rows, steps=steps, seed=seed, data_root=data_root))


@app.command()
def seeds(
    runs: Annotated[list[str], typer.Argument(metavar="RUN", help=f"Runs of one recipe with different seeds; each {RESULTS}.")],
) -> None:
    """Print how a recipe's results vary between seeds.

    The table, in Markdown, has the mean and a 95 % prediction interval for another seed.
    """
    from flowclf.paper.seeds import table
    from flowclf.recipe.results import read_results

    print(table([read_results(run) for run in runs]))


def example6(
    dimension: Annotated[int, typer.Option(metavar="N", min=2, help="Dimension of the space.")] = 100,
    points: Annotated[int, typer.Option(metavar="N", min=2, help="Even number of points, half of them per sphere.")] = 200_000,
    inner: Annotated[float, typer.Option(metavar="RADIUS", help="Radius of the inner sphere.")] = 1.0,
    outer: Annotated[float, typer.Option(metavar="RADIUS", help="Radius of the outer sphere.")] = 10.0,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Random seed for the points.")] = 0,
    as_json: JSON = False,
) -> None:
    """Measure a classifier that ignores one coordinate (Example 6).

    The classifier uses the norm of all coordinates but the last. Prints its error on two spheres, before and after a shift along
    the ignored coordinate, beside the closed form. Takes a few seconds per million points.
    """
    from flowclf.cli.output import print_results
    from flowclf.paper.example6 import example6

    results = example6(dimension=dimension, points=points, inner=inner, outer=outer, seed=seed)
    print_results(results, as_json)
