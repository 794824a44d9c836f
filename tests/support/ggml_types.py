"""ggml's own table of types: what each is called, how large it is, and its quantizer and dequantizer.

Through the struct that `ggml_get_type_traits` returns, where edgecal goes by exported names: a second way to the
same answers. `WEIGHT_TYPES` are all types that the llama.cpp in use can write out as floats.
"""

from __future__ import annotations

import ctypes
import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecal.gguf.tensors import GGML_TYPES

__all__ = [
    "TYPE_IDS",
    "WEIGHT_TYPES",
    "Traits",
    "dequantize",
    "llama_lib_folder",
    "quantize_rows",
    "traits_of",
]

TYPE_IDS = {known.name: type_id for type_id, known in GGML_TYPES.items()}

_ToFloat = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)


class Traits(ctypes.Structure):
    """`ggml_type_traits` of the llama.cpp that edgecal is pinned to; a removed type has blocks of 0 elements."""

    _fields_ = (
        ("type_name", ctypes.c_char_p),
        ("block_elements", ctypes.c_int64),
        ("block_interleave", ctypes.c_int64),
        ("block_bytes", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.c_void_p),
        ("from_float", ctypes.c_void_p),
    )


@cache
def llama_lib_folder() -> Path:
    """Where llama-cpp-python keeps its native libraries (found without importing it)."""
    spec = importlib.util.find_spec("llama_cpp")
    assert spec is not None and spec.origin is not None, "llama-cpp-python is not installed"
    return Path(spec.origin).parent / "lib"


@cache
def _ggml_base() -> ctypes.CDLL:
    lib = ctypes.CDLL(str(llama_lib_folder() / "libggml-base.so"))
    lib.ggml_get_type_traits.restype = ctypes.POINTER(Traits)
    lib.ggml_get_type_traits.argtypes = [ctypes.c_int]
    lib.ggml_quantize_chunk.restype = ctypes.c_size_t
    lib.ggml_quantize_chunk.argtypes = [
        ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p,
        ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p,
    ]  # fmt: skip
    return lib


def traits_of(type_id: int) -> Traits:
    """ggml's entry; ids from `llama_cpp.GGML_TYPE_COUNT` on are not in its table."""
    traits: Traits = _ggml_base().ggml_get_type_traits(type_id).contents
    return traits


WEIGHT_TYPES = tuple(
    name for name, type_id in TYPE_IDS.items() if name == "F32" or traits_of(type_id).to_float
)


def quantize_rows(data: NDArray[np.float32], name: str) -> NDArray[np.uint8]:
    """Rows of `data` in the type `name` by ggml's own quantizer, uint8 [..., bytes of a row]."""
    source = np.ascontiguousarray(data, np.float32)
    n_per_row = source.shape[-1]
    traits = traits_of(TYPE_IDS[name])
    assert n_per_row % traits.block_elements == 0, (name, n_per_row)
    out = np.zeros((*data.shape[:-1], n_per_row // traits.block_elements * traits.block_bytes), np.uint8)
    weights = np.ones(n_per_row, np.float32)  # the IQ1 to IQ3 types insist on importance weights
    written = _ggml_base().ggml_quantize_chunk(
        TYPE_IDS[name], source.ctypes.data, out.ctypes.data, 0, source.size // n_per_row, n_per_row,
        weights.ctypes.data,
    )  # fmt: skip
    assert written == out.nbytes, (name, written, out.nbytes)
    return out


def dequantize(name: str, raw: NDArray[np.uint8], n_per_row: int) -> NDArray[np.float32]:
    """Rows as ggml's `to_float` writes them, float32 [n, n_per_row]."""
    if name == "F32":
        return raw.view(np.float32)
    out = np.empty((len(raw), n_per_row), np.float32)
    _ToFloat(traits_of(TYPE_IDS[name]).to_float)(raw.ctypes.data, out.ctypes.data, out.size)
    return out
