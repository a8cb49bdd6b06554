"""On a GPU: replayed passes compute what launched ones do, and no step waits. What of it needs no GPU runs without one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from FrEIA.framework import InputNode, Node, OutputNode
from FrEIA.modules import OrthogonalTransform
from tiny import DENSE, IMAGE_NODES
from torch import Tensor, nn

from flowclf import InvertibleClassifier, build_classifier
from flowclf.data import Augmentation, DataSet
from flowclf.errors import NonFiniteLossError, UsageError
from flowclf.losses import CrossEntropy, IndependenceCrossEntropy, Loss, MetamerMatching
from flowclf.nodes import SplitHead
from flowclf.training import Trainer
from flowclf.training.cuda_graphs import Passes, replays_are_safe

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def make_data() -> DataSet:
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(440) % 4
    images = torch.randint(0, 100, (440, 8, 8), generator=generator) + 50 * labels[:, None, None]
    augment = Augmentation(shift=1, rotation=10.0, zoom=0.1, elastic=0.5)
    return DataSet.from_arrays(images.to(torch.uint8), labels, batch_size=20, validation=40, seed=1, augment=augment)


def make_loss(kind: str) -> Loss:
    if kind == "cross-entropy":
        return CrossEntropy()
    independence = IndependenceCrossEntropy(nuisance={"hidden": [16], "network": "both", "steps": 2})
    return independence if kind == "independence" else independence + MetamerMatching()


def make_trainer(kind: str, device: str, **settings: Any) -> Trainer:
    torch.manual_seed(0)
    clf = build_classifier((1, 8, 8), IMAGE_NODES, classes=4).to(device)
    optimizer = {"name": "adamax", "lr": 5e-3}
    arguments = {"epochs": 2, "optimizer": optimizer, "gradient_clip": 5.0, "ema": 0.9, "precision": "fp32", **settings}
    return Trainer(clf, make_loss(kind), make_data(), arguments)


def told(trainer: Trainer) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "seconds.train"} for row in trainer.run()]


def trained(steps: int, kind: str, **settings: Any) -> tuple[Tensor, Tensor]:
    """Weights after so many steps, and the last step's gradient."""
    trainer = make_trainer(kind, "cuda", **settings)
    trainer.run(until=steps)
    assert bool(trainer._passes._recorded) == (settings["cuda_graphs"] == "always")
    parameters = list(trainer.classifier.parameters())
    gradient = torch.cat([parameter.grad.flatten() for parameter in parameters if parameter.grad is not None])
    return torch.cat([parameter.detach().flatten() for parameter in parameters]), gradient


@gpu
@pytest.mark.parametrize("activations", ["store", "recompute"])
@pytest.mark.parametrize("kind", ["cross-entropy", "independence", "matching"])
def test_replayed_passes_train_as_launched_ones_do(kind: str, activations: str) -> None:
    replayed, launched = (trained(1, kind, cuda_graphs=graphs, activations=activations)[1] for graphs in ("always", "never"))
    assert launched.norm() > 0
    assert (replayed - launched).norm() < 1e-6 * launched.norm()
    if kind == "matching" and activations == "store":
        return  # Gradients that come through the inverse too are added up in another order.
    replayed, launched = (trained(6, kind, cuda_graphs=graphs, activations=activations)[0] for graphs in ("always", "never"))
    assert torch.equal(replayed, launched)


@gpu
@pytest.mark.parametrize("graphs", ["always", "never"])
@pytest.mark.parametrize("kind", ["cross-entropy", "independence", "matching"])
def test_the_same_training_gives_the_same_bits_again(kind: str, graphs: str) -> None:
    one, other = (trained(6, kind, cuda_graphs=graphs)[0] for _ in range(2))
    assert torch.equal(one, other)
    assert torch.are_deterministic_algorithms_enabled() is False


@gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("kind", ["cross-entropy", "independence", "matching"])
def test_no_step_waits_for_the_gpu(kind: str) -> None:
    trainer = make_trainer(kind, "cuda", precision="bf16")
    trainer.run(until=3)
    trainer.classifier.train()
    trainer.loss.train()
    batches = trainer.data.train_batches(0, start=5)
    next(batches)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(4):
            batch = next(batches)
            trainer._train_step(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(trainer.meters._unread) == 4


@gpu
def test_recording_leaves_buffers_and_random_numbers_alone() -> None:
    clf = build_classifier((4,), ["actnorm", {"affine_coupling": {"subnet": DENSE}}, "split_head"], classes=2)
    subnet = next(module for module in clf.modules() if isinstance(module, nn.Sequential))
    subnet.insert(1, nn.BatchNorm1d(8))
    subnet.append(nn.Dropout(0.5))
    nn.init.normal_(subnet[-2].weight)
    clf = clf.cuda().train()
    x = torch.randn(32, 4, device="cuda")
    clf.initialize(x)
    before = {name: value.clone() for name, value in clf.named_buffers()}
    random = torch.cuda.get_rng_state()
    passes = Passes(clf, IndependenceCrossEntropy(nuisance={"hidden": [8]}).bind(clf), 32, "always")
    recorded = passes._pass("encode", (x,))
    assert all(torch.equal(value, before[name]) for name, value in clf.named_buffers())
    assert torch.equal(torch.cuda.get_rng_state(), random)
    first, second = (torch.cat(recorded(x)[:2], 1) for _ in range(2))
    assert not torch.equal(first, second)


def test_looking_seldom_tells_the_same() -> None:
    often, seldom = make_trainer("independence", "cpu"), make_trainer("independence", "cpu")
    seldom.meters.read_every = 16
    for one, other in zip(told(often), told(seldom), strict=True):
        assert one == pytest.approx(other, rel=1e-6)


class Failing(CrossEntropy):
    """Cross-entropy that is not a number from a step on."""

    def __init__(self, step: float) -> None:
        super().__init__()
        self.step = step

    def forward(self, encoding: Any, labels: Tensor) -> Any:
        terms = super().forward(encoding, labels)
        return terms._replace(total=terms.total * float("nan")) if self.progress >= self.step else terms


@pytest.mark.parametrize(("step", "before"), [(7, [5]), (17, [5, 10, 15])])
def test_looking_seldom_finds_the_first_step_that_failed_and_saves_nothing_of_it(step: int, before: list[int]) -> None:
    trainer = make_trainer("cross-entropy", "cpu")
    loss, settings = Failing(step / trainer.total_steps), {"epochs": 2, "checkpoint_every_steps": 5}
    trainer = Trainer(trainer.classifier, loss, trainer.data, settings)
    trainer.meters.read_every = 16
    saved: list[int] = []
    with pytest.raises(NonFiniteLossError, match=f"step {step}: loss is nan"):
        trainer.run(on_state=lambda one: saved.append(one.step))
    assert saved == before


def test_what_was_not_looked_at_belongs_to_a_state_and_is_forgotten_when_one_is_loaded() -> None:
    trainer = make_trainer("independence", "cpu")
    trainer.meters.read_every = 16
    batches = trainer.data.train_batches(0)
    trainer._train_step(next(batches))
    state = trainer.state_dict()
    assert state["sums"]["loss"] > 0
    trainer._train_step(next(batches))
    trainer.load_state_dict(state)
    assert trainer.state_dict()["sums"] == state["sums"]


class Counting(nn.Linear):
    """A subnet that counts on the host."""


def test_replays_are_known_to_be_safe_of_modules_that_are_known() -> None:
    clf = build_classifier((4,), ["actnorm", {"affine_coupling": {"subnet": DENSE}}, "split_head"], classes=2)
    assert replays_are_safe(clf, CrossEntropy())
    assert not replays_are_safe(clf, Failing(1.0))
    hook = clf.register_forward_hook(lambda *_: None)
    assert not replays_are_safe(clf, CrossEntropy())
    hook.remove()
    assert replays_are_safe(clf, CrossEntropy())
    next(module for module in clf.modules() if isinstance(module, nn.Sequential)).append(Counting(2, 2))
    assert not replays_are_safe(clf, CrossEntropy())


def test_a_node_that_counts_its_backward_passes_is_not_replayed() -> None:
    """FrEIA's OrthogonalTransform corrects its matrix on the host every few of them."""
    nodes = [InputNode(4, name="input")]
    nodes.append(Node(nodes[-1], OrthogonalTransform, {}, name="rotation"))
    nodes.append(Node(nodes[-1], SplitHead, {"classes": 2, "dct": False}, name="head"))
    graph = [*nodes, OutputNode((nodes[-1], 0), name="logits"), OutputNode((nodes[-1], 1), name="nuisances")]
    assert not replays_are_safe(InvertibleClassifier(graph), CrossEntropy())


def test_graphs_that_cannot_be_are_refused() -> None:
    with pytest.raises(UsageError, match=r"train\.cuda_graphs: Input should be 'auto', 'always' or 'never', found 'yes'"):
        make_trainer("cross-entropy", "cpu", cuda_graphs="yes")
    nodes = [{"additive_coupling": {"subnet": DENSE}}, "split_head"]
    exact = build_classifier((4,), nodes, classes=2, stream="fixed_point")
    with pytest.raises(UsageError, match="a stream in fixed point cannot be replayed"):
        Passes(exact, CrossEntropy().bind(exact), 32, "always")
