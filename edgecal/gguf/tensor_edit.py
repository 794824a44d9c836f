"""Rewriting a file with other keys and with the bytes of some tensors replaced, everything else as it was.

Knows how a header with any list of keys is put together, where a tensor's bytes lie, and how to prove what was
written. Does not know what keys or tensors mean, nor where a result may be written (`output`).

No tensor changes its size, type or place: offsets count from the start of the tensor data, which moves as a
whole.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgecal.errors import InputError, OutputError
from edgecal.gguf.bounded_reader import BoundedReader, FileIdentity
from edgecal.gguf.draft import Draft, drafting, output_errors
from edgecal.gguf.header import ALIGNMENT_KEY, MAGIC, MAX_KEYS, Header, read_header
from edgecal.gguf.spans import PLAIN_BYTES, Progress, copy_span, write_all
from edgecal.gguf.tensors import TensorInfo
from edgecal.gguf.values import Value, encode_text, quoted

__all__ = ["KeyList", "header_bytes", "planned_header", "read_tensor", "rewritten_draft"]

KeyList = Sequence[tuple[str, Value | None]]  # every key of the result in order; None: as it is in the source

_Piece = bytes | tuple[int, int]  # literal bytes, or a span of the source: from, to


@dataclass(frozen=True)
class _Layout:
    """The bytes in front of the tensor data, and where these begin."""

    pieces: tuple[_Piece, ...]
    header_end: int
    data_start: int


def read_tensor(header: Header, name: str) -> bytes:
    """The bytes of one tensor.

    InputError: there is no such tensor, its type is unknown, or the file has changed since it was read.
    """
    info = _tensor(header, name)
    assert info.n_bytes is not None
    with BoundedReader(header.path) as reader:
        if reader.identity != header.identity:
            raise InputError(f"{header.path}: changed since it was first read; start again")
        reader.position = info.data_offset
        return reader.take(info.n_bytes, f"tensor {quoted(name)}")


def header_bytes(header: Header, start: int = 0) -> Iterator[bytes]:
    """Everything in front of a file's tensor data, padding included, from `start` on, in blocks of at most 1 MiB."""
    with _opened(header) as file:
        yield from _blocks(file, [(start, header.data_start)], header.path)


def planned_header(source: Header, keys: KeyList, padding: bytes | None = None) -> Iterator[bytes]:
    """What `rewritten_draft` would write in front of the tensor data, in blocks of at most 1 MiB or one value.

    InputError as for `rewritten_draft`.
    """
    layout = _plan(source, keys, padding)
    with _opened(source) as file:
        yield from _blocks(file, layout.pieces, source.path)


@contextlib.contextmanager
def rewritten_draft(
    source: Header,
    output: Path,
    *,
    keys: KeyList,
    tensors: Mapping[str, bytes] | None = None,
    padding: bytes | None = None,
    verify: bool = False,
    progress: Progress | None = None,
) -> Iterator[Draft]:
    """`source` with exactly these `keys` and with the bytes of `tensors`, complete, flushed and read back, still
    under a hidden name beside `output`.

    Parameters
    ----------
    keys: every key of the result in order, each with its value, or None for the source's own.
    tensors: name to bytes, as many as the tensor has.
    padding: what stands between header and tensor data, if it is as long as the gap; else the source's own
        where the header's size stays, else zeros.
    verify: compare the tensor data outside `tensors` with the source, byte by byte.
    progress: called with (bytes copied, bytes in total).

    The body decides about `Draft.publish`; without it the draft is removed.

    Raises
    ------
    InputError: a key is there twice or is not in the source, the alignment would change, a tensor is missing,
        has another size or shares its bytes with another one, or the source has changed since it was read.
    OutputError: anything that the file system refuses; what was read back differs from what was written.
    """
    tensors = {} if tensors is None else tensors
    layout = _plan(source, keys, padding)
    places = {name: _place(source, layout, name, data) for name, data in tensors.items()}
    data_bytes = source.file_size - source.data_start
    with (
        output_errors(output, layout.data_start + data_bytes),
        _opened(source) as file,
        drafting(output, like=os.fstat(file), source=source.path) as draft,
    ):
        for block in _blocks(file, layout.pieces, source.path):
            write_all(draft.descriptor, block)
        copy_span(file, source.data_start, data_bytes, draft.descriptor, progress)
        for name, data in tensors.items():
            os.lseek(draft.descriptor, places[name], os.SEEK_SET)
            write_all(draft.descriptor, data)
        os.fsync(draft.descriptor)
        _check_header(source, layout, keys, file, draft)
        for name, data in tensors.items():
            if _read(draft.descriptor, places[name], len(data)) != data:
                raise OutputError(f"{output}: tensor {quoted(name)} read back differs from what was written")
        if verify:
            spans = sorted((places[name], places[name] + len(data)) for name, data in tensors.items())
            _check_data(source, layout, spans, file, draft)
        if FileIdentity.of(os.fstat(file)) != source.identity:
            raise OutputError(f"{source.path}: changed while it was copied; nothing was written")
        yield draft


def _plan(source: Header, keys: KeyList, padding: bytes | None) -> _Layout:
    names = [name for name, _ in keys]
    if len(set(names)) != len(names) or len(names) > MAX_KEYS:
        raise InputError(f"{source.path}: a key twice, or more than {MAX_KEYS} keys, cannot be written")
    own = source.value(ALIGNMENT_KEY) if ALIGNMENT_KEY in source else None
    chosen = dict(keys).get(ALIGNMENT_KEY)
    if (own is None) != (ALIGNMENT_KEY not in names) or (chosen is not None and chosen != own):
        raise InputError(f"{source.path}: {ALIGNMENT_KEY} cannot be edited: every tensor would have to move")
    pieces: list[_Piece] = [
        struct.pack("<4sIQQ", MAGIC, source.version, len(source.tensors), len(names)),
    ]
    for name, value in keys:
        if value is None:
            if name not in source:
                raise InputError(f"{source.path}: has no key {quoted(name)}")
            entry = source.entries[name]
            pieces.append((entry.start, entry.end))
        else:
            raw = encode_text(name)
            pieces.append(struct.pack("<Q", len(raw)) + raw + struct.pack("<I", value.type) + value.raw)
    pieces.append((source.keys_end, source.header_end))
    header_end = sum(len(piece) if isinstance(piece, bytes) else piece[1] - piece[0] for piece in pieces)
    data_start = header_end
    if source.has_tensors:
        data_start = -(-header_end // source.alignment) * source.alignment
    if padding is not None and len(padding) == data_start - header_end:
        pieces.append(padding)
    elif header_end == source.header_end:
        pieces.append((source.header_end, source.data_start))
    else:
        starts = range(header_end, data_start, PLAIN_BYTES)
        pieces += [bytes(min(PLAIN_BYTES, data_start - start)) for start in starts]
    return _Layout(tuple(pieces), header_end, data_start)


def _tensor(source: Header, name: str) -> TensorInfo:
    info = source.tensors.get(name)
    if info is None or info.n_bytes is None:
        what = "has no tensor" if info is None else f"does not know the type ({info.type_name}) of tensor"
        raise InputError(f"{source.path}: {what} {quoted(name)}")
    return info


def _place(source: Header, layout: _Layout, name: str, data: bytes) -> int:
    """Where the tensor's bytes begin in the new file, after making sure that they are its own."""
    info = _tensor(source, name)
    if info.n_bytes != len(data):
        raise InputError(
            f"{source.path}: tensor {quoted(name)} has {info.n_bytes} bytes, {len(data)} were given"
        )
    end = info.offset + len(data)
    for other in source.tensors.values():
        if other.name != name and other.offset < end and other.offset + (other.n_bytes or 1) > info.offset:
            raise InputError(
                f"{source.path}: tensors {quoted(name)} and {quoted(other.name)} share bytes; changing one "
                "would change the other"
            )
    return layout.data_start + info.offset


@contextlib.contextmanager
def _opened(source: Header) -> Iterator[int]:
    """A descriptor of the file whose header this is; InputError if it is gone or another one."""
    try:
        file = source.path.open("rb", buffering=0)
    except OSError as error:
        raise InputError(f"{source.path}: cannot be opened: {error.strerror}") from error
    with file:
        if FileIdentity.of(os.fstat(file.fileno())) != source.identity:
            raise InputError(f"{source.path}: changed since it was first read; start again")
        yield file.fileno()


def _blocks(source: int, pieces: Sequence[_Piece], path: Path) -> Iterator[bytes]:
    """The pieces' bytes, in blocks of at most 1 MiB or one literal."""
    for piece in pieces:
        if isinstance(piece, bytes):
            yield piece
            continue
        position, end = piece
        while position < end:
            block = _read(source, position, min(PLAIN_BYTES, end - position))
            if not block:
                raise OutputError(f"{path}: became shorter while it was copied")
            position += len(block)
            yield block


def _read(descriptor: int, position: int, n_bytes: int) -> bytes:
    """Up to `n_bytes` bytes from there, fewer at the end of the file."""
    os.lseek(descriptor, position, os.SEEK_SET)
    parts = []
    while n_bytes > 0 and (part := os.read(descriptor, n_bytes)):
        parts.append(part)
        n_bytes -= len(part)
    return b"".join(parts)


def _check_header(source: Header, layout: _Layout, keys: KeyList, file: int, draft: Draft) -> None:
    """Read the draft's header back and compare it, as bytes and as read, with what was meant."""
    position = 0
    for block in _blocks(file, layout.pieces, source.path):
        if _read(draft.descriptor, position, len(block)) != block:
            raise OutputError(f"{draft.target}: the header read back differs from what was written")
        position += len(block)
    try:
        header = read_header(draft.path)
        values = {name: header.value(name) for name, value in keys if value is not None and name in header}
    except InputError as error:
        raise OutputError(f"{draft.target}: the file read back is not sound ({error})") from error
    places = [(info.name, info.ne, info.type_id, info.offset) for info in source.tensors.values()]
    same = (
        header.keys == tuple(name for name, _ in keys)
        and values == {name: value for name, value in keys if value is not None}
        and [(info.name, info.ne, info.type_id, info.offset) for info in header.tensors.values()] == places
        and (header.version, header.alignment) == (source.version, source.alignment)
        and (header.header_end, header.data_start) == (layout.header_end, layout.data_start)
        and header.file_size == layout.data_start + source.file_size - source.data_start
    )
    if not same:
        raise OutputError(f"{draft.target}: the header read back differs from what was meant")


def _check_data(
    source: Header, layout: _Layout, spans: Sequence[tuple[int, int]], file: int, draft: Draft
) -> None:
    """Compare all tensor data but the spans (of the draft, ascending) with the source's."""
    shift = layout.data_start - source.data_start
    position = layout.data_start
    for start, end in (*spans, (source.file_size + shift, source.file_size + shift)):
        while position < start:
            n_bytes = min(PLAIN_BYTES, start - position)
            theirs = _read(file, position - shift, n_bytes)
            if len(theirs) < n_bytes or _read(draft.descriptor, position, n_bytes) != theirs:
                raise OutputError(
                    f"{draft.target}: tensor data near byte {position} differ from the source's"
                )
            position += n_bytes
        position = end
