"""Every error that edgecal raises on purpose, and the exit code that each one means.

    EdgecalError
    ├── InputError            2   the user's input cannot be used
    ├── ModelError            3   llama.cpp or the native hook failed on a model
    ├── NotIdentifiedError    4   the data do not determine a temperature
    │   └── UnsettledError    4   they do, but nothing shows that it is right, or labels show that it is not
    └── OutputError           5   the result could not be written

A message is one line: it says what is wrong and where, what was expected, what was found, and what to do next.
Any other exception that escapes is a bug and keeps its traceback. Ctrl-C exits with 130. `edgecal.load` warns with
`UnsettledWarning`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = [
    "EdgecalError",
    "InputError",
    "ModelError",
    "NotIdentifiedError",
    "OutputError",
    "UnsettledError",
    "UnsettledWarning",
]

EXIT_INTERRUPTED = 130


class EdgecalError(Exception):
    """Base of all deliberate errors; `exit_code` is the exit status that the command line returns for it."""

    exit_code = 1


class InputError(EdgecalError):
    """A file, an option or a record from the user is wrong or contradicts another."""

    exit_code = 2


class ModelError(EdgecalError):
    """A model could not be run: llama.cpp refused it, aborted or hung, or its graph was not as expected."""

    exit_code = 3


class NotIdentifiedError(EdgecalError):
    """The prompts do not determine a temperature: too few examples, a flat loss, or a minimum at a bound.

    Attributes
    ----------
    warnings: oddities of the pair and the prompts that may be the reason; one line each.
    """

    exit_code = 4

    def __init__(self, message: str, warnings: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.warnings = tuple(warnings)


class UnsettledError(NotIdentifiedError):
    """A temperature or a BaseCal map was found but not written, because it may make the model less honest.

    Attributes
    ----------
    result: the `FitResult` or `ProjectionResult`, with the bracket and the `reasons`, one line each; its `output` is
        None. None if the error does not come from a fit.
    """

    def __init__(self, message: str, warnings: Sequence[str] = (), result: Any = None) -> None:
        super().__init__(message, warnings)
        self.result = result


class UnsettledWarning(UserWarning):
    """The file holds a temperature that edgecal had refused to write (`edgecal fit --unsettled`)."""


class OutputError(EdgecalError):
    """The result could not be written; the previous state of the file is intact."""

    exit_code = 5
