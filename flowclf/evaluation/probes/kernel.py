"""A probe that is no network: kernel ridge regression, solved in closed form."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from flowclf.errors import UsageError
from flowclf.evaluation.probes.training import Probe, check_features, score_probe, standardization

KERNEL_BANDWIDTHS = (0.35, 0.7, 1.4)
"""Candidates for a kernel probe's bandwidth, in units of the median distance between centres."""

_CHUNK = 4096
_CENTRES = 2048


class KernelMachine(nn.Module):
    """s (k(x, c_1), ..., k(x, c_M), 1) W with the Gaussian kernel k(x, c) = exp(-|x - c|^2 / (2 h^2)).

    The centres c are (M, D), h is the bandwidth, the weights W are (M + 1, K), and the scale s turns regression values into logits.
    """

    centres: Tensor
    weights: Tensor

    def __init__(self, centres: Tensor, bandwidth: float, weights: Tensor, scale: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("centres", centres)
        self.register_buffer("weights", weights)
        self.bandwidth = bandwidth
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of standardised features (B, D)."""
        return self.scale * (_kernel(x, self.centres, self.bandwidth) @ self.weights)


def _kernel(x: Tensor, centres: Tensor, bandwidth: float) -> Tensor:
    """k(x, c) (B, M), and a column of ones."""
    distance = x.square().sum(1, keepdim=True) + centres.square().sum(1) - 2 * (x @ centres.T)
    values = torch.exp(-distance.clamp_min(0) / (2 * bandwidth**2))
    return torch.cat([values, values.new_ones(len(x), 1)], dim=1)


def train_kernel_probe(
    train_features: Tensor,
    train_labels: Tensor,
    validation_features: Tensor,
    validation_labels: Tensor,
    classes: int,
    *,
    centres: int = _CENTRES,
    bandwidths: Sequence[float] = KERNEL_BANDWIDTHS,
    penalties: Sequence[float] = (1e-6, 1e-4, 1e-2),
    seed: int = 0,
    device: torch.device | str = "cpu",
    advance: Callable[[int], object] | None = None,
) -> Probe:
    """Kernel ridge regression of the one-hot labels on standardised features, through random training examples as centres.

    This is the Nystroem approximation (C. Williams and M. Seeger, Using the Nystroem method to speed up kernel machines, 2001).
    Bandwidth and penalty are those with the lowest cross-entropy on validation data, where the one scale that turns the values
    of the regression into logits is fitted too.

    Args:
        train_features, train_labels, validation_features, validation_labels, classes, device: as for :func:`train_probe`.
        centres: number of centres, at most N.
        bandwidths: candidates for h, in units of the median distance between centres.
        penalties: candidates for the ridge penalty per example, relative to the mean square of a kernel value.
        seed: random seed of the centres.
        advance: called with 1 after each bandwidth.

    Raises:
        UsageError: if :func:`~flowclf.evaluation.probes.train_probe` raises it; if there is no centre, bandwidth or penalty; if
            features are near float32's limit.
    """
    check_features("training", train_features, train_labels, classes)
    check_features("validation", validation_features, validation_labels, classes)
    if centres < 1 or not bandwidths or not penalties or min(*bandwidths, *penalties) <= 0:
        raise UsageError(
            "a kernel probe: expected at least one centre and bandwidth and penalty, all positive, "
            f"found {centres}, {bandwidths}, {penalties}"
        )
    features, labels = train_features.to(device, torch.float32), train_labels.to(device)
    mean, std = standardization(features)
    features = (features - mean) / std
    chosen = features[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))[:centres].to(device)]
    typical = torch.pdist(chosen[:1000]).median().item() if len(chosen) > 1 else 1.0
    candidates: list[Probe] = []
    with torch.no_grad():
        for width in bandwidths:
            bandwidth = max(width * typical, 1e-6)
            for weights in _ridge(features, labels, classes, chosen, bandwidth, penalties):
                machine = KernelMachine(chosen, bandwidth, weights.float())
                probe = Probe(machine, mean, std).to(device).eval()
                values = torch.cat([probe(part.to(mean)) for part in torch.split(validation_features, _CHUNK)])
                machine.scale = _scale(values, validation_labels.to(values.device))
                probe.validation, probe.epochs = score_probe(probe, validation_features, validation_labels), 1
                candidates.append(probe)
            if advance is not None:
                advance(1)
    return min(candidates, key=lambda probe: probe.validation.cross_entropy_nats)


def kernel_seconds(features: Tensor, examples: int) -> float:
    """How long :func:`train_kernel_probe` takes for this many training examples, seconds, measured on some features (M, D)."""
    centres = features.repeat(-(-_CENTRES // len(features)), 1)[:_CENTRES]
    started = time.perf_counter()
    values = _kernel(features, centres, 1.0).double()
    (values.T @ values).sum().item()
    return len(KERNEL_BANDWIDTHS) * examples / len(features) * (time.perf_counter() - started)


def _ridge(
    features: Tensor, labels: Tensor, classes: int, centres: Tensor, bandwidth: float, penalties: Sequence[float]
) -> list[Tensor]:
    """W (M + 1, K) for each penalty; the normal equations are summed over chunks, in float64."""
    gram = moment = torch.zeros((), dtype=torch.float64, device=features.device)
    for part, target in zip(torch.split(features, _CHUNK), torch.split(labels, _CHUNK), strict=True):
        # In float32 the rounding of the sums would outweigh the smaller penalties.
        values = _kernel(part, centres, bandwidth).double()
        gram = gram + values.T @ values
        moment = moment + values.T @ (functional.one_hot(target, classes).double() - 1 / classes)
    unit = gram.diagonal().mean()
    if not unit.isfinite():
        raise UsageError("a kernel probe: expected features whose differences are finite in float32, found larger ones")
    damping = unit * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return [torch.cholesky_solve(moment, torch.linalg.cholesky(gram + penalty * damping)) for penalty in penalties]


def _scale(values: Tensor, labels: Tensor) -> float:
    """The factor on regression values (N, K) with the lowest cross-entropy, found on a logarithmic grid, then a finer one."""
    grid = torch.logspace(-2, 2, 41)
    for _ in range(2):
        nats = torch.stack([functional.cross_entropy(factor * values.double(), labels) for factor in grid])
        best = grid[int(nats.argmin())].item()
        grid = best * torch.logspace(-0.1, 0.1, 21)
    return best
