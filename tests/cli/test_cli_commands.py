"""The commands, with a stand-in for the part of flowclf that trains."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

import flowclf
from flowclf.cli.main import main
from flowclf.errors import ChecksumError, InterruptedRunError, NonFiniteLossError
from flowclf.recipe import dump, load

RESULTS = {"test.error": 0.0123456789, "test.bits_per_dim": float("nan"), "seconds.total": 3, "figures": ["a.png"]}


class Calls(list[tuple[Any, ...]]):
    """Calls of the stand-in, and what it raises, if anything."""

    error: BaseException | None = None

    def note(self, *call: Any) -> None:
        self.append(call)
        if self.error is not None:
            raise self.error


@pytest.fixture
def calls(monkeypatch, tmp_path):
    # What a recipe says of its cost has tests of its own.
    monkeypatch.setattr("flowclf.cli.expectations.say_cost_of_recipe", lambda recipe: None)
    noted = Calls()
    stand_in = types.ModuleType("flowclf.run")

    def plan(loaded, device="auto"):
        noted.note("plan", loaded.recipe.name, device)
        return types.SimpleNamespace(text="the plan", data={"parameters": 3})

    def run(loaded, out, device, progress):
        noted.note("run", loaded.recipe.train.epochs, out, device)
        progress.message("training")
        return types.SimpleNamespace(folder=tmp_path / "done", results=RESULTS)

    def resume(folder, device, progress):
        noted.note("resume", folder, device)
        return types.SimpleNamespace(folder=folder, results=RESULTS)

    def evaluate_model(model, data, protocol, device, progress, oracle, data_root, *, limit, all_test, probes):
        further = [limit, all_test, *([probes] if probes else [])] if limit or all_test or probes else []
        noted.note("evaluate", model, data, protocol, device, oracle, *further)
        return RESULTS

    def predict(model, images, device):
        noted.note("predict", model, images, device)
        known = {"class": "[7]", "probability": 0.98765432, "probabilities": {"[7]": 0.98765432}, "unusual": None}
        return [{"file": str(path), **known} for path in images]

    def metamers(model, logits_of, nuisance_of, out, device, *, data, data_root, seed, bare):
        noted.note("metamers", model, logits_of, nuisance_of, out, device, data, data_root, seed, bare)
        return {"file": str(out), "files": [str(out)], "metamers": [{"prediction": "7"}]}

    for function in (plan, run, resume, evaluate_model, predict, metamers):
        setattr(stand_in, function.__name__, function)
    monkeypatch.setitem(sys.modules, "flowclf.run", stand_in)
    monkeypatch.setitem(vars(flowclf), "run", stand_in)
    monkeypatch.chdir(tmp_path)
    return noted


@pytest.fixture
def model(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "a.png").touch()
    (tmp_path / "b.png").touch()
    return "model"


# run


def test_a_run(calls, capsys):
    assert (
        main(["recipe", "run", "mnist", "--set", "train.epochs=3", "--set", "train.epochs=4", "--out", "there", "--device", "cpu"])
        == 0
    )
    assert calls == [("run", 4, Path("there"), "cpu")]
    output = capsys.readouterr()
    lines = dict(line.split("\t") for line in output.out.splitlines())
    assert lines["run.directory"].endswith("done")
    assert lines["test.error"] == "0.0123457"
    assert output.out.splitlines()[-1] == f"run.report\t{Path(lines['run.directory']) / 'report.html'}"
    assert output.err == "training\n"


def test_a_run_as_json(calls, capsys):
    assert main(["recipe", "run", "mnist", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["test.error"] == RESULTS["test.error"]
    assert document["test.bits_per_dim"] is None
    assert document["run.directory"].endswith("done")


def test_a_dry_run(calls, capsys, tmp_path):
    assert main(["recipe", "run", "mnist", "--dry-run"]) == 0
    assert capsys.readouterr().out == "the plan\n"
    assert main(["recipe", "run", "mnist", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"parameters": 3}
    assert calls == [("plan", "mnist", "auto")] * 2
    assert list(tmp_path.iterdir()) == []


def test_resuming(calls, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "resolved.yaml").write_text(dump(load("mnist", ["train.epochs=2"]).recipe))
    assert main(["recipe", "run", "--resume", "run"]) == 0
    assert main(["recipe", "run", "mnist", "--set", "train.epochs=2", "--resume", "run", "--device", "cpu"]) == 0
    assert calls == [("resume", Path("run"), "auto"), ("resume", Path("run"), "cpu")]
    capsys.readouterr()
    for arguments, words in [
        (["mnist"], "differs in: train"),
        (["mnist-ce", "--set", "train.epochs=2"], "differs in: name, description"),
        (["--set", "train.epochs=2"], "cannot be combined with --set"),
        (["--out", "elsewhere"], "cannot be combined with --out"),
        (["--dry-run"], "cannot be combined with --dry-run"),
    ]:
        assert main(["recipe", "run", *arguments, "--resume", "run"]) == 2
        assert words in capsys.readouterr().err
    assert main(["recipe", "run", "--resume", "absent"]) == 2
    assert "has no resolved.yaml" in capsys.readouterr().err
    (tmp_path / "run" / "resolved.yaml").write_text("name: [")
    assert main(["recipe", "run", "mnist", "--resume", "run"]) == 1
    assert "the recipe of the run cannot be read" in capsys.readouterr().err
    assert len(calls) == 2


# the other commands on recipes


def test_list_and_show(capsys):
    assert main(["recipe", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "name\tdescription"
    assert any(line.startswith("mnist\t") for line in lines)
    assert main(["recipe", "show", "mnist"]) == 0
    assert capsys.readouterr().out == load("mnist").source_text
    assert main(["recipe", "show", "mnits"]) == 2
    assert capsys.readouterr().err == "error: there is no file mnits, and no bundled recipe of that name; did you mean 'mnist'?\n"


def test_validate_goes_on_after_an_invalid_recipe(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.yaml").write_text("name: 3\n")
    assert main(["recipe", "validate", "bad.yaml", "absent", "mnist"]) == 2
    output = capsys.readouterr()
    assert output.out == "mnist: valid\n"
    assert output.err.splitlines()[0] == "bad.yaml:1:1: data: missing (The data set, by name)"
    assert output.err.splitlines()[-1].startswith("error: there is no file absent")


def test_a_list_on_a_terminal_is_a_table(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["recipe", "list"]) == 0
    assert "\t" not in (out := capsys.readouterr().out)
    assert "mnist-ce" in out


# models


def test_evaluate(calls, model, capsys):
    assert main(["evaluate", model]) == 0
    assert "test.error\t0.0123457" in capsys.readouterr().out
    assert main(["evaluate", model, "--data", "mnist", "--protocol", "full", "--device", "cuda", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == RESULTS | {"test.bits_per_dim": None}
    assert main(["evaluate", model, "--protocol", "full", "--oracle", model]) == 0
    assert main(["evaluate", model, "--data", model, "--all-test", "--limit", "20"]) == 0
    assert main(["evaluate", model, "--probes", "mlp, conv"]) == 0
    assert calls == [
        ("evaluate", "model", None, "quick", "auto", None),
        ("evaluate", "model", "mnist", "full", "cuda", None),
        ("evaluate", "model", None, "full", "auto", "model"),
        ("evaluate", "model", "model", "quick", "auto", None, 20, True),
        ("evaluate", "model", None, "quick", "auto", None, None, False, ["mlp", "conv"]),
    ]


def test_predict(calls, model, capsys):
    assert main(["predict", model, "a.png", "b.png"]) == 0
    assert capsys.readouterr().out == "file\tclass\tprobability\na.png\t[7]\t0.987654\nb.png\t[7]\t0.987654\n"
    assert calls == [("predict", "model", [Path("a.png"), Path("b.png")], "auto")]


def test_predict_as_json(calls, model, capsys):
    assert main(["predict", model, "a.png", "b.png", "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert [answer["file"] for answer in answers] == ["a.png", "b.png"]
    assert answers[0]["probabilities"] == {"[7]": 0.98765432}


def test_metamers(calls, model, capsys):
    assert main(["metamers", model]) == 0
    assert capsys.readouterr().out == "result\tvalue\nfile\tmetamers.png\n"
    assert main(["metamers", model, "--logits-of", "a.png", "--nuisance-of", "b.png", "--out", "m.png", "--bare"]) == 0
    capsys.readouterr()
    assert main(["metamers", model, "--data", "mnist", "--data-root", "a.png", "--seed", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metamers"] == [{"prediction": "7"}]
    assert calls == [
        ("metamers", "model", None, None, Path("metamers.png"), "auto", None, None, 0, False),
        ("metamers", "model", Path("a.png"), Path("b.png"), Path("m.png"), "auto", None, None, 0, True),
        ("metamers", "model", None, None, Path("metamers.png"), "auto", "mnist", Path("a.png"), 3, False),
    ]


def test_a_folder_is_no_image(calls, model, capsys):
    assert main(["predict", model, "a.png", "model"]) == 2
    assert capsys.readouterr().err == "error: expected a file, found the folder model\n"
    assert calls == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "absent"],
        ["evaluate", "model", "--oracle", "absent"],
        ["predict", "absent", "a.png"],
        ["predict", "model", "absent.png"],
        ["metamers", "model", "--logits-of", "absent.png", "--nuisance-of", "a.png"],
    ],
)
def test_a_path_that_is_not_there(arguments, calls, model, capsys):
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("error: there is no file or directory")
    assert calls == []


# usage and exit codes


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing"],
        ["recipe", "nothing"],
        ["recipe", "run", "--nothing"],
        ["recipe", "run"],
        ["recipe", "run", "mnist", "mnist"],
        ["recipe", "run", "mnist", "--device", "tpu"],
        ["recipe", "validate"],
        ["recipe", "show"],
        ["evaluate"],
        ["evaluate", "model", "--protocol", "slow"],
        ["predict", "model"],
    ],
)
def test_wrong_usage(arguments, calls, model, capsys):
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "rror: " in output.err
    assert calls == []


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (NonFiniteLossError("step 3: the loss is not finite"), 1, "error: step 3: the loss is not finite\n"),
        (ChecksumError("f: expected SHA-256 a, found b"), 3, "error: f: expected SHA-256 a, found b\n"),
        (InterruptedRunError("saved", 2), 130, "saved\n"),
        (InterruptedRunError("saved", 15), 143, "saved\n"),
        (KeyboardInterrupt(), 130, ""),
        (PermissionError(13, "Permission denied", "out/a.json"), 1, "error: out/a.json: Permission denied\n"),
        (OSError(28, "No space left on device"), 1, "error: No space left on device\n"),
        (BrokenPipeError(32, "Broken pipe"), 1, ""),
    ],
)
def test_an_error_has_its_code_and_no_traceback(error, code, words, calls, capsys):
    calls.error = error
    assert main(["recipe", "run", "mnist"]) == code
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == words


def test_a_defect_shows_its_traceback(calls):
    calls.error = ZeroDivisionError("a defect")
    with pytest.raises(ZeroDivisionError):
        main(["recipe", "run", "mnist"])


def test_the_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"flowclf {flowclf.__version__}\n"


@pytest.mark.parametrize(
    "arguments", [["--help"], ["recipe", "run", "--help"], ["recipe", "list"], ["recipe", "show", "mnist"], ["--version"]]
)
def test_no_command_without_a_model_imports_torch(arguments):
    program = (
        "import sys\nfrom flowclf.cli.main import main\n"
        f"code = main({arguments!r})\n"
        "print(sorted({'torch', 'numpy', 'FrEIA', 'jinja2', 'rich'} & set(sys.modules)), file=sys.stderr)\n"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stderr == "[]\n"


def test_a_reader_that_goes_away_is_met_with_silence():
    command = f"{sys.executable} -m flowclf.cli.main recipe schema | head -c 10; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stdout == '{\n  "$sche'
    assert done.stderr == ""
    assert done.returncode == 1


def command(*arguments: str, shell: str = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    line = shlex.join([sys.executable, "-m", "flowclf.cli.main", *arguments])
    return subprocess.run(["bash", "-c", f"{line} {shell}"], capture_output=True, check=False, env={**os.environ, **environment})


@pytest.mark.parametrize("encoding", ["ascii"])
def test_a_terminal_that_lacks_characters(encoding, tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("name: \u732b\u2013 # \u732b\n", encoding="utf-8")
    shown = command("recipe", "show", str(recipe), PYTHONIOENCODING=encoding)
    assert shown.stdout == recipe.read_bytes()
    refused = command("recipe", "validate", str(recipe), PYTHONIOENCODING=encoding)
    assert refused.returncode == 2
    assert rb"found '\u732b\u2013'" in refused.stderr
    assert b"Traceback" not in refused.stderr
    program = "from flowclf.cli.main import _prepare_streams; from flowclf.cli.output import print_results; _prepare_streams(); "
    table = [sys.executable, "-c", program + "print_results({'\u732b': 1})"]
    printed = subprocess.run(table, capture_output=True, check=False, env={**os.environ, "PYTHONIOENCODING": encoding})
    assert printed.stdout.splitlines()[-1] == rb"\u732b" + b"\t1"


def test_a_name_of_a_file_that_is_not_text(tmp_path):
    missing = command("predict", "mnist-ce", os.fsdecode(os.fsencode(tmp_path / "a") + b"\xff.png"))
    assert (missing.returncode, missing.stdout) == (2, b"")
    assert rb"a\udcff.png" in missing.stderr


def test_an_output_that_is_full_or_closed():
    full = command("recipe", "list", shell="> /dev/full")
    assert full.returncode == 1
    assert full.stderr.startswith(b"error: ")
    assert full.stderr.endswith(b"No space left on device\n")
    closed = command("recipe", "list", shell=">&-")
    assert (closed.returncode, closed.stderr) == (0, b"")
