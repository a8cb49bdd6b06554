"""``flowclf evaluate``, ``predict`` and ``metamers``: commands on a trained model.

MODEL is a zoo name, a run directory or a checkpoint. Torch is imported when a command runs, not before.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flowclf.cli.options import DEVICE, JSON, Device, Protocol
from flowclf.errors import UsageError

__all__ = ["DATA", "MODEL", "check_exists", "check_model", "evaluate", "metamers", "predict"]

MODEL = typer.Argument(metavar="MODEL", help="A run directory, a checkpoint, or the name of a zoo model.")
DATA = typer.Option("--data", metavar="NAME-or-path", help="Data to judge it on; by default those of its recipe.")


def evaluate(
    model: Annotated[str, MODEL],
    data: Annotated[str | None, DATA] = None,
    protocol: Annotated[Protocol, typer.Option("--protocol", help="How much to measure.")] = Protocol.quick,
    oracle: Annotated[
        str | None, typer.Option("--oracle", metavar="MODEL", help="Who judges the metamers; by default as its recipe says.")
    ] = None,
    device: DEVICE = Device.auto,
    as_json: JSON = False,
) -> None:
    """Judge a model.

    Errors, bits per dimension, probes of the nuisances, metamers, inverse errors.
    """
    from flowclf.cli.output import print_json, print_results
    from flowclf.cli.progress import showing_progress

    check_model(model)
    if oracle is not None:
        check_model(oracle)
    import flowclf.run

    with showing_progress() as progress:
        results = flowclf.run.evaluate_model(model, data, protocol.value, device.value, progress, oracle)
    if as_json:
        print_json(results)
    else:
        print_results(results)


def predict(
    model: Annotated[str, MODEL],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files of any common format.")],
    device: DEVICE = Device.auto,
) -> None:
    """Classify images.

    The class, its probability and the log-likelihood (nats) of each. An image of another size than the network's is scaled and
    cropped at its centre first; its likelihood is that of what remains.
    """
    from flowclf.cli.output import print_table

    check_model(model)
    check_exists(*images)
    import flowclf.run

    rows = flowclf.run.predict(model, images, device.value)
    columns = list(rows[0]) if rows else []
    print_table(columns, [[row[column] for column in columns] for row in rows])


def metamers(
    model: Annotated[str, MODEL],
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


def check_exists(*paths: str | Path) -> None:
    """Raise UsageError, before anything heavy is imported, for a path that is not there."""
    for path in paths:
        if not _exists(path):
            raise UsageError(f"there is no file or directory {path}")


def check_model(model: str) -> None:
    """Raise UsageError, before anything heavy is imported, for a MODEL that is neither a path nor the name of a zoo model."""
    if _exists(model):
        return
    from flowclf import zoo

    try:
        zoo.info(model)
    except UsageError as error:
        raise UsageError(f"there is no file or directory {model}, and {error}") from error


def _exists(path: str | Path) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False
