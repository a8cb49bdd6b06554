"""Optimisers and learning-rate schedules by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from flowclf.errors import UsageError
from flowclf.registry import nearest

__all__ = ["OPTIMIZERS", "SCHEDULES", "Schedule", "build_optimizer", "build_schedule"]

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamax": torch.optim.Adamax,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}

_FUSED, _FUSED_DEVICES = ("adam", "adamw"), {"cpu", "cuda"}
_TOGETHER = ("adamax", "sgd")
_OTHER_STEPS = {"fused", "foreach", "differentiable"}

Schedule = Callable[[int], float]
"""Step, from 0, to the factor on the learning rate. A function of the step alone, so that resuming needs no state."""


def _decayed(module: nn.Module) -> set[int]:
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return {id(layer.weight) for layer in module.modules() if isinstance(layer, kinds)}


def build_optimizer(
    modules: Iterable[nn.Module], parameters: Iterable[nn.Parameter], specification: Mapping[str, Any]
) -> torch.optim.Optimizer:
    """An optimiser over parameters. Weight decay (L2) acts on the weights of linear and convolutional layers alone.

    Scales, rotations and the prior define the bijection's volume: pulling them to zero is not a regularisation of it. Adam and
    AdamW take torch's fused step, the others one for all parameters together, which are faster, unless the specification says
    otherwise.

    Args:
        modules: where to look for layers.
        parameters: what to train.
        specification: ``name`` (adamax, adam, adamw, sgd), ``lr``, ``weight_decay`` and what else torch's optimiser takes.

    Raises:
        UsageError: an unknown name, or an argument that the optimiser does not take.
    """
    arguments = dict(specification)
    name = arguments.pop("name", None)
    if name not in OPTIMIZERS:
        raise UsageError(f"unknown optimizer '{name}'{nearest(str(name), OPTIMIZERS)}")
    decay = arguments.pop("weight_decay", 0.0)
    decayed = set().union(*(_decayed(module) for module in modules))
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if id(p) in decayed], "weight_decay": decay},
        {"params": [p for p in trained if id(p) not in decayed], "weight_decay": 0.0},
    ]
    devices = {parameter.device.type for parameter in trained}
    if devices <= _FUSED_DEVICES and not arguments.keys() & _OTHER_STEPS:
        arguments.update({"fused": True} if name in _FUSED else {"foreach": True} if name in _TOGETHER else {})
    if "betas" in arguments:
        arguments["betas"] = tuple(arguments["betas"])
    try:
        return OPTIMIZERS[name]([group for group in groups if group["params"]], **arguments)
    except (TypeError, ValueError) as error:
        raise UsageError(f"optimizer {name}: {error}") from error


def _constant(total: int, per_epoch: int) -> Schedule:
    return lambda step: 1.0


def _step(total: int, per_epoch: int, *, every_epochs: int = 30, factor: float = 0.2) -> Schedule:
    return lambda step: factor ** (step // (per_epoch * every_epochs))


def _cosine(total: int, per_epoch: int) -> Schedule:
    return lambda step: 0.5 * (1 + math.cos(math.pi * min(1.0, step / total)))


def _one_cycle(total: int, per_epoch: int, *, peak: float = 0.3, start: float = 0.04) -> Schedule:
    top = peak * total

    def factor(step: int) -> float:
        if step < top:
            return start + (1 - start) * 0.5 * (1 - math.cos(math.pi * step / top))
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - top) / (total - top))))

    return factor


def _trapezoid(total: int, per_epoch: int, *, decay: float = 0.4) -> Schedule:
    return lambda step: min(1.0, (1 - step / total) / decay)


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": _constant,
    "step": _step,
    "one_cycle": _one_cycle,
    "cosine": _cosine,
    "trapezoid": _trapezoid,
}


def build_schedule(specification: Mapping[str, Any], total_steps: int, steps_per_epoch: int) -> Schedule:
    """A schedule.

    Args:
        specification: ``name``, ``warmup_steps`` (linear, on top of any schedule) and the schedule's own arguments: ``step``
            takes every_epochs and factor; ``one_cycle`` takes peak, the share of the training at which it peaks, and start;
            ``trapezoid`` takes decay, the share at the end over which the rate falls linearly to 0.
        total_steps: of the whole training.
        steps_per_epoch: batches in an epoch.

    Raises:
        UsageError: an unknown name or argument.

    Example:
        >>> schedule = build_schedule({"name": "trapezoid", "decay": 0.5}, total_steps=100, steps_per_epoch=10)
        >>> schedule(0), schedule(75)
        (1.0, 0.5)
    """
    arguments = dict(specification)
    name = arguments.pop("name", None)
    warmup = arguments.pop("warmup_steps", 0)
    if name not in SCHEDULES:
        raise UsageError(f"unknown schedule '{name}'{nearest(str(name), SCHEDULES)}")
    try:
        schedule = SCHEDULES[name](total_steps, steps_per_epoch, **arguments)
    except TypeError as error:
        raise UsageError(f"schedule {name}: {error}") from error
    return lambda step: schedule(step) * (min(1.0, (step + 1) / warmup) if warmup else 1.0)
