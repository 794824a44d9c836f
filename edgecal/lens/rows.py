"""Rows of a GGUF tensor as float32: reads just the bytes of the wanted rows and dequantizes only those.

Knows tensors as (file, place, type); knows nothing of heads or norms. Plain reads instead of a memory map:
a file that is cut short meanwhile gives an error, where a map would kill the process.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecal.errors import ModelError
from edgecal.gguf import GGML_TYPES, TensorInfo

__all__ = ["n_rows_of", "read_rows", "read_vector"]


def n_rows_of(info: TensorInfo) -> int:
    """Number of rows of `ne[0]` elements each."""
    n_rows = 1
    for n in info.ne[1:]:
        n_rows *= n
    return n_rows


def read_vector(path: Path, info: TensorInfo) -> NDArray[np.float32]:
    """A whole tensor of one row as float32 [ne[0]]. Errors as `read_rows`."""
    return read_rows(path, info, np.zeros(1, np.int64)).reshape(-1)


def read_rows(path: Path, info: TensorInfo, row_ids: NDArray[np.integer]) -> NDArray[np.float32]:
    """Chosen rows of a tensor as float32 [len(row_ids), ne[0]], in the order of `row_ids`, repeats allowed.

    Neighbouring rows are read together, so this serves a handful of rows as well as blocks of many.

    Raises
    ------
    ModelError: a row that the tensor does not have; a type that gguf-py cannot turn into numbers; a file
    that cannot be read or no longer holds the bytes.
    """
    row_ids = np.asarray(row_ids, np.int64)
    n_rows = n_rows_of(info)
    wrong = row_ids[(row_ids < 0) | (row_ids >= n_rows)]
    if wrong.size:
        raise ModelError(f"{path}: {info.name} has {n_rows} rows, row {wrong[0]} was asked for")
    known = GGML_TYPES.get(info.type_id)
    if known is None:
        raise _unreadable(path, info)
    row_bytes = info.ne[0] // known.block_elements * known.block_bytes
    unique, places = np.unique(row_ids, return_inverse=True)
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
    return _dequantize(path, info, raw)[places]


def _read_exactly(descriptor: int, offset: int, target: NDArray[np.uint8], path: Path) -> None:
    view = memoryview(target.data).cast("B")
    while view:
        os.lseek(descriptor, offset, os.SEEK_SET)
        data = os.read(descriptor, len(view))
        if not data:
            raise ModelError(f"{path}: became shorter while it was read; start again")
        view[: len(data)] = data
        view = view[len(data) :]
        offset += len(data)


def _dequantize(path: Path, info: TensorInfo, raw: NDArray[np.uint8]) -> NDArray[np.float32]:
    name = info.type_name
    if name in ("F32", "F16", "F64"):
        dtype = {"F32": "<f4", "F16": "<f2", "F64": "<f8"}[name]
        return raw.view(dtype).astype(np.float32)
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import dequantize

    if name not in GGMLQuantizationType.__members__:
        raise _unreadable(path, info)
    if not len(raw):
        return np.empty((0, info.ne[0]), np.float32)
    try:
        return np.asarray(dequantize(raw, GGMLQuantizationType[name]), np.float32)
    except NotImplementedError as error:
        raise _unreadable(path, info) from error


def _unreadable(path: Path, info: TensorInfo) -> ModelError:
    return ModelError(
        f"{path}: {info.name} is stored as {info.type_name}, which gguf-py cannot turn into numbers; "
        "quantize the head to another type, or use --method daca, which needs no lens"
    )
