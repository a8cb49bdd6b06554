"""Kinds of probes: what each takes, how it is trained, and in which protocols.

Any package can add one, as an entry point of the group ``flowclf.probes`` with the name of the probe. Its results are
``probe.<name>.*``, and its test error counts towards ``probe.test_error`` under the protocols that it names.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from flowclf import registry
from flowclf.architectures.nuisance_classifiers import ConvolutionalProbe, mlp, residual_blocks, widened
from flowclf.classifier import InvertibleClassifier
from flowclf.errors import UsageError
from flowclf.evaluation.probes.kernel import KERNEL_BANDWIDTHS, kernel_seconds, train_kernel_probe
from flowclf.evaluation.probes.training import Probe, train_probe
from flowclf.registry import nearest
from flowclf.settings import ProbeSettings


@dataclass(frozen=True)
class ProbeKind:
    """A kind of probe: a network that flowclf trains, or a trainer of its own.

    Attributes:
        description: a few words for the report.
        network: makes an untrained network, standardised nuisances (B, D-K) -> logits (B, K), for a classifier and the settings
            of the probes. None for a trainer that needs none.
        trainer: has the signature of :func:`flowclf.evaluation.probes.train_probe`; receives ``network``, ``epochs_max`` and
            ``patience`` only if there is a network, and whatever else a protocol sets only if it takes draws.
        takes: ``vectors``; or ``feature_maps``, into which ``clf.nuisance_maps`` turns the nuisances of images. Such a probe is not
            trained for classifiers of vectors.
        protocols: the protocols that train it.
        steps: number of times that a trainer without a network calls ``advance(1)``.
        grows: whether ``network`` takes a third argument, the size: about how many times the parameters of its first size it has.
            Protocols in which probes grow train larger networks of the kind too; :func:`flowclf.evaluation.probes.widened` helps.
        takes_draws: whether ``trainer`` takes several draws of the training data, and ``batch_size``, ``learning_rate``, ``anneal``
            and ``epoch_steps``, as ``train_probe`` does; others receive the first draw. None: if it is ``train_probe``.
        seconds: for a trainer without a network, how long it takes in seconds, measured with some features (M, D) for a number of
            training examples; None if unknown.

    Raises:
        UsageError: if there is neither a network nor a trainer.

    Example:
        >>> linear = ProbeKind("linear", network=lambda clf, settings: nn.Linear(clf.dimensions - clf.classes, clf.classes))
        >>> linear.protocols
        ('full',)
    """

    description: str
    network: Callable[..., nn.Module] | None = None
    trainer: Callable[..., Probe] = train_probe
    takes: Literal["vectors", "feature_maps"] = "vectors"
    protocols: tuple[str, ...] = ("full",)
    steps: int = 1
    grows: bool = False
    takes_draws: bool | None = None
    seconds: Callable[[Tensor, int], float] | None = None

    def __post_init__(self) -> None:
        if self.network is None and self.trainer is train_probe:
            raise UsageError(f"probe '{self.description}': expected a network or a trainer, found neither")

    @property
    def trained_on_draws(self) -> bool:
        """Whether the trainer receives several draws of the training data, where the protocol makes them."""
        return self.trainer is train_probe if self.takes_draws is None else self.takes_draws


def registered_probes() -> dict[str, ProbeKind]:
    """All kinds of probes by name. Any that cannot be loaded is left out, with a warning that names it."""
    kinds = {}
    # The built-in probes come first, since the first of two equally good ones is selected.
    for name, kind in registry.probes.usable("mlp", "conv", "residual", "kernel"):
        if isinstance(kind, ProbeKind) and re.fullmatch("[a-z0-9_]+", name):
            kinds[name] = kind
        else:
            found = type(kind).__name__
            warnings.warn(f"probe '{name}' is left out: expected a lower-case name and a ProbeKind, found {found}", stacklevel=2)
    return kinds


def probe_kinds(protocol: str, *, images: bool, only: Sequence[str] | None = None) -> dict[str, ProbeKind]:
    """The kinds of probes that a protocol trains, by name, for classifiers of ``images`` or of vectors.

    Args:
        protocol: the protocol's name.
        images: whether the classifier takes images.
        only: names of the kinds to train in place of the protocol's.

    Raises:
        UsageError: if a name is not registered, or none of those named can be trained.
    """
    kinds = registered_probes()
    if unknown := [name for name in only or () if name not in kinds]:
        raise UsageError(f"probes: unknown kind '{unknown[0]}'{nearest(unknown[0], kinds)}")
    wanted = {name: kind for name, kind in kinds.items() if (protocol in kind.protocols if only is None else name in only)}
    chosen = {name: kind for name, kind in wanted.items() if images or kind.takes == "vectors"}
    if only is not None and not chosen:
        raise UsageError(f"probes: vectors have no feature maps, which {', '.join(only)} takes")
    return chosen


def _mlp(clf: InvertibleClassifier, settings: ProbeSettings, size: float = 1) -> nn.Module:
    return mlp(clf.dimensions - clf.classes, clf.classes, [widened(units, size) for units in settings.hidden])


def _conv(clf: InvertibleClassifier, settings: ProbeSettings, size: float = 1) -> nn.Module:
    return ConvolutionalProbe(clf, clf.classes, widened(64, size), widened(256, size))


def _residual(clf: InvertibleClassifier, settings: ProbeSettings, size: float = 1) -> nn.Module:
    return ConvolutionalProbe(clf, clf.classes, widened(40, size), widened(256, size), residual_blocks)


MLP = ProbeKind("fully connected, on the nuisances as a vector", network=_mlp, protocols=("quick", "full"), grows=True)
CONV = ProbeKind("convolutional, on the nuisances as feature maps", network=_conv, takes="feature_maps", grows=True)
RESIDUAL = ProbeKind("residual, on the nuisances as feature maps", network=_residual, takes="feature_maps", grows=True)
KERNEL = ProbeKind("kernel ridge regression", trainer=train_kernel_probe, steps=len(KERNEL_BANDWIDTHS), seconds=kernel_seconds)
