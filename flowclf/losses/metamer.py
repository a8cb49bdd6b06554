"""Cross-entropy of metamers: what the logits say must be what one sees in the picture."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from flowclf.arguments import Fraction, NonNegativeFloat, PositiveFloat, PositiveFraction, PositiveInt
from flowclf.classifier import Encoding, InvertibleClassifier, require_invertible
from flowclf.errors import UsageError
from flowclf.losses.base import Binding, Loss, LossTerms, frozen, warmed_up
from flowclf.nodes.base import Shape, elements
from flowclf.nuisance_networks import mlp

__all__ = ["MetamerCrossEntropy"]


class MetamerCrossEntropy(Loss):
    r"""-log C(F^-1(z_s(x_i), z_n(x_j)))_{y_i}, mean over pairs of a batch, nats, with a critic C that learns from the data alone.

    A metamer of x_i has its logits and the nuisances of another sample (paper, section 2.2). If logits and nuisances
    are independent, metamers are distributed as the data are, and their class is that of their logits. This term asks for
    the second directly: C, an ordinary classifier of network inputs that is trained beside F on
    -log C(x_i)_{y_i}, has to see the logits' class in the metamer. Its gradient teaches the inverse to draw the class, and takes
    out of the nuisances what draws another. C is a judge that F can learn to please, so metamers are to be judged afterwards by a
    network that had no part in the training.

    Logits are taken as given: no gradient reaches them from here. In bf16 the inverse is one in train mode, rough as the subnets
    are there, and takes no longer than forward. Beside another loss, ``delay`` and ``warmup`` bring the term in
    when metamers begin to look like something.

    Args:
        width: channels of the critic's first layer, for feature maps; units of its hidden layers, for vectors.
        noise: largest standard deviation of Gaussian noise on what the critic sees in training, in units of the network's inputs;
            each sample's own is uniform from 0 to it. A critic that reads through noise looks at strokes, and is harder to please
            with what no eye would see.
        blur: largest standard deviation of a Gaussian blur of all that the critic sees in training, pixels; each sample's own is
            uniform from 0 to it. Stripes and chequers, which the couplings write with ease, do not survive it, strokes do. 0 for
            vectors.
        range_weight: factor of what leaves the range of images: the squared distance of the metamers' pixels to it, -1 to 1 in the
            network's inputs, mean over pixels. Without it an inverse tends to write chequers that clipping would remove.
        confidence: the probability of the logits' class from which on a metamer asks for nothing more: its cross-entropy counts
            only by as much as it exceeds -log(confidence). A critic can always be pleased a little more, and what pleases it most
            is one stencil a class, whoever the donor is; a metamer that it reads well enough keeps the donor's hand.
        share: of the batch for which a metamer is made; each costs an inverse and its gradient.
        critic_weight: factor of the critic's own cross-entropy. Where its gradient is small beside that of the other losses, and
            both are clipped together, the optimiser's weight decay draws the critic to 0, where it says nothing ever after: make up
            here for a small weight of this term in a sum.
        delay: share of the training before the metamers' weight leaves 0.
        warmup: share of the training over which it then grows to 1.

    Raises:
        UsageError: an encoding without the inputs that it is of.

    Example:
        >>> import torch
        >>> from flowclf.classifier import build_classifier
        >>> clf = build_classifier((1, 8, 8), ["squeeze", "split_head"], classes=10)
        >>> loss = MetamerCrossEntropy(width=4).bind(clf)
        >>> sorted(loss(clf(clf.preprocessing(torch.rand(4, 1, 8, 8))), torch.tensor([1, 2, 3, 4])).parts)
        ['critic_cross_entropy_nats', 'metamer_cross_entropy_nats']
    """

    invertible_only = True

    def __init__(
        self,
        *,
        width: PositiveInt = 32,
        noise: NonNegativeFloat = 0.0,
        blur: NonNegativeFloat = 0.0,
        range_weight: NonNegativeFloat = 0.0,
        confidence: PositiveFraction = 1.0,
        share: Fraction = 0.5,
        critic_weight: PositiveFloat = 1.0,
        delay: Fraction = 0.0,
        warmup: Fraction = 0.0,
    ) -> None:
        super().__init__()
        self.width = width
        self.noise = noise
        self.blur = blur
        self.range_weight = range_weight
        self.confidence = confidence
        self.share = share
        self.critic_weight = critic_weight
        self.delay = delay
        self.warmup = warmup

    def build(self, binding: Binding) -> None:
        """Make the critic.

        Raises:
            UsageError: a blur of vectors.
        """
        if self.blur and len(binding.classifier.input_shape) != 3:
            raise UsageError(f"{type(self).__name__}: blur is of images, found inputs {tuple(binding.classifier.input_shape)}")
        self.critic = _make_critic(binding.classifier.input_shape, binding.classes, self.width)

    @property
    def _classifier(self) -> InvertibleClassifier:
        return require_invertible(self.binding.classifier, type(self).__name__)

    def _judge(self, x: Tensor) -> Tensor:
        if self.training and self.blur:
            x = _blurred(x, self.blur * torch.rand(len(x), device=x.device, dtype=x.dtype), self.blur)
        if self.training and self.noise:
            strength = self.noise * torch.rand(len(x), *(1,) * (x.dim() - 1), device=x.device, dtype=x.dtype)
            x = x + strength * torch.randn_like(x)
        return self.critic(x)  # type: ignore[no-any-return]

    def forward(self, encoding: Encoding, labels: Tensor) -> LossTerms:
        """Parts: ``critic_cross_entropy_nats``, of C on the data, and ``metamer_cross_entropy_nats``."""
        if encoding.inputs is None:
            raise UsageError(f"{type(self).__name__} needs an encoding with the inputs that it is of: Encoding(..., inputs=x)")
        of_critic = functional.cross_entropy(self._judge(encoding.inputs.detach()), labels)
        total = self.critic_weight * of_critic
        pairs = max(1, round(self.share * len(labels)))
        # Batches are in random order: the next sample is as good a donor as any.
        logits, classes = encoding.logits.detach().roll(1, 0)[:pairs], labels.roll(1)[:pairs]
        grown = warmed_up(self.progress, self.delay, self.warmup)
        with torch.set_grad_enabled(torch.is_grad_enabled() and grown > 0), frozen(self.critic):
            metamers = self._classifier.inverse(logits, encoding.nuisance[:pairs])
            of_each = functional.cross_entropy(self._judge(metamers), classes, reduction="none")
        if grown:
            total = total + grown * (of_each + math.log(self.confidence)).clamp_min(0).mean()
            if self.range_weight and self.binding.preprocessing.bits is not None:
                total = total + grown * self.range_weight * (metamers - metamers.clamp(-1, 1)).square().mean()
        parts = {"critic_cross_entropy_nats": of_critic.detach(), "metamer_cross_entropy_nats": of_each.detach().mean()}
        return LossTerms(total, parts)


def _blurred(x: Tensor, deviations: Tensor, largest: float) -> Tensor:
    """Feature maps (B, C, H, W), each blurred by a Gaussian of its own standard deviation, (B,), pixels, at most the largest."""
    reach = math.ceil(2.5 * largest)
    steps = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    kernels = torch.softmax(-steps.square() / (2 * deviations[:, None].square() + 1e-6), dim=1)
    batch, channels, height, width = x.shape
    kernels = kernels.repeat_interleave(channels, 0)[:, None, None]
    maps = functional.pad(x, (reach,) * 4, mode="replicate").reshape(1, batch * channels, height + 2 * reach, width + 2 * reach)
    maps = functional.conv2d(maps, kernels, groups=batch * channels)
    return functional.conv2d(maps, kernels.transpose(2, 3), groups=batch * channels).view(x.shape)


def _make_critic(shape: Shape, classes: int, width: int) -> nn.Module:
    """A small convolutional network for feature maps (C, H, W), a fully connected one for vectors (D,).

    Args:
        shape: of its inputs.
        classes: K.
        width: channels of its first layer, or units of its hidden layers.
    """
    if len(shape) == 1:
        return mlp(elements(shape), classes, (width, width))
    channels, *size = shape
    layers: list[nn.Module] = []
    for outputs, stride in ((width, 2), (2 * width, 2), (2 * width, 1)):
        layers += [nn.Conv2d(channels, outputs, 3 if layers else 5, stride, 1 if layers else 2), nn.ReLU()]
        channels, size = outputs, [-(-side // stride) for side in size]
    return nn.Sequential(*layers, nn.Flatten(), mlp(channels * size[0] * size[1], classes, (4 * width,)))
