"""What every registered loss keeps: named parts, gradients to the right player, states, copies, sums, any dtype."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor, nn

from flowclf import Encoding, InvertibleClassifier, registry
from flowclf.errors import UsageError
from flowclf.losses import AdversarialLoss, CrossEntropy, FactorialPriorMLE, IndependenceCrossEntropy, Loss

REGISTERED = registry.losses.names()
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "cross-entropy": ("cross_entropy", {}),
    "smoothed": ("cross_entropy", {"label_smoothing": 0.1}),
    "weighted": ("cross_entropy", {"class_weights": [1.0, 2.0, 0.5, 3.0]}),
    "likelihood": ("factorial_prior_mle", {}),
    "independence": ("independence_cross_entropy", {"nuisance": {"hidden": [12]}}),
    "independence, labels": (
        "independence_cross_entropy",
        {"nuisance": {"hidden": [12, 8], "target": "labels", "steps": 1}},
    ),
    "independence, weighted": (
        "independence_cross_entropy",
        {"nuisance": {"hidden": [12]}, "classification": {"class_weights": [1.0, 2.0, 0.5, 3.0]}},
    ),
    "independence, convolutional": ("independence_cross_entropy", {"nuisance": {"network": "conv"}}),
    "independence, dropout": (
        "independence_cross_entropy",
        {"nuisance": {"network": "both", "hidden": [12], "dropout": 0.2, "weight_decay": 0.1}},
    ),
    "independence, two adversaries": ("independence_cross_entropy", {"nuisance": {"network": "both", "hidden": [12]}}),
    "metamers": ("metamer_cross_entropy", {}),
    "metamers, of samples": ("metamer_cross_entropy", {"share": 1.0, "samples": 0.5, "delay": 0.5, "warmup": 0.2}),
    "matching": ("metamer_matching", {}),
    "matching, later": ("metamer_matching", {"share": 0.0, "delay": 0.5, "warmup": 0.2}),
}
every_case = pytest.mark.parametrize(("name", "arguments"), CASES.values(), ids=CASES)
LABELS = torch.arange(12) % 4


def test_every_registered_loss_has_a_case() -> None:
    assert {name for name, _ in CASES.values()} == set(REGISTERED)


def bound(name: str, arguments: dict[str, Any], clf: InvertibleClassifier) -> Loss:
    loss: Loss = registry.losses.get(name)(**arguments).bind(clf)
    return loss


def encode(clf: InvertibleClassifier) -> Encoding:
    encoding: Encoding = clf(torch.randn(12, 1, 8, 8, dtype=clf.dtype))
    return encoding


def detached(encoding: Encoding) -> Encoding:
    return encoding.detach()


def adversary_of(loss: Loss) -> list[nn.Parameter]:
    return list(loss.adversary_parameters()) if isinstance(loss, AdversarialLoss) else []


def gradients(parameters: Any) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None and parameter.grad.any()]


@every_case
def test_total_and_parts(name: str, arguments: dict[str, Any], image_classifier: InvertibleClassifier) -> None:
    total, parts = bound(name, arguments, image_classifier)(encode(image_classifier), LABELS)
    assert total.shape == ()
    assert total.requires_grad
    assert torch.isfinite(total)
    assert parts
    for part, value in parts.items():
        assert part.endswith(("_nats", "_per_dim"))
        assert value.shape == ()
        assert not value.requires_grad
        assert torch.isfinite(value)


@every_case
def test_adversaries_own_disjoint_parameters(name: str, arguments: dict[str, Any], image_classifier: InvertibleClassifier) -> None:
    loss = bound(name, arguments, image_classifier)
    main, adversary = list(loss.main_parameters()), adversary_of(loss)
    assert {id(value) for value in main}.isdisjoint(id(value) for value in adversary)
    assert {id(value) for value in (*main, *adversary)} == {id(value) for value in loss.parameters()}
    assert {id(value) for value in loss.parameters()}.isdisjoint(id(value) for value in image_classifier.parameters())
    assert bool(adversary) == (isinstance(loss, AdversarialLoss) and loss.adversary_steps > 0)


@every_case
def test_the_main_loss_reaches_the_classifier_and_no_adversary(
    name: str, arguments: dict[str, Any], image_classifier: InvertibleClassifier
) -> None:
    loss = bound(name, arguments, image_classifier)
    required = [parameter.requires_grad for parameter in loss.parameters()]
    loss(encode(image_classifier), LABELS).total.backward()
    assert gradients(image_classifier.graph.parameters())
    assert not gradients(adversary_of(loss))
    assert all(gradient.isfinite().all() for gradient in gradients(image_classifier.parameters()))
    assert [parameter.requires_grad for parameter in loss.parameters()] == required


@every_case
def test_the_adversary_learns_and_does_not_reach_the_classifier(
    name: str, arguments: dict[str, Any], image_classifier: InvertibleClassifier
) -> None:
    loss = bound(name, arguments, image_classifier)
    encoding = detached(encode(image_classifier))
    if not isinstance(loss, AdversarialLoss):
        assert not hasattr(loss, "adversary_loss")
        return
    optimizer = loss.adversary_optimizer()
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {id(p) for p in loss.adversary_parameters()}
    first = loss.adversary_loss(encoding, LABELS)
    for _ in range(30):
        optimizer.zero_grad()
        loss.adversary_loss(encoding, LABELS).backward()
        optimizer.step()
    assert len(gradients(loss.adversary_parameters())) == len(list(loss.adversary_parameters()))
    assert not gradients(image_classifier.parameters())
    assert loss.adversary_loss(encoding, LABELS) < first


@every_case
def test_states_and_copies(name: str, arguments: dict[str, Any], image_classifier: InvertibleClassifier) -> None:
    loss = tiny.randomize(bound(name, arguments, image_classifier)).eval()
    encoding = encode(image_classifier)
    torch.manual_seed(1)
    expected = loss(encoding, LABELS)
    other = bound(name, arguments, image_classifier).eval()
    other.load_state_dict(loss.state_dict(), strict=True)
    for same in (other, copy.deepcopy(loss)):
        torch.manual_seed(1)
        again = same(encoding, LABELS)
        assert torch.equal(again.total, expected.total)
        assert again.parts == expected.parts
    assert type(loss).__name__ in repr(loss)


@every_case
def test_follows_the_dtype_of_the_classifier(name: str, arguments: dict[str, Any], image_classifier: InvertibleClassifier) -> None:
    clf = image_classifier.double()
    loss = bound(name, arguments, clf)
    encoding = encode(clf)
    assert loss(encoding, LABELS).total.dtype == torch.float64
    if isinstance(loss, AdversarialLoss):
        assert loss.adversary_loss(detached(encoding), LABELS).dtype == torch.float64


@every_case
def test_is_bound_once(name: str, arguments: dict[str, Any], image_classifier: InvertibleClassifier) -> None:
    loss = registry.losses.get(name)(**arguments)
    with pytest.raises(UsageError, match=f"{type(loss).__name__} is not bound"):
        _ = loss.binding
    assert loss.bind(image_classifier) is loss
    assert (loss.binding.classes, loss.binding.nuisances) == (4, 60)
    assert loss.binding.prior is image_classifier.prior
    with pytest.raises(UsageError, match="bound to a classifier already"):
        loss.bind(image_classifier)


@pytest.mark.parametrize("loss", [FactorialPriorMLE(), IndependenceCrossEntropy(), 2 * FactorialPriorMLE() + CrossEntropy()])
def test_an_unbound_loss_says_so(loss: Loss, image_classifier: InvertibleClassifier) -> None:
    with pytest.raises(UsageError, match=r"is not bound: call loss\.bind"):
        loss(encode(image_classifier), LABELS)


@every_case
def test_is_the_same_in_a_sum(name: str, arguments: dict[str, Any], image_classifier: InvertibleClassifier) -> None:
    clf = image_classifier
    loss = bound(name, arguments, clf).eval()
    alone = registry.losses.get(name)(**arguments)
    total = (0.5 * alone + CrossEntropy() * 2).bind(clf).eval()
    alone.load_state_dict(loss.state_dict())
    encoding = encode(clf)
    torch.manual_seed(1)
    expected, other = loss(encoding, LABELS), CrossEntropy()(encoding, LABELS)
    torch.manual_seed(1)
    terms = total(encoding, LABELS)
    torch.testing.assert_close(terms.total, 0.5 * expected.total + 2 * other.total)
    assert len(terms.parts) == len(expected.parts) + 1
    assert {part: terms.parts[part] for part in expected.parts} == expected.parts
    assert isinstance(total, AdversarialLoss) == isinstance(loss, AdversarialLoss)
    assert [id(p) for p in adversary_of(total)] == [id(p) for p in adversary_of(alone)]
    assert not {id(p) for p in total.main_parameters()} & {id(p) for p in adversary_of(total)}
    if isinstance(total, AdversarialLoss):
        assert total.adversary_steps == loss.adversary_steps > 0
        assert torch.equal(total.adversary_loss(encoding, LABELS), loss.adversary_loss(encoding, LABELS))
        groups = total.adversary_optimizer().param_groups
        assert {id(p) for g in groups for p in g["params"]} == {id(p) for p in alone.adversary_parameters()}
