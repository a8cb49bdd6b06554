"""Results that are read side by side: classes and their confusions, probes of several kinds, how an oracle labels metamers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from flowclf.evaluation.interval import error_interval
from flowclf.evaluation.probes import registered_probes
from flowclf.report.terms import percent

_MANY_CLASSES = 25


class Table(NamedTuple):
    """A small table with a caption; words in the first column, numbers in the others."""

    title: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def tables(results: Mapping[str, Any]) -> list[Table]:
    """The tables for which the results suffice."""
    return [table for table in (_classes(results), _confusions(results), _probes(results), _oracle(results)) if table is not None]


def _share(results: Mapping[str, Any], key: str) -> str:
    value = results.get(key)
    if value is None:
        return "–"
    low, high = results.get(f"{key}_low"), results.get(f"{key}_high")
    return percent(value) if low is None or high is None else f"{percent(value)} ({100 * low:.2f} to {100 * high:.2f})"


def _classes(results: Mapping[str, Any]) -> Table | None:
    names, errors, examples = (results.get(key) for key in ("data.class_names", "test.class_errors", "test.class_examples"))
    if not names or not errors or not examples:
        return None
    measured = [(name, error, n) for name, error, n in zip(names, errors, examples, strict=True) if error is not None]
    worst = sorted(measured, key=lambda row: -row[1])
    shown = measured if len(names) <= _MANY_CLASSES else worst[:_MANY_CLASSES]
    rows = []
    for name, error, n in shown:
        low, high = error_interval(error, n)
        rows.append([name, f"{n:,}", f"{percent(error)} ({100 * low:.2f} to {100 * high:.2f})", _taken_for(results, name)])
    caption = "The test error of each class, with the 95 % interval."
    if len(shown) < len(measured):
        caption = f"The {len(shown)} of {len(measured):,} classes with the highest test error, with 95 % intervals."
    if len(measured) < len(names):
        caption += f" Without test examples: {len(names) - len(measured):,}."
    return Table("Classes", caption, ("Class", "Test examples", "Test error", "Most often taken for"), rows)


def _taken_for(results: Mapping[str, Any], name: str) -> str:
    """The class for which examples of a class are mistaken most often; the confusions come in that order."""
    return next((f"{predicted} ({n:,})" for label, predicted, n in results.get("test.confusions", ()) if label == name), "–")


def _confusions(results: Mapping[str, Any]) -> Table | None:
    found, names = results.get("test.confusions"), results.get("data.class_names") or ()
    # With few classes, the figure of the confusion matrix shows them all.
    if not found or len(names) <= _MANY_CLASSES:
        return None
    shown, wrong = found[:_MANY_CLASSES], sum(n for *_, n in found)
    caption = (
        f"The {len(shown)} most frequent of {len(found):,} pairs of a class and the class that its examples are taken for. "
        "All are in test.confusions of results.json."
    )
    rows = [[label, predicted, f"{n:,}", percent(n / wrong, 1)] for label, predicted, n in shown]
    return Table("Confusions", caption, ("Class", "Taken for", "Test examples", "Share of all errors"), rows)


def _probes(results: Mapping[str, Any]) -> Table | None:
    found = [match[1] for match in map(re.compile(r"probe\.([^.]+)\.test_error").fullmatch, results) if match]
    if len(found) < 2:
        return None
    kinds = registered_probes()
    grown = any(f"probe.{name}.growth" in results for name in found)
    rows = [["the logits themselves", _share(results, "test.error"), _share(results, "train.error"), "", "", ""]]
    for name in found:
        nats, epochs = results.get(f"probe.{name}.test_cross_entropy_nats"), results.get(f"probe.{name}.epochs")
        title, trained = name, epochs is not None
        if name in kinds:
            title, trained = f"{name}: {kinds[name].description}", trained and kinds[name].network is not None
        errors = [_share(results, f"probe.{name}.{part}_error") for part in ("test", "train")]
        size = f"×\u00a0{results.get(f'probe.{name}.growth') or 1:g}" if trained else "–"
        rows.append([title, *errors, "–" if nats is None else f"{nats:.3f}", str(epochs) if trained else "–", size])
    caption = (
        "Classifiers trained afresh on the nuisances, with early stopping on held-out data. The lowest test error counts: "
        f"{_share(results, 'probe.test_error')}, with the 95 % interval."
    )
    if grown:
        caption += (
            " The size is about how many times the parameters of its kind's first size a probe has: the best on validation data."
        )
    columns = ("Classifier", "Test error", "Training error", "Cross-entropy, nats", "Epochs", "Size")[: 5 + grown]
    return Table("Probes", caption, columns, [row[: len(columns)] for row in rows])


def _oracle(results: Mapping[str, Any]) -> Table | None:
    if results.get("metamers.oracle.donor") is None:
        return None
    images = results.get("metamers.oracle.donor_8bit") is not None
    names = {
        "oracle.donor": "as the donor of the nuisances: the attack succeeds",
        "oracle.logits": "as the donor of the logits",
        "oracle.neither": "as another class",
        "prediction_kept": "(the classifier keeps its prediction)",
    }
    rows = [
        [words, *(_share(results, f"metamers.{name}{suffix}") for suffix in ("", "_8bit")[: 1 + images])]
        for name, words in names.items()
    ]
    caption = f"Shares of {results.get('metamers.pairs', 0):,} metamers of test examples of different classes, with 95 % intervals."
    own, noisy = results.get("metamers.oracle.test_error"), results.get("metamers.oracle.noisy_test_error")
    if own is not None:
        caption += f" The oracle itself misclassifies {percent(own)} of the test set"
        caption += "." if noisy is None else f", and {percent(noisy)} with the noise that donors of metamers have."
    columns = ("The oracle labels metamers", "As computed", "As a saved 8-bit picture")[: 2 + images]
    return Table("Metamers and the oracle", caption, columns, rows)
