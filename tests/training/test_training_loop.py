"""The loop: it learns, clips, averages, reports, stops where it should, and never goes on with numbers that are not finite."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import flowclf
from flowclf import Encoding, InvertibleClassifier, build_classifier
from flowclf.data import DataSet
from flowclf.errors import NonFiniteLossError, UsageError
from flowclf.losses import CrossEntropy, FactorialPriorMLE, IndependenceCrossEntropy, Loss, LossTerms
from flowclf.training import Trainer

SGD = {"name": "sgd", "lr": 1e-2, "momentum": 0.0}


def make_data(n: int = 120, **settings: Any) -> DataSet:
    """Two classes of noisy images, one darker than the other."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(n) % 2
    images = torch.randint(0, 120, (n, 6, 6), generator=generator) + 100 * labels[:, None, None]
    arguments = {"batch_size": 20, "validation": 20, "seed": 1, **settings}
    return DataSet.from_arrays(images.to(torch.uint8), labels, **arguments)


def make_classifier() -> InvertibleClassifier:
    torch.manual_seed(0)
    coupling = {"affine_coupling": {"subnet": {"conv": {"width": 8}}}}
    nodes = ["squeeze", "actnorm", "invertible_conv1x1", coupling, "split_head"]
    return build_classifier((1, 6, 6), nodes, classes=2)


def make_trainer(loss: Loss | None = None, **settings: Any) -> Trainer:
    arguments = {"epochs": 3, "optimizer": SGD, "gradient_clip": 5.0, "precision": "fp32", **settings}
    return Trainer(make_classifier(), loss or FactorialPriorMLE(), make_data(), arguments)


def weights(trainer: Trainer) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in trainer.classifier.parameters()]


@pytest.mark.parametrize(
    "loss",
    [
        CrossEntropy(),
        FactorialPriorMLE(),
        IndependenceCrossEntropy(nuisance={"hidden": [16]}),
        CrossEntropy() + 0.1 * FactorialPriorMLE(),
    ],
    ids=["cross-entropy", "likelihood", "independence", "sum"],
)
def test_fit_learns_and_leaves_the_classifier_ready(loss: Loss) -> None:
    clf = make_classifier()
    rows = flowclf.fit(clf, loss, make_data(), epochs=8, optimizer={"name": "adamax", "lr": 5e-3}, precision="fp32")
    assert rows[-1]["train.loss"] < rows[0]["train.loss"]
    assert rows[-1]["validation.error"] <= rows[0]["validation.error"]
    assert clf.initialized
    assert not clf.training
    assert torch.isfinite(clf.log_prob(torch.randn(2, 1, 6, 6))).all()


def test_vectors_are_trained_on_as_they_are() -> None:
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(200) % 2
    vectors = torch.randn(200, 3, generator=generator) + 3 * labels[:, None]
    data = DataSet.from_arrays(vectors, labels, batch_size=50)
    clf = build_classifier((3,), ["actnorm", "affine_coupling", "split_head"], classes=2)
    optimizer = {"name": "adam", "lr": 2e-2}
    rows = flowclf.fit(clf, CrossEntropy() + FactorialPriorMLE(), data, epochs=15, optimizer=optimizer)
    assert rows[-1]["train.bits_per_dim"] < rows[0]["train.bits_per_dim"]
    assert rows[-1]["validation.error"] < 0.2


def test_rows_tell_what_happened() -> None:
    trainer = make_trainer(CrossEntropy())
    rows = trainer.run()
    assert (trainer.steps_per_epoch, trainer.total_steps) == (5, 15)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["step"] for row in rows] == [5, 10, 15]
    assert set(rows[0]) == {
        "epoch",
        "step",
        "learning_rate",
        "train.loss",
        "train.cross_entropy_nats",
        "train.gradient_norm",
        "validation.error",
        "validation.cross_entropy_nats",
        "validation.bits_per_dim",
        "seconds.train",
    }
    assert rows[0]["train.loss"] == rows[0]["train.cross_entropy_nats"]
    assert [row["seconds.train"] for row in rows] == sorted(row["seconds.train"] for row in rows)


def test_a_part_of_some_steps_is_averaged_over_those() -> None:
    class Late(CrossEntropy):
        def forward(self, encoding: Encoding, labels: Tensor) -> LossTerms:
            terms = super().forward(encoding, labels)
            late = {"late": torch.tensor(3.0)} if self.progress > 0.45 else {}
            return LossTerms(terms.total, {**terms.parts, **late})

    rows = make_trainer(Late()).run()
    # 5 steps per epoch: late from the eighth on, in the middle of the second.
    assert [row.get("train.late") for row in rows] == [None, 3.0, 3.0]


def test_the_validation_row_is_of_the_validation_part() -> None:
    trainer = make_trainer(CrossEntropy(), epochs=1)
    row = trainer.run()[-1]
    split = trainer.data.validation
    x = trainer.classifier.preprocessing(split.inputs / 255)
    wrong = (trainer.classifier(x).logits.argmax(1) != split.labels).double().mean().item()
    assert row["validation.error"] == pytest.approx(wrong, abs=0.051)
    bits = trainer.classifier.preprocessing.bits_per_dim(trainer.classifier.log_prob(x)).mean().item()
    assert row["validation.bits_per_dim"] == pytest.approx(bits, abs=0.5)


def test_the_test_part_is_not_touched() -> None:
    data = make_data()

    class Forbidden:
        def __getattr__(self, name: str) -> Any:
            if name == "to":
                return lambda device: self
            raise AssertionError("the test part was used")

    object.__setattr__(data, "test", Forbidden())
    flowclf.fit(make_classifier(), CrossEntropy(), data, epochs=1)


def test_actnorms_are_initialised_from_the_data_once() -> None:
    trainer = make_trainer()
    assert trainer.classifier.initialized
    data = trainer.data
    x = trainer.classifier.preprocessing.dequantize(data.train.inputs, torch.Generator().manual_seed(0))
    node = trainer.classifier.graph.module_list[1]
    with torch.no_grad():
        (z,), _ = node(trainer.classifier.graph.module_list[0]((x,))[0])
    assert float(z.mean((0, 2, 3)).abs().max()) < 0.05
    assert float((z.std((0, 2, 3)) - 1).abs().max()) < 0.05
    kept = weights(trainer)
    Trainer(trainer.classifier, CrossEntropy(), data, trainer.settings)
    assert all(map(torch.equal, weights(trainer), kept))


# Steps.


class Steep(Loss):
    """A loss with a huge gradient."""

    def forward(self, encoding: Encoding, labels: Tensor) -> LossTerms:
        value = 1e4 * encoding.logits.square().mean()
        return LossTerms(value, {"steep": value})


@pytest.mark.parametrize(("limit", "clipped"), [(0.5, True), (1e9, False), (None, False)])
def test_the_gradient_is_clipped_as_a_whole(limit: float | None, clipped: bool) -> None:
    """One step of plain SGD at rate 1e-6 moves the weights by the gradient."""
    trainer = make_trainer(Steep(), gradient_clip=limit, optimizer={"name": "sgd", "lr": 1e-6, "momentum": 0.0})
    before = weights(trainer)
    trainer.run(until=1)
    moved = [new.double() - old.double() for new, old in zip(weights(trainer), before, strict=True)]
    norm = float(torch.cat([value.flatten() for value in moved]).norm()) * 1e6
    assert (norm <= 0.55) == clipped
    assert norm > 0.45


def test_clipping_is_told_of_before_it_is_done() -> None:
    rows = make_trainer(Steep(), gradient_clip=0.5, epochs=1).run()
    assert rows[0]["train.gradient_norm"] > 100


def test_parts_that_keep_their_gradient_do_not_keep_the_graph() -> None:
    trainer = make_trainer(Steep(), epochs=1)
    trainer.run(until=2)
    assert {type(value) for value in trainer.state_dict()["sums"].values()} == {float}


def test_the_schedule_sets_every_groups_rate() -> None:
    trainer = make_trainer(optimizer={"name": "sgd", "lr": 0.1, "weight_decay": 1e-3}, schedule={"name": "trapezoid", "decay": 1.0})
    trainer.run(until=6)
    assert [group["lr"] for group in trainer.optimizer.param_groups] == [pytest.approx(0.1 * (1 - 5 / 15))] * 2
    assert trainer.rows[0]["learning_rate"] == pytest.approx(0.1 * (1 - 4 / 15))


class Spy(IndependenceCrossEntropy):
    """Remembers who was asked for what."""

    def __init__(self, **nuisance: Any) -> None:
        super().__init__(nuisance={"hidden": [8], **nuisance})
        self.calls: list[str] = []
        self.seen: list[float] = []

    def forward(self, encoding: Encoding, labels: Tensor) -> LossTerms:
        assert encoding.nuisance.requires_grad
        assert self.training
        self.calls.append("main")
        self.seen.append(self.progress)
        return super().forward(encoding, labels)

    def adversary_loss(self, encoding: Encoding, labels: Tensor) -> Tensor:
        assert not any(value.requires_grad for value in encoding)
        self.calls.append("adversary")
        return super().adversary_loss(encoding, labels)


def test_the_adversary_goes_first_as_often_as_it_says_and_sees_no_gradient() -> None:
    loss = Spy(steps=2)
    trainer = make_trainer(loss)
    trainer.run(until=2)
    assert loss.calls == ["adversary", "adversary", "main"] * 2
    assert loss.seen == [0.0, 1 / 15]


def test_the_adversary_rests_during_a_delay() -> None:
    loss = Spy(steps=1, delay=0.1)
    make_trainer(loss).run(until=3)
    assert loss.calls == ["main", "main", "adversary", "main"]


def test_each_player_moves_its_own_parameters() -> None:
    loss = IndependenceCrossEntropy(nuisance={"hidden": [8]})
    trainer = make_trainer(loss, optimizer={"name": "sgd", "lr": 1e-300})
    assert trainer.adversary_optimizer is not None
    owned = [
        {id(p) for group in optimizer.param_groups for p in group["params"]}
        for optimizer in (trainer.optimizer, trainer.adversary_optimizer)
    ]
    assert owned[0].isdisjoint(owned[1])
    assert owned[0] == {id(p) for p in trainer.classifier.parameters()}
    before, adversary = weights(trainer), [p.detach().clone() for p in loss.adversary_parameters()]
    trainer.run(until=1)
    assert all(map(torch.equal, weights(trainer), before))
    assert not any(map(torch.equal, loss.adversary_parameters(), adversary))


def test_parameters_of_a_loss_are_trained_along() -> None:
    class Scaled(Loss):
        def build(self, binding: Any) -> None:
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, encoding: Encoding, labels: Tensor) -> LossTerms:
            value = nn.functional.cross_entropy(self.scale * encoding.logits, labels)
            return LossTerms(value, {"scaled_nats": value.detach()})

    loss = Scaled()
    make_trainer(loss).run(until=1)
    assert loss.scale != 1


# Averages.


def test_with_an_average_it_is_what_is_validated_and_kept() -> None:
    trainer = make_trainer(CrossEntropy(), ema=0.99, epochs=2, optimizer={"name": "sgd", "lr": 0.1, "momentum": 0.0})
    without = make_trainer(CrossEntropy(), epochs=2, optimizer={"name": "sgd", "lr": 0.1, "momentum": 0.0})
    rows, other = trainer.run(), without.run()
    assert all(map(torch.equal, weights(trainer), weights(without)))
    assert rows[-1]["train.loss"] == other[-1]["train.loss"]
    assert rows[-1]["validation.cross_entropy_nats"] != other[-1]["validation.cross_entropy_nats"]
    assert trainer.ema is not None
    kept = {name: value.clone() for name, value in trainer.ema.average.items()}
    trainer.finish()
    state = trainer.classifier.state_dict()
    assert all(torch.equal(state[name], value) for name, value in kept.items())
    assert not all(map(torch.equal, weights(trainer), weights(without)))


# Numbers that are not finite.


class Broken(Loss):
    """Sound until a step, and then not finite in the part, the total or the gradient."""

    def __init__(self, where: str, step: int) -> None:
        super().__init__()
        self.where = where
        self.step = step
        self.calls = 0

    def forward(self, encoding: Encoding, labels: Tensor) -> LossTerms:
        value = encoding.logits.square().mean()
        part = value.detach()
        if self.calls == self.step:
            match self.where:
                case "part":
                    part = part * float("nan")
                    value = value * float("nan")
                case "total":
                    value = value * float("inf")
                case "gradient":
                    # 0 with an infinite slope.
                    value = (encoding.logits - encoding.logits.detach()).abs().sqrt().sum()
        self.calls += 1
        return LossTerms(value, {"square": part, "fine": torch.zeros(())})


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("part", ["step 3", "square is nan"]),
        ("total", ["step 3", "loss is inf"]),
        ("gradient", ["step 3", "gradient"]),
    ],
)
def test_what_is_not_finite_stops_the_run_and_is_named(where: str, words: list[str]) -> None:
    trainer = make_trainer(Broken(where, 3), ema=0.9)
    trainer.run(until=3)
    before = weights(trainer)
    assert trainer.ema is not None
    average = {name: value.clone() for name, value in trainer.ema.average.items()}
    saved: list[int] = []
    with pytest.raises(NonFiniteLossError) as caught:
        trainer.run(on_state=lambda one: saved.append(one.step))
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "fine" not in str(caught.value)
    assert trainer.step == 3
    assert not saved
    assert all(map(torch.equal, weights(trainer), before))
    assert all(torch.equal(trainer.ema.average[name], value) for name, value in average.items())
    assert not trainer.classifier.training


def test_a_sum_names_the_term() -> None:
    loss = CrossEntropy() + Broken("part", 0)
    with pytest.raises(NonFiniteLossError, match="step 0: square is nan") as caught:
        make_trainer(loss).run()
    assert "cross_entropy" not in str(caught.value)


# Who is told, and when it stops.


class Listener:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.rows: list[dict[str, Any]] = []
        self.values: list[dict[str, float]] = []
        self.total = 0

    def message(self, text: str) -> None:
        raise AssertionError(text)

    def row(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    @contextlib.contextmanager
    def task(self, description: str, total: int) -> Iterator[Listener]:
        self.total = total
        yield self

    def advance(self, n: int = 1, **values: float) -> None:
        self.steps.append(n)
        self.values.append(values)


def test_progress_is_told_of_steps_and_epochs() -> None:
    trainer, listener = make_trainer(CrossEntropy()), Listener()
    trainer.run(progress=listener, until=7)
    assert listener.total == 15
    assert listener.steps == [0, *[1] * 7]
    assert listener.rows == trainer.rows
    assert set(listener.values[-1]) == {"loss", "cross_entropy_nats", "images/s"}
    assert all(values["images/s"] > 0 for values in listener.values[1:])
    again = Listener()
    trainer.run(progress=again)
    assert again.steps == [7, *[1] * 8]


@pytest.mark.parametrize(
    ("every", "expected"), [(None, [5, 10, 15]), (4, [4, 5, 8, 10, 12, 15]), (5, [5, 10, 15]), (100, [5, 10, 15])]
)
def test_states_are_saved_after_epochs_and_between_them(every: int | None, expected: list[int]) -> None:
    steps: list[int] = []
    make_trainer(checkpoint_every_steps=every).run(on_state=lambda trainer: steps.append(trainer.step))
    assert steps == expected


@pytest.mark.parametrize("at", [2, 5])
def test_it_stops_when_asked_and_saves(at: int) -> None:
    trainer = make_trainer()
    steps: list[int] = []
    trainer.run(stop=lambda: trainer.step == at, on_state=lambda one: steps.append(one.step))
    assert trainer.step == at
    assert steps == [at]
    assert len(trainer.rows) == at // 5
    whole = make_trainer()
    whole.run()
    trainer.run()
    assert all(map(torch.equal, weights(trainer), weights(whole)))


def test_a_finished_training_does_not_go_on() -> None:
    trainer = make_trainer(epochs=1)
    trainer.run()
    kept = weights(trainer)
    assert len(trainer.run()) == 1
    assert trainer.step == 5
    assert trainer.epoch == 1
    assert all(map(torch.equal, weights(trainer), kept))


def test_the_same_training_gives_the_same_bits() -> None:
    first, second = make_trainer(), make_trainer()
    first.run()
    torch.manual_seed(1234)
    second.run()
    assert all(map(torch.equal, weights(first), weights(second)))


# Precision.


def dtypes_in_subnets(clf: InvertibleClassifier) -> set[torch.dtype]:
    seen: set[torch.dtype] = set()
    for module in clf.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    return seen


def test_bf16_is_for_subnets_in_training_alone() -> None:
    trainer = make_trainer(precision="bf16", epochs=1)
    seen = dtypes_in_subnets(trainer.classifier)
    trainer.run(until=2)
    assert seen == {torch.bfloat16}
    assert {parameter.dtype for parameter in trainer.classifier.parameters()} == {torch.float32}
    seen.clear()
    trainer.classifier(torch.randn(2, 1, 6, 6))
    trainer.classifier.train()(torch.randn(2, 1, 6, 6))
    assert seen == {torch.float32}
    seen.clear()
    trainer.run()
    assert seen == {torch.bfloat16, torch.float32}


def test_the_precision_is_put_back_after_a_failure() -> None:
    trainer = make_trainer(Broken("part", 0), precision="bf16")
    with pytest.raises(NonFiniteLossError):
        trainer.run()
    seen = dtypes_in_subnets(trainer.classifier)
    trainer.classifier.train()(torch.randn(2, 1, 6, 6))
    assert seen == {torch.float32}


# Mistakes.


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epochs": 0}, ["epochs", "0"]),
        ({"activations": "forget"}, ["activations", "'forget'"]),
        ({"precision": "fp16"}, ["precision", "'fp16'"]),
        ({"optimizer": {"name": "adamaxx"}}, ["adamaxx", "'adamax'"]),
        ({"schedule": {"name": "cosin"}}, ["cosin", "'cosine'"]),
        ({"schedule": {"name": "cosine", "peak": 0.3}}, ["train.schedule.peak", "unknown key"]),
        ({"optimizer": {"name": "adam", "betas": [0.9, 1.5]}}, ["train.optimizer.betas.1", "1.5"]),
        ({"epoch": 3}, ["train.epoch", "'epochs'"]),
        ({"stream": "fixed_point"}, ["stream", "built with 'float'", "'fixed_point'"]),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        make_trainer(**settings)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    "make",
    [
        lambda: build_classifier((1, 6, 6), ["squeeze", "split_head"], classes=3),
        lambda: build_classifier((1, 8, 8), ["squeeze", "split_head"], classes=2),
        lambda: build_classifier((36,), ["actnorm", "split_head"], classes=2),
    ],
    ids=["classes", "size", "vectors"],
)
def test_data_that_do_not_fit_are_refused(make: Callable[[], InvertibleClassifier]) -> None:
    with pytest.raises(UsageError, match=r"data set arrays has 2 classes of shape \(1, 6, 6\); the classifier takes"):
        Trainer(make(), CrossEntropy(), make_data(), {})


def test_a_loss_of_another_classifier_is_refused() -> None:
    loss = FactorialPriorMLE().bind(make_classifier())
    with pytest.raises(UsageError, match="FactorialPriorMLE is bound to another classifier"):
        make_trainer(loss)
    clf = make_classifier()
    flowclf.fit(clf, FactorialPriorMLE().bind(clf), make_data(), epochs=1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"loss": torch.nn.CrossEntropyLoss()}, "expected a flowclf Loss, found a CrossEntropyLoss; flowclf.losses has some"),
        ({"data": [(1, 2)]}, "expected a flowclf DataSet, found a list; .*from_arrays makes one"),
        ({"classifier": torch.nn.Linear(2, 2)}, "expected a flowclf Classifier, found a Linear; .*plain_classifier makes one"),
    ],
)
def test_what_is_not_flowclfs_is_refused_in_words(change: dict[str, Any], words: str) -> None:
    x = np.zeros((30, 4), dtype=np.float32)
    data = flowclf.data.DataSet.from_arrays(x, np.arange(30) % 2, validation=0.2)
    classifier = flowclf.build_classifier((4,), ["split_head"], 2)
    given = {"classifier": classifier, "loss": flowclf.losses.CrossEntropy(), "data": data, **change}
    with pytest.raises(UsageError, match=words):
        flowclf.fit(**given, epochs=1)


@pytest.mark.parametrize("nuisance_weight", [0.0, 1.0])
def test_pieces_of_a_batch_add_up_to_it(nuisance_weight: float) -> None:
    """Batches of 20 in pieces of 5; without a norm over the batch the weights are the same, the adversary's too."""

    def train(accumulate: int) -> Trainer:
        clf = make_classifier().double()
        torch.manual_seed(1)
        loss = IndependenceCrossEntropy(nuisance={"weight": nuisance_weight, "hidden": [8], "warmup": 0.0}).double().bind(clf)
        for adversary in loss.adversaries:
            adversary.layers[0] = nn.Identity()
        trainer = Trainer(clf, loss, make_data(), {"epochs": 2, "accumulate": accumulate, "precision": "fp32"})
        trainer.run()
        return trainer

    whole, pieces = train(1), train(4)
    for expected, found in zip(weights(whole), weights(pieces), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)
    for row, other in zip(whole.rows, pieces.rows, strict=True):
        assert other == pytest.approx({**row, "seconds.train": other["seconds.train"]}, abs=1e-9)
