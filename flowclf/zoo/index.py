"""Reading a zoo's index from a folder or a URL, and finding models in it by name."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import flowclf
from flowclf.errors import ChecksumError, UnreachableError, UsageError, ZooError
from flowclf.files import write_json
from flowclf.registry import nearest
from flowclf.remote.addresses import is_url, url_problem
from flowclf.remote.settings import Options, Settings, settings
from flowclf.strict_json import json_object
from flowclf.zoo.schema import INDEX, MAX_INDEX_BYTES, ZooEntry, ZooFile, ZooIndex, parse_index


@dataclass(frozen=True)
class Zoo:
    """An open zoo: its index, the folder of the index or its URL with a slash at the end, and the settings of downloads."""

    index: ZooIndex
    base: Path | str
    settings: Settings

    def entry(self, name: str) -> ZooEntry:
        """The model of a name; an older name works, with a warning.

        Raises:
            UsageError: if there is no such model; the message has the nearest name.
        """
        for entry in self.index.models:
            if name == entry.name:
                return entry
            if name in entry.aliases:
                warnings.warn(f"the model '{name}' is called '{entry.name}' now", FutureWarning, stacklevel=3)
                return entry
        near = nearest(str(name)[:100], [entry.name for entry in self.index.models]) or "; the zoo is empty"
        raise UsageError(f"there is no model '{str(name)[:100]}' in the zoo at {self.base}{near}")

    def sources(self, file: ZooFile) -> list[Path | str]:
        """Paths and URLs from which a file can be read, in the order in which they are tried."""
        if is_url(file.path):
            return [file.path]
        bases: list[Path | str] = [self.base, *self.settings.mirrors]
        if self.settings.url:
            bases.insert(1, self.settings.url)
        places = dict.fromkeys(_joined(_place(base), file.path) for base in bases)
        return [place for place in places if isinstance(place, str) or place.exists() or len(places) == 1]


def bundled_zoo() -> Path:
    """The folder of flowclf's own zoo, in the installed package or beside the package in a checkout.

    Raises:
        UnreachableError: if the installation has none.
    """
    package = Path(flowclf.__file__).parent
    for folder in (package / "zoo_files", package.parent / "zoo"):
        if (folder / INDEX).is_file():
            return folder
    raise UnreachableError(f"the installation at {package} has no zoo; name one with --index or FLOWCLF_ZOO")


def open_zoo(options: Options) -> Zoo:
    """Read a zoo's index.

    Raises:
        UsageError: if there is no zoo at the folder or address.
        UnreachableError: if the index cannot be reached.
        ZooError: if the index is invalid.
    """
    chosen = settings(options)
    for each in (chosen.url, *chosen.mirrors):
        _place(each or "")
    wanted = chosen.index or chosen.url
    place = bundled_zoo() if wanted is None else _place(wanted)
    if isinstance(place, str):
        return _remote(place, chosen)
    try:
        file = place / INDEX if place.is_dir() else place
        found = file.is_file()
    except (OSError, ValueError):
        found = False
    if not found:
        raise UsageError(
            f"there is no zoo at {str(wanted)[:200]}: expected a folder that holds {INDEX}, such a file, or the URL of either"
        )
    return Zoo(read_index(file), file.parent, chosen)


def _place(place: Path | str) -> Path | str:
    """The path or allowed URL that a text gives; UsageError for other URLs."""
    if isinstance(place, Path) or not is_url(place):
        return Path(place).expanduser()
    parts = urlsplit(place)
    if parts.scheme != "file":
        problem = url_problem(place)
        if not problem and (parts.query or parts.fragment):
            problem = f"expected a URL without ? and #, found {place[:200]!r}"
    elif parts.netloc not in ("", "localhost"):
        problem = f"expected a file on this machine, found {place[:200]!r}"
    else:
        from urllib.request import url2pathname

        return Path(url2pathname(parts.path))
    if problem:
        raise UsageError(f"a zoo's address: {problem}")
    return place


def _joined(base: Path | str, relative: str) -> Path | str:
    return f"{base.rstrip('/')}/{relative}" if isinstance(base, str) else base.joinpath(*relative.split("/"))


def read_index(file: Path) -> ZooIndex:
    """Read the index in a file.

    Raises:
        UnreachableError: if the file cannot be read.
        ZooError: if it is too large or not valid.
    """
    try:
        if (size := file.stat().st_size) > MAX_INDEX_BYTES:
            raise ZooError(f"{file}: {size} bytes, more than the {MAX_INDEX_BYTES} an index may have")
        return parse_index(file.read_bytes(), str(file))
    except OSError as error:
        raise UnreachableError(f"cannot read {file}: {error.strerror or error}") from error


def _remote(place: str, chosen: Settings) -> Zoo:
    from flowclf.remote.downloads import download_text

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
    sources = [_joined(_place(each), name) for each in (base, *chosen.mirrors)]
    try:
        source, text = download_text(sources, MAX_INDEX_BYTES, chosen, url)
    except UnreachableError as error:
        if not kept.is_file():
            raise
        index = _recall(kept, url, base)
        warnings.warn(f"{error}; going on with the index that was read before", UserWarning, stacklevel=2)
        return Zoo(index, base, chosen)
    index = _parsed(text, str(source), base)
    try:
        write_json(kept, {"url": url, "sha256": hashlib.sha256(text).hexdigest(), "text": text.decode()})
    except OSError as error:
        raise UnreachableError(f"{kept} cannot be written: {error.strerror or error}") from error
    return Zoo(index, base, chosen)


def _parsed(text: str | bytes, where: str, base: str) -> ZooIndex:
    """Parse an index from a URL; one read by https must not name URLs on this machine."""
    index = parse_index(text, where)
    for entry in index.models:
        for file in entry.files.values():
            if is_url(file.path) and (problem := url_problem(file.path, base)):
                raise ZooError(f"{where}: {entry.name}: {problem}")
    return index


def _recall(kept: Path, url: str, base: str) -> ZooIndex:
    where = f"{kept}, the index of {url} as it was read before"
    document = json_object(kept, where, UnreachableError)
    text, expected = str(document.get("text")), str(document.get("sha256"))
    found = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    if found != expected:
        raise ChecksumError(f"{where}: expected SHA-256 {expected[:64]!r}, found {found}")
    return _parsed(text, str(kept), base)
