"""Finding a zoo's index, in a folder or at a URL, and the models in it by name."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import flowclf
from flowclf.errors import ChecksumError, UnreachableError, UsageError, ZooError
from flowclf.files import write_json
from flowclf.registry import nearest
from flowclf.zoo.downloads import download_text
from flowclf.zoo.names import is_url, url_problem
from flowclf.zoo.schema import INDEX, MAX_INDEX_BYTES, ZooEntry, ZooFile, ZooIndex, parse_index
from flowclf.zoo.settings import Options, Settings, settings

__all__ = ["Zoo", "bundled_zoo", "open_zoo"]


@dataclass(frozen=True)
class Zoo:
    """An index that was read, and where it lies.

    Attributes:
        index: the models.
        base: the folder of the index, or its URL with a slash at the end.
        settings: how it is reached.
    """

    index: ZooIndex
    base: Path | str
    settings: Settings

    def entry(self, name: str) -> ZooEntry:
        """The model of a name; an older name works, with a warning.

        Raises:
            UsageError: there is none; the message has the nearest name.
        """
        for entry in self.index.models:
            if name == entry.name:
                return entry
            if name in entry.aliases:
                warnings.warn(f"the model '{name}' is called '{entry.name}' now", FutureWarning, stacklevel=3)
                return entry
        names = [entry.name for entry in self.index.models]
        near = nearest(str(name)[:100], names) or "; the zoo is empty"
        raise UsageError(f"there is no model '{str(name)[:100]}' in the zoo at {self.base}{near}")

    def sources(self, file: ZooFile) -> list[Path | str]:
        """Where a file may be read from, in the order in which it is tried."""
        if is_url(file.path):
            return [file.path]
        bases: list[Path | str] = [self.base, *self.settings.mirrors]
        if self.settings.url:
            bases.insert(1, self.settings.url)
        places = dict.fromkeys(_joined(_place(base), file.path) for base in bases)
        return [place for place in places if isinstance(place, str) or place.exists() or len(places) == 1]


def bundled_zoo() -> Path:
    """The zoo that travels with flowclf: in the installed package, or beside the package in a checkout.

    Raises:
        UnreachableError: the installation has none.
    """
    package = Path(flowclf.__file__).parent
    for folder in (package / "zoo_files", package.parent / "zoo"):
        if (folder / INDEX).is_file():
            return folder
    raise UnreachableError(f"the installation at {package} has no zoo; name one with --index or FLOWCLF_ZOO")


def open_zoo(options: Options) -> Zoo:
    """Read a zoo's index.

    Raises:
        UsageError: a place that cannot be meant.
        UnreachableError: an index that cannot be reached.
        ZooError: an index that is invalid.
    """
    chosen = settings(options)
    for each in (chosen.url, *chosen.mirrors):
        _place(each or "")
    wanted = chosen.index or chosen.url
    if wanted is None:
        folder = bundled_zoo()
        return Zoo(_read(folder / INDEX), folder, chosen)
    place = _place(wanted)
    if isinstance(place, str):
        return _remote(place, chosen)
    try:
        file = place / INDEX if place.is_dir() else place
        found = file.is_file()
    except (OSError, ValueError):
        found = False
    if not found:
        raise UsageError(
            f"there is no zoo at {wanted[:200]}: expected a folder that holds {INDEX}, such a file, or the URL of either"
        )
    return Zoo(_read(file), file.parent, chosen)


def _place(place: Path | str) -> Path | str:
    """A folder or file as a path, an address as a URL.

    Raises:
        UsageError: an address that is not allowed.
    """
    if isinstance(place, Path) or not is_url(place):
        return Path(place).expanduser()
    if urlsplit(place).scheme == "file":
        if urlsplit(place).netloc not in ("", "localhost"):
            raise UsageError(f"a zoo's address: expected a file on this machine, found {place[:200]!r}")
        return Path(url2pathname(urlsplit(place).path))
    if problem := url_problem(place):
        raise UsageError(f"a zoo's address: {problem}")
    if urlsplit(place).query or urlsplit(place).fragment:
        raise UsageError(f"a zoo's address: expected a URL without ? and #, found {place[:200]!r}")
    return place


def _joined(base: Path | str, relative: str) -> Path | str:
    return f"{base.rstrip('/')}/{relative}" if isinstance(base, str) else base.joinpath(*relative.split("/"))


def _read(file: Path) -> ZooIndex:
    try:
        if file.stat().st_size > MAX_INDEX_BYTES:
            raise ZooError(f"{file}: {file.stat().st_size} bytes, more than the {MAX_INDEX_BYTES} an index may have")
        text = file.read_bytes()
    except OSError as error:
        raise UnreachableError(f"cannot read {file}: {error.strerror or error}") from error
    return parse_index(text, str(file))


def _remote(place: str, chosen: Settings) -> Zoo:
    name = INDEX
    if place.endswith(".json"):
        place, _, name = place.rpartition("/")
    base = place.rstrip("/") + "/"
    url = base + name
    kept = chosen.cache / "indexes" / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.json"
    if chosen.offline:
        if not kept.is_file():
            raise UnreachableError(f"{url}: offline, and it has not been read before")
        return Zoo(_recall(kept, url, base), base, chosen)
    try:
        source, text = download_text(
            [_joined(_place(each), name) for each in (base, *chosen.mirrors)], MAX_INDEX_BYTES, chosen, url
        )
    except UnreachableError as error:
        if not kept.is_file():
            raise
        index = _recall(kept, url, base)
        warnings.warn(f"{error}; going on with the index that was read before", UserWarning, stacklevel=2)
        return Zoo(index, base, chosen)
    index = _parsed(text, str(source), base)
    _keep(kept, url, text)
    return Zoo(index, base, chosen)


def _parsed(text: str | bytes, where: str, base: str) -> ZooIndex:
    """An index that was read from a URL; one read by https must not lead to servers on this machine."""
    index = parse_index(text, where)
    for entry in index.models:
        for file in entry.files.values():
            if is_url(file.path) and (problem := url_problem(file.path, base)):
                raise ZooError(f"{where}: {entry.name}: {problem}")
    return index


def _keep(kept: Path, url: str, text: bytes) -> None:
    decoded = text.decode("utf-8")
    try:
        write_json(kept, {"url": url, "sha256": hashlib.sha256(text).hexdigest(), "text": decoded})
    except OSError as error:
        raise UnreachableError(f"{kept} cannot be written: {error.strerror or error}") from error


def _recall(kept: Path, url: str, base: str) -> ZooIndex:
    try:
        document = json.loads(kept.read_bytes())
        text, expected = str(document["text"]), str(document["sha256"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UnreachableError(f"{kept}, the index of {url} as it was read before, cannot be read: {error}") from error
    found = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    if found != expected:
        shown = expected if re.fullmatch("[0-9a-f]{64}", expected) else "none"
        raise ChecksumError(f"{kept}, the index of {url} as it was read before: expected SHA-256 {shown}, found {found}")
    return _parsed(text, str(kept), base)
