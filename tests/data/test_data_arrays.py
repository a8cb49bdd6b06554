"""arrays and DataSet.from_arrays: layouts, keys, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import flowclf.data
from flowclf.data import DataSet, arrays
from flowclf.data.conversion import split_by_class
from flowclf.errors import DataError, UsageError

LABELS = np.arange(40) % 4


def images(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def saved(path: Path, **content: Any) -> str:
    np.savez(path / "data.npz", **content)
    return str(path / "data.npz")


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((40, 6, 5), (1, 6, 5)),
        ((40, 6, 5, 1), (1, 6, 5)),
        ((40, 6, 5, 3), (3, 6, 5)),
        ((40, 1, 6, 5), (1, 6, 5)),
        ((40, 3, 6, 5), (3, 6, 5)),
        ((40, 3, 3), (1, 3, 3)),
    ],
)
def test_every_layout_becomes_channels_first(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    values = images(*shape)
    data = DataSet.from_arrays(values, LABELS, test_images=values, test_labels=LABELS, validation=10)
    assert data.image_shape == expected
    with_channels = values[..., None] if len(shape) == 3 else values
    reference = with_channels if with_channels.shape[1] in (1, 3) and len(shape) == 4 else np.moveaxis(with_channels, 3, 1)
    assert np.array_equal(data.test.inputs.numpy(), reference)
    assert data.test.inputs.is_contiguous()
    assert data.test.labels.tolist() == LABELS.tolist()


def test_arrays_and_tensors_are_the_same_and_are_copied() -> None:
    values = images(40, 6, 5)
    one = DataSet.from_arrays(values, LABELS, test_images=values, test_labels=LABELS)
    two = DataSet.from_arrays(
        torch.from_numpy(values), torch.from_numpy(LABELS).int(), test_images=values, test_labels=LABELS.tolist()
    )
    for part in ("train", "validation", "test"):
        assert torch.equal(getattr(one, part).inputs, getattr(two, part).inputs)
        assert torch.equal(getattr(one, part).labels, getattr(two, part).labels)
    before = one.test.inputs.clone()
    values[:] = 0
    assert torch.equal(one.test.inputs, before)
    read_only = images(40, 6, 5)[::-1]
    read_only.setflags(write=False)
    DataSet.from_arrays(read_only, LABELS)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, torch.float64, torch.bfloat16])
def test_vectors(kind: Any) -> None:
    values = np.random.default_rng(0).normal(size=(40, 7))
    typed = torch.from_numpy(values).to(kind) if isinstance(kind, torch.dtype) else values.astype(kind)
    data = DataSet.from_arrays(typed, LABELS, batch_size=8, validation=0.25)
    assert data.image_shape == (7,)
    assert data.train.inputs.dtype == torch.float32
    assert repr(data) == "DataSet('arrays': 27 train, 9 validation, 4 test, (7,), 4 classes, batch 8, cpu)"
    (batch, *_) = data.train_batches(0)
    assert batch.inputs.shape == (8, 7)
    with pytest.raises(UsageError, match="only images"):
        DataSet.from_arrays(typed, LABELS, augment={"flip": True})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (images(40, 6, 5).astype(np.float32), "train_images: expected uint8 images"),
        (images(40, 6, 5).astype(np.int64), "found int64 of shape (40, 6, 5)"),
        (images(40, 6), "or floating point vectors (N, D), found uint8 of shape (40, 6)"),
        (images(40), "found uint8 of shape (40,)"),
        (images(40, 4, 6, 6), "but neither is: found uint8 of shape (40, 4, 6, 6)"),
        (images(40, 3, 6, 3), "but both are: found uint8 of shape (40, 3, 6, 3)"),
        (images(0, 6, 6), "expected at least one image or vector, found uint8 of shape (0, 6, 6)"),
        (np.full((40, 2), np.nan), "expected finite float32 values"),
        (np.full((40, 2), 1e300), "expected finite float32 values"),
        (np.array(["a"] * 40), "train_images: expected uint8 images"),
        (None, "train_images: expected uint8 images"),
    ],
)
def test_inputs_that_are_refused(values: Any, message: str) -> None:
    with pytest.raises(DataError, match="train_images: ") as caught:
        DataSet.from_arrays(values, LABELS)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS[:39], "expected integers of shape (40,), one per input, found int64 of shape (39,)"),
        (LABELS[:, None], "found int64 of shape (40, 1)"),
        (LABELS.astype(np.float32), "found float32 of shape (40,)"),
        (LABELS > 1, "found bool of shape (40,)"),
        (LABELS - 1, "expected class numbers from 0 up, found -1 to 2"),
        (LABELS.astype(np.uint64) + 2**63, "expected class numbers from 0 up, found 9223372036854775808"),
        (LABELS + 1, "expected every class number from 0 to the highest, found only 1, 2, 3, 4"),
        (LABELS * 2, "found only 0, 2, 4, 6"),
    ],
)
def test_labels_that_are_refused(labels: Any, message: str) -> None:
    with pytest.raises(DataError, match="train_labels: ") as caught:
        DataSet.from_arrays(images(40, 6, 5), labels)
    assert message in str(caught.value)


def test_test_arrays_come_in_pairs_and_fit() -> None:
    values = images(40, 6, 5)
    with pytest.raises(DataError, match="expected test_images and test_labels together, found test_images without"):
        DataSet.from_arrays(values, LABELS, test_images=values)
    with pytest.raises(DataError, match="together, found test_labels without test_images"):
        DataSet.from_arrays(values, LABELS, test_labels=LABELS)
    with pytest.raises(DataError, match="test inputs of one shape and type"):
        DataSet.from_arrays(values, LABELS, test_images=images(40, 5, 6), test_labels=LABELS)
    with pytest.raises(DataError, match="test labels: expected 0 to 3, found 0 to 4"):
        DataSet.from_arrays(values, LABELS, test_images=values, test_labels=np.arange(40) % 5)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.floats(0.01, 0.99), st.integers(0, 1000))
def test_a_test_part_takes_its_fraction_of_each_class(labels: list[int], fraction: float, seed: int) -> None:
    counts = torch.tensor(labels).bincount(minlength=5)
    expected = [max(1, int(fraction * count)) if count else 0 for count in counts.tolist()]
    if 1 in counts:
        with pytest.raises(DataError, match="expected at least 2 examples, one of them to test on, found 1"):
            split_by_class(torch.tensor(labels), fraction, seed)
        return
    kept, held_out = split_by_class(torch.tensor(labels), fraction, seed)
    assert sorted(kept.tolist() + held_out.tolist()) == list(range(len(labels)))
    assert torch.tensor(labels)[held_out].bincount(minlength=5).tolist() == expected


def test_a_file_with_test_arrays(tmp_path: Path) -> None:
    train, test = images(40, 6, 5), images(8, 6, 5)
    path = saved(
        tmp_path,
        train_images=train,
        train_labels=LABELS,
        test_images=test,
        test_labels=LABELS[:8],
        class_names=np.array(["a", "b", "c", "d"]),
    )
    raw = arrays(path=path)
    assert raw.class_names == ("a", "b", "c", "d")
    assert np.array_equal(raw.train.inputs[:, 0].numpy(), train)
    assert np.array_equal(raw.test.inputs[:, 0].numpy(), test)


def test_a_file_without_test_arrays(tmp_path: Path) -> None:
    path = saved(tmp_path, images=images(40, 6, 5), labels=LABELS.astype(np.uint8))
    data = flowclf.data.load("arrays", path=path, test_fraction=0.25, validation=0.1, batch_size=16)
    assert (len(data.train), len(data.validation), len(data.test)) == (29, 3, 8)
    assert data.class_names == ("0", "1", "2", "3")
    other_seed = flowclf.data.load("arrays", path=path, test_fraction=0.25, validation=0.1, seed=5)
    assert torch.equal(data.test.inputs, other_seed.test.inputs)
    assert not torch.equal(data.test.inputs, arrays(path=path, test_fraction=0.25, test_seed=1).test.inputs)
    with pytest.raises(UsageError, match=r"test_fraction: expected a fraction .* found 1"):
        arrays(path=path, test_fraction=1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": images(40, 6, 5)}, "expected the keys images, labels, or train_images"),
        ({"images": images(40, 6, 5), "label": LABELS}, "found images, label"),
        ({}, "found none"),
        ({"images": images(40, 6, 5), "labels": LABELS, "test_images": images(40, 6, 5)}, "found images, labels, test"),
        ({"images": images(40, 6, 5) / 255, "labels": LABELS}, "data.npz: images: expected uint8 images"),
        ({"images": images(40, 6, 5), "labels": LABELS[:3]}, "data.npz: labels: expected integers of shape (40,)"),
        ({"images": images(40, 6, 5), "labels": LABELS, "class_names": LABELS}, "class_names: expected strings"),
        ({"images": images(40, 6, 5), "labels": np.array([{}] * 40)}, "data.npz: labels: expected a plain array"),
    ],
)
def test_contents_that_are_refused(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    path = saved(tmp_path, **content)
    with pytest.raises(DataError, match=r"data.npz") as caught:
        arrays(path=path)
    assert message in str(caught.value)


def test_too_few_class_names_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, images=images(40, 6, 5), labels=LABELS, class_names=np.array(["a", "b"]))
    with pytest.raises(DataError, match="data set 'arrays': training labels: expected 0 to 1, found 0 to 3"):
        flowclf.data.load("arrays", path=path, validation=0.1)


def test_files_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"arrays: path: there is no file .*none.npz"):
        arrays(path=str(tmp_path / "none.npz"))
    for name, content in {"text.npz": b"hello", "empty.npz": b"", "pickle.npz": b"\x80\x04N."}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name}: expected an .npz archive"):
            arrays(path=str(tmp_path / name))
    np.save(tmp_path / "single.npy", LABELS)
    with pytest.raises(DataError, match=r"found a single .npy array"):
        arrays(path=str(tmp_path / "single.npy"))
    whole = Path(saved(tmp_path, images=images(40, 6, 5), labels=LABELS))
    content = whole.read_bytes()
    for damaged in (content[: len(content) // 2], content[:300] + b"\xff" * 50 + content[350:]):
        whole.write_bytes(damaged)
        with pytest.raises(DataError, match=r"data.npz"):
            arrays(path=str(whole))


# Types and ranges of pixels.


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, torch.float32, torch.bfloat16])
def test_float_images_in_0_to_1(kind: Any) -> None:
    values = images(40, 6, 5, 1)
    typed = torch.from_numpy(values / 255).to(kind) if isinstance(kind, torch.dtype) else (values / 255).astype(kind)
    data = DataSet.from_arrays(typed, LABELS, test_images=typed, test_labels=LABELS)
    assert data.test.inputs.dtype == torch.uint8
    off = (data.test.inputs[:, 0].int() - torch.from_numpy(values[..., 0]).int()).abs().max()
    assert off <= (1 if kind in (torch.bfloat16,) else 0)
    grey = DataSet.from_arrays(typed[..., 0], LABELS, test_images=typed[..., 0], test_labels=LABELS, kind="images")
    assert torch.equal(grey.test.inputs, data.test.inputs)


@pytest.mark.parametrize(
    ("values", "pixel_max", "expected"),
    [
        (np.array([0, 255, 256, 65535], dtype=np.uint16), None, [0, 0, 1, 255]),
        (np.array([0, 15, 16, 4095], dtype=np.uint16), 4095, [0, 0, 1, 255]),
        (np.array([0, 1, 128, 255], dtype=np.int64), 255, [0, 1, 128, 255]),
        (np.array([0, 1, 1, 0], dtype=np.uint8), 1, [0, 255, 255, 0]),
        (np.array([0, 50, 100, 1000], dtype=np.int32), 1000, [0, 13, 26, 255]),
        (np.array([0, 0.5, 127.6, 255], dtype=np.float32), 255, [0, 1, 128, 255]),
    ],
)
def test_the_value_of_white_can_be_stated(values: Any, pixel_max: float | None, expected: list[int]) -> None:
    whole = np.tile(values.reshape(1, 2, 2), (40, 1, 1))
    data = DataSet.from_arrays(whole, LABELS, pixel_max=pixel_max)
    assert data.train.inputs[0].flatten().tolist() == expected


@pytest.mark.parametrize(
    ("values", "arguments", "message"),
    [
        (images(40, 6, 5, 1) / 1.0, {}, "expected pixels from 0 to 1, found float64 from 0 to 255; pixel_max states"),
        (images(40, 6, 5, 1) / 127.5 - 1, {}, "expected pixels from 0 to 1, found float64 from -1 to 1; undo a normalisation"),
        (images(40, 6, 5, 1) / 255**2, {}, "from 0 to 0.00392157, all black; pixel_max states the value of white"),
        (np.full((40, 6, 5, 1), np.nan), {}, "expected pixels from 0 to 1, found float64 from nan to nan"),
        (images(40, 6, 5).astype(np.uint16), {}, "found uint16 up to 255, whose range is unknown; pixel_max states"),
        (images(40, 6, 5).astype(np.uint16), {"pixel_max": 200}, "expected pixels from 0 to 200, found uint16 from 0 to 255"),
        (images(40, 6, 5).astype(np.int64), {"kind": "images"}, "found int64 up to 255, whose range is unknown; pixel_max"),
        (images(40, 6, 5) / 255, {}, "these may be grey images in [0, 1] or signals (N, C, L): kind says which"),
        (images(40, 6, 5) / 255, {"kind": "vectors"}, "expected vectors (N, D), found float64 of shape (40, 6, 5)"),
        (images(40, 30) / 255, {"kind": "signals"}, "expected signals (N, C, L), found float64 of shape (40, 30)"),
        (images(40, 6, 5) > 4, {"kind": "images"}, "expected uint8 images (N, H, W)"),
    ],
)
def test_pixels_that_are_refused(values: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match="train_images: ") as caught:
        DataSet.from_arrays(values, LABELS, **arguments)
    assert message in str(caught.value)


def test_a_file_may_hold_signals_and_the_value_of_white(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(40, 2, 16)).astype(np.float32)
    data = flowclf.data.load("arrays", path=saved(tmp_path, images=values, labels=LABELS), kind="signals", validation=0.1)
    assert data.image_shape == (2, 16)
    assert data.train.inputs.dtype == torch.float32
    deep = images(40, 6, 5).astype(np.uint16) * 16
    raw = arrays(path=saved(tmp_path, images=deep, labels=LABELS), pixel_max=4095)
    assert set(raw.train.inputs.unique().tolist()) <= set(images(40, 6, 5).flatten().tolist())
    with pytest.raises(UsageError, match="pixel_max"):
        flowclf.data.load("arrays", path=str(tmp_path / "data.npz"), pixel_max=-1)


def test_integers_are_vectors_if_that_is_said() -> None:
    values = images(40, 7)
    data = DataSet.from_arrays(values, LABELS, kind="vectors", test_images=values, test_labels=LABELS)
    assert torch.equal(data.test.inputs, torch.from_numpy(values).float())


# Names of classes as labels.

WORDS = ["dog", "cat", "bird", "dog"]


@pytest.mark.parametrize(
    "kind", [list, tuple, np.array, lambda words: np.array(words, dtype=object), lambda words: np.array(words, "S")]
)
def test_labels_may_be_the_names_of_the_classes(kind: Any) -> None:
    values = images(40, 6, 5)
    data = DataSet.from_arrays(values, kind(WORDS * 10), test_images=values[:4], test_labels=kind(WORDS))
    assert data.class_names == ("bird", "cat", "dog")
    assert data.test.labels.tolist() == [2, 1, 0, 2]
    assert data.train.labels.bincount().add(data.validation.labels.bincount(minlength=3)).tolist() == [10, 10, 20]
    ordered = DataSet.from_arrays(
        values, kind(WORDS * 10), test_images=values[:4], test_labels=kind(WORDS), class_names=["dog", "cat", "bird"]
    )
    assert ordered.test.labels.tolist() == [0, 1, 2, 0]


def test_names_of_classes_in_a_file(tmp_path: Path) -> None:
    raw = arrays(path=saved(tmp_path, images=images(40, 6, 5), labels=np.array(WORDS * 10)))
    assert raw.class_names == ("bird", "cat", "dog")
    assert torch.cat([raw.train.labels, raw.test.labels]).bincount().tolist() == [10, 10, 20]


def test_names_that_are_no_classes_are_refused() -> None:
    values = images(40, 6, 5)
    with pytest.raises(DataError, match="test_labels: expected the classes bird, cat, dog, found 'wolf'"):
        DataSet.from_arrays(values, WORDS * 10, test_images=values[:2], test_labels=["cat", "wolf"])
    with pytest.raises(DataError, match="train_labels: expected the classes cat, dog, found 'bird'"):
        DataSet.from_arrays(values, WORDS * 10, class_names=["cat", "dog"])
    with pytest.raises(DataError, match=r"train_labels: expected integers of shape \(40,\)"):
        DataSet.from_arrays(values, [*WORDS * 9, "dog", "dog", "dog", None])
    with pytest.raises(DataError, match=r"train_labels: expected integers of shape \(40,\)"):
        DataSet.from_arrays(values, WORDS)
