"""The registry: names from entry points and from the running process, nothing imported before it is asked for."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import flowclf
from flowclf import registry
from flowclf.errors import RegistryError
from flowclf.evaluation import Metric, ProbeKind
from flowclf.nodes import ActNorm, AffineCoupling
from flowclf.registry import Registry, nearest

pytestmark = pytest.mark.usefixtures("scratch_registries")


def entry(name: str, value: str) -> importlib.metadata.EntryPoint:
    return importlib.metadata.EntryPoint(name, value, "flowclf.test")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Registry]:
    """A registry whose entry points are those given."""

    def make(*entries: importlib.metadata.EntryPoint) -> Registry:
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: list(entries))
        return Registry("thing", "flowclf.test")

    return make


@pytest.mark.parametrize("kind", registry.registries)
def test_every_registered_component_loads_and_knows_its_name(kind: str) -> None:
    one = registry.registries[kind]
    assert one.names() == sorted(one.names())
    assert one.names()
    for name in one.names():
        component = one.get(name)
        if kind in ("metrics", "probes"):
            assert all(isinstance(item, Metric | ProbeKind) for item in (component if kind == "metrics" else [component]))
            continue
        assert callable(component)
        assert one.name_of(component) == name
        assert component.__doc__


def test_names_of_the_contract_are_registered() -> None:
    assert {"actnorm", "invertible_conv1x1", "additive_coupling", "affine_coupling", "squeeze", "factor_out"} <= set(
        registry.nodes.names()
    )
    assert {"cross_entropy", "independence_cross_entropy", "factorial_prior_mle"} <= set(registry.losses.names())


@pytest.mark.parametrize(
    ("name", "candidates", "expected"),
    [
        ("widht", ["width", "depth"], "; did you mean 'width'?"),
        ("zzz", ["b", "a"], "; valid are a, b"),
        ("zzz", [], ""),
    ],
)
def test_nearest(name: str, candidates: list[str], expected: str) -> None:
    assert nearest(name, candidates) == expected


def test_unknown_names_raise_with_the_nearest() -> None:
    for function in (registry.nodes.get, registry.nodes.check):
        with pytest.raises(RegistryError, match="unknown node 'afine_coupling'; did you mean 'affine_coupling'"):
            function("afine_coupling")


def test_a_node_of_ones_own_is_used_by_its_name() -> None:
    @registry.nodes.register("halve")
    class Halve(ActNorm):
        """z = x / 2."""

        def __init__(self, dims_in: Any, dims_c: Any = None) -> None:
            super().__init__(dims_in, dims_c)
            nn.init.constant_(self.log_scale, -0.6931471805599453)

    assert "halve" in registry.nodes.names()
    assert registry.nodes.get("halve") is Halve
    assert registry.nodes.name_of(Halve) == "halve"
    clf = flowclf.build_classifier((5,), ["halve", "split_head"], classes=2)
    torch.testing.assert_close(clf(torch.ones(1, 5)).logits, torch.full((1, 2), 0.5))


def test_a_name_is_taken_once() -> None:
    registry.nodes.register("mine")(ActNorm)
    with pytest.raises(RegistryError, match="node 'mine' is already registered"):
        registry.nodes.register("mine")(AffineCoupling)
    with pytest.raises(RegistryError, match="node 'actnorm' is already registered"):
        registry.nodes.register("actnorm")(ActNorm)


def make_class(module: str) -> type:
    return type("Again", (), {"__module__": module, "__qualname__": "Again"})


def test_the_same_definition_may_be_run_again() -> None:
    """As a notebook's cell is; a class of that name from elsewhere is another one."""
    registry.nodes.register("again")(make_class("__main__"))
    second = make_class("__main__")
    registry.nodes.register("again")(second)
    assert registry.nodes.get("again") is second
    with pytest.raises(RegistryError, match="already registered"):
        registry.nodes.register("again")(make_class("elsewhere"))


def test_what_has_no_name_is_replaced_by_itself_alone() -> None:
    first, second = nn.Identity(), nn.Identity()
    registry.nodes.register("object")(first)
    registry.nodes.register("object")(first)
    with pytest.raises(RegistryError, match="already registered"):
        registry.nodes.register("object")(second)


def test_entry_points_are_loaded_when_asked_for(installed: Callable[..., Registry]) -> None:
    one = installed(entry("decoder", "json:JSONDecoder"), entry("missing", "no_such_module:x"), entry("bad", "json:nothing"))
    assert one.names() == ["bad", "decoder", "missing"]
    assert one.get("decoder").__name__ == "JSONDecoder"
    for name in ("missing", "bad"):
        with pytest.raises(RegistryError, match=f"thing '{name}' cannot be loaded from"):
            one.get(name)


def test_a_name_that_two_packages_claim_is_nobodys_and_breaks_nothing_else(installed: Callable[..., Registry]) -> None:
    one = installed(entry("x", "json:loads"), entry("x", "json:dumps"), entry("y", "json:load"))
    assert one.names() == ["x", "y"]
    with pytest.raises(RegistryError, match="'x' is registered twice: by json:loads and by json:dumps"):
        one.get("x")
    assert one.get("y").__name__ == "load"
    with pytest.warns(UserWarning, match="'x' is registered twice"):
        assert [name for name, _ in one.usable()] == ["y"]
    assert installed(entry("x", "json:loads"), entry("x", "json:loads")).get("x").__name__ == "loads"


def test_flowclf_keeps_its_names(installed: Callable[..., Registry]) -> None:
    one = installed(entry("x", "json:loads"), entry("x", "flowclf.files:sha256"))
    assert one.get("x").__name__ == "sha256"


def test_an_entry_point_may_name_a_public_re_export(installed: Callable[..., Registry]) -> None:
    one = installed(entry("decoder", "json:JSONDecoder"))
    assert one.get("decoder").__module__ == "json.decoder"
    assert one.name_of(one.get("decoder")) == "decoder"


def test_without_an_installation_the_error_says_how_to_install(installed: Callable[..., Registry]) -> None:
    with pytest.raises(RegistryError, match=r"no thing is registered at all, because .* not installed; .* pip install"):
        installed().get("x")


def test_what_is_not_registered_has_no_name() -> None:
    assert registry.nodes.name_of(nn.Linear) is None
    assert registry.nodes.name_of(lambda: 0) is None


def test_names_are_known_without_torch() -> None:
    code = (
        "import sys; from flowclf import registry; names = [one.names() for one in registry.registries.values()]; "
        "registry.nodes.check('actnorm'); print(len(names), 'torch' in sys.modules, 'FrEIA' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["11", "False", "False"]
