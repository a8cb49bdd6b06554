"""The training loop, the same for every loss, and its state, which resumes bit for bit."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from flowclf.classifier import Classifier, Encoding, InvertibleClassifier, require_invertible
from flowclf.component_schema.sections import from_code, plain
from flowclf.data import Batch, DataSet, mix_seed
from flowclf.errors import GridOverflowError, UsageError
from flowclf.fixed_point import LIMIT
from flowclf.losses import AdversarialLoss, Loss
from flowclf.modes import learning, repeatable
from flowclf.nodes import set_subnet_dtype
from flowclf.settings import TrainSettings
from flowclf.training.cuda_graphs import Passes
from flowclf.training.ema import MovingAverage, Weights, copied
from flowclf.training.freezing import Freezing
from flowclf.training.meters import Meters, Pace
from flowclf.training.optimizers import build_optimizer
from flowclf.training.overfitting import first_signs
from flowclf.training.precision import subnet_dtype
from flowclf.training.processes import current, synchronized_norms
from flowclf.training.progress import Progress, SilentProgress
from flowclf.training.schedules import build_schedule
from flowclf.training.single_examples import check_single_examples
from flowclf.training.typical import typical_bits
from flowclf.training.validation import validate_adversary, validate_classifier

Row = dict[str, Any]
_INITIALIZATION_SAMPLES = 512
_INITIALIZATION_NUMBERS = 2**24
"""Pixel values of all images of an initialisation: of large images fewer are enough, and 512 would need gigabytes."""
_READ_EVERY = 16
"""Steps between two reads of what a GPU has computed, each of which waits for it."""


class Trainer:
    """A classifier, a loss, data and optimisers, and how far the training has come.

    Args:
        classifier: trained in place, on its device. ActNorms that are not initialised yet are, from the first images.
        loss: bound to the classifier, or not bound yet.
        data: the training part trains the classifier, the validation part evaluates it after each epoch; the test part is not used.
        settings: the settings, or a mapping of their keys, which are those of a recipe's section ``train``.

    Raises:
        UsageError: if a setting is not valid or needs another classifier, the data do not fit it, or the loss is bound to another;
            or if batches are of a single example, and the classifier or the loss needs more.
    """

    @learning()
    def __init__(self, classifier: Classifier, loss: Loss, data: DataSet, settings: TrainSettings | Mapping[str, Any]) -> None:
        settings = from_code(TrainSettings, settings, "train")
        for given, kind, instead in (
            (classifier, Classifier, "flowclf.build_classifier or flowclf.plain_classifier makes one"),
            (loss, Loss, "flowclf.losses has some, such as CrossEntropy()"),
            (data, DataSet, "flowclf.data.load or flowclf.data.DataSet.from_arrays makes one"),
        ):
            if not isinstance(given, kind):
                raise UsageError(f"train: expected a flowclf {kind.__name__}, found a {type(given).__name__}; {instead}")
        if tuple(data.image_shape) != classifier.preprocessing.image_shape or data.classes != classifier.classes:
            raise UsageError(
                f"data set {data.name} has {data.classes} classes of shape {tuple(data.image_shape)}; the classifier takes "
                f"{classifier.classes} of {classifier.preprocessing.image_shape}"
            )
        if loss._binding is not None and loss.binding.classifier is not classifier:
            raise UsageError(f"{type(loss).__name__} is bound to another classifier; make a new one")
        invertible = isinstance(classifier, InvertibleClassifier)
        stream = classifier.stream if isinstance(classifier, InvertibleClassifier) else "float"
        if "stream" in settings.model_fields_set and settings.stream != stream:
            raise UsageError(f"train: stream: the classifier was built with '{stream}', found '{settings.stream}'")
        if settings.activations == "recompute":
            require_invertible(classifier, "train: activations: recompute")
        if settings.precision == "bf16":
            require_invertible(classifier, "train: precision: bf16, which applies to couplings' subnets,")
        if any(tensor.is_inference() for tensor in (*classifier.parameters(), *classifier.buffers())):
            raise UsageError("train: the classifier was built in torch.inference_mode, which forbids training; build it outside")
        self.classifier = classifier
        self.data = data.to(classifier.device)
        self.settings = settings
        self.loss = loss if loss._binding is not None else loss.bind(classifier)
        self.loss.set_class_counts(torch.bincount(data.train.labels.cpu(), minlength=classifier.classes).to(classifier.device))
        self.steps_per_epoch = data.steps_per_epoch
        self.total_steps = settings.epochs * self.steps_per_epoch
        self.step = 0
        self.rows: list[Row] = []
        self.seconds = 0.0
        self.best_epoch: int | None = None
        self._best: Weights = {}
        self.meters = Meters(_READ_EVERY if classifier.device.type == "cuda" else 1)
        self._parameters = [p for p in (*classifier.parameters(), *self.loss.main_parameters()) if p.requires_grad]
        self.optimizer = build_optimizer([classifier, self.loss], self._parameters, plain(settings.optimizer))
        self._base_rates = [group["lr"] for group in self.optimizer.param_groups]
        self.adversary_optimizer = self.loss.adversary_optimizer() if isinstance(self.loss, AdversarialLoss) else None
        self.schedule = build_schedule(plain(settings.schedule), self.total_steps, self.steps_per_epoch)
        self.dtype = subnet_dtype(settings.precision, classifier.device) if invertible else None
        self.processes = current()
        if not classifier.initialized:
            samples = min(_INITIALIZATION_SAMPLES, max(2, _INITIALIZATION_NUMBERS // math.prod(data.image_shape)))
            images = data.train.head(samples).loaded().inputs.to(classifier.device)
            generator = torch.Generator().manual_seed(mix_seed(data.seed, "initialization"))
            with repeatable(classifier.device):
                classifier.initialize(classifier.preprocessing.dequantize(images, generator).to(classifier.dtype))
        if data.batch_size == 1:
            check_single_examples(classifier, self.loss, self.data)
        self.processes.broadcast((classifier, self.loss))
        self.ema = MovingAverage(classifier, settings.ema) if settings.ema else None
        # A recorded pass could not talk to other processes.
        graphs = settings.cuda_graphs if self.processes.size == 1 else "never"
        self._passes = Passes(classifier, self.loss, data.batch_size, graphs)
        self._freezing = Freezing(classifier, settings.freeze)

    @property
    def epoch(self) -> int:
        """Epochs completed."""
        return self.step // self.steps_per_epoch

    @learning()
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
            progress: receives steps and epochs.
            on_state: called with the trainer after every epoch and every ``checkpoint_every_steps`` steps, and when stopping, to
                save its state.
            stop: called after every step; True ends the run there.
            until: step after which to stop.

        Raises:
            NonFiniteLossError: if a term of the loss or the gradient is not finite. On a CPU the weights are those before the step.
                A GPU is checked every 16 steps and before a state is saved: the weights are lost, the last saved state is good.
            GridOverflowError: if a stream in fixed point left its grid before the end of an epoch or before a state was saved.
        """
        progress = progress or SilentProgress()
        last = self.total_steps if until is None else min(until, self.total_steps)
        every, pace = self.settings.checkpoint_every_steps, Pace()
        unit = "images/s" if len(self.data.image_shape) == 3 else "examples/s"
        self.classifier.train()
        self.loss.train()
        if not self.processes.first:
            # Units that are dropped, and the like, differ between processes.
            torch.manual_seed(mix_seed(self.data.seed, "process", self.processes.rank, self.step))
        try:
            with (
                _training_mode(self.classifier, self.settings, self.dtype),
                synchronized_norms((self.classifier, self.loss), self.processes),
                progress.task("training", self.total_steps) as task,
            ):
                task.advance(self.step)
                started = time.perf_counter()
                pace.restart()
                for batch in self._batches(last):
                    self._train_step(batch)
                    values = {name: number for name, number in self.meters.latest.items() if name != "gradient_norm"}
                    task.advance(1, **values, **{unit: pace.advance(len(batch.labels))})
                    finished = self.processes.any(stop is not None and stop()) or self.step == last
                    ended = self.step % self.steps_per_epoch == 0
                    if ended or finished or (every and self.step % every == 0):
                        self.meters.read()
                        self.seconds += time.perf_counter() - started
                        self._check_grid()
                        if ended:
                            self.rows.append(self._row())
                            self.meters.reset()
                            self._compare_with_best()
                            progress.row(self.rows[-1])
                            for sentence in first_signs(self.rows):
                                progress.message(f"epoch {self.epoch}: {sentence}")
                        if on_state is not None:
                            on_state(self)
                        started = time.perf_counter()
                        pace.restart()
                    if finished:
                        break
        finally:
            self._freezing.release()
            self.classifier.eval()
            self.loss.eval()
        return self.rows

    def _batches(self, last: int) -> Iterator[Batch]:
        """The batches from the current step to the last, epoch after epoch."""
        while self.step < last:
            position, (rank, size) = self.step % self.steps_per_epoch, (self.processes.rank, self.processes.size)
            yield from self.data.train_batches(self.epoch, start=position, rank=rank, world=size)

    def _train_step(self, batch: Batch) -> None:
        """The steps of the adversary, if there is one, and one of the classifier."""
        for group, rate in zip(self.optimizer.param_groups, self._base_rates, strict=True):
            group["lr"] = rate * self.schedule(self.step)
        self.loss.set_progress(self.step / self.total_steps)
        if self._freezing.update(self.step / self.total_steps):
            self._passes.forget()

        whole = self._whole_batch()
        # Each process's loss is a mean over its share: this factor makes the processes' mean one over the whole batch.
        weight = len(batch.labels) * self.processes.size / whole
        noisy = self.classifier.preprocessing.dequantize(batch.inputs, batch.generator, whole=whole, share=self.processes.share)
        x = noisy.to(self.classifier.dtype)
        # Pieces of at least two examples: some losses and norms need as many.
        pieces = max(1, min(self.settings.accumulate, len(batch.labels) // 2))
        places = [slice(piece, None, pieces) for piece in range(pieces)]
        encoding = self._passes.encode(x) if pieces == 1 else None
        played = self._play(encoding, x, batch.labels, places, weight)

        self.optimizer.zero_grad(set_to_none=True)
        values: dict[str, Tensor] = {}
        for place in places:
            labels = batch.labels[place]
            terms = self.loss(self._passes.encode(x[place]) if encoding is None else encoding, labels)
            share = len(labels) / len(batch.labels)
            _backward(terms.total, weight * share)
            for name, value in {"loss": terms.total, **terms.parts}.items():
                part = value.detach() if share == 1 else share * value.detach()
                values[name] = values[name] + part if name in values else part
        self.processes.average_gradients(self._parameters)

        norm = torch.nn.utils.get_total_norm([p.grad for p in self._parameters if p.grad is not None])
        own = {name: value for name, value in played.items() if name not in values}
        self.meters.record(self.step, {**values, **own, "gradient_norm": norm})
        limit = self.settings.gradient_clip
        # Well below the limit the factor is 1, and multiplying by it costs a third of an optimiser's step on a CPU; on a GPU, the
        # comparison would wait for the device.
        if limit is not None and (norm.is_cuda or norm.item() > 0.99 * limit):
            torch.nn.utils.clip_grads_with_norm_(self._parameters, limit, norm)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update()
        self.step += 1

    def _whole_batch(self) -> int:
        """Number of examples of the current step's batch, of all processes."""
        return min(self.data.batch_size, len(self.data.train) - self.step % self.steps_per_epoch * self.data.batch_size)

    def _play(self, encoding: Encoding | None, x: Tensor, labels: Tensor, places: list[slice], weight: float) -> dict[str, Tensor]:
        """The adversary's steps, if there is one, on the encoding, or on those of the pieces of x; its last loss by name."""
        played: dict[str, Tensor] = {}
        if not isinstance(self.loss, AdversarialLoss) or self.adversary_optimizer is None or not self.loss.adversary_steps:
            return played
        if encoding is None:
            with torch.no_grad():
                each = [self._passes.encode(x[place]) for place in places]
            encoding = Encoding(*(torch.cat(values) for values in zip(*each, strict=True)))
            labels = torch.cat([labels[place] for place in places])
        detached = encoding.detach()
        for _ in range(self.loss.adversary_steps):
            self.adversary_optimizer.zero_grad(set_to_none=True)
            adversary_loss = self._passes.adversary_loss(detached, labels)
            _backward(adversary_loss, weight)
            self.processes.average_gradients(self.loss.adversary_parameters())
            self.adversary_optimizer.step()
            played = {self.loss.adversary_loss_name: adversary_loss}
        return played

    def _check_grid(self) -> None:
        peak = self.classifier.grid_peak() if isinstance(self.classifier, InvertibleClassifier) else None
        if peak is not None and peak.overflows:
            raise GridOverflowError(
                f"step {self.step}: the stream in fixed point holds magnitudes below {LIMIT:g}, node '{peak.node}' reached "
                f"{peak.magnitude:g}; a lower learning rate or more weight decay keeps it smaller, and stream: float has no limit"
            )

    def _validate(self) -> Row:
        """Metrics on the validation part: the classifier's, of the averaged weights if an average is kept; and the adversary's."""
        with self.ema.applied() if self.ema is not None else contextlib.nullcontext():
            metrics = validate_classifier(self.classifier, self.data, self.processes)
        if isinstance(self.loss, AdversarialLoss):
            # The adversary plays against the weights themselves, not against their average.
            metrics |= validate_adversary(self.loss, self.classifier, self.data, self.processes)
        return {f"validation.{name}": value for name, value in metrics.items()}

    def _averaged(self) -> Weights:
        """The averaged weights if an average is kept, otherwise the weights themselves."""
        return self.classifier.state_dict() if self.ema is None else self.ema.average

    def _compare_with_best(self) -> None:
        """Keep the weights of the last epoch if its validation scores are the best."""
        scores = [(row["validation.error"], row["validation.cross_entropy_nats"]) for row in self.rows]
        # While a term of the loss is growing, or a game has not begun, an epoch may look better than any that follows.
        better = self.loss.settled and (self.best_epoch is None or scores[-1] < scores[self.best_epoch - 1])
        if better or (self.best_epoch is None and self.step == self.total_steps):
            self.best_epoch, self._best = self.epoch, copied(self._averaged())

    def _row(self) -> Row:
        means = {f"train.{name}": mean for name, mean in self.processes.means(self.meters.means(), self.classifier.device).items()}
        rate = self.optimizer.param_groups[0]["lr"]
        row = {"epoch": self.epoch, "step": self.step, "learning_rate": rate, **means, **self._validate()}
        return {**row, "seconds.train": round(self.seconds, 3)}

    def weights(self, which: Literal["last", "best"]) -> Weights:
        """Weights after the last step or after the best epoch, averaged if an average is kept.

        Raises:
            UsageError: if the best are asked for, and no epoch has ended since all terms of the loss have their full weight.
        """
        if which == "best" and self.best_epoch is None:
            raise UsageError(f"train: there is no best epoch yet, at step {self.step} of {self.total_steps}")
        return self._best if which == "best" else self._averaged()

    def finish(self) -> None:
        """Give the classifier the weights to keep, as ``train.keep`` says, put it in eval mode, and measure what is typical."""
        self.classifier.load_state_dict(self.weights(self.settings.keep))
        self.classifier.eval()
        if isinstance(self.classifier, InvertibleClassifier):
            self.classifier.typical_bits = typical_bits(self.classifier, self.data)

    def state_dict(self) -> dict[str, Any]:
        """Everything that determines how the training goes on, as tensors, numbers and strings; raises as :meth:`run`."""
        self.meters.read()
        return {
            "step": self.step,
            "seconds": self.seconds,
            "rows": self.rows,
            "best_epoch": self.best_epoch,
            "best": self._best,
            **self.meters.state_dict(),
            "classifier": self.classifier.state_dict(),
            "loss": self.loss.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "adversary_optimizer": None if self.adversary_optimizer is None else self.adversary_optimizer.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if self.classifier.device.type == "cuda" else [],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state of the same recipe."""
        self.step, self.seconds = int(state["step"]), float(state["seconds"])
        self.rows = list(state["rows"])
        # States of earlier versions know no best epoch.
        self.best_epoch = state.get("best_epoch")
        self._best = {name: value.to(self.classifier.device) for name, value in state.get("best", {}).items()}
        self.meters.load_state_dict(state)
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


def _backward(loss: Tensor, weight: float) -> None:
    """Add the gradients of a loss, times its weight."""
    (loss if weight == 1 else weight * loss).backward()  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def _training_mode(classifier: Classifier, settings: TrainSettings, dtype: torch.dtype | None) -> Iterator[None]:
    """Within the block, sums have a fixed order, and an invertible classifier the precision and activations of its training."""
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
