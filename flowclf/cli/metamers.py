"""``flowclf metamers``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flowclf.cli.options import DEVICE, FIGURE, MODEL, Device, check_exists, check_model


def metamers(
    model: MODEL,
    logits_of: Annotated[Path | None, typer.Option("--logits-of", metavar="IMAGE", help="Image that provides the logits.")] = None,
    nuisance_of: Annotated[
        Path | None, typer.Option("--nuisance-of", metavar="IMAGE", help="Image that provides the nuisances.")
    ] = None,
    out: FIGURE = Path("metamers.png"),
    device: DEVICE = Device.auto,
) -> None:
    """Draw metamers.

    A metamer is an image with the logits of one image and the nuisances (all other outputs) of another. Give two images for one
    metamer, or none for a grid of metamers of test images.
    """
    from flowclf.cli.output import print_results

    check_model(model)
    check_exists(*(path for path in (logits_of, nuisance_of) if path is not None))
    import flowclf.run

    print_results(flowclf.run.metamers(model, logits_of, nuisance_of, out, device.value))
