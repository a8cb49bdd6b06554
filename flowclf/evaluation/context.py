"""What metrics are computed from: a model, data, and whatever is expensive, computed once for all metrics that share it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from flowclf.classifier import Classifier, InvertibleClassifier, require_invertible
from flowclf.data import DataSet, Oracle, Split
from flowclf.errors import FlowclfError, UsageError
from flowclf.evaluation.encoding import Encoded, encode, network_inputs
from flowclf.evaluation.oracles import ready_oracle
from flowclf.evaluation.protocols import PROTOCOLS
from flowclf.registry import nearest
from flowclf.settings import ProbeSettings
from flowclf.training.progress import Progress, SilentProgress

T = TypeVar("T")
Need = Literal["inverse", "images", "oracle", "truth", "fixed_point"]

_METAMER_IMAGES = 10_000


class MetricContext:
    """A model on data, under a protocol. Use it in eval mode, as :func:`flowclf.evaluate` does.

    Args:
        classifier, data, protocol, seed, oracle, probe, progress: as for :func:`flowclf.evaluate`.

    Attributes:
        classifier, data, seed, progress: as given.
        protocol_name, protocol: the protocol's name, and the protocol.
        oracle: the oracle as a function, see :data:`flowclf.data.Oracle`, or None.
        probe_settings: settings of the probes.
        splits: ``train``, ``validation`` and ``test``.

    Raises:
        UsageError: if an argument is of another type, the protocol does not exist, or the oracle does not fit the classifier.
    """

    def __init__(
        self,
        classifier: Classifier,
        data: DataSet,
        *,
        protocol: str = "quick",
        seed: int = 0,
        oracle: Oracle | Classifier | None = None,
        probe: ProbeSettings | None = None,
        progress: Progress | None = None,
    ) -> None:
        for value, kind, instead in (
            (classifier, Classifier, "flowclf.build_classifier, flowclf.plain_classifier or flowclf.load makes one"),
            (data, DataSet, "flowclf.data.load or flowclf.data.DataSet.from_arrays makes one"),
        ):
            if not isinstance(value, kind):
                raise UsageError(f"evaluate: expected a flowclf {kind.__name__}, found a {type(value).__name__}; {instead}")
        if protocol not in PROTOCOLS:
            raise UsageError(f"unknown evaluation protocol '{protocol}'{nearest(str(protocol), PROTOCOLS)}")
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise UsageError(f"evaluate: seed: expected an integer, found {seed!r}")
        self.classifier, self.data, self.seed = classifier, data, seed
        self.protocol_name, self.protocol = protocol, PROTOCOLS[protocol]
        given = data.oracle if oracle is None else oracle
        self.oracle = None if given is None else ready_oracle(given, classifier)
        self.probe_settings = probe or ProbeSettings()
        self.progress = progress or SilentProgress()
        self.splits: Mapping[str, Split] = {"train": data.train, "validation": data.validation, "test": data.test}
        self._encoded: dict[str, Encoded] = {}
        self._shared: dict[Callable[[MetricContext], Any], Any] = {}

    @property
    def invertible(self) -> InvertibleClassifier:
        """The classifier; raises UsageError if it is a plain network."""
        return require_invertible(self.classifier, "evaluation")

    def has(self, need: Need) -> bool:
        """Whether a need of a metric is met."""
        return NEEDS[need](self)

    def once(self, function: Callable[[MetricContext], T]) -> T:
        """``function(self)``, computed at the first call and kept for all metrics that share it."""
        if function not in self._shared:
            self._shared[function] = function(self)
        return self._shared[function]  # type: ignore[no-any-return]

    def encode(self, *names: str) -> None:
        """Run the classifier on splits, by default on all, unless this was done before.

        Raises:
            FlowclfError: if an output is not finite.
        """
        missing = [name for name in names or self.splits if name not in self._encoded]
        if not missing:
            return
        what, batch_size = ("encoding", 128) if self.has("inverse") else ("classifying", 256)
        with self.progress.task(what, sum(len(self.splits[name]) for name in missing)) as task:
            for name in missing:
                inputs = self.splits[name].inputs
                found = encode(self.classifier, inputs, seed=self.seed, batch_size=batch_size, advance=task.advance)
                finite = found.logits.isfinite().all(1) & found.log_prob.isfinite()
                if not finite.all():
                    raise FlowclfError(
                        f"the classifier cannot be evaluated: its outputs are not finite for {int((~finite).sum())} of "
                        f"{len(finite)} {name} inputs, the first at index {int(finite.int().argmin())}"
                    )
                self._encoded[name] = found

    def labels(self, split: str) -> Tensor:
        """Labels (N,) of a split, on the CPU."""
        return self.splits[split].labels.cpu()

    def logits(self, split: str) -> Tensor:
        """Logits (N, K) of a split, on the CPU; also for a plain network."""
        self.encode(split)
        return self._encoded[split].logits

    def encoded(self, split: str) -> Encoded:
        """Logits, nuisances and log-likelihoods of a split, on the CPU; raises UsageError for a plain network."""
        _ = self.invertible
        self.encode(split)
        return self._encoded[split]

    @cached_property
    def test_sample(self) -> tuple[Tensor, Tensor]:
        """Network inputs (N, *input_shape) and labels (N,) for metamers: the test data, or 10,000 of them drawn at random."""
        part = self.data.test.sample(_METAMER_IMAGES, self.seed)
        return network_inputs(self.classifier, part.inputs, torch.Generator().manual_seed(self.seed)), part.labels


NEEDS: Mapping[Need, Callable[[MetricContext], bool]] = {
    "inverse": lambda context: isinstance(context.classifier, InvertibleClassifier),
    "images": lambda context: context.classifier.preprocessing.bits is not None,
    "oracle": lambda context: context.oracle is not None,
    "truth": lambda context: context.data.oracle is not None,
    "fixed_point": lambda context: getattr(context.classifier, "stream", "float") == "fixed_point",
}
