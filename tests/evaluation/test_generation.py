"""Checkerboards on paths to metamers, and classes of samples."""

from __future__ import annotations

import torch
from torch import Tensor

import flowclf
from flowclf.data import DataSet, Split
from flowclf.evaluation.context import MetricContext
from flowclf.evaluation.evaluate import measure
from flowclf.evaluation.metrics.generation import checkerboard_energy
from flowclf.modes import evaluating


def test_energy_is_that_of_the_highest_frequency() -> None:
    row = torch.arange(8) % 2.0
    board = (row[:, None] != row[None]).float()
    images = torch.stack([board, row.expand(8, 8), torch.ones(8, 8), 0.5 * board])[:, None]
    torch.testing.assert_close(checkerboard_energy(images), torch.tensor([0.25, 0.0, 0.0, 0.0625]))
    both = torch.stack([board, torch.zeros(8, 8)])[None]
    torch.testing.assert_close(checkerboard_energy(both), torch.tensor([0.125]))
    assert torch.equal(checkerboard_energy(torch.rand(2, 3, 1, 8)), torch.zeros(2))


def context_of(nodes: list[object], images: Tensor, labels: Tensor, oracle: object = None) -> MetricContext:
    preprocessing = flowclf.Preprocessing((1, 8, 8), bits=8)
    clf = flowclf.build_classifier((1, 8, 8), nodes, classes=2, preprocessing=preprocessing)
    split = Split(images, labels)
    return MetricContext(clf, DataSet("grey", ("a", "b"), split, split, split), oracle=oracle)  # type: ignore[arg-type]


def broken(context: MetricContext) -> float:
    with evaluating(context.classifier):
        return float(measure(context, only={"paths.broken"})["paths.broken"])


def test_a_path_breaks_where_its_pictures_have_checkerboards_that_the_data_have_not() -> None:
    """An inverse that adds a checkerboard where the first nuisance is large."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(100, 156, (60, 1, 8, 8), generator=generator, dtype=torch.uint8)
    labels = torch.arange(60) % 2
    smooth = context_of(["squeeze", "split_head"], images, labels)
    assert broken(smooth) == 0
    clf = smooth.invertible
    inverse = clf.inverse

    def with_checkerboards(logits: Tensor, nuisance: Tensor) -> Tensor:
        x = inverse(logits, nuisance)
        row = torch.arange(8) % 2
        board = 2.0 * (row[:, None] != row[None]) - 1
        return x + board * (nuisance[:, :1, None, None] > nuisance.median()).float()

    clf.inverse = with_checkerboards  # type: ignore[method-assign]
    assert 0.5 < broken(MetricContext(clf, smooth.data)) < 1


def test_samples_are_labelled_at_8_bits() -> None:
    images = torch.randint(0, 256, (20, 1, 8, 8), dtype=torch.uint8)
    seen: list[Tensor] = []

    def oracle(pictures: Tensor) -> Tensor:
        seen.append(pictures)
        return torch.tensor([[3.0, 1.0]]).expand(len(pictures), -1)

    context = context_of(["squeeze", "split_head"], images, torch.arange(20) % 2, oracle)
    with evaluating(context.classifier):
        results = measure(context, only={"samples.class_8bit", "samples.count"})
    assert results == {"samples.count": 500, "samples.class_8bit": 0.5}
    pictures = torch.cat(seen)
    assert pictures.shape == (500, 1, 8, 8)
    assert torch.equal((255 * pictures).round() / 255, pictures)
    assert pictures.std() > 0
