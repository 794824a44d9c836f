"""Writes finished bytes to a file atomically: under a hidden name, flushed, then renamed.

So readers see the whole old file or the whole new one, even after a power cut.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from edgecal.errors import OutputError

__all__ = ["check_target", "make_folder", "write_whole"]


def check_target(path: Path) -> None:
    """Checks whether a file can be created at `path`, as far as possible without writing.

    Raises
    ------
    OutputError: `path` is a folder or a device, or its folder does not exist.
    """
    with _one_line(path):
        if path.is_dir():
            raise OutputError(f"{path}: is a folder; give a file name")
        if path.exists() and not path.is_file():
            raise OutputError(f"{path}: is not a plain file; give another name")
        if not path.parent.is_dir():
            raise OutputError(f"{path}: there is no folder {path.parent}; make it first")


def make_folder(path: Path) -> None:
    """Makes the folder and its parents, unless they exist.

    Raises
    ------
    OutputError: it cannot be made, or `path` is something else.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{path}: the folder cannot be made: {reason}; give another --output") from None


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that readers always see the whole old one or the whole new one.

    A symbolic link stays, and the file that it points to is replaced; a replaced file's permissions are kept.

    Raises
    ------
    OutputError: it cannot be written; the previous file is unchanged.
    """
    check_target(path)
    with _one_line(path):
        target = Path(os.path.realpath(path))
        draft = target.with_name(f".edgecal-{secrets.token_hex(8)}.tmp")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            with os.fdopen(descriptor, "wb") as file:
                if target.exists():
                    draft.chmod(target.stat().st_mode & 0o777)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(target)
        except BaseException:  # also on Ctrl-C, so that no draft is left behind
            with contextlib.suppress(OSError):
                draft.unlink()
            raise
        _flush_folder(target.parent)


def _flush_folder(folder: Path) -> None:
    """Makes a rename survive a power cut, where the system can do that."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _one_line(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{path}: could not be written: {reason}; what was there is unchanged") from None
