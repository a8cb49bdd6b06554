"""``flowclf zoo``: list, info, download, verify, add. Only ``verify`` and ``add`` import torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowclf.cli.options import DATA_ROOT, JSON
from flowclf.errors import VerificationError

if TYPE_CHECKING:
    from flowclf.zoo import Verification

app = typer.Typer(help="List, download, verify and add trained models.", no_args_is_help=True, rich_markup_mode=None)

INDEX = Annotated[
    str | None, typer.Option("--index", metavar="URL-or-path", help="Folder or URL of the zoo's index. Default: flowclf's own zoo.")
]
NAME = Annotated[str, typer.Argument(metavar="NAME", help="Name of a model in the zoo.", show_default=False)]


@app.command("list")
def list_(index: INDEX = None, as_json: JSON = False) -> None:
    """List the models."""
    from flowclf import zoo
    from flowclf.cli.output import print_json, print_table

    entries = zoo.list(index=index)
    if as_json:
        print_json([entry.model_dump() for entry in entries])
        return
    columns = ["name", "architecture", "parameters", "data", "test.error", "megabytes", "description"]
    rows = []
    for entry in entries:
        error = entry.measured["test.error"].value if "test.error" in entry.measured else ""
        size = round(sum(file.bytes for file in entry.files.values()) / 1e6, 2)
        rows.append([entry.name, entry.architecture, entry.parameters, entry.data.name, error, size, entry.description])
    print_table(columns, rows)


@app.command()
def info(name: NAME, index: INDEX = None, as_json: JSON = False) -> None:
    """Show a model's entry: recipe, data, measured values, files."""
    from flowclf import zoo
    from flowclf.cli.output import print_results

    document = zoo.info(name, index=index).model_dump()
    if not as_json:
        # The many files come last.
        files = document.pop("files")
        document = _flat(document | {"files": files})
    print_results(document, as_json)


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    if isinstance(value, dict) and value:
        parts = (_flat(part, f"{key}.{name}" if key else name) for name, part in value.items())
        return {name: item for part in parts for name, item in part.items()}
    return {key: ", ".join(map(str, value)) if isinstance(value, list) else value}


@app.command()
def download(
    name: NAME,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="DIR", help="Folder to copy the files to. Default: they stay in the cache.")
    ] = None,
    index: INDEX = None,
    as_json: JSON = False,
) -> None:
    """Download a model's files and check their hashes.

    Prints their folder, which commands with a MODEL argument accept.
    """
    from flowclf import zoo
    from flowclf.cli.output import print_json
    from flowclf.cli.progress import showing_progress

    with showing_progress() as progress:
        folder = zoo.download(name, to=to, index=index, progress=progress)
    if as_json:
        print_json({"name": name, "folder": str(folder)})
    else:
        print(folder)


@app.command()
def verify(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Names of models. Default: all.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Also train the probes again, which takes minutes per model.")] = False,
    data_root: DATA_ROOT = None,
    index: INDEX = None,
    as_json: JSON = False,
) -> None:
    """Check the hashes of models and measure them again.

    Fails if a file or a measured value does not agree with the model's card. The models of flowclf's own zoo take about 3 minutes
    on one core.
    """
    from flowclf import zoo
    from flowclf.cli.output import print_json, print_table
    from flowclf.cli.progress import showing_progress

    with showing_progress() as progress:
        verified = zoo.verify(names or None, full=full, data_root=data_root, index=index, progress=progress)
    if as_json:
        print_json([_document(one) for one in verified])
    else:
        rows = [
            [one.name, row.metric, row.expected, row.found, row.tolerance, "agrees" if row.agrees else "DIFFERS"]
            for one in verified
            for row in one.comparisons
        ]
        print_table(["name", "metric", "card", "found", "tolerance", "verdict"], rows)
    wrong = [one for one in verified if not one.agrees]
    failures = [one.error or VerificationError(f"model '{one.name}': measured values differ from its card") for one in wrong]
    for error in failures:
        print(f"error: {error}", file=sys.stderr)
    if failures:
        raise typer.Exit(max(error.exit_code for error in failures))


def _document(one: Verification) -> dict[str, Any]:
    metrics = {
        row.metric: {"card": row.expected, "found": row.found, "tolerance": row.tolerance, "agrees": row.agrees}
        for row in one.comparisons
    }
    return {"name": one.name, "agrees": one.agrees, "error": None if one.error is None else str(one.error), "metrics": metrics}


@app.command()
def add(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Directory of a finished run.", show_default=False)],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Name of the model in the zoo.", show_default=False)],
    to: Annotated[
        Path,
        typer.Option("--to", metavar="ZOO", help="Folder of the zoo; a new or empty one becomes a zoo.", show_default=False),
    ],
    replace: Annotated[bool, typer.Option("--replace", help="Replace an existing model with this name.")] = False,
    licence: Annotated[str | None, typer.Option(help="Weights' licence. Default: that of the replaced model, or MIT.")] = None,
    citation: Annotated[str | None, typer.Option(help="What to cite. Default: that of the replaced model, or the paper.")] = None,
    aliases: Annotated[
        list[str] | None,
        typer.Option("--alias", metavar="NAME", help="Older name, may be repeated. Default: those of the replaced model."),
    ] = None,
    as_json: JSON = False,
) -> None:
    """Add a finished run to a local zoo.

    Stores weights, description, recipe, card and figures with their hashes, and measures the stored model again, which takes up to
    a minute for a model of MNIST.
    """
    from flowclf import zoo
    from flowclf.cli.output import print_results
    from flowclf.cli.progress import showing_progress

    options: dict[str, Any] = {"replace": replace, "licence": licence, "citation": citation, "aliases": aliases}
    with showing_progress() as progress:
        entry = zoo.add(run_dir, name=name, to=to, progress=progress, **options)
    measured = {metric: value.value for metric, value in entry.measured.items()}
    summary = {"folder": str(to / name), "version": entry.version, **measured}
    print_results(entry.model_dump() if as_json else summary, as_json)
