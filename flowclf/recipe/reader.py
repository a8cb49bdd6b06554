"""Strict YAML: text to a tree of nodes that carry their place. This module is independent of recipes.

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
from typing import Any, Literal

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
    """Where a node was written: line and column, from 1; for a value from elsewhere its origin, as ``--set train.epochs=3``."""

    line: int = 1
    column: int = 1
    origin: str = ""

    def problem(self, message: str, location: str = "") -> Problem:
        """A problem at this place; ``location`` is the dotted key."""
        return Problem(f"{self.origin}: {message}", location) if self.origin else Problem(message, location, self.line, self.column)


@dataclass
class Node:
    """A scalar's value, a list of nodes, or a mapping of keys to nodes; its place, and the places of a mapping's keys."""

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
        UsageError: if it is not a regular file, or cannot be read.
        RecipeError: if it is larger than :data:`MAX_BYTES`, or not UTF-8.
    """
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"expected a recipe's file, found {path}, which is not a regular file")
        if status.st_size > MAX_BYTES:
            size = f"{status.st_size / 1e6:.1f} MB"
            raise RecipeError(str(path), [Place().problem(f"expected at most {MAX_BYTES / 1e6:.0f} MB, found {size}")])
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(f"cannot read {str(path)!r}: {error}") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = _end_of(content[: error.start].decode(errors="replace"))
        raise RecipeError(str(path), [place.problem(f"expected UTF-8, found the byte 0x{content[error.start]:02x}")]) from error


def parse(text: str, source: str, origin: str = "", mapping: bool = True) -> Node:
    """The tree of a document. ``source`` and ``origin`` name it in errors; with ``mapping``, its top must be a mapping.

    Raises:
        RecipeError: if the text is not YAML, or breaks a rule; all broken rules at once.

    Example:
        >>> parse("{epochs: 1e1, order: [no, 12:30, true]}", "example").plain()
        {'epochs': 10.0, 'order': ['no', '12:30', True]}
    """
    if unprintable := _UNPRINTABLE.search(text):
        place = _end_of(text[: unprintable.start()], origin)
        raise RecipeError(source, [place.problem(f"expected text, found the control character {unprintable[0]!r}")])
    try:
        builder = _read(_Parser, text, origin)
    except _TooDeepError:
        # The C library gives up a thousand levels deep without naming the place; the Python parser hands out the events before it.
        builder = _read(yaml.SafeLoader, text, origin)
    root = builder.root
    if not builder.problems:
        if root is None or (root.value is None and not text.strip()):
            builder.refuse(f"{_TOP}; found nothing" if mapping else "expected a value, found nothing", Place(1, 1, origin))
        elif mapping and not isinstance(root.value, dict):
            what = "a list" if isinstance(root.value, list) else "text" if isinstance(root.value, str) else "a single value"
            builder.refuse(f"{_TOP}; found {what}", root.place)
    if builder.problems or root is None:
        raise RecipeError(source, builder.problems)
    return root


class _TooDeepError(Exception):
    """The parser's own limit of nesting came before :data:`MAX_DEPTH`."""


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
        builder.refuse(_in_plain_words(error, text), Place(mark.line + 1, mark.column + 1, origin) if mark else Place(1, 1, origin))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        builder.refuse(f"expected YAML: {error}", Place(1, 1, origin))
    finally:
        parser.dispose()
    return builder


def _end_of(text: str, origin: str = "") -> Place:
    return Place(text.count("\n") + 1, len(text) - text.rfind("\n"), origin)


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
                    return self.refuse("expected one document, found a second one", place)
            case ev.AliasEvent():
                self.refuse(f"aliases are not allowed, found '*{event.anchor}'", place)
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
                    return self.refuse(f"nested more than {MAX_DEPTH} levels deep", place)
            case ev.SequenceEndEvent() | ev.MappingEndEvent():
                self._open.pop()
                self._keys.pop()
        return True

    def refuse(self, message: str, place: Place) -> Literal[False]:
        """Note a broken rule."""
        self.problems.append(place.problem(message))
        return False

    def _check_node(self, event: Any, place: Place) -> None:
        if event.anchor is not None:
            self.refuse(f"anchors are not allowed, found '&{event.anchor}'", place)
        if event.tag is not None:
            self.refuse(f"tags are not allowed, found '{event.tag}'", place)

    def _add(self, node: Node) -> bool:
        self.count += 1
        if self.count > MAX_VALUES:
            return self.refuse(f"expected at most {MAX_VALUES} values, found more", node.place)
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
            return self.refuse("expected a key, found a mapping or a list", node.place)
        name = node.value
        if not isinstance(name, str):
            self.refuse(f"expected a key that is text, found {'null' if name is None else str(name).lower()}", node.place)
            name = str(name)
        if name in parent.value:
            self.refuse(f"the key '{name[:60]}' is given twice, first in line {parent.keys[name].line}", node.place)
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
        if _INT.match(text) or _BASED.match(text):
            if len(text) <= 20 and -(2**63) <= (number := int(text, 0 if _BASED.match(text) else 10)) < 2**63:
                return number
            self.refuse(f"expected an integer of at most 64 bits, found {text[:30]}", place)
            return None
        if _FLOAT.match(text) and math.isfinite(value := float(text)):
            return value
        if _FLOAT.match(text) or _NOT_FINITE.match(text):
            self.refuse(f"expected a finite number, found {text[:30]}", place)
            return None
        return text


def is_text(plain: str) -> bool:
    """Whether a plain scalar is text, not null, a boolean or a number."""
    return not any(rule.match(plain) for rule in (_NULL, _BOOL, _NOT_FINITE, _INT, _BASED, _FLOAT))
