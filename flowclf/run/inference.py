"""Evaluate finished models, and draw their decision regions in planes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flowclf.classifier import Classifier, require_invertible
from flowclf.data import Oracle
from flowclf.errors import UsageError
from flowclf.evaluation import MetricContext, evaluate, nuisance_probe
from flowclf.evaluation.planes import plane_arrays
from flowclf.figures import plane_panels, save_figure
from flowclf.run.opening import check_png, open_data, open_model, open_oracle, open_test_data
from flowclf.settings import ProbeSettings
from flowclf.training import Progress


def evaluate_model(
    model: str,
    data: str | None = None,
    protocol: str = "quick",
    device: str = "auto",
    progress: Progress | None = None,
    oracle: str | None = None,
    data_root: Path | None = None,
    *,
    limit: int | None = None,
    all_test: bool = False,
    probes: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Evaluate a model; returns the flat results, as in ``results.json``.

    Args:
        model: a run directory, a checkpoint folder, or the name of a zoo model.
        data: name of a data set, a folder of images, or an ``.npz`` file; by default the data of the model's recipe.
        protocol: quick or full.
        device: auto, cpu or cuda.
        progress: receives progress updates.
        oracle: classifier that labels the metamers, specified like ``model``; by default the one in the model's recipe.
        data_root: folder or file of the data of the model's recipe, if they are not where they were.
        limit: number of test examples to use, with the same fraction of the other data; by default all.
        all_test: whether all of ``data``, a folder with one folder per class, is test data. The results that need training data
            are then left out.
        probes: kinds of probes to train; by default those of the model's recipe, or of the protocol.

    Raises:
        UsageError: if the model, data or oracle does not exist, or they do not fit together; or if ``all_test`` is given without
            a folder.
    """
    if all_test and (data is None or not Path(data).is_dir()):
        raise UsageError(f"--all-test: expected --data with a folder of images, found {data or 'no --data'}")
    opened = open_model(model, device)
    recipe = opened.recipe
    chosen: Oracle | Classifier | None = None
    if oracle is not None:
        chosen = open_model(oracle, device).classifier
    elif recipe is not None:
        try:
            chosen = open_oracle(recipe, opened.classifier)
        except UsageError as error:
            # The recipe may come from another machine, whose run directories are not here.
            raise UsageError(f"{error}; --oracle names another") from error
    settings = recipe.evaluate.probe if recipe else ProbeSettings()
    return evaluate(
        opened.classifier,
        (open_test_data(opened, str(data)) if all_test else open_data(opened, data, data_root)).to(opened.classifier.device),
        protocol=protocol,
        seed=recipe.seed if recipe else 0,
        oracle=chosen,
        probe=settings if probes is None else settings.model_copy(update={"kinds": list(probes)}),
        limit=limit,
        progress=progress,
    )


def planes(
    model: str,
    data: str | None = None,
    out: Path = Path("planes.png"),
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
    data_root: Path | None = None,
) -> dict[str, Any]:
    """Draw decision regions in the plane of two test inputs and in that of an input and its metamer (paper, Figure 3).

    A probe with the settings of the model's recipe is trained on the nuisances first.

    Args:
        model, data, device, progress, data_root: as for :func:`evaluate_model`, which documents the errors too.
        out: PNG file to write, with its data beside it as ``.npz``.
        seed: random seed for the pair of inputs; the probe uses the recipe's seed.

    Returns:
        ``file``, ``probe.validation_error``, and the numbers of :func:`flowclf.evaluation.planes.plane_arrays`.
    """
    check_png(out)
    opened = open_model(model, device)
    classifier, recipe = require_invertible(opened.classifier, "planes"), opened.recipe
    chosen = open_data(opened, data, data_root).to(classifier.device)
    own_seed, settings = (recipe.seed, recipe.evaluate.probe) if recipe else (0, None)
    probe = nuisance_probe(classifier, chosen, seed=own_seed, probe=settings, progress=progress)
    x, labels = MetricContext(classifier, chosen, seed=own_seed).test_sample
    arrays, numbers = plane_arrays(classifier, x, labels, probe=probe, oracle=chosen.oracle, seed=seed)
    save_figure(plane_panels(arrays, classifier.class_names), out, arrays)
    return {"file": str(out), "probe.validation_error": probe.validation.error, **numbers}
