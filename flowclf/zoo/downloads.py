"""A file of known length and hash from the first of several sources that has it; at its final path only when it is right."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from flowclf.errors import ChecksumError, UnreachableError
from flowclf.files import atomic_write, sha256
from flowclf.zoo.schema import ZooFile
from flowclf.zoo.settings import Settings
from flowclf.zoo.transport import CannotWriteError, Received, TransferError, receive

__all__ = ["download_file", "download_text", "file_problem", "found_at", "is_right", "locked"]

_TRIES = 3
_FIRST_PAUSE = 0.3
_LOCK_SECONDS = 3600.0


def is_right(path: Path, file: ZooFile) -> bool:
    """Whether a file is there and has the expected length and hash."""
    try:
        # The length first: nobody hashes a file that has the wrong one.
        return path.is_file() and path.stat().st_size == file.bytes and sha256(path) == file.sha256
    except (OSError, UnreachableError):
        return False


def found_at(path: Path) -> Received | None:
    """What is at a path; None for nothing that can be read."""
    try:
        return Received(path.stat().st_size, sha256(path))
    except (OSError, UnreachableError):
        return None


def file_problem(what: str, file: ZooFile, found: Received | None, why: str = "") -> ChecksumError | UnreachableError:
    """The error for a file that is not the expected one, with both hashes, or for one that could not be had at all."""
    reason = f": {why}" if why else ""
    expected = f"expected SHA-256 {file.sha256} of {file.bytes} bytes"
    if found is None:
        return UnreachableError(f"{what}{reason}; {expected}, found none")
    # A transfer ends with the first byte too many.
    more = "at least " if found.size == file.bytes + 1 else ""
    return ChecksumError(f"{what}{reason}; {expected}, found {found.sha256} of {more}{found.size} bytes")


def download_file(target: Path, file: ZooFile, sources: Sequence[str | Path], settings: Settings, what: str) -> None:
    """Put a file at ``target``, atomically, from the first source that has the right bytes.

    A source that cannot be reached, or breaks off, is tried three times, with pauses; one whose bytes are wrong, once.

    Args:
        target: where to; its folder is made if need be.
        file: length and hash.
        sources: URLs and local files, tried in turn.
        settings: of the call.
        what: what messages call it.

    Raises:
        ChecksumError: no source has the right bytes, and one has others; has the file and both hashes.
        UnreachableError: no source has any, or the file cannot be written.
    """
    failures: list[str] = []
    wrong: Received | None = None
    for source in sources:
        for attempt in range(_TRIES):
            _pause(attempt)
            try:
                return _attempt(target, file, source, settings, what)
            except (CannotWriteError, OSError) as error:
                reason = getattr(error, "strerror", None) or error
                raise file_problem(what, file, None, f"cannot be written to {target}: {reason}") from error
            except TransferError as error:
                wrong = error.received or wrong
                if not error.again or attempt + 1 == _TRIES:
                    failures.append(f"{source}: {error}")
                    break
    raise file_problem(what, file, wrong, ", ".join(failures) or "there is no source for it")


def _attempt(target: Path, file: ZooFile, source: str | Path, settings: Settings, what: str) -> None:
    # What leaves the block by an exception is not moved into place.
    with _task(settings, what, file.bytes) as advance, atomic_write(target) as temporary:
        with temporary.open("wb") as stream:
            found = receive(source, stream, file.bytes, timeout=settings.timeout, advance=advance)
        if found.size < file.bytes:
            raise TransferError(f"ended after {found.size} bytes", again=isinstance(source, str), received=found)
        if (found.size, found.sha256) != (file.bytes, file.sha256):
            raise TransferError("other bytes", received=found)


def _pause(attempt: int) -> None:
    if attempt:
        time.sleep(_FIRST_PAUSE * 2 ** (attempt - 1))


@contextlib.contextmanager
def _task(settings: Settings, what: str, size: int) -> Iterator[Callable[[int], object] | None]:
    if settings.progress is None:
        yield None
        return
    with settings.progress.task(what, size) as task:
        yield task.advance


def download_text(sources: Sequence[str | Path], limit: int, settings: Settings, what: str) -> tuple[str | Path, bytes]:
    """A document of at most ``limit`` bytes, from the first source that has it; and which source that was.

    Raises:
        UnreachableError: no source has it.
    """
    failures: list[str] = []
    for source in sources:
        for attempt in range(_TRIES):
            _pause(attempt)
            with io.BytesIO() as stream:
                try:
                    found = receive(source, stream, limit, timeout=settings.timeout)
                except TransferError as error:
                    if error.again and attempt + 1 < _TRIES:
                        continue
                    failures.append(f"{source}: {error}")
                    break
                if found.size > limit:
                    failures.append(f"{source}: more than the {limit} bytes that it may have")
                    break
                return source, stream.getvalue()
    raise UnreachableError(f"{what} cannot be read: {', '.join(failures)}")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file, so that of two processes one works and the other waits; a process that dies lets go.

    Raises:
        UnreachableError: the lock file cannot be made, or another process has held it for an hour.
    """
    lock = FileLock(path, timeout=_LOCK_SECONDS)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise UnreachableError(f"another process holds {path}") from error
    except OSError as error:
        raise UnreachableError(f"{path} cannot be made: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()
