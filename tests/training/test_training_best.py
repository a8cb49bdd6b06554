"""The validation losses of both players, overfitting in words, and the best epoch, which is kept and resumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from resume_case import make_trainer as make_resumed
from test_training_loop import make_classifier, make_data, make_trainer
from torch import Tensor, nn
from torch.nn import functional

from flowclf import Encoding, fit
from flowclf.errors import UsageError
from flowclf.losses import AdversarialLoss, CrossEntropy, IndependenceCrossEntropy, LossTerms
from flowclf.training import Trainer
from flowclf.training.overfitting import first_signs, overfitting
from flowclf.training.progress import SilentProgress
from flowclf.training.state import load_state, save_state

ADAM = {"name": "adam", "lr": 1e-2}


def adversary_on_validation(trainer: Trainer) -> float:
    """The adversary's cross-entropy on the nuisances of the validation part, of the weights as they are."""
    assert isinstance(trainer.loss, AdversarialLoss)
    split = trainer.data.validation
    preprocessing = trainer.classifier.preprocessing
    with torch.no_grad():
        encoding = trainer.classifier(preprocessing.dequantize(split.inputs, torch.Generator().manual_seed(0)))
        return float(trainer.loss.adversary_loss(encoding, split.labels))


@pytest.mark.parametrize("ema", [None, 0.999])
@pytest.mark.parametrize("added", [False, True])
def test_the_adversary_is_validated_on_the_weights_that_it_plays_against(ema: float | None, added: bool) -> None:
    loss = IndependenceCrossEntropy(nuisance={"hidden": [16]})
    trainer = make_trainer(loss + 0.1 * CrossEntropy() if added else loss, epochs=4, optimizer=ADAM, ema=ema)
    rows = trainer.run()
    for row in rows:
        assert 0 < row["validation.nuisance_cross_entropy_nats"] < 5
    assert rows[-1]["validation.nuisance_cross_entropy_nats"] == pytest.approx(adversary_on_validation(trainer), abs=0.05)


class Hide(AdversarialLoss):
    """A loss of a plug-in, whose parts do not have the adversary's loss."""

    def build(self, binding: Any) -> None:
        self.critic = nn.Linear(binding.nuisances, binding.classes)

    def adversary_parameters(self) -> Any:
        return self.critic.parameters()

    def adversary_loss(self, encoding: Encoding, labels: Tensor) -> Tensor:
        return functional.cross_entropy(self.critic(encoding.nuisance), labels)

    def forward(self, encoding: Encoding, labels: Tensor) -> LossTerms:
        return LossTerms(functional.cross_entropy(encoding.logits, labels), {})


def test_the_adversary_of_a_plug_in_is_measured_too() -> None:
    (row,) = make_trainer(Hide(), epochs=1).run()
    assert row["train.adversary_loss"] > 0
    assert row["validation.adversary_loss"] > 0


class Listener(SilentProgress):
    def __init__(self) -> None:
        self.heard: list[str] = []

    def message(self, text: str) -> None:
        self.heard.append(text)


def test_an_adversary_that_memorises_is_named_once() -> None:
    """Labels that pixels say nothing of: what is learned of the training part is of no use on the validation part."""
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randint(0, 256, (80, 6, 6), generator=generator).to(torch.uint8), torch.arange(80) % 2
    data = type(make_data()).from_arrays(images, labels, batch_size=20, validation=20, seed=0)
    loss = IndependenceCrossEntropy(nuisance={"hidden": [128], "steps": 10, "weight": 0.01}, classification={"weight": 0.0})
    progress = Listener()
    settings = {"epochs": 12, "optimizer": {"name": "sgd", "lr": 1e-4}, "precision": "fp32"}
    rows = Trainer(make_classifier(), loss, data, settings).run(progress=progress)
    assert rows[-1]["train.nuisance_cross_entropy_nats"] < 0.1
    assert rows[-1]["validation.nuisance_cross_entropy_nats"] > 0.5
    (message,) = progress.heard
    assert message.startswith("epoch ")
    assert "adversary memorises" in message


@pytest.mark.parametrize(
    ("seen", "unseen", "found"),
    [(0.09, 0.51, True), (0.11, 3.0, False), (0.005, 0.49, False), (None, 3.0, False), (0.01, None, False)],
)
@pytest.mark.parametrize(
    ("name", "words"), [("cross_entropy_nats", "classifier overfits"), ("nuisance_cross_entropy_nats", "memorises")]
)
def test_the_rule_is_a_low_loss_in_training_and_a_high_one_in_validation(
    name: str, words: str, seen: float | None, unseen: float | None, found: bool
) -> None:
    row = {f"train.{name}": seen, f"validation.{name}": unseen, "train.loss": 0.0, "validation.loss": 9.0}
    sentences = overfitting(row)
    assert list(sentences) == [name] * found
    assert all(words in sentence and f"{seen:.3g} nats on training" in sentence for sentence in sentences.values())
    assert len(first_signs([{}, row])) == found
    assert first_signs([row, row]) == []


class Steered(CrossEntropy):
    """Learns for a number of steps, then forgets."""

    def __init__(self, until: float, settles: float = 0.0) -> None:
        super().__init__()
        self.until = until
        self.settles = settles

    @property
    def settled(self) -> bool:
        return self.progress >= self.settles

    def forward(self, encoding: Encoding, labels: Tensor) -> LossTerms:
        total, parts = super().forward(encoding, labels)
        return LossTerms(total if self.progress < self.until else -50.0 * total, parts)


def steered(until: float, settles: float = 0.0, **settings: Any) -> Trainer:
    return make_trainer(Steered(until, settles), epochs=6, optimizer=ADAM, **settings)


def scores(trainer: Trainer) -> list[tuple[float, float]]:
    return [(row["validation.error"], row["validation.cross_entropy_nats"]) for row in trainer.rows]


def validated(trainer: Trainer) -> float:
    split = trainer.data.validation
    with torch.no_grad():
        logits = trainer.classifier(trainer.classifier.preprocessing(split.inputs / 255)).logits
    return float(functional.cross_entropy(logits, split.labels))


@pytest.mark.parametrize("ema", [None, 0.5])
def test_the_best_epoch_is_kept_if_asked(ema: float | None) -> None:
    last, best = (steered(0.5, keep=keep, ema=ema) for keep in ("last", "best"))
    for trainer in (last, best):
        trainer.run()
        assert trainer.best_epoch == 1 + scores(trainer).index(min(scores(trainer))) < 6
        trainer.finish()
    assert validated(last) == pytest.approx(last.rows[-1]["validation.cross_entropy_nats"], abs=0.05)
    assert best.best_epoch is not None
    kept = best.rows[best.best_epoch - 1]["validation.cross_entropy_nats"]
    assert validated(best) == pytest.approx(kept, abs=0.05)
    assert validated(best) < validated(last) - 0.1


def test_an_epoch_before_the_loss_has_settled_is_not_the_best() -> None:
    trainer = steered(0.3, settles=0.6)
    trainer.run()
    assert min(scores(trainer)) in scores(trainer)[:3]
    assert trainer.best_epoch == 4 + scores(trainer)[3:].index(min(scores(trainer)[3:]))
    never = steered(0.3, settles=2.0)
    never.run(until=20)
    with pytest.raises(UsageError, match="no best epoch yet, at step 20 of 30"):
        never.weights("best")
    never.run()
    assert never.best_epoch == 6


@pytest.mark.parametrize("added", [False, True])
def test_a_game_settles_when_its_weight_has_grown(added: bool) -> None:
    loss = IndependenceCrossEntropy(nuisance={"delay": 0.3, "warmup": 0.25})
    whole = loss + CrossEntropy() if added else loss
    found = []
    for progress in (0.0, 0.3, 0.5, 0.56, 1.0):
        whole.set_progress(progress)
        found.append(whole.settled)
    assert found == [False, False, False, True, True]
    assert IndependenceCrossEntropy(nuisance={"weight": 0.0, "delay": 0.9}).settled


def test_the_best_epoch_survives_a_resume(tmp_path: Path) -> None:
    whole = make_resumed()
    whole.run()
    first = make_resumed()
    first.run(until=20)
    assert first.best_epoch is not None
    save_state(tmp_path, first)
    resumed = make_resumed(seed=9)
    load_state(tmp_path, resumed)
    assert resumed.best_epoch == first.best_epoch
    resumed.run()
    assert resumed.best_epoch == whole.best_epoch
    for name, value in whole.weights("best").items():
        assert torch.equal(value, resumed.weights("best")[name]), name


def test_a_state_of_an_earlier_version_has_no_best_epoch() -> None:
    trainer = make_trainer(CrossEntropy())
    trainer.run(until=5)
    state = {name: value for name, value in trainer.state_dict().items() if not name.startswith("best")}
    again = make_trainer(CrossEntropy())
    again.load_state_dict(state)
    assert again.best_epoch is None
    again.run()
    assert again.best_epoch in (2, 3)


def test_keep_has_two_values() -> None:
    with pytest.raises(UsageError, match="keep"):
        fit(make_classifier(), CrossEntropy(), make_data(), epochs=1, keep="first")
