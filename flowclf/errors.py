"""Exceptions that flowclf raises for users, with their exit codes on the command line.

A message states what was expected, what was found and where. Any other exception that escapes is a defect of flowclf.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class FlowclfError(Exception):
    """Base class: something went wrong at run time (exit code 1)."""

    exit_code = 1


class UsageError(FlowclfError):
    """A wrong call or command: an invalid argument, a path that does not exist (exit code 2)."""

    exit_code = 2


class RegistryError(UsageError):
    """A name that is not registered, or is registered twice (exit code 2)."""


class GraphError(UsageError):
    """A graph that is not a classifier's: shapes that do not fit, an output used twice or not at all (exit code 2)."""


class DataError(FlowclfError):
    """Data that cannot be read or are not as expected (exit code 1)."""


class CheckpointError(FlowclfError):
    """A checkpoint or run directory that cannot be written, read or rebuilt (exit code 1)."""


class ChecksumError(FlowclfError):
    """A file whose SHA-256 is not the expected one (exit code 3)."""

    exit_code = 3


class UnreachableError(FlowclfError):
    """A download or file that cannot be reached (exit code 3)."""

    exit_code = 3


class ZooError(FlowclfError):
    """A zoo with an invalid index, or an index with forbidden file paths (exit code 3)."""

    exit_code = 3


class VerificationError(FlowclfError):
    """A model whose measured results differ from those in its run or card (exit code 1)."""


class NonFiniteLossError(FlowclfError):
    """Training stopped because a term of the loss or the gradient is not finite (exit code 1)."""


class ProcessError(FlowclfError):
    """A process of a distributed training ended before the others (exit code 1, or that of the process).

    Args:
        message: which process, and how it ended.
        exit_code: the process's own, if it has one.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class GridOverflowError(FlowclfError):
    """A fixed-point stream left its grid, so that it can no longer be inverted exactly (exit code 1)."""


class InterruptedRunError(FlowclfError):
    """A run was stopped by a signal after saving its state (exit code 128 + signal number).

    Args:
        message: how far the run got, and how to resume it.
        signum: number of the signal, 2 for SIGINT, 15 for SIGTERM.
    """

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signum


@dataclass(frozen=True)
class Problem:
    """One error in a recipe.

    Attributes:
        message: what was expected and what was found.
        location: the dotted key, e.g. ``train.epochs``; empty for the whole document.
        line: line in the file, from 1; 0 if there is none (a value from ``--set``).
        column: column in the line, from 1; 0 if there is none.
    """

    message: str
    location: str = ""
    line: int = 0
    column: int = 0


class RecipeError(UsageError):
    """An invalid recipe, with all its errors (exit code 2).

    Args:
        source: name of the file.
        problems: at least one error, in the order of the file.
    """

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        super().__init__("\n".join(self._line(problem) for problem in self.problems))

    def _line(self, problem: Problem) -> str:
        place = f"{self.source}:{problem.line}:{problem.column}" if problem.line else self.source
        key = f"{problem.location}: " if problem.location else ""
        return f"{place}: {key}{problem.message}"
