"""How figures of one recipe vary from seed to seed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_paper_table2 import cells

from flowclf.cli.main import main
from flowclf.paper.seeds import table

RUN: dict[str, Any] = {
    "recipe": "mnist",
    "seed": 0,
    "protocol": "full",
    "data.bits": 4,
    "model.parameters": 1234,
    "test.error": 0.01,
    "test.error_low": 0.008,
    "test.error_high": 0.012,
    "probe.name": "conv",
    "metamers.oracle.donor": 0.9,
    "test.bits_per_dim": 1.0,
}
RUNS = [RUN, {**RUN, "seed": 1, "test.error": 0.02, "metamers.oracle.donor": 1.0}, {**RUN, "seed": 2, "test.error": 0.03}]


def test_another_seed_is_expected_where_students_t_puts_it() -> None:
    text = table(RUNS)
    # Mean 2, standard deviation 1, 4.303 for two degrees of freedom: 2 -+ 4.303 sqrt(4/3), and no share is below 0.
    assert cells(text, "error of the logits, test") == ["1.00 %", "2.00 %", "3.00 %", "2.00 %", "0.00 % to 6.97 %"]
    # 93.33 -+ 4.303 x 5.774 sqrt(4/3), and none above 1.
    expected = ["90.00 %", "100.00 %", "90.00 %", "93.33 %", "64.65 % to 100.00 %"]
    assert cells(text, "metamers that show the donor's class (attack success)") == expected
    assert cells(text, "bits/dim") == ["1.000"] * 4 + ["1.000 to 1.000"]
    assert "inverse error" not in text
    assert text.endswith("recipe mnist, 1,234 parameters, 4 bits, protocol full.")
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1


def test_what_evaluate_prints_has_no_seed() -> None:
    without = [{key: value for key, value in run.items() if key != "seed"} for run in RUNS]
    assert table(without).splitlines()[0] == "| | run 0 | run 1 | run 2 | mean | another seed, 95 % |"


def test_two_runs_say_nothing_of_a_third() -> None:
    assert cells(table(RUNS[:2]), "error of the logits, test") == ["1.00 %", "2.00 %", "1.50 %", "–"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 0}, "found seed 0, seed 0"),
        ({"seed": 1, "recipe": "mnist-ce"}, "found recipe mnist, mnist-ce"),
        ({"seed": 1, "protocol": "quick"}, "found protocol full, quick"),
    ],
)
def test_what_cannot_be_compared_is_said(
    change: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / "one.json", tmp_path / "other.json"]
    for path, run in zip(paths, (RUN, {**RUN, **change}), strict=True):
        path.write_text(json.dumps(run))
    assert main(["paper", "seeds", *map(str, paths)]) == 2
    assert message in capsys.readouterr().err


def test_one_run_is_too_few(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "one.json").write_text(json.dumps(RUN))
    assert main(["paper", "seeds", str(tmp_path / "one.json")]) == 2
    assert "at least two runs" in capsys.readouterr().err
