"""Adding runs to a zoo: what arrives, what is refused, and that nothing is half there when it fails."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from zoo_cases import write_run

import flowclf
from flowclf import zoo
from flowclf.cli.main import main
from flowclf.errors import CheckpointError, UnreachableError, UsageError, VerificationError
from flowclf.files import sha256
from flowclf.zoo import adding, cards
from flowclf.zoo.runs import read_run


def listing(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def run(run_folder: Path, tmp_path: Path) -> Path:
    """A run that the test may spoil."""
    return Path(shutil.copytree(run_folder, tmp_path / "run"))


def test_what_arrives(run_folder: Path, tmp_path: Path) -> None:
    entry = zoo.add(run_folder, name="little-1", to=tmp_path / "zoo", aliases=["small"])
    assert zoo.info("little-1", index=tmp_path / "zoo") == entry
    folder = tmp_path / "zoo" / "little-1"
    assert sorted(path.name for path in folder.iterdir()) == sorted(entry.files)
    assert set(entry.files) == {"README.md", "metamers.png", "model.json", "model.safetensors", "recipe.yaml"}
    for name, file in entry.files.items():
        assert (file.path, file.bytes, file.sha256) == (f"little-1/{name}", (folder / name).stat().st_size, sha256(folder / name))
    assert sorted(path.name for path in (tmp_path / "zoo").iterdir()) == ["index.json", "little-1"]
    assert (entry.kind, entry.architecture, entry.classes, entry.seed, entry.version) == ("invertible", "nodes", 3, 3, 1)
    assert (entry.data.name, entry.data.examples) == ("arrays", 20)
    assert entry.preprocessing.model_dump() == {"image_shape": [1, 8, 8], "bits": 4, "pad": 0, "fixed_point": False}
    assert entry.reported == json.loads((run_folder / "results.json").read_text())
    assert {name: value.value for name, value in entry.measured.items()} == {name: entry.reported[name] for name in entry.measured}
    assert entry.measured["test.error"].tolerance == 0
    assert set(entry.measured) == {
        "test.error", "test.cross_entropy_nats", "test.bits_per_dim", "numerics.inverse_error_max"
    }  # fmt: skip
    original = flowclf.load(run_folder / "checkpoints" / "final")
    x = torch.randn(2, *original.input_shape)
    again = zoo.load("little-1", index=tmp_path / "zoo")
    assert not again.training
    assert torch.equal(again(x).logits, original(x).logits)
    assert zoo.load("little-1", index=tmp_path / "zoo", dtype=torch.float64).dtype == torch.float64


def test_the_card_tells_it_all(run_folder: Path, tmp_path: Path) -> None:
    entry = zoo.add(run_folder, name="little", to=tmp_path / "zoo")
    card = (tmp_path / "zoo" / "little" / "README.md").read_text()
    for words in [
        "# little\n",
        "A little recipe.",
        'flowclf.zoo.load("little")',
        "1 x 8 x 8 at 4 bits",
        f"{entry.parameters} parameters, 3 classes",
        "| `test.error` | " + f"{entry.reported['test.error']:.6g}",
        "| none |",
        "`test.chance_error` | 0.65",
        "![Metamers",
        "](metamers.png)",
        "flowclf recipe run recipe.yaml",
        "does **not** ship",
        "Seed 3; 90 seconds of training on",
        f"`{entry.files['model.safetensors'].sha256}`",
        "licence of the weights | MIT",
        "Excessive Invariance",
    ]:
        assert words in card, words
    assert "\n\n\n" not in card
    assert "{{" not in card


def test_where_the_recipe_comes_from(tmp_path: Path, run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = write_run(tmp_path / "changed", ("train.epochs=5", "train.optimizer.lr=0.1"))
    record = read_run(changed).record
    assert record.changed == ["train.epochs: 2 -> 5", "train.optimizer.lr: 0.001 -> 0.1"]
    assert not record.shipped
    assert read_run(run_folder).record.changed == []
    # As if flowclf shipped this recipe.
    monkeypatch.setattr("flowclf.recipe.bundled", lambda: ["little"])
    monkeypatch.setattr("flowclf.recipe.find", lambda name: run_folder / "recipe.yaml")
    run = read_run(run_folder)
    assert run.record.shipped
    assert run.record.sha256 == sha256(run_folder / "recipe.yaml")
    assert run.training.command == "flowclf recipe run little"
    shutil.copy(run_folder / "recipe.yaml", changed / "recipe.yaml")
    assert read_run(changed).training.command == "flowclf recipe run recipe.yaml"
    entry = zoo.add(changed, name="changed", to=tmp_path / "zoo")
    assert entry.recipe.shipped
    card = (tmp_path / "zoo" / "changed" / "README.md").read_text()
    assert "**changed** for this model" in card
    assert "- `train.epochs: 2 -> 5`\n" in card


@pytest.mark.parametrize("name", ["spheres-ce", "paper/mnist-ce"])
def test_a_shipped_recipe_is_known(name: str, run: Path) -> None:
    from flowclf import recipe

    loaded = recipe.load(name)
    (run / "recipe.yaml").write_text(f"# Comments say nothing.\n{loaded.source_text}")
    (run / "resolved.yaml").write_text(recipe.dump(loaded.recipe))
    found = read_run(run)
    assert found.record.shipped
    assert found.record.changed == []
    assert found.training.command == f"flowclf recipe run {name}"


def test_the_machine_and_the_figures(run: Path) -> None:
    environment = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps({**environment, "device": "A GPU", "threads": 1}))
    (run / "figures" / "metamers.png").unlink()
    found = read_run(run)
    assert found.training.machine.startswith("A GPU; 1 thread of ")
    assert [figure.name for figure in found.figures] == ["planes.png"]
    shutil.rmtree(run / "figures")
    assert read_run(run).figures == ()
    results = json.loads((run / "results.json").read_text())
    for seconds, expected in ((12, 12.0), (None, 0.0), ("soon", 0.0), (-1, 0.0)):
        (run / "results.json").write_text(json.dumps({**results, "seconds.train": seconds}))
        assert read_run(run).training.seconds == expected


# Replacing.


def test_replacing_counts_the_version_up(run_folder: Path, tmp_path: Path) -> None:
    to = tmp_path / "zoo"
    zoo.add(run_folder, name="one", to=to, licence="CC0-1.0", citation="me", aliases=["old"])
    zoo.add(run_folder, name="two", to=to)
    before = listing(to)
    with pytest.raises(UsageError, match="has a model 'one' already; --replace"):
        zoo.add(run_folder, name="one", to=to)
    for name, aliases in (("old", None), ("three", ["two"]), ("three", ["old"])):
        with pytest.raises(UsageError, match="belongs to the model"):
            zoo.add(run_folder, name=name, to=to, aliases=aliases, replace=True)
    assert listing(to) == before
    entry = zoo.add(run_folder, name="one", to=to, replace=True)
    assert (entry.version, entry.licence, entry.citation, entry.aliases) == (2, "CC0-1.0", "me", ["old"])
    assert [(one.name, one.version) for one in zoo.list(index=to)] == [("one", 2), ("two", 1)]
    assert zoo.load("one", index=to).classes == 3


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("where", ["write_json", "rename", "model_card"])
def test_what_fails_leaves_the_zoo_as_it_was(
    where: str, replace: bool, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo.add(run_folder, name="one", to=tmp_path / "zoo")
    before = listing(tmp_path / "zoo")

    def fail(*arguments: Any, **keywords: Any) -> Any:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr({"write_json": adding, "rename": Path, "model_card": cards}[where], where, fail)
        with pytest.raises(UnreachableError, match="No space left"):
            zoo.add(run_folder, name="one" if replace else "two", to=tmp_path / "zoo", replace=replace)
    assert listing(tmp_path / "zoo") == before
    assert sorted(os.listdir(tmp_path / "zoo")) == ["index.json", "one"]


# What is refused.


@pytest.mark.parametrize("name", ["", "One", "a_b", "-a", "../a", "a/b", "a\n", "x" * 101, "é"])
def test_names_that_are_not_allowed(name: str, run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="lower-case letters, digits and hyphens"):
        zoo.add(run_folder, name=name, to=tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


def test_weights_beyond_12_mb(run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert adding.MAX_WEIGHT_BYTES == 12_000_000
    monkeypatch.setattr(adding, "MAX_WEIGHT_BYTES", 100)
    with pytest.raises(UsageError, match=r"model\.safetensors: expected at most 100 bytes, found"):
        zoo.add(run_folder, name="large", to=tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


def test_what_is_no_finished_run(run: Path, tmp_path: Path) -> None:
    to = tmp_path / "zoo"
    with pytest.raises(UsageError, match="is not a run directory"):
        zoo.add(tmp_path, name="a", to=to)
    (run / "environment.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"environment\.json: expected a JSON object"):
        zoo.add(run, name="a", to=to)
    (run / "environment.json").write_text("{}")
    resolved = (run / "resolved.yaml").read_text()
    (run / "resolved.yaml").write_text("name: [")
    with pytest.raises(CheckpointError, match="the recipe of the run cannot be read"):
        zoo.add(run, name="a", to=to)
    (run / "resolved.yaml").write_text(resolved)
    (run / "checkpoints" / "final" / "model.safetensors").unlink()
    with pytest.raises(UnreachableError, match=r"model\.safetensors"):
        zoo.add(run, name="a", to=to)
    (run / "results.json").unlink()
    with pytest.raises(UsageError, match="the run has not finished; resume with"):
        zoo.add(run, name="a", to=to)
    assert not to.exists()


def test_a_model_that_does_not_do_what_the_run_reported(run: Path, tmp_path: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    for reported in (results["test.error"] + 0.2, None, "0.1"):
        (run / "results.json").write_text(json.dumps({**results, "test.error": reported}))
        with pytest.raises(VerificationError, match=f"the run reported test.error {reported}, but its stored model measures"):
            zoo.add(run, name="a", to=tmp_path / "zoo")
    assert list((tmp_path / "zoo").iterdir()) == []


def test_what_an_index_cannot_hold(run: Path, tmp_path: Path) -> None:
    for options in ({"aliases": ["Old"]}, {"aliases": ["a"]}, {"licence": "x" * 1000}, {"citation": "x" * 20_000}):
        with pytest.raises(UsageError, match="the model cannot be described in an index: "):
            zoo.add(run, name="a", to=tmp_path / "zoo", **options)  # type: ignore[arg-type]
    results = json.loads((run / "results.json").read_text())
    for value in ([1], {"a": 1}, float("nan"), "x" * 2000):
        (run / "results.json").write_text(json.dumps({**results, "more": value}))
        with pytest.raises(UsageError, match=r"the model cannot be described in an index: reported\.more"):
            zoo.add(run, name="a", to=tmp_path / "zoo")
    assert list((tmp_path / "zoo").iterdir()) == []


def test_a_folder_that_is_no_zoo(run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for to in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(UsageError, match="is not a zoo"):
            zoo.add(run_folder, name="a", to=to)
    assert (tmp_path / "notes.txt").read_text() == "mine"


# The command.


def test_the_command(run_folder: Path, tmp_path: Path, capsys: Any) -> None:
    command = ["zoo", "add", str(run_folder), "--name", "little", "--to", str(tmp_path / "zoo")]
    assert main([*command, "--alias", "small", "--licence", "CC0-1.0", "--citation", "me", "--json"]) == 0
    entry = zoo.info("little", index=tmp_path / "zoo")
    assert json.loads(capsys.readouterr().out) == json.loads(entry.model_dump_json())
    assert (entry.aliases, entry.licence, entry.citation) == (["small"], "CC0-1.0", "me")
    assert main(command) == 2
    assert "--replace" in capsys.readouterr().err
    assert main([*command, "--replace"]) == 0
    assert "version\t2" in capsys.readouterr().out
    assert main(["zoo", "add", str(run_folder)]) == 2


def test_a_limited_evaluation_is_not_added(run: Path, tmp_path: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps({**results, "evaluation.limit": 20}))
    with pytest.raises(UsageError, match="expected results on all test examples, found those of an evaluation limited to 20"):
        zoo.add(run, name="a", to=tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


def test_lists_of_results_stay_in_the_run(run: Path, tmp_path: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps({**results, "test.confusions": [["0", "1", 3]], "data.class_names": ["0", "1"]}))
    reported = zoo.add(run, name="a", to=tmp_path / "zoo").reported
    assert "test.error" in reported
    assert not {"test.confusions", "data.class_names"} & set(reported)
