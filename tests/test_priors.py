"""FactorialPrior: a density on logits and nuisances whose Bayes posterior is the softmax of the logits."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import randomize
from torch import Tensor

import flowclf
from flowclf import InvertibleClassifier, build_classifier, checkpoint, registry
from flowclf.argument_types import PositiveFloat
from flowclf.data import DataSet
from flowclf.errors import CheckpointError, RegistryError, UsageError
from flowclf.losses import FactorialPriorMLE
from flowclf.priors import FactorialPrior, Prior, build_prior


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


# Priors by name.


class LaplacePrior(Prior):
    """Another density of the nuisances, without parameters."""

    def __init__(self, classes: int, nuisances: int, *, logit_mean: float, scale: PositiveFloat = 1.0) -> None:
        super().__init__(classes, nuisances)
        self.logit_mean, self.scale = logit_mean, scale

    def log_prob(self, logits: Tensor, nuisance: Tensor, labels: Tensor | None = None) -> Tensor:
        of_logits = FactorialPrior(self.classes, 0, logit_mean=self.logit_mean).to(logits).log_prob(logits, nuisance[:, :0], labels)
        return of_logits - (nuisance.abs() / self.scale + math.log(2 * self.scale)).sum(1)

    def sample(self, labels: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        logits, _ = FactorialPrior(self.classes, 0, logit_mean=self.logit_mean).sample(labels, temperature, generator)
        uniform = 0.999 * (2 * torch.rand(len(labels), self.nuisances, generator=generator) - 1)
        return logits, -temperature * self.scale * uniform.sign() * (1 - uniform.abs()).log()


@pytest.fixture
def laplace(scratch_registries: None) -> None:
    registry.priors.register("laplace")(LaplacePrior)


def classifier_with(prior: Any) -> InvertibleClassifier:
    return build_classifier((6,), ["actnorm", "affine_coupling", {"split_head": {"logit_mean": 4.0}}], classes=2, prior=prior)


def test_a_registered_prior_is_trained_with_saved_and_loaded(laplace: None, tmp_path: Path) -> None:
    clf = classifier_with({"laplace": {"scale": 2.0}})
    vectors = torch.randn(60, 6) + 2 * (torch.arange(60) % 2)[:, None]
    data = DataSet.from_arrays(vectors, torch.arange(60) % 2, batch_size=20, validation=20)
    rows = flowclf.fit(clf, FactorialPriorMLE(), data, epochs=3, optimizer={"name": "adam", "lr": 1e-2})
    assert rows[-1]["train.bits_per_dim"] < rows[0]["train.bits_per_dim"]
    again = checkpoint.load(checkpoint.save(clf, tmp_path / "model"))
    assert isinstance(again, InvertibleClassifier)
    assert checkpoint.read_description(tmp_path / "model")["prior"] == {"laplace": {"scale": 2.0}}
    assert (again.prior.logit_mean, again.prior.scale) == (4.0, 2.0)
    x = torch.randn(5, 6)
    assert torch.equal(again.log_prob(x), clf.log_prob(x))
    assert again.sample(3).shape == (3, 6)
    assert checkpoint.describe(again) == checkpoint.describe(clf)


def test_a_graph_without_any_number_of_its_own_has_a_device_and_is_loaded(laplace: None, tmp_path: Path) -> None:
    clf = build_classifier((6,), ["permutation", "split_head"], classes=2, prior="laplace").double()
    assert (clf.device.type, clf.dtype) == ("cpu", torch.float64)
    again = checkpoint.load(checkpoint.save(clf, tmp_path / "model"))
    assert torch.equal(again.log_prob(torch.ones(1, 6).double()), clf.log_prob(torch.ones(1, 6).double()))


def test_the_default_prior_is_not_in_a_description() -> None:
    described = checkpoint.describe(classifier_with("factorial"))
    assert described == checkpoint.describe(
        build_classifier((6,), ["actnorm", "affine_coupling", {"split_head": {"logit_mean": 4.0}}], 2)
    )
    assert "prior" not in described


@pytest.mark.parametrize(
    ("prior", "error", "words"),
    [
        ("laplaze", RegistryError, "unknown prior 'laplaze'; did you mean 'laplace'?"),
        ({"laplace": {"scale": -1.0}}, UsageError, "prior 'laplace': argument scale: Input should be greater than 0, found -1.0"),
        ({"laplace": {"skale": 1.0}}, UsageError, "prior 'laplace': argument skale: unknown key 'skale'; did you mean 'scale'?"),
        ({"laplace": {"logit_mean": 1.0}}, UsageError, "prior 'laplace': argument logit_mean: unknown key 'logit_mean'"),
        (
            {"laplace": {}, "factorial": {}},
            UsageError,
            "expected the name of a registered prior, or a mapping of one name to its arguments",
        ),
        (3, UsageError, "expected the name of a registered prior"),
        ("module", UsageError, "prior 'module': expected a flowclf.priors.Prior, found Identity"),
    ],
)
def test_priors_that_cannot_be_are_refused(laplace: None, prior: Any, error: type[Exception], words: str) -> None:
    registry.priors.register("module")(lambda classes, nuisances, *, logit_mean: torch.nn.Identity())
    with pytest.raises(error) as caught:
        classifier_with(prior)
    assert words in str(caught.value)


def test_a_prior_given_as_an_object_is_used_but_not_saved(laplace: None) -> None:
    clf = classifier_with(LaplacePrior(2, 4, logit_mean=1.0))
    assert torch.isfinite(clf.log_prob(torch.randn(3, 6))).all()
    with pytest.raises(CheckpointError, match="a prior given by its name, found a LaplacePrior"):
        checkpoint.describe(clf)


def test_a_description_cannot_name_a_prior_that_is_not_registered(laplace: None, tmp_path: Path) -> None:
    description = checkpoint.describe(classifier_with("laplace"))
    for prior in ({"os.system": {}}, {"laplace": {"scale": 0}}, {}, "laplace", {"laplace": {}, "factorial": {}}):
        with pytest.raises((CheckpointError, RegistryError, UsageError)):
            checkpoint.rebuild({**description, "prior": prior})
    assert build_prior("factorial", 2, 4, 1.0).nuisances == 4
