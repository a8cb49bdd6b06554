"""Open the models, data and oracles that commands name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flowclf import checkpoint, zoo
from flowclf.classifier import Classifier
from flowclf.data import DataSet, Oracle, labelled_images
from flowclf.data import load as load_data
from flowclf.errors import FlowclfError, UsageError
from flowclf.evaluation import check_fits, ready_oracle
from flowclf.files import check_writable
from flowclf.recipe import Recipe, load
from flowclf.recipe.building import build_data, build_trainer, resolve_device
from flowclf.recipe.places import data_paths, located, with_data_at
from flowclf.recipe.run_folder import RunFolder
from flowclf.training import Trainer


@dataclass(frozen=True)
class OpenedModel:
    """A classifier in eval mode, and the recipe of its run directory or zoo entry; None for a bare checkpoint."""

    classifier: Classifier
    recipe: Recipe | None


def prepare(recipe: Recipe, device: str = "auto") -> tuple[Trainer, Oracle | None]:
    """Build the trainer and the oracle of a run, and check that its classifier can be evaluated and saved.

    Raises:
        FlowclfError: if anything would stop the run later.
    """
    trainer = build_trainer(recipe, resolve_device(device))
    oracle = open_oracle(recipe, trainer.classifier)
    check_fits(trainer.classifier, trainer.data)
    checkpoint.check_savable(trainer.classifier)
    return trainer, oracle


def open_model(model: str, device: str = "auto") -> OpenedModel:
    """Load a model from a run directory, a checkpoint folder, or the zoo; an existing path takes precedence over a zoo name.

    A checkpoint of a run directory, such as ``checkpoints/best``, has the recipe of the run.

    Raises:
        UsageError: if the model does not exist, or its run has not finished training.
        ChecksumError: if a file of a zoo model is not the expected one.
        UnreachableError: if a file of a zoo model cannot be obtained.
    """
    path = Path(model)
    chosen = resolve_device(device)
    folder = RunFolder(path)
    if folder.resolved.is_file():
        folder.require(folder.model)
        return OpenedModel(checkpoint.load(folder.model, device=chosen), located(load(folder.resolved).recipe))
    if not path.exists():
        try:
            path = zoo.model_folder(model)
        except UsageError as error:
            raise UsageError(f"there is no run directory or checkpoint at {path}, and {error}") from error
    recipe, known = path / "recipe.yaml", None
    classifier = checkpoint.load(path, device=chosen)
    if recipe.is_file():
        # The paths in a zoo begin at the zoo; in those of earlier versions, in the folder where the model was trained.
        known = located(load(recipe).recipe, path.parent, Path.cwd())
    elif path.parent.name == folder.checkpoints.name and (resolved := RunFolder(path.parent.parent).resolved).is_file():
        known = located(load(resolved).recipe)
    return OpenedModel(classifier, known)


def open_data(opened: OpenedModel, name: str | None, root: Path | None = None) -> DataSet:
    """Load the data set with a registered name, a user's data at a path, or by default the data of the model's recipe.

    They are shuffled with the recipe's seed before a validation part is held out.

    Args:
        opened: the model with its recipe.
        name: the name or path.
        root: where the data of the model's recipe are now, if not where they were.

    Raises:
        UsageError: if the data do not exist; if no data are named and the model has no recipe; or if the class folders of a folder
            of images, in the order of their names, are not the model's classes.
    """
    if name is None:
        if opened.recipe is None:
            raise UsageError("a checkpoint without its run has no record of its data: name the data set with --data")
        return _own_data(opened.recipe, root)
    if root is not None:
        raise UsageError("--data-root is the place of the data of the model's recipe and cannot be combined with --data")
    path, seed = Path(name), 0 if opened.recipe is None else opened.recipe.seed
    if path.is_dir():
        channels, *size = image_shape(opened.classifier)
        data = load_data("image_folder", root=name, size=size, channels=channels, validation=0.1, seed=seed)
        if data.class_names != opened.classifier.class_names:
            raise UsageError(
                f"--data {name}: its folders, in the order of their names, are {data.class_names}; expected the model's classes, "
                f"{opened.classifier.class_names}"
            )
        return data
    if path.suffix == ".npz":
        kind = ("vectors", "signals", "images")[len(opened.classifier.preprocessing.image_shape) - 1]
        return load_data("arrays", path=name, kind=kind, validation=0.1, seed=seed)
    return load_data(name, seed=seed)


def open_test_data(opened: OpenedModel, folder: str) -> DataSet:
    """Load a folder of images, with one folder per class of the model, as data that are all test.

    Raises:
        UsageError: if the folder does not exist, or the model's inputs are not images.
        DataError: if an image cannot be read, or a folder has the name of no class of the model.
    """
    names = opened.classifier.class_names
    images = labelled_images(folder, image_shape(opened.classifier), names)
    return DataSet.from_split(images, class_names=names, name=Path(folder).name)


def _own_data(recipe: Recipe, root: Path | None) -> DataSet:
    if root is not None:
        return build_data(with_data_at(recipe, root))
    try:
        return build_data(recipe)
    except FlowclfError as error:
        if all(path is None or path.exists() for path in data_paths(recipe.data).values()):
            raise
        raise UsageError(
            f"the data of the model's recipe are not there any more: {error}; --data-root names where they are now"
        ) from error


def open_oracle(recipe: Recipe, classifier: Classifier) -> Oracle | None:
    """Open the oracle in a recipe's section ``evaluate``, which labels the metamers of its classifier; None if there is none.

    Raises:
        UsageError: if the oracle does not exist or does not fit the classifier; the message begins with ``evaluate.oracle``.
    """
    if recipe.evaluate.oracle is None:
        return None
    try:
        return ready_oracle(open_model(recipe.evaluate.oracle, str(classifier.device)).classifier, classifier)
    except UsageError as error:
        raise UsageError(f"evaluate.oracle: {error}") from error


def check_png(out: Path) -> None:
    """Raise UsageError if the path of a figure does not end in ``.png``, or the figure and its data could not be written."""
    if out.suffix.lower() != ".png":
        raise UsageError(f"--out: expected a .png file, found {out}")
    for path in (out, out.with_suffix(".npz")):
        check_writable(path, "--out")


def image_shape(classifier: Classifier) -> tuple[int, ...]:
    """Shape (C, H, W) of a classifier's images.

    Raises:
        UsageError: if the classifier takes vectors.
    """
    shape = classifier.preprocessing.image_shape
    if len(shape) != 3:
        raise UsageError(f"the model takes vectors of shape {shape}, not images")
    return shape
