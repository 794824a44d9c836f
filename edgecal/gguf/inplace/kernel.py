"""The Linux calls behind an edit in place: they shift a file's tail without copying it, and tell whether another
process has the file open.

fallocate(2) makes room inside a file or closes a gap, in whole blocks, on ext4 and xfs; other file systems refuse.

The kernel grants a write lease (fcntl(2), F_SETLEASE) only if this descriptor is the file's only open one on the
whole machine; a mapping still counts after its descriptor is closed. A process that opens the file while the lease is
held waits until it is released (at most /proc/sys/fs/lease-break-time, 45 s, so the work must be short), or gets
EWOULDBLOCK if it asked not to wait. A killed process loses its leases.
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

# Errors for a file that cannot be shifted at all, or not by this many bytes; nothing has changed then.
UNSUPPORTED = frozenset(
    {errno.EINVAL, errno.ENODEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.ETXTBSY}
)


def block_bytes(descriptor: int) -> int:
    """The unit by which the file's tail can be shifted, a power of two; 0 where it cannot be."""
    if sys.platform != "linux":
        return 0
    size = os.fstatvfs(descriptor).f_bsize
    return size if size > 0 and size & (size - 1) == 0 else 0


def shift_tail(descriptor: int, offset: int, n_bytes: int) -> None:
    """Moves a file's tail by `n_bytes`: a positive number leaves a hole at `offset`, a negative one drops the bytes
    there.

    Both are in whole blocks. Raises the kernel's OSError; nothing has changed then.
    """
    if n_bytes > 0:
        _fallocate(descriptor, _INSERT_RANGE, offset, n_bytes)
    elif n_bytes < 0:
        _fallocate(descriptor, _COLLAPSE_RANGE, offset, -n_bytes)


def first_hole(descriptor: int, start: int, n_bytes: int) -> int | None:
    """The offset of the first hole of at least `n_bytes` bytes from `start` on; None if there is none."""
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
            start = end  # a hole up to the end
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
    """Whether only this descriptor has the file open; if so, that stays true while the body runs.

    False also where the kernel cannot tell: another system, a network file system, another user's file (unless this is
    root). The descriptor must be open for writing. The body must not open the file by its
    name: this process would wait for itself.
    """
    if sys.platform != "linux":
        yield False
        return
    try:
        # The kernel signals that another process waits: SIGIO would end this one, SIGURG is ignored by default.
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
    """Takes the lease; OSError if the file stays open elsewhere. Retries briefly, since the kernel itself may hold it
    for a moment."""
    for pause_s in _PAUSES_S:
        with contextlib.suppress(BlockingIOError):
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            return
        time.sleep(pause_s)
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
