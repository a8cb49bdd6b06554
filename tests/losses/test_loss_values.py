"""Losses: values in closed form, their sums, warm-ups, and a loss of one's own."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional

import flowclf
from flowclf import Encoding, InvertibleClassifier, Preprocessing, build_classifier, registry
from flowclf.data import DataSet
from flowclf.errors import UsageError
from flowclf.graph import modules_by_name
from flowclf.losses import (
    CrossEntropy,
    FactorialPriorMLE,
    IndependenceCrossEntropy,
    Loss,
    LossTerms,
    MetamerCrossEntropy,
    MetamerMatching,
)

LABELS = torch.arange(12) % 4


def encoding_of(clf: InvertibleClassifier) -> tuple[Tensor, Encoding]:
    x = torch.randn(12, 1, 8, 8, dtype=clf.dtype)
    return x, clf(x)


# Cross-entropy.


def test_cross_entropy_is_the_log_of_the_probability() -> None:
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    encoding = Encoding(logits, torch.zeros(2, 4), torch.zeros(2))
    expected = (math.log(1 + 2 * math.exp(-2)) + math.log(2 + math.e)) / 2
    terms = CrossEntropy()(encoding, torch.tensor([0, 2]))
    assert terms.total.item() == pytest.approx(expected, rel=1e-6)
    assert terms.parts == {"cross_entropy_nats": terms.total}


def test_losses_that_look_at_logits_alone_say_so() -> None:
    assert CrossEntropy().logits_only
    assert (CrossEntropy() + 2 * CrossEntropy(label_smoothing=0.1)).logits_only
    assert not IndependenceCrossEntropy().logits_only
    assert not (CrossEntropy() + FactorialPriorMLE()).logits_only
    assert not Loss().logits_only


# Metamers that match data.


def behind_the_readout(clf: InvertibleClassifier, logits: Tensor, nuisance: Tensor) -> tuple[Tensor, Tensor]:
    """What the readout is given on the way of the inverse, and what it finds."""
    readout = modules_by_name(clf.graph)["11_logit_readout"]
    found: list[Tensor] = []
    with (
        readout.register_forward_pre_hook(lambda module, inputs: found.append(inputs[0][0])),
        readout.subnet.register_forward_hook(lambda module, inputs, output: found.append(output)),
    ):
        clf.inverse(logits, nuisance)
    return found[0], found[1]


def test_metamers_are_compared_with_the_samples_of_their_logits(image_classifier: InvertibleClassifier) -> None:
    clf = image_classifier
    last = modules_by_name(clf.graph)["11_logit_readout"].subnet[-1]
    with torch.no_grad():
        last.weight.mul_(30)
    encoding = encoding_of(clf)[1].detach()
    logits = encoding.logits.roll(1, 0)[:6]
    latents, there = behind_the_readout(clf, logits, encoding.nuisance[:6])
    data, own = behind_the_readout(clf, logits, encoding.nuisance.roll(1, 0)[:6])
    apart = (there - own).abs()
    assert 0 < (apart > 1).sum() < apart.numel()
    distance = torch.where(apart < 1, apart.square() / 2, apart - 0.5).sum(1).mean()
    pairs, of_data = (Normal(values.mean(0), (values.var(0, correction=0) + 1e-4).sqrt()) for values in (latents, data))
    divergence = kl_divergence(pairs, of_data).mean()
    assert divergence > 1e-3
    terms = MetamerMatching(reading_weight=0.5, moment_weight=3.0, share=0.5).bind(clf)(encoding, LABELS)
    assert list(terms.parts) == ["reading_distance_nats", "moment_divergence_nats"]
    torch.testing.assert_close(list(terms.parts.values()), [distance.detach(), divergence.detach()])
    torch.testing.assert_close(terms.total, 0.5 * distance + 3 * divergence)
    # Were the readings of data not taken as given, the bias would move both alike.
    terms.total.backward()
    torch.testing.assert_close(last.bias.grad, 0.5 * (there - own).clamp(-1, 1).mean(0).detach())


@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, 1.0)])
def test_what_is_of_the_samples_of_the_logits_is_taken_as_given(
    image_classifier: InvertibleClassifier, weights: tuple[float, float]
) -> None:
    _, encoding = encoding_of(image_classifier)
    given = Encoding(*(values.detach().requires_grad_() for values in encoding))
    loss = MetamerMatching(reading_weight=weights[0], moment_weight=weights[1], share=0.25).bind(image_classifier)
    loss(given, LABELS).total.backward()
    assert given.logits.grad is None
    assert given.nuisance.grad[:3].any(1).all()
    # The pairs' logits are of the last sample and the first two: their own nuisances, the last among them, are not taught.
    assert not given.nuisance.grad[3:].any()


def test_metamers_of_a_few_samples(image_classifier: InvertibleClassifier) -> None:
    loss = MetamerMatching(share=0.0).bind(image_classifier)
    _, encoding = encoding_of(image_classifier)
    two = MetamerMatching(share=2 / 12).bind(image_classifier)(encoding, LABELS)
    assert two.total > 0
    assert torch.equal(loss(encoding, LABELS).total, two.total)
    # One sample would be its own donor, and teach nothing.
    with pytest.raises(UsageError, match="at least 2 samples, found 1"):
        loss(Encoding(*(values[:1] for values in encoding)), LABELS[:1])


def test_matching_teaches_the_readout_and_what_comes_after_it(image_classifier: InvertibleClassifier) -> None:
    nodes = modules_by_name(image_classifier.graph)
    _, encoding = encoding_of(image_classifier)
    loss = MetamerMatching(delay=0.5, warmup=0.2).bind(image_classifier)
    loss.set_progress(0.5)
    terms = loss(encoding.detach(), LABELS)
    assert (terms.total, terms.parts) == (0, {})
    # By itself it can be trained with from the first step on, to no effect.
    assert loss(encoding, LABELS).total.requires_grad
    loss.set_progress(0.6)
    loss(encoding.detach(), LABELS).total.backward()
    taught = {name for name, node in nodes.items() if any(p.grad is not None and p.grad.any() for p in node.parameters())}
    assert taught == {"11_logit_readout", "12_logit_coupling", "13_logit_coupling"}
    half = nodes["13_logit_coupling"].subnet[0].weight.grad.clone()
    image_classifier.zero_grad()
    loss.set_progress(1.0)
    loss(encoding.detach(), LABELS).total.backward()
    torch.testing.assert_close(nodes["13_logit_coupling"].subnet[0].weight.grad, 2 * half)


def test_matching_needs_a_readout(vector_classifier: InvertibleClassifier) -> None:
    with pytest.raises(UsageError, match="expected a graph with a logit_readout, found none"):
        MetamerMatching().bind(vector_classifier)
    with pytest.raises(UsageError, match="expected a graph with a logit_readout"):
        vector_classifier.invert_to_readout(torch.zeros(2, 2), torch.zeros(2, 1))


# Metamers, classified by the readout.


def test_metamers_are_classified_by_the_readout_as_it_is(image_classifier: InvertibleClassifier) -> None:
    clf = image_classifier
    encoding = encoding_of(clf)[1].detach()
    _, reading = behind_the_readout(clf, encoding.logits[:6], encoding.nuisance.roll(-1, 0)[:6])
    terms = MetamerCrossEntropy(share=0.5).bind(clf)(encoding, LABELS)
    expected = torch.nn.functional.cross_entropy(reading, LABELS[:6])
    torch.testing.assert_close(terms.parts, {"metamer_cross_entropy_nats": expected.detach()})
    torch.testing.assert_close(terms.total, expected)


def test_metamers_teach_what_comes_after_the_readout_and_the_donors_alone(image_classifier: InvertibleClassifier) -> None:
    nodes = modules_by_name(image_classifier.graph)
    _, encoding = encoding_of(image_classifier)
    given = Encoding(*(values.detach().requires_grad_() for values in encoding))
    loss = MetamerCrossEntropy(share=0.25, delay=0.5, warmup=0.2).bind(image_classifier)
    loss.set_progress(0.5)
    assert loss(given, LABELS).parts == {}
    loss.set_progress(0.6)
    readout = nodes["11_logit_readout"].train()
    terms = loss(given, LABELS)
    torch.testing.assert_close(terms.total, 0.5 * terms.parts["metamer_cross_entropy_nats"])
    assert readout.training
    terms.total.backward()
    taught = {name for name, node in nodes.items() if any(p.grad is not None and p.grad.any() for p in node.parameters())}
    assert taught == {"12_logit_coupling", "13_logit_coupling"}
    assert all(parameter.requires_grad for parameter in readout.parameters())
    assert given.logits.grad is None
    assert given.nuisance.grad[1:4].any(1).all()
    assert not given.nuisance.grad[[0, *range(4, 12)]].any()


def test_a_share_of_the_metamers_gets_nuisances_from_the_prior(image_classifier: InvertibleClassifier) -> None:
    _, encoding = encoding_of(image_classifier)
    given = Encoding(*(values.detach().requires_grad_() for values in encoding))
    loss = MetamerCrossEntropy(share=0.5, samples=0.5).bind(image_classifier)
    torch.manual_seed(1)
    first = loss(given, LABELS)
    first.total.backward()
    assert given.nuisance.grad[4:7].any(1).all()
    assert not given.nuisance.grad[:4].any()
    assert not torch.equal(loss(given, LABELS).total, first.total)
    torch.manual_seed(1)
    assert torch.equal(loss(given, LABELS).total, first.total)
    assert all(parameter.grad is None for parameter in image_classifier.prior.parameters())


def test_metamers_need_a_readout(vector_classifier: InvertibleClassifier) -> None:
    with pytest.raises(UsageError, match="expected a graph with a logit_readout, found none"):
        MetamerCrossEntropy().bind(vector_classifier)


# Cross-entropy, smoothed.


def test_label_smoothing_spreads_the_target() -> None:
    logits = torch.tensor([[2.0, 0.0, 0.0]])
    log_probs = logits.log_softmax(1)[0]
    expected = -(0.7 * log_probs[0] + 0.3 * log_probs.mean())
    terms = CrossEntropy(label_smoothing=0.3)(Encoding(logits, logits, logits.sum(1)), torch.tensor([0]))
    assert terms.total.item() == pytest.approx(expected.item(), rel=1e-6)


# Likelihood.


@pytest.mark.parametrize(("bits", "pad"), [(8, 0), (4, 0), (4, 1)])
def test_the_likelihood_is_the_classifiers_in_bits_of_the_data(bits: int, pad: int) -> None:
    side = 8 - 2 * pad
    clf = build_classifier(
        (1, 8, 8),
        ["squeeze", "actnorm", {"split_head": {"logit_scale": 2.0}}],
        classes=4,
        preprocessing=Preprocessing((1, side, side), bits=bits, pad=pad),
    ).double()
    x, encoding = encoding_of(clf)
    dimensions = side**2
    expected = -clf.log_prob(x, LABELS) / (dimensions * math.log(2)) + (bits - 1) * 64 / dimensions
    terms = FactorialPriorMLE().bind(clf)(encoding, LABELS)
    torch.testing.assert_close(terms.total, expected.mean())
    assert list(terms.parts) == ["bits_per_dim"]


def test_a_standard_normal_is_measured_in_closed_form() -> None:
    """The identity on vectors, z = x = 0: (D / 2) log 2 pi nats and the distance of the class mean."""
    clf = build_classifier((6,), ["split_head"], classes=2)
    encoding = clf(torch.zeros(3, 6))
    terms = FactorialPriorMLE().bind(clf)(encoding, torch.tensor([0, 1, 0]))
    nats = 3 * math.log(2 * math.pi) + 0.5
    assert terms.total.item() == pytest.approx(nats / (6 * math.log(2)), rel=1e-6)


def test_cross_entropy_is_contained_in_the_likelihood(image_classifier: InvertibleClassifier) -> None:
    """log p(x | y) + log pi_y = log p(x) + log p(y | x) (Lemma 10)."""
    clf = image_classifier.double()
    x, encoding = encoding_of(clf)
    given_class = FactorialPriorMLE().bind(clf)(encoding, LABELS).total
    marginal = clf.preprocessing.bits_per_dim(clf.log_prob(x)).mean()
    nats = functional.cross_entropy(encoding.logits, LABELS) - math.log(4)
    torch.testing.assert_close(given_class, marginal + nats / (64 * math.log(2)))


def test_the_likelihood_trains_the_prior(image_classifier: InvertibleClassifier) -> None:
    _, encoding = encoding_of(image_classifier)
    FactorialPriorMLE().bind(image_classifier)(encoding, LABELS).total.backward()
    prior = image_classifier.prior
    assert prior.mean.grad is not None
    assert prior.log_std.grad is not None
    assert prior.mean.grad.all()
    assert prior.log_std.grad.all()


def test_volume_along_the_logits_does_not_pay_without_bound() -> None:
    """The paper's own term falls for ever as the logits are stretched; under N(m e_y, m I) there is a best scale."""

    def loss(scale: float) -> float:
        clf = build_classifier((6,), [{"split_head": {"logit_scale": scale, "logit_mean": 1.0}}], classes=2)
        torch.manual_seed(0)
        x = torch.randn(200, 6)
        return FactorialPriorMLE().bind(clf)(clf(x), torch.zeros(200, dtype=torch.int64)).total.item()

    values = [loss(10.0**exponent) for exponent in range(-3, 4)]
    best = values.index(min(values))
    assert 0 < best < 6
    assert values[best:] == sorted(values[best:])


# Independence cross-entropy.


def ignorant(loss: IndependenceCrossEntropy) -> IndependenceCrossEntropy:
    """A nuisance classifier that answers with equal probabilities."""
    last = loss.adversaries[0].layers[-1][-1]
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)
    return loss


@pytest.mark.parametrize("target", ["uniform", "labels"])
def test_an_ignorant_nuisance_classifier(target: str, image_classifier: InvertibleClassifier) -> None:
    clf = image_classifier
    loss = IndependenceCrossEntropy(
        classification={"weight": 2.0}, nuisance={"weight": 3.0, "target": target, "hidden": [8]}, likelihood={"weight": 0.5}
    )
    ignorant(loss.bind(clf))
    _, encoding = encoding_of(clf)
    total, parts = loss(encoding, LABELS)
    cross_entropy = functional.cross_entropy(encoding.logits, LABELS)
    bits = FactorialPriorMLE().bind(clf)(encoding, LABELS).total
    nuisance = 0.0 if target == "uniform" else -math.log(4)
    torch.testing.assert_close(total, 2 * cross_entropy + 3 * nuisance + 0.5 * bits)
    assert parts["cross_entropy_nats"].item() == pytest.approx(cross_entropy.item())
    assert parts["nuisance_cross_entropy_nats"].item() == pytest.approx(math.log(4), rel=1e-6)
    assert parts["bits_per_dim"].item() == pytest.approx(bits.item())


def test_two_adversaries_are_averaged(image_classifier: InvertibleClassifier) -> None:
    clf = image_classifier
    loss = IndependenceCrossEntropy(nuisance={"network": "both"}, classification={"weight": 0}, likelihood={"weight": 0}).bind(clf)
    assert len(loss.adversaries) == 2
    _, encoding = encoding_of(clf)
    each = [player(encoding.nuisance).log_softmax(1) for player in loss.adversaries]
    expected = sum(-answer.mean() - math.log(4) for answer in each) / 2
    assert loss(encoding, LABELS).total.item() == pytest.approx(expected.item(), rel=1e-5)
    known = sum(functional.nll_loss(answer, LABELS) for answer in each) / 2
    assert loss.adversary_loss(encoding, LABELS).item() == pytest.approx(known.item(), rel=1e-5)


def test_a_convolutional_player_needs_feature_maps(vector_classifier: InvertibleClassifier) -> None:
    with pytest.raises(UsageError, match="needs feature maps"):
        IndependenceCrossEntropy(nuisance={"network": "conv"}).bind(vector_classifier)


@pytest.mark.parametrize("target", ["uniform", "labels"])
def test_a_knowing_nuisance_classifier(target: str, image_classifier: InvertibleClassifier) -> None:
    """It answers class 0 with probability p everywhere."""
    clf = image_classifier
    loss = IndependenceCrossEntropy(nuisance={"target": target}, classification={"weight": 0}, likelihood={"weight": 0})
    ignorant(loss.bind(clf))
    loss.adversaries[0].layers[-1][-1].bias.data[0] = 2.0
    p = math.e**2 / (math.e**2 + 3)
    rest = (1 - p) / 3
    _, encoding = encoding_of(clf)
    labels = torch.zeros(12, dtype=torch.int64)
    total, parts = loss(encoding, labels)
    expected = -(math.log(p) + 3 * math.log(rest)) / 4 - math.log(4) if target == "uniform" else math.log(p)
    assert total.item() == pytest.approx(expected, rel=1e-5)
    assert parts["nuisance_cross_entropy_nats"].item() == pytest.approx(-math.log(p), rel=1e-5)
    assert loss.adversary_loss(encoding, labels).item() == pytest.approx(-math.log(p), rel=1e-5)
    if target == "uniform":
        assert total.item() > 0


@pytest.mark.parametrize("target", ["uniform", "labels"])
def test_the_bijection_unlearns_what_the_nuisances_say(target: str) -> None:
    """With the nuisance term alone, a step of the classifier makes a trained nuisance classifier worse."""
    torch.manual_seed(0)
    clf = build_classifier((6,), ["actnorm", "invertible_conv1x1", "affine_coupling", "split_head"], classes=2)
    labels = torch.arange(200) % 2
    x = torch.randn(200, 6) + 2 * labels[:, None]
    loss = IndependenceCrossEntropy(
        classification={"weight": 0}, likelihood={"weight": 0}, nuisance={"hidden": [16], "target": target, "warmup": 0}
    ).bind(clf)
    adversary = loss.adversary_optimizer()
    for _ in range(50):
        adversary.zero_grad()
        loss.adversary_loss(clf(x).detach(), labels).backward()
        adversary.step()
    before = loss(clf(x), labels)
    optimizer = torch.optim.SGD(clf.parameters(), lr=1e-2)
    before.total.backward()
    optimizer.step()
    after = loss(clf(x), labels)
    assert after.total < before.total
    assert after.parts["nuisance_cross_entropy_nats"] > before.parts["nuisance_cross_entropy_nats"]


@pytest.mark.parametrize(
    ("delay", "warmup", "progress", "share"),
    [
        (0.0, 0.5, 0.0, 0.0),
        (0.0, 0.5, 0.25, 0.5),
        (0.0, 0.5, 0.5, 1.0),
        (0.0, 0.5, 1.0, 1.0),
        (0.0, 0.0, 0.0, 1.0),
        (0.2, 0.4, 0.1, 0.0),
        (0.2, 0.4, 0.4, 0.5),
        (0.2, 0.4, 0.7, 1.0),
        (0.2, 0.0, 0.19, 0.0),
        (0.2, 0.0, 0.2, 1.0),
    ],
)
def test_the_nuisance_weight_warms_up(
    delay: float, warmup: float, progress: float, share: float, image_classifier: InvertibleClassifier
) -> None:
    loss = IndependenceCrossEntropy(
        classification={"weight": 0},
        likelihood={"weight": 0},
        nuisance={"weight": 2.0, "target": "labels", "delay": delay, "warmup": warmup},
    )
    ignorant(loss.bind(image_classifier))
    loss.set_progress(progress)
    _, encoding = encoding_of(image_classifier)
    assert loss(encoding, LABELS).total.item() == pytest.approx(-2 * share * math.log(4), abs=1e-6)
    assert loss.adversary_steps == (3 if progress >= delay else 0)


def test_nuisances_are_standardised_for_the_adversary(image_classifier: InvertibleClassifier) -> None:
    """The classifier cannot hide anything by making it small."""
    loss = IndependenceCrossEntropy(nuisance={"hidden": [8]}).bind(image_classifier)
    _, encoding = encoding_of(image_classifier)
    scales = torch.logspace(-2, 2, 60)
    moved = encoding._replace(nuisance=encoding.nuisance * scales + 5)
    torch.testing.assert_close(loss.adversary_loss(moved, LABELS), loss.adversary_loss(encoding, LABELS), atol=0.05, rtol=0.05)


def test_another_target_is_refused() -> None:
    with pytest.raises(UsageError, match="'uniform' or 'labels', found 'label'"):
        IndependenceCrossEntropy(nuisance={"target": "label"})


# Sums.


def test_sums_and_multiples_are_flat() -> None:
    loss = 2 * (CrossEntropy() + 3 * FactorialPriorMLE()) * 0.5 + CrossEntropy()
    assert loss.weights == [1.0, 3.0, 1.0]
    assert [type(one).__name__ for one in loss.losses] == ["CrossEntropy", "FactorialPriorMLE", "CrossEntropy"]


def test_parts_of_one_name_are_numbered(image_classifier: InvertibleClassifier) -> None:
    loss = CrossEntropy() + CrossEntropy(label_smoothing=0.5) + FactorialPriorMLE() + CrossEntropy()
    _, encoding = encoding_of(image_classifier)
    parts = loss.bind(image_classifier)(encoding, LABELS).parts
    assert list(parts) == ["cross_entropy_nats", "cross_entropy_nats_2", "bits_per_dim", "cross_entropy_nats_3"]
    assert parts["cross_entropy_nats"] == parts["cross_entropy_nats_3"] != parts["cross_entropy_nats_2"]


def test_progress_reaches_every_loss_of_a_sum(image_classifier: InvertibleClassifier) -> None:
    inner = IndependenceCrossEntropy(nuisance={"delay": 0.5, "hidden": [4]})
    loss = (CrossEntropy() + 0.5 * inner).bind(image_classifier)
    loss.set_progress(0.25)
    assert inner.progress == 0.25
    assert loss.adversary_steps == 0
    loss.set_progress(0.75)
    assert loss.adversary_steps == 3


def test_a_copied_sum_plays_with_its_own_adversary(image_classifier: InvertibleClassifier) -> None:
    loss = (CrossEntropy() + IndependenceCrossEntropy(nuisance={"hidden": [4]})).bind(image_classifier)
    again = copy.deepcopy(loss)
    own = {id(parameter) for parameter in again.parameters()}
    assert own
    assert {id(parameter) for parameter in again.adversary_parameters()} == own
    assert own.isdisjoint(id(parameter) for parameter in loss.parameters())


def test_what_is_no_loss_or_one_adversary_too_many_is_refused() -> None:
    with pytest.raises(UsageError, match="a loss adds to a loss, found int"):
        CrossEntropy() + 3  # type: ignore[operator]
    with pytest.raises(UsageError, match=r"at most one loss .* IndependenceCrossEntropy, IndependenceCrossEntropy"):
        IndependenceCrossEntropy() + IndependenceCrossEntropy()


def test_an_adversary_that_rests_now_is_still_one(image_classifier: InvertibleClassifier) -> None:
    class EarlyAdversary(IndependenceCrossEntropy):
        @property
        def adversary_steps(self) -> int:
            return 2 if self.progress < 0.5 else 0

    loss = (CrossEntropy() + EarlyAdversary(nuisance={"hidden": [4]})).bind(image_classifier)
    assert loss.adversary_steps == 0
    assert {id(value) for value in loss.adversary_parameters()} == {id(value) for value in loss.parameters()}
    loss.set_progress(0.25)
    assert loss.adversary_steps == 2
    with pytest.raises(UsageError, match=r"at most one loss .* EarlyAdversary, EarlyAdversary"):
        EarlyAdversary() + EarlyAdversary()


def test_an_adversary_without_weight_rests(image_classifier: InvertibleClassifier) -> None:
    loss = IndependenceCrossEntropy(nuisance={"weight": 0, "hidden": [4]}).bind(image_classifier)
    assert loss.adversary_steps == 0


# A loss of one's own.


def test_ten_lines_and_a_name_are_a_loss(scratch_registries: None) -> None:
    @registry.losses.register("margin")
    class Margin(Loss):
        def __init__(self, *, margin: float = 1.0) -> None:
            super().__init__()
            self.margin = margin

        def forward(self, encoding: Encoding, labels: Tensor) -> LossTerms:
            true = encoding.logits.gather(1, labels[:, None])
            value = torch.relu(self.margin + encoding.logits - true).mean()
            return LossTerms(value, {"margin_loss": value.detach()})

    clf = build_classifier((1, 6, 6), ["squeeze", "actnorm", "affine_coupling", "split_head"], classes=2)
    labels = torch.arange(80) % 2
    images = (60 + 100 * labels[:, None, None] + torch.randint(0, 40, (80, 6, 6))).to(torch.uint8)
    data = DataSet.from_arrays(images, labels, batch_size=16)
    loss = registry.losses.get("margin")(margin=2.0) + 0.1 * FactorialPriorMLE()
    rows = flowclf.fit(clf, loss, data, epochs=3, precision="fp32")
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert rows[-1]["train.margin_loss"] < rows[0]["train.margin_loss"]
    assert "train.bits_per_dim" in rows[0]


def test_the_base_class_says_what_is_missing() -> None:
    encoding = Encoding(torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(1))
    with pytest.raises(NotImplementedError, match="Loss does not implement forward"):
        Loss()(encoding, torch.zeros(1, dtype=torch.int64))


def test_an_adversary_drops_units_in_training_alone() -> None:
    torch.manual_seed(0)
    clf = build_classifier((1, 8, 8), ["squeeze", "split_head"], classes=4)
    loss = IndependenceCrossEntropy(nuisance={"hidden": [16], "dropout": 0.5}).bind(clf)
    kept = [layer.p for layer in loss.modules() if isinstance(layer, nn.Dropout)]
    assert kept == [0.5, 0.5]
    encoding, labels = clf(torch.randn(12, 1, 8, 8)).detach(), torch.arange(12) % 4
    assert loss.adversary_loss(encoding, labels) != loss.adversary_loss(encoding, labels)
    loss.eval()
    assert loss.adversary_loss(encoding, labels) == loss.adversary_loss(encoding, labels)


def test_the_convolutional_adversary_drops_nothing() -> None:
    clf = build_classifier((1, 8, 8), ["squeeze", "split_head"], classes=4)
    loss = IndependenceCrossEntropy(nuisance={"network": "both", "hidden": [16], "dropout": 0.5}).bind(clf)
    fully_connected, convolutional = loss.adversaries
    assert any(isinstance(layer, nn.Dropout) for layer in fully_connected.modules())
    assert not any(isinstance(layer, nn.Dropout) for layer in convolutional.modules())


def test_the_adversarys_weight_decay_shrinks_its_weights() -> None:
    sizes = []
    for decay in (0.0, 100.0):
        torch.manual_seed(0)
        loss = IndependenceCrossEntropy(nuisance={"hidden": [16], "weight_decay": decay})
        loss.bind(build_classifier((1, 8, 8), ["squeeze", "split_head"], classes=4))
        optimizer = loss.adversary_optimizer()
        for parameter in loss.adversary_parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        sizes.append(sum(float(parameter.detach().square().sum()) for parameter in loss.adversary_parameters()))
    assert sizes[1] < 0.9 * sizes[0]
