"""Dequantizes rows of weights with ggml's own functions, those that llama.cpp looks up embeddings with.

ggml exports one per type, `dequantize_row_<type>`. So there is no second implementation to keep equal, and types newer
than gguf-py work too. The functions are found by name, so that edgecal depends on no struct layout of ggml.
"""

from __future__ import annotations

import ctypes

import numpy as np
from numpy.typing import NDArray

from edgecal.errors import ModelError
from edgecal.llama.library import describe_llama_cpp, find_function

__all__ = ["dequantize_rows"]


def dequantize_rows(type_name: str, raw: NDArray[np.uint8], n_per_row: int) -> NDArray[np.float32]:
    """Returns rows of a quantized type as float32 [n, n_per_row].

    Parameters
    ----------
    type_name: the type as GGUF files name it: "Q4_K", "IQ2_XXS", "MXFP4".
    raw: uint8 [n, bytes of a row], n may be 0. The type's block size must divide `n_per_row`, and the blocks must fill
        the rows: ggml reads as many bytes as `n * n_per_row` numbers take.

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
