"""Standard streams that may be closed, full or read by nobody, and text that may hold anything.

Knows nothing of what is printed.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator

from edgecal.errors import OutputError

__all__ = ["open_missing_streams", "printable", "printing", "say"]


def open_missing_streams() -> None:
    """Points standard streams that are closed at the null device, and lets none fail on a character.

    Otherwise the next file to be opened would be taken for standard output, and be printed into.
    """
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass  # a descriptor takes the lowest free number, so this fills the gaps
    os.close(opened)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(descriptor, "w", encoding="utf-8", closefd=False))
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    stderr = sys.stderr
    if isinstance(stderr, io.TextIOWrapper) and stderr is sys.__stderr__:
        # A buffer would keep what a full disk did not take, and the interpreter fail on it when it exits (code 120).
        sys.stderr = io.TextIOWrapper(
            io.FileIO(2, "w", closefd=False),
            encoding=stderr.encoding,
            errors="backslashreplace",
            write_through=True,
        )


def printable(text: str) -> str:
    """The text in one line: whatever does not print (line breaks, terminal controls) as an escape sequence."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )


def say(message: str) -> None:
    """Says one line on stderr, as far as there is anybody to say it to."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"edgecal: {printable(message)}\n")
        sys.stderr.flush()


@contextlib.contextmanager
def printing(note: str = "") -> Iterator[None]:
    """Everything that the body prints to standard output has gone out when it ends.

    Parameters
    ----------
    note: appended to the message if it could not.

    Raises
    ------
    OutputError: standard output cannot be written: its disk is full, or whoever read it has gone.
    """
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        # The interpreter would try the rest again when it exits, and complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OutputError(f"standard output cannot be written to: {error.strerror}{note}") from None
