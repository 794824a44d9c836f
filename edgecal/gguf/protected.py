"""Files that must not be changed: those in content-addressed model caches (Ollama, Hugging Face, container images), and
those that editing in place would part from a link or another name.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from edgecal.errors import InputError, OutputError

__all__ = ["check_editable", "content_store"]

_OLLAMA = re.compile(r"sha256[-:][0-9a-f]{64}")
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REPOSITORY = re.compile(r"(models|datasets|spaces)--.+")


def content_store(path: Path) -> str | None:
    """The name of the cache that `path` lies in, as a noun for a message, or None.

    The path is looked at as given and with symbolic links resolved; it need not exist.
    """
    try:
        absolute = path.absolute()
    except OSError:
        return None  # the working directory is gone: nothing can be written there, as whoever tries will say
    # Not Path.resolve, which in some versions of Python does not bear links that lead to themselves.
    return _store_of(absolute) or _store_of(Path(os.path.realpath(absolute)))


def _store_of(path: Path) -> str | None:
    parts = path.parts
    for index, part in enumerate(parts[1:-1], start=1):
        following = parts[index + 1]
        if part == "blobs":
            if _OLLAMA.fullmatch(following):
                return "Ollama's model store"
            if _REPOSITORY.fullmatch(parts[index - 1]):
                return "the Hugging Face cache"
            if _DIGEST.fullmatch(following):
                return "a content-addressed store"
            if following == "sha256":
                return "a container image store"
            if _holds_blobs(Path(*parts[: index + 1])):
                return "a content-addressed store"
        if part == "snapshots":
            if _REPOSITORY.fullmatch(parts[index - 1]):
                return "the Hugging Face cache"
            if _holds_blobs(Path(*parts[:index], "blobs")):
                return "a content-addressed store"
    return None


def _holds_blobs(folder: Path) -> bool:
    """Whether some of a folder's names are digests; false if it cannot be listed."""
    try:
        names = [entry.name for entry, _ in zip(folder.iterdir(), range(16), strict=False)]
    except OSError:
        return False
    return any(_OLLAMA.fullmatch(name) or _DIGEST.fullmatch(name) for name in names)


def check_editable(path: Path) -> None:
    """Whether a file may be edited in place at all.

    InputError: a symbolic link, a file with other hard links, or one in a model cache. OutputError: read-only.
    """
    store = content_store(path)
    if store is not None:
        raise InputError(f"{path}: lies in {store}, whose files must not change; give --output outside it")
    if path.is_symlink():
        raise InputError(
            f"{path}: a symbolic link to {path.readlink()}; editing in place changes only plain files: "
            "give the file itself, or --output"
        )
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"{path}: cannot be opened: {error.strerror}") from error
    if status.st_nlink > 1:
        raise InputError(
            f"{path}: has {status.st_nlink} names (hard links), editing it in place would part them; give --output"
        )
    if not stat.S_IMODE(status.st_mode) & 0o222 or not os.access(path, os.W_OK):
        raise OutputError(f"{path}: is read-only; make it writable, or give --output")
