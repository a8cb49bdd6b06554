"""report.html: the results of a run in one self-contained file.

The sentences are here, the layout is in ``report.html.j2``; what each result means comes from its metric. Everything that comes
from outside is escaped.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from flowclf.errors import DataError
from flowclf.evaluation.metric import registered_metrics
from flowclf.figures import FigureFile
from flowclf.files import write_text
from flowclf.report.tables import tables
from flowclf.report.terms import GROUPS, meaning, number, percent, rough, scientific

_TEMPLATES = Path(__file__).parent


class _Card(NamedTuple):
    name: str
    value: str
    note: str


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
        results: as :func:`flowclf.evaluation.evaluate` gives them, with anything else in results.json.
        title: of the page; by default the recipe's name in the results, or the folder's.
        figures: PNG files; they are copied into the report.
        rows: metrics, one row per epoch.
        recipe_text: the recipe as given.
        resolved_text: the recipe with every default filled in.
        environment: versions, machine, times; a table.
        model_text: the network, node by node.
        command: repeats the run, in the folder of the report.

    Returns:
        The report's path.

    Raises:
        DataError: if a figure cannot be read, or is not a PNG.
    """
    environ = jinja2.Environment(loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined)
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
    parts = [
        _phrase("data {}", results.get("data.name")),
        _phrase("reduced to {} bits", results.get("data.bits")),
        _phrase("{:,} parameters", results.get("model.parameters")),
        _phrase("{} evaluation", results.get("protocol")),
        _phrase("{:.0f} s of training", results.get("seconds.train")),
    ]
    return " · ".join(part for part in parts if part)


def _cards(results: Mapping[str, Any]) -> list[_Card]:
    """The results whose metrics have a headline, in the order of the groups."""
    shown = [metric for metric in registered_metrics() if metric.headline and _has(results, metric.name)]
    order = [*GROUPS, *(metric.name.split(".")[0] for metric in shown)]
    cards = []
    for metric in sorted(shown, key=lambda metric: order.index(metric.name.split(".")[0])):
        value, note = results[metric.name], meaning(metric.name)
        if _has(results, f"{metric.name}_low", f"{metric.name}_high"):
            note += f"; 95 % interval {100 * results[f'{metric.name}_low']:.2f} to {percent(results[f'{metric.name}_high'])}"
        small = metric.unit == "number" and 0 < abs(value) < 1e-2
        cards.append(_Card(metric.headline, scientific(value) if small else number(metric.name, value), note))
    return cards


def _findings(results: Mapping[str, Any]) -> list[str]:
    """What the numbers mean, in sentences; only what was measured is mentioned."""
    found = []
    if _has(results, "test.error", "test.chance_error", "test.examples"):
        examples = results["test.examples"]
        right = examples - round(results["test.error"] * examples)
        found.append(
            f"The classifier gets {right:,} of {examples:,} test examples right. Always predicting the most frequent class "
            f"gives an error of {rough(results['test.chance_error'])}: that is chance."
        )
    if _has(results, "probe.test_error", "test.chance_error", "test.error"):
        found.append(_probe_finding(results["probe.test_error"], results["test.error"], results["test.chance_error"]))
    if _has(results, "probe.mutual_information_nats", "probe.entropy_nats"):
        bound, entropy = results["probe.mutual_information_nats"], results["probe.entropy_nats"]
        if bound > 0:
            found.append(f"The nuisances hold at least {bound:.2f} of the {entropy:.2f} nats of information about the class.")
        else:
            found.append(f"The probe's lower bound on the information is {bound:.2f} nats: it found nothing about the class.")
    if _has(results, "metamers.logit_change_max", "metamers.pairs"):
        found.append(_metamer_finding(results))
    return found


def _probe_finding(probe: float, own: float, chance: float) -> str:
    start = (
        "The nuisances are everything that the classifier ignores. A classifier that is trained afresh and sees nothing else "
        f"has a test error of {rough(probe)}. "
    )
    if chance - probe <= 0.1 * chance:
        return start + (
            f"Chance is {rough(chance)}, so this probe finds hardly anything about the class outside the logits. A "
            "stronger probe might find more; no probe can show that there is nothing."
        )
    if own > 0.5 * chance:
        return start + f"The classifier's own error is {rough(own)}: the logits hold less about the class than the nuisances do."
    if probe <= own + 0.02:
        return start + (
            f"The classifier's own error is {rough(own)}: the information about the class is there a second time, unused. "
            "Exchanging nuisances can change what a picture shows without changing a single logit. This is "
            "excessive invariance, as the paper calls it."
        )
    return start + (
        f"Chance is {rough(chance)} and the classifier's own error is {rough(own)}: some of the information about the class "
        "is in the logits alone, some of it is also in the nuisances, unused."
    )


def _metamer_finding(results: Mapping[str, Any]) -> str:
    text = (
        f"Each of {results['metamers.pairs']:,} metamers has the logits of one test example and the nuisances of another of "
        "a different class. When the classifier encodes a metamer, no logit changes by more than "
        f"{scientific(results['metamers.logit_change_max'])}. "
    )
    if _has(results, "metamers.prediction_kept_8bit", "metamers.pixels_out_of_range"):
        text += (
            f"As 8-bit pictures {rough(results['metamers.prediction_kept_8bit'])} of them keep their predicted class; "
            f"{rough(results['metamers.pixels_out_of_range'])} of their pixels are outside the range of images and clipped. "
        )
    if _has(results, "metamers.oracle.donor", "metamers.oracle.logits"):
        text += (
            f"The oracle labels {rough(results['metamers.oracle.donor'])} of them as the donor of the nuisances "
            f"and {rough(results['metamers.oracle.logits'])} as the donor of the logits. "
        )
    if _has(results, "metamers.adversarial"):
        text += (
            f"{rough(results['metamers.adversarial'])} are invariance-based adversarial examples (Definition 3): the oracle's "
            "label changes, the prediction stays. "
        )
    if _has(results, "metamers.distance_mean"):
        text += f"The mean distance between a metamer and the donor of its logits is {results['metamers.distance_mean']:.3g}. "
    if _has(results, "metamers.pixels_out_of_range"):
        text += "Whether the invariance is excessive can be seen in the pictures of metamers below."
    return text.strip()


def _groups(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    prefixes = dict.fromkeys(key.split(".")[0] for key in results if "." in key)
    names = {**GROUPS, **{prefix: prefix.capitalize() for prefix in prefixes if prefix not in GROUPS}}
    groups = []
    for prefix, name in [*names.items(), ("", "Other")]:
        rows = [
            {"key": key, "value": number(key, value), "meaning": meaning(key)}
            for key, value in results.items()
            if (key.split(".")[0] if "." in key else "") == prefix
        ]
        if rows:
            groups.append({"name": name, "rows": rows})
    return groups


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
        # Figures have 150 pixels per inch and a screen about 96; a little larger is easier to read.
        "width": round(width * 0.75),
        "data": base64.b64encode(content).decode(),
    }
