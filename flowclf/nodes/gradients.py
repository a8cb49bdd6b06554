"""Backward steps of nodes: a node's input and all its gradients, from its output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flowclf.errors import UsageError


class BackwardStep(NamedTuple):
    """Result of ``backward_step(z, conditions, grad_z, grad_log_det, parameters)`` of a node.

    Its arguments are the node's output and conditions, the gradients with respect to the output and to the log-determinant, (B,) or
    None, and the parameters whose gradients are needed.

    Attributes:
        x: the node's input.
        grad_x: gradient with respect to the input.
        grad_conditions: gradient with respect to each condition, or None.
        grad_parameters: gradient with respect to each of ``parameters``, or None.
    """

    x: Tensor
    grad_x: Tensor
    grad_conditions: tuple[Tensor | None, ...]
    grad_parameters: tuple[Tensor | None, ...]


def gradients(outputs: Sequence[Tensor], inputs: Sequence[Tensor], grad_outputs: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """Gradients of recomputed outputs with respect to leaves; None for a leaf that they do not depend on.

    Raises:
        UsageError: if an output depends on another tensor that requires a gradient, which would not receive it.
    """
    pairs = [(output, grad) for output, grad in zip(outputs, grad_outputs, strict=True) if output.requires_grad]
    if not pairs or not inputs:
        return (None,) * len(inputs)
    _refuse_strangers([output for output, _ in pairs], {id(value) for value in inputs})
    wanted = [value for value in inputs if value.requires_grad]
    found = iter(torch.autograd.grad([output for output, _ in pairs], wanted, [grad for _, grad in pairs], allow_unused=True))
    return tuple(next(found) if value.requires_grad else None for value in inputs)


def _refuse_strangers(outputs: Sequence[Tensor], known: set[int]) -> None:
    stack: list[Any] = [output.grad_fn for output in outputs if output.grad_fn is not None]
    seen = set(stack)
    while stack:
        function = stack.pop()
        leaf = getattr(function, "variable", None)
        if isinstance(leaf, Tensor) and id(leaf) not in known:
            raise UsageError(
                f"a node's output depends on a tensor of shape {tuple(leaf.shape)} that requires a gradient, but is neither "
                "its input, nor a condition, nor one of its parameters; where activations are recomputed it would get none: "
                "register it in the node, or pass it as a condition"
            )
        for following, _ in function.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                stack.append(following)
