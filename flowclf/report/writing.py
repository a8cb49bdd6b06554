"""report.html: what a run found, in one file that needs nothing else to be read.

The words are here, the layout is in ``report.html.j2``. Everything that comes from outside is escaped.
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
from flowclf.report.tables import tables
from flowclf.report.terms import GROUPS, meaning, number, percent, rough, scientific

__all__ = ["write_report"]

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
    cards = []
    if _has(results, "test.error"):
        note = "of the test set is misread"
        if _has(results, "test.error_low", "test.error_high"):
            low, high = results["test.error_low"], results["test.error_high"]
            note += f"; 95 % interval {100 * low:.2f} to {percent(high)}"
        cards.append(_Card("Test error", percent(results["test.error"]), note))
    if _has(results, "probe.test_error"):
        note = "of a fresh classifier that sees only the nuisances"
        if _has(results, "probe.test_error_low", "probe.test_error_high"):
            note += f"; 95 % interval {100 * results['probe.test_error_low']:.2f} to {percent(results['probe.test_error_high'])}"
        if _has(results, "test.chance_error"):
            note += f"; chance is {rough(results['test.chance_error'])}"
        cards.append(_Card("Probe error", percent(results["probe.test_error"]), note))
    if _has(results, "metamers.prediction_kept_8bit"):
        note = "of metamers are still read as the logits' donor when saved as 8-bit pictures"
        cards.append(_Card("Metamers kept", percent(results["metamers.prediction_kept_8bit"]), note))
    if _has(results, "metamers.oracle.donor"):
        note = "of metamers show an oracle the class of the nuisances' donor"
        cards.append(_Card("Attack success", percent(results["metamers.oracle.donor"]), note))
    if _has(results, "metamers.adversarial"):
        note = "of metamers keep their prediction while the oracle sees another class (Definition 3)"
        cards.append(_Card("Adversarial", percent(results["metamers.adversarial"]), note))
    if _has(results, "test.bits_per_dim"):
        note = "to code the test set"
        if _has(results, "data.bits"):
            note += f"; {results['data.bits']} without a model"
        cards.append(_Card("Bits/dim", f"{results['test.bits_per_dim']:.3f}", note))
    if _has(results, "numerics.inverse_error_max"):
        note = "largest error of a test input after F and back"
        cards.append(_Card("Inverse error", scientific(results["numerics.inverse_error_max"]), note))
    return cards


def _findings(results: Mapping[str, Any]) -> list[str]:
    """What the numbers say, in sentences; only what was measured is spoken of."""
    found = []
    if _has(results, "test.error", "test.chance_error", "test.examples"):
        of = results["test.examples"]
        right = of - round(results["test.error"] * of)
        found.append(
            f"The classifier reads {right:,} of {of:,} test examples correctly. Always naming the most frequent class "
            f"would get {rough(results['test.chance_error'])} wrong: that is chance."
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
        "The nuisances are everything that the classifier does not look at. A fresh classifier that sees nothing else "
        f"gets {rough(probe)} of the test set wrong. "
    )
    if chance - probe <= 0.1 * chance:
        return start + (
            f"Chance is {rough(chance)}, so this probe finds hardly anything about the class outside of the logits. A "
            "stronger probe might find more; none can show that there is nothing."
        )
    if own > 0.5 * chance:
        return start + f"The classifier itself gets {rough(own)} wrong: the logits say less of the class than the nuisances could."
    if probe <= own + 0.02:
        return start + (
            f"The classifier itself gets {rough(own)} wrong: what makes the class is there a second time, unused. "
            "Exchanging nuisances can change what a picture shows without changing a single logit. This is "
            "excessive invariance, as the paper calls it."
        )
    return start + (
        f"Chance is {rough(chance)} and the classifier itself gets {rough(own)} wrong: some of what makes the class "
        "is in the logits alone, some of it is also in the nuisances, unused."
    )


def _metamer_finding(results: Mapping[str, Any]) -> str:
    text = (
        f"Each of {results['metamers.pairs']:,} metamers has the logits of one test input and the nuisances of one of "
        "a different class. Run through the classifier again, no logit of theirs differs by more than "
        f"{scientific(results['metamers.logit_change_max'])}. "
    )
    if _has(results, "metamers.prediction_kept_8bit", "metamers.pixels_out_of_range"):
        text += (
            f"As 8-bit pictures {rough(results['metamers.prediction_kept_8bit'])} of them keep their predicted class; "
            f"{rough(results['metamers.pixels_out_of_range'])} of their pixels leave the range of images and are clipped for that. "
        )
    if _has(results, "metamers.oracle.donor", "metamers.oracle.logits"):
        text += (
            f"An independent oracle gives {rough(results['metamers.oracle.donor'])} of them the class of the "
            f"nuisances' donor and {rough(results['metamers.oracle.logits'])} that of the logits' donor. "
        )
    if _has(results, "metamers.adversarial"):
        text += (
            f"So {rough(results['metamers.adversarial'])} are invariance-based adversarial examples (Definition 3): the oracle "
            "changes its mind, the prediction stays. "
        )
    if _has(results, "metamers.distance_mean"):
        text += f"On average a metamer lies {results['metamers.distance_mean']:.3g} away from the donor of its logits. "
    if _has(results, "metamers.pixels_out_of_range"):
        text += "Whether the invariance is excessive is for the eye to judge, on the metamers below."
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
        # Figures have 150 pixels an inch and a screen about 96; a little larger than life is easier to read.
        "width": round(width * 0.75),
        "data": base64.b64encode(content).decode(),
    }
