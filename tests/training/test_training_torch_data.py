"""flowclf.fit on data sets and loaders of torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

import flowclf
from flowclf.errors import DataError, UsageError
from flowclf.losses import CrossEntropy
from flowclf.progress import SilentProgress
from flowclf.training.torch_data import training_data

IMAGES = torch.randint(0, 256, (60, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(60) % 3
NODES = ["squeeze", "actnorm", "affine_coupling", "split_head"]


class Named(Dataset):
    classes = ("cat", "dog", "fox")

    def __init__(self, words: bool = False) -> None:
        self.words = words

    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: int) -> Any:
        label = int(LABELS[index])
        return IMAGES[index], self.classes[label] if self.words else label


def images_classifier(**arguments: Any) -> flowclf.InvertibleClassifier:
    return flowclf.build_classifier((1, 8, 8), NODES, 3, **arguments)


@pytest.mark.parametrize("source", [TensorDataset(IMAGES, LABELS), DataLoader(Named(), 16, shuffle=True), Named(words=True)])
def test_a_classifier_is_trained_on_torch_data(source: Any) -> None:
    clf = images_classifier()
    rows = flowclf.fit(clf, CrossEntropy(), source, epochs=2)
    assert [row["step"] for row in rows] == ([4, 8] if isinstance(source, DataLoader) else [1, 2])
    assert clf.initialized
    assert not clf.training


def test_the_parts_are_of_all_examples() -> None:
    data = training_data(images_classifier(), DataLoader(TensorDataset(IMAGES / 255, LABELS), 16))
    assert (len(data.train), len(data.validation), len(data.test), data.batch_size) == (54, 6, 0, 16)
    together = torch.cat([data.train.inputs, data.validation.inputs]).flatten(1).tolist()
    assert sorted(together) == sorted(IMAGES.flatten(1).tolist())


def test_vectors_and_signals_are_told_by_the_classifier() -> None:
    signals = torch.randn(60, 2, 4)
    nodes = ["actnorm", "affine_coupling", "split_head"]
    for shape, values in (((2, 4), signals), ((8,), signals.flatten(1))):
        preprocessing = flowclf.Preprocessing(shape, bits=None)
        clf = flowclf.build_classifier(preprocessing.input_shape, nodes, 3, preprocessing=preprocessing)
        flowclf.fit(clf, CrossEntropy(), TensorDataset(values, LABELS), epochs=1)


def test_names_of_classes_follow_the_classifier() -> None:
    assert training_data(images_classifier(), Named()).class_names == ("cat", "dog", "fox")
    ordered = training_data(images_classifier(class_names=["fox", "dog", "cat"]), Named(words=True))
    assert ordered.class_names == ("fox", "dog", "cat")
    images, labels = (torch.cat([getattr(ordered.train, n), getattr(ordered.validation, n)]) for n in ("inputs", "labels"))
    by_image = {tuple(image.flatten().tolist()): int(label) for image, label in zip(images, labels, strict=True)}
    assert all(by_image[tuple(image.flatten().tolist())] == 2 - int(label) for image, label in zip(IMAGES, LABELS, strict=True))
    with pytest.raises(UsageError, match="data: expected the classes of the classifier, fox, dog, cat; found cat, dog, fox"):
        training_data(images_classifier(class_names=["fox", "dog", "cat"]), Named())


def test_data_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="the classifier takes 3 of"):
        flowclf.fit(images_classifier(), CrossEntropy(), TensorDataset(IMAGES[..., :6], LABELS), epochs=1)
    with pytest.raises(DataError, match="training labels: expected 0 to 2, found 0 to 3"):
        flowclf.fit(images_classifier(), CrossEntropy(), TensorDataset(IMAGES, torch.arange(60) % 4), epochs=1)
    with pytest.raises(DataError, match="no example of class 2"):
        flowclf.fit(images_classifier(), CrossEntropy(), TensorDataset(IMAGES, torch.arange(60) % 2), epochs=1)
    with pytest.raises(UsageError, match="expected a flowclf Classifier"):
        flowclf.fit(torch.nn.Linear(2, 2), CrossEntropy(), TensorDataset(IMAGES, LABELS), epochs=1)  # type: ignore[arg-type]


def test_reading_is_part_of_the_progress() -> None:
    tasks: list[tuple[str, int]] = []

    class Listening(SilentProgress):
        def task(self, description: str, total: int) -> Any:
            tasks.append((description, total))
            return super().task(description, total)

    flowclf.fit(images_classifier(), CrossEntropy(), TensorDataset(IMAGES, LABELS), epochs=1, progress=Listening())
    assert tasks == [("reading data", 60), ("training", 1)]
