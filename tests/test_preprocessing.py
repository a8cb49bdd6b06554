"""Preprocessing: images to network inputs and back, dequantisation, and code lengths that are known in closed form."""

from __future__ import annotations

import json
import math
from typing import Any

import FrEIA.framework as ff
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import on_grid
from torch import Tensor

from flowclf import InvertibleClassifier, Preprocessing
from flowclf.errors import UsageError
from flowclf.nodes import ActNorm, BijectiveNode, SplitHead
from flowclf.preprocessing import standardization

depths = st.integers(1, 8)
sizes = st.integers(1, 5)


def pixels(shape: tuple[int, ...], n: int = 8, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, *shape), generator=generator, dtype=torch.uint8)


@given(channels=st.integers(1, 3), height=sizes, width=sizes, bits=depths, pad=st.integers(0, 3))
def test_images_go_there_and_back(channels: int, height: int, width: int, bits: int, pad: int) -> None:
    preprocessing = Preprocessing((channels, height, width), bits=bits, pad=pad)
    images = torch.rand(2, channels, height, width, dtype=torch.float64)
    x = preprocessing(images)
    assert tuple(x.shape[1:]) == preprocessing.input_shape == (channels, height + 2 * pad, width + 2 * pad)
    assert float(x.abs().max()) <= 1
    torch.testing.assert_close(preprocessing.inverse(x), images)


@given(bits=depths, pad=st.integers(0, 2))
def test_an_image_without_noise_is_what_training_has_seen_on_average(bits: int, pad: int) -> None:
    preprocessing = Preprocessing((1, 16, 16), bits=bits, pad=pad)
    # The lowest and the highest pixel value of each level, and black and white alone.
    lowest = torch.arange(0, 256, 2 ** (8 - bits), dtype=torch.uint8)
    values = torch.stack([lowest, lowest + (2 ** (8 - bits) - 1)]).view(2, -1, 1, 1, 1)
    middles = 2 * (torch.arange(2**bits, dtype=torch.float64) + 0.5) / 2**bits - 1
    quiet = preprocessing(values.flatten(0, 1).expand(-1, 1, 16, 16).double() / 255)
    of_levels = quiet[..., pad : pad + 16, pad : pad + 16].unflatten(0, (2, -1))
    torch.testing.assert_close(of_levels[0, 0], middles[0].expand(1, 16, 16))
    torch.testing.assert_close(of_levels[1, -1], middles[-1].expand(1, 16, 16))
    # Anywhere between, less than a level away.
    assert float((of_levels - middles.view(1, -1, 1, 1, 1)).abs().max()) < 2.0 ** (1 - bits)
    noisy = preprocessing.dequantize(values[0].expand(-1, 1, 16, 16), torch.Generator().manual_seed(bits)).double()
    around = noisy[..., pad : pad + 16, pad : pad + 16].mean((1, 2, 3))
    torch.testing.assert_close(around, middles, rtol=0, atol=0.1 * 2.0 ** (1 - bits))
    if pad:
        assert float((quiet[..., 0, :] - middles[0]).abs().max()) < 1e-6
    assert not preprocessing.outside(noisy).any()
    assert preprocessing.outside(1.1 * noisy.sign()).shape == (2**bits, 1, 16, 16)
    assert preprocessing.outside(1.1 * noisy.sign()).all()


def test_at_8_bits_an_image_without_noise_is_the_middle_of_its_levels() -> None:
    values = torch.arange(256.0, dtype=torch.float64).view(1, 1, 16, 16)
    torch.testing.assert_close(Preprocessing((1, 16, 16), bits=8)(values / 255), 2 * (values + 0.5) / 256 - 1)


@given(bits=depths)
def test_the_noise_is_uniform_in_its_bin(bits: int) -> None:
    preprocessing = Preprocessing((1, 32, 32), bits=bits)
    data = torch.full((20, 1, 32, 32), 77, dtype=torch.uint8)
    x = preprocessing.dequantize(data, torch.Generator().manual_seed(bits)).double()
    u = (x + 1) * 2 ** (bits - 1) - (77 >> (8 - bits))
    assert scipy.stats.kstest(u.flatten().numpy(), "uniform").pvalue > 1e-3


def test_the_generator_decides_the_noise() -> None:
    preprocessing = Preprocessing((1, 4, 4), bits=4, pad=1)
    data = pixels((1, 4, 4))
    first, again, other = (preprocessing.dequantize(data, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(preprocessing.dequantize(data), preprocessing.dequantize(data))


def test_continuous_data_pass_unchanged() -> None:
    preprocessing = Preprocessing((5,), bits=None)
    x = torch.randn(3, 5)
    for result in (preprocessing(x), preprocessing.dequantize(x), preprocessing.inverse(x)):
        assert torch.equal(result, x)


def test_its_configuration_builds_it_again() -> None:
    preprocessing = Preprocessing((3, 6, 7), bits=5, pad=2)
    assert Preprocessing(**preprocessing.config()).config() == preprocessing.config()
    assert "bits=5" in repr(preprocessing)
    assert not preprocessing.state_dict()


@pytest.mark.parametrize(
    "arguments",
    [{"bits": 0}, {"bits": 9}, {"pad": -1}, {"image_shape": (5,), "bits": 8}, {"image_shape": (5,), "bits": None, "pad": 1}],
)
def test_what_cannot_be_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="preprocessing"):
        Preprocessing(**{"image_shape": (1, 8, 8), **arguments})


def test_data_that_do_not_fit_are_refused() -> None:
    preprocessing = Preprocessing((1, 8, 8))
    for wrong in (torch.rand(2, 8, 8), torch.rand(2, 3, 8, 8), torch.rand(1, 8, 8)):
        with pytest.raises(UsageError, match=r"\(B, 1, 8, 8\)"):
            preprocessing(wrong)
    with pytest.raises(UsageError, match="divide 8-bit images by 255"):
        preprocessing(pixels((1, 8, 8)))
    with pytest.raises(UsageError, match="uint8"):
        preprocessing.dequantize(torch.rand(2, 1, 8, 8))


# Code lengths.


class Probit(BijectiveNode):
    """z = Phi^-1((x - low) / width): under a standard normal z, x is uniform on [low, low + width), entry by entry."""

    def __init__(self, dims_in: Any, dims_c: Any = None, *, low: Tensor, width: Tensor) -> None:
        super().__init__(dims_in, dims_c)
        self.register_buffer("low", low)
        self.register_buffer("width", width)

    def transform(self, x: Tensor, conditions: Any, log_det: bool) -> tuple[Tensor, Tensor]:
        z = torch.special.ndtri((x - self.low) / self.width)
        log_density = -(z.square() + math.log(2 * math.pi)) / 2
        return z, -(log_density + self.width.log()).flatten(1).sum(1)


class ToClassMean(BijectiveNode):
    """Adds 1 to the first entry, which is logit 0: a standard normal input follows the prior of class 0."""

    def transform(self, x: Tensor, conditions: Any, log_det: bool) -> tuple[Tensor, None]:
        offset = torch.zeros(self.shape, dtype=x.dtype)
        offset.view(-1)[0] = 1
        return x + offset, None


def gaussian_classifier(preprocessing: Preprocessing, *before: tuple[type, dict[str, Any]]) -> InvertibleClassifier:
    """Two classes; given class 0, the output of the nodes is standard normal."""
    nodes: list[Any] = [ff.InputNode(*preprocessing.input_shape, name="input")]
    for index, (kind, arguments) in enumerate([*before, (ToClassMean, {})]):
        nodes.append(ff.Node(nodes[-1], kind, arguments, name=f"node {index}"))
    head = ff.Node(nodes[-1], SplitHead, {"classes": 2, "dct": False}, name="head")
    outputs = [ff.OutputNode((head, index), name=f"output {index}") for index in (0, 1)]
    return InvertibleClassifier([*nodes, head, *outputs], preprocessing=preprocessing).double()


def code_length(classifier: InvertibleClassifier, x: Tensor) -> Tensor:
    """Bits per dimension of class 0."""
    log_prob = classifier.log_prob(x, torch.zeros(len(x), dtype=torch.int64))
    return classifier.preprocessing.bits_per_dim(log_prob)


def uniform_ranges(preprocessing: Preprocessing) -> dict[str, Tensor]:
    """[-1, 1) for pixels of the image; for padding, the range of level 0."""
    shape, pad = preprocessing.input_shape, preprocessing.pad
    width = torch.full(shape, 2.0 ** (1 - int(preprocessing.bits or 0)), dtype=torch.float64)
    width[..., pad : shape[1] - pad, pad : shape[2] - pad] = 2.0
    return {"low": torch.full(shape, -1.0, dtype=torch.float64), "width": width}


@settings(max_examples=20)
@given(bits=depths, pad=st.integers(0, 2), side=st.integers(2, 4), seed=st.integers(0, 1000))
def test_a_uniform_model_needs_the_depth_in_bits(bits: int, pad: int, side: int, seed: int) -> None:
    """With every level equally likely a pixel costs exactly its depth, padded with noise of known density or not."""
    preprocessing = Preprocessing((1, side, side), bits=bits, pad=pad)
    classifier = gaussian_classifier(preprocessing, (Probit, uniform_ranges(preprocessing)))
    data = pixels((1, side, side), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    levels = torch.nn.functional.pad((data >> (8 - bits)).double(), (pad,) * 4)
    u = torch.rand(levels.shape, generator=generator, dtype=torch.float64)
    x = (levels + u) * 2.0 ** (1 - bits) - 1
    torch.testing.assert_close(code_length(classifier, x), torch.full((8,), float(bits), dtype=torch.float64))


@pytest.mark.parametrize("bits", range(1, 9))
def test_bits_are_of_the_pixel_level_not_of_the_scaled_input(bits: int) -> None:
    """x itself is standard normal under the model, so q + u is normal with mean and deviation 2^(bits - 1)."""
    preprocessing = Preprocessing((1, 4, 4), bits=bits)
    x = preprocessing.dequantize(pixels((1, 4, 4)), torch.Generator().manual_seed(bits)).double()
    half = 2.0 ** (bits - 1)
    level = half * (x + 1)
    expected = -scipy.stats.norm.logpdf(level.numpy(), loc=half, scale=half).reshape(8, -1).mean(1) / math.log(2)
    torch.testing.assert_close(code_length(gaussian_classifier(preprocessing), x), torch.from_numpy(expected))


def test_scaling_inside_the_flow_is_counted() -> None:
    preprocessing = Preprocessing((2, 4, 4), bits=8)
    classifier = gaussian_classifier(preprocessing, (ActNorm, {}))
    scale, bias = torch.tensor([3.0, 0.5]).double(), torch.tensor([0.1, -0.4]).double()
    norm = next(module for module in classifier.modules() if isinstance(module, ActNorm))
    norm.log_scale.data.copy_(scale.log())
    norm.bias.data.copy_(bias)
    x = preprocessing.dequantize(pixels((2, 4, 4)), torch.Generator().manual_seed(1)).double()
    level = 128 * (x + 1)
    loc, deviation = 128 * (1 - bias / scale)[:, None, None], (128 / scale)[:, None, None]
    expected = -scipy.stats.norm.logpdf(level.numpy(), loc=loc.numpy(), scale=deviation.numpy()).reshape(8, -1)
    torch.testing.assert_close(code_length(classifier, x), torch.from_numpy(expected.mean(1)) / math.log(2))


@settings(max_examples=15)
@given(bits=depths, pad=st.integers(1, 3))
def test_padding_costs_nothing_where_its_noise_is_modelled(bits: int, pad: int) -> None:
    """The same Gaussian on the image's pixels, with and without a border whose noise the flow knows exactly."""
    plain, padded = (Preprocessing((1, 3, 3), bits=bits, pad=size) for size in (0, pad))
    x = padded.dequantize(pixels((1, 3, 3)), torch.Generator().manual_seed(bits)).double()
    # A zero draw of float32 noise is the edge of the range, where the quantile is infinite.
    x = x.clamp_min(-1 + 1e-12)

    class Border(Probit):
        def transform(self, x: Tensor, conditions: Any, log_det: bool) -> tuple[Tensor, Tensor]:
            inside = torch.zeros(self.shape, dtype=torch.bool)
            inside[..., pad:-pad, pad:-pad] = True
            z, _ = super().transform(torch.where(inside, 0.0 * x, x), conditions, log_det)
            volume = -(-(z.square() + math.log(2 * math.pi)) / 2 + self.width.log())
            return torch.where(inside, x, z), torch.where(inside, 0.0, volume).flatten(1).sum(1)

    with_border = code_length(gaussian_classifier(padded, (Border, uniform_ranges(padded))), x)
    without = code_length(gaussian_classifier(plain), x[..., pad:-pad, pad:-pad])
    torch.testing.assert_close(with_border, without, atol=1e-10, rtol=0)


def test_continuous_data_are_measured_as_they_are() -> None:
    preprocessing = Preprocessing((6,), bits=None)
    x = torch.randn(4, 6, dtype=torch.float64)
    expected = -scipy.stats.norm.logpdf(x.numpy()).mean(1) / math.log(2)
    torch.testing.assert_close(code_length(gaussian_classifier(preprocessing), x), torch.from_numpy(expected))


# Fixed point.


@given(bits=depths, pad=st.integers(0, 2), seed=st.integers(0, 1000))
def test_everything_is_on_the_grid_in_fixed_point(bits: int, pad: int, seed: int) -> None:
    plain, fixed = (Preprocessing((1, 6, 5), bits=bits, pad=pad, fixed_point=flag) for flag in (False, True))
    data = pixels((1, 6, 5), seed=seed)
    for images in (data / 255, data.double() / 255):
        x = fixed(images)
        assert on_grid(x)
        torch.testing.assert_close(x, plain(images), atol=2.0**-17, rtol=0)
        assert torch.equal((255 * fixed.inverse(x)).round().to(torch.uint8), data)
    noisy, expected = (one.dequantize(data, torch.Generator().manual_seed(seed)) for one in (fixed, plain))
    assert on_grid(noisy)
    torch.testing.assert_close(noisy, expected, atol=2.0**-16, rtol=0)
    levels = ((noisy + 1) * 2 ** (bits - 1)).floor().to(torch.int64)
    assert torch.equal(levels[..., pad : pad + 6, pad : pad + 5], (data >> (8 - bits)).to(torch.int64))


@given(bits=depths)
def test_noise_in_fixed_point_is_the_middles_of_equal_parts(bits: int) -> None:
    preprocessing = Preprocessing((1, 32, 32), bits=bits, fixed_point=True)
    x = preprocessing.dequantize(torch.zeros(60, 1, 32, 32, dtype=torch.uint8), torch.Generator().manual_seed(bits)).double()
    parts = 2 ** (16 - bits)
    index = (x + 1) * 2 ** (bits - 1) * parts - 0.5
    assert torch.equal(index, index.round())
    assert 0 <= int(index.min()) <= int(index.max()) < parts
    # Grouped, so that each of 256 groups is expected to hold 240 of them.
    counts = (index * 256 / parts).long().flatten().bincount(minlength=256)
    assert scipy.stats.chisquare(counts.numpy()).pvalue > 1e-4
    assert float(x.std() * 2 ** (bits - 1)) == pytest.approx(12**-0.5, rel=0.02)


def test_continuous_data_are_rounded_to_the_grid() -> None:
    preprocessing = Preprocessing((5,), bits=None, fixed_point=True)
    x = torch.randn(3, 5)
    for result in (preprocessing(x), preprocessing.dequantize(x)):
        assert on_grid(result)
        torch.testing.assert_close(result, x, atol=2.0**-17, rtol=0)


def test_a_configuration_keeps_fixed_point() -> None:
    preprocessing = Preprocessing((1, 6, 7), fixed_point=True)
    assert Preprocessing(**preprocessing.config()).fixed_point
    assert "fixed_point=True" in repr(preprocessing)


def test_images_in_0_to_255_are_refused_and_metamers_are_not() -> None:
    preprocessing = Preprocessing((1, 4, 4))
    with pytest.raises(UsageError, match=r"expected images in \[0, 1\], found values up to 255; divide 8-bit images by 255"):
        preprocessing(torch.full((2, 1, 4, 4), 255.0))
    # An oracle labels metamers as they come, however far an inverse threw them.
    assert preprocessing(torch.tensor([-90.0, 90.0] * 16).view(2, 1, 4, 4)).shape == (2, 1, 4, 4)
    assert preprocessing(torch.zeros(0, 1, 4, 4)).shape == (0, 1, 4, 4)


# Standardised vectors and signals.


def test_standardised_vectors_have_mean_0_and_std_1_and_come_back() -> None:
    values = torch.randn(500, 4, dtype=torch.float64) * torch.tensor([1e-3, 1.0, 50.0, 1e6]) + torch.tensor([0.0, 3.0, -70.0, 5e6])
    preprocessing = Preprocessing((4,), bits=None, **standardization(values)).double()
    x = preprocessing(values)
    assert x.mean(0).abs().max() < 1e-6
    torch.testing.assert_close(x.std(0, correction=0), torch.ones(4).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(preprocessing.inverse(x), values)
    assert torch.equal(preprocessing.dequantize(values), x)


def test_signals_are_standardised_by_channel_and_become_vectors() -> None:
    values = torch.randn(300, 3, 8) * torch.tensor([2.0, 5.0, 0.1])[:, None] + 4
    preprocessing = Preprocessing((3, 8), bits=None, **standardization(values))
    assert preprocessing.input_shape == (24,)
    x = preprocessing(values)
    assert x.shape == (300, 24)
    torch.testing.assert_close(x.view(300, 3, 8).std((0, 2), correction=0), torch.ones(3))
    torch.testing.assert_close(preprocessing.inverse(x), values)
    with pytest.raises(UsageError, match=r"expected a batch of shape \(B, 3, 8\), found \(2, 24\)"):
        preprocessing(torch.zeros(2, 24))
    plain = Preprocessing((3, 8), bits=None)
    assert torch.equal(plain(values), values.flatten(1))
    assert torch.equal(plain.inverse(plain(values)), values)


@pytest.mark.parametrize("value", [0.0, 1.0, -3e8, 1e-30])
def test_a_constant_entry_stays_bounded(value: float) -> None:
    values = torch.stack((torch.full((50,), value), torch.randn(50)), dim=1)
    values[::2, 0] *= 1 + 1e-7
    preprocessing = Preprocessing((2,), bits=None, **standardization(values))
    unseen = torch.tensor([[2 * value, 0.0], [0.0, 0.0], [value + 1 if abs(value) < 10 else value, 0.0]])
    assert preprocessing(values).abs().max() < 10
    bound = 2 if abs(value) != 1e-30 else 1e31
    assert preprocessing(unseen)[:, 0].abs().max() <= bound
    torch.testing.assert_close(preprocessing.inverse(preprocessing(values)), values)


def test_the_code_length_is_of_the_values_in_their_own_units() -> None:
    values = 3 + 0.25 * torch.randn(64, 6, dtype=torch.float64)
    raw = Preprocessing((6,), bits=None)
    scaled = Preprocessing((6,), bits=None, mean=[3.0] * 6, std=[0.25] * 6)
    expected = -scipy.stats.norm.logpdf(values.numpy(), loc=3, scale=0.25).mean(1) / math.log(2)
    torch.testing.assert_close(code_length(gaussian_classifier(scaled), scaled(values)), torch.from_numpy(expected))
    assert not torch.allclose(code_length(gaussian_classifier(raw), raw(values)), torch.from_numpy(expected))


def test_a_configuration_keeps_the_units() -> None:
    scaled = Preprocessing((2,), bits=None, mean=[1.0, 1 / 3], std=[0.5, 2.0])
    again = Preprocessing(**json.loads(json.dumps(scaled.config())))
    assert again.config() == scaled.config()
    assert torch.equal(again(torch.ones(1, 2)), scaled(torch.ones(1, 2)))
    assert "standardised" in repr(scaled)
    assert scaled.state_dict() == {}
    assert "mean" not in Preprocessing((2,), bits=None).config()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_shape": (2,), "mean": [0, 0]}, "expected mean and std together"),
        ({"image_shape": (2,), "mean": [0], "std": [1]}, "of 2 finite values each"),
        ({"image_shape": (2,), "mean": [0, 0], "std": [1, 0]}, "std positive; found 2 and 2 values from 0 to 1"),
        ({"image_shape": (2,), "mean": [0, math.nan], "std": [1, 1]}, "of 2 finite values each"),
        ({"image_shape": (1, 4, 4), "mean": [0], "std": [1]}, "expected mean and std together, for vectors"),
        ({"image_shape": (1, 4, 4), "mean": [0], "std": [1], "bits": 8}, "are for continuous data"),
        ({"image_shape": (2, 4), "bits": 8}, "bits and pad need images"),
    ],
)
def test_units_that_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match="preprocessing: ") as caught:
        Preprocessing(**{"bits": None, **arguments})
    assert message in str(caught.value)


def test_images_are_not_standardised() -> None:
    with pytest.raises(UsageError, match=r"standardize: expected floating-point vectors .*, found torch.uint8"):
        standardization(pixels((1, 4, 4)))


def test_pixel_values_without_a_depth_are_refused() -> None:
    """Trained on 0..255, a network would get images in [0, 1] from ``predict``."""
    preprocessing = Preprocessing((1, 4, 4), bits=None)
    with pytest.raises(UsageError, match="expected bits, 1 to 8"):
        preprocessing.dequantize(torch.zeros(2, 1, 4, 4, dtype=torch.uint8))
    images = torch.rand(2, 1, 4, 4)
    assert torch.equal(preprocessing.dequantize(images), preprocessing(images))
