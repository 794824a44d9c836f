"""Making room inside a file, or closing a gap, without copying what lies behind: fallocate(2) on Linux.

Knows descriptors, offsets and blocks. ext4 and xfs can do it, in whole blocks; others say that they cannot.
"""

from __future__ import annotations

import errno
import os
import sys

__all__ = ["UNSUPPORTED", "block_bytes", "first_hole", "shift_tail"]

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
