"""Prints text that may contain anything to standard streams that may be closed, full or unread."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator

from edgecal.errors import OutputError

__all__ = ["open_missing_streams", "printable", "printing", "say"]


def open_missing_streams() -> None:
    """Opens closed standard streams on the null device, and lets none fail on a character that it cannot encode.

    Otherwise the next file that is opened would become standard output and be printed into.
    """
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass  # a new descriptor has the lowest free number, so this fills the gaps
    os.close(opened)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(descriptor, "w", encoding="utf-8", closefd=False))
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    stderr = sys.stderr
    if isinstance(stderr, io.TextIOWrapper) and stderr is sys.__stderr__:
        # A buffer would keep what a full disk refused, and the interpreter would fail on it at exit (code 120).
        sys.stderr = io.TextIOWrapper(
            io.FileIO(2, "w", closefd=False),
            encoding=stderr.encoding,
            errors="backslashreplace",
            write_through=True,
        )


def printable(text: str) -> str:
    """The text in one line, with escape sequences for line breaks, terminal controls and other unprintable
    characters."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )


def say(message: str) -> None:
    """Writes one line to stderr; does nothing if stderr is closed or broken."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"edgecal: {printable(message)}\n")
        sys.stderr.flush()


@contextlib.contextmanager
def printing(note: str = "") -> Iterator[None]:
    """Flushes everything that the body prints to standard output.

    Parameters
    ----------
    note: appended to the error message.

    Raises
    ------
    OutputError: standard output cannot be written to: the disk is full, or the reader has gone.
    """
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        # Otherwise the interpreter would try to write the rest again at exit, and complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OutputError(f"standard output cannot be written to: {error.strerror}{note}") from None
