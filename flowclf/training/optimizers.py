"""The list of optimisers: adamax, adam, adamw and sgd, registered in pyproject.toml; and the parameter groups that they train.

An optimiser is a function, or a class such as torch's own, called as ``optimizer(params, *, lr, weight_decay, ...)``: ``params`` is
a list of torch's parameter groups, and one without decay says so. It is registered in the group ``flowclf.optimizers``; its keyword
arguments are keys of a recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeAlias

import torch
from torch import nn
from torch.optim import Optimizer

from flowclf import registry
from flowclf.argument_types import Decay, NonNegativeFloat, PositiveFloat
from flowclf.errors import UsageError

Groups: TypeAlias = list[dict[str, Any]]


def adamax(
    params: Groups,
    *,
    lr: PositiveFloat = 1e-3,
    betas: tuple[Decay, Decay] = (0.9, 0.999),
    eps: PositiveFloat = 1e-8,
    weight_decay: NonNegativeFloat = 0.0,
) -> Optimizer:
    """Adamax (Kingma and Ba, Adam, 2015, section 7.1).

    Args:
        lr: learning rate, before the schedule.
        betas: decay rates of the running mean of gradients and of their running maximum.
        eps: added to that maximum.
        weight_decay: L2 penalty on the weights of linear and convolutional layers.
    """
    return torch.optim.Adamax(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, foreach=_fast(params))


def adam(
    params: Groups,
    *,
    lr: PositiveFloat = 1e-3,
    betas: tuple[Decay, Decay] = (0.9, 0.999),
    eps: PositiveFloat = 1e-8,
    weight_decay: NonNegativeFloat = 0.0,
) -> Optimizer:
    """Adam (Kingma and Ba, 2015).

    Args:
        lr: learning rate, before the schedule.
        betas: decay rates of the running means of gradients and of their squares.
        eps: added to the root of the latter.
        weight_decay: L2 penalty on the weights of linear and convolutional layers.
    """
    return torch.optim.Adam(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=_fast(params))


def adamw(
    params: Groups,
    *,
    lr: PositiveFloat = 1e-3,
    betas: tuple[Decay, Decay] = (0.9, 0.999),
    eps: PositiveFloat = 1e-8,
    weight_decay: NonNegativeFloat = 0.0,
) -> Optimizer:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019).

    Args:
        lr: learning rate, before the schedule.
        betas: decay rates of the running means of gradients and of their squares.
        eps: added to the root of the latter.
        weight_decay: decoupled decay of the weights of linear and convolutional layers.
    """
    return torch.optim.AdamW(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=_fast(params))


def sgd(params: Groups, *, lr: PositiveFloat = 0.1, momentum: Decay = 0.9, weight_decay: NonNegativeFloat = 0.0) -> Optimizer:
    """Stochastic gradient descent with momentum.

    Args:
        lr: learning rate, before the schedule.
        momentum: decay rate of the running sum of gradients.
        weight_decay: L2 penalty on the weights of linear and convolutional layers.
    """
    return torch.optim.SGD(params, lr=lr, momentum=momentum, weight_decay=weight_decay, foreach=_fast(params))


def _fast(params: Groups) -> Literal[True] | None:
    """Take one step for all parameters together, where torch has one for their devices; None leaves the choice to torch."""
    return True if {p.device.type for group in params for p in group["params"]} <= {"cpu", "cuda"} else None


def build_optimizer(
    modules: Iterable[nn.Module], parameters: Iterable[nn.Parameter], specification: Mapping[str, Any]
) -> Optimizer:
    """A registered optimiser by ``name``, with its arguments, over the parameters that are not frozen.

    Its weight decay acts on the weights of the modules' linear and convolutional layers alone: scales, rotations and the prior
    determine the bijection's log-determinant, and pulling them to zero does not regularise it.

    Raises:
        RegistryError: if the name is not registered.
        UsageError: if the optimiser does not take an argument.

    Example:
        >>> layer = nn.Linear(3, 2)
        >>> optimizer = build_optimizer([layer], layer.parameters(), {"name": "adamw", "lr": 2e-3, "weight_decay": 0.1})
        >>> [group["weight_decay"] for group in optimizer.param_groups]
        [0.1, 0.0]
    """
    arguments = dict(specification)
    name = str(arguments.pop("name", None))
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    weights = {id(layer.weight) for module in modules for layer in module.modules() if isinstance(layer, kinds)}
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    decayed, rest = ([p for p in trained if (id(p) in weights) == wanted] for wanted in (True, False))
    groups: Groups = [{"params": decayed}, {"params": rest, "weight_decay": 0.0}]
    make: Callable[..., Optimizer] = registry.optimizers.get(name)
    try:
        return make([group for group in groups if group["params"]], **arguments)
    except (TypeError, ValueError) as error:
        raise UsageError(f"optimizer {name}: {error}") from error
