"""Run a recipe (train, save, evaluate, draw, report), or resume an interrupted run."""

from __future__ import annotations

import dataclasses
import json
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from flowclf import checkpoint
from flowclf.data import Oracle
from flowclf.errors import InterruptedRunError, UsageError
from flowclf.evaluation import Evaluation, evaluate_with_artifacts, expected_seconds
from flowclf.figures import write_figures
from flowclf.files import write_json, write_text
from flowclf.host_memory import keep_freed_memory
from flowclf.losses import AdversarialLoss
from flowclf.progress import forecast
from flowclf.recipe import LoadedRecipe, Recipe, dump, load
from flowclf.recipe.building import resolve_device
from flowclf.recipe.places import located
from flowclf.recipe.run_folder import RunFolder
from flowclf.report import write_report
from flowclf.run.opening import prepare
from flowclf.training import Progress, SilentProgress, Trainer
from flowclf.training.ema import holding
from flowclf.training.interrupts import Interrupts, interrupts
from flowclf.training.processes import joined
from flowclf.training.state import load_state, save_state


@dataclass(frozen=True)
class RunResult:
    """The directory of a finished run, and the content of its ``results.json``."""

    folder: Path
    results: dict[str, Any]


def run(loaded: LoadedRecipe, out: Path | None = None, device: str = "auto", progress: Progress | None = None) -> RunResult | None:
    """Run a recipe in ``out``, a new or empty folder, by default a new one under ``runs``, on auto, cpu or cuda.

    In a process that torchrun started, train together with the others; the first of them alone writes and evaluates, and the others
    return None.

    Raises:
        UsageError: if ``out`` is not new or empty, or cannot be written to; nothing is trained then.
        InterruptedRunError: if SIGINT or SIGTERM stops the run; its state is saved.
        NonFiniteLossError: if training diverges; the last good state is kept.
        ProcessError: if another process of the training ends.
    """
    with joined(resolve_device(device)) as processes:
        if processes.first:
            RunFolder.check_new(out)
        # The run and its model are used from other folders too.
        loaded = dataclasses.replace(loaded, recipe=located(loaded.recipe))
        # Everything is built before the folder is created, so that a recipe that cannot run leaves nothing behind.
        trainer, oracle = prepare(loaded.recipe, device)
        if not processes.first:
            _take_part(trainer)
            return None
        folder = RunFolder.create(loaded.recipe.name, out)
        write_text(folder.recipe, loaded.source_text)
        write_text(folder.resolved, dump(loaded.recipe))
        folder.write_environment(trainer.classifier.device)
        return _carry_out(folder, loaded, trainer, oracle, progress or SilentProgress())


def resume(path: Path, device: str = "auto", progress: Progress | None = None) -> RunResult | None:
    """Resume an interrupted or killed run from its last saved state; the result is the same to the bit on the same device.

    The number of processes may be another one; the order of the samples stays. As in :func:`run`, the first returns the result.

    Raises:
        UsageError: if ``path`` is not a run directory, has no saved state, or holds a finished run.
        ChecksumError: if the saved state is not the one that was written.
    """
    with joined(resolve_device(device)) as processes:
        folder = RunFolder.existing(path)
        if folder.results.exists() and folder.report.exists():
            raise UsageError(
                f"{path}: the run has finished, with results in {folder.results.name}; flowclf evaluate measures it again"
            )
        loaded = load(folder.resolved)
        trainer, oracle = prepare(loaded.recipe, device)
        load_state(folder.checkpoints, trainer)
        if not processes.first:
            _take_part(trainer)
            return None
        progress = progress or SilentProgress()
        progress.message(f"resuming {path} at step {trainer.step} of {trainer.total_steps}")
        return _carry_out(folder, loaded, trainer, oracle, progress)


def _take_part(trainer: Trainer) -> None:
    """Train as one of several processes of which another writes."""
    with interrupts() as stop:
        trainer.run(stop=stop)
        if trainer.step < trainer.total_steps:
            text = f"process {trainer.processes.rank}: stopped at step {trainer.step} of {trainer.total_steps}"
            raise InterruptedRunError(text, stop.signum or signal.SIGTERM)


def _carry_out(folder: RunFolder, loaded: LoadedRecipe, trainer: Trainer, oracle: Oracle | None, progress: Progress) -> RunResult:
    keep_freed_memory()
    started = time.perf_counter()

    def save(current: Trainer) -> None:
        save_state(folder.checkpoints, current)
        folder.write_metrics(current.rows)

    with interrupts() as stop:
        try:
            progress.message(f"run directory: {folder.path}")
            evaluation_options = _evaluation_options(loaded.recipe, oracle)
            forecast(
                progress,
                "evaluation after the training",
                lambda: expected_seconds(trainer.classifier, trainer.data, **evaluation_options),
            )
            trainer.run(progress=progress, on_state=save, stop=stop)
            _raise_if_stopped(stop, folder, trainer)
            stop.immediate = True
            epochs = _save_models(folder, loaded.recipe, trainer)
            kept = trainer.rows[epochs["train.kept_epoch"] - 1]
            evaluation = evaluate_with_artifacts(trainer.classifier, trainer.data, progress=progress, **evaluation_options)
            results = {
                "recipe": loaded.recipe.name,
                "seed": loaded.recipe.seed,
                **evaluation.results,
                "train.epochs": trainer.epoch,
                "train.steps": trainer.step,
                **epochs,
                **{key: kept[key] for key in _of_the_adversary(trainer) if key in kept},
                "train.stream": loaded.recipe.train.stream,
                "train.precision": "fp32" if trainer.dtype is None else "bf16",
                **({"train.class_weights": weights} if (weights := trainer.loss.class_weights()) else {}),
                "seconds.train": round(trainer.seconds, 3),
            }
            seconds = max(time.perf_counter() - started, trainer.seconds + evaluation.results["seconds.evaluate"])
            results["seconds.total"] = round(seconds, 3)
            # Before the pictures, so that nothing that fails in them costs the results.
            write_json(folder.results, results)
            _write_report(folder, trainer, evaluation, results)
        except KeyboardInterrupt:
            _raise_if_stopped(stop, folder, trainer)
            raise
    return RunResult(folder.path, results)


def _save_models(folder: RunFolder, recipe: Recipe, trainer: Trainer) -> dict[str, int]:
    """Save the last and the best weights, and give the classifier those to keep; the epochs that they are from, as results."""
    classifier, keep = trainer.classifier, recipe.train.keep
    epochs: dict[Literal["last", "best"], int] = {"last": trainer.epoch, "best": trainer.best_epoch or trainer.epoch}

    def save(which: Literal["last", "best"], path: Path) -> None:
        about = {"recipe": recipe.name, "seed": recipe.seed, "step": epochs[which] * trainer.steps_per_epoch, "weights": which}
        checkpoint.save(classifier, path, metadata=about)

    other: Literal["last", "best"] = "best" if keep == "last" else "last"
    with holding(classifier, trainer.weights(other)):
        save(other, folder.checkpoints / other)
    trainer.finish()
    save(keep, folder.model)
    return {"train.kept_epoch": epochs[keep], "train.best_epoch": epochs["best"]}


def _of_the_adversary(trainer: Trainer) -> list[str]:
    """Keys of the adversary's loss in rows and results."""
    loss = trainer.loss
    return [f"{part}.{loss.adversary_loss_name}" for part in ("train", "validation")] if isinstance(loss, AdversarialLoss) else []


def _evaluation_options(recipe: Recipe, oracle: Oracle | None) -> dict[str, Any]:
    settings = recipe.evaluate
    return {"protocol": settings.protocol, "seed": recipe.seed, "oracle": oracle, "probe": settings.probe}


def _raise_if_stopped(stop: Interrupts, folder: RunFolder, trainer: Trainer) -> None:
    if stop.signum is None and trainer.step < trainer.total_steps:
        stop.signum = signal.SIGTERM  # It came to another process.
    if stop.signum is not None:
        name = signal.Signals(stop.signum).name
        raise InterruptedRunError(
            f"{name} at step {trainer.step} of {trainer.total_steps}; resume with: flowclf recipe run --resume {folder.path}",
            stop.signum,
        )


def _write_report(folder: RunFolder, trainer: Trainer, evaluation: Evaluation, results: dict[str, Any]) -> None:
    write_report(
        folder.path,
        results=results,
        title=f"{results['recipe']}, seed {results['seed']}",
        figures=write_figures(folder.figures, evaluation, trainer.rows),
        rows=trainer.rows,
        recipe_text=folder.recipe.read_text(encoding="utf-8"),
        resolved_text=folder.resolved.read_text(encoding="utf-8"),
        environment=json.loads(folder.environment.read_text(encoding="utf-8")),
        model_text=repr(trainer.classifier),
        command="flowclf recipe run resolved.yaml",
    )
