"""Rewrites a GGUF file: a new file with other keys, or other bytes in some tensors, and every other byte unchanged.

Tensor offsets are relative to the start of the tensor data, so no tensor changes its size, type or place; the data move
as a whole, and the kernel copies them. What was written is read back and compared with what was intended before the new
file gets its name.

Padding between header and data is zeros, but a file may have come with other bytes there. A reversible edit keeps them
in a key (`padding_edits`); the edit that removes this key restores them, if the gap then has the same size.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgecal.errors import InputError, OutputError
from edgecal.gguf.bounded_reader import FileIdentity
from edgecal.gguf.copying import copy_span
from edgecal.gguf.draft import Draft, drafting, output_errors
from edgecal.gguf.header import (
    ALIGNMENT_KEY,
    MAGIC,
    MAX_KEY_BYTES,
    MAX_KEYS,
    PADDING_KEY,
    Header,
    read_header,
)
from edgecal.gguf.spans import BLOCK_BYTES, Progress, check_same_data, read_blocks, read_span, write_all
from edgecal.gguf.tensors import TensorInfo
from edgecal.gguf.values import ARRAY_HEAD_BYTES, Value, ValueType, encode_text, quoted

__all__ = [
    "HeaderPlan",
    "KeyList",
    "Piece",
    "edited_keys",
    "edited_size",
    "header_bytes",
    "padding_edits",
    "plan_edit",
    "planned_header",
    "read_tensor",
    "restored_padding",
    "rewritten_draft",
    "write_edited",
]

KeyList = Sequence[tuple[str, Value | None]]  # every key of the result in order; None: as it is in the source

Piece = bytes | tuple[int, int]  # literal bytes, or a span (from, to) of the source


@dataclass(frozen=True)
class HeaderPlan:
    """A header to be written. `pieces` make up the bytes before the tensor data, `types` are the types of the result's
    keys, both in order; the tensor entries end at `header_end`, the data begin at `data_start`."""

    source: Header
    pieces: tuple[Piece, ...]
    types: Mapping[str, ValueType]
    header_end: int
    data_start: int

    @property
    def data_bytes(self) -> int:
        return self.source.file_size - self.source.data_start

    @property
    def size(self) -> int:
        """Bytes of the whole new file."""
        return self.data_start + self.data_bytes

    def blocks(self, file: int) -> Iterator[bytes]:
        """The bytes before the tensor data, in blocks of at most 1 MiB or one literal; `file` is the source."""
        for piece in self.pieces:
            if isinstance(piece, bytes):
                yield piece
                continue
            n_read = 0
            for block in read_blocks(file, *piece):
                n_read += len(block)
                yield block
            if n_read < piece[1] - piece[0]:
                raise OutputError(f"{self.source.path}: became shorter while it was copied")


def edited_keys(source: Header, changes: Mapping[str, Value], remove: Collection[str]) -> KeyList:
    """All keys after an edit: changed ones keep their place, new ones follow the last, in the order given; keys in
    `remove` that are not there are ignored. InputError: one is both set and removed."""
    for name in changes:
        if name in remove:
            raise InputError(f"{quoted(name)} cannot be both set and removed")
    kept = [(name, changes.get(name)) for name in source.keys if name not in remove]
    return [*kept, *((name, value) for name, value in changes.items() if name not in source)]


def plan_edit(source: Header, changes: Mapping[str, Value], remove: Collection[str]) -> HeaderPlan:
    """The header that an edit results in, not yet written; InputError as `write_edited`."""
    return _plan(source, edited_keys(source, changes, remove), restored_padding(source, remove))


def edited_size(source: Header, changes: Mapping[str, Value], remove: Collection[str] = ()) -> int:
    """The size in bytes of the edited file; InputError as `write_edited`."""
    return plan_edit(source, changes, remove).size


def padding_edits(source: Header) -> dict[str, Value]:
    """The key that a reversible edit must set to keep the padding; none if the padding is zeros.

    InputError as for `Header.padding`.
    """
    padding = source.padding()
    return {PADDING_KEY: Value.array(ValueType.UINT8, padding)} if padding else {}


def restored_padding(source: Header, remove: Collection[str]) -> bytes:
    """What `padding_edits` kept, if an edit removes its key; else b""."""
    entry = source.entries.get(PADDING_KEY)
    if PADDING_KEY not in remove or entry is None or entry.element_type is not ValueType.UINT8:
        return b""
    return source.array_bytes(PADDING_KEY)[ARRAY_HEAD_BYTES:]


def header_bytes(header: Header, start: int = 0) -> Iterator[bytes]:
    """Everything before a file's tensor data, padding included, from `start` on, in blocks of at most 1 MiB."""
    yield from header.blocks(start, header.data_start)


def planned_header(source: Header, keys: KeyList, padding: bytes | None = None) -> Iterator[bytes]:
    """What `rewritten_draft` would write before the tensor data, in blocks of at most 1 MiB or one value.

    InputError as for `rewritten_draft`.
    """
    plan = _plan(source, keys, padding)
    with source.opened() as file:
        yield from plan.blocks(file)


def read_tensor(header: Header, name: str) -> bytes:
    """The bytes of one tensor.

    InputError: there is no such tensor, its type is unknown, or the file has changed since it was read.
    """
    info = _tensor(header, name)
    assert info.n_bytes is not None
    return b"".join(header.blocks(info.data_offset, info.data_offset + info.n_bytes))


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
    """Writes `source` with exactly these `keys` and the bytes of `tensors` to a draft: complete, flushed and read back,
    but still under a hidden name beside `output`.

    Parameters
    ----------
    keys: every key of the result in order, each with its value, or None for the source's own.
    tensors: name to bytes, as many as the tensor has.
    padding: the bytes between header and tensor data, if they fill the gap exactly; else the source's own if the header
        keeps its size, else zeros.
    verify: also read all other tensor data back and compare them with the source's, byte by byte.
    progress: called with (bytes copied, bytes in total).

    The body may call `Draft.publish`; otherwise the draft is removed.

    Raises
    ------
    InputError: a key is repeated, missing in the source or has an impossible name; the alignment would change; a tensor
        is missing, has another size or shares its bytes with another one; or the source has changed since it was read.
    OutputError: anything that the file system refuses; what was read back differs from what was written.
    """
    tensors = {} if tensors is None else tensors
    plan = _plan(source, keys, padding)
    places = {name: _place(plan, name, data) for name, data in tensors.items()}
    with (
        output_errors(output, plan.size),
        source.opened() as file,
        drafting(output, like=os.fstat(file), source=source.path) as draft,
    ):
        for block in plan.blocks(file):
            write_all(draft.descriptor, block)
        copy_span(file, source.data_start, plan.data_bytes, draft.descriptor, progress)
        for name, data in tensors.items():
            os.lseek(draft.descriptor, places[name], os.SEEK_SET)
            write_all(draft.descriptor, data)
        os.fsync(draft.descriptor)
        _check_header(plan, keys, file, draft)
        spans = [(places[name], places[name] + len(data)) for name, data in tensors.items()]
        for (start, end), (name, data) in zip(spans, tensors.items(), strict=True):
            if read_span(draft.descriptor, start, end) != data:
                raise OutputError(f"{output}: tensor {quoted(name)} read back differs from what was written")
        if verify:
            check_same_data(
                file, source.data_start, draft.descriptor, plan.data_start, output, except_for=sorted(spans)
            )
        if FileIdentity.of(os.fstat(file)) != source.identity:
            raise OutputError(f"{source.path}: changed while it was copied; nothing was written")
        yield draft


def write_edited(
    source: Header,
    output: Path,
    *,
    changes: Mapping[str, Value],
    remove: Collection[str] = (),
    overwrite: bool = True,
    verify: bool = False,
    progress: Progress | None = None,
) -> Header:
    """Writes `source` to `output` with `changes` made and the keys `remove` left out; returns the new file's header.

    Keys come in the order of `edited_keys`. Everything else stays byte for byte: order, other values, alignment,
    version, tensor data, and whatever follows them. `output` may be the source itself; a symbolic link there is
    replaced, not followed.

    The file is written beside `output`, flushed, read back and compared (the header; with `verify` the tensor data
    too), and renamed: a kill at any moment leaves the old state or the new. With `overwrite` false an existing `output`
    is left alone. InputError: an impossible name or value, an edit of the alignment, a source that has changed since it
    was read. OutputError: the file system refuses, with the reason.
    """
    with rewritten_draft(
        source,
        output,
        keys=edited_keys(source, changes, remove),
        padding=restored_padding(source, remove),
        verify=verify,
        progress=progress,
    ) as draft:
        draft.publish(overwrite=overwrite)
    return read_header(output)


def _plan(source: Header, keys: KeyList, padding: bytes | None) -> HeaderPlan:
    _check_keys(source, keys)
    pieces: list[Piece] = [struct.pack("<4sIQQ", MAGIC, source.version, len(source.tensors), len(keys))]
    types: dict[str, ValueType] = {}
    for name, value in keys:
        entry = source.entries.get(name)
        if value is None:
            assert entry is not None
            pieces.append((entry.start, entry.end))
            types[name] = entry.type
            continue
        if entry is not None:
            pieces.append((entry.start, entry.value_start - 4))  # the name as stored; the type tag follows
        else:
            raw_name = encode_text(name)
            pieces.append(struct.pack("<Q", len(raw_name)) + raw_name)
        pieces.append(struct.pack("<I", value.type) + value.raw)
        types[name] = value.type
    pieces = _join([*pieces, (source.keys_end, source.header_end)])
    header_end = sum(len(piece) if isinstance(piece, bytes) else piece[1] - piece[0] for piece in pieces)
    data_start = header_end
    if source.has_tensors:
        data_start = -(-header_end // source.alignment) * source.alignment
    gap = data_start - header_end
    if len(padding or b"") == gap:
        pieces.append(padding or b"")
    elif header_end == source.header_end:
        pieces.append((source.header_end, source.data_start))  # keeps the padding, whatever it holds
    else:
        pieces += [bytes(min(BLOCK_BYTES, gap - start)) for start in range(0, gap, BLOCK_BYTES)]
    return HeaderPlan(source, tuple(pieces), types, header_end, data_start)


def _check_keys(source: Header, keys: KeyList) -> None:
    values = dict(keys)
    if len(values) != len(keys) or len(keys) > MAX_KEYS:
        raise InputError(f"{source.path}: a key twice, or more than {MAX_KEYS} keys, cannot be written")
    for name, value in keys:
        if name in source:
            continue
        if value is None:
            raise InputError(f"{source.path}: has no key {quoted(name)}")
        if not 0 < len(encode_text(name)) <= MAX_KEY_BYTES:
            raise InputError(
                f"{quoted(name)} is not a valid key name: 1 to {MAX_KEY_BYTES} bytes are allowed"
            )
    own = source.value(ALIGNMENT_KEY) if ALIGNMENT_KEY in source else None
    wanted = values.get(ALIGNMENT_KEY) or own
    if (own is None) != (ALIGNMENT_KEY not in values) or wanted != own:
        raise InputError(f"{source.path}: {ALIGNMENT_KEY} cannot be edited: every tensor would have to move")


def _join(pieces: list[Piece]) -> list[Piece]:
    """Merges neighbours, so that an untouched header is one span."""
    joined: list[Piece] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if isinstance(piece, tuple) and isinstance(last, tuple) and last[1] == piece[0]:
            joined[-1] = (last[0], piece[1])
        else:
            joined.append(piece)
    return joined


def _tensor(source: Header, name: str) -> TensorInfo:
    info = source.tensors.get(name)
    if info is None or info.n_bytes is None:
        what = "has no tensor" if info is None else f"has an unknown type ({info.type_name}) for tensor"
        raise InputError(f"{source.path}: {what} {quoted(name)}")
    return info


def _place(plan: HeaderPlan, name: str, data: bytes) -> int:
    """Where the tensor's bytes begin in the new file; InputError if they are shared with another tensor."""
    source, info = plan.source, _tensor(plan.source, name)
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
    return plan.data_start + info.offset


def _check_header(plan: HeaderPlan, keys: KeyList, file: int, draft: Draft) -> None:
    """Reads the draft's header back and compares it, as bytes and as parsed, with what was intended."""
    position = 0
    for block in plan.blocks(file):
        if read_span(draft.descriptor, position, position + len(block)) != block:
            raise OutputError(f"{draft.target}: the header read back differs from what was written")
        position += len(block)
    source, wanted = plan.source, {name: value for name, value in keys if value is not None}
    try:
        header = read_header(draft.path)
        values = {name: header.value(name) for name in wanted if name in header}
    except InputError as error:
        raise OutputError(f"{draft.target}: the file read back is not sound ({error})") from error
    places, found = (
        [(info.name, info.ne, info.type_id, info.offset) for info in one.tensors.values()]
        for one in (source, header)
    )
    same = (
        [(name, entry.type) for name, entry in header.entries.items()] == list(plan.types.items())
        and values == wanted
        and found == places
        and (header.version, header.alignment) == (source.version, source.alignment)
        and (header.header_end, header.data_start) == (plan.header_end, plan.data_start)
        and header.file_size == plan.size
    )
    if not same:
        raise OutputError(f"{draft.target}: the header read back differs from what was intended")
