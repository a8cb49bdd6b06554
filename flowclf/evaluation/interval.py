"""A confidence interval for a fraction."""

from __future__ import annotations

import math
from typing import NamedTuple

from flowclf.errors import UsageError


class Interval(NamedTuple):
    """An interval in [0, 1]."""

    low: float
    high: float


def error_interval(fraction: float, n: int, *, z: float = 1.959963984540054) -> Interval:
    """Wilson's score interval for a fraction of n independent trials; with the default z, 95 %.

    Unlike fraction ± z * standard error, it stays in [0, 1] and is sensible for 0 errors of n (E. B. Wilson, "Probable
    inference, the law of succession, and statistical inference", J. Am. Stat. Assoc. 22, 1927).

    Example:
        >>> [round(bound, 4) for bound in error_interval(0.01, 10_000)]
        [0.0082, 0.0121]

    Raises:
        UsageError: if n is below 1, or the fraction is outside [0, 1].
    """
    if n < 1 or not 0 <= fraction <= 1:
        raise UsageError(f"expected a fraction in [0, 1] of at least 1 trial, found {fraction} of {n}")
    centre = (fraction + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(fraction * (1 - fraction) / n + (z / (2 * n)) ** 2)
    return Interval(max(0.0, centre - half), min(1.0, centre + half))
