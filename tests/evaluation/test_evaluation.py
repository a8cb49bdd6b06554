from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import flowclf
from flowclf import registry
from flowclf.data import DataSet, Split
from flowclf.errors import FlowclfError, UsageError
from flowclf.evaluation import (
    PROTOCOLS,
    Evaluation,
    ProbeSettings,
    check_fits,
    evaluate,
    evaluate_with_artifacts,
    metamer_pictures,
    nuisance_probe,
)
from flowclf.evaluation.encoding import network_inputs
from flowclf.evaluation.interval import error_interval
from flowclf.evaluation.metamers import metamer, quantized
from flowclf.evaluation.probes import Probe, ProbeScore

NODES = ["squeeze", "actnorm", "invertible_conv1x1", {"affine_coupling": {"subnet": {"conv": {"width": 4}}}}, "split_head"]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def image_data(channels: int = 1, classes: int = 3) -> DataSet:
    """Images whose brightest row says the class."""
    generator = torch.Generator().manual_seed(0)

    def split(n: int) -> Split:
        labels = torch.arange(n) % classes
        images = torch.randint(0, 100, (n, channels, 8, 8), generator=generator, dtype=torch.uint8)
        images[torch.arange(n), :, 2 * labels] += 150
        return Split(images, labels)

    return DataSet("rows", tuple("abcdefg"[:classes]), split(240), split(60), split(90))


def image_classifier(channels: int = 1, classes: int = 3, bits: int = 4) -> flowclf.InvertibleClassifier:
    torch.manual_seed(0)
    preprocessing = flowclf.Preprocessing((channels, 8, 8), bits=bits)
    return flowclf.build_classifier((channels, 8, 8), NODES, classes, preprocessing=preprocessing)


def vector_data() -> DataSet:
    x, labels = torch.randn(150, 4, generator=torch.Generator().manual_seed(0)), torch.arange(150) % 2
    x[:, 0] += 8 * labels
    return DataSet("points", ("left", "right"), Split(x, labels), Split(x[:50], labels[:50]), Split(x[:100], labels[:100]))


@pytest.fixture(scope="module")
def data() -> DataSet:
    return image_data()


@pytest.fixture(scope="module")
def evaluation(data: DataSet) -> Evaluation:
    return evaluate_with_artifacts(image_classifier(), data)


PROBE_KEYS = ("train_error", "test_error", "test_cross_entropy_nats", "validation_cross_entropy_nats", "epochs")
IMAGE_KEYS = {
    "protocol",
    "evaluation.seed",
    "data.name",
    "data.class_names",
    "data.bits",
    "model.kind",
    "model.parameters",
    "model.dimensions",
    *(
        f"{part}.{name}"
        for part in ("train", "validation", "test")
        for name in ("error", "cross_entropy_nats", "bits_per_dim", "examples")
    ),
    "test.error_low",
    "test.error_high",
    "test.balanced_error",
    "test.chance_error",
    "test.class_examples",
    "test.class_errors",
    "test.confusions",
    "test.confusion_matrix",
    "test.calibration_error",
    "numerics.examples",
    "numerics.inverse_error_max",
    "numerics.inverse_error_mean",
    "numerics.forward_inverse_error_max",
    "probe.test_error",
    "probe.test_error_low",
    "probe.test_error_high",
    "probe.train_error",
    "probe.validation_error",
    "probe.validation_cross_entropy_nats",
    "probe.test_cross_entropy_nats",
    "probe.mutual_information_nats",
    "probe.entropy_nats",
    "probe.epochs",
    "probe.name",
    "probe.hidden",
    "probe.train_examples",
    "probe.draws",
    *(f"probe.mlp.{name}" for name in PROBE_KEYS),
    "metamers.pairs",
    "metamers.logit_change_max",
    "metamers.logit_change_mean",
    "metamers.prediction_kept",
    "metamers.distance_mean",
    "metamers.prediction_kept_8bit",
    "metamers.logit_change_8bit_mean",
    "metamers.pixels_out_of_range",
    "paths.count",
    "paths.broken",
    "paths.broken_low",
    "paths.broken_high",
    "seconds.evaluate",
}


def test_results_are_flat_named_and_fit_for_json(evaluation: Evaluation) -> None:
    assert set(evaluation.results) == IMAGE_KEYS
    assert json.loads(json.dumps(evaluation.results, allow_nan=False)) == evaluation.results
    errors = {name: value for name, value in evaluation.results.items() if name.endswith(".error") or name.endswith("_error")}
    assert len(errors) == 11
    assert all(0 <= value <= 1 for value in errors.values())


def test_results_are_what_they_say(evaluation: Evaluation, data: DataSet) -> None:
    results, clf = evaluation.results, image_classifier().eval()
    x = network_inputs(clf, data.test.inputs, torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits, log_prob = clf(x).logits, clf.log_prob(x)
    labels = data.test.labels
    assert results["test.error"] == pytest.approx((logits.argmax(1) != labels).float().mean().item())
    assert results["test.cross_entropy_nats"] == pytest.approx(nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)
    assert results["test.bits_per_dim"] == pytest.approx(clf.preprocessing.bits_per_dim(log_prob).mean().item(), rel=1e-5)
    assert results["test.error_low"] < results["test.error"] < results["test.error_high"]
    assert results["test.chance_error"] == pytest.approx(2 / 3)
    assert (results["train.examples"], results["validation.examples"], results["test.examples"]) == (240, 60, 90)
    assert results["data.bits"] == 4
    assert results["model.parameters"] == clf.parameter_count()
    assert results["model.dimensions"] == 64
    assert results["metamers.pairs"] == 1000
    assert results["metamers.prediction_kept"] == 1
    assert results["numerics.examples"] == 90
    assert results["numerics.inverse_error_max"] < 1e-4
    assert results["numerics.forward_inverse_error_max"] < 1e-4


def test_an_untrained_network_leaves_the_class_in_its_nuisances(evaluation: Evaluation) -> None:
    results = evaluation.results
    assert results["probe.test_error"] < 0.05
    bound = results["probe.mutual_information_nats"]
    assert bound == pytest.approx(math.log(3) - results["probe.test_cross_entropy_nats"])
    assert 0.8 * math.log(3) < bound <= math.log(3) == pytest.approx(results["probe.entropy_nats"])


def test_the_same_seed_gives_the_same_results_and_moves_nothing(evaluation: Evaluation, data: DataSet) -> None:
    clf = image_classifier().train()
    before = {name: value.clone() for name, value in clf.state_dict().items()}
    state = torch.get_rng_state()
    again = evaluate_with_artifacts(clf, data)
    assert torch.equal(torch.get_rng_state(), state)
    assert clf.training
    assert all(torch.equal(value, before[name]) for name, value in clf.state_dict().items())
    del again.results["seconds.evaluate"]
    assert again.results.items() <= evaluation.results.items()
    for name, arrays in evaluation.arrays.items():
        assert all(np.array_equal(array, again.arrays[name][key]) for key, array in arrays.items())


def test_arrays_for_figures(evaluation: Evaluation, data: DataSet) -> None:
    arrays = evaluation.arrays
    assert set(arrays) == {"calibration", "confusion", "metamers", "interpolations", "samples"}
    assert arrays["calibration"]["counts"].sum() == 90
    met, path = arrays["metamers"], arrays["interpolations"]
    columns = 8
    for name in ("logits_of", "metamer", "nuisance_of"):
        assert met[name].shape == (columns, 1, 8, 8)
        assert met[name].dtype == np.uint8
        assert met[f"{name}_prediction"].shape == (columns,)
    assert met["logits_of_label"].tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert (met["logits_of_label"] != met["nuisance_of_label"]).all()
    assert path["steps"].shape == (7, columns, 1, 8, 8)
    assert np.abs(path["steps"][0].astype(int) - met["logits_of"]).max() <= 1
    assert np.abs(path["steps"][-1].astype(int) - met["metamer"]).max() <= 1
    assert np.array_equal(path["target"], met["nuisance_of"])
    assert arrays["samples"]["samples"].shape == (3, 10, 1, 8, 8)
    assert evaluation.class_names == data.class_names


def test_metamer_pictures_are_saved_pictures() -> None:
    clf = image_classifier().train()
    x1, x2 = 2 * torch.rand(2, 5, 1, 8, 8) - 1
    arrays = metamer_pictures(clf, x1, x2)
    assert clf.training
    picture = quantized(clf.eval(), metamer(clf, x1, x2))
    assert np.array_equal(arrays["metamer"], (255 * picture).round().to(torch.uint8).numpy())
    with torch.no_grad():
        assert arrays["metamer_prediction"].tolist() == clf.logits_only()(picture).argmax(1).tolist()


def test_vectors_have_no_pixel_keys() -> None:
    clf = flowclf.build_classifier((4,), ["actnorm", "split_head"], 2)
    evaluation = evaluate_with_artifacts(clf, vector_data(), protocol="full", probe=ProbeSettings(hidden=[16]))
    dropped = {"data.bits", "metamers.prediction_kept_8bit", "metamers.logit_change_8bit_mean", "metamers.pixels_out_of_range"}
    dropped |= {key for key in IMAGE_KEYS if key.startswith("paths.")}
    assert set(evaluation.results) == (IMAGE_KEYS - dropped) | FULL_KEYS | {f"probe.kernel.{name}" for name in FULL_PROBE_KEYS}
    assert set(evaluation.arrays) == {"calibration", "confusion"}
    assert evaluation.results["metamers.pairs"] == PROTOCOLS["full"].pairs


class Oracle(nn.Module):
    """Reads the brightest of the rows 0, 2, 4."""

    def forward(self, images: Tensor) -> Tensor:
        return images[:, :, ::2].mean((1, 3))[:, :3]


FULL_PROBE_KEYS = (*PROBE_KEYS, "growth")
FULL_KEYS = {
    "probe.saturated",
    "probe.curve.name",
    "probe.curve.quarter_validation_error",
    "probe.curve.half_validation_error",
    "probe.curve.validation_error",
    "probe.mlp.growth",
}


def short_full(monkeypatch: pytest.MonkeyPatch) -> None:
    short = dataclasses.replace(PROTOCOLS["full"], pairs=40, probe_epochs=4, probe_epoch_steps=1)
    monkeypatch.setattr("flowclf.evaluation.context.PROTOCOLS", {"full": short})


ORACLE_KEYS = {
    f"metamers.oracle.{name}{suffix}{end}"
    for name in ("donor", "logits", "neither")
    for suffix in ("", "_8bit")
    for end in ("", "_low", "_high")
} | {"metamers.oracle.test_error", "metamers.oracle.noisy_test_error", "metamers.adversarial", "metamers.adversarial_8bit"}

SAMPLE_KEYS = {"samples.count", "samples.class_8bit", "samples.class_8bit_low", "samples.class_8bit_high"}


def test_full_protocol_rgb_and_oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    short_full(monkeypatch)
    evaluation = evaluate_with_artifacts(image_classifier(3), image_data(3), protocol="full", oracle=Oracle())
    results = evaluation.results
    probes = {f"probe.{probe}.{name}" for probe in ("mlp", "conv", "residual", "kernel") for name in FULL_PROBE_KEYS}
    assert set(results) == IMAGE_KEYS | FULL_KEYS | probes | ORACLE_KEYS | SAMPLE_KEYS
    assert results["probe.draws"] == 4
    # A network's answers mean little away from data: planes are for data that know the truth.
    assert "planes" not in evaluation.arrays
    for suffix in ("", "_8bit"):
        names = [f"metamers.oracle.{name}{suffix}" for name in ("donor", "logits", "neither")]
        assert sum(results[name] for name in names) == pytest.approx(1)
        assert all(results[f"{name}_low"] <= results[name] <= results[f"{name}_high"] for name in names)
    assert results["metamers.oracle.donor_high"] == error_interval(results["metamers.oracle.donor"], 40).high
    assert results["metamers.oracle.test_error"] == 0


def test_in_the_full_protocol_the_lowest_test_error_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The probes' answers are made up: the best on validation data is not the best on test data."""
    short_full(monkeypatch)

    def fixed(wrong: int, nats: float) -> Any:
        def train(*arguments: Any, **settings: Any) -> Probe:
            class Network(nn.Module):
                def forward(self, features: Tensor) -> Tensor:
                    answers = torch.arange(len(features)) % 3
                    answers[:wrong] = (answers[:wrong] + 1) % 3
                    return 9.0 * nn.functional.one_hot(answers, 3)

            probe = Probe(Network(), torch.zeros(61), torch.ones(61))
            probe.validation = ProbeScore(0.5, nats)
            return probe

        return train

    made_up = {"mlp": fixed(9, 0.1), "conv": fixed(3, 0.2), "residual": fixed(12, 0.4), "kernel": fixed(6, 0.3)}
    for name, trainer in made_up.items():
        kind = dataclasses.replace(registry.probes.get(name), trainer=trainer)
        monkeypatch.setitem(registry.probes._local, name, kind)
    results = evaluate(image_classifier(), image_data(), protocol="full")
    assert [results[f"probe.{name}.test_error"] for name in ("mlp", "conv", "kernel")] == [0.1, 3 / 90, 6 / 90]
    assert results["probe.test_error"] == 3 / 90
    assert (results["probe.test_error_low"], results["probe.test_error_high"]) == error_interval(3 / 90, 90)
    assert results["probe.name"] == "conv"
    assert results["probe.train_error"] == results["probe.conv.train_error"] == 3 / 240
    assert results["probe.validation_cross_entropy_nats"] == 0.2
    # The bound is that of the probe that validation data chose, so that it is not chosen by its own value.
    assert results["probe.mutual_information_nats"] == pytest.approx(math.log(3) - results["probe.mlp.test_cross_entropy_nats"])


def test_an_oracle_is_a_network_or_the_function_that_it_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    short_full(monkeypatch)
    clf, data = image_classifier(), image_data()
    torch.manual_seed(1)
    plain = flowclf.plain_classifier((1, 8, 8), {"plain_cnn": {"widths": [4], "hidden": 8}}, 3, class_names="abc")
    clf.class_names = ("a", "b", "c")
    small = ProbeSettings(hidden=[8], examples=40)
    by_network = evaluate(clf, data, protocol="full", oracle=plain.train(), probe=small)
    by_function = evaluate(clf, data, protocol="full", oracle=plain.eval().logits_only(), probe=small)
    assert {name: by_network[name] for name in ORACLE_KEYS} == {name: by_function[name] for name in ORACLE_KEYS}
    images, labels = data.test.inputs / 255, data.test.labels
    with torch.no_grad():
        wrong = (plain.logits_only()(images).argmax(1) != labels).double().mean().item()
        noisy = network_inputs(clf, data.test.inputs, torch.Generator().manual_seed(0))
        noisy_wrong = (plain.logits_only()(clf.preprocessing.inverse(noisy)).argmax(1) != labels).double().mean().item()
    assert by_network["metamers.oracle.test_error"] == pytest.approx(wrong)
    assert by_network["metamers.oracle.noisy_test_error"] == pytest.approx(noisy_wrong)


@pytest.mark.parametrize(
    ("shape", "names", "message"),
    [
        ((1, 4, 4), "abc", r"the oracle reads 3 classes of \(1, 4, 4\); expected 3 of \(1, 8, 8\)"),
        ((1, 8, 8), "abcd", "the oracle reads 4 classes"),
        ((1, 8, 8), "acb", r"the oracle's classes are \('a', 'c', 'b'\), the classifier's \('0', '1', '2'\)"),
    ],
)
def test_an_oracle_of_something_else_is_refused(shape: tuple[int, ...], names: str, message: str, data: DataSet) -> None:
    oracle = flowclf.plain_classifier(shape, {"plain_cnn": {"widths": [2], "hidden": 0}}, len(names), class_names=names)
    with pytest.raises(UsageError, match=message):
        evaluate(image_classifier(), data, oracle=oracle)


def test_data_that_know_the_truth_label_the_metamers() -> None:
    """The identity on points whose class is in a nuisance: all that an oracle adds, without being asked."""
    data = vector_data()
    clf = flowclf.build_classifier((4,), ["split_head"], 2)
    plain = evaluate(clf, data)
    assert not any(name.startswith(("metamers.oracle", "planes")) for name in plain)
    reads = lambda x: torch.stack((4 - x[:, 0], x[:, 0] - 4), dim=1)  # noqa: E731
    evaluation = evaluate_with_artifacts(clf, dataclasses.replace(data, oracle=reads))
    assert evaluation.results["metamers.oracle.logits"] == 1
    assert evaluation.results["metamers.adversarial"] == 0
    assert evaluation.results["planes.path.oracle_changes"] == 0
    assert set(evaluation.arrays) == {"calibration", "confusion", "planes"}
    backwards = evaluate(clf, dataclasses.replace(data, oracle=reads), oracle=lambda x: -reads(x))
    assert backwards["metamers.oracle.donor"] == 1
    planes = {name: value for name, value in evaluation.results.items() if name.startswith("planes.")}
    assert planes
    # The planes are compared with what the data know to be true, whichever oracle labels the metamers.
    assert {name: backwards[name] for name in planes} == planes
    assert [key for key, value in plain.items() if evaluation.results[key] != value] == ["seconds.evaluate"]


def test_the_probes_settings_are_used_and_reported() -> None:
    clf, data = flowclf.build_classifier((4,), ["split_head"], 2), vector_data()
    settings = ProbeSettings(hidden=(7, 5), examples=40)
    results = evaluate(clf, data, probe=settings)
    assert results["probe.hidden"] == "7-5"
    assert results["probe.train_examples"] == 40
    probe = nuisance_probe(clf, data, probe=settings)
    assert [tuple(parameter.shape) for parameter in probe.parameters()][::2] == [(7, 2), (5, 7), (2, 5)]
    assert probe.validation.cross_entropy_nats == results["probe.validation_cross_entropy_nats"]
    torch.testing.assert_close(probe.mean, data.train.inputs[:40, 2:].mean(0))
    assert evaluate(clf, data)["probe.train_examples"] == len(data.train)
    with pytest.raises(UsageError, match="unknown evaluation protocol 'quik'; did you mean 'quick'"):
        nuisance_probe(clf, data, protocol="quik")


def test_the_probes_to_train_can_be_named(data: DataSet) -> None:
    clf = image_classifier()
    both = evaluate(clf, data, probe=ProbeSettings(hidden=[8], kinds=["conv", "mlp"]))
    errors = {name: both[f"probe.{name}.test_error"] for name in ("mlp", "conv")}
    assert both["probe.test_error"] == min(errors.values())
    conv = evaluate(clf, data, probe=ProbeSettings(hidden=[8], kinds=["conv"]))
    assert conv["probe.test_error"] == conv["probe.conv.test_error"] == errors["conv"]
    assert "probe.mlp.test_error" not in conv
    with pytest.raises(UsageError, match="probes: unknown kind 'con'; did you mean 'conv'"):
        evaluate(clf, data, probe=ProbeSettings(kinds=["con"]))
    with pytest.raises(UsageError, match="probes: vectors have no feature maps, which conv takes"):
        evaluate(flowclf.build_classifier((4,), ["split_head"], 2), vector_data(), probe=ProbeSettings(kinds=["conv"]))


def test_the_five_largest_logits_of_many_classes_count() -> None:
    torch.manual_seed(0)
    x, labels = torch.randn(240, 14), torch.arange(240) % 12
    parts = (Split(x, labels), Split(x[:60], labels[:60]), Split(x, labels))
    names = tuple("abcdefghijkl")
    clf = flowclf.build_classifier((14,), ["split_head"], 12)
    results = evaluate(clf, DataSet("noise", names, *parts), probe=ProbeSettings(hidden=[4]))
    ranks = (x[:, :12] > x[torch.arange(240), labels][:, None]).sum(1)
    assert results["test.top5_error"] == pytest.approx((ranks >= 5).double().mean().item())
    assert results["test.top5_error_low"] < results["test.top5_error"] < results["test.error"]
    assert "test.top5_error" not in evaluate(flowclf.build_classifier((4,), ["split_head"], 2), vector_data())


class Listener:
    """Counts what is done of what was announced."""

    def __init__(self) -> None:
        self.totals: dict[str, int] = {}
        self.done: dict[str, int] = {}

    def message(self, text: str) -> None: ...

    def row(self, row: dict[str, Any]) -> None: ...

    @contextlib.contextmanager
    def task(self, description: str, total: int) -> Iterator[Any]:
        listener = self
        self.totals[description] = total

        class Task:
            def advance(self, n: int = 1, **values: float) -> None:
                listener.done[description] = listener.done.get(description, 0) + n

        yield Task()


def test_progress_is_reported() -> None:
    listener = Listener()
    clf = flowclf.build_classifier((4,), ["actnorm", "split_head"], 2)
    results = evaluate(clf, vector_data(), progress=listener)
    assert listener.totals == {"encoding": 300, "probe mlp": 15, "metamers": 1000}
    assert listener.done == {"encoding": 300, "probe mlp": results["probe.epochs"], "metamers": 1000}


def test_unknown_protocol_and_unfit_data_are_refused(data: DataSet) -> None:
    clf = image_classifier()
    with pytest.raises(UsageError, match="unknown evaluation protocol 'quik'; did you mean 'quick'"):
        evaluate(clf, data, protocol="quik")
    with pytest.raises(UsageError, match=r"'rows' has 4 classes of shape \(1, 8, 8\); the classifier takes 3"):
        evaluate(clf, image_data(classes=4))
    with pytest.raises(UsageError, match="takes 3 of"):
        evaluate(clf, image_data(channels=3))
    nothing = Split(data.validation.inputs[:0], data.validation.labels[:0])
    with pytest.raises(UsageError, match="expected validation data"):
        evaluate(clf, DataSet(data.name, data.class_names, data.train, nothing, data.test))
    one = data.test.labels == 1
    alike = Split(data.test.inputs[one], data.test.labels[one])
    with pytest.raises(UsageError, match="expected test data of at least two classes"):
        evaluate(clf, dataclasses.replace(data, test=alike))


def test_classes_of_other_names_are_refused(data: DataSet) -> None:
    nodes = ["squeeze", "actnorm", "split_head"]
    named, unnamed = (flowclf.build_classifier((1, 8, 8), nodes, 3, class_names=names) for names in (("c", "b", "a"), None))
    with pytest.raises(UsageError, match=r"'rows' has the classes \('a', 'b', 'c'\); the classifier's are \('c', 'b', 'a'\)"):
        check_fits(named, data)
    check_fits(named, dataclasses.replace(data, class_names=("0", "1", "2")))
    check_fits(unnamed, data)


def test_metamers_are_of_all_classes_where_the_test_part_is_long_and_sorted() -> None:
    data = vector_data()
    many = 11_000  # more than are looked at
    labels = torch.arange(2).repeat_interleave(many)
    inputs = torch.randn(2 * many, 4, generator=torch.Generator().manual_seed(0))
    results = evaluate(
        flowclf.build_classifier((4,), ["actnorm", "split_head"], 2), dataclasses.replace(data, test=Split(inputs, labels))
    )
    assert results["test.examples"] == 2 * many
    assert results["metamers.pairs"] == 1000


def test_an_oracle_stays_as_it_was_and_may_be_of_another_precision(data: DataSet) -> None:
    clf = image_classifier().double()
    oracle = flowclf.plain_classifier((1, 8, 8), {"plain_cnn": {"widths": [2], "hidden": 0}}, 3).train()
    results = evaluate(clf, data, oracle=oracle)
    assert oracle.training
    assert 0 <= results["metamers.oracle.donor"] <= 1


def test_outputs_that_are_not_finite_stop_the_evaluation(data: DataSet) -> None:
    clf = image_classifier()
    inputs = data.test.inputs.clone()
    broken = DataSet(data.name, data.class_names, data.train, data.validation, Split(inputs, data.test.labels))
    with torch.no_grad():
        clf.prior.log_std[0] = torch.nan
    with pytest.raises(FlowclfError, match="not finite for 240 of 240 train inputs, the first at index 0"):
        evaluate(clf, broken)


def test_a_number_that_is_not_finite_becomes_none(data: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    clf = image_classifier()
    right = clf.inverse
    monkeypatch.setattr(clf, "inverse", lambda logits, nuisance: right(logits, nuisance) / 0)
    results = evaluate(clf, data)
    assert results["numerics.inverse_error_max"] is None
    json.dumps(results, allow_nan=False)
