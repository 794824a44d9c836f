"""Makes a small GGUF file from keys and float32 tensors, and writes it under its name in one step."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgecal.gguf.draft import drafting, output_errors
from edgecal.gguf.header import DEFAULT_ALIGNMENT, MAGIC
from edgecal.gguf.spans import write_all
from edgecal.gguf.values import Value, encode_text

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["file_bytes", "write_new"]

_VERSION, _FLOAT32 = 3, 0


def file_bytes(keys: Mapping[str, Value], tensors: Mapping[str, npt.NDArray[np.float32]]) -> bytes:
    """The bytes of a GGUF file with these keys and tensors, in their order. The same input gives the same bytes."""

    def named(name: str) -> bytes:
        raw = encode_text(name)
        return struct.pack("<Q", len(raw)) + raw

    head = struct.pack("<4sIQQ", MAGIC, _VERSION, len(tensors), len(keys))
    head += b"".join(named(name) + struct.pack("<I", value.type) + value.raw for name, value in keys.items())
    data = b""
    for name, tensor in tensors.items():
        head += named(name) + struct.pack(
            f"<I{tensor.ndim}QIQ", tensor.ndim, *tensor.shape[::-1], _FLOAT32, len(data)
        )
        data += _padded(tensor.astype("<f4").tobytes())
    return _padded(head) + data


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % DEFAULT_ALIGNMENT)


def write_new(target: Path, content: bytes, *, like: Path, overwrite: bool) -> None:
    """Writes a file beside its target and renames it; its mode is that of the file `like`, less the umask.

    Raises
    ------
    OutputError: it could not be written, or the target exists and `overwrite` is false; what was there is intact.
    """
    with output_errors(target, len(content)), drafting(target, like=like.stat(), source=like) as draft:
        write_all(draft.descriptor, content)
        draft.publish(overwrite=overwrite)
