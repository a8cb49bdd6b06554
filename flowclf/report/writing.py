"""Writing report.html. The sentences are here, the layout is in ``report.html.j2``, the meaning of a result is its metric's."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from flowclf.errors import DataError
from flowclf.evaluation.metric import describe, registered_metrics
from flowclf.figures import FigureFile
from flowclf.files import write_text
from flowclf.report.tables import tables
from flowclf.report.terms import GROUPS, number, percent, scientific
from flowclf.training.overfitting import overfitting

_PARTS = ("quarter_", "half_", "")


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
        results: the content of results.json.
        title: title of the page; by default the recipe's name in the results, or the folder's.
        figures: PNG files, which are copied into the report.
        rows: metrics, one row per epoch.
        recipe_text, resolved_text: the recipe as given, and with every default filled in.
        environment: versions, machine and the like, for a table.
        model_text: the network, node by node.
        command: the command that repeats the run in the folder of the report.

    Raises:
        DataError: if a figure cannot be read, or is not a PNG.
    """
    templates = jinja2.FileSystemLoader(Path(__file__).parent)
    environ = jinja2.Environment(loader=templates, autoescape=True, undefined=jinja2.StrictUndefined)
    keys = list(dict.fromkeys(key for row in rows for key in row))
    html = environ.get_template("report.html.j2").render(
        title=title or str(results.get("recipe") or folder.resolve().name),
        subtitle=_subtitle(results),
        cards=_cards(results),
        findings=_findings(results),
        tables=tables(results),
        pictures=[_picture(figure) for figure in figures],
        groups=_groups(results),
        epoch_keys=keys,
        epochs=[[number(key, row[key]) if key in row else "" for key in keys] for row in rows],
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
    phrases = {
        "data.name": "data {}",
        "data.bits": "reduced to {} bits",
        "model.parameters": "{:,} parameters",
        "protocol": "{} evaluation",
        "evaluation.limit": "limited to {:,} test examples",
        "seconds.train": "{:.0f} s of training",
    }
    return " · ".join(phrase.format(results[key]) for key, phrase in phrases.items() if _has(results, key))


def _cards(results: Mapping[str, Any]) -> list[dict[str, str]]:
    """The results whose metrics have a headline, in the order of the groups."""
    shown = [metric for metric in registered_metrics() if metric.headline and _has(results, metric.name)]
    order = [*GROUPS, *(metric.name.split(".")[0] for metric in shown)]
    cards = []
    for metric in sorted(shown, key=lambda metric: order.index(metric.name.split(".")[0])):
        value, note = results[metric.name], describe(metric.name)[1]
        if _has(results, f"{metric.name}_low", f"{metric.name}_high"):
            note += f"; 95 % interval {100 * results[f'{metric.name}_low']:.2f} to {percent(results[f'{metric.name}_high'])}"
        small = metric.unit == "number" and 0 < abs(value) < 1e-2
        shown_value = scientific(value) if small else number(metric.name, value)
        cards.append({"name": metric.headline, "value": shown_value, "note": note})
    return cards


def _findings(results: Mapping[str, Any]) -> list[str]:
    """What the numbers mean, in sentences; only what was measured is mentioned."""
    found = []
    if _has(results, "test.error", "test.chance_error", "test.examples"):
        examples = results["test.examples"]
        right = examples - round(results["test.error"] * examples)
        found.append(
            f"The classifier gets {right:,} of {examples:,} test examples right. Always predicting the most frequent class "
            f"gives an error of {percent(results['test.chance_error'], 1)}: that is chance."
        )
    found += [f"Warning: {sentence}" for sentence in overfitting(results).values()]
    if _has(results, "probe.test_error", "test.chance_error", "test.error"):
        found.append(
            "The nuisances are everything that the classifier ignores. A classifier that is trained afresh on the nuisances alone "
            f"has a test error of {percent(results['probe.test_error'], 1)}. "
            + _verdict(results["probe.test_error"], results["test.error"], results["test.chance_error"])
        )
    if _has(results, "probe.mutual_information_nats", "probe.entropy_nats"):
        bound, entropy = results["probe.mutual_information_nats"], results["probe.entropy_nats"]
        found.append(
            f"The nuisances hold at least {bound:.2f} of the {entropy:.2f} nats of information about the class."
            if bound > 0
            else f"The probe's lower bound on the information about the class is {bound:.2f} nats, which says nothing."
        )
    if _has(results, "probe.saturated", "probe.curve.name", *(f"probe.curve.{part}validation_error" for part in _PARTS)):
        found.append(_curve_finding(results))
    if _has(results, "metamers.logit_change_max", "metamers.pairs"):
        found.append(_metamer_finding(results))
    return found


def _verdict(probe: float, own: float, chance: float) -> str:
    """What the errors of a probe and of the classifier, beside chance, say about the nuisances."""
    errors = f"Chance is {percent(chance, 1)}, and the classifier's own error is {percent(own, 1)}"
    if probe >= 0.9 * chance:
        return (
            f"{errors}: this probe finds hardly anything about the class outside the logits. A stronger probe might find more; "
            "no probe can show that there is nothing."
        )
    if probe > own + 0.02:
        return f"{errors}: the nuisances hold some of the information about the class, the logits hold more."
    if probe < own - 0.02:
        return f"{errors}: the nuisances hold more information about the class than the logits make use of."
    if own > 0.5 * chance:
        return f"{errors}: the nuisances hold about as much information about the class as the logits, and neither holds much."
    return (
        f"{errors}: the information about the class is there a second time, unused. Exchanging nuisances can change what a picture "
        "shows without changing a single logit. This is excessive invariance, as the paper calls it."
    )


def _curve_finding(results: Mapping[str, Any]) -> str:
    """Whether more training examples would help the probes, and what that says about their errors."""
    quarter, half, whole = (percent(results[f"probe.curve.{part}validation_error"], 1) for part in _PARTS)
    text = (
        f"The probe '{results['probe.curve.name']}', the best on validation data, has a validation error of {quarter} after "
        f"training on a quarter of the training examples, {half} on half of them, and {whole} on all. "
    )
    if results["probe.saturated"] == "yes":
        return text + "There is no sign that it would err much less with more examples."
    return text + (
        "It has not saturated: the error still falls. With more examples it would probably err less, and so would a better "
        "attacker, so the nuisances say more about the class than the errors of the probes show."
    )


def _metamer_finding(results: Mapping[str, Any]) -> str:
    found = {key.removeprefix("metamers."): value for key, value in results.items() if key.startswith("metamers.")}
    text = (
        f"Each of {found['pairs']:,} metamers has the logits of one test example and the nuisances of another of "
        "a different class. When the classifier encodes a metamer, no logit changes by more than "
        f"{scientific(found['logit_change_max'])}. "
    )
    if _has(found, "prediction_kept_8bit", "pixels_out_of_range"):
        text += (
            f"As 8-bit pictures {percent(found['prediction_kept_8bit'], 1)} of them keep their predicted class; "
            f"{percent(found['pixels_out_of_range'], 1)} of their pixels are outside the range of images and clipped. "
        )
    if _has(found, "oracle.donor", "oracle.logits"):
        text += (
            f"The oracle labels {percent(found['oracle.donor'], 1)} of them as the donor of the nuisances "
            f"and {percent(found['oracle.logits'], 1)} as the donor of the logits. "
        )
    if _has(found, "adversarial"):
        text += (
            f"{percent(found['adversarial'], 1)} are invariance-based adversarial examples (Definition 3): the oracle's "
            "label changes, the prediction stays. "
        )
    if _has(found, "distance_mean"):
        text += f"The mean distance between a metamer and the donor of its logits is {found['distance_mean']:.3g}. "
    if _has(found, "pixels_out_of_range"):
        text += "Whether the invariance is excessive can be seen in the pictures of metamers below."
    return text.strip()


def _groups(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    groups: dict[str, list[dict[str, str]]] = {prefix: [] for prefix in GROUPS}
    for key in sorted(results, key=lambda key: "." not in key):
        row = {"key": key, "value": number(key, results[key]), "meaning": describe(key)[1]}
        groups.setdefault(key.split(".")[0] if "." in key else "other", []).append(row)
    return [{"name": GROUPS.get(prefix, prefix.capitalize()), "rows": rows} for prefix, rows in groups.items() if rows]


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
    # Figures have 150 pixels per inch and a screen about 96; a little larger is easier to read.
    width = round(0.75 * int.from_bytes(content[16:20]))
    return {"title": figure.title, "caption": figure.caption, "width": width, "data": base64.b64encode(content).decode()}
