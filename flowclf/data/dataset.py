"""DataSet: training, validation and test data, and their training batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from flowclf.data.augmentation import Augmentation
from flowclf.data.conversion import Kind, check_positive, inputs_from, labels_from, raw_data_from
from flowclf.data.records import Batch, Oracle, RawData, Split, check_raw_data
from flowclf.data.seeding import generator
from flowclf.data.streaming import StreamedSplit
from flowclf.data.torch_reading import MEMORY_GB, TorchData, read_torch
from flowclf.errors import DataError, UsageError
from flowclf.host_memory import moved
from flowclf.labels import class_numbers
from flowclf.settings import AugmentSettings


@dataclass(frozen=True, eq=False, repr=False)
class DataSet:
    """Labelled data in three disjoint parts on one device, built by :func:`flowclf.data.load` or one of the class methods.

    Attributes:
        name: name of the data set in reports.
        class_names: one name per class, in the order of the labels.
        train: the training set without the validation part, in random order: ``train.head(n)`` is a random sample.
        validation: part held out of the training set by a permutation that depends on the seed alone.
        test: the test set, in its original order.
        batch_size: examples per training batch.
        seed: random seed for the validation part, the order, the augmentation and each batch's generator.
        augment: random augmentation of training images.
        oracle: true class of any input, if known; it labels the metamers in an evaluation.

    Raises:
        DataError: if a label is not a class, 0 to K - 1.
        UsageError: if the batch size is below 1, the seed is not an integer, the augmentation does not fit the data, or
            there are fewer than 2 training examples (or none, and validation examples).
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    batch_size: int = 128
    seed: int = 0
    augment: Augmentation = field(default_factory=Augmentation)
    oracle: Oracle | None = None

    def __post_init__(self) -> None:
        check_positive(self.batch_size, "batch_size")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise UsageError(f"seed: expected an integer, found {self.seed!r}")
        for part in ("train", "validation", "test"):
            if isinstance(split := getattr(self, part), Split):
                class_numbers(split.labels, self.classes, where=f"data set '{self.name}': {part} labels", error=DataError)
        if len(self.train) < 2 and not self.all_test:
            raise UsageError(f"data set '{self.name}': expected at least 2 training examples, found {len(self.train)}")
        self.augment.check(self.image_shape)

    @classmethod
    def from_raw(
        cls,
        raw: RawData,
        *,
        name: str,
        batch_size: int = 128,
        validation: int | float = 5000,
        augment: AugmentSettings | Mapping[str, Any] | None = None,
        seed: int = 0,
        train_limit: int | None = None,
    ) -> DataSet:
        """Build a data set from raw data; ``name`` is its name in reports, other arguments are those of :func:`flowclf.data.load`.

        The validation part does not depend on ``train_limit``.

        Raises:
            DataError: if the raw data are inconsistent.
            UsageError: if the sizes leave no validation data or fewer than 2 training examples, or the limit exceeds the
                training examples; and as for the class.
        """
        check_raw_data(raw, name)
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise UsageError(f"seed: expected an integer, found {seed!r}")
        size = len(raw.train)
        held_out = _validation_size(validation, size)
        order = torch.randperm(size, generator=generator(seed, "validation"))
        kept = order[held_out:]
        if train_limit is not None:
            if isinstance(train_limit, bool) or not isinstance(train_limit, int) or not 2 <= train_limit <= len(kept):
                raise UsageError(f"train_limit: expected 2 to {len(kept)} training examples, found {train_limit!r}")
            kept = kept[:train_limit]
        train, validation_part, names = raw.train.take(kept), raw.train.take(order[:held_out]), tuple(raw.class_names)
        return cls(name, names, train, validation_part, raw.test, batch_size, seed, Augmentation.of(augment), raw.oracle)

    @classmethod
    def from_arrays(
        cls,
        train_images: Any,
        train_labels: Any,
        *,
        test_images: Any = None,
        test_labels: Any = None,
        class_names: Sequence[str] | None = None,
        kind: Kind | None = None,
        pixel_max: float | None = None,
        test_fraction: float = 0.1,
        name: str = "arrays",
        batch_size: int = 128,
        validation: int | float = 0.1,
        augment: AugmentSettings | Mapping[str, Any] | None = None,
        seed: int = 0,
        train_limit: int | None = None,
    ) -> DataSet:
        """Build a data set from numpy arrays or tensors, which are copied. Other arguments are those of :meth:`from_raw`.

        Args:
            train_images: images, uint8, 0..255, or as ``pixel_max`` says: (N, H, W) grey, (N, H, W, C) or (N, C, H, W) with C = 1
                or 3 (an error if both axes may be the channels); vectors (N, D) or signals (N, C, L), floating point.
            train_labels: class numbers (N,), integers that use every number from 0 to K - 1; or strings, the names of the classes.
            test_images: like the training images; None takes part of the training set, the same for every seed.
            test_labels: class numbers of the test images.
            class_names: one name per class, in the order of the classes; None uses the class numbers, or the sorted strings.
            kind: ``images``, ``vectors`` or ``signals``; needed for floating point of three dimensions, which may be both grey
                images and signals.
            pixel_max: value of white; by default 255 for uint8, 1 for floating point, and 65535 for uint16 unless all pixels are
                below 4096. Other types have no default. Images are stored as uint8.
            test_fraction: fraction of each class that becomes test data, in (0, 1), if there are no test images.

        Raises:
            DataError: if an array has the wrong type, shape or range, or the labels do not fit.
            UsageError: if :meth:`from_raw` raises it.

        Example:
            >>> images, labels = torch.randint(0, 256, (100, 12, 12), dtype=torch.uint8), torch.arange(100) % 4
            >>> DataSet.from_arrays(images, labels, batch_size=32, augment={"shift": 1})
            DataSet('arrays': 83 train, 9 validation, 8 test, (1, 12, 12), 4 classes, batch 32, shift=1, cpu)
        """
        train = {"train_images": train_images, "train_labels": train_labels}
        test = {"test_images": test_images, "test_labels": test_labels}
        raw = raw_data_from(train, test, class_names, test_fraction=test_fraction, kind=kind, pixel_max=pixel_max)
        return cls.from_raw(
            raw, name=name, batch_size=batch_size, validation=validation, augment=augment, seed=seed, train_limit=train_limit
        )

    @classmethod
    def from_torch(
        cls,
        train: TorchData,
        *,
        test: TorchData | None = None,
        class_names: Sequence[str] | None = None,
        kind: Kind | None = None,
        pixel_max: float | None = None,
        memory_gb: float = MEMORY_GB,
        test_fraction: float = 0.1,
        name: str = "torch",
        batch_size: int = 128,
        validation: int | float = 0.1,
        augment: AugmentSettings | Mapping[str, Any] | None = None,
        seed: int = 0,
        train_limit: int | None = None,
    ) -> DataSet:
        """Build a data set from a ``torch.utils.data.Dataset`` or ``DataLoader``, which is read into memory, once.

        Other arguments are those of :meth:`from_arrays`.

        Args:
            train: pairs (input, label), or a loader's batches of them. Inputs are tensors, arrays or PIL images, all of one shape.
                What augments at random is read once like everything else, with a warning: use ``augment`` for that.
            test: like the training data; None takes part of the training data.
            class_names: one name per class; None uses the data set's own ``classes``, or the labels.
            memory_gb: largest size of either part in memory, in gigabytes; reading takes twice as much.

        Raises:
            DataError: if something is not a pair, the inputs differ in shape, are not valid or are too many for the memory, or the
                labels do not fit.
            UsageError: if a loader draws examples by a sampler that may repeat them; or :meth:`from_raw` raises it.

        Example:
            >>> images, labels = torch.randint(0, 256, (100, 1, 12, 12), dtype=torch.uint8), torch.arange(100) % 4
            >>> DataSet.from_torch(torch.utils.data.TensorDataset(images, labels))
            DataSet('torch': 83 train, 9 validation, 8 test, (1, 12, 12), 4 classes, batch 128, cpu)
        """
        reading: dict[str, Any] = {"kind": kind, "pixel_max": pixel_max, "memory_gb": memory_gb}
        read = read_torch(train, **reading, where="train")
        tested = None if test is None else read_torch(test, **reading, where="test")
        raw = raw_data_from(
            {"train: inputs": read.inputs, "train: labels": read.labels},
            {"test: inputs": tested and tested.inputs, "test: labels": tested and tested.labels},
            class_names or read.class_names,
            test_fraction=test_fraction,
            kind=kind,
        )
        return cls.from_raw(
            raw, name=name, batch_size=batch_size, validation=validation, augment=augment, seed=seed, train_limit=train_limit
        )

    @classmethod
    def from_test(cls, images: Any, labels: Any, *, class_names: Sequence[str], name: str = "test") -> DataSet:
        """Build a data set that is all test, from numpy arrays or tensors, which are copied: for evaluation, not for training.

        Args:
            images: images or vectors, as for :meth:`from_arrays`.
            labels: class numbers (N,), integers from 0 to K - 1, or names of classes; classes may be missing.
            class_names: K names, those of the classifier to evaluate.
            name: name of the data set in reports.

        Raises:
            DataError: if an array has the wrong type or shape, or a label is not the number of a class.

        Example:
            >>> images, labels = torch.randint(0, 256, (100, 12, 12), dtype=torch.uint8), torch.arange(100) % 4
            >>> DataSet.from_test(images, labels, class_names="abcd")
            DataSet('test': 0 train, 0 validation, 100 test, (1, 12, 12), 4 classes, batch 128, cpu)
        """
        inputs = inputs_from(images, "images")
        return cls.from_split(
            Split(inputs, labels_from(labels, "labels", len(inputs), class_names)), class_names=class_names, name=name
        )

    @classmethod
    def from_split(cls, test: Split, *, class_names: Sequence[str], name: str = "test") -> DataSet:
        """Build a data set that is all test from a split, which is not copied; otherwise like :meth:`from_test`."""
        if int(test.labels.max()) >= len(class_names):
            raise DataError(f"labels: expected 0 to {len(class_names) - 1}, found {int(test.labels.max())}")
        return cls(name, tuple(class_names), test.head(0), test.head(0), test)

    @property
    def all_test(self) -> bool:
        """Whether there are neither training nor validation examples."""
        return not len(self.train) and not len(self.validation)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one input: (C, H, W) for images, (D,) for vectors, (C, L) for signals."""
        return self.train.shape

    @property
    def device(self) -> torch.device:
        """Device of the data."""
        return self.train.device

    @property
    def steps_per_epoch(self) -> int:
        """Batches per epoch; the last one is smaller, and left out if it has a single example.

        Raises:
            UsageError: if the data are all test.
        """
        if self.all_test:
            raise UsageError(f"data set '{self.name}': expected training data, found data that are all test")
        whole, rest = divmod(len(self.train), self.batch_size)
        return whole + (rest > 1)

    def to(self, device: torch.device | str) -> DataSet:
        """Return the same data set on another device."""
        return replace(self, train=self.train.to(device), validation=self.validation.to(device), test=self.test.to(device))

    def train_batches(self, epoch: int, start: int = 0, *, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """Iterate over the batches of an epoch, from 0, shuffled and augmented on the device of the data.

        A batch is a function of (seed, epoch, position) only: ``start=k`` yields the batches after the first k, bit for
        bit. The global random state is neither read nor changed. Images that are decoded as they are used give the same batches as
        those in memory, unless ``resized_crop`` finds them in another resolution, or a file cannot be read.

        Args:
            epoch: number of the epoch, from 0.
            start: number of batches to leave out.
            rank: with ``world`` above 1, the number of this process, from 0.
            world: number of processes that share each batch: the example at position p of the batch goes to rank p % world.
                Together they have the batch of a single process, bit for bit.

        Raises:
            UsageError: if the epoch, the position or the rank is out of range, or the last batch has no example for each process.

        Example:
            >>> images, labels = torch.randint(0, 256, (100, 12, 12), dtype=torch.uint8), torch.arange(100) % 4
            >>> data = DataSet.from_arrays(images, labels, batch_size=32)
            >>> [len(next(data.train_batches(0, rank=rank, world=3)).labels) for rank in range(3)]
            [11, 11, 10]
        """
        if epoch < 0:
            raise UsageError(f"train_batches: expected an epoch from 0, found {epoch}")
        if not 0 <= start <= self.steps_per_epoch:
            raise UsageError(f"train_batches: expected a start from 0 to {self.steps_per_epoch}, found {start}")
        if not 0 <= rank < world:
            raise UsageError(f"train_batches: expected a rank from 0 to {world - 1}, found {rank}")
        least = min(self.batch_size, len(self.train) - (self.steps_per_epoch - 1) * self.batch_size)
        if least < world:
            raise UsageError(f"train_batches: expected at most {least} processes, the size of the smallest batch, found {world}")
        order = torch.randperm(len(self.train), generator=generator(self.seed, "order", epoch))
        positions, share = range(start, self.steps_per_epoch), slice(rank, None, world)
        if isinstance(self.train, StreamedSplit):
            return self.train.train_batches(order, self.batch_size, self.augment, (self.seed, epoch), positions, share)
        order = moved(order, self.device)

        def batch(position: int) -> Batch:
            chosen = order[position * self.batch_size : (position + 1) * self.batch_size]
            source, whole, chosen = generator(self.seed, "batch", epoch, position), len(chosen), chosen[share]
            inputs = self.train.inputs.index_select(0, chosen)
            if self.augment:
                inputs = self.augment(inputs, source, whole=whole, share=share)
            return Batch(inputs, self.train.labels.index_select(0, chosen), source)

        return map(batch, positions)

    def describe(self) -> dict[str, Any]:
        """Describe the data set as JSON, for the record of a run."""
        return {
            "name": self.name,
            "image_shape": list(self.image_shape),
            "classes": self.classes,
            "class_names": list(self.class_names),
            **{part: len(getattr(self, part)) for part in ("train", "validation", "test")},
            "batch_size": self.batch_size,
            "seed": self.seed,
            "augment": self.augment.model_dump(),
            **({"streamed": True} if isinstance(self.train, StreamedSplit) else {}),
        }

    def __repr__(self) -> str:
        changes = [f"{name}={value}" for name, value in self.augment.model_dump(exclude_defaults=True).items()]
        sizes = f"{len(self.train)} train, {len(self.validation)} validation, {len(self.test)} test"
        others = [str(self.image_shape), f"{self.classes} classes", f"batch {self.batch_size}", *changes, str(self.device)]
        others += ["streamed"] if isinstance(self.train, StreamedSplit) else []
        return f"DataSet('{self.name}': {sizes}, {', '.join(others)})"


def _validation_size(validation: int | float, size: int) -> int:
    fraction = isinstance(validation, float) and 0 < validation < 1
    whole = isinstance(validation, int) and not isinstance(validation, bool)
    count = int(validation * size) if fraction else int(validation) if whole else 0
    if not 1 <= count <= size - 2:
        raise UsageError(
            f"validation: expected a count from 1 to {size - 2} or a fraction in (0, 1) that gives one, "
            f"found {validation!r} of {size} training examples"
        )
    return count
