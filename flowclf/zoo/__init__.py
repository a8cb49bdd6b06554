"""The zoo: trained models by name, with hashes that are checked at every load and figures that can be measured again.

Only the public names belong here. Importing it imports neither torch nor anything that trains.
"""

from __future__ import annotations

from flowclf.zoo.access import download, info, load, model_folder
from flowclf.zoo.access import list_models as list
from flowclf.zoo.adding import add
from flowclf.zoo.schema import ZooEntry, ZooIndex
from flowclf.zoo.settings import Options
from flowclf.zoo.verifying import Comparison, Verification, verify

__all__ = [
    "Comparison",
    "Options",
    "Verification",
    "ZooEntry",
    "ZooIndex",
    "add",
    "download",
    "info",
    "list",
    "load",
    "model_folder",
    "verify",
]
