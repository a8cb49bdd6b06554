"""A tiny zoo, a finished run to make one of, and a server on loopback that misbehaves as it is told. Not tests themselves."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tiny
import torch

import flowclf
from flowclf import checkpoint
from flowclf.zoo.schema import ZooFile

NAME = "tiny"
FILES = ("model.json", "model.safetensors", "README.md")


def zoo_file(path: Path, relative: str) -> dict[str, Any]:
    content = path.read_bytes()
    return {"path": relative, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def write_zoo(folder: Path, name: str = NAME, **changes: Any) -> dict[str, Any]:
    """A zoo with one untrained model, and its index as a document."""
    torch.manual_seed(0)
    clf = tiny.image_classifier()
    flowclf.save(clf, folder / name)
    (folder / name / "README.md").write_text("# A card\n")
    entry = {
        "name": name,
        "version": 1,
        "kind": "invertible",
        "architecture": "nodes",
        "parameters": clf.parameter_count(),
        "classes": clf.classes,
        "recipe": {"name": "none", "sha256": "0" * 64, "shipped": False},
        "seed": 0,
        "files": {file: zoo_file(folder / name / file, f"{name}/{file}") for file in FILES},
        "data": {"name": "mnist", "examples": 10_000},
        "preprocessing": clf.preprocessing.config(),
        "licence": "MIT",
        "citation": "nobody",
        "reported": {},
        "measured": {"test.error": {"value": 0.5, "tolerance": 0.0}},
        "training": {"command": "none", "machine": "none", "seconds": 0.0, "torch": torch.__version__},
        "flowclf": flowclf.__version__,
    } | changes
    document = {"format": "flowclf-zoo", "version": 1, "models": [entry]}
    (folder / "index.json").write_text(json.dumps(document))
    return document


def files_of(document: dict[str, Any]) -> dict[str, ZooFile]:
    return {name: ZooFile(**file) for name, file in document["models"][0]["files"].items()}


RECIPE = """\
name: little
description: A little recipe.
seed: 3
data: {{name: arrays, path: "{path}", batch_size: 8, bits: 4, validation: 4}}
model: [squeeze, actnorm, {{affine_coupling: {{subnet: {{conv: {{width: 4}}}}}}}}, split_head]
loss: {{name: cross_entropy}}
train: {{epochs: 2}}
evaluate: {{probe: {{hidden: [8]}}}}
"""


def write_run(folder: Path, overrides: tuple[str, ...] = ()) -> Path:
    """What a finished run leaves, but for the training: made data, an untrained model, and what it measures."""
    import flowclf.recipe
    from flowclf.recipe.building import build_data, build_model
    from flowclf.run import RunFolder
    from flowclf.zoo.measuring import measure

    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    labels = np.arange(60) % 3
    images = random.integers(0, 256, (60, 8, 8), dtype=np.uint8)
    data = folder / "data.npz"
    np.savez(data, train_images=images[:40], train_labels=labels[:40], test_images=images[40:], test_labels=labels[40:])
    text = RECIPE.format(path=data)
    loaded = flowclf.recipe.loads(text, overrides)
    run = RunFolder(folder)
    run.recipe.write_text(text)
    run.resolved.write_text(flowclf.recipe.dump(loaded.recipe))
    run.write_environment(torch.device("cpu"))
    dataset = build_data(loaded.recipe)
    clf = tiny.randomize(build_model(loaded.recipe, dataset), 0.1).eval()
    checkpoint.save(clf, run.model, metadata={"recipe": "little"})
    found = measure(clf, dataset, loaded.recipe.seed)
    results = {"recipe": "little", "seed": 3, **found, "test.chance_error": 0.65, "seconds.train": 90.0, "probe.name": "mlp"}
    run.results.write_text(json.dumps(results))
    run.figures.mkdir()
    (run.figures / "metamers.png").write_bytes(b"\x89PNG\r\n\x1a\nmetamers")
    (run.figures / "planes.png").write_bytes(b"\x89PNG\r\n\x1a\nplanes")
    return folder


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


@dataclasses.dataclass(frozen=True)
class Case:
    """A server's behaviour for one file, and whether a mirror is good."""

    file: str
    behaviour: Behaviour
    mirror: bool = False
