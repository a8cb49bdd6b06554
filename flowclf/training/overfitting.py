"""Whether a classifier or an adversary has learned its training data by heart, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

LEARNED, UNSEEN = 0.1, 0.5
"""By heart: a cross-entropy below ``LEARNED`` nats on training data, and above ``UNSEEN`` nats on validation data."""

_CROSS_ENTROPY = "cross_entropy_nats"


def overfitting(values: Mapping[str, Any]) -> dict[str, str]:
    """A sentence for each cross-entropy, by its name without ``train.``, that shows training data learned by heart.

    The rule is ``train.*cross_entropy_nats`` < 0.1 and ``validation.*cross_entropy_nats`` > 0.5, five times that; nats.

    Args:
        values: a row of metrics of an epoch, or the results of a run.

    Example:
        >>> found = overfitting({"train.cross_entropy_nats": 0.02, "validation.cross_entropy_nats": 0.9})
        >>> found["cross_entropy_nats"].split(":")[0]
        'the classifier overfits'
        >>> overfitting({"train.cross_entropy_nats": 0.02, "validation.cross_entropy_nats": 0.09})
        {}
    """
    sentences = {}
    for key, seen in values.items():
        part, _, name = key.partition(".")
        unseen = values.get(f"validation.{name}")
        if part != "train" or not name.endswith(_CROSS_ENTROPY) or seen is None or unseen is None:
            continue
        if seen < LEARNED and unseen > UNSEEN:
            what, advice = _CLASSIFIER if name == _CROSS_ENTROPY else _ADVERSARY
            sentences[name] = (
                f"{what}: its cross-entropy is {seen:.3g} nats on training data, below {LEARNED}, and {unseen:.3g} nats on "
                f"validation data, above {UNSEEN}. {advice}"
            )
    return sentences


_CLASSIFIER = ("the classifier overfits", "More data, augmentation or weight decay may help.")
_ADVERSARY = (
    "the adversary memorises",
    "It recognises training examples, so its loss says little about what the nuisances reveal about the class, and neither does "
    "the game against it. More data or augmentation, fewer steps, fewer hidden units, or dropout in the adversary may help.",
)


def first_signs(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The sentences for the last of the rows that hold for none of the rows before it.

    Example:
        >>> good, bad = ({"train.cross_entropy_nats": 0.02, "validation.cross_entropy_nats": nats} for nats in (0.09, 0.9))
        >>> len(first_signs([good, bad])), len(first_signs([bad, bad]))
        (1, 0)
    """
    *before, last = map(overfitting, rows)
    return [sentence for name, sentence in last.items() if not any(name in known for known in before)]
