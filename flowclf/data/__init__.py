"""Data sets, held in memory as tensors; folders of more images than fit are decoded as they are used.

A registered data set is a function with keyword-only arguments that returns :class:`RawData`; :func:`load` makes it a
:class:`DataSet`, with a validation part, batches and augmentation.
"""

from __future__ import annotations

from flowclf.data.arrays import arrays
from flowclf.data.augmentation import Augmentation
from flowclf.data.dataset import DataSet
from flowclf.data.folders import image_folder, imagenet, labelled_images
from flowclf.data.images import read_image
from flowclf.data.loading import load
from flowclf.data.mnist_bundled import mnist
from flowclf.data.records import Batch, Oracle, RawData, Split
from flowclf.data.seeding import mix_seed
from flowclf.data.spheres import SpheresOracle, sphere_chunks, sphere_points, spheres
from flowclf.data.streaming import StreamedSplit

__all__ = [
    "Augmentation",
    "Batch",
    "DataSet",
    "Oracle",
    "RawData",
    "SpheresOracle",
    "Split",
    "StreamedSplit",
    "arrays",
    "image_folder",
    "imagenet",
    "labelled_images",
    "load",
    "mix_seed",
    "mnist",
    "read_image",
    "sphere_chunks",
    "sphere_points",
    "spheres",
]
