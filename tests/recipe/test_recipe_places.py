"""Paths in recipes: which arguments are paths, and what they become for the record of a run and in a zoo."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from flowclf import registry
from flowclf.data import RawData, Split
from flowclf.errors import UsageError
from flowclf.recipe import Recipe, dump, load, loads
from flowclf.recipe.places import as_given, data_paths, located, portable, with_data_at

IMAGES = load("image-folder").source_text


def at(root: str | Path, oracle: str | None = None) -> Recipe:
    return loads(IMAGES, [f"data.root={root}", *([f"evaluate.oracle={oracle}"] if oracle else [])]).recipe


def test_relative_paths_begin_at_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "judge").mkdir()
    monkeypatch.chdir(tmp_path)
    recipe = located(at("photos", "judge"))
    assert recipe.data.arguments["root"] == str(tmp_path / "photos")
    assert recipe.evaluate.oracle == str(tmp_path / "judge")
    assert located(at("photos", "mnist-oracle")).evaluate.oracle == "mnist-oracle"
    assert located(at("~/photos")).data.arguments["root"] == str(Path.home() / "photos")
    # The record is a recipe that says the same from every folder.
    assert loads(dump(recipe)).recipe == recipe == located(recipe, Path("/elsewhere"))
    assert located(load("mnist").recipe) == load("mnist").recipe


def test_the_first_folder_in_which_a_path_exists_counts(tmp_path: Path) -> None:
    (tmp_path / "second" / "photos").mkdir(parents=True)
    folders = tmp_path / "first", tmp_path / "second"
    assert located(at("photos"), *folders).data.arguments["root"] == str(tmp_path / "second" / "photos")
    assert located(at("pictures"), *folders).data.arguments["root"] == str(tmp_path / "first" / "pictures")


def test_a_zoo_and_its_data_move_together(tmp_path: Path) -> None:
    (tmp_path / "here" / "zoo").mkdir(parents=True)
    (tmp_path / "here" / "photos").mkdir()
    recipe = at(tmp_path / "here" / "photos", "mnist-oracle")
    assert portable(recipe, tmp_path / "here" / "zoo", recipe) == recipe
    stored = portable(recipe, tmp_path / "here" / "zoo", at("photos"))
    assert stored.data.arguments["root"] == "../photos"
    assert stored.evaluate.oracle == "mnist-oracle"
    (tmp_path / "here").rename(tmp_path / "there")
    assert Path(located(stored, tmp_path / "there" / "zoo").data.arguments["root"]).samefile(tmp_path / "there" / "photos")


def test_a_folder_that_is_a_link_has_its_data_in_reach(tmp_path: Path) -> None:
    for name in ("deep/zoo", "photos"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "zoo")
    stored = portable(at(tmp_path / "photos"), tmp_path / "link", at("photos"))
    assert Path(located(stored, tmp_path / "link").data.arguments["root"]).samefile(tmp_path / "photos")


@pytest.mark.parametrize(
    ("given", "begun", "shown"),
    [
        ("photos", "/home/me/photos", "photos"),
        ("../photos", "/home/photos", "../photos"),
        ("photos", "/home/me/pictures", "pictures"),
        ("/data/photos", "/data/photos", "/data/photos"),
        (".", "/home/me", "."),
    ],
)
def test_a_record_of_changes_has_no_absolute_path_that_was_not_given(given: str, begun: str, shown: str) -> None:
    assert as_given(at(begun), at(given)).data.arguments["root"] == shown


def test_data_that_moved(tmp_path: Path) -> None:
    assert with_data_at(at("photos"), tmp_path).data.arguments["root"] == str(tmp_path)
    with pytest.raises(UsageError, match=r"--data-root: there is no file or directory .*absent"):
        with_data_at(at("photos"), tmp_path / "absent")
    with pytest.raises(UsageError, match="'mnist' is not read from a path"):
        with_data_at(load("mnist").recipe, tmp_path)


@pytest.mark.usefixtures("scratch_registries")
def test_a_path_is_known_by_its_annotation_too() -> None:
    @registry.datasets.register("placed")
    def placed(*, source: Path, label: str = "path", cache: Path | None = None) -> RawData:
        split = Split(torch.zeros(4, 2), torch.arange(4) % 2)
        return RawData(split, split, ("a", "b"))

    text = (
        IMAGES.split("data:")[0]
        + "data: {name: placed, source: here, bits: null}\nmodel: [split_head]\nloss: {name: cross_entropy}\n"
    )
    recipe = loads(text).recipe
    assert data_paths(recipe.data) == {"source": Path("here"), "cache": None}
    assert located(recipe).data.arguments == {"source": Path.cwd() / "here", "label": "path", "cache": None}
