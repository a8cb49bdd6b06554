"""Several draws of the training data's noise and augmentation, so that probes do not mistake one draw's noise for the class."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from flowclf.data.seeding import generator, mix_seed
from flowclf.evaluation.context import MetricContext
from flowclf.evaluation.encoding import encode

_MEMORY_BYTES = 2**31
"""Memory for the nuisances of all draws together: 2 GiB."""

_CHUNK = 1024


class Draws(Sequence[Tensor]):
    """Features (N, D) of the same examples in several draws, each made when it is used.

    Args:
        make: the features of a draw, from 0.
        count: number of draws.

    Example:
        >>> draws = Draws(lambda draw: 10 * draw + torch.arange(3)[:, None], 2)
        >>> len(draws), draws.take(torch.tensor([0, 2]))[1].tolist()
        (2, [[10], [12]])
    """

    def __init__(self, make: Callable[[int], Tensor], count: int) -> None:
        self._make, self._count = make, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, draw: int) -> Tensor:  # type: ignore[override]
        if not 0 <= draw < self._count:
            raise IndexError(f"expected a draw from 0 to {self._count - 1}, found {draw}")
        return self._make(draw)

    def take(self, indices: Tensor) -> Draws:
        """The examples at some indices, of every draw."""
        return Draws(lambda draw: self[draw][indices], self._count)


def nuisance_draws(context: MetricContext, examples: int | None = None) -> Draws:
    """Nuisances of the training examples, or of the first ``examples``, in as many draws as the protocol says and 2 GiB hold.

    Draw 0 is the encoding that all metrics share, without augmentation. In the others, dequantisation noise and the data set's
    augmentation depend on the context's seed and the number of the draw alone; each is encoded when it is first used, and kept.
    Continuous data without augmentation would be the same each time, so there is only one.
    """
    first = context.encoded("train").nuisance[:examples]
    count = draw_count(context, len(first))
    return Draws(functools.cache(lambda draw: _nuisances(context, draw, len(first)) if draw else first), count)


def draw_count(context: MetricContext, examples: int) -> int:
    """Number of draws of this many training examples."""
    if not (context.data.augment or context.has("images")):
        return 1
    clf = context.invertible
    bytes_per_draw = examples * (clf.dimensions - clf.classes) * clf.dtype.itemsize
    return max(1, min(context.protocol.probe_draws, _MEMORY_BYTES // max(1, bytes_per_draw)))


def _nuisances(context: MetricContext, draw: int, examples: int) -> Tensor:
    augment, left = context.data.augment, examples
    found = []
    with context.progress.task(f"encoding draw {draw + 1}", examples) as task:
        for position, part in enumerate(context.data.train.batches(_CHUNK)):
            inputs = part.head(left).inputs
            left -= len(inputs)
            purpose = (context.seed, "probe", draw, position)
            changed = augment(inputs, generator(*purpose, "augmentation")) if augment else inputs
            found.append(encode(context.invertible, changed, seed=mix_seed(*purpose), advance=task.advance).nuisance)
            if not left:
                break
    return torch.cat(found)
