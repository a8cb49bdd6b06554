"""Losses: objects that are built, bound to a classifier once, and then called on encodings and labels."""

from flowclf.losses.base import AdversarialLoss, AdversarialSum, Binding, Loss, LossTerms, WeightedSum, weighted_sum
from flowclf.losses.cross_entropy import CrossEntropy
from flowclf.losses.independence import IndependenceCrossEntropy, NuisanceClassifier
from flowclf.losses.likelihood import FactorialPriorMLE
from flowclf.losses.metamer_cross_entropy import MetamerCrossEntropy
from flowclf.losses.metamer_matching import MetamerMatching

__all__ = [
    "AdversarialLoss",
    "AdversarialSum",
    "Binding",
    "CrossEntropy",
    "FactorialPriorMLE",
    "IndependenceCrossEntropy",
    "Loss",
    "LossTerms",
    "MetamerCrossEntropy",
    "MetamerMatching",
    "NuisanceClassifier",
    "WeightedSum",
    "weighted_sum",
]
