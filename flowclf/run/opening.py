"""Finding what a command names: models in run directories and checkpoints, the data to judge them on, oracles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flowclf import checkpoint, zoo
from flowclf.classifier import Classifier
from flowclf.data import DataSet, Oracle
from flowclf.data import load as load_data
from flowclf.errors import UsageError
from flowclf.evaluation import ready_oracle
from flowclf.recipe import Recipe, load
from flowclf.recipe.building import build_data, resolve_device
from flowclf.recipe.run_folder import RunFolder

__all__ = ["OpenedModel", "image_shape", "open_data", "open_model", "open_oracle"]


@dataclass(frozen=True)
class OpenedModel:
    """A model and, where it came from a run directory, the recipe that trained it.

    Attributes:
        classifier: in eval mode.
        recipe: of the run, also where it comes from the zoo; None for a bare checkpoint.
    """

    classifier: Classifier
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
        folder.require(folder.model)
        return OpenedModel(checkpoint.load(folder.model, device=chosen), load(folder.resolved).recipe)
    if not path.exists():
        try:
            path = zoo.model_folder(model)
        except UsageError as error:
            raise UsageError(f"there is no run directory or checkpoint at {path}, and {error}") from error
    recipe = path / "recipe.yaml"
    return OpenedModel(checkpoint.load(path, device=chosen), load(recipe).recipe if recipe.is_file() else None)


def open_data(opened: OpenedModel, name: str | None) -> DataSet:
    """The data named, a user's own at a path, or those of the model's run.

    They are shuffled with the run's seed before a validation part is held out.

    Raises:
        UsageError: no such data, or data without a model's run to tell them; or a folder of images whose classes, the names of its
            folders in their order, are not the model's.
    """
    if name is None:
        if opened.recipe is None:
            raise UsageError("a checkpoint without its run does not tell its data: name them with --data")
        return build_data(opened.recipe)
    path, seed = Path(name), 0 if opened.recipe is None else opened.recipe.seed
    if path.is_dir():
        channels, height, width = image_shape(opened.classifier)
        if height != width:
            raise UsageError(f"--data {name}: a folder is read as square images, the model takes {height} x {width}")
        data = load_data("image_folder", root=name, size=height, channels=channels, validation=0.1, seed=seed)
        if data.class_names != opened.classifier.class_names:
            raise UsageError(
                f"--data {name}: its folders, in the order of their names, are {data.class_names}; expected the model's classes, "
                f"{opened.classifier.class_names}"
            )
        return data
    if path.suffix == ".npz":
        return load_data("arrays", path=name, validation=0.1, seed=seed)
    return load_data(name, seed=seed)


def open_oracle(recipe: Recipe, classifier: Classifier) -> Oracle | None:
    """The oracle that a recipe wants the metamers of its classifier judged by, or None if it names none.

    Raises:
        UsageError: there is no such model, or it cannot judge this classifier; says that the recipe asked for it.
    """
    if recipe.evaluate.oracle is None:
        return None
    try:
        return ready_oracle(open_model(recipe.evaluate.oracle, str(classifier.device)).classifier, classifier)
    except UsageError as error:
        raise UsageError(f"evaluate.oracle: {error}") from error


def image_shape(classifier: Classifier) -> tuple[int, ...]:
    """(C, H, W) of the images that a classifier reads.

    Raises:
        UsageError: it reads vectors.
    """
    shape = classifier.preprocessing.image_shape
    if len(shape) != 3:
        raise UsageError(f"the model takes vectors of shape {shape}, not images")
    return shape
