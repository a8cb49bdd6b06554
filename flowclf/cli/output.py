"""Standard output of commands: tables on terminals, tab-separated lines elsewhere, JSON documents."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

_LIST_WIDTH = 120


def print_json(document: Any) -> None:
    """Print one JSON document; NaN and infinity, which JSON lacks, become null."""
    finite = json.loads(json.dumps(document), parse_constant=lambda constant: None)
    print(json.dumps(finite, indent=2, allow_nan=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table on a terminal; elsewhere tab-separated lines, the column names first."""
    cells = [[_text(value) for value in row] for row in rows]
    if not sys.stdout.isatty():
        for line in [list(columns), *cells]:
            print("\t".join(line))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    numeric = [all(isinstance(row[index], int | float) for row in rows) for index in range(len(columns))]
    for column, right in zip(columns, numeric, strict=True):
        table.add_column(Text(column), justify="right" if right else "left", overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    Console().print(table)


def print_results(results: Mapping[str, Any], as_json: bool = False) -> None:
    """Print a flat mapping, one line per key, or as a JSON document."""
    if as_json:
        print_json(results)
    else:
        print_table(["result", "value"], list(results.items()))


def _text(value: Any) -> str:
    if isinstance(value, list):
        return _list_text(value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _list_text(values: Sequence[Any]) -> str:
    """The items of a list, or its rows, cut where they would fill more than a line or two."""
    separator = "; " if values and isinstance(values[0], list) else " "
    items = [" ".join(map(_text, item)) if isinstance(item, list) else _text(item) for item in values]
    shown = len(items)
    while shown and len(separator.join(items[:shown])) > _LIST_WIDTH:
        shown -= 1
    return separator.join(items[:shown]) + (f"{separator}... ({len(items)} in all)" if shown < len(items) else "")
