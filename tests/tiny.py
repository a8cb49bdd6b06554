"""Small models for tests, with parameters away from their starting values, and image files. Not tests themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import flowclf
from flowclf import InvertibleClassifier
from flowclf.fixed_point import LIMIT, round_to_grid

M = TypeVar("M", bound=nn.Module)

CONV = {"conv": {"width": 8}}
DENSE = {"dense": {"width": 8, "hidden_layers": 1}}
IMAGE_NODES: list[Any] = [
    "squeeze",
    {"repeat": 2, "nodes": ["actnorm", "invertible_conv1x1", {"affine_coupling": {"subnet": CONV}}]},
    "factor_out",
    "squeeze",
    "actnorm",
    {"logit_readout": {"subnet": {"residual": {"width": 8}}, "features": 4, "logit_scale": 2.0}},
    {"logit_coupling": {"subnet": CONV, "swap": True}},
    {"logit_coupling": {"subnet": CONV}},
    {"split_head": {"logit_scale": 2.0}},
]
VECTOR_NODES: list[Any] = [
    "actnorm",
    "invertible_conv1x1",
    {"affine_coupling": {"subnet": DENSE}},
    {"additive_coupling": {"subnet": DENSE, "swap": True}},
    "split_head",
]


def randomize(module: M, scale: float = 0.3) -> M:
    """Add noise to every parameter: subnets start at zero, where most tests would prove nothing."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.is_floating_point():
                parameter.add_(scale * torch.randn_like(parameter))
    return module


def image_classifier() -> InvertibleClassifier:
    """Four classes on (1, 8, 8), every kind of node for images in it, in eval mode."""
    return randomize(flowclf.build_classifier((1, 8, 8), IMAGE_NODES, classes=4), 0.1).eval()


def vector_classifier() -> InvertibleClassifier:
    """Two classes on (3,), in eval mode."""
    return randomize(flowclf.build_classifier((3,), VECTOR_NODES, classes=2)).eval()


def on_grid(values: Tensor) -> bool:
    """Whether all values are on the grid of a fixed-point stream."""
    return bool((values.abs() < LIMIT).all()) and torch.equal(round_to_grid(values), values)


def write_images(root: Path, count: int = 40, classes: Sequence[str] = "ab", side: int = 8) -> Path:
    """So many RGB images of noise of each class, in a folder per class."""
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for position in range(count):
            pixels = np.random.default_rng(1000 * number + position).integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{position:03d}.png")
    return root
