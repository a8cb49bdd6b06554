"""What a protocol makes of its probes: draws of the training images, growth, and a learning curve."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import flowclf
from flowclf import registry
from flowclf.data import Augmentation, DataSet, Split
from flowclf.evaluation import PROTOCOLS, MetricContext, ProbeKind, evaluate
from flowclf.evaluation.draws import nuisance_draws
from flowclf.evaluation.interval import error_interval
from flowclf.evaluation.probes import Probe, ProbeScore
from flowclf.evaluation.probing import saturated, train_probes
from flowclf.settings import ProbeSettings

pytestmark = pytest.mark.usefixtures("scratch_registries")
SMALL = ProbeSettings(hidden=[16])


def mirrored_data(**options: Any) -> DataSet:
    """The row of a bright half says the class: in training always the left half, elsewhere either half."""
    source = torch.Generator().manual_seed(0)

    def split(n: int, *, mirrored: bool) -> Split:
        labels = torch.arange(n) % 3
        images = torch.randint(0, 60, (n, 1, 8, 8), generator=source, dtype=torch.uint8)
        rows = 2 + 2 * labels
        images[torch.arange(n), :, rows, :3] += 180
        if mirrored:
            images[::2] = images[::2].flip(-1)
        return Split(images, labels)

    parts = split(240, mirrored=False), split(90, mirrored=True), split(90, mirrored=True)
    return DataSet("halves", ("a", "b", "c"), *parts, **options)


def pixels() -> flowclf.InvertibleClassifier:
    """A classifier whose nuisances are pixels."""
    preprocessing = flowclf.Preprocessing((1, 8, 8), bits=4)
    return flowclf.build_classifier((1, 8, 8), ["squeeze", {"split_head": {"dct": False}}], 3, preprocessing=preprocessing).eval()


def only(name: str, kind: ProbeKind | None = None) -> None:
    """No other kind of probes is trained."""
    for other in {"mlp", "conv", "residual", "kernel"} - {name}:
        registry.probes._local[other] = dataclasses.replace(registry.probes.get(other), protocols=())
    registry.probes._local[name] = kind or registry.probes.get(name)


def context(data: DataSet, monkeypatch: pytest.MonkeyPatch, clf: Any = None, seed: int = 0, **changes: Any) -> MetricContext:
    protocols = {"full": dataclasses.replace(PROTOCOLS["full"], **changes)}
    monkeypatch.setattr("flowclf.evaluation.context.PROTOCOLS", protocols)
    return MetricContext(clf or pixels(), data, protocol="full", seed=seed, probe=SMALL)


def test_the_quick_protocol_trains_as_ever() -> None:
    assert (PROTOCOLS["quick"].probe_draws, PROTOCOLS["full"].probe_draws) == (1, 4)
    results = evaluate(pixels(), mirrored_data(augment=Augmentation(flip=True)), probe=SMALL)
    assert results["probe.draws"] == 1
    assert not any("curve" in key or "growth" in key or "saturated" in key for key in results)


def test_draws_are_noise_and_augmentation_and_follow_from_seed_and_number(monkeypatch: pytest.MonkeyPatch) -> None:
    data = mirrored_data(augment=Augmentation(flip=True))
    one, again = (nuisance_draws(context(data, monkeypatch)) for _ in range(2))
    assert len(one) == 4
    assert torch.equal(one[3], again[3])
    assert one[1] is one[1]
    assert not torch.equal(nuisance_draws(context(data, monkeypatch, seed=1))[1], one[1])
    # Draw 0 is what all metrics see; the others have other noise, and in half of the images the other half is bright.
    assert torch.equal(one[0], context(data, monkeypatch).encoded("train").nuisance)
    left, right = (
        nuisance_draws(context(dataclasses.replace(data, train=Split(images, data.train.labels)), monkeypatch))[0]
        for images in (data.train.inputs, data.train.inputs.flip(-1))
    )
    for draw in (1, 2, 3):
        mirrored = (one[draw] - right).abs().amax(1) < 0.13
        assert ((one[draw] - left).abs().amax(1) < 0.13).logical_xor(mirrored).all()
        assert 80 < int(mirrored.sum()) < 160
    unlike = [torch.equal(one[i], one[j]) for i in range(4) for j in range(i)]
    assert not any(unlike)
    plain = nuisance_draws(context(mirrored_data(), monkeypatch))
    assert 0 < (plain[1] - plain[0]).abs().max() < 0.13


def test_draws_are_as_many_as_memory_holds_and_one_where_nothing_is_random(monkeypatch: pytest.MonkeyPatch) -> None:
    data, bytes_of_one = mirrored_data(), 240 * 61 * 4
    for memory, count in ((4 * bytes_of_one, 4), (3.9 * bytes_of_one, 3), (bytes_of_one // 2, 1)):
        monkeypatch.setattr("flowclf.evaluation.draws._MEMORY_BYTES", int(memory))
        assert len(nuisance_draws(context(data, monkeypatch))) == count
    monkeypatch.undo()
    assert len(nuisance_draws(context(data, monkeypatch), 40)[1]) == 40
    x, labels = torch.randn(30, 4), torch.arange(30) % 2
    points = DataSet("points", ("a", "b"), *(Split(x, labels) for _ in range(3)))
    vectors = flowclf.build_classifier((4,), ["actnorm", "split_head"], 2)
    assert len(nuisance_draws(context(points, monkeypatch, vectors))) == 1


def test_only_augmented_draws_show_a_probe_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    only("mlp")
    data, errors = mirrored_data(augment=Augmentation(flip=True)), {}
    for draws in (1, 4):
        trained = train_probes(context(data, monkeypatch, probe_draws=draws, probe_epochs=4, probe_growth=1, probe_curve=False))
        assert trained.draws == draws
        errors[draws] = trained.scores["mlp"]["validation"].error
    assert errors[1] > 0.2
    assert errors[4] < 0.05


class Constant(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features[:, :3]


def made_up(scores: dict[tuple[float, int], tuple[float, float]], seen: list[tuple[float, int]]) -> ProbeKind:
    """A kind of probes whose error and cross-entropy on validation data follow from their size and number of examples."""

    def network(clf: Any, settings: Any, size: float = 1) -> nn.Module:
        made = Constant()
        made.size = size  # type: ignore[assignment]
        return made

    def trainer(features: Tensor, labels: Tensor, *others: Any, network: Any, **options: Any) -> Probe:
        made = network()
        seen.append((made.size, len(labels)))
        assert features.shape == (len(labels), 61)
        probe = Probe(made, torch.zeros(61), torch.ones(61)).eval()
        probe.validation = ProbeScore(*scores[seen[-1]])
        return probe

    return ProbeKind("made up", network=network, trainer=trainer, grows=True)


@pytest.mark.parametrize(
    ("nats", "trained", "best"),
    [
        ({1: 1.0, 2: 1.1}, [1, 2], 1),
        # Less than one per cent ends the growth, but the better one counts.
        ({1: 1.0, 2: 0.995}, [1, 2], 2),
        ({1: 1.0, 2: 0.98, 4: 0.99}, [1, 2, 4], 2),
        ({1: 1.0, 2: 0.98, 4: 0.9}, [1, 2, 4], 4),
        ({1: float("nan"), 2: 1.0}, [1, 2], 1),
    ],
)
def test_growth_ends_where_validation_data_no_longer_say_that_it_helps(
    nats: dict[int, float], trained: list[int], best: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[float, int]] = []
    only("mine", made_up({(size, 240): (0.5, value) for size, value in nats.items()}, seen))
    result = train_probes(context(mirrored_data(), monkeypatch, probe_curve=False))
    assert [size for size, _ in seen] == trained
    assert result.probes["mine"].growth == best


def test_a_real_probe_grows_only_where_it_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two units cannot tell rings apart; half-planes are told apart at once."""
    source = torch.Generator().manual_seed(0)
    angle, labels = 6.2832 * torch.rand(900, generator=source), torch.arange(900) % 2
    ring = (1 + 2 * labels)[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)
    half = torch.randn(900, 2, generator=source) + 20 * labels[:, None]
    clf = flowclf.build_classifier((4,), ["split_head"], 2)
    growth = {}
    for name, nuisance in (("ring", ring), ("half", half)):
        x = torch.cat([torch.zeros(900, 2), nuisance], dim=1)
        data = DataSet(name, ("a", "b"), *(Split(x[part], labels[part]) for part in map(slice, (0, 400, 650), (400, 650, 900))))
        settings = dataclasses.replace(
            PROTOCOLS["full"], probe_curve=False, probe_epochs=12, probe_batch=50, probe_learning_rate=0.03
        )
        monkeypatch.setattr("flowclf.evaluation.context.PROTOCOLS", {"full": settings})
        trained = train_probes(MetricContext(clf, data, protocol="full", probe=ProbeSettings(hidden=[2])))
        growth[name] = trained.probes["mlp"].growth
        units = {2: 1, 3: 2, 4: 4}[trained.probes["mlp"].state_dict()["network.0.weight"].shape[0]]
        assert growth[name] == units
    assert growth["ring"] == 4
    # No cross-entropy falls below 0; what is left of it may still shrink, so only the error shows that nothing is gained.
    assert trained.scores["mlp"]["validation"].error == 0


def test_the_curve_is_of_the_best_probe_on_validation_data_and_of_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, int]] = []
    scores = {(1, 240): (0.5, 1.0), (2, 240): (0.3, 0.5), (4, 240): (0.3, 0.6), (2, 60): (0.6, 2.0), (2, 120): (0.5, 1.0)}
    only("mine", made_up(scores, seen))
    registry.probes._local["worse"] = made_up({(1, 240): (0.5, 3.0), (2, 240): (0.5, 3.0)}, [])
    data = mirrored_data()
    monkeypatch.setattr("flowclf.evaluation.context.PROTOCOLS", {"full": PROTOCOLS["full"]})
    results = evaluate(pixels(), data, protocol="full", probe=SMALL)
    assert seen == [(1, 240), (2, 240), (4, 240), (2, 60), (2, 120)]
    assert results["probe.mine.growth"] == 2
    assert results["probe.curve.name"] == "mine"
    assert results["probe.curve.quarter_validation_error"] == 0.6
    assert results["probe.curve.half_validation_error"] == 0.5
    assert results["probe.curve.validation_error"] == 0.3
    assert results["probe.saturated"] == "no"
    scores[2, 120] = 0.32, 0.6
    assert evaluate(pixels(), data, protocol="full", probe=SMALL)["probe.saturated"] == "yes"


@pytest.mark.parametrize(
    ("half", "whole", "examples", "expected"),
    [
        (0.40, 0.40, 5000, True),
        (0.38, 0.40, 5000, True),
        (0.40, 0.365, 5000, True),
        (0.40, 0.355, 5000, False),
        # Few examples say little.
        (0.40, 0.355, 200, True),
        (0.006, 0.005, 5000, True),
        (0.009, 0.005, 5000, False),
        (0.0, 0.0, 5000, True),
    ],
)
def test_a_probe_is_saturated_unless_its_error_falls_by_a_tenth_and_more_than_chance(
    half: float, whole: float, examples: int, expected: bool
) -> None:
    assert saturated(half, whole, examples) == expected
    low, high = error_interval(whole, examples)
    assert expected == (half - whole <= 0.1 * half or half - whole <= (high - low) / 2)


class Listener:
    def __init__(self) -> None:
        self.tasks: dict[str, int] = {}

    def message(self, text: str) -> None: ...

    def row(self, row: dict[str, Any]) -> None: ...

    @contextlib.contextmanager
    def task(self, description: str, total: int) -> Iterator[Any]:
        self.tasks[description] = total

        class Task:
            def advance(self, n: int = 1, **values: float) -> None: ...

        yield Task()


def test_full_probes_are_the_same_each_time_and_report_their_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    only("mlp")
    data, found = mirrored_data(augment=Augmentation(shift=1)), []
    for _ in "ab":
        made = context(data, monkeypatch, probe_epochs=4)
        made.progress = listener = Listener()
        found.append(train_probes(made))
    one, again = found
    assert one.scores == again.scores
    assert one.curve == again.curve
    for value, same in zip(one.probes["mlp"].state_dict().values(), again.probes["mlp"].state_dict().values(), strict=True):
        assert torch.equal(value, same)
    expected = {"probe mlp": 4, "probe mlp, 2 times the size": 4}
    expected |= {f"encoding draw {draw}": 240 for draw in (2, 3, 4)}
    expected |= {f"probe mlp, {part} of the examples": 4 for part in ("quarter", "half")}
    assert expected.items() <= listener.tasks.items()
    assert set(listener.tasks) - set(expected) <= {"encoding", "probe mlp, 4 times the size"}
