"""The header of a GGUF file: typed keys and tensor entries, read fast (`scan`), values decoded on request.

Does not know what a model needs to be run (`model`), how shards belong together (`split`), or how to change anything
(`edit`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from edgecal.errors import InputError
from edgecal.gguf.reader import MAX_DECODED_BYTES, BoundedReader, FileIdentity
from edgecal.gguf.scan import (
    ALIGNMENT_KEY,
    KEEP_BYTES,
    MAGIC,
    MAX_KEY_BYTES,
    MAX_KEYS,
    PREAMBLE_BYTES,
    KeyEntry,
    scan_header,
)
from edgecal.gguf.tensors import TensorInfo
from edgecal.gguf.values import (
    ARRAY_HEAD_BYTES,
    PythonValue,
    Value,
    ValueType,
    decode_numbers,
    decode_strings,
    decode_text,
    quoted,
)

if TYPE_CHECKING:
    import numpy.typing as npt

# With what an editor needs of the layout, for whoever knows headers and not how they are walked through.
__all__ = [
    "ALIGNMENT_KEY",
    "KEEP_BYTES",
    "MAGIC",
    "MAX_KEYS",
    "MAX_KEY_BYTES",
    "PREAMBLE_BYTES",
    "Header",
    "KeyEntry",
    "read_header",
]

MAX_LISTED = 1 << 22  # elements of an array that become Python objects on request
MAX_NESTED_BYTES = 1 << 23
MAX_PADDING_BYTES = 1 << 20  # that are kept where they are not zeros; real ones have at most 31


@dataclass(frozen=True, eq=False)
class Header:
    """A file's header as it was read; holds no open file.

    Sizes and offsets are in bytes from the start of the file. `keys_end` ends the keys, `header_end` the
    tensor entries; `data_start` is where the tensor data begin (`header_end` if there are no tensors).
    Values that were not kept are read from the file again on request, and an InputError says so if the
    file has changed since.
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
        """Key names in the file's order."""
        return tuple(self.entries)

    @property
    def has_tensors(self) -> bool:
        """False for a file of metadata only (a vocabulary, the first shard of some split models)."""
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
        with self._reader() as reader:
            reader.position = entry.value_start
            return reader.take(min(n_bytes, entry.end - entry.value_start), quoted(key))

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
        """The array exactly as stored (element type, count, elements): equal bytes are equal arrays."""
        return self._raw(self._array_entry(key))

    def array_length(self, key: str) -> int:
        """Number of elements, without reading them; InputError if the key is not an array."""
        return self._array_entry(key).count

    def padding(self) -> bytes:
        """The bytes between header and tensor data; b"" for nothing but zeros, which is what writers put there.

        InputError: other bytes than zeros, and absurdly many.
        """
        n_bytes = self.data_start - self.header_end
        if n_bytes == 0:
            return b""
        with self._reader() as reader:
            reader.position = self.header_end
            found = reader.take(min(n_bytes, MAX_PADDING_BYTES), "the padding")
            clean = not any(found)
            while clean and reader.position < self.data_start:
                rest = min(self.data_start - reader.position, MAX_PADDING_BYTES)
                clean = not any(reader.take(rest, "the padding"))
        if clean:
            return b""
        if n_bytes > MAX_PADDING_BYTES:
            raise InputError(
                f"{self.path}: {n_bytes} bytes of padding hold other bytes than zeros, at most {MAX_PADDING_BYTES} "
                "can be kept: refused"
            )
        return found

    @contextlib.contextmanager
    def opened(self) -> Iterator[int]:
        """A descriptor of the file for reading; InputError if it is gone or has changed since it was read."""
        with self._reader() as reader:
            yield reader.descriptor

    def _reader(self) -> BoundedReader:
        reader = BoundedReader(self.path)
        if reader.identity != self.identity:
            reader.close()
            raise InputError(f"{self.path}: changed since it was first read; start again")
        return reader

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
        with self._reader() as reader:
            reader.position = entry.value_start
            return reader.take(n_bytes, quoted(entry.name))


def read_header(path: Path | str) -> Header:
    """Read and check the header of one GGUF file (a shard counts as one file).

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
