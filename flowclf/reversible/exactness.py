"""Which nodes can be inverted so well that their input need not be kept.

A node says so itself with the attribute ``exact_inverse``. Of a few of FrEIA's it is known that their inverse is approximate. Of
all others it is measured, on the batch in hand, and measured again from time to time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

import torch
from FrEIA import modules as freia
from torch import Tensor, nn

__all__ = ["declared", "is_exact"]

APPROXIMATE = (
    freia.IResNetLayer,
    freia.OrthogonalTransform,
    freia.InvertibleSigmoid,
    freia.InvAutoFC,
    freia.InvAutoConv2D,
    freia.GaussianMixtureModel,
)
"""Inverses by iteration, by a transpose that is not quite the inverse, or out of a range that saturates."""

TOLERANCE = 64
"""Largest error of an inverse that counts as rounding, in units in the last place of the largest entry."""

INTERVAL = 256
"""Runs between two measurements of a node: weights change."""

_measured: WeakKeyDictionary[nn.Module, dict[torch.dtype, list[int]]] = WeakKeyDictionary()


def declared(module: nn.Module) -> bool | None:
    """What is known of a node without measuring: exact, approximate, or None."""
    known = getattr(module, "exact_inverse", None)
    if known is None and isinstance(module, APPROXIMATE):
        return False
    return None if known is None else bool(known)


def is_exact(
    module: nn.Module, inputs: Sequence[Tensor], outputs: Sequence[Tensor], invert: Callable[[Sequence[Tensor]], Sequence[Tensor]]
) -> bool:
    """Whether a node's inverse may be trusted in the precision of its inputs.

    Args:
        module: of the node.
        inputs: what it was given.
        outputs: what it made of them.
        invert: outputs -> inputs, leaving everything else alone.
    """
    known = declared(module)
    if known is not None:
        return known
    dtype = inputs[0].dtype
    # [runs so far, whether it was exact each time]
    record = _measured.setdefault(module, {}).setdefault(dtype, [0, 1])
    if record[1] and record[0] % INTERVAL == 0:
        record[1] = int(_error(inputs, outputs, invert) <= TOLERANCE * torch.finfo(dtype).eps)
    record[0] += 1
    return bool(record[1])


def _error(inputs: Sequence[Tensor], outputs: Sequence[Tensor], invert: Callable[[Sequence[Tensor]], Sequence[Tensor]]) -> float:
    """Largest error of the inverse, relative to the largest entry; infinite where there is no inverse."""
    try:
        again = invert(outputs)
    except torch.OutOfMemoryError:
        raise
    except Exception:
        # Whatever a stranger's node raises, it means the same: it does not go back from here.
        return float("inf")
    if [value.shape for value in again] != [value.shape for value in inputs]:
        return float("inf")
    largest = max((float(value.abs().max()) for value in (*inputs, *outputs) if value.numel()), default=0.0)
    errors = [float((value - start).abs().max()) for value, start in zip(again, inputs, strict=True) if start.numel()]
    error = max(errors, default=0.0) if all(one == one for one in errors) else float("inf")
    return 0.0 if error == 0.0 else error / largest if largest else float("inf")
