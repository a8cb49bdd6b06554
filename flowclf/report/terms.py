"""How a report writes values, by the units that the metrics declare, and the titles of their groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowclf.evaluation.metric import describe

GROUPS: Mapping[str, str] = {
    "test": "Test",
    "validation": "Validation",
    "train": "Training",
    "probe": "Probes of the nuisances",
    "metamers": "Metamers",
    "planes": "Planes",
    "numerics": "Numerics",
    "model": "Model",
    "data": "Data",
    "seconds": "Time",
}
"""Titles of the groups of results, by the first part of their keys, in the order of a report."""

_SYMBOLS = {"nats": "\u00a0nats", "bits": "\u00a0bits", "seconds": "\u00a0s"}


def number(key: str, value: Any) -> str:
    """A value with its unit: shares in percent, counts grouped, other numbers with four digits; of a list, the length."""
    unit = describe(key)[0]
    if value is None:
        return "not finite"
    if isinstance(value, list):
        return f"{len(value):,} rows" if value and isinstance(value[0], list) else f"{len(value):,} values"
    if isinstance(value, bool) or not isinstance(value, int | float) or unit == "text":
        return str(value)
    if unit == "share":
        return percent(value)
    return (f"{value:,}" if isinstance(value, int) else f"{value:.4g}") + _SYMBOLS.get(unit, "")


def percent(fraction: float, digits: int = 2) -> str:
    """A fraction as a percentage."""
    return f"{100 * fraction:.{digits}f}\u00a0%"


def scientific(value: float) -> str:
    """A number in scientific notation: 2.1 × 10⁻⁴."""
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}\u00a0×\u00a010{str(int(exponent)).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"
