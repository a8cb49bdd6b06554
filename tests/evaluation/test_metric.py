"""Metrics and probes of anyone's: registered, they show in the results, the report and the card; mistakes are named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import flowclf
from flowclf import registry
from flowclf.classifier import InvertibleClassifier
from flowclf.data import DataSet, Split
from flowclf.errors import FlowclfError, UsageError
from flowclf.evaluation import Metric, MetricContext, ProbeKind, evaluate, measure, metric
from flowclf.evaluation.interval import error_interval
from flowclf.evaluation.metric import describe, registered_metrics
from flowclf.evaluation.probes import Probe, train_kernel_probe
from flowclf.report import write_report
from flowclf.settings import ProbeSettings
from flowclf.zoo.cards import model_card
from flowclf.zoo.schema import Measured, ZooEntry

SMALL = ProbeSettings(hidden=[8])

pytestmark = pytest.mark.usefixtures("scratch_registries")


@pytest.fixture
def data() -> DataSet:
    x, labels = torch.randn(150, 4, generator=torch.Generator().manual_seed(0)), torch.arange(150) % 2
    x[:, 0] += 8 * labels
    return DataSet("points", ("left", "right"), Split(x, labels), Split(x[:50], labels[:50]), Split(x[:100], labels[:100]))


@pytest.fixture
def clf() -> InvertibleClassifier:
    return flowclf.build_classifier((4,), ["actnorm", "split_head"], 2)


def plain() -> flowclf.PlainClassifier:
    return flowclf.plain_classifier((1, 8, 8), {"plain_cnn": {"widths": [2], "hidden": 0}}, 2)


@metric(
    "test.first_class",
    unit="share",
    meaning="test examples predicted as the first class",
    trials=lambda context: len(context.labels("test")),
    headline="First class",
    card=True,
)
def first_class(context: MetricContext) -> Tensor:
    return (context.logits("test").argmax(1) == 0).double().mean()


def card_of(results: dict[str, Any]) -> str:
    """The card of the zoo's first entry, had it reported these results."""
    from flowclf.zoo.index import open_zoo

    entry: ZooEntry = open_zoo({}).index.models[0]
    measured = {"test.error": Measured(value=results["test.error"], tolerance=0.0)}
    return model_card(entry.model_copy(update={"reported": results, "measured": measured}))


def test_a_metric_of_ones_own_shows_in_results_report_and_card(clf: InvertibleClassifier, data: DataSet, tmp_path: Path) -> None:
    before = evaluate(clf, data)
    assert not any("first_class" in key for key in before)
    registry.metrics.register("first_class")(first_class)
    results = evaluate(clf, data)
    with torch.no_grad():
        share = (clf.eval()(data.test.inputs).logits.argmax(1) == 0).double().mean().item()
    assert results["test.first_class"] == share
    assert (results["test.first_class_low"], results["test.first_class_high"]) == error_interval(share, 100)
    assert {key: results[key] for key in before if key != "seconds.evaluate"} == {
        key: value for key, value in before.items() if key != "seconds.evaluate"
    }
    page = write_report(tmp_path, results=results).read_text(encoding="utf-8").replace("\u00a0", " ")
    assert f'<div class="name">First class</div><div class="value">{100 * share:.2f} %</div>' in page
    assert f"{100 * share:.2f} %</td><td>test examples predicted as the first class</td>" in page
    assert "test.first_class_low" in page
    card = card_of(results)
    assert f"| `test.first_class` | {share:.6g} | | | test examples predicted as the first class |" in card
    assert "first_class_low" not in card


def test_protocols_and_needs_decide_what_is_computed(clf: InvertibleClassifier, data: DataSet) -> None:
    def give(name: str, **options: Any) -> None:
        registry.metrics.register(name)(Metric(f"mine.{name}", "number", "one", lambda context: 1, **options))

    give("always")
    give("thorough", protocols=("full",))
    give("pictures", needs=("images",))
    give("labelled", needs=("oracle",))
    give("backwards", needs=("inverse",))
    assert {key for key in evaluate(clf, data) if key.startswith("mine.")} == {"mine.always", "mine.backwards"}
    assert "mine.thorough" in evaluate(clf, data, protocol="full", probe=SMALL)
    assert "mine.labelled" in evaluate(clf, data, oracle=lambda x: torch.eye(2)[(x[:, 0] > 4).long()])
    images = torch.randint(0, 255, (20, 1, 8, 8), dtype=torch.uint8)
    split = Split(images, torch.arange(20) % 2)
    of_plain = evaluate(plain(), DataSet("pictures", ("0", "1"), split, split, split))
    assert {key for key in of_plain if key.startswith("mine.")} == {"mine.always", "mine.pictures"}
    assert not any(key.startswith(("probe.", "metamers.", "numerics.", "planes.")) for key in of_plain)


def test_what_is_expensive_is_computed_once(clf: InvertibleClassifier, data: DataSet) -> None:
    calls = []

    def expensive(context: MetricContext) -> int:
        calls.append(1)
        return len(context.encoded("test").nuisance)

    both = tuple(Metric(f"mine.{name}", "count", "", lambda context: context.once(expensive)) for name in "ab")
    registry.metrics.register("both")(both)
    results = evaluate(clf, data)
    assert (results["mine.a"], results["mine.b"]) == (100, 100)
    assert len(calls) == 1


def test_only_some_metrics_encode_only_what_they_need(clf: InvertibleClassifier, data: DataSet) -> None:
    context = MetricContext(clf.eval(), data)
    with torch.no_grad():
        found = measure(context, ("test.error", "numerics.inverse_error_max"))
    assert list(found) == ["test.error", "numerics.inverse_error_max"]
    assert list(context._encoded) == ["test"]


def boom(context: MetricContext) -> float:
    raise ZeroDivisionError("by nothing")


def wrong_shape(context: MetricContext) -> Tensor:
    return context.logits("test")


def refused(context: MetricContext) -> float:
    raise UsageError("no such thing")


@pytest.mark.parametrize(
    ("function", "kind", "message"),
    [
        (boom, FlowclfError, "metric 'mine.x' failed: ZeroDivisionError: by nothing"),
        (wrong_shape, FlowclfError, "metric 'mine.x' failed"),
        (lambda context: [1], FlowclfError, "metric 'mine.x' failed: TypeError: expected a number, a text or None, found list"),
        (refused, UsageError, "metric 'mine.x': no such thing"),
    ],
)
def test_a_metric_that_fails_is_named(
    function: Callable[..., Any], kind: type[FlowclfError], message: str, clf: InvertibleClassifier, data: DataSet
) -> None:
    registry.metrics.register("x")(Metric("mine.x", "number", "", function))
    with pytest.raises(kind, match=message):
        evaluate(clf, data)


@pytest.mark.parametrize("name", ["test.error", "test.error_low", "metamers.pairs"])
def test_a_metric_that_collides_is_named_and_breaks_nothing(name: str, clf: InvertibleClassifier, data: DataSet) -> None:
    registry.metrics.register("mine")(Metric(name, "number", "", lambda context: -1))
    with pytest.warns(UserWarning, match=f"metric '{name}' is left out: another metric has the key '{name}'"):
        results = evaluate(clf, data)
    assert results[name] != -1


def test_what_is_no_metric_is_named_and_breaks_nothing(clf: InvertibleClassifier, data: DataSet) -> None:
    registry.metrics.register("strange")("a text")
    with pytest.warns(UserWarning, match="metric 'strange' is left out: expected a Metric, found str"):
        assert "test.error" in evaluate(clf, data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "Test Error"}, "metric 'Test Error': expected a name of lower-case words"),
        ({"name": "test..x"}, "metric 'test..x': expected a name"),
        ({"needs": ("invers",)}, "metric 'a.b': unknown need 'invers'; did you mean 'inverse'"),
        ({"protocols": ("ful",)}, "metric 'a.b': unknown protocol 'ful'; did you mean 'full'"),
    ],
)
def test_a_metric_is_checked_when_it_is_made(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Metric(**{"name": "a.b", "unit": "number", "meaning": "", **options})


def test_every_result_has_a_meaning(clf: InvertibleClassifier, data: DataSet) -> None:
    results = evaluate(clf, data, protocol="full", probe=SMALL, oracle=lambda x: torch.eye(2)[(x[:, 0] > 4).long()])
    assert {key for key in results if not describe(key)[1]} == set()
    names = [one.name for one in registered_metrics()]
    assert len(names) == len(set(names))
    assert all(one.meaning for one in registered_metrics())


@pytest.mark.parametrize(
    ("key", "unit", "meaning"),
    [
        ("test.error_low", "share", "lower end of the 95 % interval (Wilson)"),
        ("train.error_low", "number", ""),
        ("probe.mine.train_error", "share", "training error of the probe 'mine'"),
        ("metamers.adversarial_8bit", "share", "metamers that keep their predicted class while the oracle's label changes "
         "(Definition 3), when saved as 8-bit pictures"),
        ("train.adversary_cross_entropy_nats", "nats", ""),
        ("validation.bits_per_dim", "bits", "code length of the validation data, per dimension"),
        ("numerics.inverse_error_max", "number", "largest |F⁻¹(F(x)) − x|, network inputs"),
        ("seconds.train", "seconds", "training"),
    ],
)  # fmt: skip
def test_a_key_is_described(key: str, unit: str, meaning: str) -> None:
    assert describe(key) == (unit, meaning)


def linear(clf: InvertibleClassifier, settings: Any) -> nn.Module:
    return nn.Linear(clf.dimensions - clf.classes, clf.classes)


def test_a_probe_of_ones_own_takes_part_where_it_says(clf: InvertibleClassifier, data: DataSet, tmp_path: Path) -> None:
    registry.probes.register("linear")(ProbeKind("a linear layer", network=linear))
    registry.probes.register("ridge")(ProbeKind("ridge", trainer=train_kernel_probe, steps=3))
    registry.probes.register("maps")(ProbeKind("feature maps", network=linear, takes="feature_maps"))
    assert not any(key.startswith("probe.linear") for key in evaluate(clf, data))
    results = evaluate(clf, data, protocol="full", probe=SMALL)
    assert results["probe.test_error"] == min(results[f"probe.{name}.test_error"] for name in ("mlp", "kernel", "linear", "ridge"))
    assert results["probe.ridge.test_error"] == results["probe.kernel.test_error"]
    assert not any(key.startswith("probe.maps") for key in results)
    page = write_report(tmp_path, results=results).read_text(encoding="utf-8")
    assert "linear: a linear layer" in page
    assert "training error of the probe &#39;linear&#39;" in page


def test_an_own_trainer_gets_the_network_if_there_is_one(clf: InvertibleClassifier, data: DataSet) -> None:
    seen: dict[str, Any] = {}

    def trainer(*parts: Any, advance: Callable[[int], object], **options: Any) -> Probe:
        seen.update(options)
        return Probe(options["network"](), torch.zeros(2), torch.ones(2)).eval()

    registry.probes.register("untrained")(ProbeKind("untrained", network=linear, trainer=trainer, protocols=("quick",)))
    results = evaluate(clf, data)
    assert {"network", "epochs_max", "patience", "seed", "device"} == set(seen)
    assert results["probe.untrained.epochs"] == 0
    assert results["probe.name"] == "mlp"


def test_a_probe_that_is_none_is_named_and_breaks_nothing(clf: InvertibleClassifier, data: DataSet) -> None:
    with pytest.raises(UsageError, match="probe 'nothing': expected a network or a trainer, found neither"):
        ProbeKind("nothing")
    registry.probes.register("odd")(nn.Linear)
    with pytest.warns(UserWarning, match="probe 'odd' is left out: expected a lower-case name and a ProbeKind, found type"):
        assert "probe.mlp.test_error" in evaluate(clf, data)
