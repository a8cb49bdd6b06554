"""Classifiers: invertible ones, ordinary networks, and their common base class."""

from flowclf.classifier.base import Classifier, Encoding, LogitsOnly
from flowclf.classifier.invertible import InvertibleClassifier, build_classifier, check_precision, require_invertible
from flowclf.classifier.plain import NetworkFactory, PlainClassifier, plain_classifier

__all__ = [
    "Classifier",
    "Encoding",
    "InvertibleClassifier",
    "LogitsOnly",
    "NetworkFactory",
    "PlainClassifier",
    "build_classifier",
    "check_precision",
    "plain_classifier",
    "require_invertible",
]
