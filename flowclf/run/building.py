"""From a recipe to objects: data, classifier, loss, settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from flowclf import registry
from flowclf.classifier import InvertibleClassifier, build_classifier
from flowclf.data import DataSet
from flowclf.data import load as load_data
from flowclf.errors import UsageError
from flowclf.evaluation import ProbeSettings
from flowclf.losses import Loss, WeightedSum
from flowclf.preprocessing import Preprocessing
from flowclf.recipe import LoadedRecipe, Recipe
from flowclf.training import TrainSettings

__all__ = ["Plan", "build_data", "build_loss", "build_model", "build_probe_settings", "build_settings", "plan", "resolve_device"]


def resolve_device(device: str) -> torch.device:
    """``auto`` is a GPU where there is one, the CPU elsewhere.

    Raises:
        UsageError: a device that torch does not know or that is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise UsageError(f"device: expected auto, cpu or cuda, found '{device}'") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise UsageError("device: cuda was asked for, but torch finds no GPU here; use --device cpu")
    return chosen


def build_data(recipe: Recipe) -> DataSet:
    """The recipe's data set, in memory."""
    section = recipe.data
    return load_data(
        section.name,
        batch_size=section.batch_size,
        validation=int(section.validation) if section.validation >= 1 else section.validation,
        augment=section.augment.model_dump(),
        seed=recipe.seed,
        train_limit=section.train_limit,
        **section.arguments,
    )


def build_model(recipe: Recipe, data: DataSet) -> InvertibleClassifier:
    """The recipe's classifier with fresh weights, which depend on the recipe's seed alone.

    Raises:
        GraphError: a graph that is not a classifier's.
    """
    shape = data.image_shape
    images = len(shape) == 3
    stream = recipe.train.stream
    preprocessing = Preprocessing(
        shape, bits=recipe.data.bits if images else None, pad=recipe.data.pad, fixed_point=stream == "fixed_point"
    )
    model = recipe.model
    specs = model if isinstance(model, list) else registry.models.get(model.name)(**model.arguments)
    torch.manual_seed(recipe.seed)
    return build_classifier(
        preprocessing.input_shape, specs, data.classes, preprocessing=preprocessing, class_names=data.class_names, stream=stream
    )


def build_loss(recipe: Recipe) -> Loss:
    """The recipe's loss, unbound."""
    section = recipe.loss
    if not isinstance(section, list):
        return _loss(section.name, section.arguments)
    return WeightedSum([(term.weight, _loss(term.name, term.arguments)) for term in section])


def _loss(name: str, arguments: Mapping[str, Any]) -> Loss:
    loss = registry.losses.get(name)(**arguments)
    if not isinstance(loss, Loss):
        raise UsageError(f"loss '{name}' is a {type(loss).__name__}, expected a flowclf.losses.Loss")
    return loss


def build_settings(recipe: Recipe) -> TrainSettings:
    """The recipe's section ``train``."""
    return TrainSettings(**recipe.train.model_dump(exclude={"stream"}))


def build_probe_settings(recipe: Recipe) -> ProbeSettings:
    """The recipe's section ``evaluate.probe``."""
    return ProbeSettings(**recipe.evaluate.probe.model_dump())


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes:
        text: for a person.
        data: the same as plain JSON.
    """

    text: str
    data: dict[str, Any]


def plan(loaded: LoadedRecipe, device: str = "auto") -> Plan:
    """Build everything that a run would build, and write nothing."""
    recipe = loaded.recipe
    chosen = resolve_device(device)
    data = build_data(recipe)
    classifier = build_model(recipe, data)
    loss = build_loss(recipe).bind(classifier)
    settings = build_settings(recipe)
    steps = settings.epochs * data.steps_per_epoch
    rows = [
        {
            "name": row.name,
            "kind": row.kind,
            "shapes_in": [list(shape) for shape in row.shapes_in],
            "shapes_out": [list(shape) for shape in row.shapes_out],
            "parameters": row.parameters,
        }
        for row in classifier.node_rows()
    ]
    adversary = sum(parameter.numel() for parameter in loss.adversary_parameters())
    summary = {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "device": str(chosen),
        "data": data.describe(),
        "parameters": classifier.parameter_count(),
        "adversary_parameters": adversary,
        "epochs": settings.epochs,
        "steps": steps,
        "nodes": rows,
    }
    adversary_text = f"; adversary: {adversary:,} parameters, {loss.adversary_steps} steps a batch" if adversary else ""
    lines = [
        f"Recipe {recipe.name}, seed {recipe.seed}, on {chosen}",
        f"Data: {data}",
        f"Training: {settings.epochs} epochs of {data.steps_per_epoch} steps{adversary_text}",
        f"Evaluation: protocol {recipe.evaluate.protocol}",
        repr(classifier),
    ]
    return Plan("\n".join(lines), summary)
