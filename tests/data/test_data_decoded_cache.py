"""The cache of decoded images: what it saves, what makes it decode again, and what it does with files that others wrote."""

from __future__ import annotations

import contextlib
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from flowclf.cli.main import main
from flowclf.data import decoded_cache, decoding, image_folder
from flowclf.errors import DataError, UsageError
from flowclf.progress import SilentProgress, progress_shown_by


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLOWCLF_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FLOWCLF_DECODED_GB", raising=False)
    return tmp_path / "cache" / "decoded"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number, name in enumerate("ab"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for position in range(6):
            pixels = np.random.default_rng(10 * number + position).integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{position}.png")
    return tmp_path / "images"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were decoded."""
    names: list[str] = []
    original = decoding.decode

    def counting(path: str, shape: Any, *rest: Any) -> Any:
        names.append(Path(path).name)
        return original(path, shape, *rest)

    monkeypatch.setattr(decoding, "decode", counting)
    return names


def pixels_of(root: Path, **arguments: Any) -> torch.Tensor:
    raw = image_folder(root=str(root), size=8, **arguments)
    return torch.cat([raw.train.inputs, raw.test.inputs])


def test_images_are_decoded_once(root: Path, cache: Path, decoded: list[str]) -> None:
    first = pixels_of(root)
    assert len(decoded) == 12
    assert torch.equal(pixels_of(root), first)
    assert torch.equal(pixels_of(root, test_fraction=0.1), first)
    assert len(decoded) == 12
    assert len(list(cache.iterdir())) == 1
    assert image_folder(root=str(root), size=6).train.inputs.shape[-1] == 6
    assert len(decoded) == 24
    assert len(list(cache.iterdir())) == 2


def change_size(path: Path) -> None:
    Image.new("L", (8, 8), 7).save(path)


def change_in_place(path: Path) -> None:
    """The same size and modification time, other bytes."""
    status, content = path.stat(), path.read_bytes()
    Image.new("L", (8, 8), 9).save(path)
    path.write_bytes(path.read_bytes().ljust(len(content), b"\0"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize(
    "change",
    [
        change_size,
        change_in_place,
        lambda path: path.with_name("new.png").write_bytes(path.read_bytes()),
        lambda path: path.unlink(),
    ],
)
def test_a_changed_folder_is_decoded_again(root: Path, cache: Path, decoded: list[str], change: Any) -> None:
    pixels_of(root)
    change(root / "a" / "3.png")
    now = pixels_of(root)
    assert len(decoded) > 20
    assert torch.equal(now, pixels_of(root, cache=False))
    # The entry was replaced.
    assert len(list(cache.iterdir())) == 1


def test_a_decoder_of_another_version_decodes_again(root: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pixels_of(root)
    monkeypatch.setattr(decoded_cache, "DECODER", "another")
    pixels_of(root)
    assert len(decoded) == 24


class Evil:
    def __reduce__(self) -> Any:
        return os.abort, ()


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    "damage",
    [
        flip,
        lambda path: path.write_bytes(path.read_bytes()[:-8]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(pickle.dumps(Evil())),
        lambda path: path.write_bytes((2**62).to_bytes(8, "little") + b"{}"),
        lambda path: path.write_bytes(path.read_bytes().replace(b'"failed": "[]"', b'"failed": "{}"')),
        lambda path: path.write_bytes(path.read_bytes().replace(b"fingerprint", b"fingerprinT")),
        lambda path: (path.unlink(), path.mkdir()),
    ],
)
def test_a_damaged_file_of_the_cache_is_made_again(root: Path, cache: Path, decoded: list[str], damage: Any) -> None:
    first = pixels_of(root)
    (path,) = cache.iterdir()
    damage(path)
    assert torch.equal(pixels_of(root), first)
    assert len(decoded) == 24
    if path.is_file():
        pixels_of(root)
        assert len(decoded) == 24


def test_files_that_cannot_be_read_are_remembered_with_the_others(root: Path, decoded: list[str]) -> None:
    (root / "a" / "2.png").write_bytes(b"x")
    (root / "b" / "4.png").write_bytes(b"x")
    with pytest.raises(DataError, match="2 of 12 files"):
        pixels_of(root)
    del decoded[:]
    with pytest.warns(UserWarning, match="2 of 12 files"):
        kept = pixels_of(root, skip_corrupt=2)
    # Only they are tried again.
    assert decoded == ["2.png", "4.png"]
    with pytest.warns(UserWarning, match="2 of 12 files"):
        assert torch.equal(kept, pixels_of(root, skip_corrupt=2, cache=False))


def test_a_file_that_could_not_be_read_only_then_is_read_later(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = decoding.decode

    def failing(path: str, shape: Any, *rest: Any) -> Any:
        if path.endswith("a/2.png"):
            raise DataError("the disk was busy")
        return original(path, shape, *rest)

    monkeypatch.setattr(decoding, "decode", failing)
    with pytest.raises(DataError, match="1 of 12 files cannot be read as images"):
        pixels_of(root)
    monkeypatch.setattr(decoding, "decode", original)
    assert len(pixels_of(root)) == 12


@pytest.mark.parametrize("off", ["argument", "variable"])
def test_the_cache_can_be_switched_off(root: Path, cache: Path, off: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if off == "variable":
        monkeypatch.setenv("FLOWCLF_DECODED_GB", "0")
    assert len(pixels_of(root, cache=off == "variable")) == 12
    assert not cache.exists()


@pytest.mark.parametrize("value", ["-1", "many", "nan", "inf"])
def test_limits_that_are_refused(root: Path, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWCLF_DECODED_GB", value)
    with pytest.raises(UsageError, match=f"FLOWCLF_DECODED_GB: expected a number of gigabytes, 0 or more, found '{value}'"):
        pixels_of(root)


def test_what_was_used_longest_ago_makes_room(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoded_cache, "_HEADER_LIMIT", 1000)
    monkeypatch.setenv("FLOWCLF_DECODED_GB", "4e-6")
    sizes = {}
    for number, side in enumerate((8, 9, 10)):
        before = set(cache.iterdir()) if cache.exists() else set()
        image_folder(root=str(root), size=side)
        (path,) = set(cache.iterdir()) - before
        os.utime(path, (number, number))
        sizes[side] = path
        if side == 9:
            image_folder(root=str(root), size=8)
    assert sizes[8].exists()
    assert not sizes[9].exists()
    assert decoded_cache.size() <= 4000


def test_a_set_that_is_larger_than_the_cache_is_not_kept(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[str] = []

    class Listening(SilentProgress):
        def message(self, text: str) -> None:
            messages.append(text)

    monkeypatch.setenv("FLOWCLF_DECODED_GB", "1e-7")
    with progress_shown_by(lambda: contextlib.nullcontext(Listening())):
        pixels_of(root)
    assert not cache.exists()
    assert "the decoded images are not kept" in messages[0]
    assert "FLOWCLF_DECODED_GB is the limit" in messages[0]


def test_a_cache_that_cannot_be_written_does_no_harm(root: Path, cache: Path) -> None:
    cache.parent.write_text("a file, not a folder")
    assert len(pixels_of(root)) == 12


def test_a_large_folder_is_announced_and_counted(root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr(decoding, "_ANNOUNCED", 12)
    recipe = root.parent / "recipe.yaml"
    recipe.write_text(
        f"name: folder\ndata: {{name: image_folder, root: '{root}', size: 8, validation: 2, batch_size: 2}}\n"
        "model: [squeeze, actnorm, split_head]\nloss: {name: cross_entropy}\n"
    )
    counted: list[int] = []
    original = decoding._decode

    def decode(files: Any, shape: Any, center_crop: Any, progress: Any) -> Any:
        with progress.task("checking", 1) as task:
            task.advance(1)
        counted.append(len(files))
        return original(files, shape, center_crop, progress)

    monkeypatch.setattr(decoding, "_decode", decode)
    assert main(["recipe", "run", str(recipe), "--dry-run"]) == 0
    assert f"{root}: decoding 12 images; the result is kept in" in capsys.readouterr().err
    assert main(["recipe", "run", str(recipe), "--dry-run"]) == 0
    assert capsys.readouterr().err == ""
    assert counted == [12]


def test_progress_counts_every_file(root: Path) -> None:
    counts: list[int] = []

    class Counting(SilentProgress):
        def task(self, description: str, total: int) -> Any:
            counts.append(-total)
            return super().task(description, total)

        def advance(self, n: int = 1, **values: float) -> None:
            counts.append(n)

    decoding._decode(sorted(map(str, root.glob("*/*"))), (1, 8, 8), 1.0, Counting())
    assert counts == [-12, 12]


def test_the_command_tells_the_size_and_clears(root: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache"]) == 0
    assert f"{cache}\t0\n" in capsys.readouterr().out
    pixels_of(root)
    size = decoded_cache.size()
    assert size > 12 * 64
    assert main(["cache"]) == 0
    assert f"{cache}\t{size}\n" in capsys.readouterr().out
    assert main(["cache", "--clear"]) == 0
    assert f"{cache}\t0\n" in capsys.readouterr().out
    assert list(cache.iterdir()) == []
