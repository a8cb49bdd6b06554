"""Bytes from a URL or a local file: no more than are expected, and only from where they may come."""

from __future__ import annotations

import errno
import http.client
import io
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import flowclf
from flowclf.remote.addresses import is_loopback, url_problem

_CHUNK = 2**16
_MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_WORTH_ANOTHER_TRY = (408, 425, 429, 500, 502, 503, 504)
# A server that sends fewer bytes per second, on average after the first `timeout` seconds, counts as one that does not answer.
_SLOWEST = 1000


@dataclass(frozen=True)
class Content:
    """What a file holds, as far as a download can tell.

    Attributes:
        size: in bytes.
        sha256: 64 hexadecimal digits.
    """

    size: int
    sha256: str


class TransferError(Exception):
    """A source gave nothing, broke off, or gave other bytes than expected.

    Args:
        reason: for a message.
        again: whether another try may succeed.
        found: what had come by then, if anything.
    """

    def __init__(self, reason: str, *, again: bool = False, found: Content | None = None) -> None:
        super().__init__(reason)
        self.again = again
        self.found = found


def pieces(source: str | Path, limit: int, timeout: float) -> Iterator[bytes]:
    """The bytes of a source, but no more than ``limit`` and one: enough to tell that it is too long.

    Args:
        source: a file, or a URL that :func:`flowclf.remote.addresses.url_problem` allows, as it must every URL that this one
            redirects to.
        limit: largest number of bytes that is expected.
        timeout: seconds that the source may be silent; nor may it be slower than 1000 bytes per second on average.

    Raises:
        TransferError: if the source cannot be reached, answers with an error, redirects to where it must not, or breaks off.
    """
    size, started = 0, time.monotonic()
    with _open(source, timeout) as stream:
        while size <= limit:
            try:
                piece = stream.read1(min(_CHUNK, limit + 1 - size))
            except (OSError, http.client.HTTPException) as error:
                raise TransferError(f"broke off after {size} bytes: {_words(error)}", again=True) from error
            if not piece:
                return
            size += len(piece)
            yield piece
            seconds = time.monotonic() - started
            if seconds > timeout + size / _SLOWEST:
                raise TransferError(f"too slow: {size} bytes in {seconds:.0f} seconds")


def _open(source: str | Path, timeout: float) -> io.BufferedIOBase:
    if isinstance(source, str):
        return _answer(source, timeout)
    try:
        return source.open("rb")
    except (OSError, ValueError) as error:
        raise TransferError(_words(error)) from error


class _AnyStatus(urllib.request.HTTPErrorProcessor):
    """Hands on every answer; urllib's own would follow a redirection to any server and read what it need not."""

    def http_response(self, request: urllib.request.Request, response: Any) -> Any:
        return response

    https_response = http_response


def _answer(url: str, timeout: float) -> http.client.HTTPResponse:
    """The answer to a GET, after redirections that :func:`url_problem` allows."""
    came_from = None
    for _ in range(_MAX_REDIRECTS + 1):
        if problem := url_problem(url, came_from):
            raise TransferError(problem if came_from is None else f"redirected: {problem}")
        # What is on this machine is never asked of a proxy.
        proxies: dict[str, str] | None = {} if is_loopback(urlsplit(url).hostname or "") else None
        opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies), _AnyStatus)
        opener.addheaders = [("User-Agent", f"flowclf/{flowclf.__version__}"), ("Accept-Encoding", "identity")]
        try:
            response: http.client.HTTPResponse = opener.open(url, timeout=timeout)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise TransferError(_words(error), again=True) from error
        if response.status == http.HTTPStatus.OK:
            return response
        with response:
            if response.status not in _REDIRECTS:
                raise TransferError(f"status {response.status}", again=response.status in _WORTH_ANOTHER_TRY)
        location = response.headers.get("Location", "")
        try:
            came_from, url = url, urljoin(url, location)
        except ValueError as error:
            raise TransferError(f"redirected: expected a URL, found {location[:200]!r}: {error}") from error
    raise TransferError(f"more than {_MAX_REDIRECTS} redirections")


def _words(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    if isinstance(reason, Exception):
        error = reason
    if isinstance(error, TimeoutError) or getattr(error, "errno", None) == errno.ETIMEDOUT:
        return "no answer in time"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    # It may hold what a server said.
    return (text if text.isprintable() else repr(text))[:200]
