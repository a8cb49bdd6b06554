"""DataSet.from_torch: map-style and iterable data sets, loaders, what they may yield, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
)

from flowclf.data import DataSet, torch_reading
from flowclf.data.torch_reading import read_torch
from flowclf.errors import DataError, UsageError

IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (60, 1, 6, 5), dtype=np.uint8))
LABELS = torch.arange(60) % 3


class Pairs(Dataset):
    def __init__(self, convert: Any, labels: Any = None, classes: Any = None) -> None:
        self.convert = convert
        self.labels = LABELS.tolist() if labels is None else labels
        if classes is not None:
            self.classes = classes

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Any:
        return self.convert(IMAGES[index]), self.labels[index]


class Stream(IterableDataset):
    def __init__(self, repeats: int = 1) -> None:
        self.repeats = repeats

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self.repeats):
            yield from zip(IMAGES, LABELS, strict=True)


PLAIN = TensorDataset(IMAGES, LABELS)
SOURCES = {
    "tensors": PLAIN,
    "floats": TensorDataset(IMAGES / 255, LABELS),
    "PIL images": Pairs(lambda image: Image.fromarray(image[0].numpy())),
    "arrays": Pairs(lambda image: image[0].numpy()),
    "channels last": Pairs(lambda image: image.permute(1, 2, 0).numpy()),
    "words": Pairs(lambda image: image, [str(int(label)) for label in LABELS]),
    "tensor labels": Pairs(lambda image: image, list(LABELS.to(torch.int32))),
    "iterable": Stream(),
    "loader": DataLoader(PLAIN, batch_size=7),
    "loader of words": DataLoader(Pairs(lambda image: image, [str(int(label)) for label in LABELS]), batch_size=7),
    "loader without batches": DataLoader(PLAIN, batch_size=None),
    "loader of a stream": DataLoader(Stream(), batch_size=7),
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_everything_is_read_as_arrays_are(source: Any) -> None:
    expected = DataSet.from_arrays(IMAGES, LABELS, name="torch")
    found = DataSet.from_torch(source)
    assert repr(found) == repr(expected)
    for part in ("train", "validation", "test"):
        assert torch.equal(getattr(found, part).inputs, getattr(expected, part).inputs)
        assert torch.equal(getattr(found, part).labels, getattr(expected, part).labels)


def test_a_shuffled_loader_and_a_subset_have_every_example_once() -> None:
    for source in (
        DataLoader(PLAIN, batch_size=8, shuffle=True),
        DataLoader(PLAIN, 8, sampler=torch.utils.data.SubsetRandomSampler(range(60))),
    ):
        read = read_torch(source)
        pairs = {(tuple(image.flatten().tolist()), label) for image, label in zip(read.inputs, read.labels, strict=True)}
        assert pairs == {(tuple(image.flatten().tolist()), int(label)) for image, label in PLAIN}
    assert len(read_torch(Subset(PLAIN, range(10))).labels) == 10


def test_a_test_part_may_be_given() -> None:
    data = DataSet.from_torch(PLAIN, test=DataLoader(Subset(PLAIN, range(9))), batch_size=16)
    assert torch.equal(data.test.inputs, IMAGES[:9])
    assert (len(data.train), len(data.validation)) == (54, 6)


def test_names_of_classes_are_those_of_the_data_set() -> None:
    named = Pairs(lambda image: image, classes=["cat", "dog", "fox"])
    assert DataSet.from_torch(named).class_names == ("cat", "dog", "fox")
    assert DataSet.from_torch(DataLoader(Subset(named, range(30)))).class_names == ("cat", "dog", "fox")
    assert DataSet.from_torch(named, class_names="abc").class_names == ("a", "b", "c")


def test_vectors_and_signals() -> None:
    vectors = torch.randn(60, 4, dtype=torch.float64)
    assert torch.equal(read_torch(TensorDataset(vectors, LABELS)).inputs, vectors.float())
    signals = torch.randn(60, 2, 8)
    assert torch.equal(read_torch(TensorDataset(signals, LABELS), kind="signals").inputs, signals)
    with pytest.raises(DataError, match="kind says which"):
        read_torch(TensorDataset(signals, LABELS))


def test_what_augments_at_random_is_read_once_with_a_warning() -> None:
    noisy = Pairs(lambda image: (image + torch.randint(0, 9, image.shape)).to(torch.uint8))
    for source in (noisy, DataLoader(noisy, batch_size=20)):
        with pytest.warns(UserWarning, match="an example is another each time it is read, so the data set augments at random"):
            DataSet.from_torch(source)


def test_what_drop_last_leaves_out_is_counted() -> None:
    with pytest.warns(UserWarning, match="drop_last of the DataLoader leaves 4 of 60 examples out"):
        assert len(read_torch(DataLoader(PLAIN, batch_size=7, drop_last=True)).labels) == 56
    read_torch(DataLoader(PLAIN, batch_size=6, drop_last=True))


@pytest.mark.parametrize(
    "sampler", [WeightedRandomSampler([1.0] * 60, 60), RandomSampler(PLAIN, replacement=True), RandomSampler(PLAIN, num_samples=10)]
)
def test_samplers_that_draw_other_examples_are_refused(sampler: Any) -> None:
    with pytest.raises(UsageError, match="draws other examples in every epoch, but it would be read once; hand over its dataset"):
        DataSet.from_torch(DataLoader(PLAIN, batch_size=8, sampler=sampler))


def test_own_batch_samplers_are_refused() -> None:
    with pytest.raises(UsageError, match="a DataLoader with a list draws"):
        DataSet.from_torch(DataLoader(PLAIN, batch_sampler=[[0, 1], [0, 2]]))


def test_a_set_that_is_too_large_is_refused_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_reading, "_CHUNK", 10)
    read: list[int] = []

    def counted(image: Any) -> Any:
        read.append(1)
        return image

    with pytest.raises(DataError, match=r"train: expected at most 1e-06 GB in memory, found 1.8e-06 GB; .*memory_gb"):
        DataSet.from_torch(Pairs(counted), memory_gb=1e-6)
    assert len(read) == 10
    with pytest.raises(DataError, match=r"found more than 1.2e-06 GB"):
        DataSet.from_torch(Stream(10**9), memory_gb=1e-6)
    with pytest.raises(UsageError, match="memory_gb: expected a positive number"):
        DataSet.from_torch(PLAIN, memory_gb=0)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (TensorDataset(IMAGES), r"train: expected pairs \(input, label\), found a tuple of 1"),
        (TensorDataset(IMAGES, LABELS, LABELS), r"found a tuple of 3"),
        (DataLoader(TensorDataset(IMAGES)), r"train: expected batches \(inputs, labels\), found a list of 1"),
        (DataLoader([{"image": 1}] * 4), "found a dict"),
        (Pairs(lambda image: image[:, : int(image[0, 0, 0]) % 3 + 1]), r"expected inputs of one shape, found .*; resize or crop"),
        (Pairs(lambda image: image / 127.5 - 1), "train: inputs: expected pixels from 0 to 1, .*undo a normalisation"),
        (Pairs(lambda image: image, torch.eye(3)[LABELS]), r"train: labels: expected integers of shape \(60,\)"),
        (Subset(PLAIN, []), "expected at least one pair"),
    ],
)
def test_what_is_refused(source: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        DataSet.from_torch(source)
