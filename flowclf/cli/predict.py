"""``flowclf predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flowclf.cli.options import DEVICE, JSON, MODEL, Device, check_files, check_model

_COLUMNS = ("file", "class", "probability", "log_likelihood_nats", "bits_per_dim")


def predict(
    model: MODEL,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", help="Image files in any common format.")],
    device: DEVICE = Device.auto,
    as_json: JSON = False,
) -> None:
    """Classify images.

    Prints the class of each image, its probability and, for an invertible classifier, the log-likelihood in nats and bits per
    dimension. With --json also the probabilities of all classes, and whether the image is unusual: its bits per dimension are far
    above those of the data that the model was trained on, which is also a warning. An image of another size than the network's is
    first scaled and cropped at its centre; the likelihood is that of the cropped image.
    """
    from flowclf.cli.output import print_json, print_table

    check_model(model)
    check_files(*images)
    import flowclf.run

    rows = flowclf.run.predict(model, images, device.value)
    if as_json:
        print_json(rows)
        return
    columns = [column for column in _COLUMNS if rows and column in rows[0]]
    print_table(columns, [[row[column] for column in columns] for row in rows])
