"""A change to a file as bytes and offsets; how far it has been applied is read off the file's bytes alone.

The state of a file does not depend on its name, time or inode: a digest of parts of the tail, which
a patch moves but never changes, identifies the file and tells whether its tail was moved; each byte of the written
spans must be the old or the new one (or zero in fresh blocks). A patch therefore recognises a copy of its
file, or one that was restored, and never fits another file or one that was changed since.

A kill cannot interrupt fallocate(2). A power cut can, if the file has so many extents that moving them takes
several transactions: a gap is then left on its way through the file. It is found, and closed.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Iterator
from dataclasses import dataclass

from edgecal.gguf.inplace.kernel import first_hole, shift_tail
from edgecal.gguf.spans import read_span

__all__ = [
    "Patch",
    "Span",
    "State",
    "anchor_of",
    "carry_out",
    "settle",
    "state_of",
    "take_back",
    "write_spans",
]

ANCHOR_BYTES = 4096

Span = tuple[int, bytes]  # offset, bytes


class State(enum.Enum):
    """How far a patch has been applied to a file."""

    OLD = "not begun"
    UNMOVED = "the tail is where it was, some spans are written or dropped"
    GAP = "the tail is between its places"
    MOVED = "the tail has its new place, some spans are not written"
    NEW = "done"
    FOREIGN = "not the patch's file, or changed since"


@dataclass(frozen=True)
class Patch:
    """A change to a file: its tail is moved by `shift` bytes at `offset` (left if negative), then spans are written.

    `size` is the old file's. From `tail` on (an old offset) the file is only moved. `after` holds the new file's spans,
    `before` the old bytes wherever the change overwrites them, `anchor` a digest of parts of the old tail.
    """

    size: int
    tail: int
    offset: int
    shift: int
    before: tuple[Span, ...]
    after: tuple[Span, ...]
    anchor: str


def carry_out(descriptor: int, patch: Patch) -> None:
    """Turns the old file into the new one, flushed. Raises the system's OSError; `take_back` then restores the old
    file."""
    shift_tail(descriptor, patch.offset, patch.shift)
    write_spans(descriptor, patch.after)


def take_back(descriptor: int, patch: Patch) -> None:
    """Restores the old file from wherever `carry_out` stopped, flushed. Leaves it alone if the tail never moved."""
    if patch.shift:
        if os.fstat(descriptor).st_size == patch.size:
            return
        shift_tail(descriptor, patch.offset, -patch.shift)
    write_spans(descriptor, patch.before)


def settle(descriptor: int, patch: Patch) -> State:
    """Completes or undoes a half-applied patch, whichever is nearer. Returns OLD, NEW, or FOREIGN (file left alone).

    `descriptor` must be open for writing. The tail moves only if there is a gap. Raises the system's OSError.
    """
    state = state_of(descriptor, patch)
    if state is State.GAP:
        gap = _gap(descriptor, patch)
        assert gap is not None
        shift_tail(descriptor, gap, -abs(patch.shift))
        os.fsync(descriptor)
        state = State.UNMOVED if patch.shift > 0 else State.MOVED
    if state is State.UNMOVED:
        write_spans(descriptor, patch.before)
        return State.OLD
    if state is State.MOVED:
        write_spans(descriptor, patch.after)
        return State.NEW
    return state


def write_spans(descriptor: int, spans: tuple[Span, ...]) -> None:
    """Writes spans and flushes."""
    for offset, data in spans:
        view = memoryview(data)
        while view:
            n_bytes = os.pwrite(descriptor, view, offset)
            view, offset = view[n_bytes:], offset + n_bytes
    os.fsync(descriptor)


def anchor_of(
    descriptor: int, size: int, tail: int, split: int = 0, moved_before: int = 0, moved_after: int = 0
) -> str:
    """A digest of three parts of an old file's tail (`size` and `tail` are the old ones).

    Bytes before the old offset `split` are looked for `moved_before` bytes further on, the rest `moved_after` bytes.
    """
    from hashlib import blake2b

    digest = blake2b(digest_size=16)
    middle = tail + (size - tail) // 2
    for start, end in (
        (tail, min(tail + ANCHOR_BYTES, size)),
        (middle, min(middle + ANCHOR_BYTES, size)),
        (max(tail, size - ANCHOR_BYTES), size),
    ):
        cut = min(max(split, start), end)
        digest.update(read_span(descriptor, start + moved_before, cut + moved_before))
        digest.update(read_span(descriptor, cut + moved_after, end + moved_after))
    return digest.hexdigest()


def state_of(descriptor: int, patch: Patch) -> State:
    """How far the open file is between old and new."""
    size = os.fstat(descriptor).st_size
    if size == patch.size and anchor_of(descriptor, patch.size, patch.tail) == patch.anchor:
        if not patch.shift and _holds(descriptor, patch.after):
            return State.NEW
        if _holds(descriptor, patch.before):
            return State.OLD
        if _is_mixture(descriptor, patch.before, list(_as_unmoved(patch))):
            return State.UNMOVED if patch.shift else State.MOVED
    if size == patch.size + patch.shift and _moved_anchor(descriptor, patch, patch.offset) == patch.anchor:
        if _holds(descriptor, patch.after):
            return State.NEW
        if _is_mixture(descriptor, patch.after, list(_as_moved(patch))):
            return State.MOVED
    return State.GAP if patch.shift and _gap(descriptor, patch) is not None else State.FOREIGN


def _holds(descriptor: int, spans: tuple[Span, ...]) -> bool:
    return all(read_span(descriptor, offset, offset + len(data)) == data for offset, data in spans)


def _moved_anchor(descriptor: int, patch: Patch, split: int) -> str:
    return anchor_of(descriptor, patch.size, patch.tail, split, 0, patch.shift)


def _is_mixture(descriptor: int, spans: tuple[Span, ...], others: list[Span]) -> bool:
    """Whether each byte is that of `spans`, or else that of `others`, or zero where these have none."""
    for offset, data in spans:
        found = read_span(descriptor, offset, offset + len(data))
        if len(found) != len(data):
            return False
        other = bytearray(len(data))
        for start, bytes_ in others:
            _overlay(other, offset, start, bytes_)
        if any(byte not in pair for byte, *pair in zip(found, data, other, strict=True)):
            return False
    return True


def _as_moved(patch: Patch) -> Iterator[Span]:
    """The known old bytes, where they lie once only the tail has moved."""
    for start, data in patch.before:  # no span crosses `offset`
        if start < patch.offset:
            yield start, data
        elif start >= patch.offset + max(-patch.shift, 0):
            yield start + patch.shift, data


def _as_unmoved(patch: Patch) -> Iterator[Span]:
    """The new bytes, where they lie if everything but the tail's move was done: a power cut can lose the move."""
    for start, data in patch.after:
        for at, part in _split((start, data), patch.offset, patch.offset + max(patch.shift, 0)):
            if at < patch.offset:
                yield at, part
            elif at >= patch.offset + max(patch.shift, 0):
                yield at - patch.shift, part


def _split(span: Span, *points: int) -> Iterator[Span]:
    start, data = span
    for point in points:
        cut = min(max(point - start, 0), len(data))
        if cut:
            yield start, data[:cut]
            start, data = start + cut, data[cut:]
    if data:
        yield start, data


def _overlay(target: bytearray, target_offset: int, offset: int, data: bytes) -> None:
    """Copies the part of `data` (at `offset`) that falls into `target` (at `target_offset`)."""
    start, end = max(offset, target_offset), min(offset + len(data), target_offset + len(target))
    if start < end:
        target[start - target_offset : end - target_offset] = data[start - offset : end - offset]


def _gap(descriptor: int, patch: Patch) -> int | None:
    """The offset of the gap that a power cut left on its way through the file; None if there is none.

    The file's size tells which side of the gap has already moved: growing a file sets its size first, and shrinking it
    last.
    """
    n_bytes = abs(patch.shift)
    if os.fstat(descriptor).st_size != patch.size + max(patch.shift, 0):
        return None
    hole = first_hole(descriptor, patch.offset, n_bytes)
    while hole is not None:
        if patch.shift > 0:
            found = _moved_anchor(descriptor, patch, hole)
        else:
            found = anchor_of(descriptor, patch.size, patch.tail, hole + n_bytes, patch.shift, 0)
        if found == patch.anchor:
            return hole
        hole = first_hole(descriptor, hole + n_bytes, n_bytes)
    return None
