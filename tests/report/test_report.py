from __future__ import annotations

import base64
import html
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowclf.errors import DataError
from flowclf.evaluation import Evaluation
from flowclf.figures import FigureFile, write_figures
from flowclf.report import write_report

RESULTS: dict[str, Any] = {
    "recipe": "mnist",
    "seed": 0,
    "protocol": "quick",
    "data.name": "mnist",
    "data.bits": 4,
    "model.parameters": 1234567,
    "test.error": 0.0142,
    "test.error_low": 0.0121,
    "test.error_high": 0.0167,
    "test.chance_error": 0.8865,
    "test.examples": 10_000,
    "test.bits_per_dim": 1.26,
    "probe.test_error": 0.277,
    "probe.mlp.test_error": 0.277,
    "probe.mutual_information_nats": 1.4,
    "probe.entropy_nats": 2.3,
    "numerics.inverse_error_max": 3.2e-5,
    "numerics.forward_inverse_error_max": None,
    "metamers.pairs": 1000,
    "metamers.logit_change_max": 2.1e-4,
    "metamers.prediction_kept_8bit": 0.931,
    "metamers.pixels_out_of_range": 0.03,
    "seconds.train": 512.3,
    "mine.margin": 0.123456,
}


class Tags(HTMLParser):
    """Fails on a tag that is closed out of order, and lists what a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(text: str) -> Tags:
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    return tags


def words(text: str) -> str:
    """What a person reads: no tags, no style, plain spaces."""
    body = re.sub(r"<style>.*?</style>|<[^>]+>", " ", text, flags=re.DOTALL)
    return re.sub(r"\s+", " ", html.unescape(body).replace("\u00a0", " "))


def figures(folder: Path) -> list[FigureFile]:
    calibration = {"counts": np.ones(2), "confidence": np.array([0.2, 0.8]), "accuracy": np.array([0.3, 0.7])}
    return write_figures(folder, Evaluation({}, {"calibration": calibration}, ("a", "b")))


def test_a_report_is_one_file_that_loads_nothing(tmp_path: Path) -> None:
    drawn = figures(tmp_path / "figures")
    path = write_report(
        tmp_path,
        results=RESULTS,
        figures=drawn,
        rows=[{"epoch": 1, "validation.error": 0.5}],
        recipe_text="name: mnist\n",
        resolved_text="name: mnist\nseed: 0\n",
        environment={"torch": "2.13.0", "cores": 2, "gpu": None},
        model_text="InvertibleClassifier: 1x28x28",
        command="flowclf recipe run resolved.yaml",
    )
    assert path == tmp_path / "report.html"
    text = path.read_text(encoding="utf-8")
    tags = parsed(text)
    assert "http" not in text
    assert "url(" not in text
    assert not tags.seen & {"script", "link", "iframe", "object"}
    (picture,) = tags.loads
    assert base64.b64decode(picture.removeprefix("data:image/png;base64,")) == drawn[0].path.read_bytes()
    assert "prefers-color-scheme: dark" in text
    for expected in ("flowclf recipe run resolved.yaml", "seed: 0", "InvertibleClassifier: 1x28x28", "2.13.0", drawn[0].caption):
        assert expected in words(text)


def test_numbers_are_said_in_words(tmp_path: Path) -> None:
    said = words(write_report(tmp_path, results=RESULTS).read_text(encoding="utf-8"))
    for expected in (
        "mnist data mnist · reduced to 4 bits · 1,234,567 parameters · quick evaluation · 512 s of training",
        "Test error 1.42 % misclassified test examples; 95 % interval 1.21 to 1.67 %",
        "The classifier gets 9,858 of 10,000 test examples right.",
        "A classifier that is trained afresh on the nuisances alone has a test error of 27.7 %.",
        "The nuisances hold at least 1.40 of the 2.30 nats of information about the class.",
        "no logit changes by more than 2.1 × 10⁻⁴",
        "As 8-bit pictures 93.1 % of them keep their predicted class; 3.0 % of their pixels are outside the range of images",
        "test.chance_error 88.65 % error of always predicting the most frequent class",
        "probe.mlp.test_error 27.70 % test error of the probe 'mlp'",
        "numerics.inverse_error_max 3.2e-05",
        "numerics.forward_inverse_error_max not finite",
        "Mine Key Value Meaning mine.margin 0.1235",
    ):
        assert expected in said


def test_every_result_is_in_the_tables_once(tmp_path: Path) -> None:
    text = write_report(tmp_path, results=RESULTS).read_text(encoding="utf-8")
    assert sorted(re.findall(r'<td class="key"><code>([^<]+)</code>', text)) == sorted(RESULTS)


AGAIN, SOME, LITTLE = "is there a second time, unused", "hold some of the information", "finds hardly anything about the class"
MORE, BOTH = "hold more information about the class than the logits make use of", "neither holds much"


@pytest.mark.parametrize(
    ("own", "probe", "verdict"),
    [
        (0.012, 0.012, AGAIN),
        (0.012, 0.03, AGAIN),
        (0.012, 0.04, SOME),
        (0.012, 0.3, SOME),
        (0.012, 0.79, SOME),
        (0.012, 0.82, LITTLE),
        (0.012, 0.93, LITTLE),
        # The nuisances hold less than the logits, and are not said to hold more.
        (0.593, 0.628, SOME),
        (0.593, 0.6, BOTH),
        (0.593, 0.4, MORE),
        (0.81, 0.4, MORE),
        (0.81, 0.88, LITTLE),
        (0.05, 0.02, MORE),
        (0.04, 0.03, AGAIN),
        (0.44, 0.44, AGAIN),
        (0.46, 0.46, BOTH),
    ],
)
def test_the_verdict_follows_from_the_errors(tmp_path: Path, own: float, probe: float, verdict: str) -> None:
    results = {**RESULTS, "test.error": own, "probe.test_error": probe, "test.chance_error": 0.9}
    said = words(write_report(tmp_path, results=results).read_text(encoding="utf-8"))
    assert [one for one in (AGAIN, SOME, LITTLE, MORE, BOTH) if one in said] == [verdict]
    assert ("excessive invariance, as" in said) == (verdict == AGAIN)


@pytest.mark.parametrize(("bound", "sentence"), [(-0.04, "is -0.04 nats, which says nothing"), (0.5, "hold at least 0.50 of the")])
def test_a_bound_below_zero_is_not_called_information(tmp_path: Path, bound: float, sentence: str) -> None:
    results = {**RESULTS, "probe.mutual_information_nats": bound}
    assert sentence in words(write_report(tmp_path, results=results).read_text(encoding="utf-8"))


def test_an_oracle_is_spoken_of_where_there_was_one(tmp_path: Path) -> None:
    silent = words(write_report(tmp_path, results=RESULTS).read_text(encoding="utf-8"))
    assert "oracle" not in silent
    assert "adversarial" not in silent.lower()
    judged = {
        "metamers.oracle.donor": 0.9,
        "metamers.oracle.logits": 0.05,
        "metamers.oracle.neither_8bit": 0.1,
        "metamers.adversarial": 0.876,
        "metamers.distance_mean": 13.42,
    }
    said = words(write_report(tmp_path, results={**RESULTS, **judged}).read_text(encoding="utf-8"))
    assert "oracle labels 90.0 % of them as the donor of the nuisances and 5.0 %" in said
    assert "Adversarial 87.60 % metamers that keep their predicted class while the oracle's label changes" in said
    assert "87.6 % are invariance-based adversarial examples (Definition 3)" in said
    assert "The mean distance between a metamer and the donor of its logits is 13.4" in said
    assert (
        "metamers.oracle.neither_8bit 10.00 % metamers that the oracle labels as another class, when saved as 8-bit pictures"
        in said
    )


PROBES: dict[str, Any] = {
    "probe.test_error": 0.25,
    "probe.test_error_low": 0.241,
    "probe.test_error_high": 0.259,
    "probe.conv.test_error": 0.25,
    "probe.conv.train_error": 0.21,
    "probe.conv.test_cross_entropy_nats": 0.8125,
    "probe.conv.epochs": 12,
    "probe.kernel.test_error": 0.5,
    "probe.kernel.epochs": 1,
}
JUDGED: dict[str, Any] = {
    f"metamers.{name}": value
    for name, value in {
        "oracle.donor": 0.4,
        "oracle.donor_low": 0.386,
        "oracle.donor_high": 0.414,
        "oracle.logits": 0.5,
        "oracle.neither": 0.1,
        "oracle.donor_8bit": 0.375,
        "oracle.donor_8bit_low": 0.361,
        "oracle.donor_8bit_high": 0.389,
        "oracle.test_error": 0.0031,
        "oracle.noisy_test_error": 0.0034,
    }.items()
}


def test_probes_stand_side_by_side(tmp_path: Path) -> None:
    said = words(write_report(tmp_path, results={**RESULTS, **PROBES}).read_text(encoding="utf-8"))
    assert "The lowest test error counts: 25.00 % (24.10 to 25.90), with the 95 % interval." in said
    assert "the logits themselves 1.42 % (1.21 to 1.67) –" in said
    assert "conv: convolutional, on the nuisances as feature maps 25.00 % 21.00 % 0.812 12" in said
    assert "kernel: kernel ridge regression 50.00 % – – –" in said
    assert "on the nuisances alone; the lowest of all probes; 95 % interval 24.10 to 25.90 %" in said
    assert "probe.conv.train_error 21.00 % training error of the probe 'conv'" in said
    assert "Cross-entropy, nats" not in words(write_report(tmp_path, results=RESULTS).read_text(encoding="utf-8"))


def test_a_table_of_probes_that_grew_says_their_sizes(tmp_path: Path) -> None:
    grown = {**RESULTS, **PROBES, "probe.conv.growth": 2.0, "probe.kernel.growth": 1.0}
    said = words(write_report(tmp_path, results=grown).read_text(encoding="utf-8"))
    assert "conv: convolutional, on the nuisances as feature maps 25.00 % 21.00 % 0.812 12 × 2" in said
    assert "kernel: kernel ridge regression 50.00 % – – – –" in said
    assert "Epochs Size" in said
    assert "Epochs Size" not in words(write_report(tmp_path, results={**RESULTS, **PROBES}).read_text(encoding="utf-8"))


CURVE: dict[str, Any] = {
    "probe.curve.name": "conv",
    "probe.curve.quarter_validation_error": 0.5,
    "probe.curve.half_validation_error": 0.412,
    "probe.curve.validation_error": 0.36,
}


@pytest.mark.parametrize(
    ("saturated", "sentence", "other"),
    [
        ("yes", "There is no sign that it would err much less with more examples.", "It has not saturated"),
        ("no", "It has not saturated: the error still falls. With more examples it would probably err less", "There is no sign"),
    ],
)
def test_a_probe_that_has_not_saturated_is_said_to_err_too_much(tmp_path: Path, saturated: str, sentence: str, other: str) -> None:
    results = {**RESULTS, **CURVE, "probe.saturated": saturated}
    said = words(write_report(tmp_path, results=results).read_text(encoding="utf-8"))
    assert (
        "The probe 'conv', the best on validation data, has a validation error of 50.0 % after training on a quarter of the "
        f"training examples, 41.2 % on half of them, and 36.0 % on all. {sentence}" in said
    )
    assert ("the nuisances say more about the class than the errors of the probes show" in said) == (saturated == "no")
    assert other not in said
    assert "saturated" not in words(write_report(tmp_path, results=RESULTS).read_text(encoding="utf-8"))


def test_an_oracles_verdict_is_a_table(tmp_path: Path) -> None:
    said = words(write_report(tmp_path, results={**RESULTS, **JUDGED}).read_text(encoding="utf-8"))
    assert "as the donor of the nuisances: the attack succeeds 40.00 % (38.60 to 41.40) 37.50 % (36.10 to 38.90)" in said
    assert "as the donor of the logits 50.00 % –" in said
    assert "(the classifier keeps its prediction) – 93.10 %" in said
    assert "The oracle itself misclassifies 0.31 % of the test set, and 0.34 % with the noise that donors of metamers have." in said
    assert "Attack success 40.00 % metamers that the oracle labels as the donor of the nuisances" in said
    assert "metamers.oracle.donor_8bit_low 36.10 % lower end of the 95 % interval (Wilson)" in said
    vectors = {key: value for key, value in JUDGED.items() if "8bit" not in key and "noisy" not in key}
    said = words(write_report(tmp_path, results=vectors).read_text(encoding="utf-8"))
    assert "As computed as another class" not in said
    assert "The oracle labels metamers As computed as the donor" in said
    assert "misclassifies 0.31 % of the test set. " in said


def classes(number: int) -> dict[str, Any]:
    """Of every class 10 examples; those of class k are taken for the next one k times, up to 3."""
    names = [f"class {label}" for label in range(number)]
    wrong = [[names[label], names[(label + 1) % number], min(label, 3)] for label in range(1, number)]
    return {
        "data.class_names": names,
        "test.class_examples": [10] * number,
        "test.class_errors": [min(label, 3) / 10 for label in range(number)],
        "test.confusions": sorted(wrong, key=lambda row: -row[2]),
    }


def test_few_classes_are_all_listed(tmp_path: Path) -> None:
    said = words(write_report(tmp_path, results={**RESULTS, **classes(10)}).read_text(encoding="utf-8"))
    assert "class 0 10 0.00 % (0.00 to 27.75) – class 1 10 10.00 % (1.79 to 40.42) class 2 (1)" in said
    assert "class 9 10 30.00 % (10.78 to 60.32) class 0 (3)" in said
    assert "Confusions" not in said
    assert "test.confusions 9 rows misclassified test examples" in said
    assert "data.class_names 10 values" in said


def test_of_many_classes_the_worst_are_listed(tmp_path: Path) -> None:
    many = classes(1000)
    many["test.class_errors"][0], many["test.class_examples"][0] = None, 0
    text = write_report(tmp_path, results={**RESULTS, **many}).read_text(encoding="utf-8")
    said = words(text)
    assert "The 25 of 999 classes with the highest test error, with 95 % intervals. Without test examples: 1." in said
    assert "class 3 10 30.00 % (10.78 to 60.32) class 4 (3)" in said
    assert "class 2 10" not in said
    assert "The 25 most frequent of 999 pairs of a class and the class that its examples are taken for." in said
    assert "class 3 class 4 3 0.1 %" in said
    assert text.count("<tr>") < 120


def test_a_limited_evaluation_is_called_one(tmp_path: Path) -> None:
    said = words(write_report(tmp_path, results={**RESULTS, "evaluation.limit": 2000}).read_text(encoding="utf-8"))
    assert "quick evaluation · limited to 2,000 test examples" in said


def test_what_comes_from_outside_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>&\"{{ 7 * 7 }}"
    picture = figures(tmp_path / "figures")[0]
    path = write_report(
        tmp_path,
        title=evil,
        results={"recipe": evil, "data.name": evil, evil: evil, f"{evil}.x": 1},
        figures=[FigureFile(picture.path, evil, evil)],
        rows=[{evil: evil}],
        recipe_text=evil,
        resolved_text=evil,
        environment={evil: evil},
        model_text=evil,
        command=evil,
    )
    text = path.read_text(encoding="utf-8")
    assert "script" not in parsed(text).seen
    assert html.escape("<script>") in text
    assert "49" not in words(text)
    assert text.count("{{ 7 * 7 }}") > 8


def test_little_is_enough(tmp_path: Path) -> None:
    folder = tmp_path / "my-run"
    text = write_report(folder, results={}).read_text(encoding="utf-8")
    parsed(text)
    assert "<h1>my-run</h1>" in text
    for absent in ("What this means", "Figures", "Epochs", "How to repeat it", "Environment"):
        assert absent not in words(text)


def test_a_figure_that_is_not_there_or_not_a_png_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read the figure .*none\.png"):
        write_report(tmp_path, results={}, figures=[FigureFile(tmp_path / "none.png", "t", "c")])
    (tmp_path / "fake.png").write_text("GIF89a")
    with pytest.raises(DataError, match="expected a PNG"):
        write_report(tmp_path, results={}, figures=[FigureFile(tmp_path / "fake.png", "t", "c")])
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("seen", "unseen", "warned"), [(0.005, 3.6, True), (0.5, 3.6, False), (0.005, 0.02, False)], ids=["by heart", "unsure", "found"]
)
def test_an_adversary_that_memorises_is_warned_of(tmp_path: Path, seen: float, unseen: float, warned: bool) -> None:
    results = {"train.nuisance_cross_entropy_nats": seen, "validation.nuisance_cross_entropy_nats": unseen}
    text = words(write_report(tmp_path, results=results).read_text())
    assert ("Warning: the adversary memorises" in text) == warned
    assert "the classifier overfits" not in text
