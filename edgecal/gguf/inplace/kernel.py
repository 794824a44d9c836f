"""What an edit in place needs of the Linux kernel: shifting a file's tail without copying it, and telling whether
anybody else has the file open.

fallocate(2) makes room inside a file or closes a gap, in whole blocks, on ext4 and xfs; other file systems say that
they cannot.

The kernel grants a write lease (fcntl(2), F_SETLEASE) only if this descriptor is the file's only open one on the
whole machine; a mapping counts as open also after its descriptor was closed. A process that opens the file while the
lease is held waits until it is given back (at most /proc/sys/fs/lease-break-time, 45 s, so the work must be short),
or gets EWOULDBLOCK if it asked not to wait. A killed process loses its leases.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Iterator

if sys.platform == "linux":
    import fcntl
    import signal

__all__ = ["UNSUPPORTED", "block_bytes", "first_hole", "leased", "shift_tail"]

_COLLAPSE_RANGE = 0x08
_INSERT_RANGE = 0x20

# What the kernel answers where this file cannot be shifted, or not in these units; nothing has changed then.
UNSUPPORTED = frozenset(
    {errno.EINVAL, errno.ENODEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.ETXTBSY}
)


def block_bytes(descriptor: int) -> int:
    """The unit in which the file's tail can be shifted, if it can be: a power of two; 0 where it cannot."""
    if sys.platform != "linux":
        return 0
    size = os.fstatvfs(descriptor).f_bsize
    return size if size > 0 and size & (size - 1) == 0 else 0


def shift_tail(descriptor: int, offset: int, n_bytes: int) -> None:
    """Move all from `offset` on by `n_bytes`: right leaves a hole, left drops the bytes from `offset` on.

    Both in whole blocks. OSError as the kernel gives it; nothing has changed then.
    """
    if n_bytes > 0:
        _fallocate(descriptor, _INSERT_RANGE, offset, n_bytes)
    elif n_bytes < 0:
        _fallocate(descriptor, _COLLAPSE_RANGE, offset, -n_bytes)


def first_hole(descriptor: int, start: int, n_bytes: int) -> int | None:
    """Where the first hole of at least `n_bytes` bytes lies from `start` on; None if there is none."""
    end = os.fstat(descriptor).st_size
    while start < end:
        hole = os.lseek(descriptor, start, os.SEEK_HOLE)
        if hole >= end:
            return None
        try:
            start = os.lseek(descriptor, hole, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            start = end  # nothing but hole up to the end
        if start - hole >= n_bytes:
            return hole
    return None


def _fallocate(descriptor: int, mode: int, offset: int, n_bytes: int) -> None:
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    call = getattr(library, "fallocate64", None) or getattr(library, "fallocate", None)
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    while call(descriptor, mode, offset, n_bytes) != 0:
        code = ctypes.get_errno()
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))


_PAUSES_S = (0.001, 0.002, 0.004, 0.008)


@contextlib.contextmanager
def leased(descriptor: int) -> Iterator[bool]:
    """Whether the file is this descriptor's alone, for as long as the body runs.

    False also where the kernel does not say: another system, a network file system, a file of another user
    (unless this is root). The descriptor must be open for writing. The body must not open the file by its
    name: this process would wait for itself.
    """
    if sys.platform != "linux":
        yield False
        return
    try:
        # A process that waits is announced by a signal: SIGIO would end this one, SIGURG is ignored by default.
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
