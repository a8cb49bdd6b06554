"""Indexes: where they are looked for, in which order; what is refused in them; names, old names and near names."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from servers import BAD_URLS, Server, body, redirect, status
from zoo_cases import NAME, write_zoo, zoo_file

from flowclf import zoo
from flowclf.cli.main import main
from flowclf.errors import CheckpointError, ChecksumError, UnreachableError, UsageError, ZooError
from flowclf.zoo.index import bundled_zoo
from flowclf.zoo.schema import parse_index, relative_path_problem


def entry_changes(**changes: Any) -> Callable[[Any], Any]:
    return lambda document: document["models"][0].update(changes)


def of_weights(**changes: Any) -> Callable[[Any], Any]:
    return lambda document: document["models"][0]["files"]["model.safetensors"].update(changes)


WRONG: dict[str, tuple[Callable[[Any], Any], str]] = {
    "format": (lambda d: d.update(format="zoo"), "format"),
    "version": (lambda d: d.update(version=2), "version"),
    "version as text": (lambda d: d.update(version="1"), "version"),
    "unknown key": (lambda d: d.update(code="import os"), "code"),
    "unknown key of a model": (entry_changes(code="import os"), "models.0.code"),
    "capital": (entry_changes(name="Tiny"), "models.0.name"),
    "dots": (entry_changes(name=".."), "models.0.name"),
    "newline": (entry_changes(name="tiny\n"), "models.0.name"),
    "long": (entry_changes(name="x" * 101), "models.0.name"),
    "model version": (entry_changes(version=0), "models.0.version"),
    "kind": (entry_changes(kind="pickle"), "models.0.kind"),
    "no files": (entry_changes(files={}), "models.0.files"),
    "short hash": (of_weights(sha256="0" * 63), "models.0.files.model.safetensors.sha256"),
    "capital hash": (of_weights(sha256="A" * 64), "models.0.files.model.safetensors.sha256"),
    "no bytes": (of_weights(bytes=0), "models.0.files.model.safetensors.bytes"),
    "many bytes": (of_weights(bytes=2**40), "models.0.files.model.safetensors.bytes"),
    "negative tolerance": (entry_changes(measured={"test.error": {"value": 0.1, "tolerance": -1}}), "tolerance"),
    "a command for a terminal": (entry_changes(description="\x1b[2J"), "control characters, found '\\x1b[2J'"),
    "a command in an argument": (lambda d: d["models"][0]["data"].update(arguments={"\x1b[2J": 1}), "control characters"),
    "depth": (
        lambda d: d["models"][0]["data"].update(arguments={"a": json.loads("[" * 40 + "]" * 40)}),
        "at most 32 nested levels",
    ),
    "nothing measured": (entry_changes(measured={}), "models.0.measured"),
    "twice": (lambda d: d["models"].append(copy.deepcopy(d["models"][0])), "the name 'tiny' is given 2 times"),
    "own alias": (entry_changes(aliases=[NAME]), "the name 'tiny' is given 2 times"),
    "file name": (lambda d: d["models"][0]["files"].update({"../x": d["models"][0]["files"]["README.md"]}), "files"),
}


@pytest.mark.parametrize(("change", "words"), WRONG.values(), ids=WRONG)
def test_what_an_index_must_not_hold(change: Callable[[Any], Any], words: str, document: Any) -> None:
    change(document)
    with pytest.raises(ZooError) as caught:
        parse_index(json.dumps(document), "there.json")
    assert str(caught.value).startswith("there.json: ")
    assert words in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "3", "null", "{", "[" * 100_000, '{"models": 1}', '{"models": [{}]}'])
def test_what_is_no_index(text: str) -> None:
    with pytest.raises(ZooError, match=r"there\.json"):
        parse_index(text, "there.json")
    with pytest.raises(ZooError, match=r"there\.json"):
        parse_index(text.encode() + b"\xff", "there.json")


def test_any_value_wrong_is_refused_or_harmless(document: Any) -> None:
    def places(value: Any, *place: Any) -> Any:
        if place:
            yield place
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, item in items:
            yield from places(item, *place, key)

    refused = 0
    for *above, last in places(document):
        for value in [None, True, -1, 1e400, "\0", "../x", [], {"junk": 1}]:
            broken = copy.deepcopy(document)
            holder = broken
            for key in above:
                holder = holder[key]
            holder[last] = value
            try:
                parse_index(json.dumps(broken), "there.json")
            except ZooError:
                refused += 1
    assert refused > 250


ODD_PATHS = [
    "",
    ".",
    "..",
    "../model.json",
    "tiny/../../model.json",
    "tiny/..",
    "tiny/./model.json",
    "/etc/passwd",
    "//server/share",
    "tiny//model.json",
    "tiny/",
    "\\\\server\\share",
    "tiny\\model.json",
    "C:/model.json",
    "~/model.json",
    ".hidden",
    "tiny/.git",
    "tiny/model.json\n",
    "tiny/\0",
    "tiny/a b",
    "tiny/%2e%2e",
    "tiny/é",
    "-rf",
    "tiny/" + "x" * 101,
    "/".join("a" * 9),
    "tiny/a:b",
    "$HOME/a",
]


@pytest.mark.parametrize("path", ODD_PATHS)
def test_odd_paths_are_refused(path: str) -> None:
    assert relative_path_problem(path) is not None


@pytest.mark.parametrize("path", ["a", "tiny/model.json", "a/b/c-1/d_2/e.f/README.md", "1/2"])
def test_plain_paths_pass(path: str) -> None:
    assert relative_path_problem(path) is None


@pytest.mark.parametrize("path", ODD_PATHS + [url for url in BAD_URLS if ":" in url])
def test_a_file_with_an_odd_name_is_never_asked_for(path: str, server: Server, document: Any, capsys: Any) -> None:
    of_weights(path=path)(document)
    server.behaviours["/index.json"] = body(lambda content: json.dumps(document).encode())
    assert main(["zoo", "download", NAME, "--index", server.url]) == 3
    assert "models.0.files.model.safetensors.path" in capsys.readouterr().err
    assert server.requests == ["/index.json"]


def test_files_may_lie_at_urls(server: Server, document: Any, tmp_path: Path) -> None:
    for name, file in document["models"][0]["files"].items():
        file["path"] = f"{server.url}{NAME}/{name}"
    (tmp_path / "index.json").write_text(json.dumps(document))
    assert zoo.load(NAME, index=tmp_path).classes == 4


def test_an_index_by_https_does_not_lead_to_this_machine(document: Any) -> None:
    from flowclf.zoo.index import _parsed

    of_weights(path="http://127.0.0.1/model.safetensors")(document)
    text = json.dumps(document)
    assert _parsed(text, "there", "http://127.0.0.1/").models
    with pytest.raises(ZooError, match="expected https, found"):
        _parsed(text, "there", "https://example.org/")


# Where it is.


def names(**options: Any) -> list[str]:
    return [entry.name for entry in zoo.list(**options)]


def test_a_folder_a_file_or_an_address(zoo_folder: Path, server: Server) -> None:
    places = [zoo_folder, zoo_folder / "index.json", zoo_folder.as_uri(), f"{zoo_folder.as_uri()}/index.json"]
    for place in [*places, server.url, server.url.rstrip("/"), f"{server.url}index.json"]:
        assert names(index=place) == [NAME]
        assert zoo.load(NAME, index=place).classes == 4


def test_by_default_it_is_the_one_that_travels_with_flowclf() -> None:
    assert names() == [entry.name for entry in parse_index((bundled_zoo() / "index.json").read_text(), "index.json").models]


def test_arguments_before_environment_before_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("argument", "environment", "configured", "by-url"):
        write_zoo(tmp_path / name, name)
    config = tmp_path / "config.toml"
    config.write_text(f'[zoo]\nindex = "{tmp_path}/configured"\n')
    assert names() == ["configured"]
    monkeypatch.setenv("FLOWCLF_ZOO", str(tmp_path / "environment"))
    assert names() == ["environment"]
    assert names(index=tmp_path / "argument") == ["argument"]
    monkeypatch.delenv("FLOWCLF_ZOO")
    config.write_text("")
    monkeypatch.setenv("FLOWCLF_ZOO_URL", (tmp_path / "by-url").as_uri())
    assert names() == ["by-url"]


def test_a_base_address_and_mirrors_serve_what_the_folder_lacks(
    server: Server, zoo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "index.json").write_text((zoo_folder / "index.json").read_text())
    with pytest.raises(UnreachableError, match=r"tiny/model\.json: .*No such file"):
        zoo.load(NAME, index=tmp_path)
    monkeypatch.setenv("FLOWCLF_ZOO_URL", server.url)
    assert zoo.load(NAME, index=tmp_path).classes == 4
    monkeypatch.setenv("FLOWCLF_ZOO_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("FLOWCLF_CACHE", str(tmp_path / "another"))
    with pytest.raises(UnreachableError):
        zoo.load(NAME, index=tmp_path)
    monkeypatch.setenv("FLOWCLF_ZOO_MIRRORS", f"http://127.0.0.1:2/ {zoo_folder}")
    assert zoo.load(NAME, index=tmp_path).classes == 4


def test_the_index_itself_may_come_from_a_mirror(server: Server, zoo_folder: Path) -> None:
    server.behaviours["/index.json"] = status(500)
    with pytest.raises(UnreachableError, match="status 500"):
        zoo.list(index=server.url)
    assert names(index=server.url, mirrors=[str(zoo_folder)]) == [NAME]


@pytest.mark.parametrize(
    "place", ["ftp://127.0.0.1/", "http://example.org/", "https://u:p@example.org/", "https://example.org/?a=b"]
)
def test_addresses_that_are_not_allowed(place: str) -> None:
    for options in ({"index": place}, {"url": place}, {"mirrors": [place]}):
        with pytest.raises(UsageError, match="expected"):
            zoo.list(**options)  # type: ignore[arg-type]


def test_places_that_are_not_there(tmp_path: Path, capsys: Any) -> None:
    for place in (str(tmp_path / "absent"), str(tmp_path), "\0", "x" * 5000):
        with pytest.raises(UsageError, match=r"index\.json"):
            zoo.list(index=place)
    with pytest.raises(UsageError, match="expected a file on this machine"):
        zoo.list(index="file://server/share")
    assert main(["zoo", "list", "--index", "http://127.0.0.1:1/"]) == 3
    assert "http://127.0.0.1:1/index.json cannot be read" in capsys.readouterr().err


def test_an_index_that_is_too_long_or_elsewhere(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.behaviours["/index.json"] = redirect("file:///etc/hostname")
    with pytest.raises(UnreachableError, match="redirected: expected https"):
        zoo.list(index=server.url)
    monkeypatch.setattr("flowclf.zoo.index.MAX_INDEX_BYTES", 1000)
    server.behaviours["/index.json"] = body(lambda content: content * 100)
    with pytest.raises(UnreachableError, match="more than the 1000 bytes"):
        zoo.list(index=server.url)
    with pytest.raises(ZooError, match="more than the 1000 an index may have"):
        zoo.list(index=server.folder)


# Names.


def test_a_near_name_is_offered(zoo_folder: Path, tmp_path: Path, capsys: Any) -> None:
    for command in (["zoo", "info", "tini"], ["zoo", "download", "tini"], ["zoo", "verify", "tini"]):
        assert main([*command, "--index", str(zoo_folder)]) == 2
        assert "there is no model 'tini' in the zoo" in (error := capsys.readouterr().err)
        assert "did you mean 'tiny'?" in error
    (tmp_path / "index.json").write_text('{"models": []}')
    assert main(["zoo", "info", "tini", "--index", str(tmp_path)]) == 2
    assert "the zoo is empty" in capsys.readouterr().err


def test_an_older_name_works_with_a_warning(tmp_path: Path) -> None:
    write_zoo(tmp_path, aliases=["small"])
    with pytest.warns(FutureWarning, match="the model 'small' is called 'tiny' now"):
        assert zoo.info("small", index=tmp_path).name == NAME
    with pytest.warns(FutureWarning):
        assert zoo.load("small", index=tmp_path).classes == 4


# What a hostile zoo can hold.


def test_a_pickle_in_disguise_is_refused_and_does_not_run(tmp_path: Path) -> None:
    """Even where the zoo itself vouches for it with the right hashes."""
    marker = tmp_path / "it ran"

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(marker),)

    write_zoo(tmp_path)
    weights, description = tmp_path / NAME / "model.safetensors", tmp_path / NAME / "model.json"
    torch.save({"prior.mean": Payload()}, tmp_path / "weights.pt")
    for content in (pickle.dumps(Payload()), (tmp_path / "weights.pt").read_bytes()):
        weights.write_bytes(content)
        told = json.loads(description.read_text())
        told["weights"] |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        description.write_text(json.dumps(told))
        sign(tmp_path)
        with pytest.raises(CheckpointError, match="is not a safetensors file"):
            zoo.load(NAME, index=tmp_path)
        assert main(["zoo", "verify", "--index", str(tmp_path)]) == 1
    assert not marker.exists()


def test_a_description_leads_to_no_other_weights(tmp_path: Path) -> None:
    write_zoo(tmp_path)
    description = tmp_path / NAME / "model.json"
    (tmp_path / NAME / "other.safetensors").write_bytes((tmp_path / NAME / "model.safetensors").read_bytes())
    told = json.loads(description.read_text())
    for weights in ({**told["weights"], "file": "other.safetensors"}, None, [], "model.safetensors"):
        description.write_text(json.dumps({**told, "weights": weights}))
        sign(tmp_path)
        with pytest.raises(ChecksumError, match=r"expected weights in model\.safetensors"):
            zoo.load(NAME, index=tmp_path)


def sign(folder: Path) -> None:
    """Put the hashes in the index right."""
    document = json.loads((folder / "index.json").read_text())
    files = document["models"][0]["files"]
    files |= {name: zoo_file(folder / NAME / name, file["path"]) for name, file in files.items()}
    (folder / "index.json").write_text(json.dumps(document))
