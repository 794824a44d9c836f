"""Parquet and Arrow: from bytes to rows of plain values.

Text columns that are kept as a dictionary, maps and decimals become what they stand for. Structs have the same
fields in every row of a file, null where a row has none: those are left out. A column of class numbers, as the
`datasets` library writes them, becomes the classes' names, or letters where the names only count.
Does not know what the rows mean.
"""

from __future__ import annotations

import contextlib
import json
import string
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from edgecal.data.ipc import unpacked_sizes
from edgecal.data.model import Row, damaged, fail

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["read_arrow", "read_parquet"]

# A small file can hold a number of repetitions that no memory holds.
_MAX_BYTES = 1 << 29
_MAX_CELLS = 20_000_000
_BATCH = 1024


def read_parquet(name: str, data: bytes) -> list[Row]:
    """The rows of a Parquet file; errors as `read_table`."""

    def batches() -> tuple[pa.Schema, int, Iterable[pa.RecordBatch]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        file = pq.ParquetFile(pa.BufferReader(data))
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        _check_size(name, 0, sum(group.total_byte_size for group in groups))
        chunks = [
            group.column(i).total_uncompressed_size for group in groups for i in range(group.num_columns)
        ]
        # Every row of a batch may repeat a column's largest text, which is kept once.
        n_rows = max(1, min(_BATCH, _MAX_BYTES // max([1, *chunks])))
        return file.schema_arrow, file.metadata.num_rows, file.iter_batches(n_rows)

    return _read(name, "Parquet", batches)


def read_arrow(name: str, data: bytes) -> list[Row]:
    """The rows of an Arrow file or stream; errors as `read_table`."""

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
            batch.validate(full=True)  # a damaged one would be read beyond its end
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
        records = held  # the Hub's auxiliary_train of MMLU
    return [Row(f"{name}, row {number}", record) for number, record in enumerate(records, start=1)]


def _repeated_bytes(column: pa.Array) -> int:
    """What the texts of a dictionary take more once each row has its own."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    if not pa.types.is_dictionary(column.type) or not any(is_of(column.type.value_type) for is_of in texts):
        return 0
    return int(pc.sum(pc.binary_length(column.dictionary).take(column.indices)).as_py() or 0)


def _check_size(name: str, n_cells: int, n_bytes: int) -> None:
    if n_cells > _MAX_CELLS:
        fail(name, f"holds more than {_MAX_CELLS:,} cells; give a part of it")
    if n_bytes > _MAX_BYTES:
        fail(name, f"unpacks to more than {_MAX_BYTES >> 20} MiB; give a part of it")


def _converter(field: pa.Field, metadata: dict[bytes, bytes] | None) -> Callable[[object], object] | None:
    """What makes a column's values plain; None where they are."""
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
    """The classes of a column of class numbers; letters for those that are only counted ("0", "1", or "choice1")."""
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
