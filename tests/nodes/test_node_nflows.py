"""The adapter: nflows' transforms as nodes, alone and in a classifier."""

from __future__ import annotations

from typing import Any

import nflows.transforms
import pytest
import torch
from torch import nn

import flowclf
from flowclf.errors import GraphError
from flowclf.nodes import NflowsTransform

# nflows calls a function that torch deprecates.
deprecated = pytest.mark.filterwarnings("ignore:torch.triangular_solve is deprecated:UserWarning")


@deprecated
@pytest.mark.parametrize(
    ("shape", "transform"),
    [
        ((6,), lambda: nflows.transforms.ReversePermutation(6)),
        ((6,), lambda: nflows.transforms.HouseholderSequence(6, 3)),
        ((4, 3, 3), lambda: nflows.transforms.OneByOneConvolution(4)),
        (
            (6,),
            lambda: nflows.transforms.CompositeTransform(
                [nflows.transforms.LULinear(6), nflows.transforms.LeakyReLU(0.5), nflows.transforms.SVDLinear(6, 2)]
            ),
        ),
    ],
    ids=["permutation", "householder", "convolution", "composite"],
)
def test_transforms_agree_with_nflows_and_invert(shape: tuple[int, ...], transform: Any) -> None:
    node = NflowsTransform([shape], transform=transform()).double().eval()
    x = torch.randn(3, *shape, dtype=torch.float64)
    expected, expected_log_det = node.transform_module(x)
    (z,), log_det = node((x,))
    (again,), inverse_log_det = node((z,), rev=True)
    assert torch.equal(z, expected)
    assert torch.equal(log_det, expected_log_det)
    torch.testing.assert_close(again, x, atol=1e-7, rtol=0)
    torch.testing.assert_close(inverse_log_det, -log_det, atol=1e-7, rtol=0)


@deprecated
def test_transforms_that_want_contiguous_maps_work_in_a_classifier() -> None:
    nodes = ["squeeze", {"nflows": {"transform": nflows.transforms.OneByOneConvolution(4)}}, "split_head"]
    classifier = flowclf.build_classifier((1, 6, 6), nodes, classes=3).double()
    x = torch.randn(2, 1, 6, 6, dtype=torch.float64)
    encoding = classifier(x)
    torch.testing.assert_close(classifier.inverse(encoding.logits, encoding.nuisance), x, atol=1e-10, rtol=0)


@pytest.mark.parametrize("transform", [3, nn.Linear(4, 4), nflows.transforms.ReversePermutation])
def test_what_is_no_transform_is_refused(transform: Any) -> None:
    with pytest.raises(GraphError, match="needs an nflows transform"):
        NflowsTransform([(4,)], transform=transform)
