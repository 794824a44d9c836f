"""Ctrl-C ends the program within a second, even while native code holds the main thread.

Python handles a signal only between two bytecodes, and compiling a kernel or loading a library can take longer than a
user waits.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

from edgecal.errors import EXIT_INTERRUPTED

__all__ = ["leave_soon_on_interrupt"]

_GRACE_S = 0.7


def leave_soon_on_interrupt() -> None:
    """From now on, if a Ctrl-C has not ended the program after `_GRACE_S`, ends it with exit code 130.

    Worker processes end with it, and no output file is left half-written under its final name. A KeyboardInterrupt that
    is lost in native code, such as a compiler's callback, is not reported.
    """
    receive = _signals()

    def watch() -> None:
        while received := receive():
            if received[0] == signal.SIGINT:
                time.sleep(_GRACE_S)
                _say_so()
                os._exit(EXIT_INTERRUPTED)

    threading.Thread(target=watch, daemon=True).start()
    complain = sys.unraisablehook

    def complain_of_others(lost: sys.UnraisableHookArgs) -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            complain(lost)

    sys.unraisablehook = complain_of_others


def _signals() -> Callable[[], bytes]:
    """A function that waits for the next signal and returns its number as one byte."""
    if os.name == "nt":
        # Only a socket is accepted here. Elsewhere, importing that module would take longer than all of this one.
        import socket

        listening, sending = socket.socketpair()
        sending.setblocking(False)
        signal.set_wakeup_fd(sending.detach(), warn_on_full_buffer=False)
        return lambda: listening.recv(1)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    return lambda: os.read(reading, 1)


def _say_so() -> None:
    """Writes to the descriptor, since the main thread may hold the locks of Python's streams. Also shows the cursor
    again, which a progress bar hides."""
    with contextlib.suppress(OSError):
        os.write(2, (b"\r\x1b[?25h" if os.isatty(2) else b"") + b"edgecal: interrupted\n")
