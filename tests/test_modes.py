"""Constants survive whatever traces a model: export, compile, functorch, fake tensors and inference mode leave no marks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

import flowclf
from flowclf import InvertibleClassifier
from flowclf.modes import cached_constant, is_traced
from flowclf.nodes import dct

NODES = ["squeeze", "actnorm", {"affine_coupling": {"subnet": {"conv": {"width": 4}}}}, {"split_head": {"dct": True}}]
GRID = ["squeeze", {"additive_coupling": {"subnet": {"conv": {"width": 4}}}}, {"split_head": {"dct": False}}]


def _exported(clf: InvertibleClassifier, x: Tensor) -> None:
    torch.export.export(clf.logits_only(preprocess=False), (x,), strict=False)


def _compiled(clf: InvertibleClassifier, x: Tensor) -> None:
    torch.compile(clf.logits_only(preprocess=False), backend="eager")(x)


def _vmapped(clf: InvertibleClassifier, x: Tensor) -> None:
    # torch has no vmap of memory formats yet.
    with contextlib.suppress(RuntimeError):
        torch.func.vmap(lambda one: clf.logits(one[None])[0])(x)


def _jacobian(clf: InvertibleClassifier, x: Tensor) -> None:
    torch.func.jacrev(lambda batch: clf.logits(batch))(x)


def _fake(clf: InvertibleClassifier, x: Tensor) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        clf.logits(mode.from_tensor(x))


def _jit(clf: InvertibleClassifier, x: Tensor) -> None:
    with pytest.warns(torch.jit.TracerWarning):
        torch.jit.trace(clf.logits_only(preprocess=False), (x,), check_trace=False)


def _inference(clf: InvertibleClassifier, x: Tensor) -> None:
    with torch.inference_mode():
        clf(x)


@pytest.fixture(autouse=True)
def _empty_cache() -> None:
    dct._dct_matrix.cache_clear()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("trace", [_exported, _compiled, _vmapped, _jacobian, _fake, _jit, _inference])
@pytest.mark.parametrize(("nodes", "stream"), [(NODES, "float"), (GRID, "fixed_point")])
def test_a_trace_leaves_no_marks(
    trace: Callable[[InvertibleClassifier, Tensor], None], nodes: list[object], stream: flowclf.graph.Stream
) -> None:
    torch._dynamo.reset()
    clf = flowclf.build_classifier((1, 8, 8), nodes, classes=4, stream=stream).eval()
    x = torch.rand(2, 1, 8, 8)
    clf.initialize(x)
    trace(clf, x)
    # Another model of the same shapes trains and inverts in the same process.
    again = flowclf.build_classifier((1, 8, 8), nodes, classes=4, stream=stream)
    again.load_state_dict(clf.state_dict())
    for one in (clf, again):
        encoding = one(x)
        encoding.logits.sum().backward()
        assert type(encoding.logits) is Tensor
        torch.testing.assert_close(one.inverse(encoding.logits, encoding.nuisance), x, rtol=0, atol=1e-4)
        peak = one.grid_peak()
        assert peak is None or 0 < peak.magnitude < 8


def test_constants_are_kept_unless_they_are_traced() -> None:
    made = []

    @cached_constant
    def constant(size: int) -> Tensor:
        made.append(size)
        return torch.arange(float(size))

    with FakeTensorMode():
        assert is_traced()
        assert constant(3).shape == (3,)
    assert not is_traced()
    with torch.inference_mode():
        first = constant(3)
    assert constant(3) is first
    assert not first.is_inference()
    assert made == [3, 3]
