"""Training and evaluation under a caller's modes, and on batches of a single example."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

import flowclf
from flowclf.data import DataSet
from flowclf.errors import UsageError
from flowclf.losses import CrossEntropy, FactorialPriorMLE, IndependenceCrossEntropy, Loss, MetamerMatching
from flowclf.run.planning import plan
from flowclf.settings import ProbeSettings

PROBE = ProbeSettings(hidden=[8])


def _data(batch_size: int = 16) -> DataSet:
    images = torch.randint(0, 256, (48, 8, 8), dtype=torch.uint8)
    return DataSet.from_arrays(images, torch.arange(48) % 4, batch_size=batch_size)


def _ice(**settings: Any) -> Loss:
    return IndependenceCrossEntropy(nuisance={"hidden": [8], "network": "both", **settings})


def _new() -> flowclf.InvertibleClassifier:
    return flowclf.build_classifier((1, 8, 8), tiny.IMAGE_NODES, 4)


@pytest.fixture
def _float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow)])
def test_any_default_type(dtype: torch.dtype, tmp_path: Path) -> None:
    torch.set_default_dtype(dtype)
    clf = _new()
    torch.set_default_dtype(torch.float64)
    data = _data()
    flowclf.fit(clf, _ice() + 0.1 * MetamerMatching(), data, epochs=1, ema=0.9)
    oracle = flowclf.plain_classifier((1, 8, 8), {"plain_cnn": {"widths": [4], "hidden": 0}}, 4)
    protocol = "quick" if dtype == torch.float32 else "full"
    results = flowclf.evaluate(clf, data, protocol=protocol, probe=PROBE, oracle=oracle)
    assert 0 <= results["probe.test_error"] <= 1
    assert ("probe.kernel.test_error" in results) == (protocol == "full")
    assert clf.dtype == clf.sample(2).dtype == dtype
    x = torch.rand(2, 1, 8, 8).to(dtype)
    assert flowclf.metamers.metamer(clf, x, x.flip(0)).dtype == dtype
    again = flowclf.load(flowclf.save(clf, tmp_path))
    assert again.dtype == dtype
    torch.testing.assert_close(again.logits(x), clf.logits(x), rtol=0, atol=0)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_training_and_evaluation_do_not_depend_on_the_callers_mode(mode: Callable[[], Any], tmp_path: Path) -> None:
    def learn(inside: Callable[[], Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        torch.manual_seed(1)
        data, clf, loss = _data(), _new(), _ice()
        with inside():
            assert torch.is_inference_mode_enabled() == (inside is torch.inference_mode)
            rows = flowclf.fit(clf, loss, data, epochs=1, ema=0.9)
            results = flowclf.evaluate(clf, data, probe=PROBE)
            flowclf.load(flowclf.save(clf, tmp_path / inside.__name__))
            assert not torch.is_grad_enabled() or inside is torch.enable_grad
        for found in (*rows, results):
            for name in [name for name in found if name.startswith("seconds")]:
                del found[name]
        return rows, results

    assert learn(mode) == learn(torch.enable_grad)


def test_what_is_loaded_in_inference_mode_can_be_trained(tmp_path: Path) -> None:
    flowclf.save(_new(), tmp_path)
    with torch.inference_mode():
        clf, data = flowclf.load(tmp_path), _data()
    assert flowclf.fit(clf, CrossEntropy(), data, epochs=1)


def test_what_is_built_in_inference_mode_cannot_be_trained_but_evaluated() -> None:
    with torch.inference_mode():
        clf = tiny.image_classifier()
    with pytest.raises(UsageError, match=r"built in torch\.inference_mode"):
        flowclf.fit(clf, CrossEntropy(), _data(), epochs=1)
    assert 0 <= flowclf.evaluate(clf, _data(), probe=PROBE)["probe.test_error"] <= 1


@pytest.mark.parametrize(
    "loss",
    [
        lambda: _ice(network="mlp"),
        lambda: _ice(network="conv", delay=0.5),
        lambda: CrossEntropy() + 0.5 * _ice(),
        lambda: CrossEntropy() + 0.1 * MetamerMatching(delay=0.5),
    ],
)
def test_single_examples_are_refused_before_the_training(loss: Callable[[], Loss]) -> None:
    with pytest.raises(UsageError, match="at least 2"):
        flowclf.training.Trainer(_new(), loss(), _data(1), {"epochs": 1})
    assert flowclf.fit(_new(), loss(), _data(2), epochs=1)


def test_single_examples_are_refused_for_a_batch_norm_of_vectors_only() -> None:
    def network(hidden: int) -> flowclf.PlainClassifier:
        return flowclf.plain_classifier((1, 8, 8), {"plain_cnn": {"widths": [4, 8], "hidden": hidden}}, 4)

    with pytest.raises(UsageError, match=r"batch_size: expected at least 2 examples.*found 1"):
        flowclf.fit(network(8), CrossEntropy(), _data(1), epochs=1)
    assert flowclf.fit(network(0), CrossEntropy(), _data(1), epochs=1)
    assert flowclf.fit(_new(), FactorialPriorMLE(), _data(1), epochs=1)


def test_the_trial_of_single_examples_leaves_no_marks() -> None:
    clf, data = flowclf.plain_classifier((1, 8, 8), {"plain_cnn": {"widths": [4, 8], "hidden": 0}}, 4), _data(1)
    before, state = {name: value.clone() for name, value in clf.state_dict().items()}, torch.get_rng_state()
    flowclf.training.Trainer(clf, CrossEntropy(), data, {"epochs": 1})
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in clf.state_dict().items())


def test_a_dry_run_refuses_single_examples(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "name: single\ndata: {name: mnist, batch_size: 1, train_limit: 10}\nmodel: {name: firevnet, blocks: 1, width: 4}\n"
        "loss: {name: independence_cross_entropy}\n"
    )
    with pytest.raises(UsageError, match="batch_size: expected at least 2 examples"):
        plan(flowclf.recipe.load(recipe))


def test_a_last_batch_of_one_is_left_out() -> None:
    data = _data()
    odd = dataclasses.replace(data, train=data.train.head(33))
    assert odd.steps_per_epoch == 2
    assert flowclf.fit(_new(), _ice(), odd, epochs=1)


def test_a_probe_of_a_single_example_is_refused() -> None:
    with pytest.raises(flowclf.errors.FlowclfError, match="at least 2 training examples"):
        flowclf.evaluate(tiny.image_classifier(), _data(), probe=ProbeSettings(hidden=[8], examples=1))
