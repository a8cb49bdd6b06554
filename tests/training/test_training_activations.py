"""Training with recomputed activations is the same training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from flowclf import InvertibleClassifier, build_classifier
from flowclf.data import DataSet
from flowclf.losses import CrossEntropy, FactorialPriorMLE, IndependenceCrossEntropy, Loss
from flowclf.training import Trainer, TrainSettings


def trained(loss: Loss, activations: Any, **settings: Any) -> Trainer:
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(60) % 2
    images = torch.randint(0, 120, (60, 8, 8), generator=generator) + 100 * labels[:, None, None]
    data = DataSet.from_arrays(images.to(torch.uint8), labels, batch_size=20, validation=20, seed=1)
    torch.manual_seed(0)
    subnet = {"conv": {"width": 6, "normalization": "batch"}}
    couplings = [{"affine_coupling": {"subnet": subnet}}, {"additive_coupling": {"subnet": subnet, "swap": True}}]
    block = ["actnorm", "invertible_conv1x1", *couplings]
    nodes = ["squeeze", *block, "factor_out", "squeeze", *block, {"logit_coupling": {"subnet": subnet}}, "split_head"]
    clf = build_classifier((1, 8, 8), nodes, classes=2).double()
    optimizer = {"name": "sgd", "lr": 1e-2, "momentum": 0.9}
    arguments = {"epochs": 3, "optimizer": optimizer, "schedule": {"name": "constant"}, "precision": "fp32", **settings}
    trainer = Trainer(clf, loss, data, TrainSettings(activations=activations, **arguments))
    trainer.run()
    trainer.finish()
    return trainer


def state(clf: InvertibleClassifier) -> dict[str, Tensor]:
    return clf.state_dict()


LOSSES = {
    "cross-entropy": CrossEntropy,
    "likelihood": FactorialPriorMLE,
    "independence": lambda: IndependenceCrossEntropy(nuisance={"hidden": [16]}),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_weights_and_rows_are_those_of_stored_activations(loss: str) -> None:
    stored, recomputed = (trained(LOSSES[loss](), activations) for activations in ("store", "recompute"))
    for name, value in state(stored.classifier).items():
        torch.testing.assert_close(state(recomputed.classifier)[name], value, rtol=1e-6, atol=1e-8, msg=name)
    for one, other in zip(stored.rows, recomputed.rows, strict=True):
        assert {key: one[key] for key in one if key != "seconds.train"} == pytest.approx(
            {key: other[key] for key in other if key != "seconds.train"}, rel=1e-6
        )


def test_the_classifier_stores_again_afterwards() -> None:
    assert trained(CrossEntropy(), "recompute", epochs=1, ema=0.9).classifier.activations == "store"
