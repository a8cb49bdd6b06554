"""Settings: importable without torch, with defaults and descriptions, refused in the words of a recipe."""

from __future__ import annotations

from typing import Any

import pytest

from flowclf import settings
from flowclf.component_schema.sections import Section, check, from_code, keys_of, plain
from flowclf.errors import UsageError

SECTIONS = [one for name, one in vars(settings).items() if name.endswith("Settings")]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_setting_has_a_default_and_a_description(section: type[Section]) -> None:
    assert section.__doc__
    for key, info in keys_of(section).items():
        # A component's name has a default where it is used, such as that of the optimiser in the settings of a training.
        assert not info.is_required() or key == "name", key
        nested = isinstance(info.default, Section | dict)
        assert nested or (info.description or "").endswith("."), key
    if not any(info.is_required() for info in keys_of(section).values()):
        assert check(section, plain(section())) == section()


def test_the_defaults_are_those_of_a_recipe() -> None:
    train = settings.TrainSettings()
    assert (train.epochs, train.gradient_clip, train.ema, train.checkpoint_every_steps) == (10, None, None, None)
    assert (train.optimizer.name, train.optimizer.arguments["lr"], train.schedule.name) == ("adamax", 1e-3, "constant")
    assert (train.precision, train.activations, train.stream, train.cuda_graphs) == ("auto", "store", "float", "auto")
    changes = plain(settings.AugmentSettings())
    changes |= changes.pop("color")
    assert not any(value for key, value in changes.items() if key != "interpolation")
    assert plain(settings.EvaluateSettings()) == {
        "protocol": "quick",
        "oracle": None,
        "probe": {"hidden": [512, 512, 512], "examples": None, "kinds": None},
    }


@pytest.mark.parametrize(
    ("section", "given", "words"),
    [
        (settings.TrainSettings, {"epochs": 0}, r"s\.epochs: Input should be greater than or equal to 1, found 0"),
        (settings.TrainSettings, {"optimizer": {"name": "adamx"}}, r"s\.optimizer\.name: .*did you mean 'adamax'"),
        (settings.TrainSettings, {"schedule": {"name": "step", "peak": 0.1}}, r"s\.schedule\.peak: unknown key 'peak'"),
        (settings.AugmentSettings, {"rotation": 181}, r"s\.rotation: Input should be less than or equal to 180, found 181"),
        (settings.AugmentSettings, {"zoom": 1}, r"s\.zoom: Input should be less than 1, found 1"),
        (settings.ProbeSettings, {"hidden": []}, r"s\.hidden: Value should have at least 1 item"),
        (settings.EvaluateSettings, {"probe": {"hiden": [8]}}, r"s\.probe\.hiden: .*did you mean 'hidden'"),
    ],
)
def test_what_cannot_be_is_refused(section: type[Section], given: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        from_code(section, given, "s")
