"""The frames that parent and worker exchange: a length and a pickle, over the worker's stdin and stdout.

Both ends are the same installed edgecal, so pickle's trust in its input is warranted.
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
    """Call `function` (`"package.module:name"`) with `argument` and a callable that sends signs of life."""

    function: str
    argument: Any


@dataclass(frozen=True)
class Sign:
    """A sign of life, with whatever the function has to tell about its progress."""

    progress: Any


@dataclass(frozen=True)
class Result:
    """The function returned."""

    value: Any


@dataclass(frozen=True)
class Failure:
    """The function raised. `error` is what to raise again, None for a bug, of which only `trace`, its traceback
    as text, is sent: nobody knows whether any exception survives pickling."""

    error: EdgecalError | MemoryError | None
    trace: str


def write_frame(stream: IO[bytes], frame: Request | Sign | Result | Failure) -> None:
    """Writes one frame and flushes."""
    data = pickle.dumps(frame, protocol=pickle.HIGHEST_PROTOCOL)
    stream.write(_LENGTH.pack(len(data)))
    stream.write(data)
    stream.flush()


def read_frame(stream: IO[bytes]) -> Any:
    """Reads one frame; None at the end of the stream, also within a frame."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (size,) = _LENGTH.unpack(head)
    data = stream.read(size)
    if len(data) < size:
        return None
    return pickle.loads(data)
