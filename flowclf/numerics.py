"""How well a classifier inverts, in its own precision: the two round trips, and the modes in which to measure and to repeat."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from flowclf.errors import UsageError

if TYPE_CHECKING:
    from flowclf.classifier import InvertibleClassifier

__all__ = ["InverseError", "evaluating", "forward_inverse_error", "inverse_error", "repeatable"]


class InverseError(NamedTuple):
    """Error of a round trip over all examples and dimensions, in the units of what went round.

    Attributes:
        max: the largest absolute difference; NaN if a value was not finite.
        mean: the mean absolute difference.
    """

    max: float
    mean: float


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode, no gradients and no TF32 in convolutions within the block; what was set before is set again afterwards.

    By default torch lets a GPU round what convolutions of float32 multiply to TF32, 10 bits of mantissa. What is then off by a
    thousandth is not the classifier's inverse but its measurement. Every submodule gets its own mode back.

    Example:
        >>> net = nn.Dropout()
        >>> with evaluating(net):
        ...     net.training
        False
        >>> net.training
        True
    """
    modes = [(part, part.training) for part in module.modules()]
    # Since torch 2.9 each kind of operation has a setting of its own, and the old one cannot be read where they differ.
    cudnn = torch.backends.cudnn
    owner, setting, full = (cudnn.conv, "fp32_precision", "ieee") if hasattr(cudnn, "conv") else (cudnn, "allow_tf32", False)
    rounding = getattr(owner, setting)
    try:
        setattr(owner, setting, full)
        module.eval()
        with torch.no_grad():
            yield
    finally:
        setattr(owner, setting, rounding)
        for part, training in modes:
            part.training = training


@contextlib.contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """The same work on the same device gives the same bits within the block; torch's settings are put back afterwards.

    A CPU needs nothing for it. A GPU is told to add up in a fixed order, which some operations do not by themselves
    (``torch.use_deterministic_algorithms``), and cuDNN not to choose by time; what has no such order goes on as it is, and torch
    warns of it. The environment variable ``CUBLAS_WORKSPACE_CONFIG`` is set, if it is not, and stays set.

    Example:
        >>> with repeatable(torch.device("cpu")):
        ...     torch.ones(2).sum().item()
        2.0
    """
    if device.type != "cuda":
        yield
        return
    # Older releases of torch ask for it before they call a matrix product of cuBLAS repeatable.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    enabled, warn_only = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    fill, benchmark = memory.fill_uninitialized_memory, torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True, warn_only=warn_only or not enabled)
    # All memory is written before it is read; filling it first would only take time.
    memory.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        memory.fill_uninitialized_memory = fill
        torch.backends.cudnn.benchmark = benchmark


def inverse_error(clf: InvertibleClassifier, x: Tensor, *, batch_size: int = 128) -> InverseError:
    """|F^-1(F(x)) - x| over network inputs x (N, *input_shape), in eval mode and the classifier's own precision.

    Example:
        >>> import flowclf
        >>> clf = flowclf.build_classifier(input_shape=(4,), nodes=["actnorm", "split_head"], classes=2)
        >>> inverse_error(clf, torch.zeros(3, 4)).max < 1e-6
        True

    Raises:
        UsageError: x is empty.
    """
    with evaluating(clf):
        return _over_batches(x.to(clf.device, clf.dtype), batch_size, lambda batch: clf.inverse(*clf.latents(batch)))


def forward_inverse_error(clf: InvertibleClassifier, logits: Tensor, nuisance: Tensor, *, batch_size: int = 128) -> InverseError:
    """|F(F^-1(z)) - z| over z = (logits (N, K), nuisance (N, D-K)), in eval mode and the classifier's own precision.

    Raises:
        UsageError: z is empty.
    """
    classes = logits.shape[1]
    z = torch.cat([logits, nuisance], dim=1)

    def there_and_back(batch: Tensor) -> Tensor:
        return torch.cat(clf.latents(clf.inverse(batch[:, :classes], batch[:, classes:])), dim=1)

    with evaluating(clf):
        return _over_batches(z.to(clf.device, clf.dtype), batch_size, there_and_back)


def _over_batches(values: Tensor, batch_size: int, round_trip: Callable[[Tensor], Tensor]) -> InverseError:
    if not values.numel():
        raise UsageError(f"expected at least one example to invert, found shape {tuple(values.shape)}")
    worst: list[Tensor] = []
    total = 0.0
    for batch in torch.split(values, batch_size):
        difference = (round_trip(batch) - batch).abs()
        worst.append(difference.max())
        total += difference.double().sum().item()
    return InverseError(torch.stack(worst).max().item(), total / values.numel())
