"""Digests of model files, so that a second run need not read gigabytes to know which model it has.

Knows files by path, device, inode, size and times. Does not know how a digest is made.

A file that is as it was by all of these has the digest that it had, with one exception: it was rewritten within one
tick of the file system's clock (up to 2 seconds) after it was looked at. So a digest is not kept for a file that
had been changed less than 3 seconds before it was looked at, as git does with its index. Who writes through a
memory map that was there before the digest was made, and keeps it, can still change a file unseen.
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

    Paths are kept as digests too: the memo tells nobody which files there were.

    Parameters
    ----------
    folder: of the cache; made for this user alone if it is not there. None keeps nothing.
    lock_timeout_s: how long to wait, in seconds, while another process writes.

    Attributes
    ----------
    warning: one line on why nothing is kept; None as long as nothing is wrong.
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
        """The digests called `names` of the model in `paths`: kept ones, or else those that `compute` returns.

        Which names there are is the caller's to say; a name should change with the way its digest is made. What
        `compute` raises comes through. It is called at most once, and what it returns is kept if the files are the
        same before and after and had not just been changed.
        """
        looked_ns = time.time_ns()
        before = identify_files(paths)
        key = None if before is None else sha256(json.dumps(before).encode()).digest()
        known = self._known(key)
        if all(name in known for name in names):
            return {name: known[name] for name in names}
        found = dict(compute())
        if (
            key is not None
            and before is not None
            and _is_settled(before, looked_ns)
            and identify_files(paths) == before
        ):
            kept = {**known, **found}
            self._store.write([(key, len(kept), json.dumps(kept).encode())])
            self._store.keep_newest(MAX_MODELS)
        return {name: found[name] if name in found else known[name] for name in names}

    def _known(self, key: bytes | None) -> dict[str, str]:
        body = None if key is None else self._store.read([key])[0]
        return {} if body is None else dict(json.loads(body))


def identify_files(paths: Sequence[Path]) -> FileIdentities | None:
    """What tells that files are still what they were: path, device, inode, size, mtime and ctime of each.

    None if one cannot be looked at, or is no regular file. A model that had the same identity before its digest was
    asked for and after it was run is the one that the digest is of.
    """
    found = []
    for path in paths:
        try:
            status = path.stat()
        except (OSError, ValueError):
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        where = os.fsencode(path.absolute()).hex()
        times = (status.st_mtime_ns, status.st_ctime_ns)
        found.append((where, status.st_dev, status.st_ino, status.st_size, *times))
    return tuple(found)


def _is_settled(identity: FileIdentities, looked_ns: int) -> bool:
    return all(max(mtime_ns, ctime_ns) + _SETTLED_NS <= looked_ns for *_, mtime_ns, ctime_ns in identity)
