"""The processes that share a training, with torch.distributed: who has which part of a batch, and what they add up.

``torchrun`` starts them, or ``flowclf recipe run --processes``; each runs the same program. Their gradients are averaged after the
backward pass, so that losses, adversaries and recomputed activations work as in one process.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

from flowclf.errors import ProcessError, UsageError

TIMEOUT_SECONDS = 600
"""How long a process waits for the others before it gives up."""


@dataclass(frozen=True)
class Processes:
    """The processes of a training, seen from one of them.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.

    Example:
        >>> alone = Processes()
        >>> alone.first, alone.share
        (True, slice(0, None, 1))
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes files and speaks."""
        return self.rank == 0

    @property
    def share(self) -> slice:
        """This process's part of a batch: position p goes to process p modulo the number of processes."""
        return slice(self.rank, None, self.size)

    def sum(self, values: Tensor) -> Tensor:
        """The sum of the processes' values, on each of them; a new tensor.

        Raises:
            ProcessError: if another process has ended, or does not answer in time; so do all that follow.
        """
        values = values.clone()
        if self.size > 1:
            try:
                distributed.all_reduce(values)
            except RuntimeError as error:
                raise ProcessError(
                    f"process {self.rank} of {self.size}: another process ended, or did not answer within {TIMEOUT_SECONDS} seconds"
                ) from error
        return values

    def sums(self, values: dict[str, float], device: torch.device) -> dict[str, float]:
        """The sums of the processes' numbers, which have the same keys."""
        if self.size == 1:
            return dict(values)
        together = self.sum(torch.tensor(list(values.values()), dtype=torch.float64, device=device))
        return dict(zip(values, together.tolist(), strict=True))

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any process."""
        if self.size == 1:
            return flag
        device = torch.device("cuda", torch.cuda.current_device()) if distributed.get_backend() == "nccl" else "cpu"
        return bool(self.sum(torch.tensor(float(flag), device=device)) > 0)

    def means(self, values: dict[str, float], device: torch.device) -> dict[str, float]:
        """The means of the processes' numbers, which have the same keys."""
        return {name: total / self.size for name, total in self.sums(values, device).items()}

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by the processes' mean. Parameters have a gradient on all processes or on none."""
        if self.size == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for group in _by_type(gradients):
            together = self.sum(torch.cat([gradient.flatten() for gradient in group])).div_(self.size)
            for gradient, part in zip(group, torch.split(together, [gradient.numel() for gradient in group]), strict=True):
                gradient.copy_(part.view_as(gradient))

    def broadcast(self, modules: Iterable[nn.Module]) -> None:
        """Give all processes the first one's parameters and buffers."""
        if self.size > 1:
            for module in modules:
                for tensor in (*module.parameters(), *module.buffers()):
                    distributed.broadcast(tensor.data, src=0)


def _by_type(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        yield [tensor for tensor in tensors if tensor.dtype == dtype]


def current() -> Processes:
    """The processes of the group that :func:`joined` opened, or this one alone."""
    if distributed.is_available() and distributed.is_initialized():
        return Processes(distributed.get_rank(), distributed.get_world_size())
    return Processes()


def are_several() -> bool:
    """Whether torchrun started this process beside others."""
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextlib.contextmanager
def joined(device: torch.device | str) -> Iterator[Processes]:
    """Within the block, this process belongs to the group that torchrun's environment variables describe, if they do.

    On GPUs each process takes the one of its local rank, with nccl; elsewhere they talk by gloo.

    Raises:
        UsageError: if there are fewer GPUs on this machine than processes.
    """
    if not are_several():
        yield Processes()
        return
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise UsageError(f"processes: expected a GPU for each, found {torch.cuda.device_count()} for process {local} here")
        torch.cuda.set_device(local)
    distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=datetime.timedelta(seconds=TIMEOUT_SECONDS))
    try:
        yield current()
    finally:
        distributed.destroy_process_group()


@contextlib.contextmanager
def synchronized_norms(modules: Iterable[nn.Module], processes: Processes) -> Iterator[None]:
    """Within the block, batch norms in training mode take mean and variance of the whole batch, not of this process's share."""
    if processes.size == 1:
        yield
        return
    norms = [norm for module in modules for norm in module.modules() if isinstance(norm, nn.modules.batchnorm._BatchNorm)]
    norms = [norm for norm in norms if "forward" not in vars(norm)]
    for norm in norms:
        norm.forward = _Synchronized(norm)  # type: ignore[assignment]
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


class _Synchronized:
    """The forward of a batch norm with the statistics of all processes; torch's own SyncBatchNorm is for GPUs alone."""

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm) -> None:
        self.norm = norm

    def __call__(self, x: Tensor) -> Tensor:
        norm = self.norm
        if not norm.training:
            return type(norm).forward(norm, x)
        axes = [axis for axis in range(x.dim()) if axis != 1]
        shape = (1, -1, *(1,) * (x.dim() - 2))
        own = x.new_full((1,), x.numel() // x.shape[1])
        sums = _sum_with_gradient(torch.cat((x.sum(axes), own)))
        mean, count = sums[:-1] / sums[-1], sums[-1].detach()
        centred = x - mean.view(shape)
        variance = _sum_with_gradient(centred.square().sum(axes)) / count
        if norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None:
            with torch.no_grad():
                norm.num_batches_tracked.add_(1)
                share = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
                norm.running_mean.lerp_(mean.to(norm.running_mean), share)
                norm.running_var.lerp_((variance * count / (count - 1)).to(norm.running_var), share)
        y = centred * (variance + norm.eps).rsqrt().view(shape)
        if norm.affine:
            y = y * norm.weight.view(shape) + norm.bias.view(shape)
        return y


class _Sum(torch.autograd.Function):
    """The sum over processes; so is its gradient."""

    @staticmethod
    def forward(ctx: object, values: Tensor) -> Tensor:
        return current().sum(values)

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return current().sum(grad.contiguous())


def _sum_with_gradient(values: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(values)  # type: ignore[no-untyped-call]
    return total
