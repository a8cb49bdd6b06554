from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.flop_counter import FlopCounterMode

import flowclf
from flowclf.errors import UsageError
from flowclf.evaluation.draws import Draws
from flowclf.evaluation.probes import (
    ConvolutionalProbe,
    KernelMachine,
    Probe,
    entropy_nats,
    mlp,
    mutual_information_nats,
    registered_probes,
    residual_blocks,
    score_probe,
    train_kernel_probe,
    train_probe,
    widened,
)
from flowclf.settings import ProbeSettings

CLASSES = 4


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def split(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Features that are one-hot labels, and the labels."""
    labels = torch.randint(CLASSES, (n,), generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.one_hot(labels, CLASSES).float(), labels


def small(seed: int = 0, **settings: Any) -> Probe:
    (x, y), (vx, vy) = split(400, 1), split(200, 2)
    return train_probe(x, y, vx, vy, CLASSES, seed=seed, **{"batch_size": 50, "epochs_max": 3, **settings})


def test_features_that_are_the_labels_hold_all_information() -> None:
    probe = small(epochs_max=10)
    x, y = split(300, 3)
    score = score_probe(probe, x, y, batch_size=70)
    assert score.error == 0
    assert entropy_nats(y) == pytest.approx(math.log(CLASSES), abs=0.05)
    assert mutual_information_nats(y, score.cross_entropy_nats) == pytest.approx(entropy_nats(y), abs=0.01)
    assert not probe.training


def test_noise_holds_none_and_a_negative_bound_is_reported() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(900, 6, generator=generator)
    y = torch.randint(CLASSES, (900,), generator=generator)
    probe = train_probe(x[:400], y[:400], x[400:600], y[400:600], CLASSES, epochs_max=40, patience=2, batch_size=50)
    score = score_probe(probe, x[600:], y[600:])
    assert mutual_information_nats(y[600:], score.cross_entropy_nats) < 0
    assert score.error > 0.6
    assert probe.epochs < 40


def test_training_is_a_function_of_the_seed_alone() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one = small()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    same, other = small(), small(seed=1)
    for name, value in one.state_dict().items():
        assert torch.equal(value, same.state_dict()[name])
    assert not torch.equal(one.state_dict()["network.0.weight"], other.state_dict()["network.0.weight"])


def test_training_works_where_gradients_are_off() -> None:
    with torch.no_grad():
        assert small().validation.error == 0


def test_the_best_weights_are_kept() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(300, 5, generator=generator), torch.randint(CLASSES, (300,), generator=generator)
    probe = train_probe(x[:200], y[:200], x[200:], y[200:], CLASSES, epochs_max=6, patience=6, learning_rate=0.001)
    again = score_probe(probe, x[200:], y[200:])
    assert again.cross_entropy_nats == pytest.approx(probe.validation.cross_entropy_nats, abs=1e-9)
    assert probe.epochs == 6


def test_standardisation_makes_scale_and_offset_irrelevant_and_constants_harmless() -> None:
    (x, y), (vx, vy), (tx, ty) = split(400, 1), split(200, 2), split(200, 3)

    def moved(features: Tensor) -> Tensor:
        return torch.cat([1000 * features - 300, torch.full((len(features), 1), 7.0)], dim=1)

    probe = train_probe(moved(x), y, moved(vx), vy, CLASSES, batch_size=50, epochs_max=8)
    assert score_probe(probe, moved(tx), ty).error == 0
    assert torch.isfinite(probe.std).all()
    assert (probe.std > 0).all()
    standardised = (moved(x) - probe.mean) / probe.std
    torch.testing.assert_close(standardised[:, :CLASSES].std(0, correction=0), torch.ones(CLASSES))
    assert (standardised[:, CLASSES] == 0).all()


def test_double_features_are_taken() -> None:
    x, y = split(100, 0)
    probe = train_probe(x.double(), y, x.double(), y, CLASSES, epochs_max=1)
    assert score_probe(probe, x.double(), y).cross_entropy_nats > 0


def test_the_default_is_the_papers_nuisance_classifier() -> None:
    shapes = [tuple(parameter.shape) for parameter in mlp(774, 10).parameters() if parameter.dim() == 2]
    assert shapes == [(512, 774), (512, 512), (512, 512), (10, 512)]


def noisy(n: int, seed: int, draw: int = 0) -> tuple[Tensor, Tensor]:
    """Features that say the label only faintly, with noise that is another in each draw."""
    x, y = split(n, seed)
    noise = torch.randn(n, 40, generator=torch.Generator().manual_seed(1000 * seed + draw))
    return torch.cat([x, torch.zeros(n, 40 - CLASSES)], dim=1) + 0.8 * noise, y


def test_a_probe_that_learns_one_draw_by_heart_learns_from_several() -> None:
    labels, validation = noisy(120, 1)[1], noisy(1000, 2)
    draws = [noisy(120, 1, draw)[0] for draw in range(8)]

    def train(features: Any) -> Probe:
        network = lambda: mlp(40, CLASSES, (64,))  # noqa: E731
        return train_probe(features, labels, *validation, CLASSES, network=network, epochs_max=40, epoch_steps=8, batch_size=30)

    one, several, again = train(draws[0]), train(draws), train(draws)
    assert several.validation == again.validation
    # The one fits its own draw better, and everything else worse.
    assert score_probe(one, draws[0], labels).error < 0.5 * score_probe(several, draws[0], labels).error
    assert several.validation.cross_entropy_nats < 0.9 * one.validation.cross_entropy_nats
    assert several.validation.error < 0.9 * one.validation.error


def test_passes_take_the_draws_in_turn_and_only_those_they_need() -> None:
    made: list[int] = []

    def make(draw: int) -> Tensor:
        made.append(draw)
        return split(100, 1)[0] + draw

    labels = split(100, 1)[1]
    probe = train_probe(Draws(make, 3), labels, *split(50, 2), CLASSES, epochs_max=5, patience=5, batch_size=50)
    assert made == [0, 1, 2, 0, 1]
    torch.testing.assert_close(probe.mean, split(100, 1)[0].mean(0))
    made.clear()
    train_probe(Draws(make, 3), labels, *split(50, 2), CLASSES, epochs_max=1)
    assert made == [0]
    made.clear()
    train_probe(Draws(make, 3), labels, *split(50, 2), CLASSES, epochs_max=1, batch_size=50, epoch_steps=3)
    assert made == [0, 1]


def test_one_draw_in_a_sequence_is_no_other_training() -> None:
    (x, y), validation = split(400, 1), split(200, 2)
    alone = train_probe([x], y, *validation, CLASSES, batch_size=50, epochs_max=3).state_dict()
    assert all(torch.equal(value, alone[name]) for name, value in small().state_dict().items())


def rates(**settings: Any) -> list[float]:
    """The learning rate of each step."""
    found: list[float] = []
    hook = register_optimizer_step_post_hook(lambda optimizer, args, kwargs: found.append(optimizer.param_groups[0]["lr"]))
    try:
        small(learning_rate=0.001, **settings)
    finally:
        hook.remove()
    return found


def test_the_learning_rate_falls_if_asked_and_epochs_have_the_steps_asked_for() -> None:
    assert rates() == [0.001] * 24
    annealed = rates(epochs_max=4, anneal=True)
    assert annealed[::8] == pytest.approx([0.001 * (1 + math.cos(math.pi * epoch / 4)) / 2 for epoch in range(4)])
    assert len(annealed) == 32
    assert len(rates(epochs_max=1, epoch_steps=8)) == 8
    assert len(rates(epochs_max=1, epoch_steps=9)) == 16


def factored_classifier() -> flowclf.InvertibleClassifier:
    torch.manual_seed(0)
    step = ["actnorm", "invertible_conv1x1"]
    nodes = ["squeeze", *step, "factor_out", "squeeze", *step, {"split_head": {"dct": True}}]
    return flowclf.build_classifier((1, 8, 8), nodes, CLASSES)


def test_a_convolutional_probe_sees_every_nuisance_once() -> None:
    clf = factored_classifier()
    probe = ConvolutionalProbe(clf, CLASSES, width=8)
    nuisance = torch.randn(3, clf.dimensions - CLASSES)
    maps = probe.rearranged(nuisance)
    assert maps.shape == (3, 16, 2, 2)
    # The maps are an orthogonal transform of the nuisances, with zeros in the place of the logits.
    torch.testing.assert_close(maps.square().flatten(1).sum(1), nuisance.square().sum(1))
    assert probe(nuisance).shape == (3, CLASSES)
    assert not any(parameter is own for parameter in probe.parameters() for own in clf.parameters())


@pytest.mark.parametrize("settings", [{}, {"hidden": 16, "trunk": residual_blocks}])
def test_a_convolutional_probe_learns(settings: dict[str, Any]) -> None:
    clf = factored_classifier()
    labels = torch.arange(240) % CLASSES
    images = torch.rand(240, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for row, label in enumerate(labels.tolist()):
        images[row, 0, 2 * label : 2 * label + 2] += 2
    with torch.no_grad():
        nuisance = clf.latents(images)[1]
    probe = train_probe(
        nuisance[:160],
        labels[:160],
        nuisance[160:],
        labels[160:],
        CLASSES,
        network=lambda: ConvolutionalProbe(clf, CLASSES, width=8, **settings),
        epochs_max=5,
        batch_size=16,
    )
    assert probe.validation.error < 0.1


def digit_classifier() -> flowclf.InvertibleClassifier:
    """774 nuisances, (16, 7, 7) without the logits."""
    return flowclf.build_classifier((1, 28, 28), ["squeeze", "squeeze", {"split_head": {"dct": True}}], 10)


def test_the_residual_probe_costs_no_more_than_the_convolutional_one() -> None:
    clf, operations = digit_classifier(), {}
    for name in ("conv", "residual"):
        make = registered_probes()[name].network
        assert make is not None
        probe = make(clf, ProbeSettings())
        with FlopCounterMode(display=False) as counter:
            probe(torch.randn(2, 774)).sum().backward()
        operations[name] = counter.get_total_flops()
    assert operations["residual"] < 1.1 * operations["conv"]


def test_residual_blocks_add_to_what_they_get() -> None:
    layers = nn.Sequential(*residual_blocks(3, 8)).eval()
    x = torch.randn(2, 3, 5, 5)
    for layer in layers[1:3]:
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)
    torch.testing.assert_close(layers(x), layers[3:](layers[0](x)))


@pytest.mark.parametrize("size", [2, 4])
def test_probes_that_grow_have_the_parameters_asked_for(size: int) -> None:
    clf = digit_classifier()
    growing = {name: kind.network for name, kind in registered_probes().items() if kind.grows}
    assert list(growing) == ["mlp", "conv", "residual"]
    for make in growing.values():
        assert make is not None
        small, large = (sum(map(torch.numel, make(clf, ProbeSettings(), times).parameters())) for times in (1, size))
        # The first layer's inputs do not grow.
        assert 0.75 * size < large / small < 1.15 * size


def test_widths_grow_with_the_root_of_the_parameters() -> None:
    assert [widened(units, 1) for units in (7, 65, 512)] == [7, 65, 512]
    assert [widened(units, 2) for units in (7, 40, 64, 512)] == [10, 57, 88, 728]


def test_a_convolutional_probe_needs_maps() -> None:
    clf = flowclf.build_classifier((6,), ["actnorm", "split_head"], 2)
    with pytest.raises(UsageError, match="feature maps"):
        ConvolutionalProbe(clf, 2)


def test_entropy() -> None:
    assert entropy_nats(torch.tensor([0, 0, 0])) == 0
    assert entropy_nats(torch.tensor([0, 0, 2, 2])) == pytest.approx(math.log(2))
    assert entropy_nats(torch.tensor([1, 0, 0, 0])) == pytest.approx(-0.25 * math.log(0.25) - 0.75 * math.log(0.75))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_features": torch.zeros(3, 2, 2)}, "training data: expected features"),
        ({"validation_features": torch.zeros(0, 4), "validation_labels": torch.zeros(0, dtype=torch.long)}, "validation"),
        ({"train_labels": torch.tensor([0, 4, 1])}, r"labels in 0\.\.3, found 0\.\.4"),
        ({"train_features": torch.full((3, 4), torch.nan)}, "finite"),
        ({"patience": 0}, "at least 1"),
        ({"epoch_steps": 0}, "at least 1"),
        ({"train_features": []}, "expected at least one draw of features, found none"),
        ({"train_features": [torch.zeros(3, 4), torch.zeros(2, 4)]}, r"expected features \(N, D\) and labels .* found \(2, 4\)"),
        ({"train_features": [torch.zeros(3, 4), torch.full((3, 4), torch.inf)]}, "finite"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused(change: dict[str, Any], message: str) -> None:
    arguments = {
        "train_features": torch.zeros(3, 4),
        "train_labels": torch.tensor([0, 1, 2]),
        "validation_features": torch.zeros(3, 4),
        "validation_labels": torch.tensor([0, 1, 2]),
        "classes": CLASSES,
    }
    with pytest.raises(UsageError, match=message):
        train_probe(**{**arguments, **change})  # type: ignore[arg-type]


def test_judging_on_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="at least one example"):
        score_probe(small(), torch.zeros(0, CLASSES), torch.zeros(0, dtype=torch.long))


def rings(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Two classes that no plane separates, by their distance from the centre; the third dimension is constant."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    angle, radius = 6.2832 * torch.rand(n, generator=generator), 1 + 2 * labels + 0.1 * torch.randn(n, generator=generator)
    return torch.stack([100 * radius * angle.cos(), radius * angle.sin() - 7, torch.full((n,), 5.0)], dim=1), labels


def kernel(seed: int = 0, **settings: Any) -> Probe:
    return train_kernel_probe(*rings(300, 1), *rings(100, 2), 2, seed=seed, **{"centres": 40, **settings})


def test_a_kernel_probe_finds_what_is_not_linear() -> None:
    done: list[int] = []
    probe = kernel(advance=done.append)
    x, y = rings(200, 3)
    assert score_probe(probe, x, y).error == 0
    assert score_probe(probe, x, y).cross_entropy_nats < 0.1
    assert probe.validation == score_probe(probe, *rings(100, 2))
    assert sum(done) == 3
    assert not probe.training


def test_a_kernel_probe_of_features_that_overflow_is_refused() -> None:
    x, y = rings(50, 1)
    with pytest.raises(UsageError, match="expected features whose differences are finite in float32"):
        train_kernel_probe(x.sign() * 3e38, y, x, y, 2, centres=10)


def test_a_kernel_probe_is_ridge_regression() -> None:
    """With every training point a centre, the closed form in the book; the scale alone is fitted on validation data."""
    x, y = rings(30, 1)
    held_out = rings(50, 2)
    held_out[1][::7] = 1 - held_out[1][::7]
    probe = train_kernel_probe(x, y, *held_out, 2, centres=30, bandwidths=[0.7], penalties=[1e-2])
    machine = probe.network
    assert isinstance(machine, KernelMachine)
    standard = ((x - probe.mean) / probe.std).double()
    centres = machine.centres.double()
    values = torch.exp(-torch.cdist(standard, centres).square() / (2 * machine.bandwidth**2))
    values = torch.cat([values, torch.ones(30, 1, dtype=torch.float64)], dim=1)
    gram = values.T @ values
    target = torch.nn.functional.one_hot(y, 2).double() - 0.5
    weights = torch.linalg.solve(gram + 1e-2 * gram.diagonal().mean() * torch.eye(31, dtype=torch.float64), values.T @ target)
    expected = machine.scale * (values @ weights)
    torch.testing.assert_close(probe(x).double(), expected, atol=1e-3 * expected.abs().max().item(), rtol=0)
    for factor in (0.9, 1.1):
        machine.scale *= factor
        assert score_probe(probe, *held_out).cross_entropy_nats > probe.validation.cross_entropy_nats
        machine.scale /= factor


def test_a_kernel_probe_is_a_function_of_the_seed_and_takes_few_examples() -> None:
    one, same, other = kernel(), kernel(), kernel(seed=1)
    x, _ = rings(20, 5)
    assert torch.equal(one(x), same(x))
    assert not torch.equal(one(x), other(x))
    few = train_kernel_probe(*rings(2, 1), *rings(10, 2), 2)
    assert torch.isfinite(few(x)).all()
    constant = train_kernel_probe(torch.ones(8, 3), torch.arange(8) % 2, torch.ones(8, 3), torch.arange(8) % 2, 2)
    assert constant.validation.cross_entropy_nats == pytest.approx(math.log(2), abs=1e-3)


@pytest.mark.parametrize("settings", [{"centres": 0}, {"bandwidths": []}, {"penalties": [0.0]}, {"bandwidths": [1.0, -1.0]}])
def test_a_kernel_probe_without_choices_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="at least one centre and bandwidth and penalty, all positive"):
        kernel(**settings)
