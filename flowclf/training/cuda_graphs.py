"""Passes recorded once and replayed as CUDA graphs, so that a step of many small kernels waits for the GPU, not for Python.

A pass of an invertible network is thousands of kernels that run for less time than their launches take; a CUDA graph launches them
together. A replay repeats the kernels alone: what a node computes on the host, such as a random number or a counter, stays as
recorded. ``benchmarks/results/training-gpu.md`` has the speed-up.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from flowclf.classifier import Classifier, Encoding, InvertibleClassifier
from flowclf.errors import UsageError
from flowclf.losses import AdversarialLoss, Loss
from flowclf.subnets import is_hooked

_KNOWN = ("flowclf.", "torch.nn.", "FrEIA.")
"""Packages whose modules compute on the device alone, unless they have hooks. Several of nflows' read numbers on the host."""

_Pass = Callable[..., Any]


class Passes:
    """The classifier's forward pass and the adversary's, with their gradients.

    On a GPU they are recorded at the first whole batch, after three runs to warm up, and replayed for whole batches; recording
    restores buffers and the GPU's random state. Each replay overwrites the results of the one before, and a pass's memory stays
    allocated. Torch's warning about gradients from another stream is turned off for the rest of the process.

    Args:
        classifier: the network.
        loss: bound to the classifier.
        batch_size: samples of a whole batch; smaller batches run without a recording.
        graphs: on a GPU, ``auto`` records if :func:`replays_are_safe`, and warns if recording fails; ``always`` records, and
            raises if that fails; ``never`` does not record. Elsewhere nothing is recorded.

    Raises:
        UsageError: if ``graphs`` is ``always`` and the stream is in fixed point, whose magnitudes are measured on the host.
    """

    def __init__(
        self, classifier: Classifier, loss: Loss, batch_size: int, graphs: Literal["auto", "always", "never"] = "auto"
    ) -> None:
        watched = isinstance(classifier, InvertibleClassifier) and classifier.stream == "fixed_point"
        if watched and graphs == "always":
            raise UsageError("train: cuda_graphs: a stream in fixed point cannot be replayed; use auto or never")
        wanted = graphs == "always" or (graphs == "auto" and not watched and replays_are_safe(classifier, loss))
        self._graphs = graphs
        self._batch_size = batch_size
        self._recording = wanted and classifier.device.type == "cuda"
        self._loss = loss
        self._modules: dict[str, nn.Module] = {"encode": _Encoder(classifier, False), "logits": _Encoder(classifier, True)}
        if isinstance(loss, AdversarialLoss):
            self._modules["adversary"] = _Adversary(loss)
        self._recorded: dict[str, _Pass] = {}

    def encode(self, x: Tensor) -> Encoding:
        """The encoding of network inputs; without nuisances if the loss uses the logits alone now."""
        return Encoding(*self._pass("logits" if self._loss.logits_only else "encode", (x,))(x))

    def adversary_loss(self, encoding: Encoding, labels: Tensor) -> Tensor:
        """What the adversary minimises, for an encoding of :meth:`encode` without gradient."""
        inputs = (*encoding, labels)
        return self._pass("adversary", inputs)(*inputs)  # type: ignore[no-any-return]

    def forget(self) -> None:
        """Forget what was recorded, after a change of what is trained."""
        self._recorded.clear()

    def _pass(self, name: str, inputs: tuple[Tensor, ...]) -> _Pass:
        module = self._modules[name]
        if not self._recording or len(inputs[0]) != self._batch_size:
            return module
        if name not in self._recorded:
            try:
                self._recorded[name] = _record(module, inputs)
            except RuntimeError as error:
                if self._graphs == "always":
                    raise
                warnings.warn(f"passes are not replayed from CUDA graphs, since recording failed: {error}", stacklevel=2)
                self._recording = False
                return module
        return self._recorded[name]


def replays_are_safe(classifier: Classifier, loss: Loss) -> bool:
    """Whether every module is from a package known to compute on the device alone, and none has a hook.

    Example:
        >>> from flowclf.classifier import build_classifier
        >>> from flowclf.losses import CrossEntropy
        >>> replays_are_safe(build_classifier((4,), ["actnorm", "split_head"], classes=2), CrossEntropy())
        True
    """
    modules = [module for root in (classifier, loss) for module in root.modules()]
    return all(type(module).__module__.startswith(_KNOWN) and not is_hooked(module) for module in modules)


class _Encoder(nn.Module):
    def __init__(self, classifier: Classifier, logits_only: bool) -> None:
        super().__init__()
        self.classifier = classifier
        self.logits_only = logits_only

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(Encoding.of_logits(self.classifier.logits(x)) if self.logits_only else self.classifier(x))


class _Adversary(nn.Module):
    def __init__(self, loss: AdversarialLoss) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Tensor, nuisance: Tensor, log_det: Tensor, labels: Tensor) -> Tensor:
        return self.loss.adversary_loss(Encoding(logits, nuisance, log_det), labels)


def _record(module: nn.Module, inputs: tuple[Tensor, ...]) -> _Pass:
    """Record the module's pass for inputs of these shapes."""
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    random, stream = torch.cuda.get_rng_state(inputs[0].device), torch.cuda.current_stream(inputs[0].device)
    # The samples become the replay's inputs.
    samples = tuple(tensor.clone() for tensor in inputs)
    # Gradients are accumulated on the stream of the warm-up, which then waits for the replay's. That is intended, but torch warns.
    if warn := getattr(torch.autograd.graph, "set_warn_on_accumulate_grad_stream_mismatch", None):
        warn(False)
    try:
        # A copy, because the replay takes the place of the module's own forward.
        return torch.cuda.make_graphed_callables(copy.copy(module), samples, allow_unused_input=True)
    finally:
        torch.cuda.set_stream(stream)
        for buffer, before in buffers:
            buffer.copy_(before)
        torch.cuda.set_rng_state(random, inputs[0].device)
