"""``flowclf evaluate``."""

from __future__ import annotations

from typing import Annotated

import typer

from flowclf.cli.options import DATA, DEVICE, JSON, MODEL, Device, Protocol, check_model


def evaluate(
    model: MODEL,
    data: Annotated[str | None, DATA("Data set to evaluate on. Default: the data that the model was trained on.")] = None,
    protocol: Annotated[
        Protocol, typer.Option("--protocol", help="Evaluation protocol: quick trains one probe, full four kinds, at several sizes.")
    ] = Protocol.quick,
    oracle: Annotated[
        str | None,
        typer.Option("--oracle", metavar="MODEL", help="Classifier that labels metamers. Default: that of MODEL's recipe."),
    ] = None,
    device: DEVICE = Device.auto,
    as_json: JSON = False,
) -> None:
    """Evaluate a model.

    Measures classification errors, bits per dimension, the errors of probes trained on the nuisances, metamers and inverse errors.
    """
    from flowclf.cli.output import print_results
    from flowclf.cli.progress import showing_progress

    for name in (model, oracle):
        if name is not None:
            check_model(name)
    import flowclf.run

    with showing_progress() as progress:
        results = flowclf.run.evaluate_model(model, data, protocol.value, device.value, progress, oracle)
    print_results(results, as_json)
