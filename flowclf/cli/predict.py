"""``flowclf predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flowclf.cli.options import DEVICE, MODEL, Device, check_exists, check_model


def predict(
    model: MODEL,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", help="Image files in any common format.")],
    device: DEVICE = Device.auto,
) -> None:
    """Classify images.

    Prints the class of each image, its probability and, for an invertible classifier, the log-likelihood in nats and bits per
    dimension. An image of another size than the network's is first scaled and cropped at its centre; the likelihood is that of the
    cropped image.
    """
    from flowclf.cli.output import print_table

    check_model(model)
    check_exists(*images)
    import flowclf.run

    rows = flowclf.run.predict(model, images, device.value)
    columns = list(rows[0]) if rows else []
    print_table(columns, [[row[column] for column in columns] for row in rows])
