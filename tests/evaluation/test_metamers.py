from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import flowclf
from flowclf.errors import UsageError
from flowclf.evaluation.metamers import draw_pairs, interpolate, metamer, metamer_statistics, quantized


def classifier(coupling: str = "additive_coupling", bits: int = 8, pad: int = 0) -> flowclf.InvertibleClassifier:
    """A small image classifier whose couplings do something: their last layers start at zero, so they are shaken."""
    torch.manual_seed(0)
    side = 8 + 2 * pad
    step = ["actnorm", "invertible_conv1x1", {coupling: {"subnet": {"conv": {"width": 4}}}}]
    preprocessing = flowclf.Preprocessing((1, 8, 8), bits=bits, pad=pad)
    clf = flowclf.build_classifier((1, side, side), ["squeeze", *step, *step, "split_head"], 3, preprocessing=preprocessing)
    with torch.no_grad():
        for parameter in clf.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return clf.eval()


def identity() -> flowclf.InvertibleClassifier:
    """z = x: the first two pixels are the logits."""
    preprocessing = flowclf.Preprocessing((1, 2, 2), bits=8)
    return flowclf.build_classifier((1, 2, 2), [{"split_head": {"dct": False}}], 2, preprocessing=preprocessing)


@pytest.mark.parametrize("coupling", ["additive_coupling", "affine_coupling"])
def test_a_metamer_has_the_logits_of_one_and_the_nuisances_of_the_other(coupling: str) -> None:
    clf = classifier(coupling).double()
    x1, x2 = torch.rand(2, 5, 1, 8, 8, dtype=torch.float64) * 2 - 1
    x_met = metamer(clf, logits_of=x1, nuisance_of=x2)
    with torch.no_grad():
        torch.testing.assert_close(clf(x_met).logits, clf(x1).logits, rtol=0, atol=1e-12)
        torch.testing.assert_close(clf(x_met).nuisance, clf(x2).nuisance, rtol=0, atol=1e-12)
    assert not x_met.requires_grad
    assert not torch.allclose(x_met, x1, atol=1e-3)


def test_a_metamer_with_itself_is_the_input() -> None:
    clf = classifier()
    x = torch.rand(4, 1, 8, 8)
    torch.testing.assert_close(metamer(clf, x, x), x, rtol=0, atol=1e-5)


def test_a_metamer_of_the_identity_swaps_pixels() -> None:
    x1, x2 = torch.full((1, 1, 2, 2), 0.5), torch.full((1, 1, 2, 2), -0.5)
    order = metamer(identity(), x1, x2).flatten().tolist()
    assert sorted(order) == [-0.5, -0.5, 0.5, 0.5]
    assert order[0] == 0.5


def test_interpolation_ends_and_logits() -> None:
    clf = classifier().double()
    x1, x2 = torch.rand(2, 3, 1, 8, 8, dtype=torch.float64)
    path = interpolate(clf, x1, x2, 5)
    assert path.shape == (5, 3, 1, 8, 8)
    torch.testing.assert_close(path[0], x1, rtol=0, atol=1e-12)
    torch.testing.assert_close(path[-1], metamer(clf, x1, x2), rtol=0, atol=1e-12)
    with torch.no_grad():
        nuisance = [clf.latents(step)[1] for step in path]
        for step in path:
            torch.testing.assert_close(clf.latents(step)[0], clf.latents(x1)[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(nuisance[2], (nuisance[0] + nuisance[4]) / 2, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("bits", "pad"), [(8, 0), (4, 0), (8, 2)])
def test_quantized_pictures_have_256_levels(bits: int, pad: int) -> None:
    clf = classifier(bits=bits, pad=pad)
    x = 3 * torch.randn(6, 1, 8 + 2 * pad, 8 + 2 * pad)
    images = quantized(clf, x)
    assert images.shape == (6, 1, 8, 8)
    levels = 255 * images
    assert torch.equal(images, levels.round() / 255)
    assert 0 <= images.min() <= images.max() <= 1
    torch.testing.assert_close(quantized(clf, clf.preprocessing(images)), images)


def test_quantizing_data_gives_the_data_back() -> None:
    clf = classifier(bits=8)
    pixels = torch.randint(0, 256, (20, 1, 8, 8), dtype=torch.uint8)
    x = clf.preprocessing.dequantize(pixels, torch.Generator().manual_seed(0))
    assert torch.equal((255 * quantized(clf, x)).round().to(torch.uint8), pixels)


@given(st.lists(st.integers(0, 4), min_size=2, max_size=30), st.integers(1, 50), st.integers(0, 99))
@settings(deadline=None)
def test_pairs_are_of_different_classes(labels: list[int], n: int, seed: int) -> None:
    tensor = torch.tensor(labels)
    if len(set(labels)) < 2:
        with pytest.raises(UsageError, match="at least two classes"):
            draw_pairs(tensor, n, seed=seed)
        return
    first, second = draw_pairs(tensor, n, seed=seed)
    assert first.shape == second.shape == (n,)
    assert (tensor[first] != tensor[second]).all()
    again = draw_pairs(tensor, n, seed=seed)
    assert torch.equal(first, again[0])
    assert torch.equal(second, again[1])


def test_pairs_are_uniform() -> None:
    labels = torch.tensor([2, 0, 1, 0, 2, 2])
    first, second = draw_pairs(labels, 60_000)
    counts = torch.bincount(first, minlength=6).double() / 60_000
    torch.testing.assert_close(counts, torch.full((6,), 1 / 6, dtype=torch.float64), rtol=0, atol=0.01)
    of_zero = torch.bincount(second[first == 1], minlength=6).double()
    expected = torch.tensor([0.25, 0, 0.25, 0, 0.25, 0.25], dtype=torch.float64)
    torch.testing.assert_close(of_zero / of_zero.sum(), expected, rtol=0, atol=0.025)


def test_statistics_of_a_flow_that_inverts() -> None:
    clf = classifier().train()
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8, generator=generator)
    x, labels = clf.preprocessing.dequantize(pixels, generator), torch.arange(40) % 3
    done: list[int] = []
    found = metamer_statistics(clf, x, labels, pairs=70, batch_size=32, advance=done.append)
    assert set(found) == {
        "metamers.pairs",
        "metamers.logit_change_max",
        "metamers.logit_change_mean",
        "metamers.prediction_kept",
        "metamers.distance_mean",
        "metamers.prediction_kept_8bit",
        "metamers.logit_change_8bit_mean",
        "metamers.pixels_out_of_range",
    }
    assert found["metamers.pairs"] == 70
    assert found["metamers.prediction_kept"] == 1
    one, two = draw_pairs(labels, 70)
    moved = (metamer(clf.eval(), x[one], x[two]) - x[one]).flatten(1).norm(dim=1).mean().item()
    assert found["metamers.distance_mean"] == pytest.approx(moved, rel=1e-5)
    clf.train()
    assert 0 < found["metamers.logit_change_mean"] <= found["metamers.logit_change_max"] < 1e-5
    assert found["metamers.logit_change_8bit_mean"] > found["metamers.logit_change_max"]
    assert 0 < found["metamers.pixels_out_of_range"] < 1
    assert done == [32, 32, 6]
    assert clf.training
    assert found == metamer_statistics(clf, x, labels, pairs=70, batch_size=32)


def test_statistics_of_the_identity_are_exact() -> None:
    clf = identity()
    labels = torch.tensor([0, 1])
    inside = torch.tensor([[0.5, -0.5, 0.25, 0.25], [-0.5, 0.5, 0.75, 0.75]]).view(2, 1, 2, 2)
    found = metamer_statistics(clf, inside, labels, pairs=20)
    assert found["metamers.logit_change_max"] == 0
    assert found["metamers.prediction_kept_8bit"] == 1
    assert found["metamers.pixels_out_of_range"] == 0
    # A level is 1/128 of network input; 8 bits keep the middle of it.
    assert found["metamers.logit_change_8bit_mean"] == pytest.approx(1 / 256)
    outside = inside.clone()
    outside[..., 1, 1] = 1.5
    assert metamer_statistics(clf, outside, labels, pairs=20)["metamers.pixels_out_of_range"] == 0.25


class ReadsThirdPixel(nn.Module):
    """Class 1 if the last pixel is bright: for the identity that is a nuisance."""

    def forward(self, images: Tensor) -> Tensor:
        bright = (images[:, 0, 1, 1] > 0.8).float()
        return torch.stack([1 - bright, bright], dim=1)


class ReadsFirstPixel(nn.Module):
    """Class 0 if the first pixel is bright: for the identity that is a logit."""

    def forward(self, images: Tensor) -> Tensor:
        bright = (images[:, 0, 0, 0] > 0.5).float()
        return torch.stack([bright, 1 - bright], dim=1)


class ReadsNothing(nn.Module):
    """A third class, always."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.tensor([[0.0, 0.0, 1.0]]).expand(len(images), 3)


@pytest.mark.parametrize(
    ("oracle", "answer"),
    [(ReadsThirdPixel(), "donor"), (ReadsFirstPixel(), "logits"), (ReadsNothing(), "neither")],
)
def test_an_oracle_judges(oracle: nn.Module, answer: str) -> None:
    labels = torch.tensor([0, 1])
    x = torch.tensor([[0.5, -0.5, 0.25, 0.25], [-0.5, 0.5, 0.75, 0.75]]).view(2, 1, 2, 2)
    found = metamer_statistics(identity(), x, labels, pairs=30, oracle=oracle)
    for name in ("donor", "logits", "neither"):
        for suffix in ("", "_8bit"):
            assert found[f"metamers.oracle.{name}{suffix}"] == (name == answer)


def test_adversarial_is_definition_3() -> None:
    """The oracle changes its mind from x1 to x_met, and the classifier does not."""
    labels = torch.tensor([0, 1])
    x = torch.tensor([[0.5, -0.5, 0.25, 0.25], [-0.5, 0.5, 0.75, 0.75]]).view(2, 1, 2, 2)
    for oracle, share in ((ReadsThirdPixel(), 1), (ReadsFirstPixel(), 0), (ReadsNothing(), 0)):
        found = metamer_statistics(identity(), x, labels, pairs=30, oracle=oracle)
        assert found["metamers.adversarial"] == found["metamers.adversarial_8bit"] == share
    # A classifier whose metamers do not keep their logits has no such examples, whatever the oracle says.
    broken = identity()
    right = broken.inverse
    broken.inverse = lambda logits, nuisance: right(-logits, nuisance)  # type: ignore[method-assign]
    found = metamer_statistics(broken, x, labels, pairs=30, oracle=ReadsThirdPixel())
    assert found["metamers.prediction_kept"] == found["metamers.adversarial"] == 0
    assert found["metamers.oracle.donor"] == 1


def test_an_oracle_need_not_be_a_module_nor_judge_images() -> None:
    clf = flowclf.build_classifier((3,), ["split_head"], 2)
    x, labels = torch.tensor([[1.0, 0.0, -1.0], [0.0, 1.0, 2.0]]), torch.tensor([0, 1])
    found = metamer_statistics(clf, x, labels, pairs=9, oracle=lambda data: torch.stack((-data[:, 2], data[:, 2]), dim=1))
    assert found["metamers.oracle.donor"] == found["metamers.adversarial"] == 1
    assert found["metamers.distance_mean"] == 3
    assert not any("8bit" in name for name in found)


def test_vectors_have_no_pixels() -> None:
    clf = flowclf.build_classifier((6,), ["actnorm", "split_head"], 2)
    x, labels = torch.randn(10, 6), torch.arange(10) % 2
    found = metamer_statistics(clf, x, labels, pairs=5)
    assert not any("8bit" in name or "pixels" in name for name in found)
    with pytest.raises(UsageError, match="continuous data"):
        quantized(clf, x)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda clf, x: metamer(clf, x, x[:1]), "two batches of one shape"),
        (lambda clf, x: metamer(clf, x[:, :, 1:], x[:, :, 1:]), "expected floating-point inputs"),
        (lambda clf, x: interpolate(clf, x, x, 1), "at least 2 steps"),
        (lambda clf, x: draw_pairs(torch.tensor([0, 1]), 0), "at least 1 pair"),
    ],
)
def test_wrong_calls_are_refused(call: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call(classifier(), torch.zeros(2, 1, 8, 8))
