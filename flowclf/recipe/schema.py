"""What a recipe holds: its sections, their keys, limits and defaults.

Only declarations belong here. What a component takes is not declared but read from its signature, see :mod:`flowclf.signatures`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, Len
from pydantic import AfterValidator, Field, PlainValidator

from flowclf.arguments import (
    Decay,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveFraction,
    PositiveInt,
    ProperFraction,
)
from flowclf.recipe.choices import OneOf, checked_losses, checked_model, checked_named, placeholder
from flowclf.signatures.annotations import found
from flowclf.signatures.checking import Component, Section, failure, problem

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "Adam",
    "AdamW",
    "Adamax",
    "Architecture",
    "Augment",
    "Constant",
    "Cosine",
    "Data",
    "Evaluate",
    "Loss",
    "OneCycle",
    "Probe",
    "Recipe",
    "Sgd",
    "Step",
    "Train",
    "Trapezoid",
    "WeightedLoss",
]

SLUG = r"^[a-z0-9]+(?:[._-][a-z0-9]+)*$"


def _slug(value: str) -> str:
    if len(value) > 100 or not re.match(SLUG, value) or value.endswith("\n"):
        raise failure(problem(f"expected lower-case letters and digits, joined by '-', '_' or '.'; found {found(value)}"))
    return value


class Augment(Section):
    """Random changes to training images."""

    rotation: NonNegativeFloat = Field(0.0, le=180, description="Largest angle by which an image is turned, either way, degrees.")
    zoom: NonNegativeFloat = Field(0.0, lt=1, description="Largest share by which an image is magnified or shrunk.")
    elastic: NonNegativeFloat = Field(0.0, description="Standard deviation of smooth random displacements, pixels.")
    unwarped: Fraction = Field(0.0, description="Share of the images that rotation, zoom and elastic leave as they are.")
    interpolation: Literal["bilinear", "bicubic"] = Field("bilinear", description="Of rotation, zoom and elastic.")
    shift: NonNegativeInt = Field(0, description="Largest translation along each axis, pixels.")
    crop: NonNegativeInt = Field(0, description="Padding before a random crop to the images' own size, pixels.")
    flip: bool = Field(False, description="Mirror left and right with probability 1/2.")
    noise: Fraction = Field(0.0, description="Largest standard deviation of Gaussian noise, as a share of the pixels' range.")


class Data(Component):
    """The data set, by name, with its own arguments, and what becomes of it."""

    name: str = Field(description="A registered data set.")
    batch_size: PositiveInt = Field(128, description="Examples a training step.")
    bits: Annotated[int, Ge(1), Le(8)] | None = Field(8, description="Depth of the dequantisation; null for continuous data.")
    pad: NonNegativeInt = Field(0, description="Pixels added on each of the four sides.")
    validation: PositiveInt | ProperFraction = Field(5000, description="Training examples held out: a count, or a fraction.")
    augment: Augment = Augment()
    train_limit: PositiveInt | None = Field(None, description="Use only so many training examples; null for all.")


class Architecture(Component):
    """An architecture, by name, with its arguments."""

    name: str = Field(description="A registered architecture.")


class Loss(Component):
    """A loss, by name, with its arguments."""

    name: str = Field(description="A registered loss.")


class WeightedLoss(Loss):
    """A term of a sum of losses."""

    weight: NonNegativeFloat = Field(1.0, description="Factor on this term of the sum.")


class _Optimizer(Section):
    weight_decay: NonNegativeFloat = Field(0.0, description="L2 penalty on the weights; of AdamW, decoupled decay.")


class _AdamLike(_Optimizer):
    lr: PositiveFloat = Field(1e-3, description="Learning rate, before the schedule.")
    betas: Annotated[list[Decay], Len(2, 2)] = Field([0.9, 0.999], description="Decays of the running moments.")


class Adamax(_AdamLike):
    """Adamax (Kingma and Ba, Adam, 2015, section 7.1)."""

    name: Literal["adamax"] = "adamax"


class Adam(_AdamLike):
    """Adam (Kingma and Ba, 2015)."""

    name: Literal["adam"] = "adam"


class AdamW(_AdamLike):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    name: Literal["adamw"] = "adamw"


class Sgd(_Optimizer):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"] = "sgd"
    lr: PositiveFloat = Field(0.1, description="Learning rate, before the schedule.")
    momentum: Decay = Field(0.9, description="Decay of the running sum of gradients.")


class _Schedule(Section):
    warmup_steps: NonNegativeInt = Field(0, description="Steps over which the learning rate first rises linearly from 0.")


class Constant(_Schedule):
    """The learning rate stays."""

    name: Literal["constant"] = "constant"


class OneCycle(_Schedule):
    """The learning rate rises, then falls to almost 0, both along a cosine (Smith and Topin, 2018)."""

    name: Literal["one_cycle"] = "one_cycle"
    peak: ProperFraction = Field(0.3, description="Where the learning rate is largest, as a fraction of the training.")


class Step(_Schedule):
    """The learning rate is multiplied by a factor every so many epochs."""

    name: Literal["step"] = "step"
    every_epochs: PositiveInt = Field(30, description="Epochs between two drops.")
    factor: ProperFraction = Field(0.2, description="What each drop multiplies the learning rate by.")


class Cosine(_Schedule):
    """The learning rate falls to 0 along half a cosine."""

    name: Literal["cosine"] = "cosine"


class Trapezoid(_Schedule):
    """The learning rate stays, then falls linearly to 0 at the end."""

    name: Literal["trapezoid"] = "trapezoid"
    decay: PositiveFraction = Field(0.4, description="Fraction of the training over which the learning rate falls.")


OPTIMIZERS = OneOf("optimizer", {"adamax": Adamax, "adam": Adam, "adamw": AdamW, "sgd": Sgd})
SCHEDULES = OneOf("schedule", {"constant": Constant, "one_cycle": OneCycle, "step": Step, "cosine": Cosine, "trapezoid": Trapezoid})

Optimizer = Annotated[Adamax | Adam | AdamW | Sgd, OPTIMIZERS]
Schedule = Annotated[Constant | OneCycle | Step | Cosine | Trapezoid, SCHEDULES]


class Train(Section):
    """How long, and how."""

    epochs: PositiveInt = Field(10, description="Passes over the training set.")
    optimizer: Optimizer = Adamax()
    schedule: Schedule = Constant()
    gradient_clip: PositiveFloat | None = Field(None, description="Largest norm of the gradient; null for none.")
    ema: ProperFraction | None = Field(None, description="Decay of a running mean of the weights; null for none.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="Of the couplings' subnets in training, and after it where stream is fixed_point; auto: bf16 where the "
        "processor multiplies bf16 natively.",
    )
    activations: Literal["store", "recompute"] = Field(
        "store", description="Keep activations until the backward pass, or compute them again then, in memory that ignores depth."
    )
    stream: Literal["float", "fixed_point"] = Field(
        "float",
        description="Numbers between nodes; fixed_point: on a grid, so that a network of additive couplings inverts bit for bit.",
    )
    cuda_graphs: Literal["auto", "always", "never"] = Field(
        "auto",
        description="On a GPU, record passes and replay them in place of launching each kernel; auto: unless a node, subnet or "
        "loss of one's own might compute something on the host.",
    )
    checkpoint_every_steps: PositiveInt | None = Field(None, description="Besides one after every epoch; null for none.")


class Probe(Section):
    """The probes: fresh classifiers of the nuisances."""

    hidden: Annotated[list[PositiveInt], Len(1, 100)] = Field([512, 512, 512], description="Units of each hidden layer.")
    examples: PositiveInt | None = Field(None, description="Train the probes on so many training examples; null for all.")


class Evaluate(Section):
    """What is measured after training."""

    protocol: Literal["quick", "full"] = Field("quick", description="How much is measured, and how carefully.")
    oracle: str | None = Field(
        None,
        description="A classifier that judges the metamers: zoo name, run directory or checkpoint; null for the data's own.",
    )
    probe: Probe = Probe()


class Recipe(Section):
    """A recipe: everything that decides what is trained, on what, how, and how it is judged.

    ``model`` is an :class:`Architecture` or a list of node specs; ``loss`` is a :class:`Loss` or a list of
    :class:`WeightedLoss`. Their ``arguments`` are complete, with every default filled in.
    """

    name: Annotated[str, AfterValidator(_slug)] = Field(
        description="Names the folder of its runs.", json_schema_extra={"pattern": SLUG}
    )
    description: str = Field("", description="What the recipe is for, in a sentence.")
    seed: NonNegativeInt = Field(0, description="Everything random comes from it.")
    data: Annotated[Data, PlainValidator(lambda value: checked_named("datasets", value, Data)), placeholder("data")]
    model: Annotated[
        Architecture | list[Any], PlainValidator(lambda value: checked_model(value, Architecture)), placeholder("model")
    ]
    loss: Annotated[
        Loss | list[WeightedLoss], PlainValidator(lambda value: checked_losses(value, Loss, WeightedLoss)), placeholder("loss")
    ]
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
