"""Every error that edgecal raises on purpose, and the exit code that each one means.

    EdgecalError
    ├── InputError            2   what the user gave cannot be used
    ├── ModelError            3   llama.cpp or the native hook failed on a model
    ├── NotIdentifiedError    4   the data do not determine a temperature
    │   └── UnsettledError    4   they do, but nothing shows that it is right, or labels show that it is not
    └── OutputError           5   the result could not be written

A message is one line: what is wrong, where, what was expected, what was found, and what to do next.
Anything else that escapes is a bug and keeps its traceback. Ctrl-C exits with 130. `UnsettledWarning` is what
`edgecal.load` warns with.

Knows nothing of the rest of the package.
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
    """Base of all deliberate errors; `exit_code` is what the command line returns for it."""

    exit_code = 1


class InputError(EdgecalError):
    """A file, an option or a record that the user gave is wrong or does not fit the others."""

    exit_code = 2


class ModelError(EdgecalError):
    """A model could not be run: llama.cpp refused, aborted or hung, or its graph was not as expected."""

    exit_code = 3


class NotIdentifiedError(EdgecalError):
    """The prompts do not determine a temperature: too few examples, a flat loss, or a minimum at a bound.

    Attributes
    ----------
    warnings: what was odd about the pair and the prompts, which may be why; one line each.
    """

    exit_code = 4

    def __init__(self, message: str, warnings: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.warnings = tuple(warnings)


class UnsettledError(NotIdentifiedError):
    """A temperature was found, but it may make the model less honest than it is, so it was not written.

    Attributes
    ----------
    result: the `FitResult`, with the temperature, the bracket and the `reasons`, one line each; its `output` is None.
        None if the error is not a fit's.
    """

    def __init__(self, message: str, warnings: Sequence[str] = (), result: Any = None) -> None:
        super().__init__(message, warnings)
        self.result = result


class UnsettledWarning(UserWarning):
    """A file's temperature was written although edgecal had refused it (`edgecal fit --unsettled`)."""


class OutputError(EdgecalError):
    """The result could not be written; the previous state of the file is intact."""

    exit_code = 5
