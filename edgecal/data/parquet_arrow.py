"""Decodes Parquet and Arrow to rows of plain values.

Dictionary columns, maps and decimals become plain values. In a struct, every row has the fields of all rows, as nulls
where it has none of its own: those are dropped. A column of class numbers, as the `datasets` library writes them,
becomes the classes' names; or letters, where the names only count.

A small file can unpack to more than any memory holds, and pyarrow allocates whatever size a packed buffer names in its
first bytes. So sizes are summed before anything is unpacked. Arrow keeps them in flatbuffers: a table begins with an
offset back to a list of its fields' places; a field that is missing there has its default. pyarrow has checked that all
of them are within bounds.
"""

from __future__ import annotations

import contextlib
import json
import string
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from edgecal.data.decoded_rows import Row, damaged, fail

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["read_arrow", "read_parquet", "unpacked_sizes"]

_MAX_BYTES = 1 << 29
_MAX_CELLS = 20_000_000
_BATCH = 1024


def read_parquet(name: str, data: bytes) -> list[Row]:
    """The rows of a Parquet file. Raises as `read_table`."""

    def batches() -> tuple[pa.Schema, int, Iterable[pa.RecordBatch]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        file = pq.ParquetFile(pa.BufferReader(data))
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        _check_size(name, 0, sum(group.total_byte_size for group in groups))
        chunks = [
            group.column(i).total_uncompressed_size for group in groups for i in range(group.num_columns)
        ]
        # A column's largest text, stored once, may come in every row of a batch.
        n_rows = max(1, min(_BATCH, _MAX_BYTES // max([1, *chunks])))
        return file.schema_arrow, file.metadata.num_rows, file.iter_batches(n_rows)

    return _read(name, "Parquet", batches)


def read_arrow(name: str, data: bytes) -> list[Row]:
    """The rows of an Arrow file or stream. Raises as `read_table`."""

    def batches() -> tuple[pa.Schema, int, Iterable[pa.RecordBatch]]:
        import pyarrow as pa

        sizes = unpacked_sizes(data)
        if not data.startswith(b"ARROW1"):
            stream = pa.ipc.open_stream(data)
            _check_size(name, 0, sum(sizes))
            return stream.schema, 0, stream
        file = pa.ipc.open_file(data)
        _check_size(name, 0, sum(sizes))
        return file.schema, 0, map(file.get_batch, range(file.num_record_batches))

    return _read(name, "Arrow", batches)


def _read(
    name: str, kind: str, open_it: Callable[[], tuple[pa.Schema, int, Iterable[pa.RecordBatch]]]
) -> list[Row]:
    import pyarrow as pa

    records: list[dict[str, Any]] = []
    n_bytes = 0
    try:
        schema, n_rows, batches = open_it()
        columns = [(str(field.name), _converter(field, schema.metadata)) for field in schema]
        _check_size(name, n_rows * len(columns), 0)
        for batch in batches:
            batch.validate(full=True)  # otherwise a damaged batch would be read beyond its end
            n_bytes += batch.nbytes + sum(map(_repeated_bytes, batch.columns))
            _check_size(name, (len(records) + batch.num_rows) * len(columns), n_bytes)
            cells = [
                list(map(convert, column.to_pylist())) if convert else column.to_pylist()
                for (_, convert), column in zip(columns, batch.columns, strict=True)
            ]
            names = [column for column, _ in columns]
            records.extend(dict(zip(names, row, strict=True)) for row in zip(*cells, strict=True))
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, MemoryError, OverflowError) as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        damaged(name, f"not a valid {kind} file ({reason:.200}); download or convert it again")
    twice = [column for column, count in Counter(column for column, _ in columns).items() if count > 1]
    if twice:
        fail(name, f"the column {twice[0]!r:.60} is there twice")
    held = [
        item for record in records if len(record) == 1 for item in record.values() if isinstance(item, dict)
    ]
    if len(held) == len(records):
        records = held  # as in the Hub's auxiliary_train of MMLU
    return [Row(f"{name}, row {number}", record) for number, record in enumerate(records, start=1)]


def _repeated_bytes(column: pa.Array) -> int:
    """The extra bytes that a dictionary column takes once each row has its own text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    if not pa.types.is_dictionary(column.type) or not any(is_of(column.type.value_type) for is_of in texts):
        return 0
    return int(pc.sum(pc.binary_length(column.dictionary).take(column.indices)).as_py() or 0)


def _check_size(name: str, n_cells: int, n_bytes: int) -> None:
    if n_cells > _MAX_CELLS:
        fail(name, f"holds more than {_MAX_CELLS:,} cells; give only a part of it")
    if n_bytes > _MAX_BYTES:
        fail(name, f"unpacks to more than {_MAX_BYTES >> 20} MiB; give only a part of it")


def _converter(field: pa.Field, metadata: dict[bytes, bytes] | None) -> Callable[[object], object] | None:
    """The function that makes a column's values plain; None where they already are."""
    import pyarrow as pa

    classes = _class_names(field.name, metadata)
    if classes and pa.types.is_integer(field.type):
        return lambda value: classes[value] if isinstance(value, int) and 0 <= value < len(classes) else None
    simple = (
        pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_string, pa.types.is_large_string
    )  # fmt: skip
    return None if any(is_of(field.type) for is_of in simple) else _plain


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        if value and all(isinstance(item, tuple) and len(item) == 2 for item in value):  # a map
            return _plain({str(key): item for key, item in value})
        return [_plain(item) for item in value]
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, bytes):
        with contextlib.suppress(UnicodeDecodeError):
            return value.decode()
    return value


def _class_names(column: str, metadata: dict[bytes, bytes] | None) -> Sequence[str]:
    """The class names of a column; letters where the names only count ("0", "1", ... or "choice1", ...)."""
    try:
        names = json.loads((metadata or {})[b"huggingface"])["info"]["features"][column]["names"]
        names = [str(name) for name in names]
    except (KeyError, TypeError, ValueError):
        return ()
    counted = [name[-1:] for name in names]
    heads = {name[:-1] for name in names}
    if len(heads) == 1 and any("".join(counted) in row for row in (string.ascii_letters, string.digits)):
        return string.ascii_uppercase[: len(names)]
    return names


# Numbers of fields in Arrow's Message.fbs and File.fbs.
_HEADER, _DATA, _BUFFERS, _COMPRESSION = 2, 1, 2, 3
_DICTIONARIES, _BATCHES = 2, 3
_BUFFER, _BLOCK, _SIZE = struct.Struct("<qq"), struct.Struct("<qi4xq"), struct.Struct("<q")
_OLD_COMPRESSION = b"ARROW:experimental_compression"  # where Arrow 0.17 said that buffers are packed
_FOOTER_END = 10  # bytes of the footer's length and the final "ARROW1"


def unpacked_sizes(data: bytes) -> Iterator[int]:
    """The bytes that each batch, also of a dictionary, takes in memory once it is unpacked.

    Raises
    ------
    pyarrow.ArrowException, OSError, ValueError: the file is broken.
    """
    try:
        for message in _of_file(data) if data.startswith(b"ARROW1") else _of_stream(data):
            if message.type in ("record batch", "dictionary"):
                yield _unpacked(message)
    except (struct.error, IndexError) as error:
        raise ValueError(f"its metadata are broken: {error}") from None


def _of_stream(data: bytes) -> Iterator[pa.ipc.Message]:
    import pyarrow as pa

    yield from pa.ipc.MessageReader.open_stream(pa.py_buffer(data))


def _of_file(data: bytes) -> Iterator[pa.ipc.Message]:
    """The messages that the footer names, in its order, and as often as it names them."""
    import pyarrow as pa

    whole, end = pa.py_buffer(data), len(data) - _FOOTER_END
    (n_footer,) = struct.unpack_from("<i", data, end)
    footer = memoryview(data)[end - n_footer : end]
    for number in (_DICTIONARIES, _BATCHES):
        for offset, _, _ in _structs(footer, _field(footer, _target(footer, 0), number), _BLOCK):
            yield pa.ipc.read_message(whole.slice(offset))


def _unpacked(message: pa.ipc.Message) -> int:
    metadata, body = memoryview(message.metadata).cast("B"), memoryview(message.body).cast("B")
    batch = _target(metadata, _field(metadata, _target(metadata, 0), _HEADER))
    if message.type == "dictionary":
        batch = _target(metadata, _field(metadata, batch, _DATA))
    is_packed = (
        _field(metadata, batch, _COMPRESSION) is not None or _OLD_COMPRESSION in message.metadata.to_pybytes()
    )
    total = 0
    for offset, length in _structs(metadata, _field(metadata, batch, _BUFFERS), _BUFFER):
        size = _SIZE.unpack_from(body, offset)[0] if is_packed and length >= _SIZE.size else -1
        total += length if size < 0 else size  # -1: this buffer is stored unpacked
    return total


def _target(flat: memoryview, at: int | None) -> int:
    """Where the object begins to which the offset at this place refers."""
    if at is None:
        raise IndexError("a part is missing")
    return int(at + struct.unpack_from("<I", flat, at)[0])


def _field(flat: memoryview, table: int, number: int) -> int | None:
    """The place of a table's field; None where the field has its default."""
    fields = table - struct.unpack_from("<i", flat, table)[0]
    at = 4 + 2 * number
    if at >= struct.unpack_from("<H", flat, fields)[0]:
        return None
    offset = struct.unpack_from("<H", flat, fields + at)[0]
    return table + offset if offset else None


def _structs(flat: memoryview, field: int | None, kind: struct.Struct) -> Iterator[tuple[int, ...]]:
    """The items of a list of structs; no items where the field is missing."""
    if field is not None:
        start = _target(flat, field)
        (n,) = struct.unpack_from("<I", flat, start)
        for index in range(n):
            yield kind.unpack_from(flat, start + 4 + index * kind.size)
