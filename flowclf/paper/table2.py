"""Table 2 of the paper beside the results of two runs; the command is ``flowclf paper table2``.

A run is a run directory, or a file with the output of ``flowclf evaluate RUN --protocol full --oracle RUN --json``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

PAPER: Mapping[str, tuple[str, str]] = {
    "test.error": ("0.39 %", "0.38 %"),
    "train.error": ("0.00 %", "0.37 %"),
    "probe.test_error": ("0.34 %", "27.70 %"),
    "probe.train_error": ("0.00 %", "40.21 %"),
}


def share(results: Mapping[str, Any], key: str) -> str:
    """Format a fraction in percent, with its interval if there is one."""
    value, low, high = (results.get(f"{key}{end}") for end in ("", "_low", "_high"))
    if value is None:
        return "–"
    interval = f" ({100 * low:.2f} to {100 * high:.2f})" if low is not None and high is not None else ""
    return f"{100 * value:.2f} %{interval}"


def number(form: str) -> Callable[[Mapping[str, Any], str], str]:
    """Make a function that formats a result with a format specification."""
    return lambda results, key: "–" if results.get(key) is None else format(results[key], form)


ROWS: Sequence[tuple[str, str, Callable[[Mapping[str, Any], str], str]]] = (
    ("error of the logits, test", "test.error", share),
    ("error of the logits, training", "train.error", share),
    ("error of a probe on the nuisances, test", "probe.test_error", share),
    ("error of a probe on the nuisances, training", "probe.train_error", share),
    ("I(class; nuisances) at least, nats", "probe.mutual_information_nats", number(".3f")),
    ("metamers that show the donor's class (attack success)", "metamers.oracle.donor", share),
    ("metamers that show the logits' class", "metamers.oracle.logits", share),
    ("attack success, saved at 8 bits", "metamers.oracle.donor_8bit", share),
    ("prediction kept, saved at 8 bits", "metamers.prediction_kept_8bit", share),
    ("bits/dim", "test.bits_per_dim", number(".3f")),
    ("largest inverse error", "numerics.inverse_error_max", number(".1e")),
)


def about(results: Mapping[str, Any]) -> str:
    """Describe a column: recipe, seed, parameters, bits, protocol."""
    phrases = {
        "recipe": "recipe {}",
        "seed": "seed {}",
        "model.parameters": "{:,} parameters",
        "data.bits": "{} bits",
        "protocol": "protocol {}",
        "evaluation.limit": "limited to {} test examples",
        "probe.name": "probe {}",
    }
    known = {"protocol": "unknown", **results}
    return ", ".join(phrase.format(known[key]) for key, phrase in phrases.items() if key in known)


def table(ce: Mapping[str, Any], ice: Mapping[str, Any]) -> str:
    """Format the table as Markdown."""
    lines = ["| | CE, paper | CE, here | iCE, paper | iCE, here |", "|---|---|---|---|---|"]
    for words, key, written in ROWS:
        paper_ce, paper_ice = PAPER.get(key, ("–", "–"))
        lines.append(f"| {words} | {paper_ce} | {written(ce, key)} | {paper_ice} | {written(ice, key)} |")
    chance, oracle = share(ice, "test.chance_error"), share(ice, "metamers.oracle.test_error")
    note = (
        f"CE: {about(ce)}. iCE: {about(ice)}. Chance is {chance}; the oracle's error is {oracle}. 95 % intervals are in brackets."
    )
    return "\n".join([*lines, "", note])
