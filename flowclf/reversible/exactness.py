"""Which nodes have an inverse so exact that their input need not be stored.

A node declares this with the attribute ``exact_inverse``. A few of FrEIA's nodes are known to have approximate inverses. All others
are measured on the current batch, and again from time to time.
"""

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
    known = getattr(module, "exact_inverse", None)
    if known is None and isinstance(module, APPROXIMATE):
        return False
    return None if known is None else bool(known)


def is_exact(
    module: nn.Module, inputs: Sequence[Tensor], outputs: Sequence[Tensor], invert: Callable[[Sequence[Tensor]], Sequence[Tensor]]
) -> bool:
    """Whether a node's inverse is exact up to rounding in the precision of its inputs.

    Args:
        module: the node's module.
        inputs: the node's inputs.
        outputs: its outputs for them.
        invert: function from outputs to inputs without side effects.
    """
    known = declared(module)
    if known is not None:
        return known
    dtype = inputs[0].dtype
    # [runs so far, whether every measurement was exact]
    record = _measured.setdefault(module, {}).setdefault(dtype, [0, 1])
    if record[1] and record[0] % INTERVAL == 0:
        record[1] = int(_error(inputs, outputs, invert) <= TOLERANCE * torch.finfo(dtype).eps)
    record[0] += 1
    return bool(record[1])


def _error(inputs: Sequence[Tensor], outputs: Sequence[Tensor], invert: Callable[[Sequence[Tensor]], Sequence[Tensor]]) -> float:
    """Largest error of the inverse, relative to the largest entry; infinite if there is no inverse."""
    try:
        again = invert(outputs)
    except torch.OutOfMemoryError:
        raise
    except Exception:
        # A third-party node may raise anything; whatever it is, the node cannot be inverted here.
        return float("inf")
    if [value.shape for value in again] != [value.shape for value in inputs]:
        return float("inf")
    largest = max((float(value.abs().max()) for value in (*inputs, *outputs) if value.numel()), default=0.0)
    errors = [float((value - start).abs().max()) for value, start in zip(again, inputs, strict=True) if start.numel()]
    error = max(errors, default=0.0) if all(one == one for one in errors) else float("inf")
    return 0.0 if error == 0.0 else error / largest if largest else float("inf")
