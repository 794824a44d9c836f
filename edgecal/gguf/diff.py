"""Finds the keys and tensors that differ between two models.

A tensor is found by its name, whichever file, order, offset or alignment it has. Data are read only where types and
shapes agree and the bytes are not the same place in one file. They are compared block by block up to the first
difference, which reads at most what two hashes would, and mostly far less. Only what differs is hashed.
`edgecal.filler` is not a value but spare room in a header, so it is a note.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from edgecal.errors import InputError
from edgecal.gguf.header import FILLER_KEY, Header
from edgecal.gguf.shards import ShardSet
from edgecal.gguf.spans import Progress, first_difference
from edgecal.gguf.tensors import TensorInfo
from edgecal.gguf.values import ARRAY_HEAD_BYTES, Value, ValueType, decode_value, describe_type

if TYPE_CHECKING:
    from edgecal.results.model_files import Difference as PrintedDifference

__all__ = [
    "Change",
    "Difference",
    "ModelDiff",
    "diff_edits",
    "diff_models",
    "diff_tensors",
    "same_model",
    "same_tensors",
    "short_value",
]

Change = Literal["added", "removed", "changed"]

STEP_BYTES = 1 << 26  # between two progress reports
BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Difference:
    """One key or tensor that differs. `first` and `second` describe each side in a few words; None where it is missing.

    `at_byte` is the first byte of a tensor's data that differs, None if something else differs. `sha256` holds the
    lower-case hex hash of the tensor's data on each side (None where there are none); None if hashes were not asked
    for.
    """

    name: str
    change: Change
    first: str | None
    second: str | None
    at_byte: int | None = None
    sha256: tuple[str | None, str | None] | None = None

    def to_dict(self) -> PrintedDifference:
        """The difference as `--json` prints it, without `at_byte` and hashes that are None."""
        values: PrintedDifference = {
            "name": self.name,
            "change": self.change,
            "before": self.first,
            "after": self.second,
        }
        if self.at_byte is not None:
            values["at_byte"] = self.at_byte
        if self.sha256 is not None:
            values["sha256_before"], values["sha256_after"] = self.sha256
        return values


_Place = tuple[Header, TensorInfo]


class _Meter:
    """Counts bytes; data to be hashed are added to the total once they are found to differ."""

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

    With `data` false only the headers are compared; with `hashes` each difference has its `sha256`. `progress(done,
    total)` counts bytes of tensor data; the total grows by what is hashed. InputError if a file cannot be read or has
    changed.
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
    """Whether two tensors are the same place in the same file, whatever their names."""
    (header, info), (twin_header, twin) = place, other
    one, two = header.identity, twin_header.identity
    return (one.device, one.inode, info.data_offset) == (two.device, two.inode, twin.data_offset)


def _common_size(place: _Place, other: _Place) -> int:
    return min(_size(place), _size(other))


def _size(place: _Place) -> int:
    """A tensor's size in bytes; for an unknown type, up to the next tensor or the end of the file."""
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
    """The hash of the first `n_bytes` bytes of a tensor, by default of all; None for no tensor."""
    import hashlib

    if place is None:
        return None
    left = _size(place) if n_bytes is None else n_bytes
    meter.add(left)
    digest = hashlib.sha256()
    header, info = place
    for block in header.blocks(info.data_offset, info.data_offset + left):
        digest.update(block)
        meter.count(len(block))
    return digest.hexdigest()


SHOWN_CHARS = 60
_SHOWN_ITEMS = 8
_PREVIEW_BYTES = 1 << 12


@dataclass(frozen=True)
class ModelDiff:
    """The differences between two models; `notes` are about the files' form, which changes no value.

    `n_same_keys` and `n_same_tensors` count what is equal; `compared_bytes` is how much tensor data was read
    of each.
    """

    keys: tuple[Difference, ...]
    tensors: tuple[Difference, ...]
    notes: tuple[str, ...]
    n_same_keys: int
    n_same_tensors: int
    compared_bytes: int

    @property
    def equal(self) -> bool:
        """Whether all keys and tensors (with their data, where they were compared) are equal."""
        return not self.keys and not self.tensors


def diff_models(
    first: ShardSet,
    second: ShardSet,
    *,
    data: bool = True,
    hashes: bool = False,
    progress: Progress | None = None,
) -> ModelDiff:
    """Compares two models (all shards of each): with `data` false only the headers, with `hashes` adding the SHA-256 of
    the data of every tensor that differs.

    `progress(done, total)` counts bytes of tensor data. InputError if a file cannot be read or has changed.
    """
    keys = tuple(_diff_keys(first.header, second.header))
    n_keys = sum(name != FILLER_KEY for name in first.header.keys)
    n_keys -= sum(item.change != "added" for item in keys)
    tensors, compared = diff_tensors(first, second, data=data, hashes=hashes, progress=progress)
    n_tensors = first.n_tensors - sum(item.change != "added" for item in tensors)
    return ModelDiff(
        keys, tuple(tensors), tuple(_notes(first, second, not keys)), n_keys, n_tensors, compared
    )


def same_model(first: ShardSet, second: ShardSet) -> bool:
    """Whether two files hold the same model: one file under any two names, or a copy, even one with another name,
    calibration or chat template in it. InputError if a file cannot be read or has changed."""
    computed = (f"{first.header.architecture}.", "general.architecture", "tokenizer.ggml.")
    if any(item.name.startswith(computed) for item in _diff_keys(first.header, second.header)):
        return False
    return same_tensors(first, second)


def _diff_keys(first: Header, second: Header) -> Iterator[Difference]:
    for name, entry in first.entries.items():
        if name == FILLER_KEY:
            continue
        other = second.entries.get(name)
        if other is None:
            yield Difference(name, "removed", short_value(first, name), None)
            continue
        same_kind = (entry.type, entry.element_type, entry.count) == (
            other.type,
            other.element_type,
            other.count,
        )
        same_size = entry.end - entry.value_start == other.end - other.value_start
        if not (same_kind and same_size and first.value(name) == second.value(name)):
            yield Difference(name, "changed", short_value(first, name), short_value(second, name))
    for name in second.entries:
        if name not in first.entries and name != FILLER_KEY:
            yield Difference(name, "added", None, short_value(second, name))


def diff_edits(
    header: Header, changes: Mapping[str, Value], remove: Collection[str]
) -> tuple[Difference, ...]:
    """What an edit changes, in display order; keys set to the value that they had are left out."""
    found = []
    for name, value in changes.items():
        before = header.value(name) if name in header else None
        if before != value:
            change: Change = "added" if before is None else "changed"
            first = None if before is None else short_value(header, name)
            found.append(
                Difference(
                    name, change, first, _short(value.type, value.raw[:_PREVIEW_BYTES], len(value.raw))
                )
            )
    found += [
        Difference(name, "removed", short_value(header, name), None) for name in header.keys if name in remove
    ]
    return tuple(found)


def short_value(header: Header, key: str) -> str:
    """Type and value of a key in a few words; of a big array or a long text only the beginning is read."""
    entry = header.entries[key]
    return _short(entry.type, header.value_head(key, _PREVIEW_BYTES), entry.end - entry.value_start)


def _short(type_: ValueType, head: bytes, n_bytes: int) -> str:
    """`head` is the value's beginning, `n_bytes` its whole length."""
    whole = len(head) == n_bytes
    if type_ is ValueType.ARRAY:
        kind = describe_type(Value(type_, head))
        count = int.from_bytes(head[4:ARRAY_HEAD_BYTES], "little")
        if not whole or count > _SHOWN_ITEMS:
            return f"{kind} of {count}"
        return f"{kind} {_cut(str(decode_value(type_, head)))}"
    if type_ is ValueType.STRING:
        length = "" if whole else f" of {n_bytes - 8} bytes"
        return f"string{length} {_cut(repr(head[8:].decode('utf-8', 'backslashreplace')))}"
    value: Any = decode_value(type_, head)
    said = f"{value:.9g}" if isinstance(value, float) else str(value).lower()
    return f"{type_.name.lower()} {said}"


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS else f"{text[: SHOWN_CHARS - 3]}..."


def _notes(first: ShardSet, second: ShardSet, same_keys: bool) -> Iterator[str]:
    one, other = first.header, second.header
    if one.version != other.version:
        yield f"GGUF version {one.version} and {other.version}"
    if one.alignment != other.alignment:
        yield f"alignment {one.alignment} and {other.alignment}"
    if first.count != second.count:
        yield f"{first.count} and {second.count} files"
    if (FILLER_KEY in one) != (FILLER_KEY in other):
        yield f"only {(one if FILLER_KEY in one else other).path} has {FILLER_KEY}, room for edits in place"
    elif same_keys and one.keys != other.keys:
        yield "the keys are in another order"
    tensors, others = _tensor_names(first), _tensor_names(second)
    if set(tensors) == set(others) and tensors != others:
        yield "the tensors are in another order"


def _tensor_names(shards: ShardSet) -> list[str]:
    return [name for header in shards.headers for name in header.tensors]
