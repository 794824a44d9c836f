"""Editing metadata: a new file with some keys changed, added or removed and every other byte as it was.

Knows how a header is put together again and how to prove that it was. Does not know what the keys mean,
nor where a result may be written (`output`).

Tensor offsets are relative to the start of the tensor data, so they stay; only the padding in front of the
data changes. Everything from there to the end of the file is copied by the kernel.

Padding is zeros, but a file may have come with other bytes there: what `padding` kept of them is put back by the
edit that takes its key out, if there then is as much room as before.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgecal.errors import InputError, OutputError
from edgecal.gguf.bounded_reader import FileIdentity
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
from edgecal.gguf.padding import kept_padding
from edgecal.gguf.spans import PLAIN_BYTES, Progress, check_same_data, copy_span, write_all
from edgecal.gguf.values import Value, ValueType, encode_text, quoted

__all__ = ["PADDING_KEY", "edited_draft", "edited_size", "plan_edit", "write_edited"]

_Span = tuple[int, int]  # from, to, in the source file


@dataclass(frozen=True)
class _Edit:
    """A header to be written: literal bytes and spans of the source, in order."""

    source: Header
    pieces: tuple[bytes | _Span, ...]
    types: Mapping[str, ValueType]  # of all keys of the result, in order
    data_start: int

    @property
    def data_bytes(self) -> int:
        return self.source.file_size - self.source.data_start

    @property
    def size(self) -> int:
        return self.data_start + self.data_bytes

    def blocks(self, source: int) -> Iterator[bytes]:
        """The bytes in front of the tensor data, in blocks of at most 1 MiB or one literal."""
        for piece in self.pieces:
            if isinstance(piece, bytes):
                yield piece
                continue
            position, end = piece
            while position < end:
                os.lseek(source, position, os.SEEK_SET)
                block = os.read(source, min(PLAIN_BYTES, end - position))
                if not block:
                    raise OutputError(f"{self.source.path}: became shorter while it was copied")
                position += len(block)
                yield block


def plan_edit(source: Header, changes: Mapping[str, Value], remove: Collection[str]) -> _Edit:
    """The header that an edit gives, worked out and not written; InputError as for `write_edited`."""
    _check_changes(source, changes, remove)
    literals: list[bytes | _Span] = []
    types: dict[str, ValueType] = {}
    for name, entry in source.entries.items():
        if name in remove:
            continue
        change = changes.get(name)
        types[name] = entry.type if change is None else change.type
        if change is None:
            literals.append((entry.start, entry.end))
        else:
            name_end = entry.value_start - 4  # the name as it is stored, then the type tag
            literals += [(entry.start, name_end), struct.pack("<I", change.type) + change.raw]
    for name, change in changes.items():
        if name not in types:
            raw_name = encode_text(name)
            head = struct.pack("<Q", len(raw_name)) + raw_name + struct.pack("<I", change.type)
            literals.append(head + change.raw)
            types[name] = change.type
    if len(types) > MAX_KEYS:
        raise InputError(f"{source.path}: more than {MAX_KEYS} keys after the edit")
    preamble = struct.pack("<4sIQQ", MAGIC, source.version, len(source.tensors), len(types))
    pieces = _join([preamble, *literals, (source.keys_end, source.header_end)])
    header_end = sum(len(piece) if isinstance(piece, bytes) else piece[1] - piece[0] for piece in pieces)
    data_start = header_end
    if source.has_tensors:
        data_start = -(-header_end // source.alignment) * source.alignment
        restored = kept_padding(source) if PADDING_KEY in remove else b""
        if len(restored) == data_start - header_end:
            pieces.append(restored)
        elif header_end == source.header_end:
            pieces.append((source.header_end, source.data_start))  # whatever the padding holds
        else:
            pieces += _zeros(data_start - header_end)
    return _Edit(source, tuple(pieces), types, data_start)


def _zeros(n_bytes: int) -> list[bytes | _Span]:
    block = bytes(min(n_bytes, PLAIN_BYTES))
    return [block[: min(len(block), n_bytes - start)] for start in range(0, n_bytes, max(len(block), 1))]


def _join(pieces: list[bytes | _Span]) -> list[bytes | _Span]:
    """Merge neighbours, so that an untouched header is one span."""
    joined: list[bytes | _Span] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if isinstance(piece, tuple) and isinstance(last, tuple) and last[1] == piece[0]:
            joined[-1] = (last[0], piece[1])
        else:
            joined.append(piece)
    return joined


def _check_changes(source: Header, changes: Mapping[str, Value], remove: Collection[str]) -> None:
    for name in changes:
        if name in remove:
            raise InputError(f"{quoted(name)} cannot be both set and removed")
        if not 0 < len(encode_text(name)) <= MAX_KEY_BYTES:
            raise InputError(
                f"{quoted(name)} is not a name for a key: 1 to {MAX_KEY_BYTES} bytes are allowed"
            )
    before = source.value(ALIGNMENT_KEY) if ALIGNMENT_KEY in source else None
    if ALIGNMENT_KEY in remove or changes.get(ALIGNMENT_KEY, before) != before:
        raise InputError(f"{ALIGNMENT_KEY} cannot be edited: every tensor would have to move")


def edited_size(source: Header, changes: Mapping[str, Value], remove: Collection[str] = ()) -> int:
    """Bytes that the edited file will have; InputError as for `write_edited`."""
    return plan_edit(source, changes, remove).size


@contextlib.contextmanager
def edited_draft(
    source: Header,
    output: Path,
    *,
    changes: Mapping[str, Value],
    remove: Collection[str] = (),
    verify: bool = False,
    progress: Progress | None = None,
) -> Iterator[Draft]:
    """The edited file, complete, flushed and read back, still under a hidden name beside `output`.

    With `verify` everything from the tensor data on is read back as well and compared byte by byte. The body
    decides about `Draft.publish`; without it the draft is removed. Errors as for `write_edited`.
    """
    edit = plan_edit(source, changes, remove)
    with (
        output_errors(output, edit.size),
        _opened(source) as file,
        drafting(output, like=os.fstat(file), source=source.path) as draft,
    ):
        for block in edit.blocks(file):
            write_all(draft.descriptor, block)
        copy_span(file, source.data_start, edit.data_bytes, draft.descriptor, progress)
        os.fsync(draft.descriptor)
        _check_header(edit, file, draft, changes)
        if verify:
            check_same_data(file, source.data_start, draft.descriptor, edit.data_start, output)
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
    """Write `source` with `changes` made and `remove` taken out to `output`; the new file's header.

    Changed keys keep their place, new ones follow the last, in the order given; keys in `remove` that are
    not there are ignored. All else stays byte for byte: order, other values, alignment, version, tensor
    data, and whatever follows it. `output` may be the source itself; a symbolic link there is replaced, not
    followed.

    The file is written beside `output`, flushed, its header read back and compared, with `verify` the tensor
    data too, and renamed over it: a kill at any moment leaves the old state or the new. With `overwrite` false
    an existing `output` is left alone. InputError: names or values that cannot be, an edit of the alignment, a
    source that has changed since it was read. OutputError: anything that the file system refuses, with the reason.
    """
    with edited_draft(
        source, output, changes=changes, remove=remove, verify=verify, progress=progress
    ) as draft:
        draft.publish(overwrite=overwrite)
    return read_header(output)


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


def _check_header(edit: _Edit, source: int, draft: Draft, changes: Mapping[str, Value]) -> None:
    """Read the draft's header back and compare it, as bytes and as read, with what was meant."""
    os.lseek(draft.descriptor, 0, os.SEEK_SET)
    for block in edit.blocks(source):
        found = b""
        while len(found) < len(block):
            part = os.read(draft.descriptor, len(block) - len(found))
            if not part:
                break
            found += part
        if found != block:
            raise OutputError(f"{draft.target}: the header read back differs from what was written")
    try:
        header = read_header(draft.path)
        same_values = all(header.value(name) == change for name, change in changes.items())
    except InputError as error:
        raise OutputError(f"{draft.target}: the file read back is not sound ({error})") from error
    before = edit.source
    places = [(info.name, info.ne, info.type_id, info.offset) for info in before.tensors.values()]
    same = (
        {name: entry.type for name, entry in header.entries.items()} == edit.types
        and header.keys == tuple(edit.types)
        and [(info.name, info.ne, info.type_id, info.offset) for info in header.tensors.values()] == places
        and (header.version, header.alignment) == (before.version, before.alignment)
        and (header.data_start, header.file_size) == (edit.data_start, edit.size)
    )
    if not (same and same_values):
        raise OutputError(f"{draft.target}: the header read back differs from what was meant")
