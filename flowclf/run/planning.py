"""The plan of a run, for ``flowclf recipe run --dry-run``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from flowclf.losses import AdversarialLoss
from flowclf.recipe import LoadedRecipe
from flowclf.recipe.places import located
from flowclf.run.opening import prepare


@dataclass(frozen=True)
class Plan:
    """Plan of a run, as text and as data for JSON."""

    text: str
    data: dict[str, Any]


def plan(loaded: LoadedRecipe, device: str = "auto") -> Plan:
    """Build everything that the run would build, and describe it; nothing is written."""
    recipe = located(loaded.recipe)
    trainer, _ = prepare(recipe, device)
    classifier, data, loss = trainer.classifier, trainer.data, trainer.loss
    adversary, adversary_text = 0, ""
    if isinstance(loss, AdversarialLoss):
        adversary = sum(parameter.numel() for parameter in loss.adversary_parameters())
        adversary_text = f"; adversary: {adversary:,} parameters, {loss.adversary_steps} steps per batch"
    summary = {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "device": str(classifier.device),
        "data": data.describe(),
        "parameters": classifier.parameter_count(),
        "adversary_parameters": adversary,
        "epochs": trainer.settings.epochs,
        "steps": trainer.total_steps,
        "nodes": [dataclasses.asdict(row) for row in classifier.node_rows()],
    }
    oracle_text = f", oracle {recipe.evaluate.oracle}" if recipe.evaluate.oracle else ""
    lines = [
        f"Recipe {recipe.name}, seed {recipe.seed}, on {classifier.device}",
        f"Data: {data}",
        f"Training: {trainer.settings.epochs} epochs of {data.steps_per_epoch} steps{adversary_text}",
        f"Evaluation: protocol {recipe.evaluate.protocol}{oracle_text}",
        repr(classifier),
    ]
    return Plan("\n".join(lines), summary)
