"""Augmentation: exact content after shift, crop and flip; refusals; reproducibility; speed."""

from __future__ import annotations

import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from flowclf.data import Augmentation
from flowclf.errors import UsageError

shapes = st.tuples(st.integers(1, 5), st.sampled_from([1, 3]), st.integers(4, 9), st.integers(4, 9))
seeds = st.integers(0, 2**32 - 1)


def random_images(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randint(1, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def moved(image: Tensor, down: int, right: int) -> Tensor:
    """The reference: pixel by pixel, with zeros from outside."""
    _, height, width = image.shape
    result = torch.zeros_like(image)
    for row in range(height):
        for column in range(width):
            if 0 <= row - down < height and 0 <= column - right < width:
                result[:, row, column] = image[:, row - down, column - right]
    return result


@given(shapes, seeds, st.integers(1, 3))
def test_shift_moves_each_image_as_a_whole_and_fills_with_zero(shape: tuple[int, ...], seed: int, pixels: int) -> None:
    images = random_images(shape, seed)
    shifted = Augmentation(shift=pixels)(images, torch.Generator().manual_seed(seed))
    assert shifted.dtype == torch.uint8
    assert shifted.shape == images.shape
    offsets = range(-pixels, pixels + 1)
    for image, result in zip(images, shifted, strict=True):
        assert any(torch.equal(result, moved(image, down, right)) for down in offsets for right in offsets)


def test_shift_reaches_every_offset_equally() -> None:
    dot = torch.zeros(20000, 1, 9, 9, dtype=torch.uint8)
    dot[:, :, 4, 4] = 255
    shifted = Augmentation(shift=2)(dot, torch.Generator().manual_seed(0))
    counts = (shifted == 255).sum(dim=(0, 1))
    assert counts.sum() == 20000
    assert counts[2:7, 2:7].min() > 700
    assert counts[2:7, 2:7].max() < 900


@given(shapes, seeds, st.integers(1, 3))
def test_crop_is_a_window_of_the_reflected_image(shape: tuple[int, ...], seed: int, pixels: int) -> None:
    images = random_images(shape, seed)
    cropped = Augmentation(crop=pixels)(images, torch.Generator().manual_seed(seed))
    padded = torch.nn.functional.pad(images.float(), (pixels,) * 4, mode="reflect").to(torch.uint8)
    height, width = shape[2:]
    offsets = range(2 * pixels + 1)
    for image, result in zip(padded, cropped, strict=True):
        assert any(torch.equal(result, image[:, top : top + height, left : left + width]) for top in offsets for left in offsets)


@given(shapes, seeds)
def test_flip_mirrors_some_images_and_twice_is_identity(shape: tuple[int, ...], seed: int) -> None:
    images = random_images(shape, seed)
    flip = Augmentation(flip=True)
    once = flip(images, torch.Generator().manual_seed(seed))
    for image, result in zip(images, once, strict=True):
        assert torch.equal(result, image) or torch.equal(result, image.flip(-1))
    assert torch.equal(flip(once, torch.Generator().manual_seed(seed)), images)


def test_flip_mirrors_half_of_the_images() -> None:
    images = torch.zeros(10000, 1, 2, 2, dtype=torch.uint8)
    images[..., 0] = 1
    mirrored = Augmentation(flip=True)(images, torch.Generator().manual_seed(0))[:, 0, 0, 1].sum()
    assert 4800 < mirrored < 5200


def test_noise_is_gaussian_of_a_strength_of_each_images_own() -> None:
    images = torch.full((4000, 1, 10, 10), 127, dtype=torch.uint8)
    noise = (Augmentation(noise=0.1)(images, torch.Generator().manual_seed(0)).double() - 127).flatten(1)
    strengths = noise.std(1)
    # Uniform from 0 to 25.5 levels, rounding apart: a tenth of the images in each tenth of the range.
    assert torch.histc(strengths, 10, 0, 25.5).div(4000).sub(0.1).abs().max() < 0.04
    assert noise.mean().abs() < 0.1
    standard = (noise / strengths[:, None])[strengths > 5]
    assert standard.pow(4).mean().item() == pytest.approx(3, abs=0.15)
    dark = Augmentation(noise=1.0)(torch.zeros_like(images), torch.Generator().manual_seed(0))
    assert 0.45 < (dark == 0).double().mean() < 0.55


def test_turning_is_about_the_middle_and_keeps_lengths() -> None:
    # A bar on the right of the middle, in an image wider than high, seen a thousand times.
    image = torch.zeros(1, 1, 41, 61, dtype=torch.uint8)
    image[:, :, 19:22, 44:47] = 200
    turned = Augmentation(rotation=30.0)(image.expand(1000, -1, -1, -1), torch.Generator().manual_seed(0)).double()
    rows, columns = torch.arange(41.0).double() - 20, torch.arange(61.0).double() - 30
    mass = turned.sum((1, 2, 3))
    down = (turned.sum(3)[:, 0] * rows).sum(1) / mass
    right = (turned.sum(2)[:, 0] * columns).sum(1) / mass
    torch.testing.assert_close((down**2 + right**2).sqrt(), torch.full((1000,), 15.0).double(), atol=0.2, rtol=0)
    angles = torch.atan2(down, right).rad2deg()
    assert -30.5 < angles.min() < -29
    assert 29 < angles.max() < 30.5
    assert angles.std() == pytest.approx(60 / 12**0.5, rel=0.05)


def test_zoom_is_of_the_whole_image() -> None:
    image = torch.zeros(1, 1, 40, 60, dtype=torch.uint8)
    image[:, :, 15:25, 20:40] = 200
    zoomed = Augmentation(zoom=0.2)(image.expand(1000, -1, -1, -1), torch.Generator().manual_seed(0)).double()
    areas = zoomed.sum((1, 2, 3)) / (200 * 10 * 20)
    assert 0.8**2 - 0.02 < areas.min() < 0.8**2 + 0.02
    assert 1.2**2 - 0.02 < areas.max() < 1.2**2 + 0.02
    torch.testing.assert_close(zoomed.flip(-1), zoomed, atol=1, rtol=0)


def middles(images: Tensor, columns: slice) -> Tensor:
    """Where the mass of each image's part lies, from its middle: right and down, pixels, (B, 2)."""
    part = images[:, 0, :, columns].double()
    down, right = torch.arange(part.shape[1]).double(), torch.arange(part.shape[2]).double()
    mass = part.sum((1, 2))
    places = torch.stack(((part.sum(1) * right).sum(1) / mass, (part.sum(2) * down).sum(1) / mass), dim=1)
    return places - torch.tensor([(part.shape[2] - 1) / 2, (part.shape[1] - 1) / 2])


def test_elastic_distortion_moves_what_is_close_together_and_what_is_apart_independently() -> None:
    # Displacements are drawn at every seventh pixel from the corner: here in the middle of the two spots.
    image = torch.zeros(1, 1, 29, 43, dtype=torch.uint8)
    image[:, :, 14, 14] = image[:, :, 14, 28] = 200
    distorted = Augmentation(elastic=0.4)(image.expand(2000, -1, -1, -1), torch.Generator().manual_seed(0))
    one, other = middles(distorted, slice(7, 22)), middles(distorted, slice(21, 36))
    for places in (one, other):
        assert places.mean(0).abs().max() < 0.05
        torch.testing.assert_close(places.std(0), torch.full((2,), 0.4).double(), atol=0.04, rtol=0)
    correlations = torch.corrcoef(torch.cat((one, other), dim=1).T)
    assert (correlations - torch.eye(4)).abs().max() < 0.1
    twice = Augmentation(elastic=0.8)(image.expand(2000, -1, -1, -1), torch.Generator().manual_seed(0))
    assert middles(twice, slice(7, 22)).std() > 1.7 * one.std()


def test_elastic_distortion_comes_after_the_draws_of_the_others() -> None:
    """A recipe without it trains on the images that it always had."""
    images = random_images((6, 1, 14, 14), 0)
    plain = Augmentation(rotation=9.0, zoom=0.1)(images, torch.Generator().manual_seed(1))
    distorted = Augmentation(rotation=9.0, zoom=0.1, elastic=1e-6)(images, torch.Generator().manual_seed(1))
    assert (plain.int() - distorted.int()).abs().max() <= 1


def test_a_share_of_the_images_is_left_as_it_is() -> None:
    images = random_images((2000, 1, 9, 9), 0)
    warped = Augmentation(rotation=30.0, zoom=0.2, elastic=1.0, unwarped=0.3)(images, torch.Generator().manual_seed(0))
    same = (warped == images).flatten(1).all(1)
    assert 0.27 < same.double().mean() < 0.33
    none = Augmentation(rotation=30.0, zoom=0.2, elastic=1.0, unwarped=1.0)(images, torch.Generator().manual_seed(0))
    assert torch.equal(none, images)


def test_bicubic_interpolation_keeps_more_detail() -> None:
    images = random_images((200, 1, 20, 20), 0)
    bilinear, bicubic = (
        Augmentation(rotation=20.0, interpolation=kind)(images, torch.Generator().manual_seed(0))[:, :, 6:14, 6:14].double()
        for kind in ("bilinear", "bicubic")
    )
    assert bilinear.std() < bicubic.std() < images.double().std()
    dark = torch.zeros(4, 1, 9, 9, dtype=torch.uint8)
    dark[:, :, 4:] = 255
    turned = Augmentation(rotation=20.0, interpolation="bicubic")(dark, torch.Generator().manual_seed(0))
    assert turned[:, :, 0, 3:6].max() < 40
    assert turned[:, :, 7, 3:6].min() > 215


@given(seeds)
def test_a_seed_gives_the_same_images_and_leaves_the_global_state(seed: int) -> None:
    images = random_images((6, 3, 8, 8), seed)
    original = images.clone()
    augment = Augmentation(rotation=9.0, zoom=0.1, elastic=0.7, shift=2, crop=1, flip=True, noise=0.2)
    state = torch.get_rng_state()
    first = augment(images, torch.Generator().manual_seed(seed))
    second = augment(images, torch.Generator().manual_seed(seed))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, original)


def test_the_default_changes_nothing() -> None:
    images = random_images((4, 1, 5, 5), 0)
    assert not Augmentation()
    assert not Augmentation(unwarped=0.5, interpolation="bicubic")
    Augmentation(unwarped=0.5).check((4,))
    assert Augmentation()(images, torch.Generator()) is images


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shift": -1}, "augment.shift: Input should be greater than or equal to 0, found -1"),
        ({"shift": 1.5}, "augment.shift: Input should be a valid integer or less than 1, found 1.5"),
        ({"crop": True}, "augment.crop: Input should be a valid integer or a valid number, found true"),
        ({"flip": 1}, "augment.flip: Input should be a valid boolean, found 1"),
        ({"noise": 1.5}, "augment.noise: Input should be less than or equal to 1, found 1.5"),
        ({"noise": True}, "augment.noise: Input should be a valid number, found true"),
        ({"rotation": -1.0}, "augment.rotation: Input should be greater than or equal to 0, found -1.0"),
        ({"rotation": 181}, "augment.rotation: Input should be less than or equal to 180, found 181"),
        ({"elastic": -0.5}, "augment.elastic: Input should be greater than or equal to 0, found -0.5"),
        ({"elastic": float("nan")}, "augment.elastic: Input should be a finite number, found nan"),
        ({"unwarped": 2.0}, "augment.unwarped: Input should be less than or equal to 1, found 2.0"),
        ({"interpolation": "nearest"}, "augment.interpolation: Input should be 'bilinear' or 'bicubic', found 'nearest'"),
        ({"zoom": 1}, "augment.zoom: Input should be less than 1, found 1"),
        ({"shfit": 1}, "augment.shfit: unknown key 'shfit'; did you mean 'shift'?"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, object], message: str) -> None:
    for make in (lambda: Augmentation.of(arguments), lambda: Augmentation(**arguments)):
        with pytest.raises(UsageError) as caught:
            make()
        assert str(caught.value) == message


def test_another_type_is_refused() -> None:
    with pytest.raises(UsageError, match="augment: expected a mapping, found 3"):
        Augmentation.of(3)  # type: ignore[arg-type]


def test_data_that_cannot_be_augmented_so_are_refused() -> None:
    with pytest.raises(UsageError, match=r"only images .* found data of shape \(7,\)"):
        Augmentation(flip=True).check((7,))
    with pytest.raises(UsageError, match="crop: expected less than the smaller side, 4 pixels, found 4"):
        Augmentation(crop=4).check((1, 4, 9))
    Augmentation().check((7,))


def test_a_batch_takes_less_than_a_millisecond() -> None:
    images = random_images((128, 1, 28, 28), 0)
    augment, generator = Augmentation(shift=2), torch.Generator().manual_seed(0)
    threads, times = torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        for _ in range(30):
            start = time.perf_counter()
            augment(images, generator)
            times.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    # the fastest of many: the others measure what else the machine does
    assert min(times) < 1e-3


@pytest.mark.parametrize("name", ["shift", "crop"])
@pytest.mark.parametrize(("fraction", "side", "pixels"), [(0.07, 32, 2), (0.07, 8, 0), (0.5, 9, 4)])
def test_a_fraction_of_the_side_is_rounded_down_to_pixels(name: str, fraction: float, side: int, pixels: int) -> None:
    images = random_images((4, 1, side + 2, side), 0)
    found, expected = (Augmentation(**{name: value})(images, torch.Generator().manual_seed(0)) for value in (fraction, pixels))
    assert torch.equal(found, expected)
    assert torch.equal(found, images) == (pixels == 0)


@pytest.mark.parametrize("value", [1.5, -0.1])
def test_what_is_neither_pixels_nor_a_fraction_is_refused(value: float) -> None:
    with pytest.raises(UsageError, match="crop"):
        Augmentation(crop=value)
