"""The paper's ImageNet network, and smaller ones of its kind."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from annotated_types import Len

from flowclf.architectures.firevnet import coupling_spec, logit_couplings_specs, per_stage
from flowclf.argument_types import NonNegativeInt, PositiveFloat, PositiveInt
from flowclf.errors import UsageError


def firevnet48(
    *,
    input_squeezes: PositiveInt = 2,
    blocks: PositiveInt | list[PositiveInt] = 4,
    width: Annotated[list[PositiveInt], Len(1, 20)] = [64, 128, 256, 512],  # noqa: B006
    affine_stages: NonNegativeInt = 1,
    bound: PositiveFloat = 1.0,
    normalization: Literal["none", "batch"] = "batch",
    logit_couplings: NonNegativeInt = 0,
    logit_scale: PositiveFloat = 1.0,
    logit_mean: PositiveFloat = 25.0,
    dct: bool = True,
) -> list[Any]:
    """Fully invertible RevNet for photographs (paper, appendix B.3); by default of 224 x 224 pixels and at most 3072 classes.

    Squeezes of the input, then stages of RevNet blocks with a squeeze between two stages: 3 x 224 x 224 pixels become 48 x 56 x 56
    before the first stage and 3072 x 7 x 7 in the last. A block is a coupling whose subnet is a bottleneck of three convolutions
    with batch norm; blocks transform the two halves of the channels in turn. 16 blocks of 3 convolutions give the 48 of the name.
    The first stages are additive, the last is affine; the logits are the lowest frequencies of the last maps, which is an
    invertible global average pooling.

    The paper does not state widths. Those of ResNet-50's bottlenecks, the default, give 22.9 million parameters and 2.6 billion
    multiply-adds for an image of 224 x 224 pixels; ResNet-50 has 25.6 and 4.1, ResNet-18 11.7 and 1.8, i-RevNet 181 million
    parameters. Squeezes of the input and stages fit other sizes: ``input_squeezes: 1`` with three widths for 32 pixels, with four
    for 64.

    Args:
        input_squeezes: squeezes before the first stage; each halves height and width.
        blocks: blocks per stage, one number for all stages or a list.
        width: channels of the bottlenecks of each stage; its length is the number of stages.
        affine_stages: number of stages, at the end, whose couplings are affine instead of additive.
        bound: largest absolute log-scale of an affine coupling, nats.
        normalization: normalisation in the couplings' subnets.
        logit_couplings: pairs of couplings before the head that transform the nuisances conditioned on the logits.
        logit_scale: factor on the logits inside the bijection.
        logit_mean: m of the prior N(m e_y, m I) on the logits.
        dct: read the logits from the lowest frequencies of the last feature maps, rather than from their first pixel.

    Raises:
        UsageError: if the list of blocks is not as long as that of widths, or there are more affine stages than stages.

    Example:
        >>> from flowclf import build_classifier
        >>> clf = build_classifier((3, 32, 32), firevnet48(input_squeezes=1, blocks=1, width=[8, 8, 8]), classes=100)
        >>> [row.kind for row in clf.node_rows()]
        ['squeeze', 'additive_coupling', 'squeeze', 'additive_coupling', 'squeeze', 'affine_coupling', 'split_head']
    """
    stages = len(width)
    if affine_stages > stages:
        raise UsageError(f"firevnet48: affine_stages: expected at most {stages}, the number of widths, found {affine_stages}")
    specs: list[Any] = []
    for stage, (count, channels) in enumerate(zip(per_stage("blocks", blocks, stages, "firevnet48"), width, strict=True)):
        specs += ["squeeze"] * (1 if stage else input_squeezes)
        subnet = {"bottleneck": {"width": channels, "normalization": normalization}}
        transformer = "affine" if stage >= stages - affine_stages else "additive"
        pair = [coupling_spec(transformer, bound, {"subnet": subnet, "swap": swap}) for swap in (True, False)]
        specs += [pair[block % 2] for block in range(count)]
    subnet = {"bottleneck": {"width": width[-1], "normalization": normalization}}
    conditional = {"subnet": subnet, "bound": bound, "logit_scale": logit_scale, "dct": dct}
    specs += logit_couplings_specs(logit_couplings, conditional)
    return [*specs, {"split_head": {"dct": dct, "logit_scale": logit_scale, "logit_mean": logit_mean}}]
