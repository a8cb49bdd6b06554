"""What is known of a command's duration is said before torch is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flowclf.cli.expectations import say_cost_of_recipe, say_time_of_evaluation
from flowclf.recipe import cost


def test_a_recipe_says_its_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    say_cost_of_recipe("spheres-ce")
    assert capsys.readouterr().err == "cost, by the recipe's own account: 3 minutes on one core.\n"
    mine = tmp_path / "mine.yaml"
    comments = "# flowclf recipe run mine.yaml\n# Cost: 2 hours on a good machine,\n# 2.5 on mine. Result: none.\n"
    mine.write_text(f"{comments}name: mine\n# Cost: no.\n")
    assert cost(mine) == "2 hours on a good machine, 2.5 on mine."
    mine.write_text("name: mine\n")
    assert cost(mine) == ""
    for quiet in (str(mine), "nothing"):
        say_cost_of_recipe(quiet)
        assert capsys.readouterr().err == ""


def test_a_run_and_a_model_of_the_zoo_say_how_long_they_were_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results.json"
    for content, expected in (
        (json.dumps({"seconds.evaluate": 130.0, "protocol": "full"}), "under protocol full, the evaluation took 130 seconds"),
        (json.dumps({"seconds.evaluate": 3.0, "protocol": "quick"}), ""),
        (json.dumps([1]), ""),
        ("{", ""),
    ):
        results.write_text(content)
        say_time_of_evaluation(str(tmp_path))
        assert expected in capsys.readouterr().err
    say_time_of_evaluation("mnist-best")
    assert "under protocol full, the evaluation took 3 minutes" in capsys.readouterr().err
    say_time_of_evaluation("nothing")
    assert capsys.readouterr().err == ""


def test_it_is_said_without_torch() -> None:
    code = "import sys; from flowclf.cli.expectations import *; say_time_of_evaluation('mnist-best'); say_cost_of_recipe('mnist')"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print('torch' in sys.modules)"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
    assert len(done.stderr.splitlines()) == 2
