"""Remembers digests of model files, so that a second run need not read gigabytes to identify its model.

A file is identified by path, device, inode, size and times. If all of these are unchanged, so is the digest, with one
exception: a file rewritten within one tick of the file system's clock (up to 2 seconds) after it was examined looks
unchanged. Therefore no digest is stored for a file that was modified less than 3 seconds before it was examined, as
git does for its index. A program that mapped the file into memory before the digest was computed, and still writes
through that map, can change it undetected.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from types import TracebackType

from edgecal.cache.folder import memo_path
from edgecal.cache.store import LOCK_TIMEOUT_S, CheckedStore

__all__ = ["DigestMemo", "FileIdentities", "identify_files"]

MAX_MODELS = 1024
_SETTLED_NS = 3 * 10**9

FileIdentities = tuple[tuple[str, int, int, int, int, int], ...]


class DigestMemo:
    """Digests by file; a context manager. Threads may share it.

    Paths are stored as digests too, so the memo does not reveal which files were used.

    Parameters
    ----------
    folder: of the cache; if missing, it is created for this user only. None disables the memo.
    lock_timeout_s: how long to wait, in seconds, while another process writes.

    Attributes
    ----------
    warning: one line that says why the memo is not used, is no longer written or was recreated; None if all is well.
    """

    def __init__(self, folder: Path | None, *, lock_timeout_s: float = LOCK_TIMEOUT_S) -> None:
        path = None if folder is None else memo_path(folder)
        self._store = CheckedStore(path, b"digests", lock_timeout_s=lock_timeout_s)

    def __enter__(self) -> DigestMemo:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def warning(self) -> str | None:
        return self._store.warning

    def close(self) -> None:
        self._store.close()

    def recall(
        self, paths: Sequence[Path], names: Collection[str], compute: Callable[[], Mapping[str, str]]
    ) -> dict[str, str]:
        """The digests called `names` of the model in `paths`, from the memo or else from `compute`.

        The caller chooses the names; a name should change with the way its digest is computed. `compute` is called
        at most once, and its exceptions propagate. Its digests are stored if the files are the same before and after
        and were not modified just before.
        """
        examined_ns = time.time_ns()
        before = identify_files(paths)
        key = None if before is None else sha256(json.dumps(before).encode()).digest()
        stored = self._read(key)
        if all(name in stored for name in names):
            return {name: stored[name] for name in names}
        computed = dict(compute())
        if (
            key is not None
            and before is not None
            and _is_settled(before, examined_ns)
            and identify_files(paths) == before
        ):
            merged = {**stored, **computed}
            self._store.write([(key, len(merged), json.dumps(merged).encode())])
            self._store.keep_newest(MAX_MODELS)
        return {name: computed[name] if name in computed else stored[name] for name in names}

    def _read(self, key: bytes | None) -> dict[str, str]:
        body = None if key is None else self._store.read([key])[0]
        return {} if body is None else dict(json.loads(body))


def identify_files(paths: Sequence[Path]) -> FileIdentities | None:
    """Path, device, inode, size, mtime and ctime of each file, which change when the file does.

    None if one cannot be examined or is not a regular file. If a model has the same identity before its digest is
    looked up and after it is run, the digest is of the model that ran.
    """
    identities = []
    for path in paths:
        try:
            status = path.stat()
        except (OSError, ValueError):
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        where = os.fsencode(path.absolute()).hex()
        times = (status.st_mtime_ns, status.st_ctime_ns)
        identities.append((where, status.st_dev, status.st_ino, status.st_size, *times))
    return tuple(identities)


def _is_settled(identity: FileIdentities, examined_ns: int) -> bool:
    return all(max(mtime_ns, ctime_ns) + _SETTLED_NS <= examined_ns for *_, mtime_ns, ctime_ns in identity)
