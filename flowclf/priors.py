"""Priors over logits and nuisances.

Your own prior is registered in the group ``flowclf.priors`` and called as ``prior(classes, nuisances, logit_mean=m, ...)``, with
the m of the graph's head; its other keyword arguments are saved with a classifier.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from flowclf.component_schema.components import build
from flowclf.errors import UsageError
from flowclf.labels import class_numbers

_LOG_2PI = math.log(2 * math.pi)


class Prior(nn.Module):
    """Base class: p(z_s, z_n | y), a density on logits z_s and nuisances z_n given the class y. All classes are equally likely.

    Args:
        classes: K.
        nuisances: D - K.
    """

    log_class_prior: Tensor

    def __init__(self, classes: int, nuisances: int) -> None:
        super().__init__()
        self.classes = classes
        self.nuisances = nuisances
        self.register_buffer("log_class_prior", torch.full((classes,), -math.log(classes)))

    def log_prob(self, logits: Tensor, nuisance: Tensor, labels: Tensor | None = None) -> Tensor:
        """log p(z_s, z_n | y), or with no labels log sum_y pi_y p(z_s, z_n | y); (B,), nats."""
        raise NotImplementedError

    def sample(self, labels: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw logits (B, K) and nuisances (B, D-K) given labels (B,).

        Args:
            labels: classes, 0..K-1.
            temperature: factor on all standard deviations.
            generator: random number generator; the noise is drawn on its device.
        """
        raise NotImplementedError


class FactorialPrior(Prior):
    r"""p(z_s, z_n | y) = N(z_s; m e_y, m I) prod_k N(z_n,k; mu_k, sigma_k^2).

    log p(z_s | y) = z_s,y - (||z_s||^2 + m^2) / (2 m) + const, so under equal class priors p(y | z_s) = softmax(z_s). Unlike
    the paper's Cat(softmax z_s) (Lemma 10), it is a density on the logits and bounds the log-determinant that the flow can gain
    along them. Means and scales of the nuisances are learned.

    Args:
        classes: K.
        nuisances: D - K.
        logit_mean: m, mean and variance of the logit of the true class. Two classes are sqrt(2 m) standard deviations apart.

    Raises:
        UsageError: if m is not positive.
    """

    logit_mean: Tensor

    def __init__(self, classes: int, nuisances: int, *, logit_mean: float = 1.0) -> None:
        super().__init__(classes, nuisances)
        if not logit_mean > 0:
            raise UsageError(f"the prior's logit_mean must be positive, found {logit_mean}")
        self.mean = nn.Parameter(torch.zeros(nuisances))
        self.log_std = nn.Parameter(torch.zeros(nuisances))
        self.register_buffer("logit_mean", torch.tensor(float(logit_mean)))

    def logits_log_prob(self, logits: Tensor) -> Tensor:
        """log p(z_s | y) for every class, (B, K), nats."""
        m = self.logit_mean
        common = -(logits.square().sum(1) / m + m + self.classes * (_LOG_2PI + m.log())) / 2
        return logits + common[:, None]

    def nuisance_log_prob(self, nuisance: Tensor) -> Tensor:
        """log p(z_n), (B,), nats."""
        standard = (nuisance - self.mean) * (-self.log_std).exp()
        constant = self.nuisances * _LOG_2PI / 2 + self.log_std.sum()
        return -standard.square().sum(1) / 2 - constant

    def log_prob(self, logits: Tensor, nuisance: Tensor, labels: Tensor | None = None) -> Tensor:
        """As :meth:`Prior.log_prob`; a UsageError if labels are not B classes."""
        of_logits = self.logits_log_prob(logits)
        if labels is None:
            return torch.logsumexp(of_logits + self.log_class_prior, dim=1) + self.nuisance_log_prob(nuisance)
        labels = class_numbers(labels, self.classes, len(logits), sync=False)
        return of_logits.gather(1, labels[:, None]).squeeze(1) + self.nuisance_log_prob(nuisance)

    def sample(self, labels: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw logits (B, K) and nuisances (B, D-K) given labels (B,); see :meth:`Prior.sample`."""
        labels = class_numbers(labels, self.classes, sync=False)
        device = self.mean.device if generator is None else generator.device

        def noise(size: int) -> Tensor:
            return temperature * torch.randn(labels.shape[0], size, generator=generator, device=device).to(self.mean)

        one_hot = functional.one_hot(labels, self.classes).to(self.mean)
        logits = self.logit_mean * one_hot + self.logit_mean.sqrt() * noise(self.classes)
        nuisance = self.mean + self.log_std.exp() * noise(self.nuisances)
        return logits, nuisance

    def extra_repr(self) -> str:
        """Arguments, for the repr."""
        return f"classes={self.classes}, nuisances={self.nuisances}, logit_mean={self.logit_mean.item():g}"


def build_prior(spec: str | Mapping[str, Mapping[str, Any]], classes: int, nuisances: int, logit_mean: float) -> Prior:
    """Build a prior from its registered name or a mapping of the name to its arguments, with the m of the graph's head.

    Raises:
        RegistryError: if the name is not registered.
        UsageError: if ``spec`` has another form, an argument is not valid, or the component does not build a :class:`Prior`.

    Example:
        >>> build_prior("factorial", classes=10, nuisances=54, logit_mean=1.0)
        FactorialPrior(classes=10, nuisances=54, logit_mean=1)
    """
    prior: Prior = build("priors", spec, classes, nuisances, logit_mean=logit_mean, returns=Prior, error=UsageError)
    return prior
