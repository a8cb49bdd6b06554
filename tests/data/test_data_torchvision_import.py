"""torchvision is importable beside any build of torch."""

from __future__ import annotations

import torch

from flowclf.data import torchvision_import
from flowclf.data.torchvision_import import import_torchvision


def test_operators_that_exist_are_left_alone() -> None:
    module = import_torchvision()
    assert all(hasattr(torch.ops.torchvision, name) for name in ("nms", "qnms"))
    torchvision_import._define_missing()  # torch refuses a second definition
    assert import_torchvision() is module
