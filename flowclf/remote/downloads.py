"""Downloads of files of known length and hash; a file is moved to its path only when its content is right."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from flowclf.errors import ChecksumError, UnreachableError
from flowclf.files import Content, atomic_write
from flowclf.progress import shown_progress
from flowclf.remote.settings import Settings
from flowclf.remote.transport import TransferError, pieces

_FIRST_PAUSE = 0.3
_LOCK_SECONDS = 3600.0

T = TypeVar("T")


def ensure_file(path: Path, expected: Content, sources: Sequence[str | Path], settings: Settings, what: str) -> None:
    """Download a file unless it is there and right. Of several processes that need it, one downloads.

    Args:
        path: path of the file.
        expected: its length and hash.
        sources: URLs and files, tried in turn; offline only the files.
        settings: settings of the call.
        what: name of the file in messages.

    Raises:
        ChecksumError: if no source has the right bytes, and one of them, or ``path`` if offline, has others.
        UnreachableError: if no source has any bytes, or the file cannot be written.
    """
    if (found := Content.of(path)) == expected:
        return
    if settings.offline and not (sources := [source for source in sources if isinstance(source, Path)]):
        why = f"there is no file {path}" if found is None else f"{path} has changed"
        raise _problem(what, expected, found, f"offline, and {why}")
    with locked(path, settings):
        # Another process may have downloaded it meanwhile.
        if Content.of(path) == expected:
            return
        # No other process holds the lock, so a process that was killed left these.
        for stale in path.parent.glob(f".{path.name}.*.part"):
            stale.unlink(missing_ok=True)
        download_file(path, expected, sources, settings, what)


def download_file(target: Path, expected: Content, sources: Sequence[str | Path], settings: Settings, what: str) -> None:
    """Write a file atomically from the first source with the right bytes; arguments and errors are those of :func:`ensure_file`.

    A source that cannot be reached, or breaks off, is tried three times, with pauses; one with wrong bytes, once.
    """
    try:
        _first(sources, lambda source: _receive(target, expected, source, settings, what))
    except TransferError as error:
        raise _problem(what, expected, error.found, str(error)) from error
    except OSError as error:
        raise _problem(what, expected, None, f"cannot be written to {target}: {error.strerror or error}") from error


def download_text(sources: Sequence[str | Path], limit: int, settings: Settings, what: str) -> tuple[str | Path, bytes]:
    """The first source that has a document of at most ``limit`` bytes, and the document.

    Raises:
        UnreachableError: if no source has it.
    """

    def attempt(source: str | Path) -> tuple[str | Path, bytes]:
        text = b"".join(pieces(source, limit, settings.timeout))
        if len(text) > limit:
            raise TransferError(f"more than the {limit} bytes that it may have")
        return source, text

    try:
        return _first(sources, attempt)
    except TransferError as error:
        raise UnreachableError(f"{what} cannot be read: {error}") from error


def _first(sources: Sequence[str | Path], attempt: Callable[[str | Path], T]) -> T:
    """The result for the first source for which the attempt succeeds."""
    failures, found = [], None
    for source in sources:
        for pause in (_FIRST_PAUSE, 2 * _FIRST_PAUSE, None):
            try:
                return attempt(source)
            except TransferError as error:
                found = error.found or found
                if not error.again or pause is None:
                    failures.append(f"{source}: {error}")
                    break
                time.sleep(pause)
    raise TransferError(", ".join(failures) or "there is no source for it", found=found)


def _receive(target: Path, expected: Content, source: str | Path, settings: Settings, what: str) -> None:
    digest, size = hashlib.sha256(), 0
    given = contextlib.nullcontext(settings.progress) if settings.progress else shown_progress()
    with given as progress, progress.task(what, expected.size) as task, atomic_write(target) as temporary:
        try:
            with temporary.open("wb") as stream:
                for piece in pieces(source, expected.size, settings.timeout):
                    stream.write(piece)
                    digest.update(piece)
                    size += len(piece)
                    task.advance(len(piece))
            if size < expected.size:
                raise TransferError(f"ended after {size} bytes", again=isinstance(source, str))
            if Content(size, digest.hexdigest()) != expected:
                raise TransferError("other bytes")
        except TransferError as error:
            error.found = Content(size, digest.hexdigest()) if size else None
            raise


def _problem(what: str, expected: Content, found: Content | None, why: str) -> ChecksumError | UnreachableError:
    message = f"{what}: {why}; expected SHA-256 {expected.sha256} of {expected.size} bytes, found"
    if found is None:
        return UnreachableError(f"{message} none")
    # A transfer ends with the first byte too many.
    more = "at least " if found.size == expected.size + 1 else ""
    return ChecksumError(f"{message} {found.sha256} of {more}{found.size} bytes")


@contextlib.contextmanager
def locked(path: Path, settings: Settings) -> Iterator[None]:
    """Context that holds a lock for a path; the lock is a file in the cache, and is released if its process dies.

    Raises:
        UnreachableError: if the lock cannot be made, or another process has held it for an hour.
    """
    file = settings.cache / "locks" / f"{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]}.lock"
    lock = FileLock(file, timeout=_LOCK_SECONDS)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise UnreachableError(f"another process holds {file}, the lock of {path}") from error
    except OSError as error:
        raise UnreachableError(f"{file} cannot be made: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()
