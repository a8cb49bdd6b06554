"""``flowclf evaluate``."""

from __future__ import annotations

from typing import Annotated

import typer

from flowclf.cli.options import DATA, DATA_ROOT, DEVICE, JSON, MODEL, Device, Protocol, check_model


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
    data_root: DATA_ROOT = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", min=1, help="Use N test examples, and the same fraction of the other data."),
    ] = None,
    all_test: Annotated[
        bool, typer.Option("--all-test", help="All images of the folder --data are test images; probes, which train, are left out.")
    ] = False,
    probes: Annotated[
        str | None,
        typer.Option("--probes", metavar="KIND,...", help="Kinds of probes to train, e.g. mlp,conv. Default: the protocol's."),
    ] = None,
    device: DEVICE = Device.auto,
    as_json: JSON = False,
) -> None:
    """Evaluate a model.

    Measures classification errors, bits per dimension, the errors of probes trained on the nuisances, metamers and inverse errors.
    For mnist-best this takes about 6 minutes on one core with AVX2, and about 90 seconds with --limit 2000; several times as long
    under the full protocol, whose probes grow. How long it will take is announced soon after the start.
    """
    from flowclf.cli.expectations import say_time_of_evaluation
    from flowclf.cli.output import print_results
    from flowclf.cli.progress import showing_progress

    for name in (model, oracle):
        if name is not None:
            check_model(name)
    say_time_of_evaluation(model)
    import flowclf.run

    with showing_progress() as progress:
        results = flowclf.run.evaluate_model(
            model,
            data,
            protocol.value,
            device.value,
            progress,
            oracle,
            data_root,
            limit=limit,
            all_test=all_test,
            probes=None if probes is None else [name.strip() for name in probes.split(",")],
        )
    print_results(results, as_json)
