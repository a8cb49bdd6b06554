"""Evaluate finished models, classify images, and draw metamers and decision regions in planes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from flowclf.classifier import Classifier, InvertibleClassifier, require_invertible
from flowclf.data import DataSet, Oracle, read_image
from flowclf.errors import UsageError
from flowclf.evaluation import MetricContext, evaluate, metamer_pictures, nuisance_probe
from flowclf.evaluation.metamers import draw_pairs, metamer
from flowclf.evaluation.planes import plane_arrays
from flowclf.figures import metamer_grid, plane_panels, save_figure
from flowclf.modes import evaluating
from flowclf.run.opening import check_png, image_shape, open_data, open_model, open_oracle
from flowclf.training import Progress

_GRID_COLUMNS = 12


def _read(classifier: Classifier, path: Path) -> Tensor:
    """Read an image file as network inputs (1, C, H, W)."""
    pixels = read_image(path, image_shape(classifier))[None].to(classifier.device)
    return classifier.preprocessing(pixels.to(classifier.dtype) / 255)  # type: ignore[no-any-return]


def evaluate_model(
    model: str,
    data: str | None = None,
    protocol: str = "quick",
    device: str = "auto",
    progress: Progress | None = None,
    oracle: str | None = None,
    data_root: Path | None = None,
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

    Raises:
        UsageError: if the model, data or oracle does not exist, or they do not fit together.
    """
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
    return evaluate(
        opened.classifier,
        open_data(opened, data, data_root).to(opened.classifier.device),
        protocol=protocol,
        seed=recipe.seed if recipe else 0,
        oracle=chosen,
        probe=recipe.evaluate.probe if recipe else None,
        progress=progress,
    )


def predict(model: str, images: list[Path], device: str = "auto") -> list[dict[str, Any]]:
    """Classify image files.

    Returns:
        For each image ``file``, ``class`` and ``probability``; for an invertible classifier also ``log_likelihood_nats`` of the
        network's input, and ``bits_per_dim``.

    Raises:
        DataError: if a file is not an image; nothing is returned for the others.
    """
    classifier = open_model(model, device).classifier
    answers = []
    with evaluating(classifier):
        for path in images:
            x = _read(classifier, path)
            encoding = classifier(x)
            probability, label = encoding.logits.softmax(1).max(1)
            name = classifier.class_names[int(label)]
            answer: dict[str, Any] = {"file": str(path), "class": name, "probability": float(probability)}
            if isinstance(classifier, InvertibleClassifier):
                log_prob = classifier.prior.log_prob(encoding.logits, encoding.nuisance) + encoding.log_det
                answer["log_likelihood_nats"] = float(log_prob)
                answer["bits_per_dim"] = float(classifier.preprocessing.bits_per_dim(log_prob))
            answers.append(answer)
    return answers


def metamers(
    model: str,
    logits_of: Path | None = None,
    nuisance_of: Path | None = None,
    out: Path = Path("metamers.png"),
    device: str = "auto",
) -> dict[str, Any]:
    """Draw a grid of metamers of test images, or the metamer of two image files.

    Args:
        model, device: as for :func:`evaluate_model`.
        logits_of: image that provides the logits; both images or neither.
        nuisance_of: image that provides the nuisances.
        out: PNG file to write, with its data beside it as ``.npz``.

    Returns:
        ``file``; for two images also ``logit_change``, the largest change of a logit, and ``prediction``, the predicted class
        of the metamer as an 8-bit picture.

    Raises:
        UsageError: if only one image is given, ``out`` is not a .png file, or the model does not exist or is not invertible.
    """
    if (logits_of is None) != (nuisance_of is None):
        raise UsageError("--logits-of and --nuisance-of belong together: give both images, or neither for a grid of test images")
    check_png(out)
    opened = open_model(model, device)
    classifier = require_invertible(opened.classifier, "metamers")
    if logits_of is None or nuisance_of is None:
        return _grid(classifier, open_data(opened, None), out)
    first, second = _read(classifier, logits_of), _read(classifier, nuisance_of)
    arrays = metamer_pictures(classifier, first, second)
    save_figure(metamer_grid(arrays, classifier.class_names), out, arrays)
    with evaluating(classifier):
        change = classifier.logits(metamer(classifier, first, second)) - classifier.logits(first)
    prediction = classifier.class_names[int(arrays["metamer_prediction"][0])]
    return {"file": str(out), "logit_change": float(change.abs().max()), "prediction": prediction}


def _grid(classifier: InvertibleClassifier, data: DataSet, out: Path) -> dict[str, Any]:
    test = data.test.to(classifier.device)
    pairs = [indices.to(classifier.device) for indices in draw_pairs(test.labels, _GRID_COLUMNS)]
    x1, x2 = (classifier.preprocessing(test.inputs[indices].to(classifier.dtype) / 255) for indices in pairs)
    first, second = (test.labels[indices].cpu().numpy() for indices in pairs)
    arrays = metamer_pictures(classifier, x1, x2) | {"logits_of_label": first, "nuisance_of_label": second}
    save_figure(metamer_grid(arrays, classifier.class_names), out, arrays)
    return {"file": str(out)}


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
