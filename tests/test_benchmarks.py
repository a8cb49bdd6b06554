"""The benchmarks at a size that takes seconds: every contender is the same function, and each command writes its table."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import accuracy, memory, step
from benchmarks.measuring import batch, build, parameter_bytes, rows, saved_bytes
from benchmarks.networks import CONTENDERS, REFERENCE, Size
from flowclf.fixed_point import on_grid

TINY = Size(12, 4, (3, 8, 8), 4)
ARGUMENTS = ["--blocks", "12", "--width", "4", "--side", "8", "--batch", "2", "--threads", "1"]
OURS = ["flowclf, store", "flowclf, recompute", "flowclf, recompute, fixed point"]

# Peers warn of what torch has deprecated since.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", CONTENDERS)
def test_every_contender_is_the_same_function(name: str) -> None:
    if not rows([name], [], "cpu")[0]:
        pytest.skip("needs the extra 'benchmarks'")
    network, reference = build(name, TINY), build(REFERENCE, TINY)
    x, labels = batch(TINY)
    assert on_grid(x)
    tolerance = 3e-2 if "bf16" in name else 1e-4 if "fixed" in name else 1e-5
    expected = reference.loss(x, labels)
    torch.testing.assert_close(network.loss(x.clone(), labels), expected, rtol=tolerance, atol=0)
    gradients = []
    for one in (network, reference):
        one.loss(x.clone(), labels).backward()
        gradients.append(accuracy.gradient(one, x, labels))
    assert float((gradients[0] - gradients[1]).norm() / gradients[1].norm()) < 3 * tolerance
    with torch.no_grad():
        again = network.decode([value.clone() for value in network.encode(x.clone())])
    torch.testing.assert_close(again, x, atol=0.0 if "fixed" in name else tolerance, rtol=0)


def test_recomputed_activations_are_not_counted_and_parameters_neither() -> None:
    x, labels = batch(TINY)
    saved = {name: saved_bytes(build(name, TINY), x, labels) for name in (REFERENCE, *OURS)}
    assert saved["flowclf, recompute"] < saved["flowclf, store"] / 3
    assert saved["flowclf, recompute"] >= x.nbytes
    assert parameter_bytes(build(REFERENCE, TINY)) == parameter_bytes(build("FrEIA, bf16 autocast", TINY)) > 0


def test_each_command_writes_its_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = [
        (step.main, ["--pairs", "2", "--clock", "cpu"], "1.00x"),
        (memory.main, ["--depths", "6"], "6 blocks, MB"),
        (accuracy.main, ["--steps", "1"], "0.0e+00"),
    ]
    for main, arguments, expected in commands:
        out = tmp_path / "table.md"
        main([*ARGUMENTS, *arguments, "--only", OURS[-1], "--out", str(out)])
        text = out.read_text(encoding="utf-8")
        assert text.startswith("# ")
        assert f"torch {torch.__version__}" in text
        assert f"| {OURS[-1]} |" in text
        assert expected in text
        assert text in capsys.readouterr().out


def test_rows_that_are_not_there_are_refused() -> None:
    with pytest.raises(SystemExit, match="unknown rows"):
        rows(["flowclf, hope"], [], "cpu")
    with pytest.raises(SystemExit, match="multiple of 6"):
        Size(10)
