"""Bytes from a URL or a local file, at most as many as were announced, from nowhere but where they may come from."""

from __future__ import annotations

import errno
import hashlib
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import urljoin, urlsplit

import flowclf
from flowclf.zoo.names import is_loopback, url_problem

__all__ = ["CannotWriteError", "Received", "TransferError", "receive"]

_CHUNK = 2**16
_MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_WORTH_ANOTHER_TRY = (408, 425, 429, 500, 502, 503, 504)
# Below this many bytes a second, on average after the first `timeout` seconds, a server counts as one that does not answer.
_SLOWEST = 1000


class TransferError(Exception):
    """A source gave nothing, or broke off.

    Args:
        reason: for a person.
        again: whether it may work when tried again.
        received: what had come by then.
    """

    def __init__(self, reason: str, *, again: bool = False, received: Received | None = None) -> None:
        super().__init__(reason)
        self.again = again
        self.received = received


class CannotWriteError(Exception):
    """What was received could not be written; no other source will help."""


@dataclass(frozen=True)
class Received:
    """What came.

    Attributes:
        size: bytes; one more than the limit where there would have been more.
        sha256: of these bytes.
    """

    size: int
    sha256: str


class _Readable(Protocol):
    def read1(self, size: int, /) -> bytes: ...


def receive(
    source: str | Path, file: BinaryIO, limit: int, *, timeout: float, advance: Callable[[int], object] | None = None
) -> Received:
    """Copy a source to an open file, but no more than ``limit`` bytes and one: enough to tell that it is too long.

    Args:
        source: a URL that :func:`flowclf.zoo.names.url_problem` allows, as must be all that it redirects to; or a file.
        file: open for writing.
        limit: bytes that are expected at most.
        timeout: seconds that the source may be silent; nor may it be slower than 1000 bytes a second on average.
        advance: called with the number of bytes after each piece.

    Raises:
        TransferError: the source cannot be reached, answers with an error, redirects to where it must not, or breaks off.
        CannotWriteError: the file cannot be written.
    """
    digest, size, started = hashlib.sha256(), 0, time.monotonic()

    def so_far() -> Received:
        return Received(size, digest.hexdigest())

    try:
        with _open(source, timeout) as stream:
            while size <= limit:
                piece = stream.read1(min(_CHUNK, limit + 1 - size))
                if not piece:
                    break
                size += len(piece)
                digest.update(piece)
                _write(file, piece)
                if advance is not None:
                    advance(len(piece))
                seconds = time.monotonic() - started
                if seconds > timeout + size / _SLOWEST:
                    raise TransferError(f"too slow: {size} bytes in {seconds:.0f} seconds", received=so_far())
    except (OSError, http.client.HTTPException) as error:
        raise TransferError(f"broke off after {size} bytes: {_words(error)}", again=True, received=so_far()) from error
    return so_far()


def _write(file: BinaryIO, piece: bytes) -> None:
    try:
        file.write(piece)
    except OSError as error:
        raise CannotWriteError(error.strerror or str(error)) from error


@contextmanager
def _open(source: str | Path, timeout: float) -> Iterator[_Readable]:
    if isinstance(source, Path):
        try:
            stream = source.open("rb")
        except (OSError, ValueError) as error:
            raise TransferError(_words(error)) from error
        with stream:
            yield stream
        return
    with _answer(source, timeout) as response:
        yield response


def _answer(url: str, timeout: float) -> http.client.HTTPResponse:
    """The answer to a GET, redirects followed by our own rule; urllib's would follow to any server and read what it need not."""
    came_from = None
    for _ in range(_MAX_REDIRECTS + 1):
        if problem := url_problem(url, came_from):
            raise TransferError(problem if came_from is None else f"redirected: {problem}")
        request = urllib.request.Request(
            url, headers={"User-Agent": f"flowclf/{flowclf.__version__}", "Accept-Encoding": "identity"}
        )
        try:
            response: http.client.HTTPResponse = _opener(url).open(request, timeout=timeout)
            return response
        except urllib.error.HTTPError as error:
            error.close()
            if error.code not in _REDIRECTS:
                raise TransferError(f"status {error.code}", again=error.code in _WORTH_ANOTHER_TRY) from None
            came_from, url = url, _target(url, error.headers.get("Location", ""))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise TransferError(_words(error), again=True) from error
    raise TransferError(f"more than {_MAX_REDIRECTS} redirections")


def _target(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise TransferError(f"redirected: expected a URL, found {location[:200]!r}: {error}") from error


def _opener(url: str) -> urllib.request.OpenerDirector:
    opener = urllib.request.OpenerDirector()
    # What is on this machine is never asked of a proxy.
    proxies: dict[str, str] | None = {} if is_loopback(urlsplit(url).hostname or "") else None
    for handler in (
        urllib.request.ProxyHandler(proxies),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _words(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    if isinstance(reason, Exception):
        error = reason
    if isinstance(error, TimeoutError) or getattr(error, "errno", None) == errno.ETIMEDOUT:
        return "no answer in time"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    # It may hold what a server said.
    return (text if text.isprintable() else repr(text))[:200]
