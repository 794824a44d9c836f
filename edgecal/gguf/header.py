"""Reads the header of a GGUF file: scans it fast, trusts no count, length or offset, and decodes values on request.

Layout (versions 2 and 3, little-endian): "GGUF", version u32, number of tensors u64, number of keys u64, keys (name,
type, value), tensor entries (name, dimensions, type, offset), padding to the alignment, tensor data.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from edgecal.errors import InputError
from edgecal.gguf.bounded_reader import MAX_DECODED_BYTES, BoundedReader, FileIdentity, damaged
from edgecal.gguf.spans import read_blocks
from edgecal.gguf.tensors import GGML_TYPES, MAX_DIMS, TensorInfo
from edgecal.gguf.values import (
    ARRAY_HEAD_BYTES,
    PythonValue,
    Value,
    ValueType,
    decode_numbers,
    decode_strings,
    decode_text,
    decode_value,
    quoted,
)

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = [
    "ALIGNMENT_KEY",
    "KEEP_BYTES",
    "MAGIC",
    "MAX_KEYS",
    "MAX_KEY_BYTES",
    "MAX_TENSORS",
    "PREAMBLE_BYTES",
    "Header",
    "KeyEntry",
    "Scanned",
    "describe_foreign",
    "read_header",
    "scan_header",
]

MAGIC = b"GGUF"
ALIGNMENT_KEY = "general.alignment"

# edgecal's own keys about a file's layout, not its calibration.
PREFIX = "edgecal."
FILLER_KEY = "edgecal.filler"  # zeros after the last key, which edits in place use up
PADDING_KEY = "edgecal.previous.padding"  # the original bytes between header and tensor data, if not zeros

DEFAULT_ALIGNMENT = 32

MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 17
MAX_KEY_BYTES = 1 << 16
MAX_TENSOR_NAME_BYTES = 63  # llama.cpp's own limit
MAX_NAMES_BYTES = 1 << 25  # all names in a header together
MAX_ELEMENTS = 1 << 63
KEEP_BYTES = 1 << 12  # values up to this size stay in memory ...
MAX_KEPT_BYTES = 1 << 25  # ... until they add up to this

_LEAST_KEY_BYTES = 8 + 1 + 4 + 1
_LEAST_TENSOR_BYTES = 8 + 4 + 4 + 8
_PREAMBLE = struct.Struct("<4sIQQ")
PREAMBLE_BYTES = _PREAMBLE.size


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """A key's type and position. `start` (of the name), `value_start` and `end` are byte offsets.

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
    """A header's contents and their positions; offsets are in bytes from the start of the file, as in `Header`."""

    version: int
    alignment: int
    entries: Mapping[str, KeyEntry]
    tensors: Mapping[str, TensorInfo]
    keys_end: int
    header_end: int
    data_start: int


def scan_header(reader: BoundedReader) -> Scanned:
    """Scans the whole header with a reader at the start of its file.

    InputError as `read_header`. Memory is bounded by fixed limits, whatever the file claims.
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
    """Scans keys, then tensor entries, with budgets for what may stay in memory."""

    def __init__(self, reader: BoundedReader) -> None:
        self._reader = reader
        self._names_left = MAX_NAMES_BYTES
        self._kept_left = MAX_KEPT_BYTES

    def _text(self, what: str, most: int) -> str:
        length = self._reader.u64(what)
        if length > self._reader.remaining:
            self._reader.skip(length, what)  # raises an error that says how many bytes are missing
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


MAX_LISTED = 1 << 22  # elements of an array that become Python objects on request
MAX_NESTED_BYTES = 1 << 23
MAX_PADDING_BYTES = 1 << 20  # of padding kept where it is not zeros; real files have at most 31


@dataclass(frozen=True, eq=False)
class Header:
    """A file's header as it was read. It holds no open file.

    Sizes and offsets are in bytes from the start of the file. `keys_end` is where the keys end, `header_end` where the
    tensor entries end, and `data_start` where the tensor data begin (`header_end` if there are no tensors). Values that
    were not kept are read from the file again on request, with an InputError if the file has changed since.
    """

    path: Path
    version: int
    alignment: int
    entries: Mapping[str, KeyEntry]
    tensors: Mapping[str, TensorInfo]
    keys_end: int
    header_end: int
    data_start: int
    file_size: int
    identity: FileIdentity

    @property
    def keys(self) -> tuple[str, ...]:
        """Key names in file order."""
        return tuple(self.entries)

    @property
    def has_tensors(self) -> bool:
        """False for a metadata-only file (a vocabulary, the first shard of some split models)."""
        return bool(self.tensors)

    @property
    def architecture(self) -> str | None:
        """`general.architecture`, or None where it is missing or not text."""
        found = self.get("general.architecture") if self.is_text("general.architecture") else None
        return None if found is None else str(found)

    def __contains__(self, key: object) -> bool:
        return key in self.entries

    def is_text(self, key: str) -> bool:
        """True if the key is there and is a STRING."""
        return key in self.entries and self.entries[key].type is ValueType.STRING

    def type_of(self, key: str) -> ValueType:
        """The key's type; InputError if there is no such key."""
        return self._entry(key).type

    @overload
    def get(self, key: str) -> PythonValue | None: ...
    @overload
    def get(self, key: str, default: Any) -> PythonValue: ...
    def get(self, key: str, default: Any = None) -> PythonValue:
        """The decoded value (int, float, bool, str or a list), or `default` where there is no such key.

        Text is decoded with `surrogateescape`. InputError for an array of absurd length; use `array` for
        large arrays of numbers.
        """
        if key not in self.entries:
            return default
        self._check_listable(self.entries[key])
        return self.value(key).python()

    def value(self, key: str) -> Value:
        """Type and exact bytes; InputError if there is no such key."""
        entry = self._entry(key)
        return Value(entry.type, self._raw(entry))

    def value_head(self, key: str, n_bytes: int) -> bytes:
        """At most the first `n_bytes` bytes of the value, as in `Value.raw`."""
        entry = self._entry(key)
        if entry.raw is not None:
            return entry.raw[:n_bytes]
        return self._read(entry.value_start, min(entry.value_start + n_bytes, entry.end))

    def array(self, key: str) -> npt.NDArray[Any] | list[str]:
        """An array of numbers as a read-only numpy array of its own dtype, of text as a list.

        Text is decoded with `surrogateescape`; `array_strings` gives the bytes. InputError if the key is
        missing, not an array, or an array of arrays.
        """
        entry = self._array_entry(key)
        assert entry.element_type is not None
        if entry.element_type is ValueType.STRING:
            return [decode_text(item) for item in self.array_strings(key)]
        if entry.element_type is ValueType.ARRAY:
            raise InputError(f"{self.path}: {quoted(key)} is an array of arrays, expected numbers or text")
        return decode_numbers(entry.element_type, self._raw(entry), ARRAY_HEAD_BYTES, entry.count)

    def array_strings(self, key: str) -> list[bytes]:
        """An array of text as undecoded bytes; InputError if the key holds anything else."""
        entry = self._array_entry(key)
        if entry.element_type is not ValueType.STRING:
            held = "" if entry.element_type is None else entry.element_type.name
            raise InputError(f"{self.path}: {quoted(key)} is an array of {held}, expected STRING")
        self._check_listable(entry)
        return decode_strings(self._raw(entry), ARRAY_HEAD_BYTES, entry.count)

    def array_bytes(self, key: str) -> bytes:
        """The array exactly as stored (element type, count, elements), so that equal bytes mean equal arrays."""
        return self._raw(self._array_entry(key))

    def array_length(self, key: str) -> int:
        """Number of elements, without reading them; InputError if the key is not an array."""
        return self._array_entry(key).count

    def padding(self) -> bytes:
        """The bytes between header and tensor data; b"" if all are zeros, as usual.

        InputError if they are not zeros and there are absurdly many.
        """
        n_bytes = self.data_start - self.header_end
        if n_bytes == 0 or not any(any(block) for block in self.blocks(self.header_end, self.data_start)):
            return b""
        if n_bytes > MAX_PADDING_BYTES:
            raise InputError(
                f"{self.path}: {n_bytes} bytes of padding hold other bytes than zeros, at most {MAX_PADDING_BYTES} "
                "can be kept: refused"
            )
        return self._read(self.header_end, self.data_start)

    def blocks(self, start: int, end: int) -> Iterator[bytes]:
        """The file's bytes from `start` to `end`, in blocks of at most 1 MiB.

        InputError as `opened`, and if the file cannot be read or changes meanwhile.
        """
        with self.opened() as file:
            try:
                for block in read_blocks(file, start, end):
                    yield block
                    start += len(block)
            except OSError as error:
                raise InputError(f"{self.path}: cannot be read: {error.strerror}") from error
            if start < end or FileIdentity.of(os.fstat(file)) != self.identity:
                raise InputError(f"{self.path}: changed while it was read; start again")

    @contextlib.contextmanager
    def opened(self) -> Iterator[int]:
        """A descriptor of the file for reading; InputError if it is gone or has changed since it was read."""
        with BoundedReader(self.path) as reader:
            if reader.identity != self.identity:
                raise InputError(f"{self.path}: changed since it was first read; start again")
            yield reader.descriptor

    def _entry(self, key: str) -> KeyEntry:
        entry = self.entries.get(key)
        if entry is None:
            raise InputError(f"{self.path}: has no key {quoted(key)}")
        return entry

    def _array_entry(self, key: str) -> KeyEntry:
        entry = self._entry(key)
        if entry.type is not ValueType.ARRAY:
            raise InputError(f"{self.path}: {quoted(key)} is {entry.type.name}, expected an array")
        return entry

    def _check_listable(self, entry: KeyEntry) -> None:
        nested = entry.element_type is ValueType.ARRAY
        if entry.count > MAX_LISTED or (nested and entry.end - entry.value_start > MAX_NESTED_BYTES):
            raise InputError(f"{self.path}: {quoted(entry.name)} has {entry.count} elements: refused")

    def _raw(self, entry: KeyEntry) -> bytes:
        if entry.raw is not None:
            return entry.raw
        n_bytes = entry.end - entry.value_start
        if n_bytes > MAX_DECODED_BYTES:
            raise InputError(
                f"{self.path}: {quoted(entry.name)} is {n_bytes} bytes long, "
                f"more than {MAX_DECODED_BYTES}: refused"
            )
        return self._read(entry.value_start, entry.end)

    def _read(self, start: int, end: int) -> bytes:
        return b"".join(self.blocks(start, end))


def read_header(path: Path | str) -> Header:
    """Reads and checks the header of one GGUF file (a shard counts as one file).

    InputError, one line, if the path is missing, a directory or empty, is not GGUF (and what it looks like),
    has an unsupported version or byte order, absurd counts, duplicate or empty names, unknown value types,
    lengths or offsets beyond the end of the file, or tensor data that the file does not hold in full.
    Memory is bounded by fixed limits, whatever the file claims.
    """
    path = Path(path)
    with BoundedReader(path) as reader:
        found = scan_header(reader)
    return Header(
        path=path,
        version=found.version,
        alignment=found.alignment,
        entries=found.entries,
        tensors=found.tensors,
        keys_end=found.keys_end,
        header_end=found.header_end,
        data_start=found.data_start,
        file_size=reader.size,
        identity=reader.identity,
    )


_PREFIXES: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a git-lfs pointer, not the file itself: run `git lfs pull`"),
    (b"PK\x03\x04", "a zip archive or PyTorch checkpoint: convert the model to GGUF first"),
    (b"\x80\x02", "a pickled PyTorch checkpoint: convert the model to GGUF first"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
    (b"\xfd7zXZ", "an xz archive: unpack it first"),
    (b"(\xb5/\xfd", "a zstd archive: unpack it first"),
    (b"\x89HDF", "an HDF5 file: convert the model to GGUF first"),
    (b"\x7fELF", "a program or library"),
    (b"lmgg", "a GGML file from before GGUF: convert the model again"),
    (b"fmgg", "a GGML file from before GGUF: convert the model again"),
    (b"tjgg", "a GGJT file from before GGUF: convert the model again"),
    (b"algg", "an old LoRA adapter"),
    (b"FUGG", "GGUF with reversed bytes: convert the model on a little-endian machine"),
)


def describe_foreign(head: bytes) -> str:
    """A clause for "not a GGUF file: it looks like ..."; empty when nothing is recognised.

    `head` is the file's first bytes, 32 or more where there are as many.
    """
    for prefix, description in _PREFIXES:
        if head.startswith(prefix):
            return description
    if head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < 1 << 32:
        return "a safetensors file: convert the model to GGUF first"
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page: the download probably needs a login or another address"
    if text.startswith((b"{", b"[")):
        return "a JSON file"
    if head.strip(b"\0") == b"":
        return "nothing but zero bytes: the download or copy did not finish"
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
        return "a text file"
    return ""
