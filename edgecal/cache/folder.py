"""Where the cache's files are, which files belong to it, and how many bytes they may take.

Only files whose names match exactly the pattern of this package's own names are ever removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgecal.cache.store import FORMAT, SIDE_FILES, peek_store
from edgecal.errors import OutputError

__all__ = [
    "FOLDER_VARIABLE",
    "MAX_CACHE_BYTES",
    "ClearedCache",
    "Context",
    "StoreInfo",
    "clear_cache",
    "default_cache_folder",
    "list_stores",
    "memo_path",
    "remove_least_used",
    "store_path",
]

FOLDER_VARIABLE = "EDGECAL_CACHE_DIR"
MAX_CACHE_BYTES = (
    1 << 30
)  # of all stores together: enough for a million prompts of a small model, with layers

Context = Mapping[str, str | int | float | bool]

_STORE = re.compile(r"captures-[0-9a-f]{64}\.v[0-9]+\.sqlite")
_OURS = re.compile(r"(?:captures-[0-9a-f]{64}|digests)\.v[0-9]+\.sqlite(?:-journal|-wal|-shm)?")


@dataclass(frozen=True)
class StoreInfo:
    """One store, which holds one model's captures under one context, as read without writing to it.

    Attributes
    ----------
    path: its file.
    context: everything that influences its numbers, as its writer stated; None if the file cannot be read now.
    n_prompts: number of keys; None if the file cannot be read now.
    n_bytes: size of its files.
    last_used_s: when it was last opened or written to, in seconds since 1970.
    """

    path: Path
    context: dict[str, str | int | float | bool] | None
    n_prompts: int | None
    n_bytes: int
    last_used_s: float


@dataclass(frozen=True)
class ClearedCache:
    """Number and size of the files that `clear_cache` removed."""

    n_files: int
    n_bytes: int


def default_cache_folder() -> Path | None:
    """The folder of the cache: $EDGECAL_CACHE_DIR, else the usual one; None if there is no home folder either.

    The usual folder is `edgecal` in $XDG_CACHE_HOME or ~/.cache, on macOS ~/Library/Caches/edgecal, on Windows
    %LOCALAPPDATA%\\edgecal\\cache. It is not created here.
    """
    chosen = os.environ.get(FOLDER_VARIABLE)
    try:
        if chosen:
            return Path(chosen).expanduser().absolute()
        if sys.platform == "win32":
            local = os.environ.get("LOCALAPPDATA")
            return (Path(local) if local else Path.home() / "AppData" / "Local") / "edgecal" / "cache"
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches" / "edgecal"
        base = Path(os.environ.get("XDG_CACHE_HOME") or ".")
        return (base if base.is_absolute() else Path.home() / ".cache") / "edgecal"
    except RuntimeError:
        return None


def store_path(folder: Path, digest: str) -> Path:
    """The file of the store whose context has this digest."""
    return folder / f"captures-{digest}.v{FORMAT}.sqlite"


def memo_path(folder: Path) -> Path:
    """The file of the digests of model files."""
    return folder / f"digests.v{FORMAT}.sqlite"


def list_stores(folder: Path | None) -> list[StoreInfo]:
    """The stores in a folder, most recently used first; empty if the folder is missing or cannot be read."""
    stores = []
    for path, status in _files(folder, _STORE):
        peeked = peek_store(path)
        context = None if peeked is None else _read_context(peeked[0])
        stores.append(
            StoreInfo(
                path=path,
                context=context,
                n_prompts=None if peeked is None else peeked[1],
                n_bytes=status.st_size + _side_bytes(path),
                last_used_s=status.st_mtime,
            )
        )
    return sorted(stores, key=lambda store: (-store.last_used_s, store.path.name))


def clear_cache(folder: Path | None) -> ClearedCache:
    """Removes every file of the cache from a folder, and no other; a run that is using one loses only its cache.

    Raises
    ------
    OutputError: a file cannot be removed; all others are removed.
    """
    n_files = n_bytes = 0
    failure: OSError | None = None
    for path, status in list(_files(folder, _OURS)):
        try:
            path.unlink()
        except FileNotFoundError:
            continue  # another process has removed it
        except OSError as error:
            failure = error
            continue
        n_files += 1
        n_bytes += status.st_size
    if failure is not None:
        raise OutputError(
            f"{failure.filename}: cannot be removed: {failure.strerror} ({n_bytes} bytes were freed); "
            "remove it by other means"
        )
    return ClearedCache(n_files, n_bytes)


def remove_least_used(folder: Path, max_bytes: int, keep: Path) -> None:
    """Removes the least recently used stores until all together have at most `max_bytes` bytes.

    `keep` is never removed. A file that cannot be removed stays.
    """
    stores = [(status.st_mtime_ns, path, status.st_size) for path, status in _files(folder, _STORE)]
    total = sum(size for *_, size in stores)
    for _, path, size in sorted(stores):
        if total <= max_bytes:
            return
        if path == keep:
            continue
        with contextlib.suppress(OSError):
            path.unlink()
            total -= size
            for suffix in SIDE_FILES:
                path.with_name(path.name + suffix).unlink(missing_ok=True)


def _files(folder: Path | None, pattern: re.Pattern[str]) -> Iterator[tuple[Path, os.stat_result]]:
    """Regular files in the folder whose whole names match the pattern; links are not followed."""
    if folder is None:
        return
    try:
        paths = sorted(folder.iterdir())
    except (OSError, ValueError):
        return
    for path in paths:
        if pattern.fullmatch(path.name) is None:
            continue
        with contextlib.suppress(OSError):
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                yield path, status


def _side_bytes(path: Path) -> int:
    total = 0
    for suffix in SIDE_FILES:
        with contextlib.suppress(OSError):
            total += path.with_name(path.name + suffix).lstat().st_size
    return total


def _read_context(about: bytes) -> dict[str, str | int | float | bool] | None:
    try:
        context = json.loads(about)
    except ValueError:
        return None
    if not isinstance(context, dict):
        return None
    return {str(name): value for name, value in context.items() if isinstance(value, str | int | float)}
