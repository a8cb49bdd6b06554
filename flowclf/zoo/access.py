"""Access to a zoo's models by name. Every file is checked against its hash at every use."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from flowclf.errors import ChecksumError, UsageError
from flowclf.files import Content
from flowclf.remote.settings import Options
from flowclf.strict_json import DESCRIPTION, WEIGHTS
from flowclf.zoo.index import Zoo, open_zoo
from flowclf.zoo.schema import RECIPE, ZooEntry

if TYPE_CHECKING:
    import torch

    from flowclf.classifier import InvertibleClassifier, PlainClassifier


def list_models(**options: Unpack[Options]) -> list[ZooEntry]:
    """All models of a zoo, in the order of its index; ``options`` are :class:`flowclf.zoo.Options`.

    Raises:
        UsageError: if there is no zoo at the folder or address.
        UnreachableError: if the index cannot be reached.
        ZooError: if the index is invalid.

    Example:
        >>> import flowclf
        >>> all(entry.files for entry in flowclf.zoo.list())
        True
    """
    return list(open_zoo(options).index.models)


def info(name: str, **options: Unpack[Options]) -> ZooEntry:
    """A model's entry in the index; ``options`` and errors are those of :func:`list`.

    Raises:
        UsageError: if there is no such model; the message has the nearest name.
    """
    return open_zoo(options).entry(name)


def download(name: str, *, to: str | Path | None = None, **options: Unpack[Options]) -> Path:
    """Download all files of a model: weights, description, recipe, card, figures.

    Args:
        name: the model's name.
        to: folder for the files, created if necessary; by default they stay in the cache, or in the zoo if that is a folder.
        **options: location of the zoo; see :class:`flowclf.zoo.Options`.

    Returns:
        The folder, which :func:`flowclf.load` takes.

    Raises:
        UsageError: if there is no such model, or ``to`` holds another file of one of the names.
        ChecksumError: if no source has the expected content of a file; the message has both hashes.
        UnreachableError: if no source has a file, or it cannot be written.
    """
    from flowclf.remote.downloads import download_file

    zoo = open_zoo(options)
    entry = zoo.entry(name)
    if to is None:
        return fetch_files(zoo, entry, entry.files)
    to = Path(to)
    if to.exists() and not to.is_dir():
        raise UsageError(f"expected a folder to download to, found the file {to}")
    wanted = [file for file in entry.files if Content.of(to / file) != entry.files[file].content]
    for file in wanted:
        if (to / file).exists():
            raise UsageError(f"{to / file} is there already and differs from the file of model '{entry.name}'")
    folder = fetch_files(zoo, entry, wanted)
    # The description last: a folder with a description must have the weights too.
    for file in sorted(wanted, key=lambda file: file == DESCRIPTION):
        download_file(to / file, entry.files[file].content, [folder / file], zoo.settings, f"{entry.name}/{file}")
    return to


def load(
    name: str, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None, **options: Unpack[Options]
) -> InvertibleClassifier | PlainClassifier:
    """Load a model of a zoo, in eval mode, with its preprocessing; it works offline once the model is in the cache.

    Args:
        name: the model's name.
        device: device to load the model to.
        dtype: floating-point type to cast it to, for an invertible classifier float32 or float64; by default as saved.
        **options: location of the zoo; see :class:`flowclf.zoo.Options`.

    Raises:
        UsageError: if there is no such model, and the message has the nearest name; or if it cannot compute in ``dtype``.
        ChecksumError: if no source has the expected content of a file; the message has both hashes.
        UnreachableError: if no source has a file.
        CheckpointError: if the description is not valid, or the weights do not fit it.
    """
    zoo = open_zoo(options)
    return load_entry(zoo, zoo.entry(name), device=device, dtype=dtype)


def load_entry(
    zoo: Zoo, entry: ZooEntry, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> InvertibleClassifier | PlainClassifier:
    """Load a model of an open zoo; arguments and errors are those of :func:`load`."""
    from flowclf import checkpoint

    folder = fetch_files(zoo, entry, (DESCRIPTION, WEIGHTS))
    weights = checkpoint.read_description(folder).get("weights")
    named = weights.get("file") if isinstance(weights, dict) else None
    if named != WEIGHTS:
        raise ChecksumError(f"{folder / DESCRIPTION}: expected weights in {WEIGHTS}, whose hash the zoo has; found {named!r}")
    return checkpoint.load(folder, device=device, dtype=dtype)


def model_folder(name: str, **options: Unpack[Options]) -> Path:
    """Download a model's weights, description and recipe to their folder; errors are those of :func:`download`."""
    zoo = open_zoo(options)
    entry = zoo.entry(name)
    return fetch_files(zoo, entry, [file for file in (DESCRIPTION, WEIGHTS, RECIPE) if file in entry.files])


def fetch_files(zoo: Zoo, entry: ZooEntry, names: Iterable[str]) -> Path:
    """Check the named files of a model, and download those that are missing or wrong.

    Returns:
        Their folder: in the zoo, if that is a folder in which all of them are right; otherwise in the cache.
    """
    from flowclf.remote.downloads import ensure_file

    wanted = {name: entry.files[name] for name in names}
    if isinstance(zoo.base, Path):
        places = {name: zoo.base / file.path for name, file in wanted.items()}
        folders = {place.parent for place in places.values()}
        right = all(place.name == name and Content.of(place) == wanted[name].content for name, place in places.items())
        if right and len(folders) == 1:
            return folders.pop()
    # The description holds the hash of the weights, so its own hash identifies both.
    folder = zoo.settings.cache / "models" / entry.files[DESCRIPTION].sha256
    for name, file in wanted.items():
        ensure_file(folder / name, file.content, zoo.sources(file), zoo.settings, f"{entry.name}/{name}")
    return folder
