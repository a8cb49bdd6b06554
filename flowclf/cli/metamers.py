"""``flowclf metamers``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flowclf.cli.options import DATA, DATA_ROOT, DEVICE, FIGURE, JSON, MODEL, Device, check_files, check_model


def metamers(
    model: MODEL,
    logits_of: Annotated[Path | None, typer.Option("--logits-of", metavar="IMAGE", help="Image that provides the logits.")] = None,
    nuisance_of: Annotated[
        Path | None, typer.Option("--nuisance-of", metavar="IMAGE", help="Image that provides the nuisances.")
    ] = None,
    data: Annotated[str | None, DATA("Data set whose test images are used. Default: the data set of MODEL.")] = None,
    data_root: DATA_ROOT = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Random seed for the pairs of test images.")] = 0,
    out: FIGURE = Path("metamers.png"),
    bare: Annotated[
        bool,
        typer.Option("--bare", help="Write only the metamers, each in a file of its own, as large as the network's images."),
    ] = False,
    device: DEVICE = Device.auto,
    as_json: JSON = False,
) -> None:
    """Draw metamers.

    A metamer is an image with the logits of one image and the nuisances (all other outputs) of another. Give two images for one
    metamer, or none for a grid of metamers of test images. The .npz file beside the figure has the images in float32 too, as
    computed, clipped and rounded to 8 bits, with their logits.
    """
    from flowclf.cli.output import print_results

    check_model(model)
    check_files(*(path for path in (logits_of, nuisance_of) if path is not None))
    import flowclf.run

    results = flowclf.run.metamers(
        model, logits_of, nuisance_of, out, device.value, data=data, data_root=data_root, seed=seed, bare=bare
    )
    lists = () if as_json else ("files", "metamers")
    print_results({key: value for key, value in results.items() if key not in lists}, as_json)
