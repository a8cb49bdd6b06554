"""The paper's Table 2 beside results of runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flowclf.cli.main import main
from flowclf.paper.table2 import table

CE: dict[str, Any] = {
    "recipe": "mnist-ce",
    "seed": 0,
    "protocol": "full",
    "data.bits": 4,
    "model.parameters": 1234,
    "test.error": 0.0081,
    "test.error_low": 0.0065,
    "test.error_high": 0.0101,
    "test.chance_error": 0.8865,
    "train.error": 0.0012,
    "probe.name": "conv",
    "probe.test_error": 0.0079,
}
ICE: dict[str, Any] = {
    **CE,
    "recipe": "mnist",
    "test.bits_per_dim": 1.2345,
    "probe.mutual_information_nats": 0.75,
    "numerics.inverse_error_max": 3.21e-5,
    "metamers.oracle.donor": 0.4,
    "metamers.oracle.test_error": 0.0031,
}


def cells(text: str, row: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {row} |")]
    return [cell.strip() for cell in line.split("|")[2:-1]]


def test_the_papers_columns_stand_beside_ours() -> None:
    text = table(CE, ICE)
    assert cells(text, "error of the logits, test") == ["0.39 %", "0.81 % (0.65 to 1.01)", "0.38 %", "0.81 % (0.65 to 1.01)"]
    assert cells(text, "error of a probe on the nuisances, test") == ["0.34 %", "0.79 %", "27.70 %", "0.79 %"]
    assert cells(text, "error of a probe on the nuisances, training") == ["0.00 %", "–", "40.21 %", "–"]
    assert cells(text, "I(class; nuisances) at least, nats") == ["–", "–", "–", "0.750"]
    assert cells(text, "metamers that show the donor's class (attack success)") == ["–", "–", "–", "40.00 %"]
    assert cells(text, "bits/dim") == ["–", "–", "–", "1.234"]
    assert cells(text, "largest inverse error") == ["–", "–", "–", "3.2e-05"]
    assert "CE: recipe mnist-ce, seed 0, 1,234 parameters, 4 bits, protocol full, probe conv." in text
    assert "Chance is 88.65 %; the oracle's error is 0.31 %." in text
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1


def test_runs_and_files_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.json").write_text(json.dumps(CE))
    (tmp_path / "ice.json").write_text(json.dumps(ICE))
    arguments = [str(tmp_path / "run"), str(tmp_path / "ice.json")]
    assert main(["paper", "table2", *arguments]) == 0
    assert capsys.readouterr().out == table(CE, ICE) + "\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "found no results.json"), ("{", "is not JSON"), ("[]", "expected a JSON object, found list")],
)
def test_what_cannot_be_read_is_said(content: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    assert main(["paper", "table2", str(tmp_path), str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
