"""Build a recipe's objects: data, classifier, loss and trainer."""

from __future__ import annotations

from typing import Any

import torch

from flowclf import registry
from flowclf.classifier import InvertibleClassifier, PlainClassifier, build_classifier, plain_classifier
from flowclf.component_schema.sections import plain
from flowclf.data import DataSet
from flowclf.data import load as load_data
from flowclf.errors import UsageError
from flowclf.losses import Loss, weighted_sum
from flowclf.preprocessing import Preprocessing, standardization
from flowclf.recipe import Recipe, schema
from flowclf.training import Trainer


def resolve_device(device: str) -> torch.device:
    """Resolve a device name; ``auto`` is a GPU if there is one, otherwise the CPU.

    Raises:
        UsageError: if the device is unknown to torch or does not exist.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise UsageError(f"device: expected auto, cpu or cuda, found '{device}'") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise UsageError("device: cuda was requested, but torch finds no GPU; use --device cpu")
    return chosen


def build_data(recipe: Recipe) -> DataSet:
    """Load the recipe's data set."""
    section = recipe.data
    return load_data(
        section.name,
        batch_size=section.batch_size,
        validation=int(section.validation) if section.validation >= 1 else section.validation,
        augment=section.augment,
        seed=recipe.seed,
        train_limit=section.train_limit,
        **section.arguments,
    )


def build_model(recipe: Recipe, data: DataSet) -> InvertibleClassifier | PlainClassifier:
    """Build the recipe's classifier; its initial weights depend on the recipe's seed alone. Raises as :func:`build_trainer`."""
    model, stream = recipe.model, recipe.train.stream
    bits = recipe.data.bits if len(data.image_shape) == 3 else None
    scaling = standardization(data.train.inputs) if recipe.data.standardize else {}
    preprocessing = Preprocessing(data.image_shape, bits=bits, pad=recipe.data.pad, fixed_point=stream == "fixed_point", **scaling)
    specs = model if isinstance(model, list) else registry.models.get(model.name)(**model.arguments)
    shape = preprocessing.input_shape
    about: dict[str, Any] = {"preprocessing": preprocessing, "class_names": data.class_names}
    torch.manual_seed(recipe.seed)
    if isinstance(model, list) or not callable(specs):
        return build_classifier(shape, specs, data.classes, stream=stream, **about)
    if stream != "float":
        raise UsageError(f"train.stream: expected 'float' for the plain network '{model.name}', found '{stream}'")
    return plain_classifier(shape, {model.name: plain(model.arguments)}, data.classes, **about)


def build_loss(recipe: Recipe) -> Loss:
    """Build the recipe's loss, unbound."""
    section = recipe.loss
    if isinstance(section, list):
        return weighted_sum([(term.weight, _loss(term)) for term in section])
    return _loss(section)


def _loss(section: schema.Loss) -> Loss:
    loss = registry.losses.get(section.name)(**section.arguments)
    if not isinstance(loss, Loss):
        raise UsageError(f"loss '{section.name}' is a {type(loss).__name__}, expected a flowclf.losses.Loss")
    return loss


def build_trainer(recipe: Recipe, device: torch.device) -> Trainer:
    """Build the trainer and all that it needs, before its first step.

    Raises:
        UsageError: if parts of the recipe do not fit together.
        GraphError: if the graph is not a classifier's.
    """
    data = build_data(recipe)
    return Trainer(build_model(recipe, data).to(device), build_loss(recipe), data, recipe.train)
