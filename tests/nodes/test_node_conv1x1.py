"""InvertibleConv1x1: both parametrisations define a matrix, its exact inverse and its determinant."""

from __future__ import annotations

import pytest
import torch
from tiny import randomize

from flowclf.nodes import InvertibleConv1x1

both = pytest.mark.parametrize("parametrization", ["lu", "orthogonal"])


@both
@pytest.mark.parametrize("channels", [1, 2, 7, 32])
def test_the_inverse_matrix_inverts_to_double_precision(parametrization: str, channels: int) -> None:
    node = randomize(InvertibleConv1x1([(channels,)], parametrization=parametrization), 0.05).double()
    identity = torch.eye(channels, dtype=torch.float64)
    torch.testing.assert_close(node.matrix() @ node.inverse_matrix(), identity, atol=1e-12, rtol=0)
    torch.testing.assert_close(node.inverse_matrix() @ node.matrix(), identity, atol=1e-12, rtol=0)


@both
def test_both_start_as_rotations(parametrization: str) -> None:
    matrix = InvertibleConv1x1([(8, 3, 3)], parametrization=parametrization).matrix()
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(8), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(matrix).item(), 1.0, atol=1e-5, rtol=0)


@both
def test_starts_differ_by_seed_alone(parametrization: str) -> None:
    def start(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return InvertibleConv1x1([(5,)], parametrization=parametrization).matrix()

    assert torch.equal(start(1), start(1))
    assert not torch.allclose(start(1), start(2))


def test_a_rotation_stays_one_whatever_its_parameters() -> None:
    node = randomize(InvertibleConv1x1([(6, 2, 2)], parametrization="orthogonal"), 2.0).double()
    matrix = node.matrix()
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(6, dtype=torch.float64), atol=1e-12, rtol=0)
    x = torch.randn(3, 6, 2, 2, dtype=torch.float64)
    (z,), log_det = node((x,))
    torch.testing.assert_close(z.flatten(1).norm(dim=1), x.flatten(1).norm(dim=1))
    assert torch.equal(log_det, torch.zeros(3, dtype=torch.float64))


def test_the_lu_log_det_is_the_determinant_of_the_matrix_at_each_position() -> None:
    node = randomize(InvertibleConv1x1([(5, 3, 4)])).double()
    _, log_det = node((torch.randn(2, 5, 3, 4, dtype=torch.float64),))
    expected = 12 * torch.linalg.slogdet(node.matrix()).logabsdet
    torch.testing.assert_close(log_det, expected.expand(2), atol=1e-12, rtol=0)


@both
def test_multiplies_the_channels_of_each_pixel(parametrization: str) -> None:
    node = randomize(InvertibleConv1x1([(4, 2, 3)], parametrization=parametrization)).double()
    x = torch.randn(2, 4, 2, 3, dtype=torch.float64)
    (z,), _ = node((x,))
    torch.testing.assert_close(z, torch.einsum("oc,bchw->bohw", node.matrix(), x))


def test_what_is_fixed_travels_in_the_state() -> None:
    torch.manual_seed(1)
    node = InvertibleConv1x1([(6,)])
    torch.manual_seed(2)
    other = InvertibleConv1x1([(6,)])
    other.load_state_dict(node.state_dict(), strict=True)
    assert torch.equal(other.matrix(), node.matrix())
