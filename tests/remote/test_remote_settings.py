"""Settings: from arguments, the environment and a file, read at each call; what cannot be meant says where it comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import platformdirs
import pytest

from flowclf.errors import UsageError
from flowclf.remote.settings import settings

pytestmark = pytest.mark.usefixtures("no_settings")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLOWCLF_CACHE")
    found = settings({})
    assert (found.index, found.url, found.mirrors, found.offline, found.timeout) == (None, None, (), False, 30.0)
    assert found.cache == Path(platformdirs.user_cache_dir("flowclf")) / "zoo"


def test_each_setting_from_each_source(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLOWCLF_CACHE")
    config.write_text(
        '[zoo]\nindex = "i"\nurl = "u"\nmirrors = ["a", "b"]\ncache = "c"\noffline = true\ntimeout = 3\n[other]\nkey = 1\n'
    )
    found = settings({})
    assert (found.index, found.url, found.mirrors, found.offline, found.timeout) == ("i", "u", ("a", "b"), True, 3.0)
    assert found.cache == Path("c/zoo")
    for name, value in {
        "ZOO": "i2", "ZOO_URL": "u2", "ZOO_MIRRORS": "a2\n b2 c2", "CACHE": "c2", "OFFLINE": "0", "TIMEOUT": "4.5"
    }.items():  # fmt: skip
        monkeypatch.setenv(f"FLOWCLF_{name}", value)
    found = settings({})
    assert (found.index, found.url, found.mirrors, found.offline, found.timeout) == ("i2", "u2", ("a2", "b2", "c2"), False, 4.5)
    assert found.cache == Path("c2/zoo")
    found = settings({"index": "i3", "url": "u3", "mirrors": ["a3"], "cache": "c3", "offline": True, "timeout": 5})
    assert (found.index, found.url, found.mirrors, found.offline, found.timeout) == ("i3", "u3", ("a3",), True, 5.0)
    assert found.cache == Path("c3/zoo")
    # What is None was not given.
    assert settings({"index": None, "offline": None}).index == "i2"


def test_the_platforms_file_is_read_where_no_other_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLOWCLF_CONFIG")
    monkeypatch.setattr(platformdirs, "user_config_dir", lambda name: str(tmp_path / "of-platform"))
    assert settings({}).index is None
    (tmp_path / "of-platform").mkdir()
    (tmp_path / "of-platform" / "config.toml").write_text('[zoo]\nindex = "here"\n')
    assert settings({}).index == "here"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[zoo", "is not TOML"),
        ("zoo = 3", "expected a table"),
        ('[zoo]\nindx = "a"', "did you mean 'index'?"),
        ("[zoo]\nindex = 3", "zoo.index: expected text, found 3"),
        ("[zoo]\noffline = 1", "zoo.offline: expected true or false"),
        ("[zoo]\ntimeout = true", "zoo.timeout: expected a positive number of seconds, found True"),
        ("[zoo]\nmirrors = [1]", "zoo.mirrors: expected a list of text"),
        ("[zoo]\nmirrors = 'a'", "zoo.mirrors: expected a list of text"),
    ],
)
def test_a_file_that_is_wrong(text: str, words: str, config: Path) -> None:
    config.write_text(text)
    with pytest.raises(UsageError) as caught:
        settings({})
    assert words in str(caught.value)
    assert str(config) in str(caught.value)


def test_a_file_that_is_named_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWCLF_CONFIG", str(tmp_path / "absent.toml"))
    with pytest.raises(UsageError, match=r"FLOWCLF_CONFIG: there is no file .*absent\.toml"):
        settings({})
    monkeypatch.setenv("FLOWCLF_CONFIG", str(tmp_path))
    with pytest.raises(UsageError, match="cannot be read"):
        settings({})


def test_values_that_cannot_be_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong: list[Any] = [{"timeout": 0}, {"timeout": -1.0}, {"timeout": float("nan")}, {"timeout": float("inf")}, {"timeouts": 1}]
    for options in wrong:
        with pytest.raises(UsageError, match="timeout"):
            settings(options)
    monkeypatch.setenv("FLOWCLF_TIMEOUT", "soon")
    with pytest.raises(UsageError, match="found 'soon'"):
        settings({})
    monkeypatch.delenv("FLOWCLF_TIMEOUT")
    monkeypatch.setenv("FLOWCLF_OFFLINE", "maybe")
    with pytest.raises(UsageError, match="FLOWCLF_OFFLINE: expected true or false, found 'maybe'"):
        settings({})
    for text, expected in {"1": True, "TRUE": True, "on": True, "0": False, "No": False, "": False}.items():
        monkeypatch.setenv("FLOWCLF_OFFLINE", text)
        assert settings({}).offline is expected
