from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import flowclf
from flowclf.errors import UsageError
from flowclf.evaluation.encoding import encode, network_inputs
from flowclf.evaluation.interval import error_interval
from flowclf.evaluation.metrics.calibration import expected_calibration_error, reliability_bins
from flowclf.evaluation.metrics.error import error
from flowclf.evaluation.metrics.likelihood import cross_entropy_nats


def logits_of_confidence(*confidences: float) -> torch.Tensor:
    """Two-class logits that say class 0 with these probabilities."""
    return torch.tensor([[math.log(c / (1 - c)), 0.0] for c in confidences], dtype=torch.float64)


def image_classifier(bits: int = 5, pad: int = 0) -> flowclf.InvertibleClassifier:
    torch.manual_seed(0)
    side = 4 + 2 * pad
    nodes = ["squeeze", "actnorm", {"affine_coupling": {"subnet": {"conv": {"width": 4}}}}, "split_head"]
    preprocessing = flowclf.Preprocessing((1, 4, 4), bits=bits, pad=pad)
    return flowclf.build_classifier((1, side, side), nodes, 3, preprocessing=preprocessing)


def test_error_and_cross_entropy() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 0.5]])
    assert error(logits, torch.tensor([0, 1, 1, 1])) == 0.25
    assert cross_entropy_nats(torch.zeros(5, 10), torch.arange(5)) == pytest.approx(math.log(10), abs=1e-12)
    assert cross_entropy_nats(logits_of_confidence(0.75), torch.tensor([1])) == pytest.approx(-math.log(0.25))


def test_calibration_error_of_constructed_logits() -> None:
    logits = logits_of_confidence(0.75, 0.75, 0.75, 0.75)
    assert expected_calibration_error(logits, torch.tensor([0, 0, 0, 1])) == pytest.approx(0, abs=1e-12)
    assert expected_calibration_error(logits, torch.tensor([0, 0, 1, 1])) == pytest.approx(0.25)
    mixed = torch.cat([logits, logits_of_confidence(0.95)])
    assert expected_calibration_error(mixed, torch.tensor([0, 0, 1, 1, 0])) == pytest.approx(0.8 * 0.25 + 0.2 * 0.05)
    sure = torch.tensor([[40.0, 0.0]] * 3)
    assert expected_calibration_error(sure, torch.tensor([1, 1, 1])) == pytest.approx(1)


def test_two_errors_of_opposite_sign_in_one_bin_cancel_but_not_in_two() -> None:
    logits = logits_of_confidence(0.62, 0.66)
    assert expected_calibration_error(logits, torch.tensor([0, 1]), bins=2) == pytest.approx(0.14)
    assert expected_calibration_error(logits, torch.tensor([0, 1]), bins=25) == pytest.approx((0.38 + 0.66) / 2)


def test_bins_are_open_below_and_closed_above() -> None:
    bins = reliability_bins(torch.zeros(3, 2), torch.tensor([0, 0, 1]), bins=2)
    assert bins.counts.tolist() == [3, 0]
    assert bins.confidence.tolist() == [0.5, 0]
    assert bins.accuracy.tolist() == [pytest.approx(2 / 3), 0]


@given(st.integers(1, 40), st.integers(2, 6), st.integers(1, 20), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_calibration_is_consistent(n: int, classes: int, bins: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 5 * torch.randn(n, classes, generator=generator)
    labels = torch.randint(classes, (n,), generator=generator)
    found = reliability_bins(logits, labels, bins=bins)
    assert found.counts.sum() == n
    assert (found.counts @ found.accuracy).item() == pytest.approx(n * (1 - error(logits, labels)))
    overall = abs(1 - error(logits, labels) - logits.double().softmax(1).max(1).values.mean().item())
    assert overall - 1e-9 <= expected_calibration_error(logits, labels, bins=bins) <= 1


@pytest.mark.parametrize(
    ("wrong", "of", "low", "high"),
    [(0, 10, 0.0, 0.27753), (5, 10, 0.23659, 0.76341), (10, 10, 0.72247, 1.0), (38, 10_000, 0.00277, 0.00521)],
)
def test_wilson_interval(wrong: int, of: int, low: float, high: float) -> None:
    interval = error_interval(wrong / of, of)
    assert interval.low == pytest.approx(low, abs=6e-6)
    assert interval.high == pytest.approx(high, abs=6e-6)


@given(st.integers(1, 10_000), st.data())
def test_wilson_interval_holds_the_fraction(n: int, data: st.DataObject) -> None:
    fraction = data.draw(st.integers(0, n)) / n
    low, high = error_interval(fraction, n)
    assert 0 <= low <= fraction + 1e-12
    assert fraction - 1e-12 <= high <= 1
    assert high - low < 1


def test_encoding_does_not_depend_on_the_batch_size_or_the_global_random_state() -> None:
    clf = image_classifier()
    data = torch.randint(0, 256, (11, 1, 4, 4), dtype=torch.uint8)
    state = torch.get_rng_state()
    whole, parts = encode(clf, data, seed=3), encode(clf, data, seed=3, batch_size=4)
    assert torch.equal(torch.get_rng_state(), state)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(whole.nuisance, encode(clf, data, seed=4).nuisance)


@pytest.mark.parametrize("pad", [0, 2])
def test_encoding_is_that_of_the_classifier(pad: int) -> None:
    clf = image_classifier(bits=8, pad=pad).train()
    data = torch.randint(0, 256, (6, 1, 4, 4), dtype=torch.uint8)
    done: list[int] = []
    encoded = encode(clf, data, seed=1, batch_size=4, advance=done.append)
    assert done == [4, 2]
    assert clf.training
    x = network_inputs(clf, data, torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(encoded.log_prob, clf.log_prob(x), rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(encoded.logits, clf(x).logits, rtol=1e-5, atol=1e-5)
    assert encoded.nuisance.shape == (6, clf.dimensions - 3)
    assert not encoded.logits.requires_grad


def test_the_classifier_keeps_its_precision() -> None:
    clf = image_classifier().double()
    assert encode(clf, torch.zeros(2, 1, 4, 4, dtype=torch.uint8)).logits.dtype == torch.float64


def test_bits_per_dim_of_a_density_in_closed_form() -> None:
    """An identity network whose prior is known: 8-bit noise images under N(0, 1) in every nuisance and logit."""
    preprocessing = flowclf.Preprocessing((1, 4, 4), bits=8)
    clf = flowclf.build_classifier((1, 4, 4), [{"split_head": {"dct": False}}], 2, preprocessing=preprocessing)
    data = torch.randint(0, 256, (50, 1, 4, 4), dtype=torch.uint8)
    encoded = encode(clf, data)
    z = torch.cat([encoded.logits, encoded.nuisance], dim=1).double()
    normal = -(z.square() + math.log(2 * math.pi)) / 2
    # p(logits) = mean over y of N(e_y, I): each class moves its own logit's mean to 1.
    shifted = [normal.sum(1) + z[:, y] - 0.5 for y in (0, 1)]
    log_prob = torch.logsumexp(torch.stack(shifted), 0) - math.log(2)
    expected = -log_prob / (16 * math.log(2)) + 7
    found = clf.preprocessing.bits_per_dim(encoded.log_prob.double())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "call",
    [
        lambda: error(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)),
        lambda: cross_entropy_nats(torch.zeros(4, 3), torch.zeros(5, dtype=torch.long)),
        lambda: expected_calibration_error(torch.zeros(4), torch.zeros(4, dtype=torch.long)),
        lambda: reliability_bins(torch.zeros(1, 2), torch.zeros(1, dtype=torch.long), bins=0),
        lambda: error_interval(0.5, 0),
        lambda: error_interval(1.5, 10),
        lambda: encode(image_classifier(), torch.zeros(0, 1, 4, 4, dtype=torch.uint8)),
        lambda: encode(image_classifier(), torch.zeros(2, 1, 4, 4, dtype=torch.uint8), batch_size=0),
    ],
)
def test_what_cannot_be_measured_is_refused(call: object) -> None:
    assert callable(call)
    with pytest.raises(UsageError, match="found"):
        call()
