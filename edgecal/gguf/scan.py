"""Walking through a GGUF header from front to back, believing no count, length or offset.

Knows the layout (versions 2 and 3, little-endian) and what a hostile header may cost. Does not know what keys mean,
and decodes no value but the alignment: `header` answers questions.

Layout: "GGUF", version u32, number of tensors u64, number of keys u64, keys (name, type, value), tensor
entries (name, dimensions, type, offset), padding to the alignment, tensor data.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgecal.errors import InputError
from edgecal.gguf.reader import BoundedReader, damaged
from edgecal.gguf.sniff import describe_foreign
from edgecal.gguf.tensors import GGML_TYPES, MAX_DIMS, TensorInfo
from edgecal.gguf.values import ValueType, decode_text, decode_value, quoted

__all__ = [
    "ALIGNMENT_KEY",
    "KEEP_BYTES",
    "MAGIC",
    "MAX_KEYS",
    "MAX_KEY_BYTES",
    "MAX_TENSORS",
    "PREAMBLE_BYTES",
    "KeyEntry",
    "Scanned",
    "scan_header",
]

MAGIC = b"GGUF"
ALIGNMENT_KEY = "general.alignment"
DEFAULT_ALIGNMENT = 32

MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 17
MAX_KEY_BYTES = 1 << 16
MAX_TENSOR_NAME_BYTES = 63  # llama.cpp's own limit
MAX_NAMES_BYTES = 1 << 25  # all names of a header together
MAX_ELEMENTS = 1 << 63
KEEP_BYTES = 1 << 12  # values up to this size stay in memory ...
MAX_KEPT_BYTES = 1 << 25  # ... until they add up to this

_LEAST_KEY_BYTES = 8 + 1 + 4 + 1
_LEAST_TENSOR_BYTES = 8 + 4 + 4 + 8
_PREAMBLE = struct.Struct("<4sIQQ")
PREAMBLE_BYTES = _PREAMBLE.size


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """One key: its type and where it lies. `start` (of the name), `value_start` and `end` are byte offsets.

    The value is the span `value_start`..`end`, as in `Value.raw`. `element_type` is None unless the value is
    an array; `count` is its number of elements, else 1. `raw` is the value itself where it is small.
    """

    name: str
    type: ValueType
    element_type: ValueType | None
    count: int
    start: int
    value_start: int
    end: int
    raw: bytes | None


@dataclass(frozen=True, slots=True)
class Scanned:
    """What a header says and where it lies; offsets in bytes from the start of the file, as `Header` has them."""

    version: int
    alignment: int
    entries: Mapping[str, KeyEntry]
    tensors: Mapping[str, TensorInfo]
    keys_end: int
    header_end: int
    data_start: int


def scan_header(reader: BoundedReader) -> Scanned:
    """Walk through the whole header, from a reader at the start of its file.

    InputError, one line, for everything that `read_header` lists. Memory is bounded by fixed limits, whatever the
    file claims.
    """
    version, n_tensors, n_keys = _read_preamble(reader)
    scan = _Scan(reader)
    entries = scan.keys(n_keys)
    keys_end = reader.position
    alignment = _alignment(reader.path, entries)
    raw_tensors = scan.tensors(n_tensors)
    header_end = reader.position
    data_start = -(-header_end // alignment) * alignment if n_tensors else header_end
    tensors = {item[0]: _place(reader, item, data_start, alignment) for item in raw_tensors}
    return Scanned(version, alignment, entries, tensors, keys_end, header_end, data_start)


def _read_preamble(reader: BoundedReader) -> tuple[int, int, int]:
    path = reader.path
    if reader.size == 0:
        raise InputError(f"{path}: the file is empty")
    head = reader.head(64)
    if len(head) < len(MAGIC) and MAGIC.startswith(head):
        raise InputError(f"{path}: truncated after {len(head)} bytes; download the file again")
    if head[:4] != MAGIC:
        guess = describe_foreign(head)
        raise InputError(f"{path}: not a GGUF file" + (f": it looks like {guess}" if guess else ""))
    reader.skip(4, "the file's start")
    version = reader.u32("the version")
    if version and version & 0xFFFF == 0:
        raise InputError(f"{path}: a big-endian GGUF file; convert the model on a little-endian machine")
    if version == 1:
        raise InputError(f"{path}: GGUF version 1, which llama.cpp no longer reads; convert the model again")
    if version not in (2, 3):
        raise InputError(f"{path}: GGUF version {version}, edgecal reads versions 2 and 3")
    n_tensors = reader.u64("the number of tensors")
    n_keys = reader.u64("the number of keys")
    for what, count, least, most in (
        ("keys", n_keys, _LEAST_KEY_BYTES, MAX_KEYS),
        ("tensors", n_tensors, _LEAST_TENSOR_BYTES, MAX_TENSORS),
    ):
        if count > reader.remaining // least:
            raise InputError(
                f"{path}: truncated or damaged GGUF header: it claims {count} {what}, the file has "
                f"{reader.size} bytes; download or convert the file again"
            )
        if count > most:
            raise InputError(f"{path}: the header claims {count} {what}, more than {most}: refused")
    return version, n_tensors, n_keys


_RawTensor = tuple[str, tuple[int, ...], int, int]  # name, ne, type id, offset


class _Scan:
    """Walks keys, then tensor entries, with budgets for what may stay in memory."""

    def __init__(self, reader: BoundedReader) -> None:
        self._reader = reader
        self._names_left = MAX_NAMES_BYTES
        self._kept_left = MAX_KEPT_BYTES

    def _text(self, what: str, most: int) -> str:
        length = self._reader.u64(what)
        if length > self._reader.remaining:
            self._reader.skip(length, what)  # raises: says how many bytes are missing
        if length > most:
            raise damaged(self._reader.path, f"{what} is {length} bytes long, at most {most} are allowed")
        self._names_left -= length
        if self._names_left < 0:
            raise InputError(f"{self._reader.path}: the names exceed {MAX_NAMES_BYTES} bytes: refused")
        return decode_text(self._reader.take(length, what))

    def keys(self, count: int) -> dict[str, KeyEntry]:
        reader = self._reader
        entries: dict[str, KeyEntry] = {}
        for index in range(count):
            start = reader.position
            name = self._text(f"the name of key {index}", MAX_KEY_BYTES)
            if not name:
                raise damaged(reader.path, f"key {index} has an empty name")
            if name in entries:
                raise damaged(reader.path, f"key {quoted(name)} appears twice")
            what = f"key {quoted(name)}"
            type_ = reader.value_type(what)
            value_start = reader.position
            element_type, n_elements = reader.skip_value(type_, what)
            end = reader.position
            raw = None
            if end - value_start <= min(KEEP_BYTES, self._kept_left):
                reader.position = value_start
                raw = reader.take(end - value_start, what)
                self._kept_left -= len(raw)
            entries[name] = KeyEntry(name, type_, element_type, n_elements, start, value_start, end, raw)
        return entries

    def tensors(self, count: int) -> list[_RawTensor]:
        reader = self._reader
        found: list[_RawTensor] = []
        names: set[str] = set()
        for index in range(count):
            name = self._text(f"the name of tensor {index}", MAX_TENSOR_NAME_BYTES)
            what = f"tensor {quoted(name)}"
            if name in names:
                raise damaged(reader.path, f"{what} appears twice")
            names.add(name)
            n_dims = reader.u32(what)
            if n_dims > MAX_DIMS:
                raise damaged(reader.path, f"{what} has {n_dims} dimensions, at most {MAX_DIMS} are allowed")
            ne = struct.unpack(f"<{n_dims}Q", reader.take(8 * n_dims, what))
            type_id, offset = struct.unpack("<IQ", reader.take(12, what))
            found.append((name, ne, type_id, offset))
        return found


def _alignment(path: Path, entries: Mapping[str, KeyEntry]) -> int:
    entry = entries.get(ALIGNMENT_KEY)
    if entry is None:
        return DEFAULT_ALIGNMENT
    if entry.type is not ValueType.UINT32 or entry.raw is None:
        raise damaged(path, f"{ALIGNMENT_KEY} is {entry.type.name}, expected UINT32")
    alignment = int(decode_value(entry.type, entry.raw))
    if alignment <= 0 or alignment & (alignment - 1):
        raise damaged(path, f"{ALIGNMENT_KEY} is {alignment}, expected a power of two")
    return alignment


def _place(reader: BoundedReader, raw: _RawTensor, data_start: int, alignment: int) -> TensorInfo:
    name, ne, type_id, offset = raw
    what = f"tensor {quoted(name)}"
    n_elements = 1
    for n in ne:
        n_elements *= n
    if n_elements >= MAX_ELEMENTS:
        raise damaged(reader.path, f"{what} has absurd dimensions {list(ne)}")
    if offset % alignment:
        raise damaged(
            reader.path, f"{what} is at offset {offset}, not a multiple of the alignment {alignment}"
        )
    known = GGML_TYPES.get(type_id)
    n_bytes = None
    if known is not None:
        row = ne[0] if ne else 1
        if row % known.block_elements:
            raise damaged(
                reader.path,
                f"{what} has rows of {row} elements, not a multiple of {known.name}'s {known.block_elements}",
            )
        n_bytes = n_elements // known.block_elements * known.block_bytes
    data_offset = data_start + offset
    end = data_offset + (n_bytes or 0)
    if end > reader.size:
        raise InputError(
            f"{reader.path}: truncated: {what} ends at byte {end}, the file has {reader.size} bytes; "
            "download or convert the file again"
        )
    return TensorInfo(name, ne, type_id, offset, data_offset, n_bytes)
