"""What was changed after a classifier was built would be lost in a file, and is refused when it is saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import flowclf
from flowclf import InvertibleClassifier
from flowclf.errors import CheckpointError

NODES = ["squeeze", "actnorm", {"affine_coupling": {"subnet": {"conv": {"width": 4}}, "bound": 1.0}}, "split_head"]


def _classifier() -> InvertibleClassifier:
    return flowclf.build_classifier((1, 8, 8), NODES, classes=4).eval()


def _subnet(clf: InvertibleClassifier) -> nn.Sequential:
    subnet = clf.graph.module_list[2].subnet
    assert isinstance(subnet, nn.Sequential)
    return subnet


def _gelu(clf: InvertibleClassifier) -> None:
    _subnet(clf)[1] = nn.GELU()


def _bound(clf: InvertibleClassifier) -> None:
    clf.graph.module_list[2].transformer.bound = 3.0


def _weight_norm(clf: InvertibleClassifier) -> None:
    nn.utils.parametrizations.weight_norm(_subnet(clf)[0])


def _buffer(clf: InvertibleClassifier) -> None:
    clf.graph.module_list[1].register_buffer("extra", torch.zeros(2))


def _wider(clf: InvertibleClassifier) -> None:
    _subnet(clf)[0] = nn.Conv2d(2, 8, 3, padding=1)


def _hook(clf: InvertibleClassifier) -> None:
    _subnet(clf)[0].register_forward_hook(lambda module, inputs, output: 2 * output)


def _scale(clf: InvertibleClassifier) -> None:
    clf.graph.module_list[3].logit_scale = 5.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_gelu, "node '3_affine_coupling', graph.module_list.2.subnet.1, .*: expected ReLU, found GELU"),
        (_bound, "node '3_affine_coupling', .*bound, .*: expected 1.0, found 3.0"),
        (_weight_norm, "node '3_affine_coupling', .*subnet.0, .*: expected Conv2d, found ParametrizedConv2d"),
        (_buffer, r"node '2_actnorm', .*extra, .*: expected none, found \(2,\)"),
        (_wider, "node '3_affine_coupling', .*out_channels, .*: expected 4, found 8"),
        (_hook, "node '3_affine_coupling', .*subnet.0, .* a hook"),
        (_scale, "node '4_split_head', .*logit_scale, .*: expected 1.0, found 5.0"),
    ],
)
def test_a_change_is_refused_and_named(change: Callable[[InvertibleClassifier], None], words: str, tmp_path: Path) -> None:
    clf = _classifier()
    change(clf)
    with pytest.raises(CheckpointError, match=f"cannot be saved: {words}"):
        flowclf.save(clf, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_plain_network_is_compared_too(tmp_path: Path) -> None:
    clf = flowclf.plain_classifier((1, 8, 8), {"plain_cnn": {"widths": [4], "hidden": 8, "dropout": 0.1}}, 4)
    flowclf.save(clf, tmp_path / "same")
    next(layer for layer in clf.modules() if isinstance(layer, nn.Dropout)).p = 0.5
    with pytest.raises(CheckpointError, match=r"\.p was changed .*: expected 0.1, found 0.5"):
        flowclf.save(clf, tmp_path / "model")


def test_what_a_training_sets_is_no_change(tmp_path: Path) -> None:
    clf = _classifier()
    clf.train()
    clf.activations = "recompute"
    clf.initialize(torch.rand(4, 1, 8, 8))
    again = flowclf.load(flowclf.save(clf.double(), tmp_path))
    assert torch.equal(again.graph.module_list[1].bias, clf.graph.module_list[1].bias)
