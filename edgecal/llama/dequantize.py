"""Rows of quantized weights as numbers, by the functions with which llama.cpp itself looks up an embedding.

ggml exports one per type, `dequantize_row_<type>`. There is no second implementation to keep equal: whatever
this llama.cpp can multiply it can also write out, also types that are younger than gguf-py. Its functions are
found by their names, as everywhere, so that no struct layout of ggml needs to be known.

Does not know files, tensors or what the rows are for.
"""

from __future__ import annotations

import ctypes

import numpy as np
from numpy.typing import NDArray

from edgecal.errors import ModelError
from edgecal.llama.library import describe_llama_cpp, find_function

__all__ = ["dequantize_rows"]


def dequantize_rows(type_name: str, raw: NDArray[np.uint8], n_per_row: int) -> NDArray[np.float32]:
    """Rows of a quantized type as float32 [n, n_per_row].

    Parameters
    ----------
    type_name: the type as GGUF files name it: "Q4_K", "IQ2_XXS", "MXFP4".
    raw: uint8 [n, bytes of a row], n may be 0. The type's blocks must divide `n_per_row` and fill the rows:
        ggml reads as many bytes as `n * n_per_row` numbers take.

    Raises
    ------
    ModelError: ggml exports no function for the type; the message begins with the type's name.
    """
    name = f"dequantize_row_{type_name.lower().replace('_k', '_K')}"
    function = find_function(name)
    if function is None:
        raise ModelError(f"{type_name}: {describe_llama_cpp()} exports no {name} to turn it into numbers")
    function.restype, function.argtypes = None, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
    raw = np.ascontiguousarray(raw, np.uint8)
    rows = np.empty((len(raw), n_per_row), np.float32)
    function(raw.ctypes.data, rows.ctypes.data, rows.size)
    return rows
