"""``flowclf metamers``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flowclf.cli.options import DEVICE, MODEL, Device, check_exists, check_model

__all__ = ["metamers"]


def metamers(
    model: MODEL,
    logits_of: Annotated[Path | None, typer.Option("--logits-of", metavar="IMAGE", help="Image whose logits are kept.")] = None,
    nuisance_of: Annotated[
        Path | None, typer.Option("--nuisance-of", metavar="IMAGE", help="Image whose nuisances are taken.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="FILE.png", help="Picture to write.")] = Path("metamers.png"),
    device: DEVICE = Device.auto,
) -> None:
    """Draw metamers.

    Images with the logits of one image and the nuisances of another: of two given images, or a grid of test images.
    """
    from flowclf.cli.output import print_results

    check_model(model)
    check_exists(*(path for path in (logits_of, nuisance_of) if path is not None))
    import flowclf.run

    print_results(flowclf.run.metamers(model, logits_of, nuisance_of, out, device.value))
