"""A few named arrays as bytes and back, bit for bit.

Knows shapes and three element types. Does not know what is in them, and trusts the bytes that it unpacks: whoever
keeps them has checked that they are what was packed.

Layout, little-endian: number of arrays u16; of each the length of its name u8, the name, its type u8, number of
dimensions u8, dimensions u32; then the elements of all, in the same order, in C order.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "pack_arrays", "unpack_arrays"]

Array = npt.NDArray[Any]

_DTYPES = tuple(np.dtype(code) for code in ("<f4", "<f8", "<i4"))


def pack_arrays(arrays: Mapping[str, Array]) -> bytes:
    """Arrays of float32, float64 or int32, of any shape and order, as bytes.

    TypeError: another element type. ValueError: a name of more than 255 bytes.
    """
    head, body = [struct.pack("<H", len(arrays))], []
    for name, array in arrays.items():
        dtype = array.dtype.newbyteorder("<")
        if dtype not in _DTYPES:
            raise TypeError(f"{name!r} is an array of {array.dtype}, expected float32, float64 or int32")
        raw = name.encode()
        if len(raw) > 255:
            raise ValueError(f"the name {name[:40]!r}... is {len(raw)} bytes long, at most 255 are allowed")
        head.append(struct.pack("<B", len(raw)) + raw)
        head.append(struct.pack(f"<BB{array.ndim}I", _DTYPES.index(dtype), array.ndim, *array.shape))
        body.append(array.astype(dtype, copy=False).tobytes())
    return b"".join(head + body)


def unpack_arrays(packed: bytes) -> dict[str, Array]:
    """What `pack_arrays` packed: new arrays in C order, of the machine's own byte order, that may be written to."""
    (count,) = struct.unpack_from("<H", packed)
    at = 2
    found = []
    for _ in range(count):
        n_name = packed[at]
        name = packed[at + 1 : at + 1 + n_name].decode()
        at += 1 + n_name
        code, n_dims = packed[at], packed[at + 1]
        shape = struct.unpack_from(f"<{n_dims}I", packed, at + 2)
        at += 2 + 4 * n_dims
        found.append((name, _DTYPES[code], shape))
    arrays = {}
    for name, dtype, shape in found:
        n_elements = int(np.prod(shape, dtype=np.int64))
        flat = np.frombuffer(packed, dtype, n_elements, at)
        arrays[name] = flat.reshape(shape).astype(dtype.newbyteorder("="))
        at += n_elements * dtype.itemsize
    return arrays
