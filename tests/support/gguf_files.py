"""Small GGUF files for tests of the file code: put together byte by byte, so that they can also be wrong.

(`tiny_models.write_gguf` writes proper ones with gguf-py.)
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

from edgecal.gguf.values import Value

__all__ = ["bare_key", "bare_tensor", "key", "raw_gguf", "string", "write_bytes"]


def string(text: str | bytes) -> bytes:
    raw = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(raw)) + raw


def bare_key(name: str | bytes, type_: int, payload: bytes) -> bytes:
    """A key's entry with any type number and any payload."""
    return string(name) + struct.pack("<I", type_) + payload


def key(name: str | bytes, value: Value) -> bytes:
    return bare_key(name, value.type, value.raw)


def bare_tensor(name: str | bytes, ne: Sequence[int], type_id: int = 0, offset: int = 0) -> bytes:
    """A tensor's entry; dimensions may be anything that fits 64 bits."""
    return (
        string(name)
        + struct.pack("<I", len(ne))
        + struct.pack(f"<{len(ne)}Q", *ne)
        + struct.pack("<IQ", type_id, offset)
    )


def raw_gguf(
    keys: Sequence[bytes] = (),
    tensors: Sequence[bytes] = (),
    data: bytes = b"",
    *,
    version: int = 3,
    alignment: int = 32,
    n_keys: int | None = None,
    n_tensors: int | None = None,
    magic: bytes = b"GGUF",
    padding: bytes = b"\0",
) -> bytes:
    """The whole file; counts may be given wrong on purpose."""
    header = magic + struct.pack(
        "<IQQ",
        version,
        len(tensors) if n_tensors is None else n_tensors,
        len(keys) if n_keys is None else n_keys,
    )
    header += b"".join(keys) + b"".join(tensors)
    if tensors:
        header += padding * (-len(header) % alignment)
    return header + data


def write_bytes(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path
