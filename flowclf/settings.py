"""Settings of augmentation, training and evaluation, declared once: recipes and code use these classes and these defaults.

Nothing here imports torch. What uses a setting is documented where it is used; a section says what may be given, in which unit
and range, and what it is by default.
"""

from __future__ import annotations

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
from flowclf.components import OneOf
from flowclf.sections import Section

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "AdamSettings",
    "AdamWSettings",
    "AdamaxSettings",
    "AugmentSettings",
    "ConstantSettings",
    "CosineSettings",
    "EvaluateSettings",
    "OneCycleSettings",
    "OptimizerSettings",
    "ProbeSettings",
    "ScheduleSettings",
    "SgdSettings",
    "StepSettings",
    "TrainSettings",
    "TrapezoidSettings",
]


class AugmentSettings(Section):
    """Random changes to training images; by default none."""

    rotation: NonNegativeFloat = Field(0.0, le=180, description="Largest angle of rotation, either way, in degrees.")
    zoom: NonNegativeFloat = Field(0.0, lt=1, description="Largest change of size, either way, as a fraction of the size.")
    elastic: NonNegativeFloat = Field(0.0, description="Standard deviation of smooth random displacements, in pixels.")
    unwarped: Fraction = Field(0.0, description="Fraction of the images that rotation, zoom and elastic leave unchanged.")
    interpolation: Literal["bilinear", "bicubic"] = Field("bilinear", description="Interpolation in rotation, zoom and elastic.")
    shift: NonNegativeInt = Field(0, description="Largest translation along each axis, in pixels.")
    crop: NonNegativeInt = Field(0, description="Padding on each side before a random crop to the original size, in pixels.")
    flip: bool = Field(False, description="Mirror left and right with probability 1/2.")
    noise: Fraction = Field(0.0, description="Largest standard deviation of Gaussian noise, as a fraction of the pixels' range.")


class OptimizerSettings(Section):
    """What all optimisers have in common."""

    weight_decay: NonNegativeFloat = Field(
        0.0, description="L2 penalty on the weights of linear and convolutional layers; for adamw, decoupled weight decay."
    )


class _AdamLike(OptimizerSettings):
    lr: PositiveFloat = Field(1e-3, description="Learning rate, before the schedule.")
    betas: Annotated[list[Decay], Len(2, 2)] = Field([0.9, 0.999], description="Decay rates of the two running moments.")


class AdamaxSettings(_AdamLike):
    """Adamax (Kingma and Ba, Adam, 2015, section 7.1)."""

    name: Literal["adamax"] = "adamax"


class AdamSettings(_AdamLike):
    """Adam (Kingma and Ba, 2015)."""

    name: Literal["adam"] = "adam"


class AdamWSettings(_AdamLike):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    name: Literal["adamw"] = "adamw"


class SgdSettings(OptimizerSettings):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"] = "sgd"
    lr: PositiveFloat = Field(0.1, description="Learning rate, before the schedule.")
    momentum: Decay = Field(0.9, description="Decay rate of the running sum of gradients.")


class ScheduleSettings(Section):
    """What all learning-rate schedules have in common."""

    warmup_steps: NonNegativeInt = Field(0, description="Steps over which the learning rate first rises linearly from 0.")


class ConstantSettings(ScheduleSettings):
    """The learning rate does not change."""

    name: Literal["constant"] = "constant"


class OneCycleSettings(ScheduleSettings):
    """The learning rate rises, then falls to almost 0, both along a cosine (Smith and Topin, 2018)."""

    name: Literal["one_cycle"] = "one_cycle"
    peak: ProperFraction = Field(0.3, description="Where the learning rate is largest, as a fraction of the training.")


class StepSettings(ScheduleSettings):
    """The learning rate is multiplied by a factor every few epochs."""

    name: Literal["step"] = "step"
    every_epochs: PositiveInt = Field(30, description="Epochs between two drops.")
    factor: ProperFraction = Field(0.2, description="Factor by which each drop multiplies the learning rate.")


class CosineSettings(ScheduleSettings):
    """The learning rate falls to 0 along half a cosine."""

    name: Literal["cosine"] = "cosine"


class TrapezoidSettings(ScheduleSettings):
    """The learning rate is constant, then falls linearly to 0 at the end."""

    name: Literal["trapezoid"] = "trapezoid"
    decay: PositiveFraction = Field(0.4, description="Fraction of the training, at its end, over which the learning rate falls.")


OPTIMIZERS = OneOf("optimizer", {"adamax": AdamaxSettings, "adam": AdamSettings, "adamw": AdamWSettings, "sgd": SgdSettings})
SCHEDULES = OneOf(
    "schedule",
    {
        "constant": ConstantSettings,
        "one_cycle": OneCycleSettings,
        "step": StepSettings,
        "cosine": CosineSettings,
        "trapezoid": TrapezoidSettings,
    },
)


class TrainSettings(Section):
    """How a classifier is trained: the section ``train`` of a recipe, and the keyword arguments of ``flowclf.fit``."""

    epochs: PositiveInt = Field(10, description="Passes over the training set.")
    optimizer: Annotated[AdamaxSettings | AdamSettings | AdamWSettings | SgdSettings, OPTIMIZERS] = AdamaxSettings()
    schedule: Annotated[ConstantSettings | OneCycleSettings | StepSettings | CosineSettings | TrapezoidSettings, SCHEDULES] = (
        ConstantSettings()
    )
    gradient_clip: PositiveFloat | None = Field(None, description="Largest norm of the gradient; null for no clipping.")
    ema: ProperFraction | None = Field(None, description="Decay rate of a running mean of the weights; null for none.")
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
    cuda_graphs: Literal["auto", "always", "never"] = Field(
        "auto",
        description="On a GPU, record passes once and replay them instead of launching each kernel. auto: unless a node, subnet or "
        "loss from outside flowclf might compute on the host.",
    )
    checkpoint_every_steps: PositiveInt | None = Field(
        None, description="Steps between checkpoints, in addition to one per epoch; null for none."
    )


class ProbeSettings(Section):
    """The probes: classifiers that are trained afresh on the nuisances."""

    hidden: Annotated[list[PositiveInt], Len(1, 100)] = Field([512, 512, 512], description="Units of each hidden layer.")
    examples: PositiveInt | None = Field(None, description="Number of training examples for the probes; null for all.")


class EvaluateSettings(Section):
    """What is measured after training."""

    protocol: Literal["quick", "full"] = Field("quick", description="How much is measured, and how carefully.")
    oracle: str | None = Field(
        None,
        description="A classifier that labels the metamers: zoo name, run directory or checkpoint; null for the data set's own.",
    )
    probe: ProbeSettings = ProbeSettings()
