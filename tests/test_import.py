"""Importing: light where no network is needed, and every promised name is there."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

import flowclf

LIGHT = [
    "flowclf",
    "flowclf.errors",
    "flowclf.files",
    "flowclf.registry",
    "flowclf.argument_types",
    "flowclf.settings",
    "flowclf.strict_json",
    "flowclf.recipe.run_folder",
]
HEAVY_PARTS = ("flowclf.zoo.cards", "flowclf.zoo.measuring", "flowclf.recipe.building")
"""What measures, shows or builds models is imported when a model is measured, shown or built."""

HEAVY = ("torch", "torchvision", "FrEIA", "nflows", "matplotlib", "scipy")


def light_modules() -> list[str]:
    """The modules that must not import torch, packages of them in full."""
    import flowclf.component_schema
    import flowclf.recipe
    import flowclf.remote
    import flowclf.zoo

    inner = [
        info.name
        for package in (flowclf.component_schema, flowclf.recipe, flowclf.remote, flowclf.zoo)
        for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
        if info.name not in HEAVY_PARTS
    ]
    return [*LIGHT, "flowclf.recipe", "flowclf.zoo", *inner]


def test_light_modules_import_nothing_heavy() -> None:
    modules = light_modules()
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        f"    heavy = [other for other in {HEAVY!r} if other in sys.modules]\n"
        "    assert not heavy, (name, heavy)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("command", [["--help"], ["recipe", "list"], ["recipe", "show", "mnist"], ["zoo", "list"]], ids=" ".join)
def test_commands_that_only_look_are_light(command: list[str]) -> None:
    code = (
        "import sys; from flowclf.cli.main import main; code = main(sys.argv[1:]); "
        f"heavy = [other for other in {HEAVY!r} if other in sys.modules]; "
        "print(code, heavy, sep='|', file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=True)
    exit_code, heavy = result.stderr.strip().rsplit("\n", 1)[-1].split("|")
    assert (exit_code, heavy) == ("0", "[]")
    assert result.stdout


@pytest.mark.parametrize("name", flowclf.__all__)
def test_public_names_are_there(name: str) -> None:
    assert getattr(flowclf, name) is not None
    assert name in dir(flowclf)


def test_unknown_names_raise_as_any_modules_do() -> None:
    with pytest.raises(AttributeError, match="module 'flowclf' has no attribute 'nothing'"):
        _ = flowclf.nothing
    assert not hasattr(flowclf, "Nothing")


def test_the_version_is_that_of_the_installation() -> None:
    import importlib.metadata

    assert importlib.metadata.version("flowclf") == flowclf.__version__
