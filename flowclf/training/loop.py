"""The one training loop, for every loss: steps, both players, averages, metrics rows, and a state that resumes bit for bit."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from flowclf.classifier import Classifier, InvertibleClassifier, require_invertible
from flowclf.data import DataSet, mix_seed
from flowclf.errors import GridOverflowError, NonFiniteLossError, UsageError
from flowclf.fixed_point import LIMIT
from flowclf.losses import Loss
from flowclf.modes import evaluating, repeatable
from flowclf.nodes import set_subnet_dtype
from flowclf.training.cuda_graphs import Passes
from flowclf.training.ema import MovingAverage
from flowclf.training.optimization import build_optimizer, build_schedule
from flowclf.training.precision import Precision, subnet_dtype
from flowclf.training.progress import Progress, SilentProgress, Task

__all__ = ["Row", "TrainSettings", "Trainer"]

Row = dict[str, Any]
_INITIALIZATION_SAMPLES = 512
_READ_EVERY = 16
"""On a GPU, steps between two looks at what it has computed: each look waits for it."""


@dataclass(frozen=True)
class TrainSettings:
    """How to train; the section ``train`` of a recipe.

    Attributes:
        epochs: passes over the training set.
        optimizer: ``name`` and arguments, see :func:`~flowclf.training.optimization.build_optimizer`.
        schedule: ``name`` and arguments, see :func:`~flowclf.training.optimization.build_schedule`.
        gradient_clip: largest norm of the whole gradient; None leaves it.
        ema: decay of a moving average of the weights, which is then what is validated and kept; None for no average.
        precision: of the couplings' subnets, in training only: auto, fp32 or bf16.
        checkpoint_every_steps: save the state this often, besides after every epoch; None for epochs alone.
        activations: ``store``, or ``recompute`` them on the way back, see :mod:`flowclf.reversible`.
        cuda_graphs: whether a GPU replays passes that it has recorded once, see :mod:`flowclf.training.cuda_graphs`; ``auto``:
            where that is known to compute the same.
    """

    epochs: int = 5
    optimizer: Mapping[str, Any] = field(default_factory=lambda: {"name": "adamax", "lr": 2e-3, "weight_decay": 1e-4})
    schedule: Mapping[str, Any] = field(default_factory=lambda: {"name": "one_cycle"})
    gradient_clip: float | None = 5.0
    ema: float | None = None
    precision: Precision = "auto"
    checkpoint_every_steps: int | None = None
    activations: Literal["store", "recompute"] = "store"
    cuda_graphs: Literal["auto", "always", "never"] = "auto"


class Trainer:
    """A classifier, a loss and data in the course of a training.

    Args:
        classifier: trained in place, on its device. ActNorms that are not initialised yet are, from the first images.
        loss: bound to the classifier, or bound now.
        data: its training part is trained on, its validation part judged on; the test part is not touched.
        settings: how to train.

    Raises:
        UsageError: data that do not fit the classifier, or a loss or settings that cannot be.
    """

    def __init__(self, classifier: Classifier, loss: Loss, data: DataSet, settings: TrainSettings) -> None:
        if tuple(data.image_shape) != classifier.preprocessing.image_shape or data.classes != classifier.classes:
            raise UsageError(
                f"data set {data.name} has {data.classes} classes of shape {tuple(data.image_shape)}; the classifier takes "
                f"{classifier.classes} of {classifier.preprocessing.image_shape}"
            )
        if loss._binding is not None and loss.binding.classifier is not classifier:
            raise UsageError(f"{type(loss).__name__} is bound to another classifier; make a new one")
        if settings.epochs < 1:
            raise UsageError(f"train: epochs must be at least 1, found {settings.epochs}")
        if settings.activations not in ("store", "recompute"):
            raise UsageError(f"train: activations must be 'store' or 'recompute', found {settings.activations!r}")
        if settings.activations == "recompute":
            require_invertible(classifier, "train: activations: recompute")
        if settings.precision == "bf16":
            require_invertible(classifier, "train: precision: bf16, which is of couplings' subnets,")
        self.classifier = classifier
        self.data = data.to(classifier.device)
        self.settings = settings
        self.loss = loss if loss._binding is not None else loss.bind(classifier)
        self.steps_per_epoch = data.steps_per_epoch
        self.total_steps = settings.epochs * self.steps_per_epoch
        self.step = 0
        self.rows: list[Row] = []
        self.seconds = 0.0
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._unread: list[tuple[int, tuple[str, ...], Tensor]] = []
        self._numbers: dict[str, float] = {}
        self._read_every = _READ_EVERY if classifier.device.type == "cuda" else 1
        parameters = [*classifier.parameters(), *self.loss.main_parameters()]
        self._parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.optimizer = build_optimizer([classifier, self.loss], self._parameters, settings.optimizer)
        self._base_rates = [group["lr"] for group in self.optimizer.param_groups]
        self.adversary_optimizer = self.loss.adversary_optimizer() if any(True for _ in self.loss.adversary_parameters()) else None
        self.schedule = build_schedule(settings.schedule, self.total_steps, self.steps_per_epoch)
        invertible = isinstance(classifier, InvertibleClassifier)
        self.dtype = subnet_dtype(settings.precision, classifier.device) if invertible else None
        if not classifier.initialized:
            images = data.train.inputs[:_INITIALIZATION_SAMPLES].to(classifier.device)
            generator = torch.Generator().manual_seed(mix_seed(data.seed, "initialization"))
            with repeatable(classifier.device):
                classifier.initialize(classifier.preprocessing.dequantize(images, generator).to(classifier.dtype))
        self.ema = MovingAverage(classifier, settings.ema) if settings.ema else None
        self._passes = Passes(classifier, self.loss, data.batch_size, settings.cuda_graphs)

    @property
    def epoch(self) -> int:
        """Epochs completed."""
        return self.step // self.steps_per_epoch

    def run(
        self,
        *,
        progress: Progress | None = None,
        on_state: Callable[[Trainer], None] | None = None,
        stop: Callable[[], bool] | None = None,
        until: int | None = None,
    ) -> list[Row]:
        """Train to the end, or to a step; returns the metrics rows so far.

        Args:
            progress: is told of steps and epochs.
            on_state: called after every epoch and every ``checkpoint_every_steps`` steps, and when stopping: to save.
            stop: asked after every step; True ends the run there.
            until: step after which to stop.

        Raises:
            NonFiniteLossError: a term of the loss or the gradient is not finite. On a CPU weights are those before the step; a GPU
                is asked every 16 steps and before a state is saved, so that weights are lost and the last saved state is good.
            GridOverflowError: a stream in fixed point had left its grid by the end of an epoch or before a state was saved.
        """
        progress = progress or SilentProgress()
        last = self.total_steps if until is None else min(until, self.total_steps)
        try:
            with _training_mode(self.classifier, self.settings, self.dtype), progress.task("training", self.total_steps) as task:
                task.advance(self.step)
                while self.step < last and not self._epoch(last, task, on_state, stop, progress):
                    pass
        finally:
            self.classifier.eval()
            self.loss.eval()
        return self.rows

    def _epoch(
        self,
        last: int,
        task: Task,
        on_state: Callable[[Trainer], None] | None,
        stop: Callable[[], bool] | None,
        progress: Progress,
    ) -> bool:
        """The rest of the current epoch; True if ``stop`` ended it."""
        every = self.settings.checkpoint_every_steps
        self.classifier.train()
        self.loss.train()
        started = time.perf_counter()
        for batch in self.data.train_batches(self.epoch, start=self.step % self.steps_per_epoch):
            x = self.classifier.preprocessing.dequantize(batch.inputs, batch.generator).to(self.classifier.dtype)
            terms = self._step(x, batch.labels)
            self.step += 1
            task.advance(1, **terms)
            stopping = stop is not None and stop()
            ended = self.step % self.steps_per_epoch == 0
            finished = stopping or self.step == last
            if ended or finished or (every and self.step % every == 0):
                self._read()
                self.seconds += time.perf_counter() - started
                self._check_grid()
                if ended:
                    self.rows.append(self._row())
                    self._sums, self._counts = {}, {}
                    progress.row(self.rows[-1])
                if on_state is not None:
                    on_state(self)
                started = time.perf_counter()
            if finished:
                return stopping
        return False

    def _check_grid(self) -> None:
        peak = self.classifier.grid_peak() if isinstance(self.classifier, InvertibleClassifier) else None
        if peak is not None and peak.overflows:
            raise GridOverflowError(
                f"step {self.step}: the stream in fixed point holds magnitudes below {LIMIT:g}, node '{peak.node}' reached "
                f"{peak.magnitude:g}; a lower learning rate or more weight decay keeps it smaller, and stream: float has no limit"
            )

    def _step(self, x: Tensor, labels: Tensor) -> dict[str, float]:
        factor = self.schedule(self.step)
        for group, rate in zip(self.optimizer.param_groups, self._base_rates, strict=True):
            group["lr"] = rate * factor
        self.loss.set_progress(self.step / self.total_steps)
        encoding = self._passes.encode(x)
        if self.adversary_optimizer is not None:
            detached = encoding.detach()
            for _ in range(self.loss.adversary_steps):
                self.adversary_optimizer.zero_grad(set_to_none=True)
                self._passes.adversary_loss(detached, labels).backward()  # type: ignore[no-untyped-call]
                self.adversary_optimizer.step()
        terms = self.loss(encoding, labels)
        self.optimizer.zero_grad(set_to_none=True)
        terms.total.backward()
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        values = {"loss": terms.total, **terms.parts, "gradient_norm": norm}
        stacked = torch.stack([value.detach().to(norm.device, torch.float64).reshape(()) for value in values.values()])
        self._unread.append((self.step, tuple(values), stacked))
        if len(self._unread) >= self._read_every:
            self._read()
        limit = self.settings.gradient_clip
        # Well below the limit the factor is 1, and multiplying by it costs a third of an optimiser's step on a CPU.
        if limit is not None and (self._read_every > 1 or self._numbers["gradient_norm"] > 0.99 * limit):
            torch.nn.utils.clip_grads_with_norm_(self._parameters, limit, norm)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update()
        return {name: number for name, number in self._numbers.items() if name != "gradient_norm"}

    def _read(self) -> None:
        """Look at what the steps since the last look gave, and add it up."""
        unread, self._unread = self._unread, []
        if not unread:
            return
        # They come from the device together: it is waited for once.
        told = iter(torch.cat([values for _, _, values in unread]).tolist())
        for step, names, _ in unread:
            self._numbers = dict(zip(names, told, strict=False))
            _check_finite(step, self._numbers)
            for name, number in self._numbers.items():
                self._sums[name] = self._sums.get(name, 0.0) + number
                self._counts[name] = self._counts.get(name, 0) + 1

    def _validate(self) -> Row:
        """Measures on the validation part, of the averaged weights where there are some."""
        totals = {"error": 0.0, "cross_entropy_nats": 0.0}
        split = self.data.validation
        if not len(split):
            return {}
        generator = torch.Generator().manual_seed(mix_seed(self.data.seed, "validation"))
        with evaluating(self.classifier), self.ema.applied() if self.ema is not None else contextlib.nullcontext():
            for start in range(0, len(split), 500):
                labels = split.labels[start : start + 500]
                x = self.classifier.preprocessing.dequantize(split.inputs[start : start + 500], generator).to(self.classifier.dtype)
                encoding = self.classifier(x)
                totals["error"] += float((encoding.logits.argmax(1) != labels).sum())
                totals["cross_entropy_nats"] += float(functional.cross_entropy(encoding.logits, labels, reduction="sum"))
                if isinstance(self.classifier, InvertibleClassifier):
                    log_prob = self.classifier.prior.log_prob(encoding.logits, encoding.nuisance) + encoding.log_det
                    bits = float(self.classifier.preprocessing.bits_per_dim(log_prob).sum())
                    totals["bits_per_dim"] = totals.get("bits_per_dim", 0.0) + bits
        return {f"validation.{name}": total / len(split) for name, total in totals.items()}

    def _row(self) -> Row:
        means = {f"train.{name}": total / self._counts[name] for name, total in self._sums.items()}
        rate = self.optimizer.param_groups[0]["lr"]
        row = {"epoch": self.epoch, "step": self.step, "learning_rate": rate, **means, **self._validate()}
        return {**row, "seconds.train": round(self.seconds, 3)}

    def finish(self) -> None:
        """Give the classifier the averaged weights, where an average was kept."""
        if self.ema is not None:
            self.classifier.load_state_dict(self.ema.average)
        self.classifier.eval()

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed training needs to be the same training: tensors, numbers and strings only.

        Raises:
            NonFiniteLossError: as :meth:`run`.
        """
        self._read()
        return {
            "step": self.step,
            "seconds": self.seconds,
            "rows": self.rows,
            "sums": self._sums,
            "counts": self._counts,
            "classifier": self.classifier.state_dict(),
            "loss": self.loss.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "adversary_optimizer": None if self.adversary_optimizer is None else self.adversary_optimizer.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if self.classifier.device.type == "cuda" else [],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of the same recipe."""
        self.step, self.seconds = int(state["step"]), float(state["seconds"])
        self._unread, self._numbers = [], {}
        self.rows, self._sums, self._counts = list(state["rows"]), dict(state["sums"]), dict(state["counts"])
        self.classifier.load_state_dict(state["classifier"])
        self.loss.load_state_dict(state["loss"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.adversary_optimizer is not None:
            self.adversary_optimizer.load_state_dict(state["adversary_optimizer"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        torch.set_rng_state(state["random"].cpu())
        if state["random_cuda"]:
            torch.cuda.set_rng_state_all([value.cpu() for value in state["random_cuda"]])


@contextlib.contextmanager
def _training_mode(classifier: Classifier, settings: TrainSettings, dtype: torch.dtype | None) -> Iterator[None]:
    """What only training does: sums in a fixed order, and of an invertible classifier its couplings' precision and activations."""
    with repeatable(classifier.device):
        if not isinstance(classifier, InvertibleClassifier):
            yield
            return
        activations, classifier.activations = classifier.activations, settings.activations
        set_subnet_dtype(classifier, dtype)
        try:
            yield
        finally:
            if classifier.stream == "float":
                set_subnet_dtype(classifier, None)
            classifier.activations = activations


def _check_finite(step: int, numbers: Mapping[str, float]) -> None:
    wrong = {name: number for name, number in numbers.items() if not math.isfinite(number)}
    named = {name: number for name, number in wrong.items() if name not in ("loss", "gradient_norm")}
    if named or "loss" in wrong:
        told = named or {"loss": numbers["loss"]}
        raise NonFiniteLossError(f"step {step}: {', '.join(f'{name} is {number}' for name, number in told.items())}")
    if wrong:
        found = numbers["gradient_norm"]
        raise NonFiniteLossError(f"step {step}: the norm of the gradient is {found}; the loss is {numbers['loss']}")
