"""Hashes a model: its files' bytes, or only what llama.cpp computes with.

`sha256_of` gives what `sha256sum` prints and what a calibration record names. `content_sha256` stays the same when a
file is stamped, stripped, split, merged, realigned or given other sampling defaults, and changes with any weight or key
that may affect the computation; so a baked file's differs from its original's.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from edgecal.errors import InputError
from edgecal.gguf.header import ALIGNMENT_KEY, PREFIX, Header
from edgecal.gguf.shards import ShardSet
from edgecal.gguf.spans import Progress, file_blocks
from edgecal.gguf.tensors import TensorInfo
from edgecal.gguf.values import quoted

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = ["CONTENT_DIGEST", "CONTENT_REVISION", "content_sha256", "sha256_of"]

# Revision of what `content_sha256` covers; digests of different revisions cannot be compared.
CONTENT_REVISION = 1
CONTENT_DIGEST = f"content/{CONTENT_REVISION}"  # its name among a file's digests in the cache

# Keys that do not affect what llama.cpp computes: edgecal's own, sampling defaults, and the layout of files.
_LEFT_OUT = (PREFIX, "general.sampling.", "split.")


def sha256_of(shards: ShardSet, progress: Progress | None = None) -> str:
    """Lower-case hex SHA-256 of all files in order, as `cat` and `sha256sum` would give it.

    Streams in constant memory; `progress(done, total)` counts bytes over all files. InputError if a file
    cannot be read or has changed its length.
    """
    import hashlib

    digest = hashlib.sha256()
    done, total = 0, shards.n_bytes
    for path in shards.paths:
        for block in file_blocks(path):
            digest.update(block)
            done += len(block)
            if progress is not None:
                progress(done, total)
    if done != total:
        raise InputError(f"{shards.path}: changed while it was read ({total} bytes before, {done} now)")
    return digest.hexdigest()


def content_sha256(shards: ShardSet, progress: Progress | None = None) -> str:
    """Lower-case hex SHA-256 of what llama.cpp computes with.

    It covers the first file's keys (llama.cpp reads no others) with types and exact bytes, except `edgecal.*`,
    `general.sampling.*`, `split.*` and `general.alignment`, and name, type, shape and bytes of every tensor of all
    files. The order of keys and tensors does not count, nor do the bytes between them.

    Streams in constant memory; `progress(done, total)` counts bytes over all files. InputError if a file cannot be
    read or has changed since its header was, or if tensors overlap, which llama.cpp refuses.
    """
    import hashlib

    content = hashlib.sha256(b"edgecal content %d\n" % CONTENT_REVISION)
    _add_keys(content, shards.header)
    tensors: list[tuple[bytes, bytes]] = []
    done, total = 0, shards.n_bytes
    for header in shards.headers:
        spans = _Spans(header)
        position = min(header.data_start, header.file_size)
        for block in header.blocks(position, header.file_size):
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


def _add_keys(content: _Hash, header: Header) -> None:
    """Adds every key that counts, sorted by name: name, type, length and bytes."""
    counted = sorted(
        (name.encode("utf-8", "surrogateescape"), entry.start, entry)
        for name, entry in header.entries.items()
        if name != ALIGNMENT_KEY and not name.startswith(_LEFT_OUT)
    )
    content.update(struct.pack("<Q", len(counted)))
    for name, _, entry in counted:
        n_bytes = entry.end - entry.value_start
        content.update(struct.pack("<Q", len(name)) + name + struct.pack("<IQ", entry.type, n_bytes))
        held = (entry.raw,) if entry.raw is not None else header.blocks(entry.value_start, entry.end)
        for block in held:
            content.update(block)


class _Spans:
    """Computes one digest for each tensor while a file's bytes pass through in order."""

    def __init__(self, header: Header) -> None:
        import hashlib

        infos = sorted(header.tensors.values(), key=lambda info: (info.data_offset, info.n_bytes or 0))
        starts = [info.data_offset for info in infos]
        ends = [*starts[1:], header.file_size]
        self._spans: list[tuple[int, int, TensorInfo, _Hash]] = []
        for info, most in zip(infos, ends, strict=True):
            # The size of an unknown type is known only from the next tensor.
            end = most if info.n_bytes is None else info.data_offset + info.n_bytes
            if end > most:
                raise InputError(
                    f"{header.path}: damaged GGUF header: tensor {quoted(info.name)} overlaps the next; "
                    "download or convert the file again"
                )
            self._spans.append((info.data_offset, end, info, hashlib.sha256()))
        self._next = 0

    def update(self, position: int, block: bytes) -> None:
        """Adds the file's bytes from `position` on."""
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
