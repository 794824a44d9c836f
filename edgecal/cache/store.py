"""Stores checksummed values by key in one SQLite file that processes share and that may fail at any time without harm.

If something outside the file fails (a full disk, a read-only folder, a lock held too long), this run stops using the
file, or only stops writing if reading still works, and `warning` says why. A damaged file is removed and recreated.
Every value carries a checksum over itself, its key and the store's `about`, so that a value that was not written
exactly so under this key counts as missing.

SQLite's rollback journal makes every transaction atomic, also when the process is killed. A write-ahead log would not
work on network file systems and leaves more files behind.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b, sha256
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

__all__ = ["FORMAT", "SIDE_FILES", "CheckedStore", "peek_store"]

FORMAT = 1  # part of the files' names, so that versions never share a file
SIDE_FILES = ("-journal", "-wal", "-shm")  # that SQLite may put beside its file
LOCK_TIMEOUT_S = 10.0

_APPLICATION_ID = 0x65644361  # "edCa", in the file's header for file(1)
_CHECK_BYTES = 16
_ABOUT = "about"

_SCHEMA = (
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {FORMAT}",
    "CREATE TABLE about (name BLOB PRIMARY KEY, value BLOB NOT NULL)",
    'CREATE TABLE cells (key BLOB PRIMARY KEY, "rank" INTEGER NOT NULL, "check" BLOB NOT NULL, body BLOB NOT NULL)',
)
_READ = 'SELECT "rank", "check", body FROM cells WHERE key = ?'
_WRITE = (
    'INSERT INTO cells (key, "rank", "check", body) VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE '
    'SET "rank" = excluded."rank", "check" = excluded."check", body = excluded.body '
    'WHERE excluded."rank" >= cells."rank"'
)
# Words in SQLite's messages about causes outside the file. Python 3.10 does not expose the error codes.
_OUTSIDE = ("lock", "full", "readonly", "unable to open", "disk i/o", "interrupted")

Item = tuple[bytes, int, bytes]  # key, rank, body


class _DamagedError(Exception):
    """The file was not written by this module."""


class CheckedStore:
    """The values in one file; a context manager. Threads may share it; a lock serializes them.

    Attributes
    ----------
    warning: one line that says why the file is not used, is no longer written or was recreated; None if all is well.
    """

    def __init__(self, path: Path | None, about: bytes, *, lock_timeout_s: float = LOCK_TIMEOUT_S) -> None:
        """Opens the file, or creates it and its folder (readable by this user only); never fails.

        `about` states what influences the values; values stored under another `about` are not found. Without `path`
        every lookup misses and nothing is stored.
        """
        self.path = path
        self.warning: str | None = None
        self._about = about
        self._salt = sha256(about).digest()
        self._lock_timeout_s = lock_timeout_s
        self._connection: sqlite3.Connection | None = None
        self._inode: tuple[int, int] | None = None
        self._writable = True
        self._may_recreate = True
        self._damaged: set[bytes] = set()
        self._lock = threading.RLock()
        if path is None:
            self._stop(
                "there is no folder for a cache; set the environment variable EDGECAL_CACHE_DIR to one"
            )
            return
        try:
            import sqlite3
        except ImportError:
            self._stop("this Python was built without SQLite, which the cache needs")
            return
        self._sqlite3: ModuleType = sqlite3
        # On a damaged file SQLite may request absurd amounts of memory, or quote bytes that are not text.
        self._damage = (sqlite3.DatabaseError, MemoryError, UnicodeDecodeError)
        self._open_or_stop(path)

    def __enter__(self) -> CheckedStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_open(self) -> bool:
        """Whether the file can be read."""
        return self._connection is not None

    @property
    def is_writable(self) -> bool:
        """Whether writes are expected to succeed."""
        return self._writable and self._connection is not None

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(self._sqlite3.Error):
                connection.close()

    def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of each key; None where it is missing or damaged."""
        found: dict[bytes, bytes] = {}

        def look_up(connection: sqlite3.Connection) -> None:
            connection.execute("BEGIN")
            for key in keys:
                body = self._find(connection, key)
                if body is not None:
                    found[key] = body
            connection.execute("COMMIT")

        self._attempt(look_up, writing=False)
        return [found.get(key) for key in keys]

    def write(self, items: Iterable[Item]) -> None:
        """Store (key, rank, value) triples, all or none of them.

        A value replaces one under the same key whose rank (0 to 2**62) is the same or lower.
        """
        if not self.is_writable:
            return
        rows = [(key, rank, self._check(key, rank, body), body) for key, rank, body in items]
        if not rows:
            return

        def put(connection: sqlite3.Connection) -> None:
            connection.execute("BEGIN IMMEDIATE")
            if self._damaged and connection.execute("PRAGMA quick_check(1)").fetchone() != (b"ok",):
                raise self._sqlite3.DatabaseError("its values overlap")  # writing one would damage another
            connection.executemany("DELETE FROM cells WHERE key = ?", [(key,) for key in self._damaged])
            connection.executemany(_WRITE, rows)
            if any(self._find(connection, key) is None for key, *_ in rows):
                raise self._sqlite3.DatabaseError("a value is missing after it was written")
            connection.execute("COMMIT")
            self._damaged.clear()

        if not self._attempt(put, writing=True) and self.is_writable:
            self._attempt(put, writing=True)  # the file was damaged and has been recreated

    def keep_newest(self, most: int) -> None:
        """Remove the oldest keys beyond the `most` newest."""

        def forget(connection: sqlite3.Connection) -> None:
            connection.execute("BEGIN IMMEDIATE")
            newest = "SELECT rowid FROM cells ORDER BY rowid DESC LIMIT ?"
            connection.execute(f"DELETE FROM cells WHERE rowid NOT IN ({newest})", (most,))
            connection.execute("COMMIT")

        if self.is_writable:
            self._attempt(forget, writing=True)

    def stop_writing(self, why: str) -> None:
        """Store no more values; `why` becomes the warning unless there is one already."""
        self._writable = False
        self._warn(why)

    def _find(self, connection: sqlite3.Connection, key: bytes) -> bytes | None:
        """The value of a key if its checksum matches; if not, the next write removes it."""
        row = connection.execute(_READ, (key,)).fetchone()
        if row is None:
            return None
        rank, check, body = row
        if isinstance(rank, int) and isinstance(body, bytes) and check == self._check(key, rank, body):
            return body
        self._damaged.add(key)
        return None

    def _check(self, key: bytes, rank: int, body: bytes) -> bytes:
        digest = blake2b(digest_size=_CHECK_BYTES, key=self._salt)
        digest.update(struct.pack("<QQ", len(key), rank) + key)
        digest.update(body)
        return digest.digest()

    def _open_or_stop(self, path: Path) -> None:
        """Open the file, recreate it if it is damaged, or set `warning` if both fail."""
        try:
            self._open(path)
        except (*self._damage, _DamagedError) as error:
            self._fail(error, writing=False)
        except (OSError, ValueError) as error:
            self._stop(getattr(error, "strerror", None) or str(error))

    def _open(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            with contextlib.suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        status = path.stat()
        self._inode = (status.st_dev, status.st_ino)
        if not path.is_file():
            raise OSError("not a regular file")
        connection = self._sqlite3.connect(
            path, timeout=self._lock_timeout_s, isolation_level=None, check_same_thread=False
        )
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        with contextlib.suppress(OSError):
            os.utime(path)  # the modification time is the time of last use

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Configure the connection, create missing tables, and check the file's version and `about`."""
        connection.text_factory = bytes
        for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "synchronous = NORMAL"):
            connection.execute(f"PRAGMA {pragma}")
        if _is_empty(connection):
            connection.execute("BEGIN IMMEDIATE")
            if _is_empty(connection):  # no other process has created them meanwhile
                for statement in _SCHEMA:
                    connection.execute(statement)
                connection.execute("INSERT INTO about VALUES (?, ?)", (_ABOUT, self._about))
            connection.execute("COMMIT")
        if connection.execute("PRAGMA user_version").fetchone() != (FORMAT,):
            raise _DamagedError("its version is not the one in its name")
        if _read_about(connection) != self._about:
            raise _DamagedError("its context is not the one in its name")

    def _attempt(self, work: Callable[[sqlite3.Connection], None], *, writing: bool) -> bool:
        """Do the work and return whether it succeeded; roll back on failure."""
        with self._lock:
            connection = self._connection
            if connection is None:
                return False
            try:
                work(connection)
            except self._sqlite3.ProgrammingError:
                self._roll_back(connection)
                raise  # a bug in edgecal, not a fault of the file
            except self._damage as error:
                self._roll_back(connection)
                self._fail(error, writing=writing)
                return False
            except BaseException:
                self._roll_back(connection)
                raise
            return True

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        with contextlib.suppress(self._sqlite3.Error):
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def _fail(self, error: Exception, *, writing: bool) -> None:
        """Recreate a damaged file; for a cause outside the file stop using it, or only stop writing."""
        path = self.path
        assert path is not None
        text = " ".join(str(error).split()) or type(error).__name__
        if not self._is_damage(error, path):
            if writing:
                self.stop_writing(f"{path.parent}: the cache is no longer written: {text}")
            else:
                self._stop(text)
            return
        self.close()
        if not self._may_recreate:
            self._stop(text)
            return
        self._may_recreate = False
        try:
            self._remove(path)
        except OSError as removal:
            self._stop(f"{text}, and it cannot be removed: {removal.strerror}")
            return
        self._damaged.clear()
        self._open_or_stop(path)
        if self.is_open:
            self._warn(f"{path}: the file was damaged ({text}) and has been recreated empty")

    def _is_damage(self, error: Exception, path: Path) -> bool:
        if not isinstance(error, self._sqlite3.OperationalError):
            return True
        text = str(error).lower()
        if "readonly" in text:  # SQLite may report this for a damaged file too
            return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
        return not any(word in text for word in _OUTSIDE)

    def _remove(self, path: Path) -> None:
        """Remove the file that was opened, but not one that another process has put in its place since."""
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            if (status.st_dev, status.st_ino) == self._inode:
                path.unlink()
                for suffix in SIDE_FILES:
                    path.with_name(path.name + suffix).unlink(missing_ok=True)

    def _stop(self, why: str) -> None:
        self.close()
        self._writable = False
        self._warn(why if self.path is None else f"{self.path.parent}: the cache is not used: {why}")

    def _warn(self, text: str) -> None:
        if self.warning is None:
            self.warning = text


def peek_store(path: Path) -> tuple[bytes, int] | None:
    """A file's `about` and number of keys; None if they cannot be read now. Creates and removes nothing."""
    try:
        import sqlite3
    except ImportError:
        return None
    if not path.is_file():
        return None
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=1.0, isolation_level=None)) as connection:
            connection.text_factory = bytes
            connection.execute("PRAGMA trusted_schema = OFF")
            about = _read_about(connection)
            count = connection.execute("SELECT COUNT(*) FROM cells").fetchone()[0]
    except (sqlite3.Error, MemoryError, UnicodeDecodeError):
        return None
    return (about, count) if isinstance(about, bytes) and isinstance(count, int) else None


def _is_empty(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0] == 0)


def _read_about(connection: sqlite3.Connection) -> object:
    row = connection.execute("SELECT value FROM about WHERE name = ?", (_ABOUT,)).fetchone()
    return None if row is None else row[0]
