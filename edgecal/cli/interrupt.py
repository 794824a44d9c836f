"""Ctrl-C ends the program within a second, also while native code holds the main thread.

Python delivers a signal between two bytecodes, and compiling a kernel or loading a library can keep it waiting
for longer than a user does. Does not know what is being interrupted.
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
    """From now on, `_GRACE_S` after a Ctrl-C that has not ended the program it ends anyway, with exit code 130.

    A worker process ends with it, and an output file under its final name is never half-written. A
    KeyboardInterrupt that cannot pass through native code (a compiler's callback) is not complained about.
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
    """Waits for the next signal and gives its number as one byte."""
    if os.name == "nt":  # takes nothing but a socket, whose module takes longer to load than all that is here
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
    """Past Python's own streams, whose locks the main thread may hold; a progress bar's cursor is shown again."""
    with contextlib.suppress(OSError):
        os.write(2, (b"\r\x1b[?25h" if os.isatty(2) else b"") + b"edgecal: interrupted\n")
