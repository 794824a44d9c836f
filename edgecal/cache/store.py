"""One SQLite file of checked values by key, shared by processes, that may fail at any time without harm.

Knows keys and bytes. Does not know what they mean, or which files there are (`folder`).

Whatever goes wrong outside (a full disk, a folder that cannot be written, a lock that is held too long) ends the
use of the file for this run, and `warning` says why; what can still be read is. A file that is damaged is removed
and begun anew. Every value carries a checksum over itself, its key and what the store is about, so that a value
that is not exactly what was written here for this key is not found.

A transaction is in the file wholly or not at all, also after a kill: SQLite's rollback journal. No write-ahead log,
which does not work on network file systems and leaves more files behind.
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
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import sqlite3

__all__ = ["FORMAT", "SIDE_FILES", "CheckedStore", "peek_store"]

FORMAT = 1  # part of the files' names, so that versions do not meet in one file
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
# What SQLite says of things outside the file; by their text, because Python 3.10 does not tell the codes.
_OUTSIDE = ("lock", "full", "readonly", "unable to open", "disk i/o", "interrupted")

Item = tuple[bytes, int, bytes]  # key, rank, body
_Result = TypeVar("_Result")


class _DamagedError(Exception):
    """The file is not what this module writes."""


class CheckedStore:
    """The values in one file; a context manager. Threads may share it, and take turns.

    Attributes
    ----------
    warning: why the file is not used, or not as it was; one line, None as long as nothing is wrong.
    """

    def __init__(self, path: Path | None, about: bytes, *, lock_timeout_s: float = LOCK_TIMEOUT_S) -> None:
        """Opens the file, or makes it and its folder (for this user's eyes only); never fails.

        `about` says what influences the values; values of another `about` are not found. Without `path` there is
        nothing to read and nothing is kept.
        """
        self.path = path
        self.warning: str | None = None
        self._about = about
        self._salt = sha256(about).digest()
        self._lock_timeout_s = lock_timeout_s
        self._connection: sqlite3.Connection | None = None
        self._inode: tuple[int, int] | None = None
        self._writable = True
        self._may_begin_anew = True
        self._damaged: set[bytes] = set()
        self._lock = threading.RLock()
        if path is None:
            self._stop(
                "there is no folder for a cache; name one by the environment variable EDGECAL_CACHE_DIR"
            )
            return
        try:
            import sqlite3
        except ImportError:
            self._stop("this Python was built without SQLite, which the cache needs")
            return
        self._sqlite3: ModuleType = sqlite3
        # Of a damaged file SQLite may want absurdly much memory, or quote what is not text.
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
        """Whether anything can be read."""
        return self._connection is not None

    @property
    def is_writable(self) -> bool:
        """Whether what is written will be kept, as far as is known."""
        return self._writable and self._connection is not None

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(self._sqlite3.Error):
                connection.close()

    def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of each key, None where there is none, or none that is whole."""
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
        """Keep (key, rank, value) triples, all or none of them.

        A value takes the place of one under the same key of the same or a lower rank (0 to 2**62).
        """
        if not self.is_writable:
            return
        rows = [(key, rank, self._check(key, rank, body), body) for key, rank, body in items]
        if not rows:
            return

        def put(connection: sqlite3.Connection) -> None:
            connection.execute("BEGIN IMMEDIATE")
            if self._damaged and connection.execute("PRAGMA quick_check(1)").fetchone() != (b"ok",):
                raise self._sqlite3.DatabaseError("its values overlap")  # one written would damage another
            connection.executemany("DELETE FROM cells WHERE key = ?", [(key,) for key in self._damaged])
            connection.executemany(_WRITE, rows)
            if any(self._find(connection, key) is None for key, *_ in rows):
                raise self._sqlite3.DatabaseError("what was written is not found")
            connection.execute("COMMIT")
            self._damaged.clear()

        if not self._attempt(put, writing=True) and self.is_writable:
            self._attempt(put, writing=True)  # it was damaged and is empty now

    def keep_newest(self, most: int) -> None:
        """Forget what was put in first, where there are more than `most` keys."""

        def forget(connection: sqlite3.Connection) -> None:
            connection.execute("BEGIN IMMEDIATE")
            newest = "SELECT rowid FROM cells ORDER BY rowid DESC LIMIT ?"
            connection.execute(f"DELETE FROM cells WHERE rowid NOT IN ({newest})", (most,))
            connection.execute("COMMIT")

        if self.is_writable:
            self._attempt(forget, writing=True)

    def stop_writing(self, why: str) -> None:
        """Keep nothing more, and say why, if nothing has been said before."""
        self._writable = False
        self._warn(why)

    def _find(self, connection: sqlite3.Connection, key: bytes) -> bytes | None:
        """The value of a key if it is whole; if it is not, the next write takes its place."""
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
        """Open the file; begin it anew if it is damaged; `warning` if neither can be."""
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
            os.utime(path)  # when it was last used

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Settings, the tables where there are none, and whether the file is about what it should be."""
        connection.text_factory = bytes
        for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "synchronous = NORMAL"):
            connection.execute(f"PRAGMA {pragma}")
        if _is_empty(connection):
            connection.execute("BEGIN IMMEDIATE")
            if _is_empty(connection):  # nobody else has made them meanwhile
                for statement in _SCHEMA:
                    connection.execute(statement)
                connection.execute("INSERT INTO about VALUES (?, ?)", (_ABOUT, self._about))
            connection.execute("COMMIT")
        if connection.execute("PRAGMA user_version").fetchone() != (FORMAT,):
            raise _DamagedError("it is of another version than its name says")
        if _read_about(connection) != self._about:
            raise _DamagedError("it is about something else than its name says")

    def _attempt(self, work: Callable[[sqlite3.Connection], None], *, writing: bool) -> bool:
        """Whether the work was done; what is half done is taken back."""
        with self._lock:
            connection = self._connection
            if connection is None:
                return False
            try:
                work(connection)
            except self._sqlite3.ProgrammingError:
                self._roll_back(connection)
                raise  # a mistake of ours, not of the file
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
        """Begin a damaged file anew; stop using it, or only writing, if something outside is wrong."""
        path = self.path
        assert path is not None
        text = " ".join(str(error).split()) or type(error).__name__
        if not self._is_damage(error, path):
            if writing:
                self.stop_writing(f"{path.parent}: the cache keeps nothing more: {text}")
            else:
                self._stop(text)
            return
        self.close()
        if not self._may_begin_anew:
            self._stop(text)
            return
        self._may_begin_anew = False
        try:
            self._remove(path)
        except OSError as removing:
            self._stop(f"{text}, and it cannot be removed: {removing.strerror}")
            return
        self._damaged.clear()
        self._open_or_stop(path)
        if self.is_open:
            self._warn(f"{path}: was damaged ({text}) and has been begun anew")

    def _is_damage(self, error: Exception, path: Path) -> bool:
        if not isinstance(error, self._sqlite3.OperationalError):
            return True
        text = str(error).lower()
        if "readonly" in text:  # a damaged file may say so of itself
            return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
        return not any(word in text for word in _OUTSIDE)

    def _remove(self, path: Path) -> None:
        """Remove the file that was opened, but not one that somebody else has put in its place since."""
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
    """What a file is about and how many keys it has; None if it cannot be told now. Makes and removes nothing."""
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
