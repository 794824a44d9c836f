"""Lays out a header edited in place: the filler, how far the data shift, and which bytes to write.

The header grows by whole blocks through `edgecal.filler`, an array of zeros that is always the last key: later edits
use it up before anything is moved again. It is dropped where the header fills whole blocks without it, so that removing
everything that was added restores the original.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from edgecal.gguf.bounded_reader import FileIdentity
from edgecal.gguf.header import FILLER_KEY, KEEP_BYTES, PADDING_KEY, PREAMBLE_BYTES, Header, KeyEntry
from edgecal.gguf.inplace.kernel import block_bytes
from edgecal.gguf.inplace.patch import Patch, Span, anchor_of
from edgecal.gguf.rewrite import Piece, plan_edit
from edgecal.gguf.spans import read_exactly
from edgecal.gguf.values import Value, ValueType, encode_text

__all__ = ["MAX_FILLER_BYTES", "Layout", "header_after", "lay_out", "patch_for"]

MAX_FILLER_BYTES = 1 << 17  # with more filler than this, the file is made smaller instead

_ARRAY_HEAD = struct.Struct("<IQ")
_FILLER_HEAD_BYTES = 8 + len(FILLER_KEY) + 4 + _ARRAY_HEAD.size


@dataclass(frozen=True)
class Layout:
    """The new file's bytes before its tensor data, which move by `shift` bytes; its keys and their types; and the
    values that are new."""

    pieces: tuple[Piece, ...]
    shift: int
    types: Mapping[str, ValueType]
    values: Mapping[str, Value]


def lay_out(
    source: Header, file: int, changes: Mapping[str, Value], remove: Collection[str]
) -> Layout | None:
    """The new header, with a filler where that avoids moving or copying the tensors; None if the file must be
    copied."""
    block = block_bytes(file)
    unit = max(block, source.alignment) if block and source.has_tensors else 0
    bare = replace(source, entries={k: entry for k, entry in source.entries.items() if k != FILLER_KEY})
    exact = _laid_out(bare, changes, remove)
    movable = exact.shift == 0 or bool(unit and exact.shift % unit == 0)
    if movable and (
        PADDING_KEY in remove or _keeps_padding(source, exact) or not any(_padding(source, file))
    ):
        return exact
    if FILLER_KEY in remove:
        return None
    # Room for the filler if the tensor entries stay in place.
    room = source.header_end - _length(exact.pieces, upto=source.header_end)
    shift = 0
    if not _FILLER_HEAD_BYTES <= room <= MAX_FILLER_BYTES:
        if not unit:
            return None
        shift = -((room - _FILLER_HEAD_BYTES) // unit) * unit
    n_zeros = room + shift - _FILLER_HEAD_BYTES
    filler = Value(ValueType.ARRAY, struct.pack("<IQ", ValueType.UINT8, n_zeros) + bytes(n_zeros))
    return _laid_out(bare, {**changes, FILLER_KEY: filler}, remove)


def _laid_out(source: Header, changes: Mapping[str, Value], remove: Collection[str]) -> Layout:
    """The layout that `write_edited` would write, except that padding of the same length is kept, whatever it holds."""
    edit = plan_edit(source, changes, remove)
    shift = edit.data_start - source.data_start
    pieces: list[Piece] = [piece for piece in edit.pieces if piece]
    same_length = _length(pieces, upto=source.header_end) == source.header_end + shift
    if same_length and source.has_tensors and PADDING_KEY not in remove:
        ends = [not isinstance(piece, bytes) and piece[1] == source.header_end for piece in pieces]
        pieces = [*pieces[: ends.index(True) + 1], (source.header_end, source.data_start)]
    return Layout(tuple(pieces), shift, edit.types, changes)


def _keeps_padding(source: Header, layout: Layout) -> bool:
    return layout.pieces[-1] == (source.header_end, source.data_start)


def _padding(source: Header, file: int) -> bytes:
    """The bytes between header and tensor data: zeros, unless another program wrote something else."""
    return read_exactly(file, source.header_end, source.data_start - source.header_end)


def _length(pieces: Collection[Piece], *, upto: int) -> int:
    """The length of the pieces up to the one that ends with the old file's byte `upto`."""
    total = 0
    for piece in pieces:
        total += len(piece) if isinstance(piece, bytes) else piece[1] - piece[0]
        if not isinstance(piece, bytes) and piece[1] == upto:
            break
    return total


def patch_for(source: Header, file: int, layout: Layout) -> Patch:
    """The patch: which bytes to write once the tail has moved, and what was there before."""
    shift = layout.shift
    unit = block_bytes(file) or 1
    offset = _moves_from(layout) // unit * unit if shift else source.data_start
    before: list[Span] = []
    after: list[Span] = []
    position = 0
    for piece in layout.pieces:
        start = position
        position += len(piece) if isinstance(piece, bytes) else piece[1] - piece[0]
        for low, high in _cut(start, position, offset, offset + max(shift, 0)):
            fresh = offset <= low < offset + shift
            was_at = low if low < offset else low - shift  # the old file's offset of what lies here now
            if isinstance(piece, bytes):
                new = piece[low - start : high - start]
            elif not fresh and piece[0] + low - start == was_at:
                continue
            else:
                new = read_exactly(file, piece[0] + low - start, high - low)
            if fresh:
                _append(after, low, new)
                continue
            old = read_exactly(file, was_at, high - low)
            head, tail = _difference(old, new)
            if head < tail:
                _append(after, low + head, new[head:tail])
                before.append((was_at + head, old[head:tail]))
    if shift < 0:
        before.append((offset, read_exactly(file, offset, -shift)))
    size, tail_start = source.file_size, source.data_start
    anchor = anchor_of(file, size, tail_start) if after or shift else ""
    return Patch(size, tail_start, offset, shift, tuple(before), tuple(after), anchor)


def _moves_from(layout: Layout) -> int:
    """The offset of the first span that changes its place, including new bytes before it.

    Nothing before it has to move; a value that keeps its size does not count.
    """
    position = kept = 0
    for piece in layout.pieces:
        if isinstance(piece, bytes):
            position += len(piece)
            continue
        if piece[0] != position:
            break
        position += piece[1] - piece[0]
        kept = position
    return kept


def _cut(start: int, end: int, *at: int) -> Iterator[tuple[int, int]]:
    """The span start..end in parts that do not cross any of `at` (ascending)."""
    for point in (*at, end):
        stop = min(max(point, start), end)
        if start < stop:
            yield start, stop
            start = stop


def _append(spans: list[Span], offset: int, data: bytes) -> None:
    """Adds a span, merged with the last one if it follows it directly."""
    if spans and spans[-1][0] + len(spans[-1][1]) == offset:
        spans[-1] = (spans[-1][0], spans[-1][1] + data)
    else:
        spans.append((offset, data))


def _difference(old: bytes, new: bytes) -> tuple[int, int]:
    """The span in which two strings of equal length differ, empty if they do not."""
    start = _n_common(old, new)
    return start, len(new) - _n_common(old[start:][::-1], new[start:][::-1])


def _n_common(one: bytes, other: bytes) -> int:
    """Length of the common start of two strings of equal length, by halving."""
    low, high = 0, len(one)
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def header_after(source: Header, layout: Layout, identity: FileIdentity) -> Header:
    """The header that reading the edited file would give, without scanning its vocabulary again."""
    entries: dict[str, KeyEntry] = {}
    position = PREAMBLE_BYTES
    for name in layout.types:
        value = layout.values.get(name)
        entry = source.entries[name] if value is None else _entry_of(name, value)
        length, head = entry.end - entry.start, entry.value_start - entry.start
        entries[name] = replace(entry, start=position, value_start=position + head, end=position + length)
        position += length
    tensors = {
        name: replace(info, data_offset=info.data_offset + layout.shift)
        for name, info in source.tensors.items()
    }
    return replace(
        source,
        entries=entries,
        tensors=tensors,
        keys_end=position,
        header_end=position + source.header_end - source.keys_end,
        data_start=source.data_start + layout.shift,
        file_size=source.file_size + layout.shift,
        identity=identity,
    )


def _entry_of(name: str, value: Value) -> KeyEntry:
    """A key's entry as it would be at the very start of a file."""
    head = 8 + len(encode_text(name)) + 4
    element_type, count = None, 1
    if value.type is ValueType.ARRAY:
        number, count = _ARRAY_HEAD.unpack_from(value.raw)
        element_type = ValueType(number)
    raw = value.raw if len(value.raw) <= KEEP_BYTES else None
    return KeyEntry(name, value.type, element_type, count, 0, head, head + len(value.raw), raw)
