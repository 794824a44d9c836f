"""Reads a GGUF header through a window of bounded size, and checks every length before using it.

Strings are skipped by their lengths, without decoding them; memory does not grow with the header, because the window
moves.

The window is mapped where the kernel guarantees that its bytes can be read. A process that touches a mapped page that
the file no longer has, or that the disk cannot deliver, is killed by SIGBUS. So a stretch is mapped only while

1. a read lease is held (fcntl(2), F_SETLEASE): the kernel grants it if no process has the file open for writing, and
   makes a process that wants to write or truncate it wait until the lease is released;
2. the file is on a file system that no other machine or program changes behind the kernel's back;
3. the kernel has brought the whole stretch into memory (MADV_POPULATE_READ).

Otherwise (files of other users, open for writing, on other machines; old kernels and other systems) the bytes are
read into memory: as fast, and what goes wrong is an error.

Two risks remain: this process is stopped for more than /proc/sys/fs/lease-break-time (45 s) between two steps of a scan
that takes milliseconds while another truncates the file, or a page is dropped from memory right after it was read and
the disk then fails.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from edgecal.errors import InputError
from edgecal.gguf.spans import read_span
from edgecal.gguf.values import ARRAY_HEAD_BYTES, MAX_ARRAY_DEPTH, ValueType, scalar_size

if sys.platform == "linux":
    import fcntl
    import signal

__all__ = [
    "MAX_DECODED_BYTES",
    "MAX_STRINGS",
    "WINDOW_BYTES",
    "BoundedReader",
    "FileIdentity",
    "Window",
    "Windows",
    "damaged",
]

WINDOW_BYTES = 1 << 20

# File systems by the kernel's names. Network and user-space ones (NFS, SMB, 9p, FUSE) are left out: their files can
# become shorter without breaking the lease.
_FILE_SYSTEMS = frozenset({"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "tmpfs", "xfs"})
_MADV_POPULATE_READ = 22  # Linux 5.14; Python 3.11 does not name it

Window = bytes | mmap.mmap


class Windows:
    """Stretches of an open file of `size` bytes, one at a time; `close` ends the last one, not the descriptor.

    The descriptor must be open for reading only.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self._size = size
        self._vouched: bool | None = None  # None: not looked up yet
        self._mapped: mmap.mmap | None = None

    def at(self, position: int) -> tuple[int, Window]:
        """A stretch that holds `WINDOW_BYTES` bytes from `position` on, or all that are left, and the offset at which
        it starts. It is valid until the next call.

        Raises the kernel's OSError; EOFError if the file has become shorter.
        """
        self._unmap()
        if self._vouched is None:
            self._vouched = _leased(self._descriptor) and os.fstat(self._descriptor).st_size >= self._size
        if self._vouched:
            start = position - position % mmap.ALLOCATIONGRANULARITY
            self._mapped = _mapped(self._descriptor, start, min(position + WINDOW_BYTES, self._size))
            if self._mapped is not None:
                return start, self._mapped
        return position, self.read(position, min(WINDOW_BYTES, self._size - position))

    def read(self, position: int, n_bytes: int) -> bytes:
        """A copy of any bytes of the file, bypassing the map. Raises as `at`."""
        found = read_span(self._descriptor, position, position + n_bytes)
        if len(found) < n_bytes:
            raise EOFError
        return found

    def close(self) -> None:
        """Releases map and lease."""
        self._unmap()
        if self._vouched and sys.platform == "linux":
            with contextlib.suppress(OSError):  # the kernel took it away after lease-break-time
                fcntl.fcntl(self._descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        self._vouched = False

    def _unmap(self) -> None:
        if self._mapped is not None:
            self._mapped.close()
            self._mapped = None


def _mapped(descriptor: int, start: int, end: int) -> mmap.mmap | None:
    """The bytes `start`..`end`, mapped and all in memory; None where that cannot be had."""
    if start >= end:
        return None
    try:
        mapped = mmap.mmap(descriptor, end - start, access=mmap.ACCESS_READ, offset=start)
    except (OSError, ValueError):  # no maps here, no address space, or the file is shorter than that
        return None
    try:
        mapped.madvise(_MADV_POPULATE_READ)
    except OSError:
        mapped.close()
        return None
    return mapped


def _leased(descriptor: int) -> bool:
    """Takes a read lease; whether it is held and protects this file."""
    if sys.platform != "linux" or _file_system(descriptor) not in _FILE_SYSTEMS:
        return False
    try:
        # The kernel signals that another process waits: SIGIO would end this one, SIGURG is ignored by default.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError:
        return False
    return True


def _file_system(descriptor: int) -> str | None:
    """The kernel's name of the file system that an open file lies on (proc(5), mountinfo); None if unknown."""
    with contextlib.suppress(OSError, ValueError, LookupError):
        told = Path(f"/proc/self/fdinfo/{descriptor}").read_text("ascii")
        mount = dict(line.split(":", 1) for line in told.splitlines())["mnt_id"].strip()
        for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
            fields = line.split()
            if fields[0].decode("ascii") == mount:
                return fields[fields.index(b"-", 6) + 1].decode("ascii")
    return None


MAX_STRINGS = 1 << 24  # strings and nested arrays in one header; the largest vocabularies have 800k
_LEASE_WAIT_S = 5.0  # an edit in place holds its file for milliseconds
MAX_DECODED_BYTES = 1 << 28  # largest single value that is decoded on request

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """Shows whether a path still holds the bytes that were read: device, inode, size and mtime."""

    device: int
    inode: int
    size: int
    mtime_ns: int

    @staticmethod
    def of(status: os.stat_result) -> FileIdentity:
        return FileIdentity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def damaged(path: Path, problem: str) -> InputError:
    """The error for a header that contradicts itself or its file."""
    return InputError(f"{path}: damaged GGUF header: {problem}; download or convert the file again")


class BoundedReader:
    """Reads a regular file front to back through a window of 1 MiB; a context manager.

    Nothing of the file stays mapped or leased afterwards: an edit in place asks whether anybody has the file mapped,
    and its own reader would count. Within it, this process must not open the file for writing, which would wait for
    its lease.

    `position` is the offset of the next unread byte. Every method that needs bytes raises InputError when
    the file does not have them, and none allocates before that check.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = _open_regular(path)
        status = os.fstat(self.descriptor)
        self.identity = FileIdentity.of(status)
        self.size = status.st_size
        self.position = 0
        self._windows = Windows(self.descriptor, self.size)
        self._window: Window = b""
        self._window_start = 0
        self._strings_left = MAX_STRINGS

    def __enter__(self) -> BoundedReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._window = b""
        self._windows.close()
        os.close(self.descriptor)

    @property
    def remaining(self) -> int:
        """Bytes between `position` and the end of the file."""
        return self.size - self.position

    def head(self, n_bytes: int) -> bytes:
        """The file's first bytes, fewer if it is shorter; leaves `position` alone."""
        return self._read_at(0, min(n_bytes, self.size))

    def take(self, n_bytes: int, what: str) -> bytes:
        """The next `n_bytes` bytes; `what` names them in the error."""
        self._check(n_bytes, what)
        start = self.position - self._window_start
        if not (start >= 0 and start + n_bytes <= len(self._window)):
            if n_bytes >= WINDOW_BYTES:
                data = self._read_at(self.position, n_bytes)
                self.position += n_bytes
                return data
            self._refill()
            start = self.position - self._window_start
        self.position += n_bytes
        return self._window[start : start + n_bytes]

    def skip(self, n_bytes: int, what: str) -> None:
        """Move on without reading."""
        self._check(n_bytes, what)
        self.position += n_bytes

    def u32(self, what: str) -> int:
        return int(_U32.unpack(self.take(4, what))[0])

    def u64(self, what: str) -> int:
        return int(_U64.unpack(self.take(8, what))[0])

    def value_type(self, what: str) -> ValueType:
        """A type tag; InputError for a number that is not one."""
        number = self.u32(what)
        try:
            return ValueType(number)
        except ValueError:
            raise damaged(
                self.path, f"{what} has value type {number}, known are 0 to {max(ValueType)}"
            ) from None

    def skip_value(self, type_: ValueType, what: str) -> tuple[ValueType | None, int]:
        """Move past one value after its tag: (element type or None, number of elements or 1)."""
        if type_ is not ValueType.ARRAY:
            size = scalar_size(type_)
            self.skip(self.u64(what) if size is None else size, what)
            return None, 1
        return self._skip_array(what, MAX_ARRAY_DEPTH)

    def _skip_array(self, what: str, depth: int) -> tuple[ValueType, int]:
        element_type = self.value_type(what)
        count = self.u64(what)
        size = scalar_size(element_type)
        if size is not None:
            self.skip(count * size, what)
            return element_type, count
        least = 8 if element_type is ValueType.STRING else ARRAY_HEAD_BYTES
        if count > self.remaining // least:
            raise damaged(
                self.path,
                f"{what} claims {count} elements, but the file has only {self.remaining} bytes left",
            )
        if count > self._strings_left:
            raise InputError(f"{self.path}: {what} brings the header beyond {MAX_STRINGS} strings: refused")
        self._strings_left -= count
        if element_type is ValueType.STRING:
            self._skip_strings(count, what)
        elif depth <= 1:
            raise damaged(self.path, f"{what} nests arrays more than {MAX_ARRAY_DEPTH} deep")
        else:
            for _ in range(count):
                self._skip_array(what, depth - 1)
        return element_type, count

    def _skip_strings(self, count: int, what: str) -> None:
        """Skip from length to length; this loop is most of the cost of reading a big vocabulary."""
        unpack_length = _U64.unpack_from
        position, size = self.position, self.size
        while count > 0:
            if position + 8 > size:
                self.position = min(position, size)
                self._check(position + 8 - self.position, what)
            self.position = position
            if position < self._window_start or position + 8 > self._window_start + len(self._window):
                self._refill()
            window, base = self._window, self._window_start
            offset, last = position - base, len(window) - 8
            while offset <= last and count > 0:
                offset += 8 + unpack_length(window, offset)[0]
                count -= 1
            position = base + offset
        self.skip(position - self.position, what)

    def _check(self, n_bytes: int, what: str) -> None:
        if n_bytes > self.remaining:
            raise InputError(
                f"{self.path}: truncated or damaged GGUF header: {what} at byte {self.position} "
                f"needs {n_bytes} more bytes, it has {self.remaining}; download or convert the file again"
            )

    def _refill(self) -> None:
        with self._reading():
            self._window_start, self._window = self._windows.at(self.position)

    def _read_at(self, position: int, n_bytes: int) -> bytes:
        with self._reading():
            return self._windows.read(position, n_bytes)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except EOFError:
            raise InputError(f"{self.path}: became shorter while it was read") from None
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read: {error.strerror}") from error


def _open_patiently(path: Path, flags: int) -> int:
    """Opens a file, waiting while an edit in place briefly holds a lease on it."""
    last_s = time.monotonic() + _LEASE_WAIT_S
    while time.monotonic() < last_s:
        with contextlib.suppress(BlockingIOError):
            return os.open(path, flags)
        time.sleep(0.005)
    return os.open(path, flags)


def _open_regular(path: Path) -> int:
    """A descriptor of a regular file; InputError for anything else, without waiting for a pipe."""
    flags = (
        os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    )
    try:
        descriptor = _open_patiently(path, flags)
    except FileNotFoundError:
        if path.is_symlink():
            raise InputError(f"{path}: a symbolic link to a file that does not exist") from None
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{path}: cannot be opened: {reason}") from error
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    kind = "a directory, expected a GGUF file" if stat.S_ISDIR(mode) else "not a regular file"
    raise InputError(f"{path}: {kind}")
