"""A stream in fixed point: exact inverses, exact recomputation, refused graphs, overflow, and what a checkpoint keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from tiny import on_grid
from torch import Tensor

from flowclf import InvertibleClassifier, Preprocessing, build_classifier, checkpoint, load, save
from flowclf.architectures.firevnet import firevnet, firevnet_fc
from flowclf.data import DataSet
from flowclf.data import load as load_data
from flowclf.errors import CheckpointError, GraphError, GridOverflowError, UsageError
from flowclf.evaluation.inverse_error import inverse_error
from flowclf.losses import CrossEntropy, FactorialPriorMLE
from flowclf.nodes import AdditiveCoupling, set_subnet_dtype
from flowclf.training import Trainer, TrainSettings

PLAN = {"coupling": "additive", "mixing": "permutation", "actnorm": False, "dct": False}
DTYPES = pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=["fp32", "bf16"])


def fixed(shape: tuple[int, ...] = (1, 8, 8), *, scale: float = 0.1, **plan: Any) -> InvertibleClassifier:
    """A network for a fixed-point stream, away from its starting values, in eval mode."""
    specs = firevnet(**{"stages": 2, "blocks": 3, "width": 8, **PLAN, **plan})
    return tiny.randomize(build_classifier(shape, specs, classes=4, stream="fixed_point"), scale).eval()


def pixels(n: int, shape: tuple[int, ...] = (1, 8, 8)) -> Tensor:
    return torch.randint(0, 256, (n, *shape), dtype=torch.uint8)


def data(batch_size: int = 20) -> DataSet:
    labels = torch.arange(80) % 4
    images = pixels(80)[:, 0] // 4 + 48 * labels[:, None, None].to(torch.uint8)
    return DataSet.from_arrays(images, labels, batch_size=batch_size, validation=20)


def goes_back(clf: InvertibleClassifier, x: Tensor) -> bool:
    with torch.no_grad():
        logits, nuisance = clf.latents(x)
        assert on_grid(nuisance)
        return torch.equal(clf.inverse(logits, nuisance), x)


@torch.no_grad()
def change(clf: InvertibleClassifier, x: Tensor) -> float:
    """By how much the network changes the spread of its numbers, which a permutation would not."""
    return float((torch.cat(clf.latents(x), dim=1).std() - x.std()).abs())


@DTYPES
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("plan", [{}, {"factor_out": True, "normalization": "batch", "logit_scale": 0.25}], ids=["plain", "rich"])
def test_the_inverse_is_exact(plan: dict[str, Any], training: bool, dtype: torch.dtype | None) -> None:
    clf = fixed((2, 16, 16), **plan)
    set_subnet_dtype(clf, dtype)
    clf.train(training)
    x = clf.preprocessing.dequantize(pixels(16, (2, 16, 16)))
    assert change(clf, x) > 1e-2, "the network does nothing"
    assert goes_back(clf, x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_vectors_and_both_round_trips(dtype: torch.dtype) -> None:
    clf = build_classifier((9,), firevnet_fc(width=8, mixing="permutation", logit_scale=4.0), classes=3, stream="fixed_point")
    tiny.randomize(clf, 0.2).eval().to(dtype)
    assert goes_back(clf, clf.preprocessing(torch.randn(50, 9, dtype=dtype)))
    logits, nuisance = torch.randn(50, 3, dtype=dtype), torch.randn(50, 6, dtype=dtype)
    with torch.no_grad():
        x = clf.inverse(logits, nuisance)
        again = clf.latents(x)
        assert torch.equal(clf.inverse(*again), x)
    assert on_grid(x)
    # Latents off the grid are rounded to it, the logits to multiples of the step times their scale.
    assert float((again[0] - logits).abs().max()) <= 4 * 2.0**-17
    assert float((again[1] - nuisance).abs().max()) <= 2.0**-17


def test_depth_costs_a_float_stream_what_it_does_not_cost_here() -> None:
    """The same weights in a float stream: an inverse that is off, so the test above could fail."""
    clf = fixed(blocks=20, scale=0.2)
    plain = build_classifier((1, 8, 8), firevnet(blocks=20, width=8, **PLAN), classes=4).eval()
    plain.load_state_dict(clf.state_dict())
    x = clf.preprocessing.dequantize(pixels(16))
    assert goes_back(clf, x)
    assert inverse_error(clf, x).max == 0.0
    assert inverse_error(plain, x).max > 0.0


def test_off_the_grid_inputs_are_rounded_and_gradients_pass() -> None:
    clf = fixed()
    x = (0.3 * torch.randn(4, 1, 8, 8)).requires_grad_()
    encoding = clf(x)
    encoding.logits.sum().backward()
    assert x.grad.abs().sum() > 0
    with torch.no_grad():
        again = clf.inverse(encoding.logits, encoding.nuisance)
    assert on_grid(again)
    assert 0 < float((again - x.detach()).abs().max()) <= 2.0**-17


def gradients(clf: InvertibleClassifier, x: Tensor, labels: Tensor) -> list[Tensor]:
    encoding = clf(x)
    loss = torch.nn.functional.cross_entropy(encoding.logits, labels) - clf.prior.nuisance_log_prob(encoding.nuisance).mean()
    return list(torch.autograd.grad(loss, [p for p in clf.graph.parameters() if p.requires_grad]))


@DTYPES
def test_recomputed_activations_do_not_drift(dtype: torch.dtype | None) -> None:
    """The gradient of every parameter, to the last bit, at a depth where a float stream has lost some."""
    clf = fixed(blocks=12, scale=0.15).train()
    set_subnet_dtype(clf, dtype)
    x, labels = clf.preprocessing.dequantize(pixels(8)), torch.arange(8) % 4
    stored = gradients(clf, x, labels)
    clf.activations = "recompute"
    assert all(map(torch.equal, gradients(clf, x, labels), stored))


REFUSED = {
    "actnorm": (["squeeze", "actnorm", "split_head"], "2_actnorm"),
    "1x1": (["squeeze", "invertible_conv1x1", "split_head"], "2_invertible_conv1x1"),
    "affine": (["squeeze", "affine_coupling", "split_head"], "2_affine_coupling"),
    "dct": (["squeeze", "dct2d", {"split_head": {"dct": False}}], "2_dct2d"),
    "dct in the head": (["squeeze", "additive_coupling", "split_head"], "3_split_head.*dct=True"),
    "scale": (["squeeze", {"split_head": {"dct": False, "logit_scale": 3.0}}], "2_split_head.*logit_scale=3.0"),
    "readout": (["squeeze", "logit_readout", {"split_head": {"dct": False}}], "2_logit_readout"),
    "logits": (["squeeze", "logit_coupling", {"split_head": {"dct": False}}], "2_logit_coupling"),
}


@pytest.mark.parametrize(("nodes", "words"), REFUSED.values(), ids=REFUSED)
def test_other_nodes_are_refused_by_name(nodes: list[Any], words: str) -> None:
    build_classifier((1, 8, 8), nodes, classes=4)
    with pytest.raises(GraphError, match=f"node '{words}" if ".*" not in words else words):
        build_classifier((1, 8, 8), nodes, classes=4, stream="fixed_point")


def test_what_else_cannot_be_is_refused() -> None:
    nodes = ["squeeze", "additive_coupling", {"split_head": {"dct": False}}]
    with pytest.raises(UsageError, match="stream must be 'float' or 'fixed_point', found 'fixed'"):
        build_classifier((1, 8, 8), nodes, classes=4, stream="fixed")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="fixed_point=True"):
        build_classifier((1, 8, 8), nodes, classes=4, stream="fixed_point", preprocessing=Preprocessing((1, 8, 8)))
    with pytest.raises(UsageError, match=r"float32 or float64, found torch\.bfloat16"):
        fixed().to(torch.bfloat16).latents(torch.zeros(1, 1, 8, 8, dtype=torch.bfloat16))


# Overflow.


def test_the_peak_names_the_first_node_that_overflows() -> None:
    clf = fixed()
    couplings = [node for node in clf.modules() if isinstance(node, AdditiveCoupling)]
    clf.latents(torch.zeros(2, 1, 8, 8))
    quiet = clf.grid_peak()
    assert not quiet.overflows
    assert 0 < quiet.magnitude < 128
    torch.nn.init.constant_(couplings[2].subnet[-1].bias, 130.0)
    clf.latents(torch.zeros(2, 1, 8, 8))
    name = next(node.name for node in clf.graph.node_list if node.module is couplings[2])
    peak = clf.grid_peak()
    assert (peak.overflows, peak.node) == (True, name)
    assert peak.magnitude >= 128
    clf.latents(torch.full((1, 1, 8, 8), 200.0))
    assert clf.grid_peak().node == "input"
    assert build_classifier((4,), ["split_head"], classes=2).grid_peak() is None


@pytest.mark.parametrize(("every", "step"), [(None, 3), (1, 1)])
def test_a_training_whose_stream_overflows_stops_at_the_next_log_point(every: int | None, step: int) -> None:
    clf = fixed()
    last = next(node for node in clf.modules() if isinstance(node, AdditiveCoupling)).subnet[-1]
    torch.nn.init.constant_(last.bias, 130.0)
    settings = TrainSettings(epochs=1, optimizer={"name": "sgd", "lr": 1e-6}, precision="fp32", checkpoint_every_steps=every)
    saved: list[int] = []
    with pytest.raises(GridOverflowError, match=rf"step {step}: .*below 128, node '3_additive_coupling' reached 1[23]\d"):
        Trainer(clf, CrossEntropy(), data(), settings).run(on_state=lambda trainer: saved.append(trainer.step))
    assert not saved


# Training, checkpoints, copies.


@pytest.mark.parametrize("activations", ["store", "recompute"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_trained_network_is_exact_and_comes_back_so(tmp_path: Path, precision: Any, activations: Any) -> None:
    clf = fixed()
    settings = TrainSettings(
        epochs=2, optimizer={"name": "adamax", "lr": 1e-2}, precision=precision, activations=activations, ema=0.9
    )
    trainer = Trainer(clf, CrossEntropy() + 0.1 * FactorialPriorMLE(), data(), settings)
    trainer.run()
    trainer.finish()
    x = clf.preprocessing.dequantize(data().test.inputs)
    assert goes_back(clf, x)
    again = load(save(clf, tmp_path))
    description = checkpoint.read_description(tmp_path)
    assert (description["stream"], description["subnet_precision"]) == ("fixed_point", precision)
    assert again.stream == "fixed_point"
    with torch.no_grad():
        assert all(map(torch.equal, again(x), clf(x)))
    assert goes_back(again, x)


def test_a_float_stream_goes_back_to_fp32_subnets(tmp_path: Path, image_classifier: InvertibleClassifier) -> None:
    Trainer(image_classifier, CrossEntropy(), data(), TrainSettings(epochs=1, precision="bf16")).run()
    save(image_classifier, tmp_path)
    assert checkpoint.read_description(tmp_path)["subnet_precision"] == "fp32"
    assert load(tmp_path).stream == "float"


@pytest.mark.parametrize(("key", "value"), [("stream", "decimal"), ("subnet_precision", "fp8"), ("stream", "fixed_point")])
def test_descriptions_that_cannot_be_are_refused(key: str, value: str, image_classifier: InvertibleClassifier) -> None:
    description = checkpoint.describe(image_classifier)
    with pytest.raises((CheckpointError, UsageError)):
        checkpoint.rebuild({**description, key: value})


@pytest.mark.slow
@DTYPES
@pytest.mark.parametrize(("blocks", "width", "steps"), [(16, 8, None), ([133, 133, 134], 4, 50)], ids=["48 blocks", "400 blocks"])
def test_all_of_mnist_goes_back(blocks: Any, width: int, steps: int | None, dtype: torch.dtype | None) -> None:
    """After an epoch of training at 48 blocks, after 50 steps at 400."""
    mnist = load_data("mnist", batch_size=128, train_limit=None if steps is None else 128 * steps)
    preprocessing = Preprocessing((1, 28, 28), pad=2, fixed_point=True)
    specs = firevnet(stages=3, blocks=blocks, width=width, **PLAN)
    clf = build_classifier((1, 32, 32), specs, classes=10, preprocessing=preprocessing, stream="fixed_point")
    precision: Any = "fp32" if dtype is None else "bf16"
    settings = TrainSettings(epochs=1, optimizer={"name": "adamax", "lr": 1e-3}, precision=precision, activations="recompute")
    trainer = Trainer(clf, CrossEntropy(), mnist, settings)
    trainer.run()
    trainer.finish()
    assert trainer.step == (steps or 430)
    generator = torch.Generator().manual_seed(0)
    moved = 0.0
    for images in mnist.test.inputs.split(200):
        x = clf.preprocessing.dequantize(images, generator)
        assert goes_back(clf, x)
        assert goes_back(clf, clf.preprocessing(images / 255))
        moved = max(moved, change(clf, x))
    assert moved > 1e-2
    assert not clf.grid_peak().overflows
