"""The journal of an edit in place: written before the file is touched, read by the next command to finish or undo it.

A journal lies beside the file under a hidden name and holds the patch, with the bytes that were there before.
It is flushed before the first change and removed once the last is flushed; the editing process holds a lock on it.

The file's bytes decide whether a journal belongs to the file beside it: one that was copied or restored along with
its file still works, and one beside another file, or beside one that has changed since, is never applied. If nothing
was changed yet, the journal is dropped. Otherwise the edit is finished without moving the tail again, so that recovery
does no harm to programs that have the file open.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgecal.errors import EdgecalError, InputError
from edgecal.gguf.draft import flush_directory, wait_for_lock
from edgecal.gguf.header import read_header
from edgecal.gguf.inplace.patch import Patch, State, settle, state_of, write_spans
from edgecal.gguf.spans import read_span

__all__ = ["Journal", "journaled", "recover"]

MAGIC = b"edgecal journal\n"
FORMAT = 1
DIGEST_BYTES = 32
MAX_JOURNAL_BYTES = 1 << 30
_HEAD = struct.Struct("<IQ")
_PREFIX, _SUFFIX = ".edgecal-", ".journal"


class Journal:
    """A journal that this process has locked. Call `remove` once the file is whole, then `close`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor

    def remove(self) -> None:
        """Deletes the journal. No flush is needed: if a power cut brings it back, the file is found finished."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        os.close(self.descriptor)


@contextlib.contextmanager
def journaled(path: Path, descriptor: int, patch: Patch) -> Iterator[Journal]:
    """A journal of `patch` for the open file `path`, on the disk before the body begins.

    The body removes it. Raises the system's OSError, with nothing left behind.
    """
    status = os.fstat(descriptor)
    journal = _create(path, status.st_ino)
    try:
        try:
            with contextlib.suppress(PermissionError):
                os.fchown(journal.descriptor, status.st_uid, status.st_gid)
            write_spans(journal.descriptor, ((0, _encode(patch)),))
            flush_directory(path.parent)
        except BaseException:
            journal.remove()
            raise
        yield journal
    finally:
        journal.close()


def _create(path: Path, inode: int) -> Journal:
    beside = path.with_name(_journal_name(path.name, inode))
    while True:
        descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            wait_for_lock(descriptor, path)
        except BaseException:
            beside.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        # Between its creation and its locking, another process may have taken it for a killed process's and removed it.
        if os.fstat(descriptor).st_nlink:
            return Journal(beside, descriptor)
        os.close(descriptor)


def _journal_name(name: str, inode: int) -> str:
    """A name made of the file's name, by which a copy finds it, and of its inode, by which a renamed file does."""
    from zlib import crc32

    return f"{_PREFIX}{crc32(os.fsencode(name)):08x}-{inode:x}{_SUFFIX}"


def _encode(patch: Patch) -> bytes:
    import json
    from hashlib import blake2b

    spans = {
        name: [[offset, len(data)] for offset, data in getattr(patch, name)] for name in ("before", "after")
    }
    fields = {
        "size": patch.size,
        "tail": patch.tail,
        "offset": patch.offset,
        "shift": patch.shift,
        "anchor": patch.anchor,
        **spans,
    }
    head = json.dumps(fields).encode()
    blobs = b"".join(data for _, data in (*patch.before, *patch.after))
    body = MAGIC + _HEAD.pack(FORMAT, len(head)) + head + blobs
    return body + blake2b(body, digest_size=DIGEST_BYTES).digest()


def _decode(raw: bytes, path: Path) -> Patch | None:
    """The patch; None for an incomplete journal, whose file was never touched.

    InputError: a complete journal that edgecal did not write, or that a newer edgecal wrote.
    """
    from hashlib import blake2b

    body, digest = raw[:-DIGEST_BYTES], raw[-DIGEST_BYTES:]
    if not body.startswith(MAGIC) or blake2b(body, digest_size=DIGEST_BYTES).digest() != digest:
        return None
    form = int.from_bytes(body[len(MAGIC) : len(MAGIC) + 4], "little")
    if form != FORMAT:
        raise InputError(
            f"{path}: a journal of format {form}, but this edgecal knows only {FORMAT}; use the newer edgecal"
        )
    try:
        return _decode_patch(body)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error):
        raise InputError(
            f"{path}: a journal that edgecal did not write; remove it if the file beside it is whole"
        ) from None


def _decode_patch(body: bytes) -> Patch:
    import json

    start = len(MAGIC) + _HEAD.size
    (_, length) = _HEAD.unpack_from(body, len(MAGIC))
    fields: dict[str, Any] = json.loads(body[start : start + length])
    start += length
    for name in ("before", "after"):
        spans = []
        for offset, n_bytes in fields[name]:
            data = body[start : start + n_bytes]
            if offset < 0 or n_bytes < 0 or len(data) != n_bytes:
                raise ValueError("an impossible span")
            spans.append((offset, data))
            start += n_bytes
        fields[name] = tuple(spans)
    patch = Patch(**fields)
    if min(patch.size, patch.tail, patch.offset, patch.size + patch.shift) < 0 or patch.tail > patch.size:
        raise ValueError("impossible sizes")
    return patch


def recover(path: Path) -> str | None:
    """Finishes or undoes an interrupted edit in place of `path`. Call it before reading the file.

    Returns one line that says what was done, or None if there was nothing to do (which costs one look at the folder).
    If another process is editing the file, waits until it is done. A symbolic link is followed.

    InputError: the edit cannot be finished with this user's rights, another program has changed the file
    since, or the other edit takes longer than a minute.
    """
    if sys.platform == "win32":
        return None
    try:
        path = Path(os.path.realpath(path))
        with os.scandir(path.parent) as folder:
            names = [
                entry.name
                for entry in folder
                if entry.name.endswith(_SUFFIX) and entry.name.startswith(_PREFIX)
            ]
        if not names:
            return None
        status = path.lstat()
    except (OSError, ValueError):
        return None  # no such folder or file, or it cannot be listed: reading the file will report it
    by_name, by_inode = _journal_name(path.name, status.st_ino)[len(_PREFIX) : -len(_SUFFIX)].split("-")
    for name in sorted(names):
        parts = name[len(_PREFIX) : -len(_SUFFIX)].split("-")
        if len(parts) == 2 and (parts[0] == by_name or parts[1] == by_inode):
            found = _recover_by(path, path.with_name(name), parts[1] == by_inode)
            if found is not None:
                return found
    return None


def _recover_by(path: Path, beside: Path, same_inode: bool) -> str | None:
    try:
        if not _is_trusted(beside.lstat(), path):
            return None
        descriptor = os.open(beside, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _stuck(path, error) from error
    journal = Journal(beside, descriptor)
    try:
        wait_for_lock(descriptor, path)
        status = os.fstat(descriptor)
        if status.st_nlink == 0 or not _is_trusted(status, path):
            return None  # the other process has finished meanwhile
        patch = _decode(read_span(descriptor, 0, status.st_size), beside)
        if patch is None:
            _drop(journal)
            return f"{path}: removed the unfinished journal of an edit that had not begun"
        return _settle(path, journal, patch, same_inode)
    except OSError as error:
        raise _stuck(path, error) from error
    finally:
        journal.close()


def _is_trusted(journal: os.stat_result, path: Path) -> bool:
    """Whether a journal may be applied: it is a plain file, written by the file's owner or by this user."""
    owners = (os.geteuid(), path.lstat().st_uid)
    return stat.S_ISREG(journal.st_mode) and journal.st_uid in owners and journal.st_size <= MAX_JOURNAL_BYTES


def _stuck(path: Path, error: OSError) -> InputError:
    return InputError(
        f"{path}: an edit in place was interrupted and cannot be finished: {error.strerror}; "
        "run edgecal again with enough space and permission to write the file"
    )


def _settle(path: Path, journal: Journal, patch: Patch, same_inode: bool) -> str | None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        state = state_of(descriptor, patch)
    finally:
        os.close(descriptor)
    if state is State.FOREIGN:
        return _dismiss(path, journal) if same_inode else None
    if state in (State.OLD, State.NEW):
        _drop(journal)
        done = "nothing" if state is State.OLD else "all"
        return f"{path}: an edit in place was interrupted when {done} had been changed; nothing is lost"
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    try:
        how = "undone" if settle(descriptor, patch) is State.OLD else "finished"
    finally:
        os.close(descriptor)
    journal.remove()
    return f"{path}: an edit in place was interrupted and has been {how}"


def _drop(journal: Journal) -> None:
    """Removes a journal that is not needed; if the folder cannot be written, it stays and does no harm."""
    with contextlib.suppress(OSError):
        journal.remove()


def _dismiss(path: Path, journal: Journal) -> str:
    """Raises or reports that another program has changed the file: it is neither old, new nor in between."""
    try:
        read_header(path)
    except EdgecalError as error:
        raise InputError(
            f"{path}: an edit in place was interrupted and another program has changed the file since; "
            f"restore the file and remove {journal.path}"
        ) from error
    journal.remove()
    return f"{path}: an edit in place was interrupted, but another program has changed the file since: left as it is"
