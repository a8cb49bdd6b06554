"""Which nodes have an inverse so exact that their input need not be stored: declared by the node, or measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

import torch
from FrEIA import modules as freia
from torch import Tensor, nn

APPROXIMATE = (
    freia.IResNetLayer,
    freia.OrthogonalTransform,
    freia.InvertibleSigmoid,
    freia.InvAutoFC,
    freia.InvAutoConv2D,
    freia.GaussianMixtureModel,
)
"""Nodes whose inverse iterates, uses a transpose that is only nearly the inverse, or starts from a saturating range."""

TOLERANCE = 64
"""Largest error of an inverse that counts as rounding, in machine epsilons relative to the largest entry."""

INTERVAL = 256
"""Runs between two measurements of a node, because weights change."""

_measured: WeakKeyDictionary[nn.Module, dict[torch.dtype, list[int]]] = WeakKeyDictionary()


def declared(module: nn.Module) -> bool | None:
    """Whether a node's inverse is exact (True) or approximate (False) by declaration; None if it has to be measured."""
    known: bool | None = getattr(module, "exact_inverse", None)
    return False if known is None and isinstance(module, APPROXIMATE) else known


def is_exact(
    module: nn.Module, inputs: Sequence[Tensor], outputs: Sequence[Tensor], invert: Callable[[Sequence[Tensor]], Sequence[Tensor]]
) -> bool:
    """Whether the inverse of a node, ``invert``, is exact up to rounding in the precision of its inputs."""
    known = declared(module)
    if known is not None:
        return known
    dtype = inputs[0].dtype
    # [runs so far, whether every measurement was exact]
    record = _measured.setdefault(module, {}).setdefault(dtype, [0, 1])
    if record[1] and record[0] % INTERVAL == 0:
        record[1] = _restores(inputs, outputs, invert, TOLERANCE * torch.finfo(dtype).eps)
    record[0] += 1
    return bool(record[1])


def _restores(
    inputs: Sequence[Tensor], outputs: Sequence[Tensor], invert: Callable[[Sequence[Tensor]], Sequence[Tensor]], tolerance: float
) -> bool:
    """Whether there is an inverse whose error, relative to the largest entry, is within the tolerance."""
    try:
        again = invert(outputs)
    except torch.OutOfMemoryError:
        raise
    except Exception:
        # A third-party node may raise anything; whatever it is, the node cannot be inverted here.
        return False
    if [value.shape for value in again] != [value.shape for value in inputs]:
        return False
    largest = max((float(value.abs().max()) for value in (*inputs, *outputs) if value.numel()), default=0.0)
    return all(bool(((value - start).abs() <= tolerance * largest).all()) for value, start in zip(again, inputs, strict=True))
