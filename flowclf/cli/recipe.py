"""``flowclf recipe``: run, list, show, validate, schema. ``list`` and ``show`` import no torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from flowclf.cli.options import DEVICE, JSON, Device
from flowclf.errors import CheckpointError, RecipeError, UsageError

app = typer.Typer(help="Run, list and check recipes.", no_args_is_help=True, rich_markup_mode=None)

RECIPE = typer.Argument(metavar="RECIPE", help="A YAML file, or the name of a bundled recipe.", show_default=False)


@app.command(context_settings={"allow_extra_args": True})
def run(
    context: typer.Context,
    recipe: Annotated[str | None, RECIPE] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change a value, e.g. train.epochs=3; may be repeated; the last one counts."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Run directory, new or empty. Default: runs/NAME/TIME-ID.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", metavar="DIR", help="Run directory of an interrupted run to resume.")
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option("--seeds", metavar="N N...", help="Run with each of these seeds, in a folder each; show how results vary."),
    ] = None,
    device: DEVICE = Device.auto,
    processes: Annotated[
        int,
        typer.Option("--processes", metavar="N", min=1, help="Train with N processes, each with a GPU or a share of the cores."),
    ] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Build the model and show the plan; write nothing.")] = False,
    as_json: JSON = False,
) -> None:
    """Run a recipe: train, evaluate, write a report.

    The bundled recipes for MNIST take 2 to 47 minutes on two cores; the time is announced soon after the start.
    """
    from flowclf.cli.expectations import say_cost_of_recipe
    from flowclf.cli.output import print_json, print_results
    from flowclf.cli.progress import showing_progress, speaks
    from flowclf.recipe import load
    from flowclf.recipe.run_folder import RunFolder

    recipe, chosen = _recipe_and_seeds(recipe, seeds, context.args)
    if chosen and any(override.partition("=")[0].strip() == "seed" for override in overrides or []):
        raise UsageError("--seeds sets the seed and cannot be combined with --set seed")
    loaded = None
    sweeping = resume is not None and (resume / "sweep.json").is_file()
    if resume is not None and (sweeping or chosen):
        if recipe is not None or overrides or out is not None or dry_run or chosen:
            raise UsageError("--resume of a sweep uses its recipe and seeds, and can be combined with --device and --json alone")
    elif resume is not None:
        _check_resume(resume, recipe, overrides or [], out, dry_run)
    elif recipe is not None:
        if not dry_run and processes == 1 and speaks():
            say_cost_of_recipe(recipe)
        loaded = load(recipe, overrides or [])
    else:
        raise UsageError("expected RECIPE, a YAML file or the name of a bundled recipe; or --resume DIR")

    import flowclf.run

    if processes > 1:
        if chosen or sweeping or dry_run:
            raise UsageError("--processes cannot be combined with --seeds or --dry-run")
        flowclf.run.launch(_again(recipe, overrides or [], out, resume, device, as_json), processes)
        return
    if (chosen or sweeping) and not dry_run:
        from flowclf.cli.compare import print_comparison

        with showing_progress() as progress:
            if loaded is not None:
                done = flowclf.run.sweep(loaded, chosen, out, device.value, progress)
            elif resume is not None:
                done = flowclf.run.resume_sweep(resume, device.value, progress)
            progress.message(f"sweep directory: {done.folder}")
        print_comparison(done.comparison, as_json=as_json)
        return
    if dry_run and loaded is not None:
        plan = flowclf.run.plan(loaded, device=device.value)
        if as_json:
            print_json(plan.data)
        else:
            print(plan.text)
        return
    with showing_progress() as progress:
        if loaded is not None:
            result = flowclf.run.run(loaded, out, device.value, progress)
        elif resume is not None:
            result = flowclf.run.resume(resume, device.value, progress)
    if result is None:
        return  # Another process of this training has the results.
    # The path of the report comes last, where it is visible after a long table.
    results = {"run.directory": str(result.folder), **result.results, "run.report": str(RunFolder(result.folder).report)}
    print_results(results, as_json)


def _again(
    recipe: str | None, overrides: list[str], out: Path | None, resume: Path | None, device: Device, as_json: bool
) -> list[str]:
    """The arguments of this command for each of several processes."""
    options = [word for override in overrides for word in ("--set", override)]
    for name, value in (("--out", out), ("--resume", resume), ("--device", device.value)):
        options += [name, str(value)] if value is not None else []
    return ["recipe", "run", *([recipe] if recipe else []), *options, *(["--json"] if as_json else [])]


def _recipe_and_seeds(recipe: str | None, seeds: str | None, further: list[str]) -> tuple[str | None, list[int]]:
    """The recipe and the seeds among the arguments: ``--seeds 0 1 2`` and ``--seeds 0,1,2`` are the same."""
    words = [word for word in (recipe, *further) if word is not None]
    numbers = [word for word in words if word.isdecimal()] if seeds is not None else []
    others = [word for word in words if word not in numbers]
    if len(others) > 1:
        raise UsageError(f"expected one RECIPE, found {', '.join(others)}")
    given = [*(seeds or "").replace(",", " ").split(), *numbers]
    if wrong := next((word for word in given if not word.isdecimal()), None):
        raise UsageError(f"--seeds: expected integers from 0, as in --seeds 0 1 2, found '{wrong}'")
    if seeds is not None and not given:
        raise UsageError("--seeds: expected integers from 0, as in --seeds 0 1 2, found none")
    return (others[0] if others else None), [int(word) for word in given]


def _check_resume(folder: Path, recipe: str | None, overrides: list[str], out: Path | None, dry_run: bool) -> None:
    """Check the arguments given with ``--resume``; a recipe must be that of the run."""
    from flowclf.recipe import load, resolved
    from flowclf.recipe.places import located

    if out is not None or dry_run:
        other = "--out" if out else "--dry-run"
        raise UsageError(f"--resume continues in the run's own directory and cannot be combined with {other}")
    if recipe is None and overrides:
        raise UsageError("--resume uses the recipe of the run and cannot be combined with --set")
    stored = folder / "resolved.yaml"
    if not stored.is_file():
        raise UsageError(f"expected a run directory, found {folder}, which has no resolved.yaml")
    if recipe is None:
        return
    given = resolved(located(load(recipe, overrides).recipe))
    try:
        begun = resolved(located(load(stored).recipe))
    except RecipeError as error:
        raise CheckpointError(f"the recipe of the run cannot be read: {error}") from error
    differing = [key for key in given if given[key] != begun[key]]
    if differing:
        raise UsageError(f"expected the recipe of the run in {folder}, found one that differs in: {', '.join(differing)}")


@app.command("list")
def list_() -> None:
    """List the bundled recipes."""
    from flowclf.cli.output import print_table
    from flowclf.recipe import bundled, description

    print_table(["name", "description"], [[name, description(name)] for name in bundled()])


@app.command()
def show(name: Annotated[str, typer.Argument(metavar="RECIPE", help="A YAML file, or the name of a bundled recipe.")]) -> None:
    """Print the text of a recipe."""
    from flowclf.recipe import find
    from flowclf.recipe.reader import read_text

    text = read_text(find(name))
    if (buffer := getattr(sys.stdout, "buffer", None)) is None:
        sys.stdout.write(text)
        return
    # The text of a file, in the encoding of the file.
    sys.stdout.flush()
    buffer.write(text.encode())


@app.command()
def validate(
    recipes: Annotated[list[str], typer.Argument(metavar="RECIPE", help="YAML files, or names of bundled recipes.")],
) -> None:
    """Check recipes.

    Prints all errors, as file:line:column. Graphs are checked by `flowclf recipe run --dry-run`.
    """
    from flowclf.recipe import load

    invalid = False
    for name in recipes:
        try:
            load(name)
        except UsageError as error:
            invalid = True
            print(str(error) if isinstance(error, RecipeError) else f"error: {error}", file=sys.stderr)
        else:
            print(f"{name}: valid")
    if invalid:
        raise typer.Exit(UsageError.exit_code)


@app.command()
def schema() -> None:
    """Print the JSON Schema of recipes, for completion in editors."""
    from flowclf.cli.output import print_json
    from flowclf.recipe import json_schema

    print_json(json_schema())
