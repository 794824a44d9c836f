"""Rounds activations as llama.cpp does before a product: each weight type has a type for the other factor.

Follows `quantize_row_q8_0`, `quantize_row_q8_1` and `quantize_row_q8_K` of ggml-cpu, in float32 as there, so that
the numbers are the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["SUM_BLOCK", "SUM_TYPES", "round_input", "sum_errors"]

# Weights with a minimum per block: ggml multiplies it by the sum of the activation's block, which it rounds separately.
SUM_TYPES = frozenset({"Q4_1", "Q5_1"})
SUM_BLOCK = 32

_K_BLOCK = 256

FloatRows = NDArray[np.float32]


def round_input(x: FloatRows, type_name: str, block_elements: int) -> FloatRows:
    """Round `x` as llama.cpp does before it multiplies it with weights of a type.

    Parameters
    ----------
    x: float32 [m, n], finite; n is a multiple of the type's block size.
    type_name, block_elements: of the weights, as in `edgecal.gguf.tensors.GGML_TYPES`. F32 is not rounded, F16 and
        BF16 round to themselves, blocks of 256 to Q8_K (8 bits each and a float32 per 256 numbers), all others to
        Q8_0 or Q8_1 (8 bits each and a float16 per 32 numbers).

    Returns
    -------
    float32 [m, n].
    """
    if type_name == "F32":
        return x
    with np.errstate(all="ignore"):
        if type_name == "F16":
            return x.astype(np.float16).astype(np.float32)
        if type_name == "BF16":
            bits = x.view(np.uint32)
            upper: FloatRows = (
                (bits + 0x7FFF + ((bits >> 16) & 1) & 0xFFFF0000).astype(np.uint32).view(np.float32)
            )
            return upper
        if block_elements == _K_BLOCK:
            return _round_k(x)
        codes, scales = _codes(x)
        rounded: FloatRows = (codes * scales.astype(np.float16).astype(np.float32)).reshape(x.shape)
        return rounded


def sum_errors(x: FloatRows) -> FloatRows:
    """Rounding errors of the block sums for weights of `SUM_TYPES`: the float16 that ggml stores for each block's sum
    minus the sum of `round_input`'s numbers; float32 [m, n / 32] for x float32 [m, n]."""
    codes, scales = _codes(x)
    total = codes.sum(axis=2, keepdims=True)
    with np.errstate(all="ignore"):
        stored = (scales * total).astype(np.float16).astype(np.float64)
        errors: FloatRows = (stored - scales.astype(np.float16).astype(np.float64) * total).astype(np.float32)
    return errors[:, :, 0]


def _codes(x: FloatRows) -> tuple[FloatRows, FloatRows]:
    """8-bit codes from -127 to 127, float32 [m, n / 32, 32], and each block's scale, float32 [m, n / 32, 1]."""
    blocks = x.reshape(len(x), -1, SUM_BLOCK)
    largest = np.abs(blocks).max(axis=2, keepdims=True)
    with np.errstate(all="ignore"):
        inverse = np.where(largest > 0, np.float32(127) / largest, np.float32(0))
        codes: FloatRows = np.rint(blocks * inverse)
        return codes, largest / np.float32(127)


def _round_k(x: FloatRows) -> FloatRows:
    """Round to Q8_K: in each block of 256 the number of largest magnitude, the first of equals, becomes -127."""
    blocks = x.reshape(len(x), -1, _K_BLOCK)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=2)[:, :, None], axis=2)
    inverse = np.where(largest != 0, np.float32(-127) / largest, np.float32(0))
    scale = np.where(largest != 0, np.float32(1) / inverse, np.float32(0))
    codes = np.minimum(np.rint(inverse * blocks), np.float32(127))
    rounded: FloatRows = (codes * scale).reshape(x.shape)
    return rounded
