"""Adding a finished run to a local zoo: weights, description, recipe, card, figures, and an entry in the index."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from flowclf.component_schema.sections import first_problem, plain
from flowclf.errors import UnreachableError, UsageError, VerificationError
from flowclf.files import sha256, write_json, write_text
from flowclf.recipe import Recipe, dump
from flowclf.recipe.places import portable
from flowclf.remote.downloads import locked
from flowclf.remote.settings import settings
from flowclf.strict_json import DESCRIPTION, WEIGHTS, Preprocessing
from flowclf.zoo.index import read_index
from flowclf.zoo.runs import FinishedRun, read_run
from flowclf.zoo.schema import CARD, INDEX, NAME, RECIPE, DataRecord, Measured, ZooEntry, ZooFile, ZooIndex

if TYPE_CHECKING:
    from flowclf.training import Progress

MAX_WEIGHT_BYTES = 12_000_000
"""Limit that keeps a zoo small enough for a package."""

CITATION = (
    "J.-H. Jacobsen, J. Behrmann, R. Zemel and M. Bethge, *Excessive Invariance Causes Adversarial Vulnerability*, "
    "ICLR 2019, arXiv:1811.00401."
)


def add(
    run_dir: str | Path,
    *,
    name: str,
    to: str | Path,
    replace: bool = False,
    licence: str | None = None,
    citation: str | None = None,
    aliases: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> ZooEntry:
    """Add a finished run to a local zoo. The stored model is measured again; the index is written last.

    Args:
        run_dir: directory of a finished run.
        name: the model's name: lower-case letters, digits and hyphens.
        to: folder of the zoo; a new or empty one becomes a zoo.
        replace: whether to replace the model of that name.
        licence: licence of the weights; by default that of the replaced model, or MIT.
        citation: what to cite; by default that of the replaced model, or the paper.
        aliases: older names of the model; by default those of the replaced model.
        progress: receives the progress of the measurements.

    Raises:
        UsageError: if the name is not allowed or taken, the run has not finished, the folder is not a zoo, or the weights have
            more than 12 MB.
        VerificationError: if the stored model's error is not the one that the run reported.
    """
    from flowclf.zoo.cards import model_card

    if not re.fullmatch(NAME, name):
        raise UsageError(f"expected a name of at most 100 lower-case letters, digits and hyphens, found {name[:200]!r}")
    run, to = read_run(run_dir), Path(to)
    try:
        size = (run.model / WEIGHTS).stat().st_size
    except OSError as error:
        raise UnreachableError(f"cannot read {run.model / WEIGHTS}: {error.strerror}") from error
    if size > MAX_WEIGHT_BYTES:
        raise UsageError(f"{run.model / WEIGHTS}: expected at most {MAX_WEIGHT_BYTES} bytes, found {size}")
    _check_place(_index_of(to), name, aliases, replace)
    with _staging(to) as staging:
        for file in (run.model / DESCRIPTION, run.model / WEIGHTS, *run.figures):
            shutil.copyfile(file, staging / file.name)
        # The zoo and the data may move together, and the place of a run says nothing to others.
        stored = portable(run.recipe, to, run.given)
        write_text(staging / RECIPE, dump(stored))
        facts = _measured(staging, run, stored, progress)
        # Measuring takes a minute, in which other processes may add models; only now the lock is held.
        with locked(to, settings({})):
            index = _index_of(to)
            before = _check_place(index, name, aliases, replace)
            facts |= _kept(before, licence=licence, citation=citation, aliases=None if aliases is None else list(aliases))
            try:
                entry = ZooEntry(name=name, files=_zoo_files(name, staging), **facts)
                write_text(staging / CARD, model_card(entry, [figure.name for figure in run.figures]))
                entry = entry.model_copy(update={"files": entry.files | _zoo_files(name, staging)})
                models = [entry if other is before else other for other in index.models]
                document = ZooIndex(models=models if before else [*models, entry]).model_dump(mode="json")
            except ValidationError as error:
                raise UsageError(f"the model cannot be described in an index: {first_problem(error)}") from None
            _publish(staging, to, name, document)
    return entry


def _index_of(to: Path) -> ZooIndex:
    if (to / INDEX).is_file():
        return read_index(to / INDEX)
    if to.exists() and (not to.is_dir() or any(not other.name.startswith(".") for other in to.iterdir())):
        raise UsageError(f"{to} is not a zoo: expected a folder that holds {INDEX}, or a new or empty one")
    return ZooIndex()


def _check_place(index: ZooIndex, name: str, aliases: Sequence[str] | None, replace: bool) -> ZooEntry | None:
    """The entry that would be replaced, if any; UsageError if the name or an alias is taken."""
    before = next((entry for entry in index.models if entry.name == name), None)
    if before is not None and not replace:
        raise UsageError(f"the zoo has a model '{name}' already; --replace puts this one in its place")
    for entry in index.models:
        for taken in {name, *(aliases or ())} & {entry.name, *entry.aliases}:
            if entry is not before:
                raise UsageError(f"the name '{taken}' belongs to the model '{entry.name}' already")
    return before


def _kept(before: ZooEntry | None, **given: Any) -> dict[str, Any]:
    """The version, and the given values or those of the replaced model."""
    kept: dict[str, Any] = {"licence": "MIT", "citation": CITATION, "aliases": [], "version": 0}
    if before is not None:
        kept = {key: getattr(before, key) for key in kept}
    return kept | {key: value for key, value in given.items() if value is not None} | {"version": kept["version"] + 1}


@contextlib.contextmanager
def _staging(to: Path) -> Iterator[Path]:
    """Context with a temporary folder in the zoo for a model's files."""
    try:
        to.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=to, prefix=".adding-"))
        folder.chmod(0o755)
    except OSError as error:
        raise UnreachableError(f"{to} cannot be written to: {error.strerror or error}") from error
    try:
        yield folder
    except OSError as error:
        raise UnreachableError(f"{to}: the model cannot be added: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _measured(folder: Path, run: FinishedRun, stored: Recipe, progress: Progress | None) -> dict[str, Any]:
    """The entry's facts about the run and the stored model; ``stored`` is the recipe as the zoo has it."""
    from flowclf import checkpoint
    from flowclf.evaluation.metric import describe
    from flowclf.zoo.measuring import measure, test_data, tolerance

    description = checkpoint.read_description(folder)
    model = checkpoint.load(folder)
    section, architecture = stored.data, stored.model
    record = DataRecord(name=section.name, arguments=plain(section.arguments), examples=1)
    data = test_data(record.model_copy(update={"arguments": plain(run.recipe.data.arguments)}))
    found = measure(model, data, run.recipe.seed, progress)
    reported = run.results.get("test.error")
    if not isinstance(reported, int | float) or abs(found["test.error"] - reported) > 0.001 + 1 / len(data.test):
        raise VerificationError(f"the run reported test.error {reported}, but its stored model measures {found['test.error']}")
    return {
        "description": run.recipe.description,
        "kind": description["kind"],
        "architecture": "nodes" if isinstance(architecture, list) else architecture.name,
        "parameters": model.parameter_count(),
        "classes": len(model.class_names),
        "recipe": run.record,
        "seed": run.recipe.seed,
        "data": record.model_copy(update={"examples": len(data.test)}),
        "preprocessing": Preprocessing(**description["preprocessing"]),
        # An index holds numbers and words.
        "reported": {key: value for key, value in run.results.items() if describe(key)[0] != "list"},
        "measured": {metric: Measured(value=value, tolerance=tolerance(metric, value)) for metric, value in found.items()},
        "training": run.training,
        "flowclf": description["flowclf"],
    }


def _zoo_files(name: str, folder: Path) -> dict[str, ZooFile]:
    return {
        file.name: ZooFile(path=f"{name}/{file.name}", bytes=file.stat().st_size, sha256=sha256(file))
        for file in sorted(folder.iterdir())
    }


def _publish(staging: Path, to: Path, name: str, document: dict[str, Any]) -> None:
    """Move the model into place, then write the index; if that fails, restore the replaced model."""
    target, aside = to / name, staging.with_name(f"{staging.name}-old")
    if target.exists():
        target.rename(aside)
    try:
        staging.rename(target)
        write_json(to / INDEX, document)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        if aside.exists():
            aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)
