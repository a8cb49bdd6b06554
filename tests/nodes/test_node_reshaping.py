"""Squeeze and FactorOut: entries move and none changes, in the documented order."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowclf.errors import GraphError
from flowclf.nodes import FactorOut, Permutation, Squeeze

small = st.integers(1, 3)


@given(channels=small, height=small, width=small, factor=st.integers(1, 3))
def test_squeeze_puts_pixels_into_channels_as_documented(channels: int, height: int, width: int, factor: int) -> None:
    shape = (channels, factor * height, factor * width)
    node = Squeeze([shape], factor=factor)
    x = torch.randn(2, *shape)
    (z,), log_det = node((x,))
    assert z.shape == (2, channels * factor**2, height, width)
    for c in range(channels):
        for i in range(factor):
            for j in range(factor):
                assert torch.equal(z[:, c * factor**2 + factor * i + j], x[:, c, i::factor, j::factor])
    assert torch.equal(log_det, torch.zeros(2))
    assert torch.equal(node((z,), rev=True)[0][0], x)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_squeeze_does_not_mind_the_memory_format(memory_format: torch.memory_format) -> None:
    x = torch.randn(2, 3, 4, 4)
    node = Squeeze([(3, 4, 4)])
    assert torch.equal(node((x.contiguous(memory_format=memory_format),))[0][0], node((x,))[0][0])


@pytest.mark.parametrize("shape", [(1, 7, 8), (1, 8, 7), (8,)])
def test_squeeze_refuses_sizes_that_it_does_not_divide(shape: tuple[int, ...]) -> None:
    with pytest.raises(GraphError) as caught:
        Squeeze([shape])
    assert str(shape) in str(caught.value)
    assert "2" in str(caught.value)


@pytest.mark.parametrize(("keep", "expected"), [(None, 3), (1, 1), (4, 4)])
@pytest.mark.parametrize("size", [(), (2, 3)])
def test_factor_out_splits_exactly(keep: int | None, expected: int, size: tuple[int, ...]) -> None:
    x = torch.randn(2, 5, *size)
    node = FactorOut([(5, *size)], keep=keep)
    (on, done), log_det = node((x,))
    assert torch.equal(on, x[:, :expected])
    assert torch.equal(done, x[:, expected:])
    assert torch.equal(log_det, torch.zeros(2))
    assert torch.equal(node((on, done), rev=True)[0][0], x)


@pytest.mark.parametrize(("shape", "keep"), [((1, 4, 4), None), ((4, 4, 4), 4), ((4, 4, 4), 0), ((4,), -1)])
def test_factor_out_must_leave_something_on_both_sides(shape: tuple[int, ...], keep: int | None) -> None:
    with pytest.raises(GraphError) as caught:
        FactorOut([shape], keep=keep)
    assert str(shape) in str(caught.value)


def test_nodes_refuse_what_is_neither_vector_nor_map() -> None:
    with pytest.raises(GraphError, match=r"Squeeze.*\(4, 4\)"):
        Squeeze([(4, 4)])
    with pytest.raises(GraphError, match="takes one input, found 2"):
        FactorOut([(4, 4, 4), (4, 4, 4)])


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_permutation_moves_channels_and_their_gradients(memory_format: torch.memory_format) -> None:
    node = Permutation([(6, 3, 2)])
    x = torch.randn(2, 6, 3, 2).contiguous(memory_format=memory_format).requires_grad_()
    (z,), _ = node((x,))
    weight = torch.randn_like(z)
    (z * weight).sum().backward()
    for index, source in enumerate(node.permutation.tolist()):
        assert torch.equal(z[:, index], x[:, source])
        assert torch.equal(x.grad[:, source], weight[:, index])
    assert not list(node.parameters())


def test_permutations_differ_unless_they_share_a_seed() -> None:
    made = [Permutation([(64,)], seed=seed).permutation for seed in (3, 3, None, None)]
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[2], made[3])
