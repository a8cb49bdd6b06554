"""FactorialPrior: a density on logits and nuisances whose Bayes posterior is the softmax of the logits."""

from __future__ import annotations

import math

import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import randomize

from flowclf.errors import UsageError
from flowclf.priors import FactorialPrior


def prior(classes: int = 3, nuisances: int = 4, logit_mean: float = 2.5) -> FactorialPrior:
    return randomize(FactorialPrior(classes, nuisances, logit_mean=logit_mean)).double()


@settings(max_examples=20)
@given(
    classes=st.integers(2, 6),
    nuisances=st.integers(1, 6),
    logit_mean=st.sampled_from([0.25, 1.0, 4.0, 25.0]),
    seed=st.integers(0, 1000),
)
def test_log_probs_are_those_of_scipy(classes: int, nuisances: int, logit_mean: float, seed: int) -> None:
    torch.manual_seed(seed)
    p = prior(classes, nuisances, logit_mean)
    logits = 3 * torch.randn(5, classes, dtype=torch.float64)
    nuisance = torch.randn(5, nuisances, dtype=torch.float64)
    means = logit_mean * torch.eye(classes, dtype=torch.float64)
    per_class = torch.from_numpy(scipy.stats.norm.logpdf(logits[:, None].numpy(), means.numpy(), math.sqrt(logit_mean)).sum(2))
    of_nuisance = torch.from_numpy(
        scipy.stats.norm.logpdf(nuisance.numpy(), p.mean.detach().numpy(), p.log_std.detach().exp().numpy()).sum(1)
    )
    torch.testing.assert_close(p.logits_log_prob(logits), per_class)
    torch.testing.assert_close(p.nuisance_log_prob(nuisance), of_nuisance)
    labels = torch.randint(0, classes, (5,))
    torch.testing.assert_close(p.log_prob(logits, nuisance, labels), per_class[torch.arange(5), labels] + of_nuisance)
    marginal = torch.logsumexp(per_class - math.log(classes), dim=1) + of_nuisance
    torch.testing.assert_close(p.log_prob(logits, nuisance), marginal)


@settings(max_examples=30)
@given(classes=st.integers(2, 12), logit_mean=st.floats(0.05, 50), seed=st.integers(0, 1000))
def test_the_softmax_of_the_logits_is_the_bayes_posterior(classes: int, logit_mean: float, seed: int) -> None:
    torch.manual_seed(seed)
    p = prior(classes, 2, logit_mean)
    logits = 5 * torch.randn(4, classes, dtype=torch.float64)
    joint = p.logits_log_prob(logits) + p.log_class_prior
    torch.testing.assert_close(joint.softmax(1), logits.softmax(1), atol=1e-12, rtol=1e-9)


def test_samples_have_the_moments_of_the_prior() -> None:
    """Five standard errors of the mean and of the variance, n = 40000."""
    p = prior()
    n = 40_000
    labels = torch.arange(n) % 3
    logits, nuisance = p.sample(labels, generator=torch.Generator().manual_seed(1))
    expected_std = torch.cat((torch.full((3,), math.sqrt(2.5)), p.log_std.detach().float().exp())).double()
    for label in range(3):
        drawn = torch.cat((logits, nuisance), dim=1)[labels == label]
        count = len(drawn)
        mean = torch.cat((2.5 * torch.eye(3, dtype=torch.float64)[label], p.mean.detach()))
        assert ((drawn.mean(0) - mean).abs() <= 5 * expected_std / count**0.5).all()
        variance_error = 5 * expected_std.square() * math.sqrt(2 / count)
        assert ((drawn.var(0) - expected_std.square()).abs() <= variance_error).all()


def test_temperature_scales_the_deviation_alone() -> None:
    p = prior()
    labels = torch.tensor([0, 1, 2])
    cold = p.sample(labels, temperature=0.0)
    assert torch.equal(cold[0], 2.5 * torch.eye(3, dtype=torch.float64))
    assert torch.equal(cold[1], p.mean.detach().expand(3, -1))

    def draw(temperature: float) -> torch.Tensor:
        return torch.cat(p.sample(labels, temperature, torch.Generator().manual_seed(3)), dim=1)

    torch.testing.assert_close(draw(2.0) - draw(0.0), 2 * (draw(1.0) - draw(0.0)))


def test_the_generator_decides() -> None:
    p = prior()
    labels = torch.tensor([0, 1, 2, 1])
    state = torch.get_rng_state()
    first = p.sample(labels, generator=torch.Generator().manual_seed(3))
    again = p.sample(labels, generator=torch.Generator().manual_seed(3))
    assert all(map(torch.equal, first, again))
    assert torch.equal(torch.get_rng_state(), state)


def test_labels_must_be_one_each() -> None:
    p = prior()
    logits, nuisance = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 4, dtype=torch.float64)
    for labels in (torch.tensor([1]), torch.tensor([0, 1, 2, 0, 1]), torch.zeros(4, 1, dtype=torch.int64)):
        with pytest.raises(UsageError, match=r"labels of shape \(4,\)"):
            p.log_prob(logits, nuisance, labels)


@pytest.mark.parametrize("logit_mean", [0.0, -1.0, float("nan")])
def test_a_mean_that_is_not_positive_is_refused(logit_mean: float) -> None:
    with pytest.raises(UsageError, match="logit_mean must be positive"):
        FactorialPrior(3, 4, logit_mean=logit_mean)


def test_the_mean_travels_in_the_state() -> None:
    p = prior(logit_mean=9.0)
    other = FactorialPrior(3, 4).double()
    other.load_state_dict(p.state_dict(), strict=True)
    logits, nuisance = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 4, dtype=torch.float64)
    assert torch.equal(other.log_prob(logits, nuisance), p.log_prob(logits, nuisance))
    assert "logit_mean=9" in repr(other)
