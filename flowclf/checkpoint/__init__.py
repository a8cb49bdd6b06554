"""Models on disk: safetensors weights, a JSON description that rebuilds the graph, and limits on the memory used to load them."""

from flowclf.checkpoint.files import check_savable, describe, load, read_description, rebuild, save
from flowclf.strict_json import DESCRIPTION, WEIGHTS

__all__ = ["DESCRIPTION", "WEIGHTS", "check_savable", "describe", "load", "read_description", "rebuild", "save"]
