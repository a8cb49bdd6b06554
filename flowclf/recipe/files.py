"""Files of recipes, by path or by bundled name; found and described without a check."""

from __future__ import annotations

import re
from pathlib import Path

from flowclf.errors import UnreachableError, UsageError
from flowclf.files import resource
from flowclf.recipe.reader import parse, read_text
from flowclf.registry import nearest


def bundled() -> list[str]:
    """Names of the recipes that travel with the package, sorted; a nested one is ``folder/name``."""
    try:
        folder = resource("recipes")
    except UnreachableError:
        return []
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def find(source: str | Path) -> Path:
    """The file of a recipe.

    Args:
        source: a path, or the name of a bundled recipe; a file of that path comes first.

    Raises:
        UsageError: if there is neither; the message has the nearest bundled name.
    """
    text = str(source)
    shown = (text if text.isprintable() else repr(text))[:200]
    try:
        if Path(source).is_file():
            return Path(source)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {shown}: {error}") from error
    names = bundled()
    if text in names:
        return resource("recipes", *f"{text}.yaml".split("/"))
    if Path(source).exists():
        raise UsageError(f"expected a recipe's file, found {shown}, which is not a regular file")
    stem = re.sub(r"^(?:.*/)?recipes/|\.ya?ml$", "", text)
    hint = f"; did you mean the bundled recipe '{stem}'?" if stem in names else nearest(stem[:100], names)
    raise UsageError(f"there is no file {shown}, and no bundled recipe of that name{hint}")


def description(source: str | Path) -> str:
    """The sentence that says what a recipe is for, read without a check of the rest; raises as :func:`find` and ``load``."""
    path = find(source)
    node = parse(read_text(path), str(path)).value.get("description")
    return node.value if node is not None and isinstance(node.value, str) else ""


def cost(source: str | Path) -> str:
    """What the comments before a recipe's first key say after ``Cost:``, to the end of the sentence; raises as :func:`find`.

    Example:
        >>> cost("mnist-mle")
        '3 minutes in bf16 on two idle cores of an AMD EPYC.'
    """
    head = read_text(find(source)).partition("\nname:")[0]
    comments = " ".join(line.lstrip("# ") for line in head.splitlines() if line.startswith("#"))
    found = re.search(r"\bCost: (.{1,300}?\.)(?=\s|$)", comments)
    return found[1] if found else ""
