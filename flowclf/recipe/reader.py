"""Strict YAML: text to a tree of nodes that know their place. Nothing here knows what a recipe is.

The rules: one document, a mapping at its top, in UTF-8 and of at most a megabyte; no tags, anchors or aliases; no key twice;
keys are text. Plain scalars are read as YAML 1.2 does: only ``true`` and ``false`` are booleans, ``1e-3`` is a number, ``no``
and ``12:30`` are text. NaN and infinity are refused.
"""

from __future__ import annotations

import math
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml import events as ev

from flowclf.errors import Problem, RecipeError, UsageError

MAX_BYTES = 1_000_000
MAX_DEPTH = 40
MAX_VALUES = 50_000

_NULL = re.compile(r"(?:~|null|Null|NULL|)$")
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)$")
_INT = re.compile(r"[-+]?[0-9]+$")
_BASED = re.compile(r"0o[0-7]+$|0x[0-9a-fA-F]+$")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$")
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TOP = "expected a mapping at the top, such as 'name: my-recipe'"

# yaml ships without the C library on some platforms; both give the same events.
_Parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Place:
    """Where a node was written.

    Attributes:
        line: from 1.
        column: from 1.
        origin: empty for the recipe's file, else what to name instead, such as ``--set train.epochs=3``.
    """

    line: int = 1
    column: int = 1
    origin: str = ""


@dataclass
class Node:
    """A scalar, a list or a mapping, and its place.

    Attributes:
        place: where it begins.
        value: a scalar's value, a list of nodes, or a mapping of keys to nodes.
        keys: of a mapping, the places of the keys.
    """

    place: Place
    value: Any
    keys: dict[str, Place] = field(default_factory=dict)

    def plain(self) -> Any:
        """The value as plain data. The depth is limited when a tree is read, so this recursion is."""
        match self.value:
            case dict():
                return {key: node.plain() for key, node in self.value.items()}
            case list():
                return [node.plain() for node in self.value]
        return self.value


def read_text(path: str | Path) -> str:
    """The text of a recipe's file; its size is checked before it is read.

    Raises:
        UsageError: no regular file is there, or it cannot be read.
        RecipeError: it is larger than :data:`MAX_BYTES`, or not UTF-8.
    """
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"expected a recipe's file, found {path}, which is not a regular file")
        if status.st_size > MAX_BYTES:
            size = f"{status.st_size / 1e6:.1f} MB"
            raise RecipeError(str(path), [Problem(f"expected at most {MAX_BYTES / 1e6:.0f} MB, found {size}", line=1, column=1)])
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(f"cannot read {str(path)!r}: {error}") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode(errors="replace")
        byte = f"0x{content[error.start]:02x}"
        raise RecipeError(
            str(path), [_problem(f"expected UTF-8, found the byte {byte}", *_position(before, len(before)))]
        ) from error


def parse(text: str, source: str, origin: str = "", mapping: bool = True) -> Node:
    """The tree of a document.

    Args:
        text: the document.
        source: name of the file, for errors.
        origin: for all places, as :attr:`Place.origin`.
        mapping: whether the top must be a mapping.

    Raises:
        RecipeError: the text is not YAML, or breaks a rule; all broken rules at once.

    Example:
        >>> parse("{epochs: 1e1, order: [no, 12:30, true]}", "example").plain()
        {'epochs': 10.0, 'order': ['no', '12:30', True]}
    """
    unprintable = _UNPRINTABLE.search(text)
    if unprintable:
        place = _position(text, unprintable.start())
        raise RecipeError(source, [_problem(f"expected text, found the control character {unprintable[0]!r}", *place, origin)])
    try:
        builder = _read(_Parser, text, origin)
    except _TooDeepError:
        # The C library gives up a thousand levels deep without naming the place; the Python parser hands out the events before it.
        builder = _read(yaml.SafeLoader, text, origin)
    root = builder.root
    if not builder.problems:
        if root is None or (root.value is None and not text.strip()):
            builder.problems.append(
                _problem(f"{_TOP}; found nothing" if mapping else "expected a value, found nothing", 1, 1, origin)
            )
        elif mapping and not isinstance(root.value, dict):
            what = "a list" if isinstance(root.value, list) else "text" if isinstance(root.value, str) else "a single value"
            builder.problems.append(_problem(f"{_TOP}; found {what}", root.place.line, root.place.column, origin))
    if builder.problems or root is None:
        raise RecipeError(source, builder.problems)
    return root


class _TooDeepError(Exception):
    """The parser's own limit of nesting came before ours."""


def _read(parser_class: Any, text: str, origin: str) -> _Builder:
    builder = _Builder(origin)
    parser = parser_class(text)
    try:
        while parser.check_event():
            if not builder.take(parser.get_event()):
                break
    except yaml.MarkedYAMLError as error:
        if "maximum nesting depth" in (error.problem or ""):
            raise _TooDeepError from error
        mark = error.problem_mark or error.context_mark
        message = _in_plain_words(error, text)
        builder.problems.append(_problem(message, mark.line + 1 if mark else 1, mark.column + 1 if mark else 1, origin))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        builder.problems.append(_problem(f"expected YAML: {error}", 1, 1, origin))
    finally:
        parser.dispose()
    return builder


def _problem(message: str, line: int, column: int, origin: str = "") -> Problem:
    return Problem(f"{origin}: {message}") if origin else Problem(message, line=line, column=column)


def _position(text: str, index: int) -> tuple[int, int]:
    before = text[:index]
    return before.count("\n") + 1, index - before.rfind("\n")


def _in_plain_words(error: yaml.MarkedYAMLError, text: str) -> str:
    what = error.problem or "not YAML"
    mark = error.problem_mark
    lines = text.splitlines()
    character = lines[mark.line][mark.column : mark.column + 1] if mark and mark.line < len(lines) else ""
    if character == "\t" or "tab character" in what:
        return "expected spaces, found a tab"
    if "cannot start any token" in what and character:
        return f"text that begins with {character} must be in quotes"
    return f"expected YAML: {', '.join(part for part in (error.context, what) if part)}"


class _Builder:
    """Events to nodes, without recursion: depth and number are limited as they come."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.problems: list[Problem] = []
        self.root: Node | None = None
        self.count = 0
        self._open: list[Node] = []
        self._keys: list[tuple[str, Place] | None] = []
        self._documents = 0

    def take(self, event: Any) -> bool:
        """Use one event; False when reading on makes no sense."""
        place = Place(event.start_mark.line + 1, event.start_mark.column + 1, self.origin)
        match event:
            case ev.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    self._refuse("expected one document, found a second one", place)
                    return False
                return True
            case ev.AliasEvent():
                self._refuse(f"aliases are not allowed, found '*{event.anchor}'", place)
                return self._add(Node(place, None))
            case ev.ScalarEvent():
                self._check_node(event, place)
                return self._add(Node(place, self._scalar(event, place)))
            case ev.SequenceStartEvent() | ev.MappingStartEvent():
                self._check_node(event, place)
                node = Node(place, [] if isinstance(event, ev.SequenceStartEvent) else {})
                if not self._add(node):
                    return False
                self._open.append(node)
                self._keys.append(None)
                if len(self._open) > MAX_DEPTH:
                    self._refuse(f"nested more than {MAX_DEPTH} levels deep", place)
                    return False
            case ev.SequenceEndEvent() | ev.MappingEndEvent():
                self._open.pop()
                self._keys.pop()
        return True

    def _refuse(self, message: str, place: Place) -> None:
        self.problems.append(_problem(message, place.line, place.column, self.origin))

    def _check_node(self, event: Any, place: Place) -> None:
        if event.anchor is not None:
            self._refuse(f"anchors are not allowed, found '&{event.anchor}'", place)
        if event.tag is not None:
            self._refuse(f"tags are not allowed, found '{event.tag}'", place)

    def _add(self, node: Node) -> bool:
        self.count += 1
        if self.count > MAX_VALUES:
            self._refuse(f"expected at most {MAX_VALUES} values, found more", node.place)
            return False
        if not self._open:
            self.root = node
            return True
        parent, key = self._open[-1], self._keys[-1]
        if isinstance(parent.value, list):
            parent.value.append(node)
        elif key is None:
            return self._take_key(parent, node)
        else:
            self._keys[-1] = None
            if key[0] not in parent.value:
                parent.value[key[0]], parent.keys[key[0]] = node, key[1]
        return True

    def _take_key(self, parent: Node, node: Node) -> bool:
        if isinstance(node.value, dict | list):
            self._refuse("expected a key, found a mapping or a list", node.place)
            return False
        name = node.value
        if not isinstance(name, str):
            self._refuse(f"expected a key that is text, found {'null' if name is None else str(name).lower()}", node.place)
            name = str(name)
        if name in parent.value:
            first = parent.keys[name].line
            self._refuse(f"the key '{name[:60]}' is given twice, first in line {first}", node.place)
        self._keys[-1] = (name, node.place)
        return True

    def _scalar(self, event: Any, place: Place) -> Any:
        text: str = event.value
        if not event.implicit[0]:
            return text
        if _NULL.match(text):
            return None
        if _BOOL.match(text):
            return text.lower() == "true"
        if _NOT_FINITE.match(text):
            self._refuse(f"expected a finite number, found {text}", place)
            return None
        if _INT.match(text) or _BASED.match(text):
            if len(text) > 20 or not -(2**63) <= (number := int(text, 0 if _BASED.match(text) else 10)) < 2**63:
                self._refuse(f"expected an integer of at most 64 bits, found {text[:30]}", place)
                return None
            return number
        if _FLOAT.match(text):
            if math.isfinite(value := float(text)):
                return value
            self._refuse(f"expected a finite number, found {text[:30]}", place)
            return None
        return text


def is_text(plain: str) -> bool:
    """Whether a plain scalar is text, not null, a boolean or a number."""
    return not any(rule.match(plain) for rule in (_NULL, _BOOL, _NOT_FINITE, _INT, _BASED, _FLOAT))
