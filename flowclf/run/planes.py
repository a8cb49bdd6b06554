"""Figure 3 of the paper for a finished model: decision regions of the classifier and of a probe in two planes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flowclf.classifier import require_invertible
from flowclf.evaluation import MetricContext, nuisance_probe
from flowclf.evaluation.planes import plane_arrays
from flowclf.figures import plane_panels, save_figure
from flowclf.run.opening import check_png, open_data, open_model
from flowclf.training import Progress


def planes(
    model: str,
    data: str | None = None,
    out: Path = Path("planes.png"),
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Draw decision regions in the plane of two test inputs and in the plane of an input and its metamer.

    A probe with the settings of the model's recipe is trained on the nuisances first.

    Args:
        model, data, device, progress: as for :func:`flowclf.run.evaluate_model`, which documents the errors too.
        out: PNG file to write, with its data beside it as ``.npz``.
        seed: random seed for the pair of inputs; the probe uses the recipe's seed.

    Returns:
        ``file``, ``probe.validation_error``, and the numbers of :func:`flowclf.evaluation.planes.plane_arrays`.
    """
    check_png(out)
    opened = open_model(model, device)
    classifier, recipe = require_invertible(opened.classifier, "planes"), opened.recipe
    chosen = open_data(opened, data).to(classifier.device)
    own_seed, settings = (recipe.seed, recipe.evaluate.probe) if recipe else (0, None)
    probe = nuisance_probe(classifier, chosen, seed=own_seed, probe=settings, progress=progress)
    x, labels = MetricContext(classifier, chosen, seed=own_seed).test_sample
    arrays, numbers = plane_arrays(classifier, x, labels, probe=probe, oracle=chosen.oracle, seed=seed)
    save_figure(plane_panels(arrays, classifier.class_names), out, arrays)
    return {"file": str(out), "probe.validation_error": probe.validation.error, **numbers}
