"""Registries: components by name, one registry per kind.

A component is registered through an entry point, by flowclf as by any other package, or for the running process with
:meth:`Registry.register`. A recipe or a checkpoint can only name registered components; it cannot import anything.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import itertools
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import EntryPoint
from typing import Any, TypeVar

from flowclf.errors import RegistryError

T = TypeVar("T")


def nearest(name: str, candidates: Iterable[str]) -> str:
    """The end of an error message: the nearest valid name, or all of them if none is near.

    Example:
        >>> nearest("widht", ["width", "depth"])
        "; did you mean 'width'?"
    """
    options = sorted(candidates)
    if close := difflib.get_close_matches(name, options, n=1, cutoff=0.6):
        return f"; did you mean '{close[0]}'?"
    return f"; valid are {', '.join(options)}" if options else ""


class Registry:
    """The components of one kind, by name.

    Entry points are read once per process and imported when a component is first used, so that a package whose import fails breaks
    nothing else. A name that two packages claim is not usable, unless one of them is flowclf, which keeps it.

    Args:
        kind: the word for a component in error messages, e.g. ``node``.
        group: the entry-point group, e.g. ``flowclf.nodes``.
        supplied: arguments that the builder of a component passes, which no recipe can give.
    """

    def __init__(self, kind: str, group: str, supplied: Iterable[str] = ()) -> None:
        self.kind = kind
        self.group = group
        self.supplied = frozenset(supplied)
        self._local: dict[str, Any] = {}
        self._entries: dict[str, list[EntryPoint]] | None = None

    def _installed(self) -> dict[str, list[EntryPoint]]:
        """Entry points by name; more than one where packages collide."""
        if self._entries is None:
            entries: dict[str, list[EntryPoint]] = {}
            for entry in importlib.metadata.entry_points(group=self.group):
                same_name = entries.setdefault(entry.name, [])
                if entry.value not in [other.value for other in same_name]:
                    same_name.append(entry)
            own = {name: [e for e in claims if e.module.partition(".")[0] == "flowclf"] for name, claims in entries.items()}
            self._entries = {name: own[name] or claims for name, claims in entries.items()}
        return self._entries

    def names(self) -> list[str]:
        """All registered names, sorted; imports nothing."""
        return sorted({*self._installed(), *self._local})

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator: register a component for the running process.

        Raises:
            RegistryError: if the name belongs to another component.
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
        """Raise RegistryError if ``name`` is not registered, with the nearest valid name; imports nothing."""
        if name in self._local or name in self._installed():
            return
        if not self.names():
            raise RegistryError(
                f"unknown {self.kind} '{name}': no {self.kind} is registered at all, because the package flowclf is not installed; "
                "install it with: pip install -e PATH-TO-FLOWCLF"
            )
        raise RegistryError(f"unknown {self.kind} '{name}'{nearest(name, self.names())}")

    def get(self, name: str) -> Any:
        """The component with that name; its module is imported if necessary.

        Raises:
            RegistryError: if the name is not registered, if two packages claim it, or if its package cannot be imported.
        """
        self.check(name)
        if name in self._local:
            return self._local[name]
        entry, *others = self._installed()[name]
        if others:
            claims = " and by ".join(_origin(claim) for claim in (entry, *others))
            raise RegistryError(f"{self.kind} '{name}' is registered twice: by {claims}; uninstall one of them")
        try:
            return entry.load()
        except Exception as error:
            raise RegistryError(f"{self.kind} '{name}' cannot be loaded from {_origin(entry)}: {error}") from error

    def usable(self, *first: str) -> Iterator[tuple[str, Any]]:
        """Names and components, those in ``first`` first; what cannot be loaded is left out, with a warning."""
        for name in sorted(self.names(), key=lambda name: (first.index(name) if name in first else len(first), name)):
            try:
                yield name, self.get(name)
            except RegistryError as error:
                warnings.warn(f"{error}; it is left out", stacklevel=3)

    def name_of(self, component: Any) -> str | None:
        """The name under which a class or function is registered, or None."""
        home, installed = _home(component), self._installed().items()
        registered = (name for name, local in self._local.items() if local is component)
        defined = (name for name, claims in installed if home in [(entry.module, entry.attr) for entry in claims])
        # An entry point may name a public re-export rather than the module of the definition.
        exported = (
            name
            for name, (entry, *others) in installed
            if not others and getattr(sys.modules.get(entry.module), entry.attr, None) is component
        )
        return next(itertools.chain(registered, defined, exported), None)


def _origin(entry: EntryPoint) -> str:
    return f"{entry.value} of the package {entry.dist.name}" if entry.dist is not None else entry.value


def _home(component: Any) -> tuple[Any, Any]:
    return getattr(component, "__module__", None), getattr(component, "__qualname__", id(component))


nodes = Registry("node", "flowclf.nodes", supplied=("dims_in", "dims_c", "classes"))
transformers = Registry("transformer", "flowclf.transformers")
subnets = Registry("subnet", "flowclf.subnets", supplied=("channels_in", "channels_out", "context_channels", "size"))
models = Registry("architecture", "flowclf.models")
priors = Registry("prior", "flowclf.priors", supplied=("classes", "nuisances", "logit_mean"))
losses = Registry("loss", "flowclf.losses")
datasets = Registry("data set", "flowclf.datasets")
optimizers = Registry("optimizer", "flowclf.optimizers", supplied=("params",))
schedules = Registry("schedule", "flowclf.schedules", supplied=("total_steps", "steps_per_epoch"))
metrics = Registry("metric", "flowclf.metrics")
probes = Registry("probe", "flowclf.probes")
_ALL = (nodes, transformers, subnets, models, priors, losses, datasets, optimizers, schedules, metrics, probes)
registries = {one.group.removeprefix("flowclf."): one for one in _ALL}
"""By the names of the variables."""
