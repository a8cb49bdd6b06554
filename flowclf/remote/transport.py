"""Bytes from an allowed URL or a local file, no more than expected."""

from __future__ import annotations

import errno
import http.client
import io
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import flowclf
from flowclf.files import Content
from flowclf.remote.addresses import is_loopback, url_problem

_CHUNK = 2**16
_MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_WORTH_ANOTHER_TRY = (408, 425, 429, 500, 502, 503, 504)
# A server that sends fewer bytes per second, on average after the first `timeout` seconds, counts as one that does not answer.
_SLOWEST = 1000


class TransferError(Exception):
    """A source gave nothing, broke off, or gave other bytes than expected: those ``found``, if any.

    ``again`` is whether another try may succeed.
    """

    def __init__(self, reason: str, *, again: bool = False, found: Content | None = None) -> None:
        super().__init__(reason)
        self.again = again
        self.found = found


def pieces(source: str | Path, limit: int, timeout: float) -> Iterator[bytes]:
    """Yield the bytes of a source, at most ``limit`` + 1, which suffices to show that it is too long.

    Args:
        source: a file, or a URL; :func:`flowclf.remote.addresses.url_problem` must allow it and every URL that it redirects to.
        limit: largest number of bytes that is expected.
        timeout: seconds that the source may be silent; it must also give at least 1000 bytes per second on average.

    Raises:
        TransferError: if the source cannot be reached, answers with an error, redirects to a forbidden URL, or breaks off.
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
    """Returns every answer; urllib's own handler would follow a redirection to any server."""

    def http_response(self, request: urllib.request.Request, response: Any) -> Any:
        return response

    https_response = http_response


def _answer(url: str, timeout: float) -> http.client.HTTPResponse:
    came_from = None
    for _ in range(_MAX_REDIRECTS + 1):
        if problem := url_problem(url, came_from):
            raise TransferError(problem if came_from is None else f"redirected: {problem}")
        # A proxy is never used for this machine.
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
    # The text may come from a server.
    return (text if text.isprintable() else repr(text))[:200]
