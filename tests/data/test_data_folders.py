"""image_folder and read_image, on real files that Pillow writes."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import flowclf.data
from flowclf.data import image_folder, read_image
from flowclf.errors import DataError, UsageError


def gradient(seed: int, height: int = 28, width: int = 28, channels: int = 3) -> Image.Image:
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(pixels if channels == 3 else pixels[..., 0])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three classes of ten images in four formats, among what file managers leave."""
    suffixes = ["png", "jpg", "gif", "bmp"]
    for number, name in enumerate(["cat", "dog", "élan"]):
        (tmp_path / name).mkdir()
        for position in range(10):
            image = gradient(100 * number + position, 30 + position, 40)
            image.save(tmp_path / name / f"{position}.{suffixes[position % 4]}")
        (tmp_path / name / ".DS_Store").write_bytes(b"x")
        (tmp_path / name / "Thumbs.db").write_bytes(b"x")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "readme.txt").write_text("not a class")
    return tmp_path


def test_a_folder_for_each_class(root: Path) -> None:
    raw = image_folder(root=str(root), size=20, channels=3, test_fraction=0.2)
    assert raw.class_names == ("cat", "dog", "élan")
    assert raw.train.inputs.shape == (24, 3, 20, 20)
    assert raw.train.labels.bincount().tolist() == [8, 8, 8]
    assert raw.test.labels.bincount().tolist() == [2, 2, 2]
    every = {tuple(image.flatten().tolist()) for split in raw[:2] for image in split.inputs}
    expected = {tuple(read_image(path, (3, 20, 20)).flatten().tolist()) for path in root.glob("*/[0-9].*")}
    assert every == expected
    assert len(every) == 30


def test_labels_stay_with_their_images(root: Path) -> None:
    raw = image_folder(root=str(root), channels=1)
    for number, name in enumerate(raw.class_names):
        files = {tuple(read_image(path, (1, 28, 28)).flatten().tolist()) for path in (root / name).glob("[0-9].*")}
        for split in raw[:2]:
            for image in split.inputs[split.labels == number]:
                assert tuple(image.flatten().tolist()) in files


def test_the_test_part_depends_on_its_own_seed_only(root: Path) -> None:
    one, same = image_folder(root=str(root)), image_folder(root=str(root))
    other = image_folder(root=str(root), test_seed=1)
    assert torch.equal(one.test.inputs, same.test.inputs)
    assert torch.equal(one.train.inputs, same.train.inputs)
    assert not torch.equal(one.test.inputs, other.test.inputs)
    loaded = [flowclf.data.load("image_folder", root=str(root), validation=0.2, seed=seed) for seed in (0, 1)]
    assert torch.equal(loaded[0].test.inputs, loaded[1].test.inputs)
    assert loaded[0].class_names == ("cat", "dog", "élan")
    assert len(loaded[0].validation) == 5


def test_train_and_test_folders(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    parts = tmp_path_factory.mktemp("parts")
    for part, names in {"train": ["cat", "dog"], "test": ["cat", "dog"]}.items():
        for name in names:
            (parts / part / name).mkdir(parents=True)
            for position in range(3):
                gradient(position).save(parts / part / name / f"{position}.png")
    raw = image_folder(root=str(parts))
    assert (len(raw.train), len(raw.test), raw.class_names) == (6, 6, ("cat", "dog"))
    (parts / "test" / "wolf").mkdir()
    with pytest.raises(DataError, match=r"wolf: expected a class of the training folder \(cat, dog\)"):
        image_folder(root=str(parts))


@pytest.mark.parametrize("name", ["Test", "val", "Validation"])
def test_the_test_folder_has_several_names(name: str, tmp_path: Path) -> None:
    for part in ("Train", name):
        for position, label in enumerate(("a", "b")):
            (tmp_path / part / label).mkdir(parents=True)
            gradient(position).save(tmp_path / part / label / "0.png")
    raw = image_folder(root=str(tmp_path))
    assert (len(raw.train), len(raw.test), raw.class_names) == (2, 2, ("a", "b"))


@pytest.mark.parametrize("names", [("train", "test", "val"), ("train", "extra"), ("train", "Train", "test")])
def test_folders_that_would_be_ignored_are_refused(names: tuple[str, ...], tmp_path: Path) -> None:
    for part in names:
        (tmp_path / part / "a").mkdir(parents=True)
        gradient(0).save(tmp_path / part / "a" / "0.png")
    with pytest.raises(DataError, match="expected train, and beside it one folder of test data"):
        image_folder(root=str(tmp_path))


def test_every_class_has_a_test_image(tmp_path: Path) -> None:
    for name, count in {"a": 9, "b": 30}.items():
        (tmp_path / name).mkdir()
        for position in range(count):
            gradient(position).save(tmp_path / name / f"{position}.png")
    assert image_folder(root=str(tmp_path)).test.labels.bincount().tolist() == [1, 3]


def test_a_train_folder_alone_gives_the_test_part(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for position in range(4):
            gradient(position).save(tmp_path / "train" / name / f"{position}.png")
    raw = image_folder(root=str(tmp_path), test_fraction=0.5)
    assert (len(raw.train), len(raw.test)) == (4, 4)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("car", "train"):
        (tmp_path / name).mkdir()
        for position in range(2):
            gradient(position).save(tmp_path / name / f"{position}.png")
    assert image_folder(root=str(tmp_path), test_fraction=0.5).class_names == ("car", "train")


def test_an_image_of_the_right_size_is_not_changed(tmp_path: Path) -> None:
    image = gradient(0)
    for suffix in ("png", "bmp"):
        image.save(tmp_path / f"image.{suffix}")
        pixels = read_image(tmp_path / f"image.{suffix}", (3, 28, 28))
        assert np.array_equal(pixels.permute(1, 2, 0).numpy(), np.asarray(image))
    grey = gradient(1, channels=1)
    grey.save(tmp_path / "grey.png")
    assert np.array_equal(read_image(tmp_path / "grey.png", (1, 28, 28))[0].numpy(), np.asarray(grey))
    coloured = read_image(tmp_path / "grey.png", (3, 28, 28))
    assert all(np.array_equal(channel.numpy(), np.asarray(grey)) for channel in coloured)


def test_the_aspect_is_kept_by_a_crop_at_the_centre(tmp_path: Path) -> None:
    pixels = np.zeros((20, 60), dtype=np.uint8)
    pixels[:, 20:40] = 200
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    assert (read_image(tmp_path / "wide.png", (1, 20, 20)) == 200).all()
    half = read_image(tmp_path / "wide.png", (1, 10, 10))[:, :, 1:-1].int()
    assert (half - 200).abs().max() <= 3  # bicubic interpolation rings a little
    assert read_image(tmp_path / "wide.png", (3, 8, 12)).shape == (3, 8, 12)


def test_modes_that_need_care(tmp_path: Path) -> None:
    deep = (np.arange(64, dtype=np.uint16) * 1000).reshape(8, 8)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert np.array_equal(read_image(tmp_path / "deep.png", (1, 8, 8))[0].numpy(), (deep >> 8).astype(np.uint8))
    Image.new("RGBA", (8, 8), (10, 20, 30, 0)).save(tmp_path / "clear.png")
    assert (read_image(tmp_path / "clear.png", (3, 8, 8)) == 255).all()
    Image.new("1", (8, 8), 1).save(tmp_path / "bits.png")
    assert (read_image(tmp_path / "bits.png", (1, 8, 8)) == 255).all()
    Image.new("CMYK", (8, 8), (0, 0, 0, 0)).save(tmp_path / "print.jpg")
    assert (read_image(tmp_path / "print.jpg", (1, 8, 8)) > 250).all()
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 40, 80, 120])
    palette.save(tmp_path / "palette.gif")
    assert read_image(tmp_path / "palette.gif", (3, 8, 8))[:, 0, 0].tolist() == [40, 80, 120]
    palette.save(tmp_path / "hole.gif", transparency=1)
    assert (read_image(tmp_path / "hole.gif", (3, 8, 8)) == 255).all()


def test_an_image_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    image = Image.fromarray(np.repeat([[0, 255]], 8, axis=0).repeat(4, axis=1).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # the top is on the right: turn by 90 degrees clockwise
    image.save(tmp_path / "turned.png", exif=exif)
    turned = read_image(tmp_path / "turned.png", (1, 8, 8))[0]
    assert turned[:4].max() == 0
    assert turned[4:].min() == 255


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp"])
def test_a_truncated_image_is_named(root: Path, suffix: str) -> None:
    path = next(iter(sorted((root / "dog").glob(f"*.{suffix}"))))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="1 of 30 files cannot be read as images; repair or remove them") as caught:
        image_folder(root=str(root))
    assert f"\n  {path}: " in str(caught.value)
    with pytest.raises(DataError, match="expected an image, found a file that cannot be read as one") as caught:
        read_image(path, (1, 28, 28))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", bytes(1000)])
def test_what_is_not_an_image_is_named(root: Path, content: bytes) -> None:
    (root / "cat" / "notes.png").write_bytes(content)
    with pytest.raises(DataError, match=r"notes.png: \w"):
        image_folder(root=str(root))


def test_a_decompression_bomb_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gradient(0, 20, 20).save(tmp_path / "large.png")
    for limit in (399, 100):  # Pillow warns above its limit, and refuses above twice the limit
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(DataError, match=r"large.png: .*decompression bomb"):
            read_image(tmp_path / "large.png", (1, 8, 8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    read_image(tmp_path / "large.png", (1, 8, 8))


def test_float_images_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((4, 4), dtype=np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(DataError, match="mode F, 32 bits each, have no known range; expected 8 or 16 bits"):
        read_image(tmp_path / "float.tiff", (1, 4, 4))


def test_folders_that_are_refused(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(UsageError, match=r"image_folder: root: there is no folder .*nowhere"):
        image_folder(root=str(root / "nowhere"))
    (root / "empty").mkdir()
    with pytest.raises(DataError, match="expected at least one image of class 'empty', found none"):
        image_folder(root=str(root))
    (root / "empty" / "inner").mkdir()
    with pytest.raises(DataError, match="inner: expected only images in a class folder, found a folder"):
        image_folder(root=str(root))
    lonely = tmp_path_factory.mktemp("lonely")
    with pytest.raises(DataError, match="expected at least 2 folders, one per class, found none"):
        image_folder(root=str(lonely))
    (lonely / "only").mkdir()
    with pytest.raises(DataError, match="found only"):
        image_folder(root=str(lonely))


def test_arguments_that_are_refused(root: Path) -> None:
    with pytest.raises(UsageError, match="image_folder: size: expected an integer of at least 1, found 0"):
        image_folder(root=str(root), size=0)
    with pytest.raises(UsageError, match=r"test_fraction: expected a fraction greater than 0 and less than 1, found 1.0"):
        image_folder(root=str(root), test_fraction=1.0)
    with pytest.raises(UsageError, match=r"expected a shape \(1, H, W\) or \(3, H, W\), found \(2, 28, 28\)"):
        image_folder(root=str(root), channels=2)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"there is no file .*nothing.png"):
        read_image(root / "nothing.png", (1, 28, 28))


def test_16_bit_grey_keeps_its_transparency_and_is_refused_where_its_range_is_unknown(tmp_path: Path) -> None:
    values = np.full((4, 4), 60_000, dtype=np.uint16)
    values[0] = 5000
    Image.fromarray(values).save(tmp_path / "full.png", transparency=5000)
    pixels = read_image(tmp_path / "full.png", (1, 4, 4))
    assert pixels[0, :, 0].tolist() == [255, 234, 234, 234]
    for largest in (255, 4095):
        Image.fromarray(np.full((4, 4), largest, dtype=np.uint16)).save(tmp_path / "part.png")
        with pytest.raises(DataError, match=f"16-bit pixels up to {largest} only, whose range is unknown; rescale"):
            read_image(tmp_path / "part.png", (1, 4, 4))


def test_names_of_classes_are_printable_utf_8(tmp_path: Path) -> None:
    for name in ("good", os.fsdecode(b"b\xffad")):
        (tmp_path / name).mkdir()
        gradient(0).save(tmp_path / name / "0.png")
    with pytest.raises(DataError, match="expected names of classes in printable UTF-8"):
        image_folder(root=str(tmp_path))


def broken(root: Path, count: int) -> list[Path]:
    """So many files of all three classes, cut short."""
    paths = sorted(root.glob("*/[0-9].*"), key=lambda path: (path.name, path.parent.name))[:count]
    for path in paths:
        path.write_bytes(path.read_bytes()[:40])
    return paths


def test_all_files_that_cannot_be_read_are_listed(root: Path) -> None:
    paths = broken(root, 3)
    (root / "cat" / "empty.PNG").touch()
    (root / "dog" / "link.png").symlink_to(root / "nowhere.png")
    (root / "dog" / "loop.png").symlink_to(root / "dog" / "loop.png")
    os.mkfifo(root / "cat" / "pipe.png")
    with pytest.raises(DataError) as caught:
        image_folder(root=str(root))
    first, *others = str(caught.value).splitlines()
    assert first == (
        "7 of 34 files cannot be read as images; repair or remove them (skip_corrupt: 7 would skip them, with a warning):"
    )
    names = {*map(str, paths), *(f"{root}/{name}" for name in ("cat/empty.PNG", "dog/link.png", "dog/loop.png", "cat/pipe.png"))}
    assert {line.split(": ")[0].strip() for line in others} == names
    assert all(line.split(": ", 1)[1] for line in others)
    assert "link.png: a link to a file that does not exist" in str(caught.value)
    assert "pipe.png: not a regular file" in str(caught.value)


@pytest.mark.parametrize("allowed", [3, 20, 0.1, 0.4])
def test_so_many_can_be_skipped(root: Path, allowed: float) -> None:
    expected = image_folder(root=str(root), test_fraction=0.2)
    pixels = {tuple(image.flatten().tolist()) for split in expected[:2] for image in split.inputs}
    paths = broken(root, 3)
    with pytest.warns(UserWarning, match="3 of 30 files cannot be read as images and are skipped:\n") as caught:
        raw = image_folder(root=str(root), skip_corrupt=allowed)
    assert all(str(path) in str(caught[0].message) for path in paths)
    assert len(raw.train) + len(raw.test) == 27
    assert raw.train.labels.bincount().add(raw.test.labels.bincount()).tolist() == [9, 9, 9]
    assert {tuple(image.flatten().tolist()) for split in raw[:2] for image in split.inputs} < pixels


@pytest.mark.parametrize("allowed", [2, 0.09])
def test_more_than_that_is_an_error(root: Path, allowed: float) -> None:
    broken(root, 3)
    message = r"repair or remove them \(skip_corrupt allows 2; skip_corrupt: 3 would skip them, with a warning\)"
    with pytest.raises(DataError, match=message):
        image_folder(root=str(root), skip_corrupt=allowed)


def test_a_folder_of_which_half_is_broken_is_refused(root: Path) -> None:
    broken(root, 15)
    with pytest.raises(
        DataError, match="15 of 30 files cannot be read as images, too many to skip: fewer than half may be"
    ) as caught:
        image_folder(root=str(root), skip_corrupt=1000)
    assert len(str(caught.value).splitlines()) == 16


@pytest.mark.parametrize("allowed", [-1, 0.5, 1.0, True, "all", float("nan")])
def test_limits_of_skipping_that_are_refused(root: Path, allowed: Any) -> None:
    with pytest.raises(UsageError, match="skip_corrupt: expected a number of files, 0 or more, or a fraction"):
        image_folder(root=str(root), skip_corrupt=allowed)


def test_skipped_files_of_the_test_folder_are_counted_too(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / part / name).mkdir(parents=True)
            for position in range(3):
                gradient(position).save(tmp_path / part / name / f"{position}.png")
    for place in ("train/a/1.png", "test/b/0.png"):
        (tmp_path / place).write_bytes(b"")
    with pytest.warns(UserWarning, match="2 of 12 files"):
        raw = image_folder(root=str(tmp_path), skip_corrupt=2)
    assert raw.train.labels.bincount().tolist() == [2, 3]
    assert raw.test.labels.bincount().tolist() == [3, 2]


def test_a_class_of_which_nothing_is_left_is_named(root: Path) -> None:
    for path in (root / "dog").glob("[0-9].*"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"no example of class 1 \(dog\)"), pytest.warns(UserWarning, match="10 of 30"):
        flowclf.data.load("image_folder", root=str(root), skip_corrupt=10, validation=0.1)


def test_images_need_not_be_square(root: Path) -> None:
    raw = image_folder(root=str(root), size=[12, 20], channels=3)
    assert raw.train.inputs.shape == (27, 3, 12, 20)
    expected = {tuple(read_image(path, (3, 12, 20)).flatten().tolist()) for path in root.glob("*/[0-9].*")}
    assert {tuple(image.flatten().tolist()) for split in raw[:2] for image in split.inputs} == expected
    assert flowclf.data.load("image_folder", root=str(root), size=[12, 20], validation=0.1).image_shape == (1, 12, 20)
    assert flowclf.data.load("image_folder", root=str(root), size=(12, 20), validation=0.1).image_shape == (1, 12, 20)
    for wrong in ([12], [12, 20, 3], [0, 12], [1.5, 12]):
        with pytest.raises(UsageError, match="size"):
            image_folder(root=str(root), size=wrong)  # type: ignore[arg-type]


def test_suffixes_do_not_matter(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for position, (suffix, kind) in enumerate(
            [("PNG", "png"), ("Jpeg", "jpeg"), ("webp", "webp"), ("TIFF", "tiff"), ("", "bmp")]
        ):
            gradient(position).save(tmp_path / name / f"image{position}.{suffix}".rstrip("."), format=kind)
        gradient(8).save(tmp_path / name / "same.png")
        gradient(9).save(tmp_path / name / "SAME.PNG")
    raw = image_folder(root=str(tmp_path), test_fraction=0.2)
    assert len(raw.train) + len(raw.test) == 14
    assert len({tuple(image.flatten().tolist()) for split in raw[:2] for image in split.inputs}) == 7


def test_what_file_managers_and_archives_leave_is_not_a_class(root: Path) -> None:
    for name in ("__MACOSX", "@eaDir", "lost+found", ".ipynb_checkpoints"):
        (root / name).mkdir()
        (root / name / "x.png").write_bytes(b"")
    for name in ("._0.png", "desktop.ini", "Icon\r"):
        (root / "cat" / name).write_bytes(b"")
    assert image_folder(root=str(root)).class_names == ("cat", "dog", "élan")


def test_images_beside_the_classes_are_not_left_out_in_silence(root: Path) -> None:
    gradient(0).save(root / "stray.JPG", format="jpeg")
    with pytest.warns(UserWarning, match=r"1 images beside the folders of the classes are left out: stray.JPG"):
        image_folder(root=str(root))


def test_names_of_classes_are_the_same_however_their_accents_are_stored(tmp_path: Path) -> None:
    for part, name in (("train", "e\u0301lan"), ("train", "cat"), ("test", "\u00e9lan")):
        (tmp_path / part / name).mkdir(parents=True)
        gradient(len(name)).save(tmp_path / part / name / "0.png")
    raw = image_folder(root=str(tmp_path))
    assert raw.class_names == ("cat", "e\u0301lan")
    assert raw.test.labels.tolist() == [1]
    (tmp_path / "train" / "\u00e9lan").mkdir()
    with pytest.raises(DataError, match=r"found two named '.*lan', written in different characters"):
        image_folder(root=str(tmp_path))


def test_a_folder_that_contains_itself_is_refused(root: Path) -> None:
    (root / "dog" / "again").symlink_to(root)
    with pytest.raises(DataError, match="again: expected only images in a class folder, found a folder"):
        image_folder(root=str(root))


def test_one_image_in_a_class_is_refused_by_name(root: Path) -> None:
    (root / "wolf").mkdir()
    gradient(0).save(root / "wolf" / "0.png")
    with pytest.raises(DataError, match="class 'wolf': expected at least 2 examples, one of them to test on, found 1"):
        image_folder(root=str(root))


def test_16_bit_colour_is_refused_where_its_range_is_unknown(tmp_path: Path) -> None:
    for largest, place in ((65535, "full"), (4095, "part")):
        pixels = np.full((4, 4, 3), largest, dtype=">u2")
        rows = b"".join(b"\0" + row.tobytes() for row in pixels)
        chunks = ((b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
        body = b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
        )
        (tmp_path / f"{place}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    assert (read_image(tmp_path / "full.png", (3, 4, 4)) == 255).all()
    with pytest.raises(DataError, match="16-bit pixels below 4096 only, whose range is unknown; rescale them"):
        read_image(tmp_path / "part.png", (3, 4, 4))


def test_colours_of_other_kinds(tmp_path: Path) -> None:
    Image.new("LA", (4, 4), (100, 255)).save(tmp_path / "la.png")
    assert (read_image(tmp_path / "la.png", (3, 4, 4)) == 100).all()
    Image.new("LA", (4, 4), (0, 0)).save(tmp_path / "clear.png")
    assert (read_image(tmp_path / "clear.png", (1, 4, 4)) == 255).all()
    Image.new("RGB", (4, 4), (10, 200, 30)).convert("YCbCr").save(tmp_path / "y.jpg", quality=100)
    assert (read_image(tmp_path / "y.jpg", (3, 4, 4)).float().mean((1, 2)) - torch.tensor([10.0, 200, 30])).abs().max() < 3
    Image.new("LAB", (4, 4), (255, 128, 128)).save(tmp_path / "lab.tiff")
    assert read_image(tmp_path / "lab.tiff", (1, 4, 4)).min() > 250
