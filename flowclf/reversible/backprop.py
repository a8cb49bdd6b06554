"""The forward run, which stores only its outputs, and the backward run, which inverts and differentiates node by node."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from flowclf.errors import UsageError
from flowclf.nodes import FlowNode
from flowclf.nodes.gradients import gradients
from flowclf.reversible.exactness import declared, is_exact
from flowclf.reversible.plan import Edge, Plan, Step
from flowclf.reversible.state import (
    autocast_modes,
    buffers_as,
    changed_buffers,
    in_autocast,
    modes_as,
    modes_of,
    parameters_as,
    random_state,
    random_state_as,
    watch_buffers,
)

Tensors: TypeAlias = Sequence[Tensor]
Gradients: TypeAlias = Sequence[Tensor | None]
Back: TypeAlias = tuple[Tensors, Gradients, Gradients, Gradients]
"""Inputs of a node, and the gradients with respect to its inputs, conditions and parameters."""


@dataclass
class Note:
    """Record of a forward step for the backward run; numbers are indices into the run's extra saved tensors.

    Attributes:
        kept: the step's inputs, if they are stored instead of recomputed.
        random: the random number generators' states before the step, if it drew random numbers.
        buffers: the buffers that the step changed, (owner, name).
        before: their values before the step; None for a norm's statistics, which do not affect its output in training.
    """

    kept: list[int] = field(default_factory=list)
    random: list[int] = field(default_factory=list)
    buffers: list[tuple[nn.Module, str]] = field(default_factory=list)
    before: list[int | None] = field(default_factory=list)


class Run:
    """One execution of a plan; the only tensors it refers to are the plan's parameters."""

    def __init__(self, plan: Plan, device: torch.device, *, log_det: bool, keep_every: int | None) -> None:
        self.plan = plan
        self.device = device
        self.log_det = log_det
        self.keep_every = keep_every
        self.autocast = autocast_modes(device)
        self.modules = [module for step in plan.steps for module in step.modules]
        self.modes = modes_of(self.modules)
        self.notes: list[Note] = []

    def forward(self, values: Tensors, conditions: Tensors) -> tuple[list[Tensor], Tensor | None, list[Tensor]]:
        """Run forward; return the outputs, the log-determinant, and the extra tensors that the backward run needs."""
        live: dict[Edge, Tensor] = dict(zip(self.plan.sources, values, strict=True))
        extra: list[Tensor] = []
        total: Tensor | float = 0.0
        after = random_state(self.device)
        with in_autocast(self.autocast):
            for step in self.plan.steps:
                inputs = [live.pop(edge) for edge in step.reads]
                own = [conditions[number] for number in step.conditions]
                watched = watch_buffers(step.modules) if step.needed else []
                outputs, jacobian = self._forward(step, inputs, own)
                before, after = after, random_state(self.device)
                note = Note()
                if step.needed:
                    if not all(map(torch.equal, before, after)):
                        note.random = _store(extra, before)
                    for owner, name, old in changed_buffers(watched):
                        note.buffers.append((owner, name))
                        note.before.append(None if old is None else _store(extra, [old])[0])
                    if self._keeps(step, inputs, outputs, own, note, extra):
                        note.kept = _store(extra, inputs)
                self.notes.append(note)
                live.update(zip(step.writes, outputs, strict=True))
                if self.log_det:
                    total = total + jacobian
        results = [_apart(live[edge], values) for edge in self.plan.sinks]
        return results, results[0].new_zeros(len(results[0])) + total if self.log_det else None, extra

    def _forward(self, step: Step, inputs: Tensors, conditions: Tensors) -> tuple[Tensors, Any]:
        if declared(step.module):
            return _call(step, inputs, conditions, rev=self.plan.rev, log_det=self.log_det)
        # A node may use autograd internally, e.g. for its log-determinant, so gradients are enabled. Tensors saved for that are
        # freed with it; a caller's saved-tensor hooks must neither move nor count them.
        with torch.enable_grad(), _unhooked():
            starts = _leaves(inputs, [True] * len(inputs))
            outputs, jacobian = _call(step, starts, conditions, rev=self.plan.rev, log_det=self.log_det)
        return [output.detach() for output in outputs], jacobian.detach() if isinstance(jacobian, Tensor) else jacobian

    def _keeps(self, step: Step, inputs: Tensors, outputs: Tensors, conditions: Tensors, note: Note, extra: Tensors) -> bool:
        """Whether a step's inputs must be stored: because of ``keep_every``, or because its inverse would not recover them."""
        if self.keep_every is not None and step.index and step.index % self.keep_every == 0:
            return True
        if any(value.element_size() < 4 for value in (*inputs, *outputs)):
            return True
        # An inverse may evaluate its subnets in another order, and so draw other random numbers for them.
        if (note.random or any(number is not None for number in note.before)) and not self._goes_back(step):
            return True

        def invert(values: Tensors) -> Tensors:
            with random_state_as(random_state(self.device), self.device):
                return self._inverse(step, values, conditions, note, extra)

        return not is_exact(step.module, inputs, outputs, invert)

    def _goes_back(self, step: Step) -> bool:
        return not self.plan.rev and hasattr(step.module, "backward_step")

    def _inverse(self, step: Step, outputs: Tensors, conditions: Tensors, note: Note, extra: Tensors) -> Tensors:
        with torch.no_grad(), self._as_then(note, extra):
            return _call(step, outputs, conditions, rev=not self.plan.rev, log_det=False)[0]

    @contextmanager
    def _as_then(self, note: Note, extra: Tensors) -> Iterator[None]:
        """Restore the random states and buffers that the step found in the forward run; put the present ones back afterwards."""
        values = [None if number is None else extra[number] for number in note.before]
        with random_state_as([extra[number] for number in note.random], self.device), buffers_as(note.buffers, values):
            yield

    def backward(
        self,
        results: Tensors,
        conditions: Tensors,
        parameters: Tensors,
        extra: Tensors,
        grad_results: Gradients,
        grad_log_det: Tensor | None,
    ) -> list[Tensor | None]:
        """Compute the gradients with respect to values, conditions and parameters, in this order."""
        plan = self.plan
        live: dict[Edge, Tensor] = dict(zip(plan.sinks, results, strict=True))
        grads: dict[Edge, Tensor | None] = dict(zip(plan.sinks, grad_results, strict=True))
        grad_conditions: list[Tensor | None] = [None] * len(conditions)
        grad_parameters: list[Tensor | None] = [None] * len(parameters)
        with modes_as(self.modules, self.modes), in_autocast(self.autocast):
            for step, note in zip(reversed(plan.steps), reversed(self.notes), strict=True):
                # All steps before one that needs no gradient need none either.
                if not step.needed:
                    continue
                outputs = [live.pop(edge) for edge in step.writes]
                grad_outputs = [grads.pop(edge) for edge in step.writes]
                own = [conditions[number] for number in step.conditions]
                with parameters_as(step.sites, parameters) as leaves:
                    inputs, grad_inputs, *of_others = self._backward(
                        step, note, outputs, own, extra, grad_outputs, grad_log_det, list(leaves.values())
                    )
                live.update(zip(step.reads, inputs, strict=True))
                grads.update(zip(step.reads, grad_inputs, strict=True))
                _add(grad_conditions, step.conditions, of_others[0])
                _add(grad_parameters, leaves, of_others[1])
        return [*(grads.get(edge) for edge in plan.sources), *grad_conditions, *grad_parameters]

    def _backward(
        self,
        step: Step,
        note: Note,
        outputs: Tensors,
        conditions: Tensors,
        extra: Tensors,
        grad_outputs: Gradients,
        grad_log_det: Tensor | None,
        parameters: Tensors,
    ) -> Back:
        if not note.kept and self._goes_back(step) and grad_outputs[0] is not None:
            module: Any = step.module
            with self._as_then(note, extra):
                x, grad_x, *others = module.backward_step(outputs[0], conditions, grad_outputs[0], grad_log_det, parameters)
            return [x], [grad_x], *others
        inputs = [extra[number] for number in note.kept] or self._inverse(step, outputs, conditions, note, extra)
        if grad_log_det is None and all(grad is None for grad in grad_outputs):
            return inputs, [None] * len(inputs), [None] * len(conditions), [None] * len(parameters)
        with torch.enable_grad(), self._as_then(note, extra):
            starts = _leaves(inputs, [edge in self.plan.live for edge in step.reads])
            given = _leaves(conditions, [value.requires_grad for value in conditions])
            again, jacobian = _call(step, starts, given, rev=self.plan.rev, log_det=self.log_det)
            pairs = [(value, grad) for value, grad in zip(again, grad_outputs, strict=True) if grad is not None]
            if grad_log_det is not None and isinstance(jacobian, Tensor):
                pairs.append((jacobian.expand(len(grad_log_det)), grad_log_det))
        found = gradients([value for value, _ in pairs], [*starts, *given, *parameters], [grad for _, grad in pairs])
        first, second = len(inputs), len(inputs) + len(conditions)
        return inputs, found[:first], found[first:second], found[second:]


def _unhooked() -> Any:
    # Returning the tensor itself would create a reference cycle with an operation that saves its own output.
    return torch.autograd.graph.saved_tensors_hooks(lambda value: value.detach(), lambda value: value)


def _call(step: Step, values: Tensors, conditions: Tensors, *, rev: bool, log_det: bool) -> tuple[Tensors, Any]:
    """Run a node; return its outputs and log-determinant, 0 if it has none."""
    module = step.module
    if not isinstance(module, FlowNode):
        # Some of FrEIA's nodes write into their inputs, and some take views, which need contiguous memory.
        values = [value.clone(memory_format=torch.contiguous_format) for value in values]
    options: dict[str, Any] = {"c": tuple(conditions)} if step.conditions else {}
    outputs, jacobian = module(tuple(values), rev=rev, jac=log_det, **options)
    return tuple(outputs), 0.0 if jacobian is None else jacobian


def _leaves(values: Tensors, wanted: Sequence[bool]) -> list[Tensor]:
    return [value.detach().requires_grad_(flag) for value, flag in zip(values, wanted, strict=True)]


def _store(extra: list[Tensor], values: Iterable[Tensor]) -> list[int]:
    start = len(extra)
    extra.extend(values)
    return list(range(start, len(extra)))


def _apart(result: Tensor, values: Tensors) -> Tensor:
    """Return a result that shares no memory with the caller's tensors and is not a view."""
    shared = any(result.untyped_storage().data_ptr() == value.untyped_storage().data_ptr() for value in values)
    return result.clone() if shared else result.detach()


def _add(sums: list[Tensor | None], numbers: Iterable[int], terms: Gradients) -> None:
    for number, term in zip(numbers, terms, strict=True):
        present = sums[number]
        sums[number] = present if term is None else term if present is None else present + term


class _Recomputed(torch.autograd.Function):
    """A whole graph as one operation: takes the run, then values, conditions and parameters; returns results, then log_det."""

    @staticmethod
    def forward(ctx: Any, run: Run, conditions: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        first = len(run.plan.sources)
        values, given, parameters = tensors[:first], tensors[first : first + conditions], tensors[first + conditions :]
        results, log_det, extra = run.forward(values, given)
        ctx.run = run
        ctx.counts = [len(results), conditions, len(parameters), len(extra)]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*results, *given, *parameters, *extra)
        ctx.mark_non_differentiable(
            *(result for edge, result in zip(run.plan.sinks, results, strict=True) if edge not in run.plan.live)
        )
        return (*results,) if log_det is None else (*results, log_det)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise UsageError("second derivatives (create_graph=True) need stored activations: use activations 'store'")
        run: Run = ctx.run
        saved = iter(ctx.saved_tensors)
        results, conditions, parameters, extra = ([next(saved) for _ in range(count)] for count in ctx.counts)
        grad_log_det = grads[len(results)] if run.log_det else None
        return None, None, *run.backward(results, conditions, parameters, extra, grads[: len(results)], grad_log_det)


def differentiable(run: Run, values: Tensors, conditions: Tensors) -> tuple[Tensor, ...]:
    """Execute a run as one differentiable operation; return the results and, if requested, the log-determinant."""
    return _Recomputed.apply(run, len(conditions), *values, *conditions, *run.plan.parameters)  # type: ignore[no-untyped-call,no-any-return]
