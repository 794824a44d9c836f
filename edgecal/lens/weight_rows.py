"""Reads rows of a GGUF tensor as float32: only the bytes of the requested rows, and dequantizes only those.

Quantized rows are converted by a function that the caller passes, in practice ggml's own
(`edgecal.llama.library`). It is right for every type that this llama.cpp runs, the caller has llama.cpp loaded
anyway to run the model, and this package needs no native library. Rows are read with plain reads, not a memory map:
if the file is truncated meanwhile, a read gives an error, where a map would kill the process.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecal.errors import ModelError
from edgecal.gguf.tensors import GGML_TYPES, GgmlType, TensorInfo, why_not_run

__all__ = ["Dequantize", "n_rows_of", "read_minima", "read_rows", "read_vector"]

# (type name, rows as uint8 [n, bytes per row], numbers per row) -> float32 [n, numbers per row]; raises ModelError for
# a type that it does not know.
Dequantize = Callable[[str, NDArray[np.uint8], int], NDArray[np.float32]]

_NO_LENS = "use --method daca, which needs no lens"


def n_rows_of(info: TensorInfo) -> int:
    """Number of rows of `ne[0]` elements each."""
    n_rows = 1
    for n in info.ne[1:]:
        n_rows *= n
    return n_rows


def read_vector(path: Path, info: TensorInfo, dequantize: Dequantize) -> NDArray[np.float32]:
    """Read a tensor of one row as float32 [ne[0]]. Raises as `read_rows`."""
    return read_rows(path, info, np.zeros(1, np.int64), dequantize).reshape(-1)


def read_minima(
    path: Path, info: TensorInfo, row_ids: NDArray[np.integer], dequantize: Dequantize
) -> NDArray[np.float32]:
    """Read each block's minimum in chosen rows, float32 [len(row_ids), n_blocks], of a type whose blocks begin with a
    scale and a minimum in float16 (Q4_1, Q5_1). A block whose codes are zero dequantizes to its minimum. Raises as
    `read_rows`."""
    ggml_type = _type_of(path, info)

    def dequantize_zeros(name: str, raw: NDArray[np.uint8], n_per_row: int) -> NDArray[np.float32]:
        blocks = raw.reshape(-1, ggml_type.block_bytes).copy()
        blocks[:, 4:] = 0
        return dequantize(name, blocks.reshape(raw.shape), n_per_row)

    return read_rows(path, info, row_ids, dequantize_zeros)[:, :: ggml_type.block_elements]


def read_rows(
    path: Path, info: TensorInfo, row_ids: NDArray[np.integer], dequantize: Dequantize
) -> NDArray[np.float32]:
    """Read rows of a tensor as float32 [len(row_ids), ne[0]], in the order of `row_ids`, repeats allowed.

    Neighbouring rows are read together, so this is efficient for a few rows as well as for long runs of them. A
    quantized type's rows go to `dequantize` in one call; float types do not need it.

    Raises
    ------
    ModelError: a row that the tensor does not have, a type that cannot be dequantized, or a file that cannot be read
    or no longer holds the bytes.
    """
    row_ids = np.asarray(row_ids, np.int64)
    n_rows = n_rows_of(info)
    wrong = row_ids[(row_ids < 0) | (row_ids >= n_rows)]
    if wrong.size:
        raise ModelError(f"{path}: {info.name} has {n_rows} rows, row {wrong[0]} was requested")
    ggml_type = _type_of(path, info)
    row_bytes = info.ne[0] // ggml_type.block_elements * ggml_type.block_bytes
    unique, positions = np.unique(row_ids, return_inverse=True)
    raw = np.empty((len(unique), row_bytes), np.uint8)
    starts = np.flatnonzero(np.diff(unique, prepend=-2) != 1)
    ends = np.append(starts[1:], len(unique))[: len(starts)]
    try:
        with path.open("rb", buffering=0) as file:
            for first, last in zip(starts, ends, strict=True):
                _read_exactly(
                    file.fileno(), info.data_offset + int(unique[first]) * row_bytes, raw[first:last], path
                )
    except OSError as error:
        raise ModelError(f"{path}: {info.name} cannot be read: {error.strerror}") from error
    return _to_float32(path, info, raw, dequantize)[positions]


def _type_of(path: Path, info: TensorInfo) -> GgmlType:
    reason = why_not_run(info, weights=True)
    if reason is not None:
        raise ModelError(f"{path}: {reason}")
    ggml_type = GGML_TYPES.get(info.type_id)
    if ggml_type is None:
        raise ModelError(
            f"{path}: {info.name} is stored as {info.type_name}, which edgecal does not know; {_NO_LENS}"
        )
    return ggml_type


def _read_exactly(descriptor: int, offset: int, target: NDArray[np.uint8], path: Path) -> None:
    view = memoryview(target.data).cast("B")
    while view:
        os.lseek(descriptor, offset, os.SEEK_SET)
        data = os.read(descriptor, len(view))
        if not data:
            raise ModelError(f"{path}: the file was truncated while it was being read; start again")
        view[: len(data)] = data
        view = view[len(data) :]
        offset += len(data)


def _to_float32(
    path: Path, info: TensorInfo, raw: NDArray[np.uint8], dequantize: Dequantize
) -> NDArray[np.float32]:
    name = info.type_name
    if name == "BF16":  # the upper half of a float32
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    if name in ("F32", "F16"):
        return raw.view({"F32": "<f4", "F16": "<f2"}[name]).astype(np.float32)
    try:
        return dequantize(name, raw, info.ne[0])
    except ModelError as error:
        raise ModelError(f"{path}: {info.name} cannot be read: {error}; {_NO_LENS}") from error
