"""``flowclf zoo``, and zoo names where other commands take a MODEL."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import zoo_cases
from PIL import Image

import flowclf
from flowclf import zoo
from flowclf.cli.main import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zoo with one model, whose recipe is there too."""
    base = tmp_path_factory.mktemp("cli-zoo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLOWCLF_CACHE", str(base / "cache"))
        zoo.add(zoo_cases.write_run(base / "run"), name="little", to=base / "zoo", aliases=["small"])
    return base / "zoo"


@pytest.fixture(autouse=True)
def _in_the_zoo(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLOWCLF_ZOO", str(folder))
    monkeypatch.setenv("FLOWCLF_CACHE", str(tmp_path / "cache"))


def test_list_and_info(folder: Path, capsys: Any) -> None:
    assert main(["zoo", "list"]) == 0
    header, line = capsys.readouterr().out.splitlines()
    assert header.split("\t")[:3] == ["name", "architecture", "parameters"]
    assert line.startswith("little\tnodes\t")
    assert main(["zoo", "list", "--json"]) == 0
    assert [entry["name"] for entry in json.loads(capsys.readouterr().out)] == ["little"]
    assert main(["zoo", "info", "little"]) == 0
    lines = dict(line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert lines["data.name"] == "arrays"
    assert lines["preprocessing.image_shape"] == "1, 8, 8"
    assert lines["measured.test.error.tolerance"] == "0"
    assert main(["zoo", "info", "little", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(zoo.info("little").model_dump_json())


def test_a_zoo_name_is_a_model(tmp_path: Path, capsys: Any) -> None:
    assert main(["evaluate", "little", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert results["test.error"] == zoo.info("little").measured["test.error"].value
    assert results["probe.hidden"] == "8"
    Image.new("L", (8, 8), 100).save("a.png")
    assert main(["predict", "little", "a.png"]) == 0
    assert "a.png" in capsys.readouterr().out
    assert main(["metamers", "little"]) == 0
    assert (tmp_path / "metamers.png").is_file()


def test_a_path_wins(tmp_path: Path, capsys: Any) -> None:
    flowclf.save(tiny.image_classifier(), tmp_path / "little")
    assert main(["evaluate", "little"]) == 2
    assert "has no record of its data" in capsys.readouterr().err


def test_a_downloaded_folder_is_a_model(tmp_path: Path, capsys: Any) -> None:
    assert main(["zoo", "download", "little", "--to", "mine"]) == 0
    assert main(["metamers", "mine", "--out", "m.png"]) == 0
    assert (tmp_path / "m.png").is_file()


@pytest.mark.parametrize("command", ["evaluate", "predict", "metamers", "planes"])
def test_a_near_name(command: str, capsys: Any) -> None:
    Path("a.png").touch()
    assert main([command, "litle", *(["a.png"] if command == "predict" else [])]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: there is no file or directory litle, and there is no model 'litle' in the zoo")
    assert "did you mean 'little'?" in error


def test_an_older_name_warns_on_one_line() -> None:
    command = [sys.executable, "-m", "flowclf.cli.main", "zoo", "info", "small"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stderr == "warning: the model 'small' is called 'little' now\n"


@pytest.mark.parametrize(
    "arguments",
    [["zoo", "--help"], ["zoo", "list"], ["zoo", "info", "little"], ["zoo", "download", "little"], ["zoo", "add", "--help"]],
)
def test_what_needs_no_torch_does_not_import_it(arguments: list[str]) -> None:
    program = (
        "import sys\nfrom flowclf.cli.main import main\n"
        f"code = main({arguments!r})\n"
        "print(sorted({'torch', 'numpy', 'FrEIA', 'huggingface_hub'} & set(sys.modules)), file=sys.stderr)\n"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stderr == "[]\n"


@pytest.mark.parametrize(
    "arguments",
    [["zoo"], ["zoo", "nothing"], ["zoo", "info"], ["zoo", "download"], ["zoo", "add", "run"], ["zoo", "list", "little"]],
)
def test_wrong_usage(arguments: list[str], capsys: Any) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err
