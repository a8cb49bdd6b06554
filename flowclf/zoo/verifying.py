"""Verification that models still agree with their cards: first the hashes, then the metrics, measured again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from flowclf.component_schema.sections import plain
from flowclf.errors import FlowclfError, UsageError, VerificationError
from flowclf.progress import forecast
from flowclf.remote.settings import Options
from flowclf.zoo.access import fetch_files, load_entry
from flowclf.zoo.index import Zoo, open_zoo
from flowclf.zoo.schema import RECIPE, ZooEntry

if TYPE_CHECKING:
    from flowclf.training import Progress


@dataclass(frozen=True)
class Comparison:
    """A metric's value on the card, its value when measured again, and the largest difference allowed."""

    metric: str
    expected: float
    found: float
    tolerance: float

    @property
    def agrees(self) -> bool:
        """Whether the difference is within the tolerance; a value that is not finite never agrees."""
        # Both values may be rounded decimal numbers from a file.
        return math.isfinite(self.found) and abs(self.found - self.expected) <= self.tolerance + 1e-12


@dataclass(frozen=True)
class Verification:
    """The outcome for one model: a comparison per metric, or the error that prevented them."""

    name: str
    comparisons: tuple[Comparison, ...] = ()
    error: FlowclfError | None = None

    @property
    def agrees(self) -> bool:
        """Whether the model agrees with its card."""
        return self.error is None and all(comparison.agrees for comparison in self.comparisons)


def verify(
    names: Sequence[str] | None = None, *, full: bool = False, data_root: Path | None = None, **options: Unpack[Options]
) -> list[Verification]:
    """Check the hashes of models and measure them again on the data that their entries name.

    Args:
        names: names of models; by default all of the zoo.
        full: whether to train the probe of the nuisances again too, minutes per model; its error may differ by 0.02.
        data_root: folder or file of the data of a single model, if they are not where its entry says.
        **options: location of the zoo; see :class:`flowclf.zoo.Options`.

    Returns:
        The outcome for each model, also if others fail.

    Raises:
        UsageError: if the zoo has no model of one of the names, or ``data_root`` is given for several models.
        UnreachableError: if the index cannot be read.
        ZooError: if the index is not valid.
    """
    zoo = open_zoo(options)
    entries = zoo.index.models if names is None else [zoo.entry(name) for name in names]
    if data_root is not None and len(entries) != 1:
        raise UsageError(f"--data-root is the place of the data of one model: name it; found {len(entries)} models")
    progress = options.get("progress")
    if progress is not None and len(entries) > 1:
        what = f"{len(entries)} models" + (", before their probes" if full else "")
        forecast(progress, what, lambda: (seconds := sum(_expected_seconds(zoo, entry) for entry in entries), seconds))
    return [_verify(zoo, entry, full, data_root, progress) for entry in entries]


def _expected_seconds(zoo: Zoo, entry: ZooEntry) -> float:
    """How long it will take to measure a model; 0 for one that cannot be loaded, which fails at once when its turn comes."""
    from flowclf.zoo.measuring import expected_seconds

    try:
        return expected_seconds(load_entry(zoo, entry), entry.data.examples)
    except FlowclfError:
        return 0.0


def _verify(zoo: Zoo, entry: ZooEntry, full: bool, root: Path | None, progress: Progress | None) -> Verification:
    try:
        return Verification(entry.name, tuple(_comparisons(zoo, entry, full, root, progress)))
    except FlowclfError as error:
        return Verification(entry.name, error=error)


def _comparisons(zoo: Zoo, entry: ZooEntry, full: bool, root: Path | None, progress: Progress | None) -> list[Comparison]:
    from flowclf.classifier import InvertibleClassifier
    from flowclf.zoo.measuring import PROBE_TOLERANCE, measure, probe_error, test_data

    folder = fetch_files(zoo, entry, entry.files)
    model = load_entry(zoo, entry)
    if model.preprocessing.config() != entry.preprocessing.model_dump() or len(model.class_names) != entry.classes:
        raise VerificationError(f"{entry.name}: the model's preprocessing or classes are not those of the index")
    elsewhere = [key for key, value in entry.data.arguments.items() if isinstance(value, str)]
    if elsewhere and isinstance(zoo.base, str) and root is None:
        # Most likely a path, and a remote index must not choose files of this machine.
        raise VerificationError(
            f"{entry.name}: its data set '{entry.data.name}' is chosen by {', '.join(elsewhere)}, which an index read from a URL "
            "may not do; name the data with --data-root, or download the model and evaluate it on data of your own"
        )
    # Paths begin at the zoo; in zoos of earlier versions, in the folder where the model was trained.
    folders = () if isinstance(zoo.base, str) else (zoo.base, Path.cwd())
    data = test_data(entry.data, *folders, root=root)
    if len(data.test) != entry.data.examples:
        raise VerificationError(
            f"{entry.name}: expected {entry.data.examples} test examples, found {len(data.test)} in '{entry.data.name}'"
        )
    found = measure(model, data, entry.seed, progress)
    rows = [
        Comparison(metric, expected.value, found.get(metric, math.nan), expected.tolerance)
        for metric, expected in entry.measured.items()
    ]
    reported = entry.reported.get("probe.test_error")
    if full and isinstance(model, InvertibleClassifier) and isinstance(reported, int | float) and RECIPE in entry.files:
        from flowclf.recipe import load
        from flowclf.recipe.places import located, with_data_at

        if (limit := entry.reported.get("evaluation.limit")) is not None:
            raise VerificationError(
                f"{entry.name}: its reported results are limited to {limit} test examples, and cannot be verified"
            )
        recipe = load(folder / RECIPE).recipe
        if (recipe.data.name, plain(recipe.data.arguments)) != (entry.data.name, entry.data.arguments):
            raise VerificationError(f"{entry.name}: the data of its recipe are not those of the index")
        probe = probe_error(model, with_data_at(recipe, root) if root else located(recipe, *folders), progress)
        rows.append(Comparison("probe.test_error", float(reported), probe, PROBE_TOLERANCE))
    return rows
