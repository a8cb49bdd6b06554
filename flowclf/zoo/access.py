"""What a zoo is for: its models by name, on disk and in memory. Every file is checked against its hash at every use."""

from __future__ import annotations

import builtins
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from flowclf.errors import ChecksumError, UsageError
from flowclf.strict_json import DESCRIPTION, WEIGHTS
from flowclf.zoo.downloads import download_file, file_problem, found_at, is_right, locked
from flowclf.zoo.index import Zoo, open_zoo
from flowclf.zoo.schema import RECIPE, ZooEntry
from flowclf.zoo.settings import Options

if TYPE_CHECKING:
    import torch

    from flowclf.classifier import InvertibleClassifier, PlainClassifier

__all__ = ["download", "fetch_files", "info", "list_models", "load", "load_entry", "model_folder"]


def list_models(**options: Unpack[Options]) -> builtins.list[ZooEntry]:
    """All models of a zoo, in the order of its index.

    Args:
        **options: where the zoo is; see :class:`flowclf.zoo.Options`.

    Raises:
        UsageError: a place that cannot be meant.
        UnreachableError: an index that cannot be reached.
        ZooError: an index that is invalid.

    Example:
        >>> import flowclf
        >>> all(entry.files for entry in flowclf.zoo.list())
        True
    """
    return builtins.list(open_zoo(options).index.models)


def info(name: str, **options: Unpack[Options]) -> ZooEntry:
    """What the index says of a model.

    Args:
        name: of the model.
        **options: where the zoo is; see :class:`flowclf.zoo.Options`.

    Raises:
        UsageError: there is no such model; the message has the nearest name.
    """
    return open_zoo(options).entry(name)


def download(name: str, *, to: str | Path | None = None, **options: Unpack[Options]) -> Path:
    """Have all files of a model on disk: weights, description, recipe, card, figures.

    Args:
        name: of the model.
        to: folder to put them into, made if need be; without it they stay in the cache, or in the zoo where that is a folder.
        **options: where the zoo is; see :class:`flowclf.zoo.Options`.

    Returns:
        The folder, which :func:`flowclf.load` takes.

    Raises:
        UsageError: there is no such model, or ``to`` holds another file of one of the names.
        ChecksumError: a file that is not the expected one, from whichever source; has both hashes.
        UnreachableError: a file that no source has, or that cannot be written.
    """
    zoo = open_zoo(options)
    entry = zoo.entry(name)
    if to is None:
        return fetch_files(zoo, entry, entry.files)
    to = Path(to)
    if to.exists() and not to.is_dir():
        raise UsageError(f"expected a folder to download to, found the file {to}")
    wanted = [file for file in entry.files if not is_right(to / file, entry.files[file])]
    for file in wanted:
        if (to / file).exists():
            raise UsageError(f"{to / file} is there already and differs from the file of model '{entry.name}'")
    if not wanted:
        return to
    folder = fetch_files(zoo, entry, wanted)
    # The description last: a folder that has one has the weights as well.
    for file in sorted(wanted, key=lambda file: file == DESCRIPTION):
        download_file(to / file, entry.files[file], [folder / file], zoo.settings, f"{entry.name}/{file}")
    return to


def load(
    name: str, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None, **options: Unpack[Options]
) -> InvertibleClassifier | PlainClassifier:
    """A model of a zoo, in eval mode, with its preprocessing. Works offline once it is in the cache.

    Args:
        name: of the model.
        device: where to put it.
        dtype: floating-point type to cast it to; by default as saved.
        **options: where the zoo is; see :class:`flowclf.zoo.Options`.

    Raises:
        UsageError: there is no such model; the message has the nearest name.
        ChecksumError: a file that is not the expected one, from whichever source; has both hashes.
        UnreachableError: a file that no source has.
        CheckpointError: a description that is refused, or weights that do not fit it.
    """
    zoo = open_zoo(options)
    return load_entry(zoo, zoo.entry(name), device=device, dtype=dtype)


def load_entry(
    zoo: Zoo, entry: ZooEntry, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> InvertibleClassifier | PlainClassifier:
    """As :func:`load`, of a zoo that is open."""
    from flowclf import checkpoint

    folder = fetch_files(zoo, entry, (DESCRIPTION, WEIGHTS))
    weights = checkpoint.read_description(folder).get("weights")
    named = weights.get("file") if isinstance(weights, dict) else None
    if named != WEIGHTS:
        raise ChecksumError(f"{folder / DESCRIPTION}: expected weights in {WEIGHTS}, whose hash the zoo has; found {named!r}")
    return checkpoint.load(folder, device=device, dtype=dtype)


def model_folder(name: str, **options: Unpack[Options]) -> Path:
    """Have a model's weights, description and recipe on disk, and give their folder; see :func:`download`."""
    zoo = open_zoo(options)
    entry = zoo.entry(name)
    return fetch_files(zoo, entry, [file for file in (DESCRIPTION, WEIGHTS, RECIPE) if file in entry.files])


def fetch_files(zoo: Zoo, entry: ZooEntry, names: Iterable[str]) -> Path:
    """Have some of a model's files on disk, in one folder, each checked now.

    Args:
        zoo: that the model is in.
        entry: the model.
        names: of files of the entry.

    Returns:
        Their folder: in the zoo, where it is a folder and all are right in it, else in the cache.
    """
    names = builtins.list(names)
    if (folder := _own_folder(zoo, entry, names)) is not None:
        return folder
    # The description holds the hash of the weights, so its own hash stands for both.
    folder = zoo.settings.cache / "models" / entry.files[DESCRIPTION].sha256
    for name in names:
        _have(zoo, entry, name, folder / name)
    return folder


def _own_folder(zoo: Zoo, entry: ZooEntry, names: builtins.list[str]) -> Path | None:
    if not isinstance(zoo.base, Path):
        return None
    folders = {(zoo.base / entry.files[name].path).parent for name in names}
    same = all(entry.files[name].path.rpartition("/")[2] == name for name in names)
    if len(folders) != 1 or not same:
        return None
    folder = folders.pop()
    return folder if all(is_right(folder / name, entry.files[name]) for name in names) else None


def _have(zoo: Zoo, entry: ZooEntry, name: str, path: Path) -> None:
    file, what = entry.files[name], f"{entry.name}/{name}"
    if is_right(path, file):
        return
    sources = [source for source in zoo.sources(file) if isinstance(source, Path) or not zoo.settings.offline]
    if not sources:
        found = found_at(path)
        state = f"has changed in the cache at {path}" if found else "is not in the cache"
        raise file_problem(what, file, found, f"offline, and it {state}")
    with locked(path.parent.parent / f"{path.parent.name}.lock"):
        # Another process may have been here while this one waited.
        if is_right(path, file):
            return
        # With the lock in hand, what is half written was left by a process that was killed.
        for stale in path.parent.glob(f".{path.name}.*.part"):
            stale.unlink(missing_ok=True)
        download_file(path, file, sources, zoo.settings, what)
