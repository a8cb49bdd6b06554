"""Learned mixing of channels that keeps the logits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor
from torch.nn import functional

from flowclf.nodes.base import BijectiveNode, channels_of
from flowclf.nodes.conv1x1 import mix, random_generator, rotation
from flowclf.nodes.logit_coupling import check_logit_channels, mean_map

__all__ = ["LogitMixing"]


class LogitMixing(BijectiveNode):
    """A rotation of the channels that leaves the logits unchanged; log-determinant 0.

    A :class:`SplitHead` with ``dct=True`` reads the logits from the means of the first K channels. What each channel has around
    its mean is rotated by one orthogonal matrix, (C, C), at every pixel; the means of the channels after the first K are rotated by
    another, (C-K, C-K); those of the first K stay. Between couplings that keep the logits (:class:`LogitCoupling`), this
    is what :class:`InvertibleConv1x1` is between others. On vectors the logits are the first K entries and the rest is rotated.

    Args:
        classes: K, at most the number of channels.

    Raises:
        GraphError: fewer channels than classes.

    Example:
        >>> import torch
        >>> node = LogitMixing([(16, 7, 7)], classes=10)
        >>> x = torch.randn(2, 16, 7, 7)
        >>> (z,), log_det = node((x,))
        >>> torch.allclose(z[:, :10].mean((2, 3)), x[:, :10].mean((2, 3)), atol=1e-6), log_det
        (True, tensor([0., 0.]))
    """

    exact_inverse = True

    def __init__(self, dims_in: Iterable[Sequence[int]], dims_c: Iterable[Sequence[int]] | None = None, *, classes: int) -> None:
        dims_in = list(dims_in)
        channels = channels_of(check_logit_channels(dims_in, classes, "LogitMixing"))
        super().__init__(dims_in, dims_c)
        self.classes = self.kept_logits = classes
        self.means = random_generator(channels - classes)
        self.around = random_generator(channels) if len(self.shape) == 3 else None

    def _of_means(self) -> Tensor:
        """The rotation of all channels' means, (C, C): a generator of zeros rotates nothing."""
        k = self.classes
        return rotation(functional.pad(self.means, (k, 0, k, 0)))

    def _mixed(self, x: Tensor, back: bool) -> Tensor:
        of_means = self._of_means()
        of_means = of_means.T if back else of_means
        if self.around is None:
            return mix(x, of_means)
        matrix = rotation(self.around)
        matrix = matrix.T if back else matrix
        return mix(x, matrix) + mix(mean_map(x), of_means - matrix)

    def transform(self, x: Tensor, conditions: Sequence[Tensor], log_det: bool) -> tuple[Tensor, Tensor | None]:
        """Rotate."""
        return self._mixed(x, back=False), None

    def invert(self, z: Tensor, conditions: Sequence[Tensor], log_det: bool) -> tuple[Tensor, Tensor | None]:
        """Rotate back."""
        return self._mixed(z, back=True), None
