"""Sweeps: a recipe run with several seeds, each in a folder of its own, and how the results vary."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

from flowclf.errors import InterruptedRunError, UsageError
from flowclf.files import write_json, write_text
from flowclf.progress import Progress, SilentProgress
from flowclf.recipe import LoadedRecipe, dump, load
from flowclf.recipe.run_folder import RunFolder
from flowclf.run.comparison import SWEEP, Comparison, compare, read_runs, sweep_seeds
from flowclf.run.execution import resume, run
from flowclf.run.opening import prepare
from flowclf.training.processes import are_several

_RECIPE = "sweep.yaml"
_SUMMARY = "summary.json"


@dataclasses.dataclass(frozen=True)
class SweepResult:
    """The folder of a finished sweep, and the comparison of its runs, which is also in its ``summary.json``."""

    folder: Path
    comparison: Comparison


def sweep(
    loaded: LoadedRecipe, seeds: Sequence[int], out: Path | None = None, device: str = "auto", progress: Progress | None = None
) -> SweepResult:
    """Run a recipe with several seeds, in the folders ``seed-N`` of ``out``, by default of a new folder under ``runs``.

    Raises:
        UsageError: if there are fewer than two seeds, one is given twice or is negative, or the recipe cannot run.
        InterruptedRunError: if SIGINT or SIGTERM stops a run; :func:`resume_sweep` continues.
    """
    _check_alone()
    if len(seeds) < 2 or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise UsageError(f"--seeds: expected at least two different seeds from 0, found {', '.join(map(str, seeds)) or 'none'}")
    # Before a folder is created, so that a recipe that cannot run leaves nothing behind.
    prepare(_with_seed(loaded, seeds[0]).recipe, device)
    folder = RunFolder.create(loaded.recipe.name, out)
    write_text(folder.recipe, loaded.source_text)
    write_text(folder.path / _RECIPE, dump(loaded.recipe))
    write_json(folder.path / SWEEP, {"seeds": list(seeds)})
    return _carry_out(folder.path, loaded, device, progress or SilentProgress())


def resume_sweep(path: Path, device: str = "auto", progress: Progress | None = None) -> SweepResult:
    """Carry out what is left of a sweep: finished runs stay as they are, an interrupted one is resumed, the others are run.

    Raises:
        CheckpointError: if the folder's files are not those of a sweep.
        InterruptedRunError: as :func:`sweep`.
    """
    _check_alone()
    return _carry_out(path, load(path / _RECIPE), device, progress or SilentProgress())


def _check_alone() -> None:
    if are_several():
        raise UsageError("--seeds: expected one process, found several that torchrun started; start a run for each seed")


def _carry_out(path: Path, loaded: LoadedRecipe, device: str, progress: Progress) -> SweepResult:
    seeds = sweep_seeds(path)
    for place, seed in enumerate(seeds, 1):
        folder = RunFolder(path / f"seed-{seed}")
        if folder.results.exists() and folder.report.exists():
            progress.message(f"seed {seed}, run {place} of {len(seeds)}: finished before")
            continue
        progress.message(f"seed {seed}, run {place} of {len(seeds)}")
        try:
            if (folder.checkpoints / "state.json").is_file():
                resume(folder.path, device, progress)
            else:
                # A run that was killed before it saved anything.
                shutil.rmtree(folder.path, ignore_errors=True)
                run(_with_seed(loaded, seed), folder.path, device, progress)
        except InterruptedRunError as error:
            reason = str(error).partition("; resume")[0]
            message = f"seed {seed}, run {place} of {len(seeds)}: {reason}; resume with: flowclf recipe run --resume {path}"
            raise InterruptedRunError(message, error.exit_code - 128) from error
    comparison = compare(read_runs(str(path)))
    write_json(path / _SUMMARY, comparison.data)
    return SweepResult(path, comparison)


def _with_seed(loaded: LoadedRecipe, seed: int) -> LoadedRecipe:
    return dataclasses.replace(loaded, recipe=loaded.recipe.model_copy(update={"seed": seed}))
