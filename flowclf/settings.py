"""Settings of augmentation, training and evaluation, with units, ranges and defaults: the same in recipes and in code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from annotated_types import Len
from pydantic import Field

from flowclf.argument_types import (
    Decay,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveFraction,
    PositiveInt,
    ProperFraction,
)
from flowclf.component_schema.components import Named
from flowclf.component_schema.sections import Section
from flowclf.component_schema.signature import Component


class ColorSettings(Section):
    """Random changes of colour, in random order; by default none. A factor is uniform in [1 - c, 1 + c] and not negative."""

    brightness: NonNegativeFloat = Field(0.0, description="Largest change c of the factor on the brightness.")
    contrast: NonNegativeFloat = Field(0.0, description="Largest change c of the factor on the contrast.")
    saturation: NonNegativeFloat = Field(0.0, description="Largest change c of the factor on the saturation; RGB only.")
    hue: NonNegativeFloat = Field(
        0.0, le=0.5, description="Largest shift of the hue, either way, in turns of its circle; RGB only."
    )


class AugmentSettings(Section):
    """Random changes to training images; by default none."""

    resized_crop: PositiveFraction | None = Field(
        None,
        description="Least area of a random crop that is scaled to the size of the images, as a fraction of the image; ImageNet's "
        "usual value is 0.08. null for no such crop.",
    )
    rotation: NonNegativeFloat = Field(0.0, le=180, description="Largest angle of rotation, either way, in degrees.")
    zoom: NonNegativeFloat = Field(0.0, lt=1, description="Largest change of size, either way, as a fraction of the size.")
    elastic: NonNegativeFloat = Field(0.0, description="Standard deviation of smooth random displacements, in pixels.")
    unwarped: Fraction = Field(0.0, description="Fraction of the images that rotation, zoom and elastic leave unchanged.")
    interpolation: Literal["bilinear", "bicubic"] = Field(
        "bilinear", description="Interpolation in resized_crop, rotation, zoom and elastic."
    )
    shift: NonNegativeInt | Decay = Field(
        0, description="Largest translation along each axis, in pixels, or as a fraction of the smaller side, rounded down."
    )
    crop: NonNegativeInt | Decay = Field(
        0,
        description="Padding on each side before a random crop to the original size, in pixels, or as a fraction of the smaller "
        "side, rounded down.",
    )
    flip: bool = Field(False, description="Mirror left and right with probability 1/2.")
    color: ColorSettings = Field(ColorSettings(), description="Random changes of brightness, contrast, saturation and hue.")
    noise: Fraction = Field(0.0, description="Largest standard deviation of Gaussian noise, as a fraction of the pixels' range.")


class OptimizerSettings(Component):
    """An optimiser, by name, with its arguments; see :mod:`flowclf.training.optimizers`."""

    name: str = Field(description="A registered optimiser.")


class ScheduleSettings(Component):
    """A learning-rate schedule, by name, with its arguments; see :mod:`flowclf.training.schedules`."""

    name: str = Field(description="A registered schedule.")
    warmup_steps: NonNegativeInt = Field(0, description="Steps over which the learning rate first rises linearly from 0.")
    restarts: Annotated[Sequence[ProperFraction], Len(0, 20)] = Field(
        [], description="Fractions of the training at which the schedule begins again, for the stages of a training."
    )
    peaks: Annotated[Sequence[PositiveFloat], Len(0, 21)] = Field(
        [], description="Factors on the learning rate of each part between restarts; empty for 1."
    )


class TrainSettings(Section):
    """Training: the section ``train`` of a recipe, and the keyword arguments of ``flowclf.fit``."""

    epochs: PositiveInt = Field(10, description="Passes over the training set.")
    # Mappings, so that no component is imported before it is used.
    optimizer: Annotated[OptimizerSettings, Named("optimizers", "adamax")] = Field({"name": "adamax"}, validate_default=True)
    schedule: Annotated[ScheduleSettings, Named("schedules", "constant")] = Field({"name": "constant"}, validate_default=True)
    freeze: dict[str, Fraction] = Field(
        {},
        description="Fractions of the training after which nodes keep their weights, by the nodes' kind or name, e.g. "
        "{logit_readout: 0.3}.",
    )
    gradient_clip: PositiveFloat | None = Field(None, description="Largest norm of the gradient; null for no clipping.")
    ema: ProperFraction | None = Field(None, description="Decay rate of a running mean of the weights; null for none.")
    keep: Literal["last", "best"] = Field(
        "last",
        description="Weights that are evaluated: those after the last epoch, or after the one with the lowest error on validation "
        "data (if equal, the lowest cross-entropy) since all terms of the loss have their full weight. A run saves both.",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="Precision of the couplings' subnets in training, and also afterwards if stream is fixed_point. auto: bf16 if "
        "the processor multiplies bf16 natively.",
    )
    activations: Literal["store", "recompute"] = Field(
        "store",
        description="Keep activations until the backward pass, or recompute them from the outputs, in memory that does not grow "
        "with depth.",
    )
    stream: Literal["float", "fixed_point"] = Field(
        "float",
        description="Numbers between nodes. fixed_point: on a grid, so that a network of additive couplings inverts bit for bit.",
    )
    accumulate: PositiveInt = Field(
        1,
        description="Pieces into which each process divides its share of a batch, to hold the activations of one at a time; their "
        "gradients are added up. Batch norms then see a piece, and with an adversary each piece is encoded twice.",
    )
    cuda_graphs: Literal["auto", "always", "never"] = Field(
        "auto",
        description="On a GPU, record passes once and replay them instead of launching each kernel. auto: unless a node, subnet or "
        "loss from outside flowclf might compute on the host.",
    )
    checkpoint_every_steps: PositiveInt | None = Field(None, description="Steps between checkpoints within epochs; null for none.")


class ProbeSettings(Section):
    """The probes: classifiers that are trained on the nuisances."""

    hidden: Annotated[Sequence[PositiveInt], Len(1, 100)] = Field([512, 512, 512], description="Units of each hidden layer.")
    examples: PositiveInt | None = Field(None, description="Number of training examples for the probes; null for all.")
    kinds: Annotated[Sequence[str], Len(1, 20)] | None = Field(
        None, description="Registered kinds of probes to train, such as mlp and conv; null for those of the protocol."
    )


class EvaluateSettings(Section):
    """Evaluation after training."""

    protocol: Literal["quick", "full"] = Field("quick", description="How much is evaluated, and on how many samples.")
    oracle: str | None = Field(
        None,
        description="A classifier that labels the metamers: zoo name, run directory or checkpoint; null for the data set's own.",
    )
    probe: ProbeSettings = ProbeSettings()
