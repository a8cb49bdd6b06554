"""Servers on loopback that misbehave as they are told, and addresses that must be refused. Not tests themselves."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

BAD_URLS = [
    "http://example.org/",
    "http://10.0.0.1/",
    "http://127.0.0.1.example.org/",
    "http://localhost.example.org/",
    "http://0.0.0.0/",
    "http://2130706433/",
    "ftp://127.0.0.1/",
    "file:///etc/passwd",
    "data:,x",
    "javascript:x",
    "https://",
    "https:///path",
    "https://user@example.org/",
    "https://user:word@example.org/",
    "http://127.0.0.1@example.org/",
    "http://127.0.0.1\\@example.org/",
    "https://example.org/a b",
    "https://example.org/\n",
    "https://example.org:99999/",
    "https://exämple.org/",
    "http://[::1",
    "https://example.org/" + "x" * 2000,
    "example.org",
    "",
]

Behaviour = Callable[["Handler", bytes], None]


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers from a folder, unless the server has another behaviour for the path."""

    server: Server

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.requests.append(self.path)
        file = self.server.folder / self.path.lstrip("/")
        content = file.read_bytes() if file.is_file() else None
        behaviour = self.server.behaviours.get(self.path)
        with contextlib.suppress(ConnectionError):
            if behaviour is not None:
                behaviour(self, content or b"")
            elif content is None:
                status(404)(self, b"")
            else:
                body(lambda content: content)(self, content)

    def log_message(self, *arguments: Any) -> None:
        """Nothing."""


class Server(http.server.ThreadingHTTPServer):
    """A server on loopback.

    Attributes:
        folder: what it serves.
        behaviours: by path, what it does instead.
        requests: the paths it was asked for.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.behaviours, self.requests = folder, dict[str, Behaviour](), list[str]()
        self.lock, self.released = threading.Lock(), threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error of a test."""


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Server]:
    server = Server(folder)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


def body(change: Callable[[bytes], bytes], length: int | None = None) -> Behaviour:
    """Serve changed bytes; with ``length``, announce another length."""

    def behave(handler: Handler, content: bytes) -> None:
        content = change(content)
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content) if length is None else length))
        handler.end_headers()
        handler.wfile.write(content)

    return behave


def without_length(change: Callable[[bytes], bytes]) -> Behaviour:
    """Serve changed bytes and announce no length."""

    def behave(handler: Handler, content: bytes) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(change(content))

    return behave


def status(code: int) -> Behaviour:
    def behave(handler: Handler, content: bytes) -> None:
        handler.send_response(code)
        handler.send_header("Content-Length", "4")
        handler.end_headers()
        handler.wfile.write(b"oops")

    return behave


def redirect(location: str, code: int = 302) -> Behaviour:
    def behave(handler: Handler, content: bytes) -> None:
        handler.send_response(code)
        handler.send_header("Location", location)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return behave


def slowly(pieces: int, pause: float) -> Behaviour:
    """Serve the right bytes in so many pieces with a pause before each."""

    def behave(handler: Handler, content: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        size = -(-len(content) // pieces)
        for start in range(0, len(content), size):
            if handler.server.released.wait(pause):
                return
            handler.wfile.write(content[start : start + size])
            handler.wfile.flush()

    return behave


def silent(handler: Handler, content: bytes) -> None:
    """Never answer."""
    handler.server.released.wait(30)


def flipped(bit: int) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        broken = bytearray(content)
        broken[bit // 8 % len(broken)] ^= 1 << bit % 8
        return bytes(broken)

    return change
