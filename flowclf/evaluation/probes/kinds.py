"""Kinds of probes: what each takes, how it is trained, and in which protocols.

Any package can add one, as an entry point of the group ``flowclf.probes`` with the name of the probe. Its results are
``probe.<name>.*``, and its test error counts towards ``probe.test_error`` under the protocols that it names.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from flowclf import registry
from flowclf.architectures.nuisance_classifiers import ConvolutionalProbe, mlp
from flowclf.classifier import InvertibleClassifier
from flowclf.errors import UsageError
from flowclf.evaluation.probes.kernel import KERNEL_BANDWIDTHS, kernel_seconds, train_kernel_probe
from flowclf.evaluation.probes.training import Probe, train_probe
from flowclf.settings import ProbeSettings


@dataclass(frozen=True)
class ProbeKind:
    """A kind of probe: a network that flowclf trains, or a trainer of its own.

    Attributes:
        description: a few words for the report.
        network: makes an untrained network, standardised nuisances (B, D-K) -> logits (B, K), for a classifier and the settings
            of the probes. None for a trainer that needs none.
        trainer: has the signature of :func:`flowclf.evaluation.probes.train_probe`; receives ``network``, ``epochs_max`` and
            ``patience`` only if there is a network.
        takes: ``vectors``; or ``feature_maps``, into which ``clf.nuisance_maps`` turns the nuisances of images. Such a probe is not
            trained for classifiers of vectors.
        protocols: the protocols that train it.
        steps: number of times that a trainer without a network calls ``advance(1)``.
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
    network: Callable[[InvertibleClassifier, ProbeSettings], nn.Module] | None = None
    trainer: Callable[..., Probe] = train_probe
    takes: Literal["vectors", "feature_maps"] = "vectors"
    protocols: tuple[str, ...] = ("full",)
    steps: int = 1
    seconds: Callable[[Tensor, int], float] | None = None

    def __post_init__(self) -> None:
        if self.network is None and self.trainer is train_probe:
            raise UsageError(f"probe '{self.description}': expected a network or a trainer, found neither")


def registered_probes() -> dict[str, ProbeKind]:
    """All kinds of probes by name. Any that cannot be loaded is left out, with a warning that names it."""
    kinds = {}
    # The built-in probes come first, since the first of two equally good ones is selected.
    for name, kind in registry.probes.usable("mlp", "conv", "kernel"):
        if isinstance(kind, ProbeKind) and re.fullmatch("[a-z0-9_]+", name):
            kinds[name] = kind
        else:
            found = type(kind).__name__
            warnings.warn(f"probe '{name}' is left out: expected a lower-case name and a ProbeKind, found {found}", stacklevel=2)
    return kinds


def probe_kinds(protocol: str, *, images: bool) -> dict[str, ProbeKind]:
    """The kinds of probes that a protocol trains, by name, for classifiers of ``images`` or of vectors."""
    kinds = registered_probes().items()
    return {name: kind for name, kind in kinds if protocol in kind.protocols and (images or kind.takes == "vectors")}


MLP = ProbeKind(
    "fully connected, on the nuisances as a vector",
    network=lambda clf, settings: mlp(clf.dimensions - clf.classes, clf.classes, settings.hidden),
    protocols=("quick", "full"),
)
CONV = ProbeKind(
    "convolutional, on the nuisances as feature maps",
    network=lambda clf, settings: ConvolutionalProbe(clf, clf.classes),
    takes="feature_maps",
)
KERNEL = ProbeKind("kernel ridge regression", trainer=train_kernel_probe, steps=len(KERNEL_BANDWIDTHS), seconds=kernel_seconds)
