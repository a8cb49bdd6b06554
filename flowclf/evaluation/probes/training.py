"""A probe: a classifier of standardised features, trained with early stopping on held-out data, and what it bounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from flowclf.architectures.nuisance_classifiers import mlp
from flowclf.errors import UsageError
from flowclf.modes import evaluating, learning


class ProbeScore(NamedTuple):
    """Error of a probe on a split, a fraction of 1, and its mean cross-entropy, nats."""

    error: float
    cross_entropy_nats: float


class Probe(nn.Module):
    """A classifier of features, standardised by a mean and a positive standard deviation (D,).

    Attributes:
        epochs: number of epochs of training.
        validation: score of the best epoch's weights on validation data.
        growth: about how many times the parameters of the first size of its kind it has.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.epochs = 0
        self.validation = ProbeScore(math.nan, math.nan)
        self.growth = 1.0

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, K) of features (B, D) as they are, not standardised."""
        logits: Tensor = self.network((features - self.mean) / self.std)
        return logits


@learning()
def train_probe(
    train_features: Tensor | Sequence[Tensor],
    train_labels: Tensor,
    validation_features: Tensor,
    validation_labels: Tensor,
    classes: int,
    *,
    network: Callable[[], nn.Module] | None = None,
    epochs_max: int = 15,
    patience: int = 3,
    batch_size: int = 512,
    learning_rate: float = 1e-3,
    anneal: bool = False,
    epoch_steps: int = 1,
    seed: int = 0,
    device: torch.device | str = "cpu",
    advance: Callable[[int], object] | None = None,
) -> Probe:
    """Train a fresh classifier to convergence on features, with early stopping by its cross-entropy on validation data.

    Adam; after an epoch without improvement the best weights are restored and the learning rate is divided by 5. Features are
    standardised by their training mean and standard deviation; a dimension that hardly varies (1e-3 of the median deviation) is
    not blown up. The global random state neither matters nor changes.

    Args:
        train_features: (N, D), taken as float32; or several draws of them, each (N, D), of the same examples with other noise. Pass
            p through the examples, from 0, uses draw p mod R of R. The first sets the mean and the deviation.
        validation_features: (M, D), taken as float32.
        train_labels, validation_labels: (N,) and (M,), in 0..classes-1.
        classes: K.
        network: makes the untrained network, (B, D) -> (B, K); by default :func:`mlp`.
        epochs_max: largest number of epochs.
        patience: epochs in a row without improvement that end the training.
        batch_size: examples per step; a last, smaller batch is left out.
        learning_rate: Adam's, in the first epoch.
        anneal: whether the learning rate also falls from epoch to epoch along half a cosine, which would end at 0 after
            ``epochs_max``: fewer epochs then suffice.
        epoch_steps: smallest number of steps in an epoch, which passes through few examples several times; otherwise once.
        seed: random seed of the initial weights and of the order of the examples.
        device: where to train.
        advance: called with 1 after each epoch.

    Returns:
        The probe with the weights of the best epoch, in eval mode, on ``device``.

    Raises:
        UsageError: if a split is empty, there is no draw, or there is a single training example; if features and labels do not
            match, a label is outside 0..classes-1, a feature is not finite, or ``epochs_max``, ``patience``, ``batch_size`` or
            ``epoch_steps`` is below 1.
    """
    draws = [train_features] if isinstance(train_features, Tensor) else train_features
    if not len(draws):
        raise UsageError("probe, training data: expected at least one draw of features, found none")
    first = draws[0]
    check_features("training", first, train_labels, classes)
    check_features("validation", validation_features, validation_labels, classes)
    if len(train_labels) < 2:
        raise UsageError("a probe: expected at least 2 training examples, found 1")
    if min(epochs_max, patience, batch_size, epoch_steps) < 1:
        raise UsageError(
            "a probe's epochs_max, patience, batch_size and epoch_steps are at least 1, "
            f"found {epochs_max}, {patience}, {batch_size}, {epoch_steps}"
        )
    features, labels = first.to(device, torch.float32), train_labels.to(device)
    mean, std = standardization(features)
    batch_size = min(batch_size, len(labels))
    steps = len(labels) // batch_size
    passes, passed = -(-epoch_steps // steps), 0
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        made = mlp(features.shape[1], classes) if network is None else network()
        probe = Probe(made, mean, std).to(device, torch.float32)
        order = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.Adam(probe.parameters(), lr=learning_rate)
        best: dict[str, Tensor] = {}
        waited = 0
        while probe.epochs < epochs_max and waited < patience:
            probe.train()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * ((1 + math.cos(math.pi * probe.epochs / epochs_max)) / 2 if anneal else 1)
            for _ in range(passes):
                if passed and len(draws) > 1:
                    draw = draws[passed % len(draws)]
                    if passed < len(draws):
                        check_features("training", draw, train_labels, classes)
                    features = draw.to(device, torch.float32)
                passed += 1
                permutation = torch.randperm(len(labels), generator=order)[: steps * batch_size]
                for chosen in torch.split(permutation.to(device), batch_size):
                    loss = functional.cross_entropy(probe(features[chosen]), labels[chosen])
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
            probe.epochs += 1
            score = score_probe(probe, validation_features, validation_labels)
            if not best or score.cross_entropy_nats < probe.validation.cross_entropy_nats:
                probe.validation, waited = score, 0
                best = {name: value.clone() for name, value in probe.state_dict().items()}
            else:
                waited += 1
                probe.load_state_dict(best)
                learning_rate /= 5
            if advance is not None:
                advance(1)
    return probe.eval()


def score_probe(probe: Probe, features: Tensor, labels: Tensor, *, batch_size: int = 2000) -> ProbeScore:
    """Error and cross-entropy of a probe on features (N, D) with labels (N,), in eval mode.

    Raises:
        UsageError: if there are no examples.
    """
    if not len(labels):
        raise UsageError("expected at least one example to score a probe on, found none")
    wrong, nats = 0, 0.0
    with evaluating(probe):
        for part, target in zip(torch.split(features, batch_size), torch.split(labels, batch_size), strict=True):
            logits = probe(part.to(probe.mean)).double()
            target = target.to(logits.device)
            wrong += int((logits.argmax(1) != target).sum())
            nats += functional.cross_entropy(logits, target, reduction="sum").item()
    return ProbeScore(wrong / len(labels), nats / len(labels))


def standardization(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (D,) of features (N, D); the deviation is at least 1e-3 of the median one, and positive."""
    std, mean = torch.std_mean(features, dim=0, correction=0)
    return mean, std.clamp_min(max(1e-3 * std.median().item(), 1e-6))


def check_features(split: str, features: Tensor, labels: Tensor, classes: int) -> None:
    """Raise UsageError as :func:`train_probe` documents, for one split."""
    if features.dim() != 2 or labels.shape != features.shape[:1] or not len(labels):
        raise UsageError(
            f"probe, {split} data: expected features (N, D) and labels (N,) of at least one example, found "
            f"{tuple(features.shape)} and {tuple(labels.shape)}"
        )
    low, high = int(labels.min()), int(labels.max())
    if not 0 <= low <= high < classes:
        raise UsageError(f"probe, {split} data: expected labels in 0..{classes - 1}, found {low}..{high}")
    if not torch.isfinite(features).all():
        raise UsageError(f"probe, {split} data: expected finite features, found some that are not")


def entropy_nats(labels: Tensor) -> float:
    """H(y) of the classes' frequencies among labels (N,), nats.

    Example:
        >>> round(entropy_nats(torch.tensor([0, 1, 2, 3])), 4)
        1.3863
    """
    counts = torch.bincount(labels.cpu()).double()
    shares = counts[counts > 0] / counts.sum()
    return -(shares * shares.log()).sum().item() + 0.0


def mutual_information_nats(labels: Tensor, cross_entropy: float) -> float:
    """Lower bound on I(y; z_n), nats: H(y) - CE(probe), both on the same data (paper, Lemma 9).

    Negative if the probe does worse than the classes' frequencies.

    Args:
        labels: (N,), of the data on which the cross-entropy was measured.
        cross_entropy: the probe's, nats.
    """
    return entropy_nats(labels) - cross_entropy
