"""Writes a file beside its target under a hidden name and renames it at the end; holds the locks (flock(2)) that keep
edgecal's own edits of a file apart.

A process that is killed leaves the target as it was, and its locks end with it. What it leaves behind is a hidden,
unlocked draft, which the next draft of the same target removes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from edgecal.errors import InputError, OutputError
from edgecal.gguf.bounded_reader import FileIdentity

if sys.platform != "win32":
    import fcntl

__all__ = [
    "Draft",
    "drafting",
    "flush_directory",
    "hidden_path",
    "output_errors",
    "path_identity",
    "place",
    "remove_stale",
]

_RENAME_NOREPLACE = 1
_AT_FDCWD = -100


def _hidden_stem(target: Path) -> str:
    import hashlib

    return f".edgecal-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}-"


def hidden_path(target: Path) -> Path:
    """A fresh hidden name in the target's folder; `remove_stale` finds those of the same target."""
    return target.with_name(f"{_hidden_stem(target)}{os.urandom(4).hex()}.tmp")


def _lock(descriptor: int) -> bool | None:
    """True if the lock is ours now, False if another process has it, None where files cannot be locked."""
    try:
        return _try_lock(descriptor)
    except OSError:
        return None


WAIT_S = 60.0  # to wait for another edgecal that is editing the file


@contextlib.contextmanager
def claimed(descriptor: int, path: Path) -> Iterator[None]:
    """While the body runs, any other edgecal process that would change or replace this open file waits.

    An edit holds this lock from its last look at the file until it is done, in place or by replacing the file, so that
    of two edits at the same time none is silently lost. Nothing happens where files
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
    """Locks an open file as soon as no other process holds its lock; a killed process holds none.

    InputError: another process holds it for a minute; `path` is what is being edited. OSError: it cannot be locked.
    """
    deadline = time.monotonic() + WAIT_S
    while not _try_lock(descriptor):
        if time.monotonic() > deadline:
            raise InputError(
                f"{path}: another process has been editing it for {WAIT_S:.0f} s; try again when it is done"
            )
        time.sleep(0.005)


def _try_lock(descriptor: int) -> bool:
    if sys.platform == "win32":
        raise OSError("files are not locked here")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def remove_stale(target: Path) -> None:
    """Removes hidden files that a killed run left beside this target, but none that is in use."""
    stem = _hidden_stem(target)
    with os.scandir(target.parent) as folder:
        names = [
            entry.name for entry in folder if entry.name.startswith(stem) and entry.name.endswith(".tmp")
        ]
    for name in names:
        path = target.with_name(name)
        if path.is_symlink():
            path.unlink(missing_ok=True)
            continue
        try:
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        except OSError:
            continue  # already gone, or not readable by this user
        try:
            if _lock(descriptor):
                path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


class Draft:
    """A locked, hidden, unfinished file. Write to `descriptor`; `publish` gives it the target's name."""

    def __init__(self, target: Path, path: Path, descriptor: int, replaces: FileIdentity | None) -> None:
        self.target = target
        self.path = path
        self.descriptor = descriptor
        self._replaces = replaces
        self._published = False

    def publish(self, *, overwrite: bool) -> None:
        """Flush, rename onto the target, flush the folder.

        With `overwrite` false an existing target is an OutputError and stays. A target that is edited in
        place must still be the file that was read: another program's change is never undone.
        """
        os.fsync(self.descriptor)
        with self._replaced_file_claimed():
            if self._replaces is not None and path_identity(self.target) != self._replaces:
                raise OutputError(
                    f"{self.target}: changed while its new version was written; nothing was replaced"
                )
            if overwrite:
                self.path.replace(self.target)
            else:
                _rename_to_free_name(self.path, self.target)
        self._published = True
        flush_directory(self.target.parent)

    @contextlib.contextmanager
    def _replaced_file_claimed(self) -> Iterator[None]:
        """Keeps others from editing the file that is replaced, between the last look at it and the rename."""
        if self._replaces is None or sys.platform == "win32":  # where an open file cannot be replaced
            yield
            return
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(self.target, flags)
        except OSError:
            yield  # gone or no longer readable: the identity check will notice
            return
        try:
            with claimed(descriptor, self.target):
                yield
        finally:
            os.close(descriptor)

    def discard(self) -> None:
        """Remove the draft unless it was published, and close it."""
        try:
            if not self._published:
                self.path.unlink(missing_ok=True)
        finally:
            os.close(self.descriptor)


@contextlib.contextmanager
def drafting(target: Path, *, like: os.stat_result, source: Path) -> Iterator[Draft]:
    """A draft for `target`, removed on any exit that did not publish it; first removes stale drafts.

    `like` is the status of the open file `source`. The new file's mode is its mode less the umask, as `cp` does. If
    `target` is the same file (an edit in place), mode and owner stay as far as the system allows it. OSError as the
    system gives it.
    """
    remove_stale(target)
    # By name too: another edit may have replaced the file that is open here.
    is_own_name = place(target) == place(source) and not target.is_symlink()
    in_place = is_own_name or path_identity(target) == FileIdentity.of(like)
    draft = _create(target, stat.S_IMODE(like.st_mode) & 0o777, FileIdentity.of(like) if in_place else None)
    try:
        if in_place:
            if hasattr(os, "fchown"):
                with contextlib.suppress(PermissionError):
                    os.fchown(draft.descriptor, like.st_uid, like.st_gid)
            draft.path.chmod(stat.S_IMODE(like.st_mode))
        yield draft
    finally:
        draft.discard()


def _create(target: Path, mode: int, replaces: FileIdentity | None) -> Draft:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
    flags |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    while True:
        path = hidden_path(target)
        descriptor = os.open(path, flags, mode)
        # Between creation and lock another run may have taken this file for a stale one and removed it.
        locked = _lock(descriptor)
        if locked is None or (locked and path_identity(path) == FileIdentity.of(os.fstat(descriptor))):
            return Draft(target, path, descriptor, replaces)
        os.close(descriptor)


def path_identity(path: Path) -> FileIdentity | None:
    """The identity of the path itself, not of a symbolic link's target; None where there is nothing."""
    try:
        return FileIdentity.of(path.lstat())
    except FileNotFoundError:
        return None


def place(path: Path) -> Path:
    """The path with its folder resolved but its last part unchanged."""
    return Path(os.path.realpath(path.parent)) / path.name


def _rename_to_free_name(path: Path, target: Path) -> None:
    """Renames without ever replacing a file: by renameat2 where the system has it, else by looking first."""
    import ctypes

    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if os.name == "posix" else None
    if rename is not None:
        if rename(_AT_FDCWD, os.fsencode(path), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE) == 0:
            return
        code = ctypes.get_errno()
        if code == errno.EEXIST:
            raise OutputError(f"{target}: appeared while the result was written; nothing was replaced")
        if code not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise OSError(code, os.strerror(code), str(target))
    if os.path.lexists(target):
        raise OutputError(f"{target}: appeared while the result was written; nothing was replaced")
    path.replace(target)


def flush_directory(folder: Path) -> None:
    """Makes a rename in this folder survive a power cut, where the system can do that."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def output_errors(target: Path, needed_bytes: int | None = None) -> Iterator[None]:
    """Turns an OSError of the body into a one-line OutputError for `target`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if needed_bytes is not None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            import shutil

            free = shutil.disk_usage(target.parent).free
            reason = f"{reason}: {needed_bytes} bytes are needed, {free} are free"
        raise OutputError(
            f"{target}: could not be written: {reason}; the previous state is intact"
        ) from error
