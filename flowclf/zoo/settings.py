"""Where a zoo is and how it is reached: arguments, then environment variables, then a configuration file, read at each call.

The configuration file is the one that ``FLOWCLF_CONFIG`` names, or ``config.toml`` in the platform's folder for flowclf's
configuration, with a table ``[zoo]``: ``index``, ``url``, ``mirrors`` (a list), ``cache``, ``offline``, ``timeout``.
"""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import platformdirs

from flowclf.errors import UsageError
from flowclf.files import cache_folder
from flowclf.registry import nearest

if TYPE_CHECKING:
    from flowclf.training import Progress

__all__ = ["Options", "Settings", "settings"]

_TIMEOUT = 30.0
_KEYS: Mapping[str, type | tuple[type, ...]] = {
    "index": str,
    "url": str,
    "mirrors": list,
    "cache": str,
    "offline": bool,
    "timeout": (int, float),
}


class Options(TypedDict, total=False):
    """Arguments that every function of the zoo takes; what is left out comes from the environment or the configuration.

    Keys:
        index: the zoo: a folder that holds ``index.json``, such a file, or the URL of either (``FLOWCLF_ZOO``); by default the one
            that travels with flowclf.
        url: base URL for files with relative paths, and for the index where none is named (``FLOWCLF_ZOO_URL``).
        mirrors: further folders or base URLs, tried in turn (``FLOWCLF_ZOO_MIRRORS``, separated by white space).
        cache: folder for downloads (``FLOWCLF_CACHE``).
        offline: read nothing from a network (``FLOWCLF_OFFLINE``).
        timeout: seconds to wait for an answer (``FLOWCLF_TIMEOUT``).
        progress: is told how far a download is.
    """

    index: str | Path | None
    url: str | None
    mirrors: Sequence[str] | None
    cache: str | Path | None
    offline: bool | None
    timeout: float | None
    progress: Progress | None


@dataclass(frozen=True)
class Settings:
    """How a zoo is reached; see :class:`Options`."""

    index: str | None
    url: str | None
    mirrors: tuple[str, ...]
    cache: Path
    offline: bool
    timeout: float
    progress: Progress | None = None


def settings(options: Options) -> Settings:
    """The settings of one call.

    Raises:
        UsageError: an option that is unknown, or a value that cannot be meant; says where it comes from.
    """
    for key in options:
        if key not in Options.__annotations__:
            raise UsageError(f"unknown option '{key}'{nearest(key, Options.__annotations__)}")
    configured = _configured()
    environment = os.environ

    def pick(key: str, variable: str) -> Any:
        given = options.get(key)
        return given if given is not None else environment.get(variable) or configured.get(key)

    index, mirrors = pick("index", "FLOWCLF_ZOO"), pick("mirrors", "FLOWCLF_ZOO_MIRRORS") or ()
    timeout = pick("timeout", "FLOWCLF_TIMEOUT")
    cache = options.get("cache")
    if cache is None:
        cache = configured["cache"] if "cache" in configured and not environment.get("FLOWCLF_CACHE") else cache_folder()
    return Settings(
        index=None if index is None else str(index),
        url=pick("url", "FLOWCLF_ZOO_URL"),
        mirrors=tuple(mirrors.split() if isinstance(mirrors, str) else mirrors),
        cache=Path(cache).expanduser() / "zoo",
        offline=_boolean(pick("offline", "FLOWCLF_OFFLINE") or False),
        timeout=_seconds(_TIMEOUT if timeout is None else timeout),
        progress=options.get("progress"),
    )


def _configured() -> dict[str, Any]:
    """The table ``[zoo]`` of the configuration file; empty where there is none."""
    named = os.environ.get("FLOWCLF_CONFIG")
    file = Path(named) if named else Path(platformdirs.user_config_dir("flowclf")) / "config.toml"
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        if named:
            raise UsageError(f"FLOWCLF_CONFIG: there is no file {file}") from None
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from error
    try:
        table = tomllib.loads(text).get("zoo", {})
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{file} is not TOML: {error}") from error
    if not isinstance(table, dict):
        raise UsageError(f"{file}: expected a table [zoo], found {table!r}")
    for key, value in table.items():
        if key not in _KEYS:
            raise UsageError(f"{file}: zoo.{key}: unknown key{nearest(key, _KEYS)}")
        wanted = _KEYS[key]
        text_list = not isinstance(value, list) or all(isinstance(item, str) for item in value)
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool) or not text_list:
            names = (
                "a number" if isinstance(wanted, tuple) else {str: "text", list: "a list of text", bool: "true or false"}[wanted]
            )
            raise UsageError(f"{file}: zoo.{key}: expected {names}, found {value!r}")
    return table


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if str(value).lower() in ("1", "true", "yes", "on"):
        return True
    if str(value).lower() in ("0", "false", "no", "off"):
        return False
    raise UsageError(f"FLOWCLF_OFFLINE: expected 1 or 0, found {value!r}")


def _seconds(value: Any) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise UsageError(f"timeout: expected a positive number of seconds, found {value!r}")
    return seconds
