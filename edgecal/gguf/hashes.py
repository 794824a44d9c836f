"""The identity of a model, twice: over its files' bytes, and over what llama.cpp computes with.

The first (`sha256_of`) is what `sha256sum` says and what a file's provenance names. The second
(`content_sha256`) stays the same when a file is stamped, stripped, split, merged, realigned or given other
sampling defaults, and differs when a weight or any key that may be computed with does; a baked file differs from
its original. Does not know what either is used for.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgecal.errors import InputError
from edgecal.gguf.bounded_reader import FileIdentity
from edgecal.gguf.header import ALIGNMENT_KEY, PREFIX, Header, KeyEntry
from edgecal.gguf.shards import ShardSet
from edgecal.gguf.spans import Progress
from edgecal.gguf.tensors import TensorInfo
from edgecal.gguf.values import quoted

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = ["CONTENT_REVISION", "ModelDigests", "content_sha256", "digests_of", "sha256_of"]

BLOCK_BYTES = 1 << 20

CONTENT_REVISION = (
    1  # of what `content_sha256` covers; digests of different revisions say nothing of each other
)

# What llama.cpp does not compute with: our notes, sampling defaults, and how the data lie in files.
_LEFT_OUT = (PREFIX, "general.sampling.", "split.")


@dataclass(frozen=True)
class ModelDigests:
    """Both digests of a model, lower-case hex: as `sha256_of` and as `content_sha256` give them."""

    sha256: str
    content_sha256: str


def sha256_of(shards: ShardSet, progress: Progress | None = None) -> str:
    """Lower-case hex SHA-256 of all files in order, as `cat` and `sha256sum` would give it.

    Streams in constant memory; `progress(done, total)` counts bytes over all files. InputError if a file
    cannot be read or is no longer as long as it was.
    """
    import hashlib

    digest = hashlib.sha256()
    done, total = 0, shards.n_bytes
    for path in shards.paths:
        for block in _blocks(path):
            digest.update(block)
            done += len(block)
            if progress is not None:
                progress(done, total)
    if done != total:
        raise InputError(f"{shards.path}: changed while it was read ({total} bytes before, {done} now)")
    return digest.hexdigest()


def content_sha256(shards: ShardSet, progress: Progress | None = None) -> str:
    """Lower-case hex SHA-256 of what llama.cpp computes with: equal for all files that hold the same.

    It covers the first file's keys (llama.cpp reads no others) with types and exact bytes, except `edgecal.*`,
    `general.sampling.*`, `split.*` and `general.alignment`, and name, type, shape and bytes of every tensor of all
    files. Neither the order of keys and tensors counts nor what lies between them.

    Streams in constant memory; `progress(done, total)` counts bytes over all files. InputError if a file cannot be
    read or has changed since its header was, or if tensors overlap, which llama.cpp refuses.
    """
    return _digest(shards, None, progress)


def digests_of(shards: ShardSet, progress: Progress | None = None) -> ModelDigests:
    """Both digests of a model, whose files are read once; a second thread makes the second digest.

    Progress and errors as for `content_sha256`.
    """
    import hashlib

    files = hashlib.sha256()
    content = _digest(shards, files, progress)
    return ModelDigests(files.hexdigest(), content)


def _digest(shards: ShardSet, files: _Hash | None, progress: Progress | None) -> str:
    """The digest of the content; every byte of every file also goes into `files`, if that is given."""
    import hashlib

    content = hashlib.sha256(b"edgecal content %d\n" % CONTENT_REVISION)
    tensors: list[tuple[bytes, bytes]] = []
    done, total = 0, shards.n_bytes
    with _Aside() as aside:
        for header in shards.headers:
            spans = _Spans(header)
            with _unchanged(header) as descriptor:
                if header is shards.header:
                    _add_keys(content, header, descriptor)
                position = 0 if files is not None else min(header.data_start, header.file_size)
                while position < header.file_size:
                    block = _read(descriptor, position, min(BLOCK_BYTES, header.file_size - position), header)
                    if files is not None:
                        aside.update(files, block)
                    spans.update(position, block)
                    position += len(block)
                    if progress is not None:
                        progress(done + position, total)
            done += header.file_size
            tensors += spans.digests()
    content.update(struct.pack("<Q", len(tensors)))
    for entry, digest in sorted(tensors):
        content.update(entry + digest)
    return content.hexdigest()


def _add_keys(content: _Hash, header: Header, descriptor: int) -> None:
    """Every key that counts, by name: name, type, length and bytes."""
    counted = sorted(
        (name.encode("utf-8", "surrogateescape"), entry.start, entry)
        for name, entry in header.entries.items()
        if name != ALIGNMENT_KEY and not name.startswith(_LEFT_OUT)
    )
    content.update(struct.pack("<Q", len(counted)))
    for name, _, entry in counted:
        n_bytes = entry.end - entry.value_start
        content.update(struct.pack("<Q", len(name)) + name + struct.pack("<IQ", entry.type, n_bytes))
        for block in _value_blocks(header, entry, descriptor):
            content.update(block)


def _value_blocks(header: Header, entry: KeyEntry, descriptor: int) -> Iterator[bytes]:
    if entry.raw is not None:
        yield entry.raw
        return
    for position in range(entry.value_start, entry.end, BLOCK_BYTES):
        yield _read(descriptor, position, min(BLOCK_BYTES, entry.end - position), header)


class _Spans:
    """One digest for each tensor of a file, whose bytes come by in the file's order."""

    def __init__(self, header: Header) -> None:
        import hashlib

        infos = sorted(header.tensors.values(), key=lambda info: (info.data_offset, info.n_bytes or 0))
        starts = [info.data_offset for info in infos]
        ends = [*starts[1:], header.file_size]
        self._spans: list[tuple[int, int, TensorInfo, _Hash]] = []
        for info, most in zip(infos, ends, strict=True):
            # Of a type that is not known only the next tensor tells the size.
            end = most if info.n_bytes is None else info.data_offset + info.n_bytes
            if end > most:
                raise InputError(
                    f"{header.path}: damaged GGUF header: tensor {quoted(info.name)} overlaps the next; "
                    "download or convert the file again"
                )
            self._spans.append((info.data_offset, end, info, hashlib.sha256()))
        self._next = 0

    def update(self, position: int, block: bytes) -> None:
        """Take the file's bytes from `position` on."""
        view = memoryview(block)
        after = position + len(block)
        while self._next < len(self._spans):
            start, end, _, digest = self._spans[self._next]
            if start >= after:
                return
            digest.update(view[max(start - position, 0) : max(end - position, 0)])
            if end > after:
                return
            self._next += 1

    def digests(self) -> list[tuple[bytes, bytes]]:
        """(name, type and shape; digest of the bytes) of each tensor."""
        found = []
        for start, end, info, digest in self._spans:
            name = info.name.encode("utf-8", "surrogateescape")
            shape = struct.pack(f"<IQ{len(info.ne)}Q", info.type_id, len(info.ne), *info.ne)
            size = struct.pack("<Q", end - start)
            found.append((struct.pack("<Q", len(name)) + name + shape + size, digest.digest()))
        return found


class _Aside:
    """Feeds a digest in a second thread, at most one block behind; a context manager.

    When the context ends without an error, everything that was given has gone in.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._pending: Future[None] | None = None

    def __enter__(self) -> _Aside:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=kind is not None)
        if kind is None and self._pending is not None:
            self._pending.result()

    def update(self, digest: _Hash, block: bytes) -> None:
        if self._pending is not None:
            self._pending.result()
        self._pending = self._pool.submit(digest.update, block)


@contextlib.contextmanager
def _unchanged(header: Header) -> Iterator[int]:
    """A descriptor of the file; InputError if it is not what the header was read from, before or after."""
    with header.opened() as descriptor:
        yield descriptor
        if FileIdentity.of(os.fstat(descriptor)) != header.identity:
            raise InputError(f"{header.path}: changed while it was read; start again")


def _read(descriptor: int, position: int, n_bytes: int, header: Header) -> bytes:
    """Exactly `n_bytes` bytes."""
    parts = []
    try:
        os.lseek(descriptor, position, os.SEEK_SET)
        while n_bytes > 0:
            part = os.read(descriptor, n_bytes)
            if not part:
                raise InputError(f"{header.path}: changed while it was read: it is shorter now; start again")
            parts.append(part)
            n_bytes -= len(part)
    except OSError as error:
        raise InputError(f"{header.path}: cannot be read: {error.strerror}") from error
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _blocks(path: Path) -> Iterator[memoryview]:
    view = memoryview(bytearray(BLOCK_BYTES))
    try:
        with path.open("rb", buffering=0) as file:
            while n_bytes := file.readinto(view):
                yield view[:n_bytes]
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
