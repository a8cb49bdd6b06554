"""fiRevNet architectures: functions that return a list of node specs for ``flowclf.build_classifier``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from flowclf.argument_types import NonNegativeInt, PositiveFloat, PositiveInt, SubnetSpec, TransformerName
from flowclf.errors import UsageError


def firevnet(
    *,
    stages: PositiveInt = 2,
    blocks: PositiveInt | list[PositiveInt] = 4,
    width: PositiveInt | list[PositiveInt] = 64,
    coupling: TransformerName = "affine",
    bound: PositiveFloat = 1.5,
    mixing: Literal["orthogonal", "lu", "permutation"] = "orthogonal",
    actnorm: bool = True,
    normalization: Literal["none", "batch"] = "none",
    factor_out: bool = False,
    order: Literal["readout_last", "readout_first"] = "readout_last",
    readout: SubnetSpec | None = None,
    pixelwise: bool = False,
    fold: bool = False,
    gaussianize: bool = False,
    readout_width: NonNegativeInt = 0,
    readout_blocks: NonNegativeInt = 2,
    logit_couplings: NonNegativeInt = 0,
    logit_scale: PositiveFloat = 1.0,
    logit_mean: PositiveFloat = 25.0,
    dct: bool = True,
) -> list[Any]:
    """Convolutional fully invertible RevNet (paper, section 2.2 and appendix B.2), or a readout and a flow given what it reads.

    Each stage is a squeeze followed by blocks of ActNorm, an invertible 1x1 convolution and a coupling. With ``readout_last`` the
    logits are read after the last stage, as in the paper. Optional before the head are a readout, a residual network from all other
    latents to an increment of the logits, and logit couplings.

    With ``readout_first`` a convolutional classifier reads the image, before the first squeeze, and adds to what the head will read
    as logits, which all blocks then keep; their couplings depend on the class probabilities, without gradient.
    So the likelihood trains a deep flow of the nuisances given the class, and not the classifier:
    I(y; z_n) <= E_y KL(q(z_n | y) || p(z_n)) bounds what a probe can find.

    Args:
        stages: number of squeezes; each halves height and width.
        blocks: blocks per stage, one number for all stages or a list.
        width: channels of the couplings' hidden layers, one number for all stages or a list.
        coupling: the couplings' transformer, a registered name: affine, additive (log_det 0), rational_quadratic.
        bound: largest absolute log-scale of an affine coupling, nats.
        mixing: parametrisation of the 1x1 convolutions; ``permutation`` uses fixed random permutations of the channels instead.
        actnorm: put an ActNorm before each block and, with ``readout_last`` or ``pixelwise``, at the end.
        normalization: normalisation in the couplings' subnets.
        factor_out: factor half of the channels out after each stage except the last.
        order: place of the readout.
        readout: the classifier of ``readout_first``: the spec of a subnet that returns vectors; by default ``cnn``.
        pixelwise: with ``readout_first``, what is given the class may differ from pixel to pixel in the couplings' subnets, see
            ``conditional_conv``, and in a :class:`~flowclf.nodes.LogitActNorm` at the end. For images that have the same thing at
            the same place, such as digits.
        fold: with ``readout_first`` and without ``dct``, a :class:`~flowclf.nodes.LogitFold` before the readout: metamers of images
            with black corners then keep their prediction when their pixels are clipped to the range of an image.
        gaussianize: with ``readout_first`` and without ``dct``, a :class:`~flowclf.nodes.LogitGaussianization` after the readout,
            for images of which much is background, such as drawings: the likelihood then falls far faster, and games are stable.
        readout_width: channels of the readout's hidden layers with ``readout_last``; 0 for no readout.
        readout_blocks: residual blocks of that readout.
        logit_couplings: pairs of couplings before the head that transform the nuisances conditioned on the logits.
        logit_scale: factor on the logits inside the bijection.
        logit_mean: m of the prior N(m e_y, m I) on the logits.
        dct: read the logits from the lowest frequencies of the last feature maps, rather than from their first pixel.

    Raises:
        UsageError: if the length of a list is not the number of stages, or an argument does not fit the order.

    Example:
        >>> firevnet(stages=1, blocks=1)[0]
        'squeeze'
    """
    counts, widths = per_stage("blocks", blocks, stages), per_stage("width", width, stages)
    head = {"split_head": {"dct": dct, "logit_scale": logit_scale, "logit_mean": logit_mean}}
    arguments: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "readout": (readout, (None,)),
        "pixelwise": (pixelwise, (False,)),
        "fold": (fold, (False,)),
        "gaussianize": (gaussianize, (False,)),
    }
    if order == "readout_first":
        arguments = {
            "coupling": (coupling, ("affine",)),
            "mixing": (mixing, ("orthogonal", "lu")),
            "normalization": (normalization, ("none",)),
            "factor_out": (factor_out, (False,)),
            "readout_width": (readout_width, (0,)),
            "readout_blocks": (readout_blocks, (2,)),
            "logit_couplings": (logit_couplings, (0,)),
        }
    for name, (given, allowed) in arguments.items():
        if given not in allowed:
            raise UsageError(f"firevnet: {name}: {given!r} does not fit order: {order}")
    if dct and (fold or gaussianize):
        raise UsageError(f"firevnet: {'fold' if fold else 'gaussianize'}: True needs dct: False")
    if order == "readout_first":
        before, after = (
            [{node: {"squeezes": stages}}] if wanted else []
            for node, wanted in (("logit_fold", fold), ("logit_gaussianization", gaussianize))
        )
        scaled: dict[str, Any] = {"dct": dct, "logit_scale": logit_scale}
        reading = {"logit_readout": {"subnet": readout or "cnn", "squeezes": stages, **scaled}}
        flow = _given_the_class(list(zip(counts, widths, strict=True)), bound, mixing, actnorm, pixelwise, scaled)
        return [*before, reading, *after, *flow, head]
    norm = ["actnorm"] if actnorm else []
    subnets = [{"conv": {"width": channels, "normalization": normalization}} for channels in widths]
    specs: list[Any] = []
    for stage, count in enumerate(counts):
        if factor_out and stage:
            specs.append("factor_out")
        block = [*norm, _mixing(mixing), coupling_spec(coupling, bound, {"subnet": subnets[stage]})]
        specs += ["squeeze", {"repeat": count, "nodes": block}]
    specs += norm
    if readout_width:
        residual = {"residual": {"width": readout_width, "blocks": readout_blocks}}
        specs.append({"logit_readout": {"subnet": residual, "logit_scale": logit_scale, "dct": dct}})
    specs += logit_couplings_specs(logit_couplings, {"subnet": subnets[-1], "bound": bound, "logit_scale": logit_scale, "dct": dct})
    return [*specs, head]


def _given_the_class(
    stages: list[tuple[int, int]], bound: float, mixing: str, actnorm: bool, pixelwise: bool, scaled: Mapping[str, Any]
) -> list[Any]:
    """Stages of a squeeze and blocks, so many and so wide, that keep the logits and see the class probabilities."""
    specs: list[Any] = []
    each = {"pixelwise": True} if pixelwise else {}
    for stage, (count, width) in enumerate(stages, start=1):
        here = {"squeezes": len(stages) - stage}
        # A shift of a channel by class moves all its pixels at once, and a game against it swings; couplings see the class anyway.
        norm = [{"logit_actnorm": {"conditional": False, **scaled, **here}}] if actnorm else []
        mixed = {"logit_conv1x1": {"parametrization": mixing, "dct": scaled["dct"], **here}}
        subnet = {"conditional_conv": {"width": width, **each}}
        coupling = {"logit_coupling": {"subnet": subnet, "bound": bound, **scaled, **here, "detach_logits": True}}
        specs += ["squeeze", {"repeat": count, "nodes": [*norm, mixed, coupling]}]
    if actnorm and pixelwise:
        specs.append({"logit_actnorm": {**scaled, **each, "detach_logits": True}})
    return specs


def firevnet_fc(
    *,
    blocks: PositiveInt = 4,
    width: PositiveInt = 100,
    hidden_layers: PositiveInt = 2,
    coupling: TransformerName = "additive",
    bound: PositiveFloat = 1.5,
    actnorm: bool = False,
    mixing: Literal["none", "orthogonal", "lu", "permutation"] = "none",
    logit_couplings: NonNegativeInt = 0,
    logit_scale: PositiveFloat = 1.0,
    logit_mean: PositiveFloat = 25.0,
) -> list[Any]:
    """Fully connected fully invertible RevNet for vectors (paper, appendix B.1).

    A block is a RevNet block: y2 = x2 + F(x1), then y1 = x1 + G(y2), on the two halves of the vector. F and G are three-layer ReLU
    networks, as in a RevNet's bottleneck block, without batch norm. The paper states no widths; the default is the number of
    dimensions of its spheres.

    Args:
        blocks: number of RevNet blocks, each of two couplings.
        width: units per hidden layer of the couplings.
        hidden_layers: number of hidden layers of the couplings.
        coupling: the couplings' transformer, a registered name: additive (log_det 0), affine, rational_quadratic.
        bound: largest absolute log-scale of an affine coupling, nats.
        actnorm: put an ActNorm before each block.
        mixing: parametrisation of a learned linear map of the dimensions before each block; ``permutation`` for a fixed random
            permutation, ``none`` for neither.
        logit_couplings: pairs of couplings before the head that transform the nuisances conditioned on the logits.
        logit_scale: factor on the logits inside the bijection.
        logit_mean: m of the prior N(m e_y, m I) on the logits.

    Example:
        >>> firevnet_fc(blocks=2)[0]["repeat"]
        2
    """
    subnet = {"dense": {"width": width, "hidden_layers": hidden_layers}}
    # The logits are the first entries. Their half is transformed last, so that they can depend on every dimension.
    block: list[Any] = [coupling_spec(coupling, bound, {"subnet": subnet, "swap": swap}) for swap in (False, True)]
    if mixing != "none":
        block.insert(0, _mixing(mixing))
    if actnorm:
        block.insert(0, "actnorm")
    return [
        {"repeat": blocks, "nodes": block},
        *logit_couplings_specs(logit_couplings, {"subnet": subnet, "bound": bound, "logit_scale": logit_scale}),
        {"split_head": {"logit_scale": logit_scale, "logit_mean": logit_mean}},
    ]


def logit_couplings_specs(pairs: int, arguments: dict[str, Any]) -> list[Any]:
    """Pairs of logit couplings, the second of a pair with the halves swapped."""
    pair = [{"logit_coupling": {**arguments, "swap": swap}} for swap in (True, False)]
    return [{"repeat": pairs, "nodes": pair}] if pairs else []


def _mixing(name: str) -> Any:
    return "permutation" if name == "permutation" else {"invertible_conv1x1": {"parametrization": name}}


def coupling_spec(transformer: str, bound: float, arguments: dict[str, Any]) -> Any:
    """The spec of a coupling with a transformer, by its short name where there is one."""
    match transformer:
        case "affine":
            return {"affine_coupling": {**arguments, "bound": bound}}
        case "additive":
            return {"additive_coupling": arguments}
    return {"coupling": {"transformer": transformer, **arguments}}


def per_stage(name: str, value: int | list[int], stages: int, architecture: str = "firevnet") -> list[int]:
    """One number for each stage; raises UsageError if a list has another length."""
    values = [value] * stages if isinstance(value, int) else list(value)
    if len(values) != stages:
        raise UsageError(f"{architecture}: {name} has {len(values)} entries for {stages} stages: {values}")
    return values
