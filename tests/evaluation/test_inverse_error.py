from __future__ import annotations

import os

import pytest
import torch
from torch import nn

import flowclf
from flowclf.errors import UsageError
from flowclf.evaluation.inverse_error import forward_inverse_error, inverse_error
from flowclf.modes import evaluating, repeatable

NODES = ["squeeze", "actnorm", "invertible_conv1x1", {"affine_coupling": {"subnet": {"conv": {"width": 4}}}}, "split_head"]


@pytest.fixture
def clf() -> flowclf.InvertibleClassifier:
    torch.manual_seed(0)
    return flowclf.build_classifier((1, 8, 8), NODES, 3)


def test_round_trips_are_exact_up_to_the_precision(clf: flowclf.InvertibleClassifier) -> None:
    x = torch.rand(7, 1, 8, 8) * 2 - 1
    assert inverse_error(clf, x, batch_size=3).max < 1e-5
    double = clf.double()
    of_x = inverse_error(double, x, batch_size=3)
    assert 0 <= of_x.mean <= of_x.max < 1e-12
    logits, nuisance = double.latents(x.double())
    of_z = forward_inverse_error(double, logits, nuisance.roll(1, 0), batch_size=2)
    assert 0 <= of_z.mean <= of_z.max < 1e-11


def test_a_wrong_inverse_is_measured(clf: flowclf.InvertibleClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    right = clf.inverse

    def wrong(logits: torch.Tensor, nuisance: torch.Tensor) -> torch.Tensor:
        x = right(logits, nuisance)
        x[:, :, 0, 0] += 0.5
        return x

    monkeypatch.setattr(clf, "inverse", wrong)
    found = inverse_error(clf, torch.zeros(5, 1, 8, 8), batch_size=2)
    assert found.max == pytest.approx(0.5, abs=1e-5)
    assert found.mean == pytest.approx(0.5 / 64, abs=1e-5)
    logits, nuisance = torch.zeros(5, 3), torch.zeros(5, 61)
    assert forward_inverse_error(clf, logits, nuisance).max > 0.01


def test_a_value_that_is_not_finite_is_not_hidden(clf: flowclf.InvertibleClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clf, "inverse", lambda logits, nuisance: torch.full((len(logits), 1, 8, 8), torch.nan))
    assert str(inverse_error(clf, torch.zeros(2, 1, 8, 8)).max) == "nan"


def test_nothing_to_invert_is_refused(clf: flowclf.InvertibleClassifier) -> None:
    with pytest.raises(UsageError, match=r"at least one example.*\(0, 1, 8, 8\)"):
        inverse_error(clf, torch.zeros(0, 1, 8, 8))


def test_evaluating_gives_each_part_its_mode_back_even_after_an_error() -> None:
    net = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2))
    net[1].eval()
    inside: list[bool] = []
    assert not full_float32()

    def fail() -> None:
        inside.extend([net.training, net[0].training, torch.is_grad_enabled(), full_float32()])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), evaluating(net):
        fail()
    assert inside == [False, False, False, True]
    assert [net.training, net[0].training, net[1].training] == [True, True, False]
    assert torch.is_grad_enabled()
    assert not full_float32()


def full_float32() -> bool:
    """Whether a GPU's convolutions of float32 are of float32, by whichever setting this torch has for it."""
    cudnn = torch.backends.cudnn
    return cudnn.conv.fp32_precision == "ieee" if hasattr(cudnn, "conv") else not cudnn.allow_tf32


def order_of_sums() -> tuple[bool, bool, bool, bool]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
        torch.backends.cudnn.benchmark,
    )


def test_sums_have_a_fixed_order_on_a_gpu_and_the_callers_settings_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    before = order_of_sums()
    assert before == (False, False, True, True)
    with repeatable(torch.device("cpu")):
        assert order_of_sums() == before
    inside: list[tuple[bool, bool, bool, bool]] = []

    def fail() -> None:
        inside.append(order_of_sums())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), repeatable(torch.device("cuda")):
        fail()
    assert inside == [(True, True, False, False)]
    assert order_of_sums() == before
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


def test_who_forbids_sums_in_no_fixed_order_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    torch.use_deterministic_algorithms(True)
    try:
        with repeatable(torch.device("cuda")):
            assert order_of_sums() == (True, False, False, False)
        assert order_of_sums() == (True, False, True, False)
    finally:
        torch.use_deterministic_algorithms(False)
