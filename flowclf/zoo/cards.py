"""Model cards: an entry of the index as Markdown, with the reported results whose metrics are for cards."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from flowclf.evaluation.metric import describe, registered_metrics
from flowclf.zoo.schema import ZooEntry

_TITLES = {
    "metamers": "Metamers: the logits of the upper picture with the nuisances of the lower one",
    "samples": "Samples from the prior, one class per row",
    "planes": "Decision regions in planes",
    "calibration": "Calibration",
}


def model_card(entry: ZooEntry, figures: Sequence[str] = ()) -> str:
    """A model's card in Markdown; ``figures`` are the names of PNG files beside it."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    preprocessing = entry.preprocessing
    depth = f" at {preprocessing.bits} bits" if preprocessing.bits else ""
    shape = " x ".join(map(str, preprocessing.image_shape))
    matches = [metric.match(key) for metric in registered_metrics() if metric.card for key in entry.reported]
    return environment.get_template("card.md.jinja").render(
        entry=entry,
        files=entry.files,
        also=[match.string for match in matches if match and not match["end"] and match.string not in entry.measured],
        figures=[{"file": name, "title": _TITLES.get(Path(name).stem, Path(name).stem)} for name in figures],
        takes=f"{('vectors', 'signals', 'images')[len(preprocessing.image_shape) - 1]} of {shape}{depth}"
        + (f", padded by {preprocessing.pad}" if preprocessing.pad else ""),
        arguments=json.dumps(entry.data.arguments),
        time=_duration(entry.training.seconds),
        number=_number,
        meaning=lambda key: describe(key)[1].replace("|", r"\|"),
    )


def _number(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return "–" if value is None else str(value)
    return f"{value:.6g}" if isinstance(value, int | float) else str(value)


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    return f"{seconds:.0f} seconds" if minutes < 2 else f"{minutes:.0f} minutes" if minutes < 120 else f"{minutes / 60:.1f} hours"
