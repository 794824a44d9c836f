"""What differs between two models: keys and tensors.

Knows headers, and values in a few words; how tensors are compared is `tensor_diff`'s. Does not judge whether a
difference matters, and shows nothing. `edgecal.filler` is not a value but room in a header, so it is a note.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edgecal.gguf.copying import Progress
from edgecal.gguf.header import Header
from edgecal.gguf.inplace import FILLER_KEY
from edgecal.gguf.split import ShardSet
from edgecal.gguf.tensor_diff import Change, Difference, diff_tensors, same_tensors
from edgecal.gguf.typed import describe_type
from edgecal.gguf.values import ARRAY_HEAD_BYTES, Value, ValueType, decode_value

__all__ = ["Difference", "ModelDiff", "diff_edits", "diff_models", "same_model", "short_value"]

SHOWN_CHARS = 60
_SHOWN_ITEMS = 8
_PREVIEW_BYTES = 1 << 12


@dataclass(frozen=True)
class ModelDiff:
    """The differences of two models; `notes` are about the files' form, which changes no value.

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
    """Compare two models (all shards of each); with `data` false only what the headers say, with `hashes` also the
    SHA-256 of the data of every tensor that differs.

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
    """Whether two models say the same: a file and itself, by whatever name, or a copy, also one with another name,
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
    """What an edit changes, in the order in which it is shown: what it sets anew to the same value is left out."""
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
