"""Settings of downloads: from arguments, then environment variables, then a configuration file, which are read at each call.

The configuration file is the one that ``FLOWCLF_CONFIG`` names, or ``config.toml`` in the platform's folder for flowclf's
configuration, with a table ``[zoo]``: ``index``, ``url``, ``mirrors`` (a list), ``cache``, ``offline``, ``timeout``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import platformdirs
from annotated_types import Gt
from pydantic import AllowInfNan, TypeAdapter, ValidationError

from flowclf.errors import UsageError
from flowclf.files import cache_folder
from flowclf.registry import nearest

if TYPE_CHECKING:
    from flowclf.training import Progress

# Each setting's environment variable, type, and type in words.
_KEYS: dict[str, tuple[str, Any, str]] = {
    "index": ("FLOWCLF_ZOO", str, "text"),
    "url": ("FLOWCLF_ZOO_URL", str, "text"),
    "mirrors": ("FLOWCLF_ZOO_MIRRORS", list[str], "a list of text"),
    "cache": ("FLOWCLF_CACHE", str, "text"),
    "offline": ("FLOWCLF_OFFLINE", bool, "true or false"),
    "timeout": ("FLOWCLF_TIMEOUT", Annotated[float, Gt(0), AllowInfNan(False)], "a positive number of seconds"),
}


class Options(TypedDict, total=False):
    """Keyword arguments of every function of the zoo; defaults come from the environment or the configuration file.

    Keys:
        index: a folder that holds ``index.json``, such a file, or the URL of either (``FLOWCLF_ZOO``); by default flowclf's own.
        url: base URL for files with relative paths, and for the index if ``index`` is not given (``FLOWCLF_ZOO_URL``).
        mirrors: further folders or base URLs, tried in turn (``FLOWCLF_ZOO_MIRRORS``, separated by white space).
        cache: folder for downloads (``FLOWCLF_CACHE``).
        offline: read nothing from a network (``FLOWCLF_OFFLINE``).
        timeout: seconds to wait for an answer (``FLOWCLF_TIMEOUT``).
        progress: receives the progress of downloads.
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
    """The :class:`Options` of one call, with every default filled in."""

    cache: Path
    index: str | None = None
    url: str | None = None
    mirrors: tuple[str, ...] = ()
    offline: bool = False
    timeout: float = 30.0
    progress: Progress | None = None


def settings(options: Options) -> Settings:
    """Combine the settings of one call.

    Raises:
        UsageError: if an option is unknown or its value is not valid; the message says where it comes from.
    """
    file, configured = _configuration()
    environment = {key: os.environ[variable] for key, (variable, *_) in _KEYS.items() if os.environ.get(variable)}
    arguments = {key: value for key, value in options.items() if key != "progress"}
    chosen = {
        **_checked(configured, lambda key: f"{file}: zoo.{key}", strict=True),
        **_checked(environment, lambda key: _KEYS[key][0]),
        **_checked(arguments, str),
    }
    cache = Path(chosen.pop("cache", cache_folder())).expanduser() / "zoo"
    mirrors = tuple(chosen.pop("mirrors", ()))
    return Settings(cache, mirrors=mirrors, progress=options.get("progress"), **chosen)


def _checked(values: Mapping[str, Any], name: Callable[[str], str], strict: bool = False) -> dict[str, Any]:
    checked = {}
    for key, value in values.items():
        if key not in _KEYS:
            raise UsageError(f"{name(key)}: there is no such setting{nearest(key, _KEYS)}")
        if value is None:
            continue
        _, kind, words = _KEYS[key]
        plain = value.split() if key == "mirrors" and isinstance(value, str) and not strict else value
        try:
            checked[key] = TypeAdapter(kind).validate_python(str(plain) if isinstance(plain, Path) else plain, strict=strict)
        except ValidationError:
            raise UsageError(f"{name(key)}: expected {words}, found {value!r}") from None
    return checked


def _configuration() -> tuple[Path, dict[str, Any]]:
    """The path of the configuration file and its table ``[zoo]``, empty if there is none."""
    named = os.environ.get("FLOWCLF_CONFIG")
    file = Path(named) if named else Path(platformdirs.user_config_dir("flowclf")) / "config.toml"
    try:
        if not named and not file.exists():
            return file, {}
        import tomllib

        table = tomllib.loads(file.read_text(encoding="utf-8")).get("zoo", {})
    except FileNotFoundError:
        raise UsageError(f"FLOWCLF_CONFIG: there is no file {file}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from error
    except ValueError as error:
        raise UsageError(f"{file} is not TOML: {error}") from error
    if not isinstance(table, dict):
        raise UsageError(f"{file}: expected a table [zoo], found {table!r}")
    return file, table
