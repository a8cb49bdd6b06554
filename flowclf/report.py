"""report.html: what a run found, in one file that needs nothing else to be read.

The words are here, the layout is in ``templates/report.html.j2``. Everything that comes from outside is escaped.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from flowclf.errors import DataError
from flowclf.figures import FigureFile
from flowclf.files import write_text

__all__ = ["write_report"]

_TEMPLATES = Path(__file__).parent / "templates"


class _Card(NamedTuple):
    name: str
    value: str
    note: str


_MEANINGS: Mapping[str, str] = {
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
    "model.parameters": "trained numbers",
    "model.dimensions": "of the input; logits and nuisances together have as many",
    "probe.test_error": "wrong answers of a fresh classifier that sees the nuisances alone; the lowest of all probes",
    "probe.train_error": "the same, on the data it was trained on",
    "probe.validation_error": "the same, on the data that ended its training",
    "probe.mutual_information_nats": "the nuisances hold at least so much about the class (Lemma 9)",
    "probe.entropy_nats": "what there is to know about the class",
    "probe.epochs": "epochs that its training took",
    "probe.train_examples": "training examples that the probes were trained on",
    "probe.hidden": "hidden units of the probe 'mlp', layer by layer",
    "probe.name": "the probe with the lowest cross-entropy on validation data, to which these numbers belong",
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
    "metamers.prediction_kept_8bit": "the same after clipping to the pixel range and rounding to 8 bits",
    "metamers.logit_change_8bit_mean": "mean |change of a logit| after clipping and rounding",
    "metamers.pixels_out_of_range": "pixels of metamers outside of 0..255",
    "metamers.oracle.nuisance_class": "metamers that the oracle gives the class of the nuisances' donor",
    "metamers.oracle.logits_class": "metamers that the oracle gives the class of the logits' donor",
    "metamers.oracle.neither": "metamers that the oracle gives another class",
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

_GROUPS: Mapping[str, str] = {
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

_SHARES = ("prediction_kept", "pixels_out_of_range", "nuisance_class", "logits_class", "neither", "adversarial")


def write_report(
    folder: Path,
    *,
    results: Mapping[str, Any],
    title: str = "",
    figures: Sequence[FigureFile] = (),
    rows: Sequence[Mapping[str, Any]] = (),
    recipe_text: str = "",
    resolved_text: str = "",
    environment: Mapping[str, Any] | None = None,
    model_text: str = "",
    command: str = "",
) -> Path:
    """Write report.html: one self-contained file, without scripts, for light and dark screens.

    Args:
        folder: where to write it.
        results: as :func:`flowclf.evaluation.evaluate` gives them, with whatever else results.json has.
        title: what was run; by default the recipe's name in the results, or the folder's.
        figures: PNG files; they are copied into the report.
        rows: metrics of the epochs.
        recipe_text: the recipe as given.
        resolved_text: the recipe with every default filled in.
        environment: versions, machine, times; a table.
        model_text: the network, node by node.
        command: repeats the run from the folder of the report.

    Returns:
        The report's path.

    Raises:
        DataError: a figure that cannot be read, or is not a PNG.
    """
    environ = jinja2.Environment(loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined)
    keys = list(dict.fromkeys(key for row in rows for key in row))
    html = environ.get_template("report.html.j2").render(
        title=title or str(results.get("recipe") or folder.resolve().name),
        subtitle=_subtitle(results),
        cards=_cards(results),
        findings=_findings(results),
        pictures=[_picture(figure) for figure in figures],
        groups=_groups(results),
        epoch_keys=keys,
        epochs=[[_number(key, row[key]) if key in row else "" for key in keys] for row in rows],
        command=command,
        recipe=recipe_text,
        resolved=resolved_text,
        nodes=model_text,
        environment=[(name, _plain(value)) for name, value in (environment or {}).items()],
    )
    path = folder / "report.html"
    write_text(path, html)
    return path


def _subtitle(results: Mapping[str, Any]) -> str:
    parts = [
        _phrase("data {}", results.get("data.name")),
        _phrase("reduced to {} bits", results.get("data.bits")),
        _phrase("{:,} parameters", results.get("model.parameters")),
        _phrase("{} evaluation", results.get("protocol")),
        _phrase("{:.0f} s of training", results.get("seconds.train")),
    ]
    return " · ".join(part for part in parts if part)


def _cards(results: Mapping[str, Any]) -> list[_Card]:
    cards = []
    if _has(results, "test.error"):
        note = "of the test set is misread"
        if _has(results, "test.error_low", "test.error_high"):
            low, high = results["test.error_low"], results["test.error_high"]
            note += f"; 95 % interval {100 * low:.2f} to {_percent(high)}"
        cards.append(_Card("Test error", _percent(results["test.error"]), note))
    if _has(results, "probe.test_error"):
        note = "of a fresh classifier that sees only the nuisances"
        if _has(results, "test.chance_error"):
            note += f"; chance is {_rough(results['test.chance_error'])}"
        cards.append(_Card("Probe error", _percent(results["probe.test_error"]), note))
    if _has(results, "metamers.prediction_kept_8bit"):
        note = "of metamers are still read as the logits' donor when saved as 8-bit pictures"
        cards.append(_Card("Metamers kept", _percent(results["metamers.prediction_kept_8bit"]), note))
    if _has(results, "test.bits_per_dim"):
        note = "to code the test set"
        if _has(results, "data.bits"):
            note += f"; {results['data.bits']} without a model"
        cards.append(_Card("Bits/dim", f"{results['test.bits_per_dim']:.3f}", note))
    if _has(results, "numerics.inverse_error_max"):
        note = "largest error of a test input after F and back"
        cards.append(_Card("Inverse error", _scientific(results["numerics.inverse_error_max"]), note))
    return cards


def _findings(results: Mapping[str, Any]) -> list[str]:
    """What the numbers say, in sentences; only what was measured is spoken of."""
    found = []
    if _has(results, "test.error", "test.chance_error", "test.examples"):
        of = results["test.examples"]
        right = of - round(results["test.error"] * of)
        found.append(
            f"The classifier reads {right:,} of {of:,} test examples correctly. Always naming the most frequent class "
            f"would get {_rough(results['test.chance_error'])} wrong: that is chance."
        )
    if _has(results, "probe.test_error", "test.chance_error", "test.error"):
        found.append(_probe_finding(results["probe.test_error"], results["test.error"], results["test.chance_error"]))
    if _has(results, "probe.mutual_information_nats", "probe.entropy_nats"):
        bound, entropy = results["probe.mutual_information_nats"], results["probe.entropy_nats"]
        if bound > 0:
            found.append(
                f"As information, the nuisances hold at least {bound:.2f} of the {entropy:.2f} nats that there are to "
                "know about the class."
            )
        else:
            found.append(f"As information, the probe's bound is {bound:.2f} nats: it found nothing about the class.")
    if _has(results, "metamers.logit_change_max", "metamers.pairs"):
        found.append(_metamer_finding(results))
    return found


def _probe_finding(probe: float, own: float, chance: float) -> str:
    start = (
        "The nuisances are everything that the classifier does not look at. A fresh network that sees nothing else "
        f"gets {_rough(probe)} of the test set wrong. "
    )
    if chance - probe <= 0.1 * chance:
        return start + (
            f"Chance is {_rough(chance)}, so this probe finds hardly anything about the class outside of the logits. A "
            "stronger probe might find more; none can show that there is nothing."
        )
    if probe <= own + 0.02:
        return start + (
            f"The classifier itself gets {_rough(own)} wrong: what makes the class is there a second time, unused. "
            "Exchanging nuisances can change what a picture shows without changing a single logit. This is the "
            "excessive invariance that cross-entropy leaves behind."
        )
    return start + (
        f"Chance is {_rough(chance)} and the classifier itself gets {_rough(own)} wrong: some of what makes the class "
        "is in the logits alone, some of it is also in the nuisances, unused."
    )


def _metamer_finding(results: Mapping[str, Any]) -> str:
    text = (
        f"Each of {results['metamers.pairs']:,} metamers has the logits of one test input and the nuisances of one of "
        "a different class. Run through the classifier again, no logit of theirs differs by more than "
        f"{_scientific(results['metamers.logit_change_max'])}. "
    )
    if _has(results, "metamers.prediction_kept_8bit", "metamers.pixels_out_of_range"):
        text += (
            f"As 8-bit pictures {_rough(results['metamers.prediction_kept_8bit'])} of them keep their predicted class; "
            f"{_rough(results['metamers.pixels_out_of_range'])} of their pixels have to be clipped for that. "
        )
    if _has(results, "metamers.oracle.nuisance_class", "metamers.oracle.logits_class"):
        text += (
            f"An independent oracle gives {_rough(results['metamers.oracle.nuisance_class'])} of them the class of the "
            f"nuisances' donor and {_rough(results['metamers.oracle.logits_class'])} that of the logits' donor. "
        )
    if _has(results, "metamers.pixels_out_of_range"):
        text += "Whether the invariance is excessive is for the eye to judge, on the metamers below."
    return text.strip()


def _groups(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    prefixes = dict.fromkeys(key.split(".")[0] for key in results if "." in key)
    names = {**_GROUPS, **{prefix: prefix.capitalize() for prefix in prefixes if prefix not in _GROUPS}}
    groups = []
    for prefix, name in [*names.items(), ("", "Other")]:
        rows = [
            {"key": key, "value": _number(key, value), "meaning": _meaning(key)}
            for key, value in results.items()
            if (key.split(".")[0] if "." in key else "") == prefix
        ]
        if rows:
            groups.append({"name": name, "rows": rows})
    return groups


def _meaning(key: str) -> str:
    if key in _MEANINGS:
        return _MEANINGS[key]
    if key.endswith("_8bit") and key.removesuffix("_8bit") in _MEANINGS:
        return f"{_MEANINGS[key.removesuffix('_8bit')]}, after rounding to 8 bits"
    if key.startswith("probe.") and key.endswith(".test_error"):
        return f"of the probe '{key.split('.')[1]}'"
    for ending, meaning in (("cross_entropy_nats", "mean −log probability of the label"), ("examples", "how many")):
        if key.endswith(ending):
            return meaning
    return ""


def _number(key: str, value: Any) -> str:
    """A value as a person reads it: fractions in percent, counts grouped, other numbers with four digits."""
    name = key.rpartition(".")[2].removesuffix("_8bit")
    share = name.endswith(("error", "error_low", "error_high", "disagreement")) or name in _SHARES
    if value is None:
        return "not finite"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if share and not key.startswith("numerics."):
        return _percent(value)
    if isinstance(value, int):
        return f"{value:,}" if name != "seed" else str(value)
    return f"{value:.4g}"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f}\u00a0%"


def _rough(fraction: float) -> str:
    return f"{100 * fraction:.1f}\u00a0%"


def _scientific(value: float) -> str:
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}\u00a0×\u00a010{str(int(exponent)).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


def _phrase(text: str, value: Any) -> str:
    return "" if value is None else text.format(value)


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return "–" if value is None else str(value)


def _has(results: Mapping[str, Any], *keys: str) -> bool:
    return all(results.get(key) is not None for key in keys)


def _picture(figure: FigureFile) -> dict[str, Any]:
    try:
        content = figure.path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read the figure {figure.path}: {error.strerror or error}") from error
    if content[:8] != b"\x89PNG\r\n\x1a\n":
        raise DataError(f"expected a PNG, found something else in {figure.path}")
    width = struct.unpack(">I", content[16:20])[0]
    return {
        "title": figure.title,
        "caption": figure.caption,
        # Figures have 150 pixels an inch and a screen about 96; a little larger than life is easier to read.
        "width": round(width * 0.75),
        "data": base64.b64encode(content).decode(),
    }
