"""The frames that parent and worker exchange over the worker's stdin and stdout: a length and a pickle.

Pickle is safe here, because both ends are the same installed edgecal.
"""

from __future__ import annotations

import pickle
import struct
from dataclasses import dataclass
from typing import IO, Any

from edgecal.errors import EdgecalError

__all__ = ["Failure", "Request", "Result", "Sign", "read_frame", "write_frame"]

_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class Request:
    """A request to call `function` (`"package.module:name"`) with `argument` and a callable that reports progress."""

    function: str
    argument: Any


@dataclass(frozen=True)
class Sign:
    """A sign of life: a progress value that the function reported."""

    progress: Any


@dataclass(frozen=True)
class Result:
    """The function returned."""

    value: Any


@dataclass(frozen=True)
class Failure:
    """The function raised. `error` is to be raised again in the parent; it is None for a bug, of which only the
    traceback is sent as text (`trace`), because an arbitrary exception may not survive pickling."""

    error: EdgecalError | MemoryError | None
    trace: str


def write_frame(stream: IO[bytes], frame: Request | Sign | Result | Failure) -> None:
    """Writes one frame and flushes."""
    data = pickle.dumps(frame, protocol=pickle.HIGHEST_PROTOCOL)
    stream.write(_LENGTH.pack(len(data)))
    stream.write(data)
    stream.flush()


def read_frame(stream: IO[bytes]) -> Any:
    """Reads one frame; None at the end of the stream, even within a frame."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (size,) = _LENGTH.unpack(head)
    data = stream.read(size)
    if len(data) < size:
        return None
    return pickle.loads(data)
