"""What the batches of an Arrow file or stream unpack to, as they say themselves, before any is unpacked.

A packed buffer begins with the size that it unpacks to, and pyarrow takes exactly so much memory for it; where the
buffers are, a batch's metadata say. These are flatbuffers: a table begins with the way back to a list of where its
fields are, and has the default of a field that the list lacks. pyarrow has checked that all of it is within bounds.
Knows nothing of columns and rows.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["unpacked_sizes"]

# Fields by their numbers in Arrow's Message.fbs and File.fbs.
_HEADER, _DATA, _BUFFERS, _COMPRESSION = 2, 1, 2, 3
_DICTIONARIES, _BATCHES = 2, 3
_BUFFER, _BLOCK, _SIZE = struct.Struct("<qq"), struct.Struct("<qi4xq"), struct.Struct("<q")
_OLD_COMPRESSION = b"ARROW:experimental_compression"  # where Arrow 0.17 said it
_FOOTER_END = 10  # bytes of the footer's length and of "ARROW1" behind it


def unpacked_sizes(data: bytes) -> Iterator[int]:
    """Bytes that each batch takes in memory, also each batch of a dictionary.

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
    """Those that the footer names, in whatever order and however often it does."""
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
        total += length if size < 0 else size  # -1: a buffer that did not get smaller lies there as it is
    return total


def _target(flat: memoryview, at: int | None) -> int:
    """Where what is referred to at a place begins."""
    if at is None:
        raise IndexError("a part is missing")
    return int(at + struct.unpack_from("<I", flat, at)[0])


def _field(flat: memoryview, table: int, number: int) -> int | None:
    """The place of a table's field; None where it has the default."""
    fields = table - struct.unpack_from("<i", flat, table)[0]
    at = 4 + 2 * number
    if at >= struct.unpack_from("<H", flat, fields)[0]:
        return None
    offset = struct.unpack_from("<H", flat, fields + at)[0]
    return table + offset if offset else None


def _structs(flat: memoryview, field: int | None, kind: struct.Struct) -> Iterator[tuple[int, ...]]:
    """The items of a list of structs; none where there is no list."""
    if field is not None:
        start = _target(flat, field)
        (n,) = struct.unpack_from("<I", flat, start)
        for index in range(n):
            yield kind.unpack_from(flat, start + 4 + index * kind.size)
