"""Images that are decoded as they are used: the same batches as from memory, from any process, and files that cannot be read."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import write_images

import flowclf.data
from flowclf.data import Batch, DataSet, StreamedSplit, image_folder
from flowclf.data.streaming import CorruptFiles
from flowclf.errors import DataError, UsageError

SMOOTH = {"size": 8, "channels": 3, "validation": 10, "batch_size": 16}
CHANGES = {"shift": 1, "crop": 1, "flip": True, "rotation": 10.0, "noise": 0.1, "color": {"brightness": 0.3, "hue": 0.1}}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWCLF_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images")


def load(root: Path, memory_gb: float = 0.0, **arguments: Any) -> DataSet:
    arguments = {"workers": 0, **SMOOTH, **arguments}
    return flowclf.data.load("image_folder", root=str(root), memory_gb=memory_gb, **arguments)


def assert_same(left: Batch, right: Batch) -> None:
    assert torch.equal(left.inputs, right.inputs)
    assert torch.equal(left.labels, right.labels)
    assert torch.equal(left.generator.get_state(), right.generator.get_state())


def assert_all_same(left: Iterator[Batch], right: Iterator[Batch]) -> None:
    for one, other in zip(left, right, strict=True):
        assert_same(one, other)


def test_the_budget_decides(root: Path) -> None:
    needed = 80 * 3 * 8 * 8 / 1e9
    assert not isinstance(load(root, needed).train, StreamedSplit)
    streamed = load(root, 0.99 * needed)
    assert all(isinstance(split, StreamedSplit) for split in (streamed.train, streamed.validation, streamed.test))
    assert repr(streamed).endswith("batch 16, cpu, streamed)")
    described = streamed.describe()
    assert described.pop("streamed")
    assert json.loads(json.dumps(described)) == load(root, needed).describe()


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_from_memory(root: Path, workers: int) -> None:
    memory, streamed = load(root, 1.0, augment=CHANGES), load(root, workers=workers, augment=CHANGES)
    state = torch.get_rng_state()
    for epoch in range(2):
        assert_all_same(memory.train_batches(epoch), streamed.train_batches(epoch))
        assert_all_same(memory.train_batches(epoch, 2), streamed.train_batches(epoch, 2))
    for part in ("train", "validation", "test"):
        assert torch.equal(getattr(memory, part).inputs, getattr(streamed, part).inputs)
        assert torch.equal(getattr(memory, part).labels, getattr(streamed, part).labels)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_resized_crop_of_files_of_the_right_size_is_that_from_memory(root: Path) -> None:
    augment = {"resized_crop": 0.3, **CHANGES}
    memory, streamed = load(root, 1.0, augment=augment), load(root, augment=augment)
    assert_all_same(memory.train_batches(0), streamed.train_batches(0))


def test_a_resized_crop_is_of_the_file_in_its_own_resolution(tmp_path: Path) -> None:
    # Bright left halves: in the 8 pixels of the middle that are kept, nothing is bright.
    for name in "ab":
        (tmp_path / "wide" / name).mkdir(parents=True)
        for position in range(8):
            pixels = np.zeros((32, 160, 3), dtype=np.uint8)
            pixels[:, :60] = 255
            Image.fromarray(pixels).save(tmp_path / "wide" / name / f"{position}.png")
    data = load(tmp_path / "wide", validation=2, augment={"resized_crop": 0.08}, test_fraction=0.2)
    assert data.train.inputs.max() == 0
    assert next(data.train_batches(0)).inputs.max() == 255


@pytest.mark.parametrize("memory_gb", [0.0, 1.0])
@pytest.mark.parametrize("world", [2, 3])
def test_shares_of_a_batch_make_the_batch(root: Path, world: int, memory_gb: float) -> None:
    data = load(root, memory_gb, augment={"resized_crop": 0.5, "elastic": 0.5, **CHANGES})
    shares = [list(data.train_batches(1, rank=rank, world=world)) for rank in range(world)]
    for position, whole in enumerate(data.train_batches(1)):
        for rank in range(world):
            share = shares[rank][position]
            assert torch.equal(share.inputs, whole.inputs[rank::world])
            assert torch.equal(share.labels, whole.labels[rank::world])
            assert torch.equal(share.generator.get_state(), whole.generator.get_state())


@pytest.mark.parametrize(("rank", "world", "message"), [(2, 2, "a rank from 0 to 1, found 2"), (0, 17, "at most 14 processes")])
def test_shares_that_do_not_exist_are_refused_at_once(root: Path, rank: int, world: int, message: str) -> None:
    data = load(root)
    assert len(data.train) % 16 == 14
    with pytest.raises(UsageError, match=message):
        data.train_batches(0, rank=rank, world=world)


def test_parts_of_a_split_are_decoded_when_they_are_used(root: Path) -> None:
    streamed, memory = load(root).train, load(root, 1.0).train
    for path in root.glob("*/*"):
        path.rename(path.with_suffix(".moved"))
    indices = torch.tensor([5, 3, 9])
    parts = [split.take(indices).head(2).sample(1, seed=1) for split in (streamed, memory)]
    assert isinstance(parts[0], StreamedSplit)
    for path in root.glob("*/*"):
        path.rename(path.with_suffix(".png"))
    assert torch.equal(parts[0].inputs, parts[1].inputs)
    assert torch.equal(parts[0].labels, parts[1].labels)
    assert (parts[0].shape, parts[0].dtype, len(parts[0])) == ((3, 8, 8), torch.uint8, 1)
    sizes = [len(part) for part in streamed.batches(25)]
    assert sizes == [25, 25, len(streamed) - 50]
    assert torch.equal(torch.cat([part.inputs for part in streamed.batches(25)]), memory.inputs)
    assert len(streamed.head(0).loaded()) == 0
    with pytest.raises(UsageError, match="expected 0 or more examples, found -1"):
        streamed.head(-1)


def test_more_than_the_budget_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowclf.data.streaming.MEMORY_GB", 1e-6)
    data = load(write_images(tmp_path / "images"))
    assert len(data.train.head(5).loaded()) == 5
    with pytest.raises(UsageError, match=r"62 images of shape \(3, 8, 8\) would take 1.2e-05 GB .* raise memory_gb"):
        _ = data.train.inputs


def corrupt(root: Path, share: float) -> list[str]:
    """Cut a share of the files short; returns their paths."""
    files = sorted(root.glob("*/*.png"))
    chosen = [files[index] for index in np.random.default_rng(0).permutation(len(files))[: round(share * len(files))]]
    for path in chosen:
        path.write_bytes(path.read_bytes()[:60])
    return sorted(map(str, chosen))


@pytest.mark.parametrize("workers", [0, 2])
def test_files_that_cannot_be_read_are_named_once_and_replaced(root: Path, workers: int) -> None:
    data = load(root, workers=workers, skip_corrupt=8)
    before = [batch.inputs for batch in data.train_batches(0)]
    paths = corrupt(root, 0.1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        first = list(data.train_batches(0))
        found = {str(warning.message).split(": cannot be read")[0] for warning in caught}
        assert len(caught) == len(found) >= 3
        assert found <= set(paths)
        again = list(data.train_batches(0, 1))
        assert len(caught) == len(found)
    assert f"{len(found)} so far, 8 may be" in str(caught[-1].message)
    assert [len(batch.labels) for batch in first] == [16, 16, 16, 14]
    assert_all_same(iter(first[1:]), iter(again))
    changed = sum(int((one.inputs != other).flatten(1).any(1).sum()) for one, other in zip(first, before, strict=True))
    assert changed == len(found)


def test_in_an_evaluation_they_are_left_out(root: Path) -> None:
    data = load(root, skip_corrupt=20)
    whole = data.train.loaded()
    unreadable = set(corrupt(root, 0.2))
    with pytest.warns(UserWarning, match="cannot be read as an image and is skipped"):
        rest = data.train.loaded()
    pixels = {image.numpy().tobytes(): int(label) for image, label in zip(whole.inputs, whole.labels, strict=True)}
    assert len(whole) - len(unreadable) <= len(rest) < len(whole)
    assert all(pixels[image.numpy().tobytes()] == int(label) for image, label in zip(rest.inputs, rest.labels, strict=True))
    assert sum(len(part) for part in data.train.batches(7)) == len(rest)
    with pytest.raises(DataError, match=rf"{len(whole) - len(rest)} of 62 files cannot be read"):
        _ = data.train.inputs


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(("skipped", "allowed"), [(0, 0), (0.05, 4), (1000, 39)])
@pytest.mark.filterwarnings("ignore:.*is skipped")
def test_half_of_the_files_are_too_many(root: Path, workers: int, skipped: float, allowed: int) -> None:
    paths = corrupt(root, 0.5)
    data = load(root, workers=workers, skip_corrupt=skipped)
    message = rf"files that cannot be read as images were found so far, and skip_corrupt allows {allowed} of the 80; repair or"
    with pytest.raises(DataError, match=message) as caught:
        list(chain.from_iterable(split.batches(16) for split in (data.train, data.validation, data.test)))
    first, *listed = str(caught.value).splitlines()
    assert len(listed) == int(first.split()[0]) > allowed
    assert {line.split(": ")[0].strip() for line in listed} <= set(paths)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.filterwarnings("ignore:.*is skipped")
def test_a_training_on_them_stops(root: Path, workers: int) -> None:
    corrupt(root, 0.5)
    with pytest.raises(DataError, match="found so far, and skip_corrupt allows 4 of the 80"):
        list(load(root, workers=workers, skip_corrupt=0.05).train_batches(0))


def test_failures_are_counted_once() -> None:
    corrupt = CorruptFiles(200, 0.01)
    with pytest.warns(UserWarning, match=r"a.png: cannot be read as an image and is skipped: cut short \(1 so far, 2 may be\)"):
        corrupt.add([("a.png", "cut short"), ("a.png", "cut short")])
    corrupt.add([("a.png", "cut short")])
    with pytest.warns(UserWarning, match=r"2 so far"):
        corrupt.add([("b.png", "empty")])
    with pytest.raises(DataError, match=r"3 files .* allows 2 of the 200; .*:\n  a.png: cut short\n  b.png: empty\n  c.png: no"):
        corrupt.add([("c.png", "no")])


def test_by_default_one_in_a_hundred_may_be_corrupt(tmp_path: Path) -> None:
    root = write_images(tmp_path / "images", 100)
    next(root.glob("b/*")).write_bytes(b"")
    with pytest.warns(UserWarning, match="1 of 200 files cannot be read as images and are skipped"):
        raw = image_folder(root=str(root), size=8, channels=3)
    assert len(raw.train) + len(raw.test) == 199


def test_a_centre_crop_leaves_out_the_border(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        for position in range(4):
            pixels = np.full((16, 16), 255, dtype=np.uint8)
            pixels[4:12, 4:12] = np.arange(64, dtype=np.uint8).reshape(8, 8)
            Image.fromarray(pixels).save(tmp_path / name / f"{position}.png")
    for memory_gb in (0.0, 1.0):
        arguments: dict[str, Any] = {"size": 8, "channels": 1, "memory_gb": memory_gb, "validation": 2, "test_fraction": 0.3}
        middle = load(tmp_path, center_crop=0.5, **arguments).train.inputs
        assert torch.equal(middle, torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).expand_as(middle))
        assert load(tmp_path, **arguments).train.inputs.max() == 255


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"center_crop": 0.0}, "center_crop"),
        ({"center_crop": 1.5}, "center_crop"),
        ({"memory_gb": -1.0}, "memory_gb"),
        ({"workers": -1}, "workers"),
        ({"augment": {"resized_crop": 0.0}}, "resized_crop"),
        ({"augment": {"color": {"hue": 0.6}}}, "hue"),
        ({"augment": {"color": {"gamma": 0.6}}}, "gamma"),
        ({"augment": {"color": {"hue": 0.1}}, "channels": 1}, r"color.hue: expected 0 for images that are not RGB, found 0.1"),
    ],
)
def test_arguments_that_are_refused(root: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(root, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"center_crop": 0.0}, "image_folder: center_crop: expected a fraction greater than 0, at most 1, found 0.0"),
        ({"memory_gb": float("nan")}, "image_folder: memory_gb: expected a number of gigabytes, 0 or more, found nan"),
        ({"workers": -1}, "image_folder: workers: expected a number of processes, 0 or more, found -1"),
    ],
)
def test_the_function_itself_refuses_them(root: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        image_folder(root=str(root), **arguments)


def test_imagenet_names_classes_by_wordnet_id(tmp_path: Path) -> None:
    names = ("n02084071", "n01440764")
    write_images(tmp_path / "train", 6, names, side=12)
    write_images(tmp_path / "val", 3, names, side=12)
    for memory_gb in (0.0, 1.0):
        data = flowclf.data.load("imagenet", root=str(tmp_path), size=8, validation=2, memory_gb=memory_gb, workers=0)
        assert data.class_names == ("n01440764", "n02084071")
        assert (len(data.train), len(data.validation), len(data.test), data.image_shape) == (10, 2, 6, (3, 8, 8))
        assert data.test.labels.bincount().tolist() == [3, 3]
    (tmp_path / "val" / "tench").mkdir()
    with pytest.raises(DataError, match="tench: expected a class named by its WordNet id, such as n01440764"):
        flowclf.data.load("imagenet", root=str(tmp_path), validation=2)
    with pytest.raises(UsageError, match="expected the folders train and val of WordNet ids, found no folder"):
        flowclf.data.load("imagenet", root=str(tmp_path / "val"), validation=2)


def test_a_colour_change_depends_on_the_seed_alone(root: Path) -> None:
    augment = flowclf.data.Augmentation(color={"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1})
    images = load(root, 1.0).train.inputs
    state = torch.get_rng_state()
    first, again, other = (augment(images, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert (first != other).flatten(1).any(1).all()
    assert (first != images).flatten(1).any(1).all()
    assert not flowclf.data.Augmentation(color={"hue": 0.0})
