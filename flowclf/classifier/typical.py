"""A model's own idea of its data: the bits per dimension of data like those that it was trained on."""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationError

from flowclf.component_schema.sections import Section

KEY = "typical_bits_per_dim"
"""Key of a checkpoint's metadata."""


class TypicalBits(Section):
    """Quantiles of the bits per dimension of data, without dequantisation noise, as for a picture of a user's.

    Bits above ``limit`` = median + 4 (high - median) are unusual. If they had a normal distribution, that would be 5 standard
    deviations. Higher quantiles would not do: some models give a few per cent of their own data several times the median.

    Attributes:
        data: the part of the data: ``validation``; ``train`` if that has fewer than 20 examples; ``reported`` if only the mean
            is known.
        examples: the number of examples.
        median: their median, bits per dimension.
        high: their 90th percentile.

    Example:
        >>> typical = TypicalBits(data="validation", examples=5000, median=0.9, high=1.2)
        >>> round(typical.limit, 3), typical.is_unusual(1.8), typical.is_unusual(5.0)
        (2.1, False, True)
    """

    data: str
    examples: int = Field(ge=0)
    median: float
    high: float

    @property
    def limit(self) -> float:
        """The largest bits per dimension that are not unusual."""
        return self.median + 4 * max(0.0, self.high - self.median)

    def is_unusual(self, bits: float) -> bool:
        """Whether bits per dimension are above the limit, or not a number."""
        return not bits <= self.limit

    @classmethod
    def around(cls, mean: float) -> TypicalBits:
        """Make a record of the mean alone, as results have it; the limit is mean + 0.4 (|mean| + 1)."""
        return cls(data="reported", examples=0, median=mean, high=mean + (abs(mean) + 1) / 10)

    @classmethod
    def of_metadata(cls, metadata: Any) -> TypicalBits | None:
        """Read the record in a checkpoint's metadata; None if there is none, for anything may be in them."""
        try:
            return cls.model_validate(metadata[KEY])
        except (ValidationError, KeyError, TypeError):
            return None
