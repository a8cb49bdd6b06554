"""Stages of a training: nodes are frozen, terms of the loss begin, and resuming in any stage gives the same bits."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

import flowclf
from flowclf.data import DataSet
from flowclf.errors import UsageError
from flowclf.graph import modules_by_name
from flowclf.losses import IndependenceCrossEntropy
from flowclf.training import Trainer

PLACE = {"dct": False, "logit_scale": 4.0}
GIVEN = {**PLACE, "detach_logits": True}
NODES: list[Any] = [
    "squeeze",
    {"logit_readout": {"subnet": {"cnn": {"widths": [4, 6]}}, **PLACE}},
    {"logit_actnorm": GIVEN},
    {"logit_conv1x1": {"dct": False}},
    {"logit_coupling": {"subnet": {"conditional_conv": {"width": 4}}, **GIVEN}},
    {"split_head": PLACE},
]


def make_trainer(**settings: Any) -> Trainer:
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(120) % 2
    images = torch.randint(0, 120, (120, 6, 6), generator=generator) + 100 * labels[:, None, None]
    data = DataSet.from_arrays(images.to(torch.uint8), labels, batch_size=20, validation=20, seed=1)
    torch.manual_seed(0)
    clf = flowclf.build_classifier((1, 6, 6), NODES, classes=2)
    loss = IndependenceCrossEntropy(
        likelihood={"weight": 1.0, "delay": 0.25}, nuisance={"hidden": [8], "delay": 0.5, "warmup": 0.0, "steps": 1}
    )
    arguments = {"epochs": 4, "optimizer": {"name": "adam", "lr": 1e-2}, "precision": "fp32", **settings}
    return Trainer(clf, loss, data, arguments)


def weights(trainer: Trainer) -> Mapping[str, Tensor]:
    return {name: value.clone() for name, value in trainer.classifier.state_dict().items()}


def moved(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> set[str]:
    """Names of the nodes whose weights or buffers differ."""
    return {name.split(".")[2] for name in before if name.startswith("graph.") and not torch.equal(before[name], after[name])}


def test_terms_begin_and_nodes_are_frozen() -> None:
    trainer = make_trainer(freeze={"logit_readout": 0.25})
    order = {str(index): name for index, name in enumerate(modules_by_name(trainer.classifier.graph))}
    states = [weights(trainer)]
    for epoch in (1, 2, 3, 4):
        trainer.run(until=epoch * trainer.steps_per_epoch)
        states.append(weights(trainer))
    taught = [{order[one] for one in moved(*pair)} for pair in itertools.pairwise(states)]
    after = {"3_logit_actnorm", "4_logit_conv1x1", "5_logit_coupling"}
    assert taught == [{"2_logit_readout"}, after, after, after]
    parts = [
        {key.removeprefix("train.") for key in row if key.startswith("train.")} - {"loss", "gradient_norm"} for row in trainer.rows
    ]
    assert parts == [
        {"cross_entropy_nats"},
        {"cross_entropy_nats", "bits_per_dim"},
        *[{"cross_entropy_nats", "bits_per_dim", "nuisance_cross_entropy_nats"}] * 2,
    ]
    assert all(parameter.requires_grad for parameter in trainer.classifier.parameters())


@pytest.mark.parametrize("stop", [3, 8, 13])
def test_a_training_resumes_in_any_stage(stop: int) -> None:
    settings = {"freeze": {"2_logit_readout": 0.25}, "ema": 0.9, "schedule": {"name": "trapezoid", "restarts": [0.25, 0.5]}}
    whole, first, second = (make_trainer(**settings) for _ in range(3))
    whole.run()
    first.run(until=stop)
    second.load_state_dict(first.state_dict())
    second.run()
    for trainer in (whole, second):
        trainer.finish()
    expected = weights(whole)
    assert all(torch.equal(value, expected[name]) for name, value in weights(second).items())
    assert not whole.classifier.training


def test_what_cannot_be_frozen_is_refused() -> None:
    with pytest.raises(UsageError, match="kind or name of a node, found 'logit_redout'; did you mean 'logit_readout'"):
        make_trainer(freeze={"logit_redout": 0.5})
    with pytest.raises(UsageError, match=r"freeze"):
        make_trainer(freeze={"logit_readout": 1.5})
    data = make_trainer().data
    plain = flowclf.plain_classifier((1, 6, 6), {"plain_cnn": {"widths": [4], "hidden": 0}}, 2)
    with pytest.raises(UsageError, match="train: freeze: expected an invertible classifier"):
        Trainer(plain, flowclf.losses.CrossEntropy(), data, {"freeze": {"conv": 0.5}})
