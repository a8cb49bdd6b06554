"""Downloads from a server that does everything wrong: the right bytes, or exit code 3 with the file and both hashes.

In no case is there a file at its final path that is wrong.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from servers import Behaviour, Server, body, flipped, redirect, serving, silent, slowly, status, without_length
from zoo_cases import FILES, NAME, files_of

from flowclf import zoo
from flowclf.cli.main import main
from flowclf.errors import ChecksumError

CACHE = "cache"


@dataclasses.dataclass(frozen=True)
class Case:
    """What a server does when it is asked for one file."""

    file: str
    behaviour: Behaviour


def cached(tmp_path: Path) -> dict[str, Path]:
    """Files at their final paths in the cache, by name."""
    return {path.name: path for path in (tmp_path / CACHE).glob("zoo/models/*/*") if not path.name.startswith(".")}


def check_cache(tmp_path: Path, document: Any) -> None:
    """Nothing wrong at a final path, and nothing half written."""
    files = files_of(document)
    for name, path in cached(tmp_path).items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == files[name].sha256
    assert not list(tmp_path.rglob("*.part"))


def download(server: Server, *more: str) -> int:
    return main(["zoo", "download", NAME, "--index", server.url, *more])


def cases() -> dict[str, Case]:
    rng = random.Random(0)
    found: dict[str, Case] = {}
    for count in range(100):
        found[f"bit {count} of the weights"] = Case("model.safetensors", body(flipped(rng.getrandbits(20))))
    for count in range(15):
        found[f"bit {count} of the description"] = Case("model.json", body(flipped(rng.getrandbits(20))))
        found[f"bit {count} of the card"] = Case("README.md", body(flipped(rng.getrandbits(20))))
    for count in range(20):
        part = rng.random()
        file = FILES[count % 2]
        found[f"truncated {count}"] = Case(file, body(lambda content, part=part: content[: int(part * len(content))]))
        extra = rng.randbytes(1 + 7**count % 50_000)
        found[f"appended {count}"] = Case(file, body(lambda content, extra=extra: content + extra))
    for length in (0, 1, 100, 10**6, 10**12, -1):
        found[f"length {length}"] = Case("model.safetensors", body(lambda content: content, length))
    for count, change in enumerate((lambda c: c[:-1], lambda c: c + b"x", lambda c: b"", lambda c: c * 2)):
        found[f"no length {count}"] = Case("model.safetensors", without_length(change))
    for code in (204, 400, 401, 403, 404, 410, 416, 429, 500, 502, 503, 504):
        found[f"status {code}"] = Case("model.safetensors", status(code))
    for count, location in enumerate(
        [
            "file:///etc/hostname",
            "ftp://127.0.0.1/tiny/model.safetensors",
            "data:text/plain,hello",
            "http://example.org/model.safetensors",
            "http://169.254.0.1/model.safetensors",
            "//example.org/model.safetensors",
            "http://user:word@127.0.0.1/model.safetensors",
            "http://[::1",
            "http:///model.safetensors",
            "gopher://127.0.0.1/",
            "",
            "/tiny/model.safetensors",
            "/" + "x" * 3000,
        ]
    ):
        found[f"redirect {count}"] = Case("model.safetensors", redirect(location, (301, 302, 303, 307, 308)[count % 5]))
    return found


CASES = cases()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_wrong_answers(case: Case, server: Server, document: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.behaviours[f"/{NAME}/{case.file}"] = case.behaviour
    code = download(server)
    error = capsys.readouterr().err
    # Some lengths that are announced wrongly do no harm: the client stops at the right byte.
    if code == 0:
        assert case in (CASES["length -1"], CASES["length 1000000"], CASES["length 1000000000000"])
    else:
        assert code == 3
        assert f"error: {NAME}/{case.file}" in error
        assert f"expected SHA-256 {files_of(document)[case.file].sha256}" in error
        assert "found " in error
        assert case.file not in cached(tmp_path)
    check_cache(tmp_path, document)


def test_the_found_hash_is_that_of_what_came(server: Server, document: Any, capsys: pytest.CaptureFixture[str]) -> None:
    content = (server.folder / NAME / "model.safetensors").read_bytes()
    server.behaviours[f"/{NAME}/model.safetensors"] = body(flipped(1000))
    assert download(server) == 3
    assert f"found {hashlib.sha256(flipped(1000)(content)).hexdigest()} of {len(content)} bytes" in capsys.readouterr().err
    server.behaviours[f"/{NAME}/model.safetensors"] = body(lambda content: content * 1000)
    assert download(server) == 3
    found = hashlib.sha256((content * 2)[: len(content) + 1]).hexdigest()
    assert f"found {found} of at least {len(content) + 1} bytes" in capsys.readouterr().err


GOOD_ENDINGS: dict[str, Behaviour] = {
    **{f"status {code}": status(code) for code in (403, 404, 500, 502, 503)},
    **{f"bit {bit}": body(flipped(bit)) for bit in (3, 3000, 30_000)},
    "truncated": body(lambda content: content[:100]),
    "broken off": body(lambda content: content[:100], 10**5),
    "appended": body(lambda content: content + b"\0"),
    "redirect": redirect("file:///etc/hostname"),
}


@pytest.mark.parametrize("behaviour", GOOD_ENDINGS.values(), ids=GOOD_ENDINGS)
def test_a_good_mirror_after_a_bad_server(behaviour: Behaviour, server: Server, document: Any, tmp_path: Path) -> None:
    with serving(server.folder) as mirror:
        for file in FILES:
            server.behaviours[f"/{NAME}/{file}"] = behaviour
        folder = zoo.download(NAME, index=server.url, mirrors=["http://127.0.0.1:1/", f"{mirror.url}nowhere", mirror.url])
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    check_cache(tmp_path, document)


@pytest.mark.parametrize("failures", [1, 2])
def test_what_fails_for_a_moment_is_tried_again(failures: int, server: Server, document: Any, tmp_path: Path) -> None:
    left = [failures]

    def behave(handler: Any, content: bytes) -> None:
        left[0] -= 1
        (status(503) if left[0] >= 0 else body(lambda content: content))(handler, content)

    server.behaviours[f"/{NAME}/model.safetensors"] = behave
    assert download(server) == 0
    assert server.requests.count(f"/{NAME}/model.safetensors") == failures + 1
    check_cache(tmp_path, document)


def test_wrong_bytes_are_not_asked_for_again(server: Server) -> None:
    server.behaviours[f"/{NAME}/model.safetensors"] = body(flipped(9))
    assert download(server) == 3
    assert server.requests.count(f"/{NAME}/model.safetensors") == 1


def test_a_redirection_on_this_machine_is_followed(server: Server, document: Any, tmp_path: Path) -> None:
    (server.folder / "elsewhere").write_bytes((server.folder / NAME / "model.safetensors").read_bytes())
    with serving(server.folder) as other:
        server.behaviours[f"/{NAME}/model.safetensors"] = redirect("/moved", 301)
        server.behaviours["/moved"] = redirect(f"{other.url}elsewhere", 307)
        assert download(server) == 0
        assert other.requests == ["/elsewhere"]
    check_cache(tmp_path, document)


SLOW = {"silent": silent, "one byte at a time": slowly(10**5, 0.02), "stops": slowly(2, 0.5), "tiny pieces": slowly(10**4, 0.03)}


@pytest.mark.parametrize("behaviour", SLOW.values(), ids=SLOW)
def test_a_server_that_is_too_slow_is_left(
    behaviour: Behaviour, server: Server, document: Any, tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLOWCLF_TIMEOUT", "0.15")
    server.behaviours[f"/{NAME}/model.safetensors"] = behaviour
    started = time.monotonic()
    assert download(server) == 3
    assert time.monotonic() - started < 5
    assert files_of(document)["model.safetensors"].sha256 in capsys.readouterr().err
    check_cache(tmp_path, document)
    with serving(server.folder) as mirror:
        monkeypatch.setenv("FLOWCLF_ZOO_MIRRORS", mirror.url)
        assert download(server) == 0
    check_cache(tmp_path, document)


def test_a_server_that_takes_its_time_is_waited_for(server: Server, document: Any, tmp_path: Path) -> None:
    server.behaviours[f"/{NAME}/model.safetensors"] = slowly(5, 0.05)
    assert download(server) == 0
    check_cache(tmp_path, document)


# Several processes, and what becomes of one that is killed.


def process(server: Server, tmp_path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "flowclf.cli.main", "zoo", "download", NAME, "--index", server.url]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_that_race_download_once(processes: int, server: Server, document: Any, tmp_path: Path) -> None:
    server.behaviours[f"/{NAME}/model.json"] = slowly(3, 0.3)
    running = [process(server, tmp_path) for _ in range(processes)]
    outputs = [one.communicate(timeout=60) for one in running]
    assert [one.returncode for one in running] == [0] * processes
    assert len({out for out, _ in outputs}) == 1
    for file in FILES:
        assert server.requests.count(f"/{NAME}/{file}") == 1
    assert sorted(cached(tmp_path)) == sorted(FILES)
    check_cache(tmp_path, document)


@pytest.mark.parametrize("pieces", [2, 4])
def test_a_download_that_is_killed_leaves_no_wrong_file(pieces: int, server: Server, document: Any, tmp_path: Path) -> None:
    server.behaviours[f"/{NAME}/model.safetensors"] = slowly(pieces, 0.4)
    victim = process(server, tmp_path)
    deadline = time.monotonic() + 30
    while not any(part.stat().st_size for part in tmp_path.rglob(".model.safetensors.*.part")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    assert "model.safetensors" not in cached(tmp_path)
    server.behaviours.clear()
    assert download(server) == 0
    assert sorted(cached(tmp_path)) == sorted(FILES)
    # What the dead process left is gone too.
    check_cache(tmp_path, document)


# The cache.


@pytest.mark.parametrize("seed", range(20))
def test_a_cached_file_that_changed_is_found(seed: int, server: Server, document: Any, tmp_path: Path, capsys: Any) -> None:
    rng = random.Random(seed)
    assert download(server) == 0
    folder = Path(capsys.readouterr().out.strip())
    file = folder / FILES[seed % 3]
    content = file.read_bytes()
    changes = [flipped(rng.getrandbits(20)), lambda c: c[:-1], lambda c: c + b"x", lambda c: b"", lambda c: rng.randbytes(len(c))]
    changed = changes[0 if seed < 15 else seed % 5](content)
    file.write_bytes(changed)
    server.requests.clear()
    # Offline nothing can be done about it, ...
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLOWCLF_OFFLINE", "1")
        assert download(server) == 3
    error = capsys.readouterr().err
    assert files_of(document)[file.name].sha256 in error
    assert f"found {hashlib.sha256(changed).hexdigest()}" in error
    assert str(file) in error
    assert server.requests == []
    # ... else the right file takes its place.
    assert download(server) == 0
    assert file.read_bytes() == content
    check_cache(tmp_path, document)


def test_hashes_are_checked_at_every_load(server: Server, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(server.folder, copy)
    for index, file in ((copy, copy / NAME / "model.safetensors"), (server.url, None)):
        zoo.load(NAME, index=index)
        changed = file or cached(tmp_path)["model.safetensors"]
        changed.write_bytes(flipped(2024)(changed.read_bytes()))
        with pytest.raises(ChecksumError, match=r"tiny/model\.safetensors: .*expected SHA-256 .* found"):
            zoo.load(NAME, index=index, offline=True)


def test_offline_what_was_downloaded_works_and_nothing_else(server: Server, tmp_path: Path, capsys: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLOWCLF_OFFLINE", "yes")
        assert download(server) == 3
        assert "offline, and it has not been read before" in capsys.readouterr().err
    zoo.load(NAME, index=server.url)
    server.requests.clear()
    zoo.load(NAME, index=server.url, offline=True)
    assert download(server, "--json") == 0
    capsys.readouterr()
    (next(iter(cached(tmp_path).values())).parent / "README.md").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLOWCLF_OFFLINE", "1")
        assert download(server) == 3
    error = capsys.readouterr().err
    assert "tiny/README.md: offline, and there is no file" in error
    assert "found none" in error


def test_without_a_network_what_was_downloaded_works(zoo_folder: Path) -> None:
    with serving(zoo_folder) as server:
        zoo.load(NAME, index=server.url)
    with pytest.warns(UserWarning, match="going on with the index that was read before"):
        assert zoo.load(NAME, index=server.url).classes == 4


def test_a_kept_index_that_changed_is_found(server: Server, tmp_path: Path, capsys: Any) -> None:
    zoo.list(index=server.url)
    (kept,) = (tmp_path / CACHE / "zoo" / "indexes").iterdir()
    text = kept.read_text()
    for broken in (text.replace("invertible", "invertibel"), text[:-30], "[]", "{}", ""):
        kept.write_text(broken)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FLOWCLF_OFFLINE", "1")
            assert main(["zoo", "list", "--index", server.url]) == 3
        assert str(kept) in capsys.readouterr().err


# Disks that are full.


class FullDisk:
    """Room for so many bytes of a model's files, whoever opens them."""

    def __init__(self, room: int) -> None:
        self.room = room

    def open(self, path: Path, mode: str = "r", *arguments: Any, **keywords: Any) -> Any:
        file = open(path, mode, *arguments, **keywords)  # noqa: SIM115
        if "w" in mode and path.suffix == ".part":
            file.write = self.write_to(file.write)
        return file

    def write_to(self, write: Callable[[bytes], int]) -> Callable[[bytes], int]:
        def limited(piece: bytes) -> int:
            self.room -= len(piece)
            if self.room < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(piece)

        return limited


@pytest.mark.parametrize("room", [0, 1, 1000, 3000, 8000])
def test_a_disk_that_is_full(room: int, server: Server, document: Any, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    with monkeypatch.context() as patch:
        # The model's first files may fit.
        patch.setattr("flowclf.zoo.index.write_json", lambda *arguments: None)
        patch.setattr(Path, "open", lambda *arguments, **keywords: disk.open(*arguments, **keywords))
        disk = FullDisk(room)
        assert download(server) == 3
    error = capsys.readouterr().err
    assert "No space left on device" in error
    assert "expected SHA-256" in error
    assert "found none" in error
    check_cache(tmp_path, document)
    assert download(server) == 0
    check_cache(tmp_path, document)


@pytest.mark.parametrize("function", ["fsync", "replace", "chmod", "open"])
def test_a_disk_that_fails_late(
    function: str, server: Server, document: Any, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    zoo.list(index=server.url)

    def full(*arguments: Any, **keywords: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    targets: dict[str, tuple[Any, str]] = {
        "fsync": (os, "fsync"),
        "replace": (os, "replace"),
        "chmod": (Path, "chmod"),
        "open": (Path, "mkdir"),
    }
    monkeypatch.setattr("flowclf.zoo.index.write_json", lambda *arguments: None)
    with monkeypatch.context() as patch:
        patch.setattr(*targets[function], full)
        assert download(server) == 3
    assert "No space left on device" in capsys.readouterr().err
    check_cache(tmp_path, document)
    assert cached(tmp_path) == {}


def test_a_real_file_size_limit(server: Server, document: Any, tmp_path: Path) -> None:
    """The kernel refuses to write, in a process of its own."""
    program = (
        "import resource, signal, sys\nfrom flowclf.cli.main import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        f"sys.exit(main(['zoo', 'download', 'tiny', '--index', {server.url!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "tiny/model.safetensors: cannot be written" in done.stderr
    assert "File too large" in done.stderr
    assert "model.safetensors" not in cached(tmp_path)
    check_cache(tmp_path, document)


# Where files go.


def test_downloading_to_a_folder(server: Server, zoo_folder: Path, tmp_path: Path, capsys: Any) -> None:
    to = tmp_path / "models" / "mine"
    assert download(server, "--to", str(to)) == 0
    assert capsys.readouterr().out == f"{to}\n"
    for file in FILES:
        assert (to / file).read_bytes() == (zoo_folder / NAME / file).read_bytes()
    assert sorted(path.name for path in to.iterdir()) == sorted(FILES)
    server.requests.clear()
    (to / "README.md").unlink()
    assert download(server, "--to", str(to), "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"name": NAME, "folder": str(to)}
    assert server.requests == ["/index.json"]


def test_what_is_there_is_not_overwritten(server: Server, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "README.md").write_text("mine")
    assert download(server, "--to", str(tmp_path)) == 2
    assert "README.md is there already" in capsys.readouterr().err
    assert (tmp_path / "README.md").read_text() == "mine"
    assert not (tmp_path / "model.json").exists()
    (tmp_path / "file").write_text("")
    assert download(server, "--to", str(tmp_path / "file")) == 2
    assert "found the file" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written(server: Server, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    zoo.download(NAME, index=server.url)

    def refuse(*arguments: Any) -> Callable[..., Any]:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr("flowclf.zoo.index.write_json", lambda *arguments: None)
    assert download(server, "--to", str(tmp_path / "models")) == 3
    assert "Permission denied" in capsys.readouterr().err
    assert list((tmp_path / "models").iterdir()) == []


def test_progress_tells_of_every_byte(server: Server, document: Any) -> None:
    import contextlib

    told: dict[str, list[int]] = {}

    class Listener:
        def message(self, text: str) -> None: ...
        def row(self, row: Any) -> None: ...
        @contextlib.contextmanager
        def task(self, description: str, total: int) -> Any:
            told[description] = [total, 0]

            class Task:
                def advance(self, n: int = 1) -> None:
                    told[description][1] += n

            yield Task()

    zoo.download(NAME, index=server.url, progress=Listener())  # type: ignore[arg-type]
    assert told == {f"{NAME}/{name}": [file.bytes, file.bytes] for name, file in files_of(document).items()}
