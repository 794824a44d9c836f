"""Stretches of a file in memory: mapped where the kernel vouches that they can be read, else read.

Knows maps, leases (fcntl(2), F_SETLEASE) and which file systems keep to them; not what lies in the file.

Whoever touches a mapped page that the file no longer has, or that the disk cannot deliver, is killed by SIGBUS. So a
stretch is mapped only while

1. a read lease is held: the kernel grants it if nobody has the file open for writing, and lets who wants to write or
   cut it wait until it is given back;
2. the file lies on a file system that no other machine or program changes behind the kernel's back;
3. the kernel has brought the whole stretch into memory (MADV_POPULATE_READ), or said that it cannot.

Otherwise (files of other users, open for writing, on other machines; old kernels and other systems) the bytes are
read into memory: as fast, and what goes wrong is an error.

What remains: this process was stopped for more than /proc/sys/fs/lease-break-time (45 s) between two steps of a scan
that takes milliseconds while another cuts the file short, or a page was dropped from memory right after it came there
and the disk then fails.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
from pathlib import Path

if sys.platform == "linux":
    import fcntl
    import signal

__all__ = ["WINDOW_BYTES", "Window", "Windows"]

WINDOW_BYTES = 1 << 20

# As the kernel names them. Those of other machines and of programs (NFS, SMB, 9p, FUSE) are not here: their files
# can become shorter without anybody asking for the lease.
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
        self._vouched: bool | None = None  # None: not asked yet
        self._mapped: mmap.mmap | None = None

    def at(self, position: int) -> tuple[int, Window]:
        """A stretch and the offset at which it starts: it holds `WINDOW_BYTES` bytes from `position` on, or all
        that are left. It ends with the next call.

        OSError as the kernel gives it; EOFError if the file is no longer as long as it was.
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
        """A copy of any bytes of the file, past the map. Errors as `at`."""
        parts = []
        os.lseek(self._descriptor, position, os.SEEK_SET)
        while n_bytes > 0:
            part = os.read(self._descriptor, n_bytes)
            if not part:
                raise EOFError
            parts.append(part)
            n_bytes -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Give map and lease back."""
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
    """The bytes `start`..`end`, all in memory; None where they cannot be mapped or not be brought there."""
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
    """Whether a read lease is held from now on, and means something."""
    if sys.platform != "linux" or _file_system(descriptor) not in _FILE_SYSTEMS:
        return False
    try:
        # Who waits is announced by a signal. SIGIO would end the process; SIGURG is ignored unless asked for.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError:
        return False
    return True


def _file_system(descriptor: int) -> str | None:
    """The kernel's name of the file system that an open file lies on (proc(5), mountinfo); None if it is not told."""
    with contextlib.suppress(OSError, ValueError, LookupError):
        told = Path(f"/proc/self/fdinfo/{descriptor}").read_text("ascii")
        mount = dict(line.split(":", 1) for line in told.splitlines())["mnt_id"].strip()
        for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
            fields = line.split()
            if fields[0].decode("ascii") == mount:
                return fields[fields.index(b"-", 6) + 1].decode("ascii")
    return None
