"""Confusions and errors of classes, with few and with many classes."""

from __future__ import annotations

import torch

import flowclf
from flowclf.data import DataSet, Split
from flowclf.evaluation import evaluate
from flowclf.evaluation.metrics.confusion import confusion_matrix


def test_the_matrix_counts_classes_in_rows_and_predictions_in_columns() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(200, 5, generator=generator), torch.randint(0, 5, (200,), generator=generator)
    counts = [[0] * 5 for _ in range(5)]
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        counts[label][row.index(max(row))] += 1
    assert confusion_matrix(logits, labels).tolist() == counts


def data_of(answers: list[tuple[int, int]], classes: int) -> DataSet:
    """Vectors that a classifier without weights answers with the second of each pair; the first is the class."""
    x = torch.zeros(len(answers), classes + 1)
    for place, (_, answer) in enumerate(answers):
        x[place, answer] = 1.0
    part = Split(x, torch.tensor([label for label, _ in answers]))
    return DataSet("answers", tuple(f"class {k}" for k in range(classes)), part, part, part)


def results_of(answers: list[tuple[int, int]], classes: int) -> dict[str, object]:
    data = data_of(answers, classes)
    return evaluate(flowclf.build_classifier((classes + 1,), ["split_head"], classes, class_names=data.class_names), data)


def test_results_name_the_confusions_the_most_frequent_first() -> None:
    results = results_of([(0, 0), (0, 1), (1, 1), (1, 0), (1, 0), (1, 3)], classes=4)
    assert results["data.class_names"] == ["class 0", "class 1", "class 2", "class 3"]
    assert results["test.class_examples"] == [2, 4, 0, 0]
    assert results["test.class_errors"] == [0.5, 0.75, None, None]
    assert results["test.confusions"] == [["class 1", "class 0", 2], ["class 0", "class 1", 1], ["class 1", "class 3", 1]]
    assert results["test.confusion_matrix"] == [[1, 1, 0, 0], [2, 1, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_many_classes_have_their_confusions_but_no_matrix() -> None:
    results = results_of([(k, k) for k in range(150)] + [(7, 149), (7, 149), (149, 7)], classes=150)
    assert results["test.confusions"] == [["class 7", "class 149", 2], ["class 149", "class 7", 1]]
    assert "test.confusion_matrix" not in results
    assert results["test.class_errors"][7] == 2 / 3  # type: ignore[index]
