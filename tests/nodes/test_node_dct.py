"""DCT2d: scipy's orthonormal type II at any size, a rotation of every map."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowclf.errors import GraphError
from flowclf.nodes import DCT2d, dct2d, inverse_dct2d
from flowclf.nodes.dct import _dct_matrix

sizes = st.integers(1, 40)


@settings(max_examples=40)
@given(height=sizes, width=sizes, seed=st.integers(0, 2**31))
def test_equals_scipy(height: int, width: int, seed: int) -> None:
    x = np.random.default_rng(seed).standard_normal((2, 3, height, width))
    expected = scipy.fft.dctn(x, type=2, norm="ortho", axes=(-2, -1))
    (z,), log_det = DCT2d([(3, height, width)])((torch.from_numpy(x),))
    np.testing.assert_allclose(z.numpy(), expected, atol=1e-12, rtol=0)
    np.testing.assert_allclose(inverse_dct2d(z).numpy(), x, atol=1e-12, rtol=0)
    np.testing.assert_allclose(z.flatten(1).norm(dim=1).numpy(), np.linalg.norm(x.reshape(2, -1), axis=1), rtol=1e-13)
    assert torch.equal(log_det, torch.zeros(2, dtype=torch.float64))


@pytest.mark.parametrize("size", [1, 2, 7, 28, 224])
def test_the_matrix_is_orthogonal(size: int) -> None:
    matrix = _dct_matrix(size, torch.float64, torch.device("cpu"))
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(size, dtype=torch.float64), atol=1e-12, rtol=0)


def test_the_lowest_frequency_is_the_scaled_mean() -> None:
    x = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(dct2d(x)[:, :, 0, 0], x.mean((2, 3)) * 20**0.5)


def test_float32_is_the_rounded_double() -> None:
    x = torch.randn(2, 1, 28, 28, dtype=torch.float64)
    torch.testing.assert_close(dct2d(x.float()).double(), dct2d(x), atol=1e-5, rtol=0)


def test_inference_mode_leaves_nothing_that_cannot_be_trained_with() -> None:
    _dct_matrix.cache_clear()
    node = DCT2d([(1, 6, 3)])
    x = torch.randn(2, 1, 6, 3)
    with torch.inference_mode():
        node((x,))
    x.requires_grad_()
    node((x,))[0][0].square().sum().backward()
    torch.testing.assert_close(x.grad, 2 * x.detach())


def test_vectors_are_refused() -> None:
    with pytest.raises(GraphError, match=r"DCT2d.*\(12,\)"):
        DCT2d([(12,)])
