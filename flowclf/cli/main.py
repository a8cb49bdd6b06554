"""Console script: all commands, their exit codes, and how errors are printed."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated

import typer

import flowclf
from flowclf.cli import cache, compare, evaluate, metamers, paper, planes, predict, recipe, zoo
from flowclf.cli.progress import showing_progress, speaks
from flowclf.errors import FlowclfError, InterruptedRunError, RecipeError
from flowclf.progress import progress_shown_by

# Without rich, --help takes half the time.
app = typer.Typer(
    name="flowclf",
    help="Classifiers that can be run backwards: train them, evaluate them, draw metamers.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(recipe.app, name="recipe")
app.add_typer(zoo.app, name="zoo")
app.add_typer(paper.app, name="paper")
app.command("evaluate")(evaluate.evaluate)
app.command("compare")(compare.compare)
app.command("predict")(predict.predict)
app.command("metamers")(metamers.metamers)
app.command("planes")(planes.planes)
app.command("example6")(paper.example6)
app.command("cache")(cache.cache)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"flowclf {flowclf.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """Classifiers that can be run backwards: train them, evaluate them, draw metamers."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line on arguments without the program's name, by default those of the process.

    Returns:
        The exit code: 0 done, 1 failed at run time, 2 wrong usage or an invalid recipe, 3 a file or download that fails its
        checksum or cannot be reached, 130 (SIGINT) or 143 (SIGTERM) interrupted.
    """
    _prepare_streams()
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *place: print(f"warning: {message}", file=sys.stderr) if speaks() else None
        code = _run(arguments)
    try:
        sys.stdout.flush()
    except OSError as error:
        # A reader that closed the pipe knows; Python would report either once more when it flushes at exit.
        if not isinstance(error, BrokenPipeError):
            print(f"error: cannot write to standard output: {error.strerror}", file=sys.stderr)
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def _prepare_streams() -> None:
    """Make any text printable: what the terminal's encoding lacks is escaped, and a stream that is closed swallows it."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for the rest of the process
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _run(arguments: Sequence[str] | None) -> int:
    try:
        with progress_shown_by(showing_progress):
            app(args=None if arguments is None else list(arguments), prog_name="flowclf")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except FlowclfError as error:
        # Errors in a recipe begin with their place, as editors and terminals expect; an interruption is not an error.
        bare = isinstance(error, RecipeError | InterruptedRunError)
        print(str(error) if bare else f"error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        return FlowclfError.exit_code
    except OSError as error:
        # A file or disk that fails during the work; what can be checked before it, is.
        place = f"{error.filename}: " if error.filename is not None else ""
        print(f"error: {place}{error.strerror or error}", file=sys.stderr)
        return FlowclfError.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
