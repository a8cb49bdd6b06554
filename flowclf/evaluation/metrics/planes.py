"""Planes: where classifier, probe and the truth disagree in planes of the input space (paper, Figure 3)."""

from __future__ import annotations

from typing import Any

from flowclf.evaluation.context import MetricContext, Need
from flowclf.evaluation.metric import Metric, Unit
from flowclf.evaluation.planes import plane_arrays
from flowclf.evaluation.probing import train_probes

PLANES_NEED: tuple[Need, ...] = ("inverse", "truth", "training", "pairs")


def planes_of(context: MetricContext) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays and numbers of :func:`plane_arrays`, compared with the oracle supplied by the data."""
    trained = context.once(train_probes)
    probe = trained.probes[trained.best_on_validation]
    x, labels = context.test_sample
    # Most of a plane is far from the data, where the answers of a network mean little, so an oracle that was passed is not used.
    return plane_arrays(context.invertible, x, labels, probe=probe, oracle=context.data.oracle, seed=context.seed)


def _planes(name: str, unit: Unit, meaning: str) -> Metric:
    name = f"planes.{name}"
    return Metric(name, unit, meaning, lambda context: context.once(planes_of)[1][name], needs=PLANES_NEED)


METRICS = (
    _planes("pairs", "count", "pairs of test examples of different classes that the planes were chosen from"),
    _planes("chosen_pair", "count", "index of the chosen pair: the first whose metamer the oracle labels as another class, if any"),
    _planes("distance", "number", "distance between x and its metamer, network inputs"),
    *(
        _planes(f"path.{source}_changes", "count", f"changes of the {source}'s decision on the latent path from x to its metamer")
        for source in ("classifier", "probe", "oracle")
    ),
    *(
        _planes(f"{plane}.{source}_disagreement", "share", f"area of the plane of {words} where {source} and oracle differ")
        for plane, words in (("pair", "two test examples"), ("metamer", "x and its metamer"))
        for source in ("classifier", "probe")
    ),
)
