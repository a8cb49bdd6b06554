"""Broken recipes through the real command line: exit code 2, the place, plain words, never a traceback."""

from __future__ import annotations

import re
import subprocess
import sys
import time

import pytest

from flowclf.cli.main import main
from flowclf.recipe import bundled

HEAD = "name: broken\ndata: {name: mnist}\nloss: {name: cross_entropy}\n"
MODEL = HEAD + "model: {name: firevnet}\n"


def model(text: str) -> str:
    return HEAD + "model:\n" + text


def train(text: str) -> str:
    return MODEL + "train: " + text + "\n"


BOMB = (
    "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    + HEAD
)

# id: (text or bytes, line:column of the first problem, what its message says)
CASES: dict[str, tuple[str | bytes, str, str]] = {
    # the file
    "empty file": ("", "1:1", "found nothing"),
    "only a comment": ("# nothing\n", "1:1", "found nothing"),
    "a list at the top": ("- name: a\n", "1:1", "found a list"),
    "text at the top": ("mnist\n", "1:1", "found text"),
    "bad UTF-8": (b"name: a\nseed: \xff\n", "2:7", "expected UTF-8, found the byte 0xff"),
    "UTF-16": ("name: a\n".encode("utf-16"), "1:1", "expected UTF-8"),
    "binary junk": (b"\x7fELF\x02\x01\x01\x00\x00", "1:1", "control character"),
    "a null character": ("name: a\x00b\n", "1:8", "control character"),
    "a pickle": (b"\x80\x04\x95\x10\x00\x00\x00", "1:1", "expected UTF-8"),
    "10 MB": ("name: a\n" + "# padding padding\n" * 600_000, "1:1", "expected at most 1 MB, found 10.8 MB"),
    # the syntax
    "a tab": ("name: a\ndata:\n\tname: mnist\n", "3:1", "found a tab"),
    "an open bracket": ("name: [a\n", "2:1", "expected YAML"),
    "an open quote": ("name: 'a\n", "2:1", "expected YAML"),
    "two values on a line": ("name: a: b\n", "1:8", "expected YAML"),
    "bad indentation": ("name: a\n data: b\n", "2:6", "expected YAML"),
    "an at sign": ("name: @a\n", "1:7", "must be in quotes"),
    "depth 2000 of lists": ("name: " + "[" * 2000 + "]" * 2000 + "\n", "1:46", "nested more than 40 levels deep"),
    "depth 2000 of mappings": ("".join(" " * i + "a:\n" for i in range(1000)), "41:41", "levels deep"),
    "too many values": ("name: [" + "1, " * 60_000 + "1]\n", "1:149999", "expected at most 50000 values"),
    "a duplicate key": (MODEL + "seed: 1\nseed: 2\n", "6:1", "the key 'seed' is given twice, first in line 5"),
    "a duplicate key deep down": (train("{epochs: 1, epochs: 2}"), "5:20", "the key 'epochs' is given twice"),
    "two documents": (MODEL + "---\n" + MODEL, "5:1", "expected one document"),
    "an anchor": (MODEL + "seed: &a 1\n", "5:7", "anchors are not allowed, found '&a'"),
    "an alias": ("name: &a b\ndescription: *a\n", "1:7", "anchors are not allowed"),
    "an alias bomb": (BOMB, "1:4", "anchors are not allowed"),
    "a merge key": (MODEL + "<<: {seed: 1}\n", "5:1", "unknown key '<<'"),
    "a python tag": (MODEL + "seed: !!python/object/apply:os.system [ls]\n", "5:7", "tags are not allowed"),
    "a harmless tag": (MODEL + "seed: !!int 3\n", "5:7", "tags are not allowed"),
    "a private tag": (MODEL + "seed: !secret 3\n", "5:7", "tags are not allowed"),
    "a list as a key": (MODEL + "? [a]\n: 1\n", "5:3", "expected a key"),
    "a number as a key": (MODEL + "3: 1\n", "5:1", "expected a key that is text, found 3"),
    "true as a key": (MODEL + "true: 1\n", "5:1", "expected a key that is text, found true"),
    "NaN": (train("{gradient_clip: .nan}"), "5:24", "expected a finite number, found .nan"),
    "infinity": (train("{gradient_clip: -.inf}"), "5:24", "expected a finite number, found -.inf"),
    "an infinite literal": (train("{gradient_clip: 1e999}"), "5:24", "expected a finite number, found 1e999"),
    "an enormous integer": (MODEL + f"seed: {'9' * 5000}\n", "5:7", "expected an integer of at most 64 bits"),
    # the top
    "no name": (MODEL.replace("name: broken\n", ""), "1:1", "name: missing (Name of the folder of its runs)"),
    "no data": ("name: a\nmodel: {name: firevnet}\nloss: {name: cross_entropy}\n", "1:1", "data: missing"),
    "no model": (HEAD, "1:1", "model: missing"),
    "a name that is no slug": (MODEL.replace("broken", "../../etc"), "1:7", "expected lower-case letters and digits"),
    "an unknown section": (MODEL + "trian: {epochs: 1}\n", "5:1", "unknown key 'trian'; did you mean 'train'?"),
    "an empty section": (MODEL + "train:\n", "5:7", "train: expected a mapping, found null"),
    "a section that is a list": (MODEL + "train: [1]\n", "5:8", "train: expected a mapping, found a list"),
    "a negative seed": (MODEL + "seed: -1\n", "5:7", "Input should be greater than or equal to 0, found -1"),
    "a seed in quotes": (MODEL + "seed: '1'\n", "5:7", "Input should be a valid integer, found '1'"),
    # training
    "epochs: true": (train("{epochs: true}"), "5:17", "Input should be a valid integer, found true"),
    "epochs: 1.5": (train("{epochs: 1.5}"), "5:17", "Input should be a valid integer, found 1.5"),
    "epochs: 0": (train("{epochs: 0}"), "5:17", "Input should be greater than or equal to 1, found 0"),
    "epochs as sexagesimal": (train("{epochs: 1:30}"), "5:17", "Input should be a valid integer, found '1:30'"),
    "an unknown optimiser": (train("{optimizer: {name: adamx}}"), "5:27", "unknown optimizer 'adamx'; did you mean 'adamax'?"),
    "an option of another optimiser": (
        train("{optimizer: {name: sgd, betas: [0.9, 0.99]}}"),
        "5:32",
        "unknown key 'betas'; valid are",
    ),
    "three betas": (train("{optimizer: {name: adam, betas: [0.9, 0.9, 0.9]}}"), "5:40", "at most 2 items"),
    "a beta of 1": (train("{optimizer: {name: adam, betas: [0.9, 1]}}"), "5:46", "Input should be less than 1, found 1"),
    "a negative rate": (train("{optimizer: {lr: -1e-3}}"), "5:25", "Input should be greater than 0, found -0.001"),
    "an optimiser as text": (train("{optimizer: sgd}"), "5:20", "found 'sgd'; write {name: sgd}"),
    "an argument of another schedule": (train("{schedule: {name: cosine, peak: 0.3}}"), "5:34", "unknown key 'peak'"),
    "a decay rate of 1": (train("{optimizer: {betas: [0.9, 1]}}"), "5:34", "Input should be less than 1, found 1"),
    "an unknown schedule": (train("{schedule: {name: onecycle}}"), "5:26", "did you mean 'one_cycle'?"),
    "precision fp16": (train("{precision: fp16}"), "5:20", "Input should be 'auto', 'fp32' or 'bf16', found 'fp16'"),
    "an EMA of 1": (train("{ema: 1}"), "5:14", "Input should be less than 1, found 1"),
    "an unknown protocol": (MODEL + "evaluate: {protocol: slow}\n", "5:22", "Input should be 'quick' or 'full', found 'slow'"),
    # data
    "an unknown data set": (MODEL.replace("mnist", "minst"), "2:14", "unknown data set 'minst'; did you mean 'mnist'?"),
    "a data set without a name": (MODEL.replace("{name: mnist}", "{bits: 4}"), "2:1", "data.name: missing; expected the name"),
    "data as text": (MODEL.replace("{name: mnist}", "mnist"), "2:7", "found 'mnist'; write {name: mnist}"),
    "bits: 9": (
        MODEL.replace("{name: mnist}", "{name: mnist, bits: 9}"),
        "2:27",
        "Input should be less than or equal to 8, found 9",
    ),
    "flip: yes": (
        MODEL.replace("{name: mnist}", "{name: mnist, augment: {flip: yes}}"),
        "2:37",
        "Input should be a valid boolean, found 'yes'",
    ),
    "a data set without its folder": (MODEL.replace("mnist", "image_folder"), "2:1", "data.root: missing (the folder)"),
    # architectures and graphs
    "an unknown architecture": (model("  name: firevent\n"), "5:9", "unknown architecture 'firevent'; did you mean 'firevnet'?"),
    "an unknown argument": (model("  name: firevnet\n  widht: 3\n"), "6:3", "unknown key 'widht'; did you mean 'width'?"),
    "an argument of a wrong type": (
        model("  name: firevnet\n  width: [32, '64']\n"),
        "6:15",
        "Input should be a valid integer, found '64'",
    ),
    "an import path": (model("  name: os.system\n"), "5:9", "unknown architecture 'os.system'"),
    "an unknown node": (model("  - sqeeze\n"), "5:5", "unknown node 'sqeeze'; did you mean 'squeeze'?"),
    "an unknown argument of a node": (
        model("  - affine_coupling: {subnet: {conv: {widht: 3}}}\n"),
        "5:39",
        "model.0.affine_coupling.subnet.conv.widht: unknown key 'widht'; did you mean 'width'?",
    ),
    "an unknown subnet": (model("  - affine_coupling: {subnet: cnv}\n"), "5:31", "unknown subnet 'cnv'; did you mean 'conv'?"),
    "a node of two names": (model("  - {squeeze: {}, actnorm: {}}\n"), "5:5", "found a mapping of 2 keys: squeeze, actnorm"),
    "a node that only code can make": (model("  - nflows: {}\n"), "5:5", "an object that only code can give"),
    "a node without arguments": (model("  - squeeze:\n"), "5:13", "without arguments, write 'squeeze' alone"),
    "what the builder supplies": (model("  - split_head: {classes: 3}\n"), "5:18", "unknown key 'classes'"),
    "no nodes": (HEAD + "model: []\n", "4:8", "expected a list of at least one node, found an empty list"),
    "repeat: true": (model("  - {repeat: true, nodes: [squeeze]}\n"), "5:14", "expected an integer of at least 1, found true"),
    "a repeat of nothing": (model("  - {repeat: 2}\n"), "5:5", "model.0.nodes: missing"),
    "a repeat with another key": (model("  - {repeat: 2, node: [squeeze], nodes: [squeeze]}\n"), "5:17", "did you mean 'nodes'?"),
    "a billion nodes": (
        model("  - {repeat: 1000, nodes: [{repeat: 1000, nodes: [{repeat: 1000, nodes: [squeeze]}]}]}\n"),
        "5:3",
        "expected at most 10000 nodes, repeats unrolled; found 1000000000",
    ),
    "repeats nested too deep": (
        model("  - " + "{repeat: 1, nodes: [" * 15 + "squeeze" + "]}" * 15 + "\n"),
        "5:224",
        "expected repeats nested at most 10 deep",
    ),
    # losses
    "an unknown loss": (MODEL.replace("cross_entropy", "crossentropy"), "3:14", "did you mean 'cross_entropy'?"),
    "a nested argument spelled flat": (
        MODEL.replace("{name: cross_entropy}", "{name: independence_cross_entropy, nuisance: {steps: 1}, nuisance_weight: 1}"),
        "3:64",
        "unknown key 'nuisance_weight'; did you mean 'nuisance'?",
    ),
    "a flat argument spelled nested": (
        MODEL.replace("{name: cross_entropy}", "{name: cross_entropy, label: {smoothing: 0.1}}"),
        "3:29",
        "unknown key 'label'; valid are class_weights, label_smoothing, name",
    ),
    "a nested section with a wrong key": (
        MODEL.replace("{name: cross_entropy}", "{name: independence_cross_entropy, nuisance: {stpes: 3}}"),
        "3:53",
        "loss.nuisance.stpes: unknown key 'stpes'; did you mean 'steps'?",
    ),
    "a nested section with a wrong value": (
        MODEL.replace("{name: cross_entropy}", "{name: independence_cross_entropy, nuisance: {hidden: [8, 0]}}"),
        "3:65",
        "loss.nuisance.hidden.1: Input should be greater than or equal to 1, found 0",
    ),
    "a nested section that is none": (
        MODEL.replace("{name: cross_entropy}", "{name: independence_cross_entropy, nuisance: 3}"),
        "3:52",
        "loss.nuisance: expected a mapping, found 3",
    ),
    "a weight outside a sum": (
        MODEL.replace("{name: cross_entropy}", "{name: cross_entropy, weight: 2}"),
        "3:29",
        "unknown key 'weight'",
    ),
    "a wrong term of a sum": (
        MODEL.replace("{name: cross_entropy}", "[{name: cross_entropy, weight: -1}]"),
        "3:38",
        "loss.0.weight: Input should be greater than or equal to 0, found -1",
    ),
    "no losses": (MODEL.replace("{name: cross_entropy}", "[]"), "3:7", "at least 1 item"),
}


def test_there_are_at_least_fifty_kinds() -> None:
    assert len(CASES) >= 50


@pytest.mark.parametrize("case", CASES)
def test_a_broken_recipe_is_refused_at_its_place(case, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text, place, words = CASES[case]
    (tmp_path / "broken.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    started = time.perf_counter()
    code = main(["recipe", "run", "broken.yaml"])
    seconds = time.perf_counter() - started
    output = capsys.readouterr()
    assert code == 2
    assert output.out == ""
    assert output.err.startswith(f"broken.yaml:{place}: ")
    assert words in output.err.splitlines()[0]
    for foreign in ("Traceback", "pydantic", "errors.pydantic.dev", "input_value"):
        assert foreign not in output.err
    assert seconds < 2
    assert list(tmp_path.iterdir()) == [tmp_path / "broken.yaml"]


def test_all_errors_come_at_once_and_in_order(tmp_path, capsys):
    path = tmp_path / "r.yaml"
    path.write_text(
        "name: Broken\n"
        "data: {name: mnist, batch: 3, bits: 0}\n"
        "model:\n"
        "  - sqeeze\n"
        "  - affine_coupling: {bound: 0, subnet: {conv: {width: true}}}\n"
        "loss: [{name: cross_entropy, weight: x}, {name: nothing}]\n"
        "train: {epochs: true, optimizer: {lr: no}, schedule: {name: step, peak: 0.3}}\n"
        "evaluate: {protocol: 3}\n"
        "extra: 1\n"
    )
    assert main(["recipe", "validate", str(path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    places = [re.match(re.escape(str(path)) + r":(\d+):(\d+): ([\w.]+): ", line) for line in lines]
    assert all(places)
    assert [match[3] for match in places if match] == [
        "name",
        "data.batch",
        "data.bits",
        "model.0",
        "model.1.affine_coupling.bound",
        "model.1.affine_coupling.subnet.conv.width",
        "loss.0.weight",
        "loss.1.name",
        "train.epochs",
        "train.optimizer.lr",
        "train.schedule.peak",
        "evaluate.protocol",
        "extra",
    ]
    positions = [(int(match[1]), int(match[2])) for match in places if match]
    assert positions == sorted(positions)


@pytest.mark.parametrize(
    "text",
    [
        MODEL + "".join(f"key{i}: {i}\n" for i in range(20_000)),
        HEAD + "model:\n" + "".join(f"  - sqeeze{i}\n" for i in range(20_000)),
        HEAD + "model:\n  name: firevnet\n  width: [" + "x, " * 20_000 + "1]\n",
        MODEL.replace("{name: cross_entropy}", "[" + "{name: nothing}, " * 90 + "{name: nothing}]"),
        HEAD + "model:\n" + "  - actnorm\n" * 20_000,
    ],
    ids=["unknown keys", "unknown nodes", "wrong items", "unknown losses", "too many nodes"],
)
def test_a_recipe_that_is_wrong_throughout_is_refused_soon_and_shortly(text, tmp_path, capsys):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    started = time.process_time()
    assert main(["recipe", "validate", str(path)]) == 2
    assert time.process_time() - started < 2
    lines = capsys.readouterr().err.splitlines()
    assert 1 <= len(lines) <= 51
    assert max(map(len, lines)) < 600


@pytest.mark.parametrize("name", bundled())
def test_a_bundled_recipe_is_valid(name, capsys):
    assert main(["recipe", "validate", name]) == 0
    assert capsys.readouterr().out == f"{name}: valid\n"


@pytest.mark.parametrize(
    ("text", "limit", "light"),
    [
        (BOMB, 1, True),
        ("name: " + "[" * 2000, 1, True),
        (train("{epochs: true}"), 8, False),
        (model("  - sqeeze\n"), 8, False),
    ],
    ids=["bomb", "deep", "type", "node"],
)
def test_the_program_refuses_soon_and_what_is_no_recipe_without_torch(text, limit, light, tmp_path):
    (tmp_path / "r.yaml").write_text(text)
    program = (
        "import sys, time; from flowclf.cli.main import main; code = main(['recipe', 'run', 'r.yaml']);"
        "heavy = {'torch', 'numpy', 'FrEIA', 'rich'} & set(sys.modules); print(not heavy, time.process_time()); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "r.yaml:" in done.stderr
    assert "Traceback" not in done.stderr
    is_light, seconds = done.stdout.split()
    assert is_light == "True" or not light
    assert float(seconds) < limit
