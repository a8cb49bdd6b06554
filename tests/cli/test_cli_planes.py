"""``flowclf planes`` and ``flowclf example6``: what they print and write, and what they refuse."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

import flowclf
from flowclf.cli.main import main

Calls = list[tuple[Any, ...]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Calls:
    noted: Calls = []
    stand_in = types.ModuleType("flowclf.run")

    def planes(model: str, data: str | None, out: Path, seed: int, device: str, progress: Any, data_root: Any) -> dict[str, Any]:
        noted.append((model, data, out, seed, device))
        return {"file": str(out), "planes.distance": 12.25}

    vars(stand_in)["planes"] = planes
    monkeypatch.setitem(sys.modules, "flowclf.run", stand_in)
    monkeypatch.setitem(vars(flowclf), "run", stand_in)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    return noted


def test_planes(calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["planes", "model"]) == 0
    assert capsys.readouterr().out == "result\tvalue\nfile\tplanes.png\nplanes.distance\t12.25\n"
    assert main(["planes", "model", "--out", "p.png", "--data", "spheres", "--seed", "3", "--device", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"file": "p.png", "planes.distance": 12.25}
    assert calls == [("model", None, Path("planes.png"), 0, "auto"), ("model", "spheres", Path("p.png"), 3, "cpu")]


def test_planes_of_nothing(calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["planes", "modle"]) == 2
    assert "no file or directory modle" in capsys.readouterr().err
    assert main(["planes", "model", "--seed", "-1"]) == 2
    assert main(["planes"]) == 2
    assert calls == []


def test_example6(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["example6", "--points", "20000", "--dimension", "3", "--seed", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["data.error_low"] < 0.0824177 < found["data.error_high"]
    assert found["data.error_predicted"] == pytest.approx(0.0824177, abs=1e-7)
    assert (found["dimension"], found["points"], found["seed"]) == (3, 20000, 4)
    assert main(["example6", "--points", "1000"]) == 0
    lines = dict(line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert (lines["data.error"], lines["shifted.error"], lines["shifted.logit_change_max"]) == ("0", "0.5", "0")


def test_impossible_spheres(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["example6", "--points", "1001"]) == 2
    assert "even number of points" in capsys.readouterr().err
    assert main(["example6", "--inner", "3", "--outer", "2"]) == 2
    assert "0 < inner < outer, found 3.0 and 2.0" in capsys.readouterr().err
    assert main(["example6", "--dimension", "1"]) == 2
