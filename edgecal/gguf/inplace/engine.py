"""Edits a file in place: it keeps its name, and at every moment holds the old bytes or the new ones.

It takes the first way that is possible:

1. All bytes that change lie in one 512-byte sector (a value of fixed size, or two beside each other): one
   write. Neither a kill nor a power cut can tear it: the kernel looks for signals between pages, and disks
   write whole sectors. A program that has the file open or mapped sees the old value or the new.
2. The tensor data stay where they are: the spans of the header that change are written, with a journal.
3. The tensor data move by whole blocks, which the file system does by itself (`kernel`), with a journal.
4. A new file is written and replaces the old one (`write_edited`).

2 and 3 require that no other process has the file open or mapped (`leased`), because a reader would see a mixture;
after 4 such a reader keeps the old file.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from edgecal.errors import InputError, OutputError
from edgecal.gguf.bounded_reader import FileIdentity
from edgecal.gguf.draft import claimed, output_errors, path_identity, remove_stale
from edgecal.gguf.header import FILLER_KEY, Header
from edgecal.gguf.inplace.journal import journaled, recover
from edgecal.gguf.inplace.kernel import UNSUPPORTED, leased
from edgecal.gguf.inplace.layout import header_after, lay_out, patch_for
from edgecal.gguf.inplace.patch import Patch, Span, carry_out, take_back, write_spans
from edgecal.gguf.output import check_editable
from edgecal.gguf.rewrite import write_edited
from edgecal.gguf.spans import Progress, read_exactly
from edgecal.gguf.values import Value

__all__ = ["edit_in_place"]

SECTOR_BYTES = 512
_CLOCK_STEPS_NS = (1, 1_000_000_000, 2_000_000_000)  # of timestamps in ext4, ext3 and FAT


def edit_in_place(
    source: Header,
    changes: Mapping[str, Value],
    remove: Collection[str] = (),
    *,
    progress: Progress | None = None,
) -> Header:
    """Sets `changes` and removes the keys `remove` in the file that `source` was read from; returns its new header.

    Keys keep their places and new ones follow the last, as for `write_edited`; `edgecal.filler` may be added after
    them, unless it is in `remove`. The tensor data and what follows them stay byte for byte. If nothing changes, the
    file is not touched.

    A kill at any moment leaves the old file, the new one, or one that `recover` makes whole; after an error
    it is the old one. `progress` is called only where the file must be copied.

    InputError: as `check_editable`; for names and values, as `write_edited`; or the file has changed since it was read.
        OutputError: the file is read-only, or the file system refuses.
    """
    if FILLER_KEY in changes:
        raise InputError(f"{FILLER_KEY} is edgecal's own and cannot be set; it can be removed")
    check_editable(source.path)
    recover(source.path)
    with contextlib.suppress(OSError):  # a folder that cannot be listed
        remove_stale(source.path)
    edited = _edited_where_it_is(source, changes, remove) if sys.platform != "win32" else None
    if edited is not None:
        return edited
    without_filler = {*remove, FILLER_KEY}
    return write_edited(source, source.path, changes=changes, remove=without_filler, progress=progress)


def _edited_where_it_is(
    source: Header, changes: Mapping[str, Value], remove: Collection[str]
) -> Header | None:
    """The new header; None, with nothing changed, where the file must be copied."""
    path = source.path
    with output_errors(path), _opened(source) as file:
        layout = lay_out(source, file, changes, remove)
        if layout is None:
            return None
        patch = patch_for(source, file, layout)
        if not patch.after and not patch.shift:
            return source
        sector = _one_sector(file, patch)
        if sector is not None:
            write_spans(file, (sector,))
        elif not _rewritten(source, file, patch):
            return None
        _make_later(file, source.identity.mtime_ns)
        return header_after(source, layout, FileIdentity.of(os.fstat(file)))


@contextlib.contextmanager
def _opened(source: Header) -> Iterator[int]:
    descriptor = os.open(source.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with claimed(descriptor, source.path):
            _check_identity(source, descriptor)
            yield descriptor
    finally:
        os.close(descriptor)


def _check_identity(source: Header, descriptor: int) -> None:
    if not FileIdentity.of(os.fstat(descriptor)) == path_identity(source.path) == source.identity:
        raise InputError(f"{source.path}: changed since it was first read; start again")


def _one_sector(file: int, patch: Patch) -> Span | None:
    """The whole change as one span, if it fits in one sector and the file keeps its size."""
    if patch.shift:
        return None
    start = patch.after[0][0]
    end = patch.after[-1][0] + len(patch.after[-1][1])
    if start // SECTOR_BYTES != (end - 1) // SECTOR_BYTES:
        return None
    data = bytearray(read_exactly(file, start, end - start))
    for offset, new in patch.after:
        data[offset - start : offset - start + len(new)] = new
    return start, bytes(data)


def _rewritten(source: Header, file: int, patch: Patch) -> bool:
    """Applies the patch under a journal; False, with nothing changed, if the file is in use or cannot be shifted."""
    os.fsync(file)  # flushes earlier writes before the lease makes others wait
    with leased(file) as alone:
        if not alone:
            return False
        _check_identity(source, file)
        before = os.fstat(file)
        with journaled(source.path, file, patch) as journal:
            try:
                carry_out(file, patch)
                if any(read_exactly(file, offset, len(data)) != data for offset, data in patch.after):
                    raise OutputError(f"{source.path}: the header read back differs from what was intended")
            except BaseException as error:
                _put_back(source.path, file, patch, error)
                journal.remove()
                if isinstance(error, OSError) and error.errno in UNSUPPORTED:
                    # Nothing has changed, but some kernels update a file's time before they refuse to shift it.
                    with contextlib.suppress(OSError):
                        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
                    return False
                raise
            journal.remove()
    return True


def _make_later(file: int, mtime_ns: int) -> None:
    """Makes sure that an edited file's modification time is later than before, so that other processes notice the edit.

    That clock ticks in milliseconds in many kernels (Linux before 6.13), and in seconds on some file systems.
    """
    for step_ns in _CLOCK_STEPS_NS:
        status = os.fstat(file)
        if status.st_mtime_ns > mtime_ns:
            return
        with contextlib.suppress(PermissionError):  # another user's file, which this user may only write
            os.utime(file, ns=(status.st_atime_ns, mtime_ns + step_ns))


def _put_back(path: Path, file: int, patch: Patch, why: BaseException) -> None:
    try:
        take_back(file, patch)
    except OSError as error:
        raise OutputError(
            f"{path}: could be neither edited ({why}) nor restored ({error.strerror}); the next edgecal command that "
            "reads it will finish the edit"
        ) from why
