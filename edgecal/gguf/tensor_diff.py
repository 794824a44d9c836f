"""Which tensors of two models differ, and the SHA-256 of their data where they do.

Knows headers, places and bytes; a tensor is found by its name, whichever file, order, offset or alignment it has. Data
are read only where types and shapes agree and the bytes are not one file's, block by block up to the first difference:
that takes no more reading than two hashes would, and mostly far less. Hashes are made only of what was found to differ.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from edgecal.errors import InputError
from edgecal.gguf.copying import Progress
from edgecal.gguf.header import Header
from edgecal.gguf.split import ShardSet
from edgecal.gguf.tensors import TensorInfo
from edgecal.gguf.values import quoted
from edgecal.gguf.verify import first_difference

__all__ = ["Change", "Difference", "diff_tensors", "same_tensors"]

Change = Literal["added", "removed", "changed"]

STEP_BYTES = 1 << 26  # between two words on how far it is
BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Difference:
    """One key or tensor that differs. `first` and `second` say in a few words what each side has, None where it has
    nothing.

    `at_byte` is the first byte of a tensor's data that differs, None if it was not the data. `sha256` is of the
    tensor's data on either side (None where there are none), in lower-case hex; None if nobody asked.
    """

    name: str
    change: Change
    first: str | None
    second: str | None
    at_byte: int | None = None
    sha256: tuple[str | None, str | None] | None = None


_Place = tuple[Header, TensorInfo]


class _Meter:
    """Counts bytes; what is hashed is added to the total when it is found to differ."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def add(self, n_bytes: int) -> None:
        self._total += n_bytes

    def count(self, n_bytes: int) -> None:
        self._done += n_bytes
        if self._progress is not None:
            self._progress(self._done, self._total)


def diff_tensors(
    first: ShardSet, second: ShardSet, *, data: bool, hashes: bool, progress: Progress | None
) -> tuple[list[Difference], int]:
    """The tensors that differ, in the order of the first model, then of the second, and how many bytes of each side
    were compared.

    With `data` false only what the headers say is compared; with `hashes` each of them has its `sha256`.
    `progress(done, total)` counts bytes of tensor data; the total grows by what is hashed. InputError if a file cannot
    be read or has changed.
    """
    one, other = _places(first), _places(second)
    sizes = {name: _common_size(one[name], other[name]) for name in one if _comparable(one, other, name)}
    compared = {
        name: size for name, size in sizes.items() if data and not _same_bytes(one[name], other[name])
    }
    meter = _Meter(sum(compared.values()), progress)
    found = []
    for name in (*one, *(name for name in other if name not in one)):
        difference = _headers_differ(one.get(name), other.get(name))
        if name in compared:
            at = _first_difference(one[name], other[name], compared[name], meter)
            if at is not None:
                difference = Difference(name, "changed", _shape(one[name]), _shape(other[name]), at)
        if difference is not None:
            if hashes:
                size = sizes.get(name)
                sha256 = _sha256(one.get(name), size, meter), _sha256(other.get(name), size, meter)
                difference = replace(difference, sha256=sha256)
            found.append(difference)
    return found, sum(compared.values())


def same_tensors(first: ShardSet, second: ShardSet) -> bool:
    """Whether two models have the same tensors with the same data, which are read up to the first that differ.

    InputError if a file cannot be read or has changed.
    """
    one, other = _places(first), _places(second)
    if not (one.keys() == other.keys() and all(_comparable(one, other, name) for name in one)):
        return False
    meter = _Meter(0, None)
    return all(
        _same_bytes(one[name], other[name])
        or _first_difference(one[name], other[name], _common_size(one[name], other[name]), meter) is None
        for name in one
    )


def _places(shards: ShardSet) -> dict[str, _Place]:
    return {name: (header, info) for header in shards.headers for name, info in header.tensors.items()}


def _comparable(first: Mapping[str, _Place], second: Mapping[str, _Place], name: str) -> bool:
    return _headers_differ(first.get(name), second.get(name)) is None


def _headers_differ(place: _Place | None, other: _Place | None) -> Difference | None:
    if place is None:
        assert other is not None
        return Difference(other[1].name, "added", None, _shape(other))
    if other is None:
        return Difference(place[1].name, "removed", _shape(place), None)
    if (place[1].ne, place[1].type_id) != (other[1].ne, other[1].type_id):
        return Difference(place[1].name, "changed", _shape(place), _shape(other))
    return None


def _shape(place: _Place) -> str:
    _, info = place
    return f"{info.type_name} {list(info.ne)}"


def _same_bytes(place: _Place, other: _Place) -> bool:
    """Whether two tensors are the same place of the same file, under whatever names."""
    (header, info), (twin_header, twin) = place, other
    one, two = header.identity, twin_header.identity
    return (one.device, one.inode, info.data_offset) == (two.device, two.inode, twin.data_offset)


def _common_size(place: _Place, other: _Place) -> int:
    return min(_size(place), _size(other))


def _size(place: _Place) -> int:
    """A tensor's bytes; of an unknown type all up to the next tensor, or to the end of the file."""
    header, info = place
    if info.n_bytes is not None:
        return info.n_bytes
    behind = [item.data_offset for item in header.tensors.values() if item.data_offset > info.data_offset]
    return min(behind, default=header.file_size) - info.data_offset


def _first_difference(place: _Place, other: _Place, n_bytes: int, meter: _Meter) -> int | None:
    (header, info), (twin_header, twin) = place, other
    with header.opened() as one, twin_header.opened() as two:
        for done in range(0, n_bytes, STEP_BYTES):
            size = min(STEP_BYTES, n_bytes - done)
            try:
                at = first_difference(one, info.data_offset + done, two, twin.data_offset + done, size)
            except OSError as error:
                raise InputError(
                    f"{header.path} or {twin_header.path}: cannot be read: {error.strerror}"
                ) from error
            if at is not None:
                meter.count(n_bytes - done)
                return done + at
            meter.count(size)
    return None


def _sha256(place: _Place | None, n_bytes: int | None, meter: _Meter) -> str | None:
    """Of the first `n_bytes` bytes of a tensor, by default of all; None for no tensor."""
    import hashlib

    if place is None:
        return None
    left = _size(place) if n_bytes is None else n_bytes
    meter.add(left)
    digest = hashlib.sha256()
    with place[0].opened() as file:
        for block in _blocks(file, place, left):
            digest.update(block)
            meter.count(len(block))
    return digest.hexdigest()


def _blocks(file: int, place: _Place, left: int) -> Iterator[memoryview]:
    header, info = place
    view = memoryview(bytearray(BLOCK_BYTES))
    try:
        os.lseek(file, info.data_offset, os.SEEK_SET)
        with open(file, "rb", buffering=0, closefd=False) as stream:
            while left > 0:
                n_read = stream.readinto(view[: min(left, BLOCK_BYTES)])
                if not n_read:
                    raise InputError(f"{header.path}: became shorter while {quoted(info.name)} was read")
                yield view[:n_read]
                left -= n_read
    except OSError as error:
        raise InputError(f"{header.path}: cannot be read: {error.strerror}") from error
