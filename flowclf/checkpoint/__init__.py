"""Models on disk: safetensors for the weights, a JSON description that rebuilds the graph, limits on what either may ask for."""

from flowclf.checkpoint.files import describe, load, read_description, rebuild, save
from flowclf.strict_json import DESCRIPTION, WEIGHTS

__all__ = ["DESCRIPTION", "WEIGHTS", "describe", "load", "read_description", "rebuild", "save"]
