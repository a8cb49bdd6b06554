"""Every exception that flowclf raises for a user's sake, with the exit code that the command line gives it.

A message says what was expected, what was found and where. Anything else that escapes is a defect of flowclf.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "CheckpointError",
    "ChecksumError",
    "DataError",
    "FlowclfError",
    "GraphError",
    "GridOverflowError",
    "InterruptedRunError",
    "NonFiniteLossError",
    "Problem",
    "RecipeError",
    "RegistryError",
    "UnreachableError",
    "UsageError",
    "VerificationError",
    "ZooError",
]


class FlowclfError(Exception):
    """Base class: something went wrong at run time (exit code 1)."""

    exit_code = 1


class UsageError(FlowclfError):
    """A call or a command that cannot be right: a wrong argument, a path that is not there (exit code 2)."""

    exit_code = 2


class RegistryError(UsageError):
    """A name that is not registered, or is registered twice (exit code 2)."""


class GraphError(UsageError):
    """A graph that is not a classifier: shapes that do not fit, an output used twice or not at all (exit code 2)."""


class DataError(FlowclfError):
    """Data that cannot be read or do not hold what they should (exit code 1)."""


class CheckpointError(FlowclfError):
    """A checkpoint or run directory that cannot be written, read or rebuilt (exit code 1)."""


class ChecksumError(FlowclfError):
    """A file whose SHA-256 is not the expected one (exit code 3)."""

    exit_code = 3


class UnreachableError(FlowclfError):
    """A download or file that cannot be reached (exit code 3)."""

    exit_code = 3


class ZooError(FlowclfError):
    """A zoo whose index is invalid, or names files where they must not be (exit code 3)."""

    exit_code = 3


class VerificationError(FlowclfError):
    """A model that does not measure what its run or its card says (exit code 1)."""


class NonFiniteLossError(FlowclfError):
    """Training stopped because a term of the loss, or the gradient, is not finite (exit code 1)."""


class GridOverflowError(FlowclfError):
    """A stream in fixed point left its grid, so that it cannot be inverted exactly any more (exit code 1)."""


class InterruptedRunError(FlowclfError):
    """A run was stopped by a signal after it had saved its state (exit code 128 + signal number).

    Args:
        message: what was saved, and how to go on.
        signum: the number of the signal, 2 for SIGINT, 15 for SIGTERM.
    """

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signum


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a recipe.

    Attributes:
        message: what was expected and what was found.
        location: the dotted key, e.g. ``train.epochs``; empty for the whole document.
        line: line in the file, from 1; 0 where there is none (a value given by ``--set``).
        column: column in the line, from 1; 0 where there is none.
    """

    message: str
    location: str = ""
    line: int = 0
    column: int = 0


class RecipeError(UsageError):
    """All that is wrong with a recipe, at once (exit code 2).

    Args:
        source: name of the file.
        problems: at least one problem, in the order of the file.
    """

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        super().__init__("\n".join(self._line(problem) for problem in self.problems))

    def _line(self, problem: Problem) -> str:
        place = f"{self.source}:{problem.line}:{problem.column}" if problem.line else self.source
        key = f"{problem.location}: " if problem.location else ""
        return f"{place}: {key}{problem.message}"
