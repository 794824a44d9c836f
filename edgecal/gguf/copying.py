"""Copying a span of bytes from file to file inside the kernel, in constant memory.

Knows descriptors and offsets only. Tries copy_file_range, then sendfile, then plain reads and writes,
each going on where the one before stopped.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

__all__ = ["Progress", "copy_span", "write_all"]

Progress = Callable[[int, int], None]  # bytes done, bytes in total

CALL_BYTES = 1 << 24  # per system call, so that an interrupt and a progress bar come through
PLAIN_BYTES = 1 << 20
FLUSH_BYTES = 1 << 26  # flushed on the way, so that an interrupt never waits for gigabytes to reach the disk

# What the kernel answers when this pair of files cannot be copied this way.
_UNSUPPORTED = frozenset(
    {
        errno.EINVAL,
        errno.ENOSYS,
        errno.ENOTSOCK,
        errno.EOPNOTSUPP,
        errno.EPERM,
        errno.EXDEV,
    }
)


def copy_span(source: int, start: int, n_bytes: int, target: int, progress: Progress | None = None) -> None:
    """Append `n_bytes` bytes of descriptor `source` from offset `start` at the position of `target`.

    `progress(done, n_bytes)` is called after every piece; all but the last 64 MiB of what is done is on the
    disk. OSError as the kernel gives it; EIO if the source ends before.
    """
    copied = 0
    for step in (_copy_file_range, _sendfile, _read_and_write):
        while copied < n_bytes:
            try:
                moved = step(source, start + copied, min(CALL_BYTES, n_bytes - copied), target)
            except OSError as error:
                if error.errno in _UNSUPPORTED and step is not _read_and_write:
                    break
                raise
            if moved == 0:
                break  # the source ended, or this file system answers 0 instead of an error
            if copied // FLUSH_BYTES != (copied + moved) // FLUSH_BYTES:
                os.fsync(target)
            copied += moved
            if progress is not None:
                progress(copied, n_bytes)
    if copied < n_bytes:
        raise OSError(errno.EIO, f"the source ended {n_bytes - copied} bytes early")


def _copy_file_range(source: int, start: int, n_bytes: int, target: int) -> int:
    if not hasattr(os, "copy_file_range"):
        return 0
    return os.copy_file_range(source, target, n_bytes, offset_src=start)


def _sendfile(source: int, start: int, n_bytes: int, target: int) -> int:
    if not hasattr(os, "sendfile"):
        return 0
    return os.sendfile(target, source, start, n_bytes)


def _read_and_write(source: int, start: int, n_bytes: int, target: int) -> int:
    os.lseek(source, start, os.SEEK_SET)
    data = os.read(source, min(n_bytes, PLAIN_BYTES))
    write_all(target, data)
    return len(data)


def write_all(target: int, data: bytes) -> None:
    """Write every byte; a short write (an interrupt, a limit) is continued."""
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]
