"""What metrics are computed from: a model, data, and whatever is expensive, computed once for all metrics that share it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from flowclf.classifier import Classifier, InvertibleClassifier, require_invertible
from flowclf.data import DataSet, Oracle, Split, StreamedSplit
from flowclf.errors import FlowclfError, UsageError
from flowclf.evaluation.encoding import Encoded, encode, network_inputs
from flowclf.evaluation.limiting import limited
from flowclf.evaluation.oracles import ready_oracle
from flowclf.evaluation.probes import ProbeKind, probe_kinds
from flowclf.evaluation.protocols import PROTOCOLS
from flowclf.progress import Progress, SilentProgress
from flowclf.registry import nearest
from flowclf.settings import ProbeSettings

T = TypeVar("T")
Need = Literal[
    "inverse",
    "images",
    "oracle",
    "truth",
    "fixed_point",
    "training",
    "pairs",
    "limit",
    "gaps",
    "few_classes",
    "many_classes",
]

_METAMER_IMAGES = 10_000
_FEW_CLASSES = 100
_TOP_OF = 10
_INVERTED = 1000
_ENCODED_BYTES = 2**31
_FEWEST_INVERTED = 100
_FEWEST_PAIRS = 500

GAPS: Mapping[Need, str] = {"training": "the data are all test", "pairs": "the test data are of a single class"}
"""Needs that a model would meet on other data, and what to say where these data do not meet them."""


class MetricContext:
    """A model on data, under a protocol. Use it in eval mode, as :func:`flowclf.evaluate` does.

    Args:
        classifier, data, protocol, seed, oracle, probe, limit, progress: as for :func:`flowclf.evaluate`.

    Attributes:
        classifier, seed, progress: as given.
        data: the data, or the part of them that the limit leaves.
        limit: number of test examples, if there are more without the limit; otherwise None. Without a limit, of images that are
            decoded as they are used only as many are evaluated as have their nuisances in 2 GiB of memory.
        limited_by_memory: whether that is the limit.
        whole: the data without the limit.
        protocol_name, protocol: the protocol's name, and the protocol.
        oracle: the oracle as a function, see :data:`flowclf.data.Oracle`, or None.
        probe_settings: settings of the probes.
        splits: ``train``, ``validation`` and ``test``; only ``test`` if the data are all test.

    Raises:
        UsageError: if an argument is of another type, the protocol does not exist, the limit is not valid, or the oracle does not
            fit the classifier.
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
        limit: int | None = None,
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
        self.limited_by_memory = limit is None and (limit := _fitting(classifier, data)) is not None
        self.whole, data = data, limited(data, limit)
        self.limit = len(data.test) if data is not self.whole else None
        self.classifier, self.data, self.seed = classifier, data, seed
        self.protocol_name, self.protocol = protocol, PROTOCOLS[protocol]
        if self.limit is not None:
            share = self.limit / len(self.whole.test)
            self.protocol = dataclasses.replace(
                self.protocol,
                pairs=min(self.protocol.pairs, self.limit, max(math.ceil(share * self.protocol.pairs), _FEWEST_PAIRS)),
                paths=math.ceil(share * self.protocol.paths),
                samples=math.ceil(share * self.protocol.samples),
            )
        given = data.oracle if oracle is None else oracle
        self.oracle = None if given is None else ready_oracle(given, classifier)
        self.probe_settings = probe or ProbeSettings()
        self.progress = progress or SilentProgress()
        parts = ("test",) if data.all_test else ("train", "validation", "test")
        self.splits: Mapping[str, Split] = {name: getattr(data, name) for name in parts}
        self._encoded: dict[str, Encoded] = {}
        self._labels: dict[str, Tensor] = {}
        self._shared: dict[Callable[[MetricContext], Any], Any] = {}

    @property
    def invertible(self) -> InvertibleClassifier:
        """The classifier; raises UsageError if it is a plain network."""
        return require_invertible(self.classifier, "evaluation")

    @property
    def probe_kinds(self) -> dict[str, ProbeKind]:
        """The kinds of probes to train, by name; raises as :func:`flowclf.evaluation.probes.probe_kinds`."""
        return probe_kinds(self.protocol_name, images=len(self.data.image_shape) == 3, only=self.probe_settings.kinds)

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
        if lacking := [name for name in missing if name not in self.splits]:
            raise UsageError(
                f"expected {lacking[0]} data, found data that are all test; a metric that requires them needs 'training'"
            )
        if not missing:
            return
        what, batch_size = ("encoding", 128) if self.has("inverse") else ("classifying", 256)
        with self.progress.task(what, sum(len(self.splits[name]) for name in missing)) as task:
            for name in missing:
                split = self.splits[name]
                labels: list[Tensor] = []
                options: dict[str, Any] = {"advance": task.advance, "labelled": labels.append}
                found = encode(self.classifier, split, seed=self.seed, batch_size=batch_size, **options)
                finite = found.logits.isfinite().all(1) & found.log_prob.isfinite()
                if not finite.all():
                    raise FlowclfError(
                        f"the classifier cannot be evaluated: its outputs are not finite for {int((~finite).sum())} of "
                        f"{len(finite)} {name} inputs, the first at index {int(finite.int().argmin())}"
                    )
                self._encoded[name], self._labels[name] = found, torch.cat(labels).cpu()

    def labels(self, split: str) -> Tensor:
        """Labels (N,) of a split, on the CPU; without those of images that are found to be unreadable."""
        part: Split = getattr(self.data, split)
        if isinstance(part, StreamedSplit):
            self.encode(split)
            return self._labels[split]
        return part.labels.cpu()

    def logits(self, split: str) -> Tensor:
        """Logits (N, K) of a split, on the CPU; also for a plain network."""
        self.encode(split)
        return self._encoded[split].logits

    def encoded(self, split: str) -> Encoded:
        """Logits, nuisances and log-likelihoods of a split, on the CPU; raises UsageError for a plain network."""
        _ = self.invertible
        self.encode(split)
        return self._encoded[split]

    @property
    def inverted_examples(self) -> int:
        """Number of test inputs whose inverse error is measured; in a limited evaluation fewer, in proportion."""
        wanted = _INVERTED
        if self.limit is not None:
            wanted = max(_FEWEST_INVERTED, _INVERTED * self.limit // len(self.whole.test))
        return min(wanted, len(self.data.test))

    @cached_property
    def test_sample(self) -> tuple[Tensor, Tensor]:
        """Network inputs (N, *input_shape) and labels (N,) for metamers: the test data, or 10,000 of them drawn at random."""
        part = self.data.test.sample(_METAMER_IMAGES, self.seed).loaded()
        return network_inputs(self.classifier, part.inputs, torch.Generator().manual_seed(self.seed)), part.labels


def _fitting(classifier: Classifier, data: DataSet) -> int | None:
    """Number of test examples for an evaluation in limited memory, if images are decoded as they are used and all are too many."""
    if not isinstance(data.test, StreamedSplit) or not isinstance(classifier, InvertibleClassifier):
        return None
    needed = sum(map(len, (data.train, data.validation, data.test))) * classifier.dimensions * classifier.dtype.itemsize
    return max(1, len(data.test) * _ENCODED_BYTES // needed) if needed > _ENCODED_BYTES else None


NEEDS: Mapping[Need, Callable[[MetricContext], bool]] = {
    "inverse": lambda context: isinstance(context.classifier, InvertibleClassifier),
    "images": lambda context: context.classifier.preprocessing.bits is not None,
    "oracle": lambda context: context.oracle is not None,
    "truth": lambda context: context.data.oracle is not None,
    "training": lambda context: not context.data.all_test,
    "pairs": lambda context: bool((context.data.test.labels != context.data.test.labels[0]).any()),
    "limit": lambda context: context.limit is not None,
    "gaps": lambda context: not all(map(context.has, GAPS)),
    "few_classes": lambda context: context.classifier.classes <= _FEW_CLASSES,
    "many_classes": lambda context: context.classifier.classes > _TOP_OF,
    "fixed_point": lambda context: getattr(context.classifier, "stream", "float") == "fixed_point",
}
