"""Couplings (NICE, RealNVP): one half of the channels is changed as a function of the other half, which stays as it is."""

from __future__ import annotations

from flowclf.argument_types import PositiveFloat, TransformerSpec
from flowclf.nodes.base import Shapes, single_shape
from flowclf.nodes.conditional import ConditionalNode, Halves
from flowclf.nodes.transformers import Additive, Affine, Transformer, build_transformer
from flowclf.subnets import Subnet


class Coupling(ConditionalNode):
    """z_2 = f(x_2; theta(x_1)), z_1 = x_1: a transformer f, its parameters theta from a subnet (Dinh et al., NICE, 2014, eq. 8).

    Args:
        dims_in: one shape, (C, H, W) or (D,), with at least two channels.
        dims_c: shapes of conditions, if any: feature maps of the same height and width, or vectors, which are spread over it.
        transformer: map of the second half: a registered name, such as affine, additive or rational_quadratic, or a mapping of one
            name to its arguments.
        subnet: spec of a registered subnet, or a function (channels_in, channels_out) -> module; by default a convolutional
            subnet for feature maps and a dense one for vectors.
        swap: transform the first half, given the second.

    Raises:
        GraphError: if there is one channel only, or a condition, the subnet or the transformer does not fit.

    Example:
        >>> import torch
        >>> node = Coupling([(6,)], transformer={"rational_quadratic": {"bins": 4, "bound": 2.0}})
        >>> x = torch.randn(3, 6)
        >>> z, log_det = node((x,))
        >>> (again,), inverse_log_det = node(z, rev=True)
        >>> torch.allclose(again, x, atol=1e-5)
        True
    """

    def __init__(
        self,
        dims_in: Shapes,
        dims_c: Shapes | None = None,
        *,
        transformer: TransformerSpec | Transformer = "affine",
        subnet: Subnet = None,
        swap: bool = False,
    ) -> None:
        name = type(self).__name__
        partition = Halves(single_shape(dims_in, name), swap, name)
        super().__init__(dims_in, dims_c, partition=partition, transformer=build_transformer(transformer), subnet=subnet)


class AdditiveCoupling(Coupling):
    """z_2 = x_2 + t(x_1): volume preserving (Dinh et al., NICE, 2014, section 3.2).

    Example:
        >>> import torch
        >>> node = AdditiveCoupling([(4, 8, 8)], subnet={"conv": {"width": 16}})
        >>> node((torch.randn(2, 4, 8, 8),))[1]
        tensor([0., 0.])
    """

    def __init__(self, dims_in: Shapes, dims_c: Shapes | None = None, *, subnet: Subnet = None, swap: bool = False) -> None:
        super().__init__(dims_in, dims_c, transformer=Additive(), subnet=subnet, swap=swap)


class AffineCoupling(Coupling):
    """z_2 = exp(s(x_1)) x_2 + t(x_1) with |s| bounded by ``bound`` (Dinh et al., Real NVP (RealNVP), 2017, section 3.2).

    Args:
        bound: largest absolute log-scale b, nats; see :class:`~flowclf.nodes.transformers.Affine`.

    Example:
        >>> AffineCoupling([(6,)], bound=1.0).transformer
        Affine(bound=1.0)
    """

    def __init__(
        self,
        dims_in: Shapes,
        dims_c: Shapes | None = None,
        *,
        subnet: Subnet = None,
        bound: PositiveFloat = 1.5,
        swap: bool = False,
    ) -> None:
        super().__init__(dims_in, dims_c, transformer=Affine(bound=bound), subnet=subnet, swap=swap)
