"""Using finished models: evaluating them, predicting, making metamers from a user's own images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowclf import checkpoint, zoo
from flowclf.classifier import InvertibleClassifier
from flowclf.data import DataSet, read_image
from flowclf.data import load as load_data
from flowclf.errors import UsageError
from flowclf.evaluation import evaluate, metamer_pictures
from flowclf.figures import metamer_grid, save_figure
from flowclf.metamers import draw_pairs, metamer
from flowclf.recipe import Recipe, load
from flowclf.run.building import build_data, build_probe_settings, resolve_device
from flowclf.run.folder import RunFolder
from flowclf.training import Progress

__all__ = ["OpenedModel", "evaluate_model", "metamers", "open_data", "open_model", "predict"]

_GRID_COLUMNS = 12


@dataclass(frozen=True)
class OpenedModel:
    """A model and, where it came from a run directory, the recipe that trained it.

    Attributes:
        classifier: in eval mode.
        recipe: of the run, also where it comes from the zoo; None for a bare checkpoint.
    """

    classifier: InvertibleClassifier
    recipe: Recipe | None


def open_model(model: str, device: str = "auto") -> OpenedModel:
    """Load a model from a run directory, a checkpoint folder, or the zoo; a path of that name comes first.

    Raises:
        UsageError: there is nothing of that name, or a run that has not finished training.
        ChecksumError, UnreachableError: a file of a zoo model that is not the expected one, or that cannot be had.
    """
    path = Path(model)
    chosen = resolve_device(device)
    folder = RunFolder(path)
    if folder.resolved.is_file():
        if not folder.model.is_dir():
            raise UsageError(f"{path}: the run has not finished; go on with: flowclf recipe run --resume {path}")
        return OpenedModel(checkpoint.load(folder.model, device=chosen), load(folder.resolved).recipe)
    if not path.exists():
        path = zoo.model_folder(model)
    recipe = path / "recipe.yaml"
    return OpenedModel(checkpoint.load(path, device=chosen), load(recipe).recipe if recipe.is_file() else None)


def open_data(opened: OpenedModel, name: str | None) -> DataSet:
    """The data named, a user's own at a path, or those of the model's run."""
    if name is None:
        if opened.recipe is None:
            raise UsageError("a checkpoint without its run does not tell its data: name them with --data")
        return build_data(opened.recipe)
    path = Path(name)
    if path.is_dir():
        channels, height, width = _image_shape(opened.classifier)
        if height != width:
            raise UsageError(f"--data {name}: a folder is read as square images, the model takes {height} x {width}")
        return load_data("image_folder", root=name, size=height, channels=channels, validation=0.1)
    if path.suffix == ".npz":
        return load_data("arrays", path=name, validation=0.1)
    return load_data(name)


def _image_shape(classifier: InvertibleClassifier) -> tuple[int, ...]:
    shape = classifier.preprocessing.image_shape
    if len(shape) != 3:
        raise UsageError(f"the model takes vectors of shape {shape}, not images")
    return shape


def _read(classifier: InvertibleClassifier, path: Path) -> Tensor:
    """Network inputs (1, C, H, W) of an image file."""
    pixels = read_image(path, _image_shape(classifier))[None].to(classifier.device)
    return classifier.preprocessing(pixels.to(classifier.dtype) / 255)  # type: ignore[no-any-return]


def evaluate_model(
    model: str,
    data: str | None = None,
    protocol: str = "quick",
    device: str = "auto",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Evaluate a model.

    Args:
        model: a run directory, a checkpoint folder, or the name of a zoo model.
        data: name of a data set, a folder of images, an ``.npz`` file; by default the data of the model's run.
        protocol: quick or full.
        device: auto, cpu or cuda.
        progress: is told what is going on.

    Returns:
        The flat results, as ``results.json`` has them.
    """
    opened = open_model(model, device)
    chosen = open_data(opened, data).to(opened.classifier.device)
    seed = opened.recipe.seed if opened.recipe else 0
    probe = build_probe_settings(opened.recipe) if opened.recipe else None
    return evaluate(opened.classifier, chosen, protocol=protocol, seed=seed, probe=probe, progress=progress)


@torch.no_grad()
def predict(model: str, images: list[Path], device: str = "auto") -> list[dict[str, Any]]:
    """Classify image files.

    Returns:
        For each image ``file``, ``class``, ``probability``, ``log_likelihood_nats`` of the network's input, and ``bits_per_dim``.

    Raises:
        DataError: a file that is not an image; nothing is returned for the others.
    """
    classifier = open_model(model, device).classifier
    answers = []
    for path in images:
        x = _read(classifier, path)
        encoding = classifier(x)
        log_prob = classifier.prior.log_prob(encoding.logits, encoding.nuisance) + encoding.log_det
        probability, label = encoding.logits.softmax(1).max(1)
        answers.append(
            {
                "file": str(path),
                "class": classifier.class_names[int(label)],
                "probability": float(probability),
                "log_likelihood_nats": float(log_prob),
                "bits_per_dim": float(classifier.preprocessing.bits_per_dim(log_prob)),
            }
        )
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
        model: a run directory, a checkpoint folder, or the name of a zoo model.
        logits_of: the image whose logits the metamer has; both images or neither.
        nuisance_of: the image whose nuisances the metamer has.
        out: the PNG to write.
        device: auto, cpu or cuda.

    Returns:
        ``file``, and for two images the largest ``logit_change`` and the ``prediction`` for the metamer as a saved picture.
    """
    if (logits_of is None) != (nuisance_of is None):
        raise UsageError("--logits-of and --nuisance-of belong together: give both images, or neither for a grid of test images")
    if out.suffix.lower() != ".png":
        raise UsageError(f"--out: expected a .png file, found {out}")
    opened = open_model(model, device)
    classifier = opened.classifier
    if logits_of is None or nuisance_of is None:
        return _grid(opened, out)
    first, second = _read(classifier, logits_of), _read(classifier, nuisance_of)
    arrays = metamer_pictures(classifier, first, second)
    save_figure(metamer_grid(arrays, classifier.class_names), out, arrays)
    with torch.no_grad():
        before = classifier.latents(first)[0]
        after = classifier.latents(metamer(classifier, first, second))[0]
    return {
        "file": str(out),
        "logit_change": float((after - before).abs().max()),
        "prediction": classifier.class_names[int(arrays["metamer_prediction"][0])],
    }


def _grid(opened: OpenedModel, out: Path) -> dict[str, Any]:
    data = open_data(opened, None).to(opened.classifier.device)
    classifier, test = opened.classifier, data.test
    first, second = (indices.to(classifier.device) for indices in draw_pairs(test.labels, _GRID_COLUMNS))

    def inputs(indices: Tensor) -> Tensor:
        return classifier.preprocessing(test.inputs[indices].to(classifier.dtype) / 255)  # type: ignore[no-any-return]

    arrays = metamer_pictures(classifier, inputs(first), inputs(second))
    arrays |= {
        "logits_of_label": test.labels[first].cpu().numpy(),
        "nuisance_of_label": test.labels[second].cpu().numpy(),
    }
    save_figure(metamer_grid(arrays, classifier.class_names), out, arrays)
    return {"file": str(out)}
