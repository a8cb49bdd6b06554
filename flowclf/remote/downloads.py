"""A file of known length and hash from the first of several sources that has it; at its final path only when it is right."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from flowclf.errors import ChecksumError, UnreachableError
from flowclf.files import atomic_write, sha256
from flowclf.remote.settings import Settings
from flowclf.remote.transport import Content, TransferError, pieces

_FIRST_PAUSE = 0.3
_LOCK_SECONDS = 3600.0

T = TypeVar("T")


def is_right(path: Path, expected: Content) -> bool:
    """Whether a file is there and has the expected length and hash."""
    try:
        # The length first: a file of another length need not be hashed.
        return path.is_file() and path.stat().st_size == expected.size and sha256(path) == expected.sha256
    except (OSError, UnreachableError):
        return False


def ensure_file(path: Path, expected: Content, sources: Sequence[str | Path], settings: Settings, what: str) -> None:
    """Leave a file that is right as it is; else download it. Of several processes that need it, one does.

    Args:
        path: where it is wanted.
        expected: length and hash.
        sources: URLs and files, tried in turn; offline only the files.
        settings: of the call.
        what: what messages call it.

    Raises:
        ChecksumError: if no source has the right bytes, and one, or offline ``path``, has others.
        UnreachableError: if no source has any, or the file cannot be written.
    """
    if is_right(path, expected):
        return
    if settings.offline and not (sources := [source for source in sources if isinstance(source, Path)]):
        try:
            found = Content(path.stat().st_size, sha256(path))
        except (OSError, UnreachableError):
            raise _problem(what, expected, None, f"offline, and there is no file {path}") from None
        raise _problem(what, expected, found, f"offline, and {path} has changed")
    with locked(path, settings):
        # Another process may have been here while this one waited.
        if is_right(path, expected):
            return
        # With the lock in hand, what is half written was left by a process that was killed.
        for stale in path.parent.glob(f".{path.name}.*.part"):
            stale.unlink(missing_ok=True)
        download_file(path, expected, sources, settings, what)


def download_file(target: Path, expected: Content, sources: Sequence[str | Path], settings: Settings, what: str) -> None:
    """Put a file at ``target``, atomically, from the first source that has the right bytes.

    A source that cannot be reached, or breaks off, is tried three times, with pauses; one whose bytes are wrong, once.
    Arguments and errors are those of :func:`ensure_file`.
    """
    try:
        _first(sources, lambda source: _receive(target, expected, source, settings, what))
    except TransferError as error:
        raise _problem(what, expected, error.found, str(error)) from error
    except OSError as error:
        raise _problem(what, expected, None, f"cannot be written to {target}: {error.strerror or error}") from error


def download_text(sources: Sequence[str | Path], limit: int, settings: Settings, what: str) -> tuple[str | Path, bytes]:
    """A document of at most ``limit`` bytes, from the first source that has it; and which source that was.

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
    """What the first source gives for which the attempt succeeds; the error has what went wrong with each."""
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
    # What leaves the block by an exception is not moved into place.
    with _task(settings, what, expected.size) as advance, atomic_write(target) as temporary:
        try:
            with temporary.open("wb") as stream:
                for piece in pieces(source, expected.size, settings.timeout):
                    stream.write(piece)
                    digest.update(piece)
                    size += len(piece)
                    advance(len(piece))
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
def _task(settings: Settings, what: str, size: int) -> Iterator[Callable[[int], object]]:
    if settings.progress is None:
        yield lambda count: None
        return
    with settings.progress.task(what, size) as task:
        yield task.advance


@contextlib.contextmanager
def locked(path: Path, settings: Settings) -> Iterator[None]:
    """Hold a lock in the cache for a path, so that of two processes one works and the other waits; one that dies lets go.

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
