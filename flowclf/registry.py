"""Names for components: nodes, subnets, architectures, losses, data sets.

A component is registered through an entry point, by flowclf itself and by anyone's package in the same way, or for the
running process with :meth:`Registry.register`. Names are all that a recipe or a checkpoint can use; neither can import.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from flowclf.errors import RegistryError

__all__ = ["Registry", "datasets", "losses", "metrics", "models", "nearest", "nodes", "probes", "registries", "subnets"]

T = TypeVar("T")


def nearest(name: str, candidates: Iterable[str]) -> str:
    """The end of an error message: the nearest valid name, or all of them when none is near.

    Example:
        >>> nearest("widht", ["width", "depth"])
        "; did you mean 'width'?"
    """
    options = sorted(candidates)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; valid are {', '.join(options)}" if options else ""


class Registry:
    """One kind of component by name.

    Args:
        kind: what an error message calls it, e.g. ``node``.
        group: the entry-point group, e.g. ``flowclf.nodes``.
    """

    def __init__(self, kind: str, group: str) -> None:
        self.kind = kind
        self.group = group
        self._local: dict[str, Any] = {}
        self._entries: dict[str, importlib.metadata.EntryPoint] | None = None
        self._twice: dict[str, str] = {}

    def _installed(self) -> dict[str, importlib.metadata.EntryPoint]:
        if self._entries is None:
            entries: dict[str, importlib.metadata.EntryPoint] = {}
            for entry in importlib.metadata.entry_points(group=self.group):
                known = entries.setdefault(entry.name, entry)
                if known.value != entry.value:
                    self._twice[entry.name] = f"by {known.value} and by {entry.value}"
            self._entries = entries
        return self._entries

    def names(self) -> list[str]:
        """All registered names, sorted; imports nothing."""
        return sorted({*self._installed(), *self._local})

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator: register a component for the running process.

        Raises:
            RegistryError: the name is taken by another component.
        """

        def decorator(component: T) -> T:
            # A notebook's cell may be run again.
            taken = self._local.get(name)
            if name in self._installed() or (taken is not None and _home(taken) != _home(component)):
                raise RegistryError(f"{self.kind} '{name}' is already registered")
            self._local[name] = component
            return component

        return decorator

    def check(self, name: str) -> None:
        """Raise RegistryError if ``name`` is not registered, with the nearest valid name, or is so twice; imports nothing."""
        if name not in self._installed() and name not in self._local:
            raise RegistryError(f"unknown {self.kind} '{name}'{nearest(name, self.names())}")
        if name in self._twice:
            raise RegistryError(f"{self.kind} '{name}' is registered twice: {self._twice[name]}")

    def get(self, name: str) -> Any:
        """The component of that name, imported if need be.

        Raises:
            RegistryError: the name is not registered, or its package fails to import.
        """
        self.check(name)
        if name in self._local:
            return self._local[name]
        entry = self._installed()[name]
        try:
            return entry.load()
        except Exception as error:
            raise RegistryError(f"{self.kind} '{name}' cannot be loaded from {entry.value}: {error}") from error

    def usable(self, *first: str) -> Iterator[tuple[str, Any]]:
        """Names and components, those named first, then by name; a warning names each that cannot be loaded, and it is left out."""
        for name in sorted(self.names(), key=lambda name: (first.index(name) if name in first else len(first), name)):
            try:
                yield name, self.get(name)
            except RegistryError as error:
                warnings.warn(f"{error}; it is left out", stacklevel=3)

    def target(self, name: str) -> tuple[str, str] | Any:
        """Where a component comes from, without importing it: (module, attribute), or the object registered in-process."""
        self.check(name)
        if name in self._local:
            return self._local[name]
        entry = self._installed()[name]
        return entry.module, entry.attr

    def name_of(self, component: Any) -> str | None:
        """The name under which a class or function is registered, or None."""
        for name, local in self._local.items():
            if local is component:
                return name
        home = _home(component)
        for name, entry in self._installed().items():
            if (entry.module, entry.attr) == home:
                return name
        return None


def _home(component: Any) -> tuple[Any, Any]:
    return getattr(component, "__module__", None), getattr(component, "__qualname__", id(component))


nodes = Registry("node", "flowclf.nodes")
subnets = Registry("subnet", "flowclf.subnets")
models = Registry("architecture", "flowclf.models")
losses = Registry("loss", "flowclf.losses")
datasets = Registry("data set", "flowclf.datasets")
metrics = Registry("metric", "flowclf.metrics")
probes = Registry("probe", "flowclf.probes")
registries = {
    "nodes": nodes,
    "subnets": subnets,
    "models": models,
    "losses": losses,
    "datasets": datasets,
    "metrics": metrics,
    "probes": probes,
}
