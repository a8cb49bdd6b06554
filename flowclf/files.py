"""Files on disk: hashes, atomic writes, the cache folder, bundled files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from flowclf.errors import ChecksumError, UnreachableError, UsageError


def sha256(path: str | Path) -> str:
    """Compute the SHA-256 of a file, as 64 hexadecimal digits.

    Raises:
        UnreachableError: if the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        raise UnreachableError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


class Content(NamedTuple):
    """What identifies the content of a file: its length in bytes, and its SHA-256 as 64 hexadecimal digits."""

    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Content | None:
        """The content of a regular file, or None if the file does not exist or cannot be read."""
        try:
            return cls(path.stat().st_size, sha256(path)) if path.is_file() else None
        except (OSError, ValueError, UnreachableError):
            return None


def check_sha256(path: str | Path, expected: str) -> None:
    """Compare a file's SHA-256 with the expected one.

    Raises:
        ChecksumError: if they differ; the message has the file and both hashes.
        UnreachableError: if the file cannot be read.
    """
    found = sha256(path)
    if found != expected.lower():
        raise ChecksumError(f"{path}: expected SHA-256 {expected.lower()}, found {found}")


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` to write to; it replaces ``path`` only if the block succeeds.

    The content is on disk before the rename, so that a crash leaves either the old file or the new one, never a part.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: str | Path, what: str) -> None:
    """Check, before long work, that a file can be written; nothing is created.

    Args:
        path: the file, which may exist; missing folders above it will be created.
        what: what names the path, for the error.

    Raises:
        UsageError: if the path is a folder, a part of it is a file, or its folder cannot be written to.

    Example:
        >>> check_writable("/dev/null/figure.png", "--out")
        Traceback (most recent call last):
        flowclf.errors.UsageError: --out /dev/null/figure.png cannot be written: /dev/null is not a folder
    """
    path = Path(path)
    if path.is_dir():
        raise UsageError(f"{what} {path} cannot be written: expected a file, found a folder")
    check_folder_writable(path.parent, f"{what} {path}")


def check_folder_writable(folder: str | Path, what: str) -> None:
    """Check that files can be written to a folder, which may not exist yet; errors are those of :func:`check_writable`."""
    folder = Path(folder).absolute()
    try:
        existing = next(part for part in (folder, *folder.parents) if part.exists())
        if not existing.is_dir():
            raise UsageError(f"{what} cannot be written: {existing} is not a folder")
        # Permissions alone do not tell: the file system may be read-only or full.
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"0")
    except OSError as error:
        raise UsageError(f"{what} cannot be written: {error.strerror or error}") from error


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write bytes atomically."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | Path, content: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, content.encode())


def write_json(path: str | Path, content: Any) -> None:
    """Write a JSON document atomically; NaN and infinity raise ValueError, because JSON has neither."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def cache_folder() -> Path:
    """Folder for downloads, which may not exist yet: ``$FLOWCLF_CACHE`` or the platform's cache folder."""
    import platformdirs

    return Path(os.environ.get("FLOWCLF_CACHE") or platformdirs.user_cache_dir("flowclf"))


def resource(*parts: str) -> Path:
    """Path of a bundled file or folder: in the installed package, or beside the package in a checkout.

    Example:
        >>> resource("recipes", "mnist.yaml").name
        'mnist.yaml'

    Raises:
        UnreachableError: if it is in neither place.
    """
    package = Path(__file__).parent
    for base in (package, package.parent):
        candidate = base.joinpath(*parts)
        if candidate.exists():
            return candidate
    raise UnreachableError(f"{'/'.join(parts)} is missing from the installation at {package}")
