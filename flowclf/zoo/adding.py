"""Putting a finished run into a local zoo: weights, description, recipe, card, figures, and an entry in the index."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from hashlib import sha256 as sha256_of
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from flowclf.documents import DESCRIPTION, WEIGHTS, Preprocessing, first_problem
from flowclf.errors import UnreachableError, UsageError, VerificationError
from flowclf.files import cache_folder, sha256, write_json, write_text
from flowclf.sections import plain
from flowclf.zoo.cards import model_card
from flowclf.zoo.downloads import locked
from flowclf.zoo.names import NAME
from flowclf.zoo.runs import FinishedRun, read_run
from flowclf.zoo.schema import (
    CARD,
    INDEX,
    RECIPE,
    DataRecord,
    Measured,
    ZooEntry,
    ZooFile,
    ZooIndex,
    parse_index,
)

if TYPE_CHECKING:
    from flowclf.training import Progress

__all__ = ["CITATION", "MAX_WEIGHT_BYTES", "add"]

MAX_WEIGHT_BYTES = 12_000_000
"""A zoo travels in a package; larger weights do not belong there."""

CITATION = (
    "J.-H. Jacobsen, J. Behrmann, R. Zemel and M. Bethge, *Excessive Invariance Causes Adversarial Vulnerability*, "
    "ICLR 2019, arXiv:1811.00401."
)
_LICENCE = "MIT"


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
    """Put a finished run into a local zoo, whose index is changed last: until then the model is not there.

    The stored model is measured again, and refused when it does not do what the run reported.

    Args:
        run_dir: of a run that has finished.
        name: of the model: lower-case letters, digits and hyphens.
        to: folder of the zoo; a new or empty one becomes a zoo.
        replace: take the place of a model of that name.
        licence: of the weights; by default that of the model that is replaced, or MIT.
        citation: what to cite; by default that of the model that is replaced, or the paper.
        aliases: older names of the model; by default those of the model that is replaced.
        progress: is told what is going on.

    Returns:
        The new entry of the index.

    Raises:
        UsageError: a name that is not allowed or taken, no finished run, a folder that is not a zoo, or weights of more than 12 MB.
        VerificationError: the stored model does not measure what the run reported.
    """
    if not re.fullmatch(NAME, name):
        raise UsageError(f"expected a name of at most 100 lower-case letters, digits and hyphens, found {name[:200]!r}")
    run, to = read_run(run_dir), Path(to)
    size = _file_size(run.model / WEIGHTS)
    if size > MAX_WEIGHT_BYTES:
        raise UsageError(f"{run.model / WEIGHTS}: expected at most {MAX_WEIGHT_BYTES} bytes, found {size}")
    _check_place(_index_of(to), name, aliases, replace)
    with _staging(to) as staging:
        for part in (DESCRIPTION, WEIGHTS):
            shutil.copyfile(run.model / part, staging / part)
        write_text(staging / RECIPE, run.resolved_text)
        for figure in run.figures:
            shutil.copyfile(figure, staging / figure.name)
        facts = _measured(staging, run, progress)
        # The lock is of the moment: measuring takes a minute, and others may add models meanwhile.
        with locked(cache_folder() / "locks" / f"{sha256_of(str(to.resolve()).encode()).hexdigest()[:32]}.lock"):
            index = _index_of(to)
            before = _check_place(index, name, aliases, replace)
            try:
                entry = ZooEntry(
                    name=name,
                    version=before.version + 1 if before else 1,
                    description=run.recipe.description,
                    recipe=run.record,
                    seed=run.recipe.seed,
                    files={file.name: _zoo_file(name, file) for file in sorted(staging.iterdir())},
                    licence=licence or (before.licence if before else _LICENCE),
                    citation=citation or (before.citation if before else CITATION),
                    reported=run.results,
                    training=run.training,
                    aliases=list(aliases if aliases is not None else before.aliases if before else []),
                    **facts,
                )
                entry = _with_card(entry, staging, [figure.name for figure in run.figures])
                models = [entry if other is before else other for other in index.models]
                document = ZooIndex(models=models if before else [*models, entry]).model_dump(mode="json")
            except ValidationError as error:
                raise UsageError(f"the model cannot be described in an index: {first_problem(error)}") from None
            _publish(staging, to, name, document)
    return entry


def _with_card(entry: ZooEntry, staging: Path, figures: Sequence[str]) -> ZooEntry:
    """The entry, its card written and among its files; the card lists all the others."""
    write_text(staging / CARD, model_card(entry, figures))
    return entry.model_copy(update={"files": {**entry.files, CARD: _zoo_file(entry.name, staging / CARD)}})


def _file_size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError as error:
        raise UnreachableError(f"cannot read {file}: {error.strerror}") from error


def _index_of(to: Path) -> ZooIndex:
    file = to / INDEX
    if file.is_file():
        return parse_index(file.read_bytes(), str(file))
    if to.exists() and (not to.is_dir() or any(not other.name.startswith(".") for other in to.iterdir())):
        raise UsageError(f"{to} is not a zoo: expected a folder that holds {INDEX}, or a new or empty one")
    return ZooIndex()


def _check_place(index: ZooIndex, name: str, aliases: Sequence[str] | None, replace: bool) -> ZooEntry | None:
    """The entry that would be replaced.

    Raises:
        UsageError: the name, or an alias, is taken.
    """
    before = next((entry for entry in index.models if entry.name == name), None)
    if before is not None and not replace:
        raise UsageError(f"the zoo has a model '{name}' already; --replace puts this one in its place")
    for entry in index.models:
        for taken in {name, *(aliases or ())} & {entry.name, *entry.aliases}:
            if entry is not before:
                raise UsageError(f"the name '{taken}' belongs to the model '{entry.name}' already")
    return before


@contextlib.contextmanager
def _staging(to: Path) -> Iterator[Path]:
    """A folder inside the zoo to gather a model's files in; gone afterwards, whatever happens."""
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


def _measured(folder: Path, run: FinishedRun, progress: Progress | None) -> dict[str, Any]:
    """What is found out from the stored model itself."""
    from flowclf import checkpoint
    from flowclf.zoo.measuring import measure, test_data, tolerance

    description = checkpoint.read_description(folder)
    model = checkpoint.load(folder)
    section = run.recipe.data
    record = DataRecord(name=section.name, arguments=plain(section.arguments), examples=1)
    data = test_data(record)
    found = measure(model, data, run.recipe.seed, progress)
    reported = run.results.get("test.error")
    if not isinstance(reported, int | float) or abs(found["test.error"] - reported) > 0.001 + 1 / len(data.test):
        raise VerificationError(f"the run reported test.error {reported}, but its stored model measures {found['test.error']}")
    architecture = run.recipe.model
    return {
        "kind": description["kind"],
        "architecture": "nodes" if isinstance(architecture, list) else architecture.name,
        "parameters": model.parameter_count(),
        "classes": len(model.class_names),
        "data": record.model_copy(update={"examples": len(data.test)}),
        "preprocessing": Preprocessing(**description["preprocessing"]),
        "measured": {metric: Measured(value=value, tolerance=tolerance(metric, value)) for metric, value in found.items()},
        "flowclf": description["flowclf"],
    }


def _zoo_file(name: str, file: Path) -> ZooFile:
    return ZooFile(path=f"{name}/{file.name}", bytes=file.stat().st_size, sha256=sha256(file))


def _publish(staging: Path, to: Path, name: str, document: dict[str, Any]) -> None:
    """Move the model into place, then write the index; when that fails, what was there before comes back."""
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
