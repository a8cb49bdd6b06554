"""Short name of :mod:`flowclf.evaluation.metamers`."""

from flowclf.evaluation.metamers import draw_pairs, interpolate, metamer, metamer_statistics, quantized

__all__ = ["draw_pairs", "interpolate", "metamer", "metamer_statistics", "quantized"]
