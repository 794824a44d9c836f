"""Copies a span of bytes from file to file, as cheaply as the system allows and in constant memory.

Blocks are shared where the file system can do that (a reflink). Otherwise copy_file_range, sendfile, and plain reads
and writes are tried in turn, each continuing where the previous one stopped. On a local disk plain reads and writes
come first if source and target offsets differ within a page: there the kernel would write every page in two halves
(measured on
ext4: 0.25 s of processor time for 0.5 GB, against 0.18 s by a small buffer that is written page by page).

A second thread flushes each piece with `sync_file_range` while the next one is copied: that takes less time than `cp`
and a flush, and neither the flush at the end nor an interrupt has to wait for gigabytes. (Full flushes every 64 MiB
would each commit the file system's journal, with other programs' data in it: on a busy disk that takes three times as
long as the copy.)
"""

from __future__ import annotations

import errno
import os
import struct
import sys
import threading
from collections.abc import Callable
from functools import cache
from types import TracebackType

from edgecal.gguf.spans import Progress, write_all

if sys.platform != "win32":
    import fcntl

__all__ = ["copy_span"]


_Step = Callable[[int, int, int, int], int]  # (source, start, bytes, target) to bytes copied

CALL_BYTES = 1 << 24  # per system call, so that interrupts and progress get a turn
PLAIN_BYTES = 1 << 20
BUFFER_BYTES = 1 << 18  # stays in a processor's cache between reading and writing
WINDOW_BYTES = 1 << 25  # at most two of these are copied and not yet on the disk

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

_FICLONERANGE = 0x4020940D
_SYNC_AND_WAIT = 7  # SYNC_FILE_RANGE_WAIT_BEFORE | _WRITE | _WAIT_AFTER


def copy_span(source: int, start: int, n_bytes: int, target: int, progress: Progress | None = None) -> None:
    """Append `n_bytes` bytes of descriptor `source` from offset `start` at the position of `target`.

    `progress(done, n_bytes)` is called after every piece; all but the last 64 MiB of what is done is on the
    disk. Raises the kernel's OSError; EIO if the source ends too early.
    """
    position = os.lseek(target, 0, os.SEEK_CUR)
    left = _share(source, start, n_bytes, target, position)
    _copy(source, start, left, n_bytes, target, position, progress)
    if left < n_bytes:
        os.lseek(target, position + n_bytes, os.SEEK_SET)
        if progress is not None:
            progress(n_bytes, n_bytes)


def _copy(
    source: int, start: int, n_bytes: int, total: int, target: int, position: int, progress: Progress | None
) -> None:
    copied = sent = 0
    with _Flusher(target) as flusher:
        for step in _steps(source, start, target, position):
            while copied < n_bytes:
                try:
                    moved = step(source, start + copied, min(CALL_BYTES, n_bytes - copied), target)
                except OSError as error:
                    if error.errno in _UNSUPPORTED and step is not _read_and_write:
                        break
                    raise
                if moved == 0:
                    break  # the source ended, or this file system answers 0 instead of an error
                copied += moved
                if copied - sent >= WINDOW_BYTES:
                    flusher.send(position + sent, copied - sent)
                    sent = copied
                if progress is not None:
                    progress(copied, total)
    if copied < n_bytes:
        raise OSError(errno.EIO, f"the source ended {n_bytes - copied} bytes early")


def _steps(source: int, start: int, target: int, position: int) -> tuple[_Step, ...]:
    """The ways of copying, in the order in which they are tried."""
    status = os.fstat(target)
    aligned = (start - position) % (getattr(status, "st_blksize", 0) or PLAIN_BYTES) == 0
    if aligned or not _on_a_disk(os.fstat(source)) or not _on_a_disk(status):
        return _copy_file_range, _sendfile, _read_and_write
    return (_read_and_write,)


def _on_a_disk(status: os.stat_result) -> bool:
    """False for files in memory, and on other machines, which may be able to copy by themselves."""
    return hasattr(os, "major") and os.major(status.st_dev) != 0


def _share(source: int, start: int, n_bytes: int, target: int, position: int) -> int:
    """Lets the target share the source's blocks, from the first whole block on. Returns how many bytes before them are
    left to copy (`n_bytes` where blocks cannot be shared).

    File systems share whole blocks only: the two positions must lie alike in theirs, and the span must reach the
    end of the source, or of a block.
    """
    block = os.fstat(target).st_blksize
    left = -start % block
    if sys.platform != "linux" or (start - position) % block or left >= n_bytes:
        return n_bytes
    # The target may not become longer than what can be read from the source.
    if start + n_bytes > os.fstat(source).st_size:
        return n_bytes
    wanted = struct.pack("=qQQQ", source, start + left, n_bytes - left, position + left)
    try:
        fcntl.ioctl(target, _FICLONERANGE, wanted)
    except OSError:
        return n_bytes  # if the disk is at fault, the copy will report it
    return left


def _copy_file_range(source: int, start: int, n_bytes: int, target: int) -> int:
    if not hasattr(os, "copy_file_range"):
        return 0
    return os.copy_file_range(source, target, n_bytes, offset_src=start)


def _sendfile(source: int, start: int, n_bytes: int, target: int) -> int:
    if not hasattr(os, "sendfile"):
        return 0
    return os.sendfile(target, source, start, n_bytes)


def _read_and_write(source: int, start: int, n_bytes: int, target: int) -> int:
    position, done = os.lseek(target, 0, os.SEEK_CUR), 0
    os.lseek(source, start, os.SEEK_SET)
    buffer = memoryview(bytearray(BUFFER_BYTES))
    with open(source, "rb", buffering=0, closefd=False) as file:
        while done < n_bytes:
            room = BUFFER_BYTES - (position + done) % BUFFER_BYTES  # the next piece begins with a page
            n_read = file.readinto(buffer[: min(room, n_bytes - done)])
            if not n_read:
                break
            write_all(target, buffer[:n_read])
            done += n_read
    return done


class _Flusher:
    """Writes spans of a file out to the disk, one at a time, while the next is copied: preparing the writes costs
    as much processor time as copying does, and the kernel lets another thread do it."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._thread: threading.Thread | None = None
        self._error: OSError | None = None

    def __enter__(self) -> _Flusher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wait()
        if kind is None and self._error is not None:
            raise self._error

    def send(self, start: int, n_bytes: int) -> None:
        """Starts writing a span out once the previous one is on the disk. OSError if the previous one failed."""
        self._wait()
        if self._error is not None:
            raise self._error
        self._thread = threading.Thread(target=self._write_out, args=(start, n_bytes))
        self._thread.start()

    def _wait(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _write_out(self, start: int, n_bytes: int) -> None:
        try:
            _send_to_disk(self._target, start, n_bytes)
        except OSError as error:
            self._error = error


def _send_to_disk(target: int, start: int, n_bytes: int) -> None:
    """Puts this span on the disk: without a full flush where the system allows that, else with one.

    OSError if the disk refuses: the kernel reports that only once.
    """
    sync = _sync_file_range()
    if sync is None:
        os.fsync(target)
        return
    code = sync(target, start, n_bytes, _SYNC_AND_WAIT)
    if code and code not in _UNSUPPORTED:
        raise OSError(code, os.strerror(code))


@cache
def _sync_file_range() -> Callable[[int, int, int, int], int] | None:
    """The system call, answering 0 or an error number; None where the C library does not have it."""
    if sys.platform != "linux":
        return None
    import ctypes

    call = getattr(ctypes.CDLL(None, use_errno=True), "sync_file_range", None)
    if call is None:
        return None
    call.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    call.restype = ctypes.c_int

    def sync(target: int, start: int, n_bytes: int, flags: int) -> int:
        return 0 if call(target, start, n_bytes, flags) == 0 else ctypes.get_errno()

    return sync
