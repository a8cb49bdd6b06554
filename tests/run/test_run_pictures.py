"""Classifying image files and drawing metamers, with a model that knows its data and one that does not."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import flowclf
from flowclf.classifier.typical import KEY, TypicalBits
from flowclf.cli.main import main
from flowclf.data import DataSet
from flowclf.errors import UsageError
from flowclf.recipe import load
from flowclf.run import metamers, predict


def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    """White on black: bright above or below."""
    labels = torch.arange(200) % 2
    images = torch.randint(0, 30, (200, 1, 8, 8))
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, 4 * label : 4 * label + 2] += 200
    return images.to(torch.uint8), labels


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model, and a.png and b.png of its data; not to be changed."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    images, labels = pictures()
    data = DataSet.from_arrays(images, labels, batch_size=32, validation=0.2, class_names=("above", "below"))
    nodes = [
        "squeeze",
        *2 * ["actnorm", "invertible_conv1x1", {"affine_coupling": {"subnet": {"conv": {"width": 8}}}}],
        "split_head",
    ]
    clf = flowclf.build_classifier((1, 8, 8), nodes, classes=2, class_names=data.class_names)
    loss = flowclf.losses.CrossEntropy() + flowclf.losses.FactorialPriorMLE()
    flowclf.fit(clf, loss, data, epochs=4, optimizer={"name": "adam", "lr": 0.01}, precision="fp32")
    flowclf.save(clf, folder / "model", metadata={"mine": 1})
    for name, index in (("a", 0), ("b", 1)):
        Image.fromarray(images[index, 0].numpy()).save(folder / f"{name}.png")
        Image.fromarray(255 - images[index, 0].numpy()).save(folder / f"inverted-{name}.png")
    np.savez(folder / "data.npz", images=images.numpy(), labels=labels.numpy(), class_names=np.array(data.class_names))
    return folder


def test_a_training_measures_what_is_typical_and_a_checkpoint_holds_it(folder: Path) -> None:
    metadata = json.loads((folder / "model" / "model.json").read_text())["metadata"]
    assert metadata["mine"] == 1
    clf = flowclf.load(folder / "model")
    typical = clf.typical_bits
    assert metadata[KEY] == typical.model_dump()
    assert (typical.data, typical.examples) == ("validation", 36)
    images, _ = pictures()
    bits = clf.preprocessing.bits_per_dim(clf.log_prob(clf.preprocessing(images / 255))).detach()
    assert typical.median == pytest.approx(float(bits.median()), rel=0.05)
    assert typical.high > typical.median
    assert float((bits > typical.limit).float().mean()) < 0.02
    assert not any(map(typical.is_unusual, bits[:20].tolist()))


def test_a_model_without_a_record_loads(folder: Path, tmp_path: Path) -> None:
    description = json.loads((folder / "model" / "model.json").read_text())
    weights = (folder / "model" / "model.safetensors").read_bytes()
    for name, metadata in {"older": {}, "strange": {KEY: 3.0}, "wrong": {KEY: {"median": "0"}}}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.json").write_text(json.dumps({**description, "metadata": metadata}))
        (tmp_path / name / "model.safetensors").write_bytes(weights)
        assert flowclf.load(tmp_path / name).typical_bits is None
        (answer,) = predict(str(tmp_path / name), [folder / "inverted-a.png"], "cpu")
        assert answer["unusual"] is answer["bits_per_dim_limit"] is None


def test_a_finished_run_of_an_earlier_version_has_its_results(folder: Path, tmp_path: Path) -> None:
    description = json.loads((folder / "model" / "model.json").read_text())
    final = tmp_path / "checkpoints" / "final"
    final.mkdir(parents=True)
    (final / "model.json").write_text(json.dumps({**description, "metadata": {}}))
    (final / "model.safetensors").write_bytes((folder / "model" / "model.safetensors").read_bytes())
    (tmp_path / "resolved.yaml").write_text(load("mnist-ce").source_text)
    for results in ({}, {"test.bits_per_dim": None}, {"test.bits_per_dim": "6"}, []):
        (tmp_path / "results.json").write_text(json.dumps(results))
        (answer,) = predict(str(tmp_path), [folder / "inverted-a.png"], "cpu")
        assert answer["unusual"] is None
    (tmp_path / "results.json").write_text('{"test.bits_per_dim": 6.5}')
    with pytest.warns(UserWarning, match="far above the 6.5 of"):
        (answer,) = predict(str(tmp_path), [folder / "inverted-a.png"], "cpu")
    assert answer["unusual"]


@pytest.mark.filterwarnings("always")
def test_a_model_of_the_zoo_has_its_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digit = flowclf.data.load("mnist").test.inputs[0, 0].numpy()
    for name, pixels in (("digit", digit), ("inverted", 255 - digit)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    files = [str(tmp_path / "digit.png"), str(tmp_path / "inverted.png")]
    assert main(["predict", "mnist-ice", *files, "--device", "cpu"]) == 0
    (warning,) = capsys.readouterr().err.splitlines()
    assert "inverted.png: 101 bits/dim is far above the 0.799 of" in warning
    assert "with light and dark exchanged it has 0.698" in warning


def test_the_mean_that_a_zoo_reports_serves_too() -> None:
    typical = TypicalBits.around(1.44)
    assert not typical.is_unusual(1.82)
    assert typical.is_unusual(4.57)
    assert typical.is_unusual(math.nan)


@pytest.mark.filterwarnings("always")
def test_pictures_unlike_the_data_are_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(folder / f"{name}.png") for name in ("a", "b", "inverted-a")]
    assert main(["predict", str(folder / "model"), *files, "--device", "cpu", "--json"]) == 0
    output = capsys.readouterr()
    answers = json.loads(output.out)
    assert [answer["file"] for answer in answers] == files
    assert [answer["class"] for answer in answers[:2]] == ["above", "below"]
    assert [answer["unusual"] for answer in answers] == [False, False, True]
    for answer in answers:
        assert sum(answer["probabilities"].values()) == pytest.approx(1)
        assert answer["probabilities"][answer["class"]] == answer["probability"] == max(answer["probabilities"].values())
    (warning,) = output.err.splitlines()
    assert warning.startswith(f"warning: {files[2]}: ")
    assert f"with light and dark exchanged it has {answers[0]['bits_per_dim']:.3g}" in warning
    assert main(["predict", str(folder / "model"), *files, "--device", "cpu"]) == 0
    output = capsys.readouterr()
    assert output.out.splitlines()[0] == "file\tclass\tprobability\tlog_likelihood_nats\tbits_per_dim"
    assert output.err.splitlines() == [warning]
    pair = ["--logits-of", files[0], "--nuisance-of", files[2], "--out", str(folder / "warned.png")]
    assert main(["metamers", str(folder / "model"), *pair, "--device", "cpu"]) == 0
    assert capsys.readouterr().err.splitlines() == [warning]


def test_a_metamer_alone_and_without_loss(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "metamer.png"
    results = metamers(str(folder / "model"), folder / "a.png", folder / "b.png", out, "cpu", bare=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metamer.npz", "metamer.png"]
    with np.load(out.with_suffix(".npz")) as archive:
        arrays = dict(archive)
    with Image.open(out) as image:
        assert np.array_equal(np.asarray(image), arrays["metamer"][0, 0])
    clf = flowclf.load(folder / "model")
    first, second = (flowclf.data.read_image(folder / f"{name}.png", (1, 8, 8))[None] / 255 for name in "ab")
    x_met = flowclf.metamers.metamer(clf, clf.preprocessing(first), clf.preprocessing(second))
    assert np.allclose(arrays["metamer_raw"], clf.preprocessing.inverse(x_met), atol=1e-6)
    assert np.array_equal(arrays["logits_of_raw"], first)
    assert np.array_equal(arrays["nuisance_of_raw"], second)
    assert np.array_equal(arrays["metamer_clipped"], arrays["metamer_raw"].clip(0, 1))
    assert np.array_equal(np.rint(255 * arrays["metamer_requantized"]), arrays["metamer"])
    for name in ("raw", "clipped", "requantized"):
        assert arrays[f"metamer_{name}"].dtype == arrays[f"metamer_{name}_logits"].dtype == np.float32
    assert arrays["metamer_requantized_logits"].argmax(1) == arrays["metamer_prediction"]
    change = np.abs(arrays["metamer_raw_logits"] - arrays["logits_of_raw_logits"]).max()
    assert results["logit_change"] == pytest.approx(change)
    assert change < 1e-4
    assert results["metamers"] == [
        {"file": str(out), "logits_of": "above", "nuisance_of": "below", "prediction": results["prediction"]}
    ]


def test_pairs_of_other_data_by_seed(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def drawn(seed: int, *more: str) -> dict[str, object]:
        arguments = ["--data", str(folder / "data.npz"), "--seed", str(seed), "--out", str(tmp_path / f"{seed}.png")]
        assert main(["metamers", str(folder / "model"), *arguments, *more, "--device", "cpu", "--json"]) == 0
        return dict(json.loads(capsys.readouterr().out))

    results = drawn(0, "--bare")
    assert results["files"] == [str(tmp_path / f"0-{number:02d}.png") for number in range(1, 13)]
    assert results["file"] == results["files"][0]
    assert all(flowclf.data.read_image(path, (1, 8, 8)).shape == (1, 8, 8) for path in results["files"])
    rows = results["metamers"]
    assert len(rows) == 12
    assert all({row["logits_of"], row["nuisance_of"]} == {"above", "below"} for row in rows)
    figure = drawn(1)
    assert figure["files"] == [str(tmp_path / "1.png")]
    one, other = (np.load(tmp_path / f"{seed}.npz")["logits_of_raw"] for seed in (0, 1))
    assert not np.array_equal(one, other)
    drawn(0)
    assert np.array_equal(np.load(tmp_path / "0.npz")["logits_of_raw"], one)
    assert main(["metamers", str(folder / "model")]) == 2
    assert "name the data set with --data" in capsys.readouterr().err


def test_what_cannot_be_written_is_told_before_the_model_is_opened(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "a.npz").mkdir()
    for out, words in (
        (tmp_path / "file" / "a.png", "file is not a folder"),
        (tmp_path / "a.png", r"a\.npz cannot be written: expected a file, found a folder"),
        (Path("/proc/a.png"), "/proc/a.png cannot be written"),
    ):
        with pytest.raises(UsageError, match=words):
            metamers("no model", out=out)
    with pytest.raises(UsageError, match="cannot be combined"):
        metamers("no model", tmp_path / "file", tmp_path / "file", data="mnist")
