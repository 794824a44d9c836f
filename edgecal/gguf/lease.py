"""Telling whether anybody else has a file open or mapped, keeping newcomers out for a moment, and keeping edgecal's
own edits of a file apart.

Knows Linux's leases (fcntl(2), F_SETLEASE) and flock(2). Does not know what is done meanwhile.

The kernel grants a write lease only if this descriptor is the file's only open one on the whole machine; a
mapping counts as open also after its descriptor was closed. Who opens the file while the lease is held waits
until it is given back (at most /proc/sys/fs/lease-break-time, 45 s, so what is done must be short), or is
told EWOULDBLOCK if it does not want to wait. A killed process loses its leases.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from edgecal.errors import InputError

if sys.platform != "win32":
    import fcntl
if sys.platform == "linux":
    import signal

__all__ = ["claimed", "leased", "wait_for_lock"]

_PAUSES_S = (0.001, 0.002, 0.004, 0.008)
WAIT_S = 60.0  # for another edgecal that is editing the file


@contextlib.contextmanager
def leased(descriptor: int) -> Iterator[bool]:
    """Whether the file is this descriptor's alone, for as long as the body runs.

    False also where the kernel does not say: another system, a network file system, a file of another user
    (unless this is root). The descriptor must be open for writing. Nobody may open the file by its name
    inside the body, this process included: it would wait for itself.
    """
    if sys.platform != "linux":
        yield False
        return
    try:
        # Who waits is announced by a signal. SIGIO would end the process; SIGURG is ignored unless asked for.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        _take_lease(descriptor)
    except OSError:
        yield False
        return
    try:
        yield True
    finally:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def _take_lease(descriptor: int) -> None:
    """OSError if somebody else has the file open for longer than a moment, for which the kernel itself may hold it."""
    for pause_s in _PAUSES_S:
        with contextlib.suppress(BlockingIOError):
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            return
        time.sleep(pause_s)
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)


@contextlib.contextmanager
def claimed(descriptor: int, path: Path) -> Iterator[None]:
    """No other edgecal changes or replaces this open file while the body runs; one that wants to waits.

    Whoever edits a file where it is, or puts a new one in its place, holds this lock from its last look at the file
    until it is done, so that of two edits at the same time none is lost without a word. Nothing happens where files
    cannot be locked. InputError as for `wait_for_lock`.
    """
    try:
        wait_for_lock(descriptor, path)
        locked = True
    except OSError:
        locked = False
    try:
        yield
    finally:
        if locked and sys.platform != "win32":
            fcntl.flock(descriptor, fcntl.LOCK_UN)


def wait_for_lock(descriptor: int, path: Path) -> None:
    """Lock an open file as soon as nobody else has; a killed process holds no lock.

    InputError: somebody has it for a minute; `path` is what is being edited. OSError: it cannot be locked.
    """
    if sys.platform == "win32":
        raise OSError("files are not locked here")
    deadline = time.monotonic() + WAIT_S
    while not _try_lock(descriptor):
        if time.monotonic() > deadline:
            raise InputError(
                f"{path}: another process has been editing it for {WAIT_S:.0f} s; try again when it is done"
            )
        time.sleep(0.005)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
