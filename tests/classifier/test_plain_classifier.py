"""Ordinary networks as classifiers: built, trained, saved, judged, and refused wherever an inverse is needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import flowclf
from flowclf import InvertibleClassifier, PlainClassifier, Preprocessing, load, plain_classifier, save
from flowclf.classifier import require_invertible
from flowclf.data import DataSet, Split
from flowclf.errors import CheckpointError, GraphError, RegistryError, UsageError
from flowclf.losses import CrossEntropy, FactorialPriorMLE, IndependenceCrossEntropy

SPEC: dict[str, dict[str, Any]] = {"plain_cnn": {"widths": [4, 6], "hidden": 8, "dropout": 0.1}}


def plain(**arguments: Any) -> PlainClassifier:
    torch.manual_seed(0)
    return plain_classifier((1, 8, 8), SPEC, 3, **arguments)


def rows_data() -> DataSet:
    """Images whose brightest rows say the class."""

    def split(n: int) -> Split:
        labels = torch.arange(n) % 3
        images = torch.randint(0, 100, (n, 1, 8, 8), generator=torch.Generator().manual_seed(n), dtype=torch.uint8)
        images[torch.arange(n), :, 2 * labels] += 150
        return Split(images, labels)

    return DataSet("rows", ("a", "b", "c"), split(192), split(60), split(90), batch_size=16)


def test_encodes_to_logits_alone() -> None:
    clf = plain().eval()
    images = torch.rand(5, 1, 8, 8)
    encoding = clf(clf.preprocessing(images))
    assert encoding.nuisance.shape == (5, 0)
    assert torch.equal(encoding.log_det, torch.zeros(5))
    assert torch.equal(clf.logits_only()(images), encoding.logits)
    assert torch.equal(clf.logits_only(preprocess=False)(clf.preprocessing(images)), encoding.logits)
    assert torch.equal(encoding.logits, clf.network(clf.preprocessing(images)))
    with pytest.raises(UsageError, match=r"expected floating-point inputs \(B, 1, 8, 8\)"):
        clf(torch.zeros(2, 8, 8))


def test_its_table_has_every_layer_and_leaves_no_trace() -> None:
    clf = plain().train()
    before = {name: value.clone() for name, value in clf.state_dict().items()}
    rows = clf.node_rows()
    assert (rows[0].kind, rows[0].shapes_in, rows[0].shapes_out) == ("Conv2d", ((1, 8, 8),), ((4, 8, 8),))
    assert rows[-1].shapes_out == ((3,),)
    assert sum(row.parameters for row in rows) == clf.parameter_count()
    assert all(module.training for module in clf.modules())
    assert all(torch.equal(value, before[name]) for name, value in clf.state_dict().items())
    assert not any(module._forward_hooks for module in clf.modules())
    assert repr(clf).startswith("PlainClassifier: 1x8x8 -> 3 logits, ")


def test_the_outputs_need_not_be_those_of_the_last_layer() -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.maps = nn.Conv2d(1, 3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.maps(x).mean((2, 3))

    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.matrix = nn.Parameter(torch.ones(4, 3))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.matrix

    assert PlainClassifier(Pooled(), (1, 8, 8), 3).node_rows()[-1].shapes_out == ((3, 6, 6),)
    (row,) = PlainClassifier(Product(), (4,), 3).node_rows()
    assert (row.kind, row.shapes_out, row.parameters) == ("Product", ((3,),), 12)


def test_comes_back_bit_for_bit(tmp_path: Path) -> None:
    clf = plain(preprocessing=Preprocessing((1, 6, 6), bits=3, pad=1), class_names=["x", "y", "z"])
    clf(torch.randn(9, 1, 8, 8))
    again = load(save(clf.eval(), tmp_path))
    assert isinstance(again, PlainClassifier)
    assert not again.training
    x = torch.randn(4, 1, 8, 8)
    assert torch.equal(again(x).logits, clf(x).logits)
    assert (again.class_names, again.preprocessing.config()) == (("x", "y", "z"), clf.preprocessing.config())
    assert (again.preprocessing.bits, again.preprocessing.pad) == (3, 1)
    assert repr(again) == repr(clf)


@pytest.mark.parametrize(
    "change",
    [
        {"network": {"plain_cnn": {"widths": [-3]}}},
        {"network": {"plain_cnn": {"widths": [10**9]}}},
        {"network": {"plain_cnn": {"widths": "ab"}}},
        {"network": {"plain_cnn": {"convolutions": True}}},
        {"network": {"plain_cnn": {"dropout": 7}}},
        {"network": {"os.system": {}}},
        {"network": {"firevnet": {}}},
        {"network": ["plain_cnn"]},
        {"network": None},
        {"input_shape": [1, 8]},
        {"input_shape": [1, -8, 8]},
        {"input_shape": None},
        {"class_names": 3},
        {"class_names": ["a", "b"]},
        {"kind": "invertible"},
    ],
)
def test_a_description_that_was_changed_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    save(plain(), tmp_path)
    file = tmp_path / "model.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(CheckpointError):
        load(tmp_path)


def test_a_network_of_ones_own_works_and_cannot_be_saved(tmp_path: Path) -> None:
    clf = PlainClassifier(nn.Linear(4, 2), (4,), 2)
    assert clf(torch.zeros(3, 4)).logits.shape == (3, 2)
    with pytest.raises(CheckpointError, match="made by a registered architecture"):
        save(clf, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: PlainClassifier(nn.Linear(4, 3), (4,), 2), GraphError, r"expected outputs \(2,\), found \(3,\)"),
        (lambda: PlainClassifier(nn.LSTM(4, 2), (4,), 2), GraphError, "expected a tensor of logits, found a tuple"),
        (lambda: plain_classifier((1, 8, 8), {"plain_cn": {}}, 2), RegistryError, "did you mean 'plain_cnn'"),
        (lambda: plain_classifier((1, 8, 8), {"plain_cnn": {"wide": 3}}, 2), UsageError, "architecture 'plain_cnn': .*wide"),
        (lambda: plain_classifier((1, 8, 8), {"firevnet": {}}, 2), GraphError, "use flowclf.build_classifier"),
        (
            lambda: plain_classifier((1, 8, 8), {}, 2),
            UsageError,
            "the name of a registered architecture, or a mapping of one name to its arguments; found an empty mapping",
        ),
        (lambda: plain(class_names=["a"]), UsageError, "expected 3 class names, found 1"),
        (lambda: plain(preprocessing=Preprocessing((1, 6, 6))), UsageError, r"the preprocessing gives \(1, 6, 6\)"),
    ],
)
def test_what_cannot_be_built_is_refused(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_the_one_training_loop_trains_it_and_evaluation_judges_it() -> None:
    clf, data = plain(), rows_data()
    history = flowclf.fit(clf, CrossEntropy(), data, epochs=4, ema=0.8, optimizer={"name": "adam", "lr": 1e-2})
    assert {name for name in history[-1] if name.startswith("validation.")} == {"validation.error", "validation.cross_entropy_nats"}
    assert not clf.training
    results = flowclf.evaluate(clf, data)
    assert results["model.kind"] == "plain"
    assert results["test.error"] < 0.05 < results["test.chance_error"]
    assert results["test.error_low"] <= results["test.error"] <= results["test.error_high"]
    assert not any(name.startswith(("probe.", "metamers.", "numerics.")) or "bits_per_dim" in name for name in results)
    again = plain()
    flowclf.fit(again, CrossEntropy(), data, epochs=4, ema=0.8, optimizer={"name": "adam", "lr": 1e-2})
    assert all(map(torch.equal, again.state_dict().values(), clf.state_dict().values()))


def test_outputs_that_are_not_finite_stop_the_evaluation() -> None:
    clf = plain()
    with torch.no_grad():
        clf.network[-1].bias[0] = torch.nan  # type: ignore[index,union-attr]
    with pytest.raises(flowclf.errors.FlowclfError, match="not finite for 192 of 192 train inputs"):
        flowclf.evaluate(clf, rows_data())


@pytest.mark.parametrize("loss", [IndependenceCrossEntropy(), FactorialPriorMLE(), CrossEntropy() + FactorialPriorMLE()])
def test_losses_that_need_an_inverse_are_refused(loss: Any) -> None:
    with pytest.raises(UsageError, match=r"(IndependenceCrossEntropy|FactorialPriorMLE): expected an invertible classifier"):
        loss.bind(plain())


@pytest.mark.parametrize("settings", [{"activations": "recompute"}, {"precision": "bf16"}])
def test_training_settings_of_invertible_networks_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="expected an invertible classifier, found a plain network"):
        flowclf.fit(plain(), CrossEntropy(), rows_data(), epochs=1, **settings)


def test_a_loss_that_reads_the_prior_is_told_that_there_is_none(image_classifier: InvertibleClassifier) -> None:
    class Reads(CrossEntropy):
        def forward(self, encoding: Any, labels: Tensor) -> Any:
            return self.binding.prior

    assert Reads().bind(image_classifier)(None, torch.zeros(1)) is image_classifier.prior
    with pytest.raises(UsageError, match="a loss with a likelihood or nuisances: expected an invertible classifier"):
        Reads().bind(plain())(None, torch.zeros(1))


def test_require_invertible(image_classifier: InvertibleClassifier) -> None:
    assert require_invertible(image_classifier, "metamers") is image_classifier
    with pytest.raises(UsageError, match="metamers: expected an invertible classifier, found a plain network"):
        require_invertible(plain(), "metamers")
