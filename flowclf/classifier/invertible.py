"""InvertibleClassifier: a bijection whose outputs are logits and nuisances."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from flowclf import reversible
from flowclf.classifier.base import Classifier, Encoding
from flowclf.classifier.typical import TypicalBits
from flowclf.errors import UsageError
from flowclf.fixed_point import Peak, round_to_grid
from flowclf.graph import (
    Graph,
    NodeRow,
    NodeSet,
    Specs,
    after_the_logits,
    build_graph,
    checked_graph,
    execute,
    head_of,
    node_rows,
    readout_of,
)
from flowclf.graph.stream import GridPeak, Stream, grid_peak, set_stream
from flowclf.labels import class_numbers
from flowclf.nodes.initialization import DataInitializedNode, initialize
from flowclf.preprocessing import Preprocessing
from flowclf.priors import Prior, build_prior


class InvertibleClassifier(Classifier):
    """A classifier that can be run backwards: F(x) = (logits, nuisances), with F bijective (paper, section 2.2).

    Args:
        graph: a ``FrEIA.framework.GraphINN``, or the list of FrEIA nodes for one, that ends with a ``SplitHead`` and an output node
            for each of its two outputs. In a list, nodes that do not fit are named; FrEIA's own errors name none.
        preprocessing: as for :class:`Classifier`, like ``class_names``.
        prior: distribution of logits and nuisances: a registered name, a mapping of one name to its arguments, or a
            :class:`flowclf.priors.Prior`; by default the factorial prior with the head's m.
        stream: ``float``; or ``fixed_point``, for exact inverses of graphs of additive couplings, see :mod:`flowclf.graph.stream`.

    Attributes:
        prior_spec: name and arguments of the prior; None if it was given as an object.
        activations: ``store`` activations for the backward pass, or ``recompute`` them, see :mod:`flowclf.reversible`.
        keep_every: with ``recompute``, also store the input of every k-th node; None for no node.
        typical_bits: bits per dimension of data like those of the training, which a training measures at its end and a checkpoint
            holds; None if unknown.

    Raises:
        GraphError: if the graph is not a classifier's, or a node does not support a fixed-point stream.
        UsageError: if the preprocessing, the prior or the class names do not fit the graph or the stream.

    Example:
        >>> clf = build_classifier((1, 8, 8), ["squeeze", "actnorm", "affine_coupling", "split_head"], classes=10)
        >>> x = clf.preprocessing(torch.rand(2, 1, 8, 8))
        >>> encoding = clf(x)
        >>> encoding.logits.shape, encoding.nuisance.shape, encoding.log_det.shape
        (torch.Size([2, 10]), torch.Size([2, 54]), torch.Size([2]))
        >>> torch.allclose(clf.inverse(encoding.logits, encoding.nuisance), x, atol=1e-5)
        True
    """

    kind = "invertible"
    typical_bits: TypicalBits | None = None

    def __init__(
        self,
        graph: Graph | Iterable[Any],
        *,
        preprocessing: Preprocessing | None = None,
        prior: Prior | str | Mapping[str, Mapping[str, Any]] = "factorial",
        class_names: Sequence[str] | None = None,
        stream: Stream = "float",
    ) -> None:
        checked = checked_graph(graph)
        head = head_of(checked)
        shape = tuple(checked.in_nodes[0].dims)
        if preprocessing is None and stream == "fixed_point":
            preprocessing = Preprocessing(shape, bits=8 if len(shape) == 3 else None, fixed_point=True)
        super().__init__(shape, head.classes, preprocessing, class_names)
        self.activations: Literal["store", "recompute"] = "store"
        self.keep_every: int | None = None
        self.graph = checked
        set_stream(self.graph, stream)
        self.stream: Stream = stream
        self._input_peak = Peak()
        self.dimensions: int = head.dimensions
        if stream == "fixed_point" and not self.preprocessing.fixed_point:
            raise UsageError("a fixed-point stream needs its inputs on the grid: Preprocessing(..., fixed_point=True)")
        nuisances = self.dimensions - self.classes
        self.prior_spec = None if isinstance(prior, Prior) else prior
        self.prior = prior if isinstance(prior, Prior) else build_prior(prior, self.classes, nuisances, head.logit_mean)
        if (self.prior.classes, self.prior.nuisances) != (self.classes, nuisances):
            raise UsageError(
                f"the prior is over {self.prior.classes} logits and {self.prior.nuisances} nuisances, the graph has "
                f"{self.classes} and {nuisances}"
            )

    def _example(self) -> Tensor:
        # The graph and the prior may have no parameters.
        return self.prior.log_class_prior

    def _check_latents(self, logits: Tensor, nuisance: Tensor) -> None:
        for name, value in (("logits", logits), ("nuisances", nuisance)):
            if not isinstance(value, Tensor):
                raise UsageError(f"expected {name} as a tensor, found a {type(value).__name__}")
        batch, size = logits.shape[0], self.dimensions - self.classes
        if tuple(logits.shape) != (batch, self.classes) or tuple(nuisance.shape) != (batch, size):
            raise UsageError(
                f"expected logits (B, {self.classes}) and nuisances (B, {size}), "
                f"found {tuple(logits.shape)} and {tuple(nuisance.shape)}"
            )

    def _on_grid(self, values: Sequence[Tensor], rev: bool) -> tuple[Tensor, ...]:
        if not rev:
            x = round_to_grid(values[0])
            self._input_peak.see(x)
            return (x,)
        logits, nuisance = values
        scale = head_of(self.graph).logit_scale
        return round_to_grid(logits / scale) * scale, round_to_grid(nuisance)

    def grid_peak(self) -> GridPeak | None:
        """Largest magnitude in the stream since the last call, inputs and both directions included; None for a float stream."""
        return grid_peak(self.graph, self._input_peak) if self.stream == "fixed_point" else None

    def _run(
        self, values: Sequence[Tensor], *, rev: bool, log_det: bool, left_out: NodeSet = ()
    ) -> tuple[tuple[Tensor, ...], Tensor | None]:
        check_precision(values[0].dtype, "its inputs")
        check_precision(self.dtype, "its parameters")
        if self.stream == "fixed_point":
            values = self._on_grid(values, rev)
        # The stream keeps its precision under a caller's autocast; couplings set the precision of their subnets.
        with torch.autocast(values[0].device.type, enabled=False):
            if self.activations == "recompute":
                return reversible.execute(
                    self.graph, values, rev=rev, log_det=log_det, keep_every=self.keep_every, left_out=left_out
                )
            if self.activations != "store":
                raise UsageError(f"activations must be 'store' or 'recompute', found {self.activations!r}")
            return execute(self.graph, values, rev=rev, log_det=log_det, left_out=left_out)

    def forward(self, x: Tensor) -> Encoding:
        """Encode network inputs (B, C, H, W) or (B, D), as ``preprocessing`` returns them.

        Raises:
            UsageError: if the shape is wrong or the type is not floating point.
        """
        (logits, nuisance), log_det = self._run((self._checked(x),), rev=False, log_det=True)
        return Encoding(logits, nuisance, logits.new_zeros(x.shape[0]) if log_det is None else log_det)

    def latents(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute logits (B, K) and nuisances (B, D-K) of network inputs, without the log-determinant."""
        (logits, nuisance), _ = self._run((self._checked(x),), rev=False, log_det=False)
        return logits, nuisance

    def logits(self, x: Tensor) -> Tensor:
        """Compute the logits (B, K) of network inputs, skipping final nodes that transform nuisances only."""
        return self._run((self._checked(x),), rev=False, log_det=False, left_out=after_the_logits(self.graph))[0][0]

    def inverse(self, logits: Tensor, nuisance: Tensor) -> Tensor:
        """Compute F^-1: network inputs (B, C, H, W) or (B, D) from logits (B, K) and nuisances (B, D-K).

        Raises:
            UsageError: if a shape is wrong.
        """
        self._check_latents(logits, nuisance)
        (x,), _ = self._run((logits, nuisance), rev=True, log_det=False)
        return x

    def invert_to_readout(self, logits: Tensor, nuisance: Tensor) -> tuple[Tensor, Tensor]:
        """Invert the nodes after the readout: its output latents, (B, C, H, W) or (B, D), and its increment of the logits, (B, K).

        Activations are stored for the backward pass even if ``activations`` is ``recompute``.

        Raises:
            UsageError: if a shape is wrong or the graph has no readout.
        """
        self._check_latents(logits, nuisance)
        readout = readout_of(self.graph)
        with torch.autocast(logits.device.type, enabled=False):
            (latents,), _ = execute(self.graph, (logits, nuisance), rev=True, log_det=False, until=readout)
            return latents, readout.module.reading(latents)

    def log_prob(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Log-density of network inputs, (B,), nats: log p(x | y) of labels (B,), or by default log sum_y pi_y p(x | y).

        Raises:
            UsageError: if the inputs have another shape, or the labels are not B integers in 0..K-1.
        """
        encoding = self(x)
        if labels is not None:
            labels = class_numbers(labels, self.classes, len(x)).to(x.device)
        return self.prior.log_prob(encoding.logits, encoding.nuisance, labels) + encoding.log_det  # type: ignore[no-any-return]

    @torch.no_grad()
    def sample(
        self,
        n: int,
        labels: int | Sequence[int] | Tensor | None = None,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw network inputs (n, C, H, W) or (n, D) from the prior through the inverse.

        Args:
            n: number of samples.
            labels: one class for all samples, or n classes; by default drawn from the class prior.
            temperature: factor on the prior's standard deviations.
            generator: random number generator; by default torch's global one.

        Raises:
            UsageError: if n is not positive, or the labels are not n classes.
        """
        if not isinstance(n, int) or n < 1:
            raise UsageError(f"sample: expected n of at least 1, found {n!r}")
        if labels is None:
            weights = self.prior.log_class_prior.exp().to("cpu" if generator is None else generator.device)
            chosen = torch.multinomial(weights, n, replacement=True, generator=generator)
        else:
            single = isinstance(labels, int | np.integer) or (isinstance(labels, Tensor) and labels.dim() == 0)
            chosen = class_numbers([labels] if single else labels, self.classes, where="sample")
            chosen = chosen.expand(n) if len(chosen) == 1 else chosen
        if len(chosen) != n:
            raise UsageError(f"sample: expected one class or {n} classes, found {len(chosen)}")
        logits, nuisance = self.prior.sample(chosen.to(self.device, torch.int64), temperature, generator)
        return self.inverse(logits, nuisance)

    def nuisance_maps(self, nuisance: Tensor) -> list[Tensor]:
        """Nuisances (B, D-K) as feature maps (B, C, H, W): the last maps, with 0 for the logits, then the factored-out parts."""
        return head_of(self.graph).nuisance_maps(nuisance)

    def initialize(self, x: Tensor) -> None:
        """Initialise every uninitialised ActNorm from a batch of network inputs; raises UsageError if it is empty."""
        self._checked(x)
        if not len(x):
            raise UsageError("initialize: expected at least one input, found none")
        with torch.autocast(x.device.type, enabled=False):
            initialize(self.graph, x)

    @property
    def initialized(self) -> bool:
        """Whether every ActNorm is initialised."""
        return all(bool(node.initialized) for node in self.modules() if isinstance(node, DataInitializedNode))

    def node_rows(self) -> list[NodeRow]:
        """Rows of the node table: names, kinds, shapes and parameter counts, in order of execution."""
        return node_rows(self.graph)

    def __repr__(self) -> str:
        table = self._table(f"{self.classes} logits + {self.dimensions - self.classes} nuisances")
        stream = "" if self.stream == "float" else f"\n  stream: {self.stream}"
        return f"{table}{stream}\n  {self.prior}"


def check_precision(dtype: torch.dtype, what: str) -> None:
    """Raise UsageError if an invertible classifier cannot compute in a type: it can in float32 and float64 only."""
    if dtype not in (torch.float32, torch.float64):
        raise UsageError(
            f"an invertible classifier computes in float32 or float64, found {dtype} for {what}: with fewer digits its inverse "
            "does not restore the input; train with precision: bf16 to use bf16 where digits do not matter"
        )


def require_invertible(classifier: Classifier, what: str) -> InvertibleClassifier:
    """Return the classifier if it is invertible.

    Raises:
        UsageError: if it is a plain network; the error begins with ``what``, which needs the inverse.
    """
    if not isinstance(classifier, InvertibleClassifier):
        raise UsageError(
            f"{what}: expected an invertible classifier, found a plain network, which has neither inverse nor nuisances"
        )
    return classifier


def build_classifier(
    input_shape: Sequence[int],
    nodes: Specs,
    classes: int,
    *,
    preprocessing: Preprocessing | None = None,
    prior: Prior | str | Mapping[str, Mapping[str, Any]] = "factorial",
    class_names: Sequence[str] | None = None,
    stream: Stream = "float",
) -> InvertibleClassifier:
    """Build a classifier from a list of node specs: plain lists and mappings, the same in Python and in a recipe.

    The other arguments are those of :class:`InvertibleClassifier`.

    Args:
        input_shape: shape of one network input, (C, H, W) or (D,).
        nodes: each a registered name, a mapping of one name to its arguments, or ``{repeat: n, nodes: [...]}``; the last is a
            ``split_head``, which also takes the factored-out parts.
        classes: K, the number of classes, at least 2.

    Raises:
        GraphError: if shapes do not fit, there is no ``split_head`` at the end, or a node does not support the stream.

    Example:
        >>> step = ["actnorm", "invertible_conv1x1", {"affine_coupling": {"subnet": {"conv": {"width": 16}}}}]
        >>> nodes = ["squeeze", {"repeat": 2, "nodes": step}, "factor_out", "squeeze", "actnorm", {"split_head": {"dct": True}}]
        >>> build_classifier(input_shape=(1, 28, 28), nodes=nodes, classes=10).dimensions
        784
    """
    graph = build_graph(input_shape, nodes, classes)
    return InvertibleClassifier(graph, preprocessing=preprocessing, prior=prior, class_names=class_names, stream=stream)
