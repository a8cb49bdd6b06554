"""The words of a report: what each result means, and how its value is written for a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["GROUPS", "MEANINGS", "meaning", "number", "percent", "rough", "scientific"]

MEANINGS: Mapping[str, str] = {
    "train.error": "wrong answers on the training part, without augmentation",
    "validation.error": "wrong answers on the held-out part of the training set",
    "test.error": "wrong answers on the test set",
    "test.error_low": "lower end of the 95 % interval of the test error (Wilson)",
    "test.error_high": "upper end of the 95 % interval of the test error (Wilson)",
    "test.chance_error": "wrong answers of always naming the most frequent class",
    "test.calibration_error": "mean distance of accuracy from confidence, 15 bins",
    "test.bits_per_dim": "code length of the test set",
    "train.bits_per_dim": "code length of the training part",
    "validation.bits_per_dim": "code length of the validation part",
    "data.bits": "depth to which the pixels were reduced before noise was added",
    "model.kind": "invertible, or plain: an ordinary network",
    "model.parameters": "trained numbers",
    "model.dimensions": "of the input; logits and nuisances together have as many",
    "probe.test_error": "wrong answers of a fresh classifier that sees the nuisances alone; the lowest of all probes",
    "probe.train_error": "of the probe that is named below, on the data it was trained on",
    "probe.validation_error": "of the same probe, on the data that ended its training",
    "probe.mutual_information_nats": "the nuisances hold at least so much about the class (Lemma 9)",
    "probe.entropy_nats": "what there is to know about the class",
    "probe.epochs": "epochs that its training took",
    "probe.train_examples": "training examples that the probes were trained on",
    "probe.hidden": "hidden units of the probe 'mlp', layer by layer",
    "probe.name": "the probe to which these numbers belong: lowest error on test data (full), or cross-entropy on validation data",
    "numerics.inverse_error_max": "largest |F⁻¹(F(x)) − x|, network inputs",
    "numerics.inverse_error_mean": "mean |F⁻¹(F(x)) − x|",
    "numerics.grid_peak": "largest magnitude in the fixed-point stream, which holds those below 128",
    "numerics.forward_inverse_error_max": "largest |F(F⁻¹(z)) − z|, logits of one input with the nuisances of another",
    "metamers.pairs": "pairs of test images of different classes",
    "metamers.logit_change_max": "largest |change of a logit| between a metamer and the donor of its logits",
    "metamers.logit_change_mean": "mean |change of a logit|",
    "metamers.prediction_kept": "metamers with the predicted class of the logits' donor",
    "metamers.distance_mean": "mean distance of a metamer from the donor of its logits, network inputs",
    "metamers.adversarial": "metamers that keep their prediction while the oracle's class changes (Definition 3)",
    "metamers.prediction_kept_8bit": "metamers that keep the prediction when clipped to the pixel range and rounded to 8 bits",
    "metamers.logit_change_8bit_mean": "mean |change of a logit| after clipping and rounding",
    "metamers.pixels_out_of_range": "pixels of metamers darker or brighter than those of any image",
    "metamers.oracle.donor": "metamers that the oracle gives the class of the nuisances' donor: an attack's success",
    "metamers.oracle.logits": "metamers that the oracle gives the class of the logits' donor",
    "metamers.oracle.neither": "metamers that the oracle gives another class",
    "metamers.oracle.test_error": "wrong answers of the oracle itself on the test set",
    "metamers.oracle.noisy_test_error": "the same with the noise of dequantisation, which metamers' donors have",
    "planes.pairs": "pairs of test inputs of different classes that one was taken from",
    "planes.chosen_pair": "the one taken: the first whose metamer the oracle puts in another class, if there is one",
    "planes.distance": "of the metamer from x, network inputs",
    "planes.path.classifier_changes": "how often the classifier's decision changes on the latent path from x to its metamer",
    "planes.path.probe_changes": "how often the probe's does",
    "planes.path.oracle_changes": "how often the oracle's does",
    **{
        f"planes.{plane}.{judge}_disagreement": f"area of the plane of {words} where the {judge} differs from the oracle"
        for plane, words in (("pair", "two test inputs"), ("metamer", "x and its metamer"))
        for judge in ("classifier", "probe")
    },
    "seconds.train": "of training",
    "seconds.evaluate": "of evaluation",
    "seconds.total": "of the whole run",
}

GROUPS: Mapping[str, str] = {
    "test": "Test",
    "validation": "Validation",
    "train": "Training",
    "probe": "Probes of the nuisances",
    "metamers": "Metamers",
    "planes": "Planes",
    "numerics": "Numerics",
    "model": "Model",
    "data": "Data",
    "seconds": "Time, seconds",
}

_SHARES = ("prediction_kept", "pixels_out_of_range", "donor", "logits", "neither", "adversarial")


def meaning(key: str) -> str:
    """What a result is, in a few words; empty for one that nobody explained."""
    if key in MEANINGS:
        return MEANINGS[key]
    for ending, words in (
        ("_low", "lower end of the 95 % interval (Wilson)"),
        ("_high", "upper end of the 95 % interval (Wilson)"),
    ):
        if key.endswith(ending):
            return words
    if key.endswith("_8bit") and key.removesuffix("_8bit") in MEANINGS:
        return f"{MEANINGS[key.removesuffix('_8bit')]}, after rounding to 8 bits"
    probe = f"of the probe '{key.split('.')[1]}'" if key.startswith("probe.") and key.count(".") == 2 else ""
    if key.endswith(".test_error"):
        return probe
    for ending, words in (
        ("cross_entropy_nats", "mean −log probability of the label"),
        ("examples", "how many"),
        ("train_error", "on the data it was trained on"),
        ("epochs", "epochs that its training took"),
    ):
        if key.endswith(ending):
            return f"{words}, {probe}" if probe else words
    return ""


def number(key: str, value: Any) -> str:
    """A value as a person reads it: fractions in percent, counts grouped, other numbers with four digits."""
    name = key.rpartition(".")[2].removesuffix("_low").removesuffix("_high").removesuffix("_8bit")
    share = name.endswith(("error", "disagreement")) or name in _SHARES
    if value is None:
        return "not finite"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if share and not key.startswith("numerics."):
        return percent(value)
    if isinstance(value, int):
        return f"{value:,}" if name != "seed" else str(value)
    return f"{value:.4g}"


def percent(fraction: float) -> str:
    """A fraction as a percentage with two digits."""
    return f"{100 * fraction:.2f}\u00a0%"


def rough(fraction: float) -> str:
    """A fraction as a percentage with one digit."""
    return f"{100 * fraction:.1f}\u00a0%"


def scientific(value: float) -> str:
    """A number as a person writes it: 2.1 × 10⁻⁴."""
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}\u00a0×\u00a010{str(int(exponent)).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"
