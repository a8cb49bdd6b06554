"""Classifiers compile whole, and export to formats that only know elementary operators, with any batch size."""

from __future__ import annotations

import contextlib
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor, nn

import flowclf
from flowclf import InvertibleClassifier
from flowclf.architectures.firevnet import firevnet
from flowclf.nodes import InvertibleConv1x1

SMALL: dict[str, Any] = {"stages": 2, "blocks": 1, "width": 4}
ALL = firevnet(**SMALL, mixing="lu", coupling="rational_quadratic", factor_out=True, readout_width=4, logit_couplings=1)


def _classifier(kind: str) -> Any:
    if kind == "plain":
        return flowclf.plain_classifier((1, 8, 8), {"plain_cnn": {"widths": [4, 8], "hidden": 8, "smooth": True}}, 4).eval()
    if kind == "vectors":
        return tiny.vector_classifier()
    if kind == "grid":
        nodes: list[Any] = ["squeeze", "permutation", {"additive_coupling": {"subnet": tiny.CONV}}, {"split_head": {"dct": False}}]
        return tiny.randomize(flowclf.build_classifier((1, 8, 8), nodes, 4, stream="fixed_point"), 0.1).eval()
    nodes = {"default": firevnet(**SMALL), "all": ALL}[kind]
    return tiny.randomize(flowclf.build_classifier((1, 8, 8), nodes, 4), 0.1).eval()


# Of torch's own.
NOISY = pytest.mark.filterwarnings(
    *(f"ignore::{kind}" for kind in ("DeprecationWarning", "FutureWarning", "UserWarning", "torch.jit.TracerWarning"))
)
KINDS = ("default", "all", "grid", "vectors", "plain")


@NOISY
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gradient", [False, True])
def test_logits_compile_whole(kind: str, gradient: bool) -> None:
    torch._dynamo.reset()
    clf = _classifier(kind)
    logits = clf.logits_only()
    images = torch.rand(3, *clf.input_shape, requires_grad=gradient)
    with torch.set_grad_enabled(gradient):
        found = torch.compile(logits, backend="aot_eager", fullgraph=True)(images)
    torch.testing.assert_close(found, logits(images), rtol=0, atol=1e-5)
    if gradient:
        (grad,) = torch.autograd.grad(found[:, 0].sum(), images)
        torch.testing.assert_close(grad, torch.autograd.grad(logits(images)[:, 0].sum(), images)[0], rtol=0, atol=1e-5)


class _Interrupted(nn.Module):
    """A subnet that ``torch.compile`` cannot trace."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        torch._dynamo.graph_break()
        return self.layer(x)  # type: ignore[no-any-return]


@NOISY
def test_logits_compile_around_a_subnet_that_cannot_be_traced() -> None:
    torch._dynamo.reset()
    coupling = {"affine_coupling": {"subnet": _Interrupted}}
    clf = flowclf.build_classifier((1, 8, 8), ["squeeze", coupling, "logit_coupling", "split_head"], 4).eval()
    images = torch.rand(3, 1, 8, 8)
    found = torch.compile(clf.logits_only(), backend="aot_eager")(images)
    torch.testing.assert_close(found, clf.logits_only()(images), rtol=0, atol=1e-5)


class _Part(nn.Module):
    def __init__(self, clf: InvertibleClassifier, name: str) -> None:
        super().__init__()
        self.clf, self.name = clf, name

    def forward(self, *values: Tensor) -> Any:
        return getattr(self.clf, self.name)(*values)


def _exports(kind: str) -> list[tuple[nn.Module, tuple[Tensor, ...]]]:
    """What is exported of a classifier, and inputs for it."""
    clf = _classifier(kind)
    x = torch.rand(3, *clf.input_shape)
    modules: list[tuple[nn.Module, tuple[Tensor, ...]]] = [(clf.logits_only(), (x,))]
    if isinstance(clf, InvertibleClassifier):
        logits, nuisance, _ = (value.detach() for value in clf(x))
        modules += [(_Part(clf, "inverse"), (logits, nuisance)), (_Part(clf, "log_prob"), (x,))]
    return modules


@NOISY
@pytest.mark.parametrize("kind", KINDS)
def test_an_export_has_elementary_operators_and_any_batch_size(kind: str) -> None:
    for module, inputs in _exports(kind)[:2]:
        sizes = tuple({0: torch.export.Dim("batch", min=1)} for _ in inputs)
        given: Any = (sizes,) if isinstance(module, _Part) else sizes
        exported = torch.export.export(module.eval(), inputs, dynamic_shapes=given, strict=False)
        names = {str(node.target) for node in exported.graph.nodes}
        assert not [name for name in names if any(word in name for word in ("linalg", "solve", "triangular", "lu_"))]
        fewer = tuple(value[:2] for value in inputs)
        torch.testing.assert_close(exported.module()(*fewer), module(*fewer), rtol=1e-5, atol=1e-4)


@NOISY
@pytest.mark.parametrize("kind", KINDS)
def test_onnx_has_every_operator(kind: str, tmp_path: Path) -> None:
    for module, inputs in _exports(kind):
        # Without the package it converts every operator, and cannot write the file.
        missing = pytest.raises(torch.onnx.OnnxExporterError, match="onnx is not installed")
        with contextlib.nullcontext() if importlib.util.find_spec("onnx") else missing:
            torch.onnx.export(module.eval(), inputs, tmp_path / "model.onnx", dynamo=False, opset_version=17)


@NOISY
def test_onnx_computes_the_same(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    (module, (images,)), *_ = _exports("default")
    torch.onnx.export(module, (images,), tmp_path / "model.onnx", dynamo=False, opset_version=17, input_names=["images"])
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (found,) = session.run(None, {"images": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), module(images).detach(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("parametrization", ["lu", "orthogonal"])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_an_exported_matrix_is_that_of_the_model(parametrization: Any, scale: float) -> None:
    node = InvertibleConv1x1([(24, 2, 2)], parametrization=parametrization)
    with torch.no_grad():
        for parameter in node.parameters():
            # Rotations near 180 degrees, or unequal scales.
            parameter.mul_(scale if parametrization == "orthogonal" else scale**0.1)

    class Matrices(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.node = node

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x * self.node.matrix(), x * self.node.inverse_matrix()

    one = torch.ones(())
    found = torch.export.export(Matrices(), (one,), strict=False).module()(one)
    torch.testing.assert_close(found, (node.matrix(), node.inverse_matrix()), rtol=1e-5, atol=1e-5)
