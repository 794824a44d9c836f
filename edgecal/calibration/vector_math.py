"""exp and log of whole rows, for use inside kernels.

Plain arithmetic that the compiler vectorizes: several times faster than one library call per number, and the same
bits on every processor. Both are accurate to 2 units in the last place.
"""

from __future__ import annotations

import numpy as np

from edgecal.calibration.arrays import FloatArray
from edgecal.jit import inner

__all__ = ["exp_row", "log_row"]

# Adding 1.5 * 2^52 rounds a number to an integer, which is then in the lowest bits of the sum.
_ROUND = 6755399441055744.0
_ROUND_BITS = np.int64(0x4338000000000000)
_LOG2_E = 1.4426950408889634
_LN2_HIGH = 0.6931471803691238  # its last 21 bits are 0, so integer multiples up to 2^20 are exact
_LN2_LOW = 1.9082149292705877e-10
_EXP_LEAST = -708.0  # below it exp is below 3.4e-308 and is returned as 0
_NORMAL_LEAST = 2.2250738585072014e-308
_ROOT_HALF_BITS = np.int64(0x3FE6A09E667F3BCD)
_BIAS, _MANTISSA = np.int64(1023), np.int64(52)


@inner
def exp_row(x: FloatArray, scratch: FloatArray) -> None:
    """x = exp(x) for x <= 0, -inf and NaN: 2^k times a Taylor polynomial on |r| <= ln 2 / 2."""
    bits = scratch.view(np.int64)
    for t in range(x.shape[0]):
        v = _EXP_LEAST if x[t] < _EXP_LEAST else x[t]
        shifted = v * _LOG2_E + _ROUND
        k = shifted - _ROUND
        r = (v - k * _LN2_HIGH) - k * _LN2_LOW
        p = 1.0 / 6227020800.0
        p = p * r + 1.0 / 479001600.0
        p = p * r + 1.0 / 39916800.0
        p = p * r + 1.0 / 3628800.0
        p = p * r + 1.0 / 362880.0
        p = p * r + 1.0 / 40320.0
        p = p * r + 1.0 / 5040.0
        p = p * r + 1.0 / 720.0
        p = p * r + 1.0 / 120.0
        p = p * r + 1.0 / 24.0
        p = p * r + 1.0 / 6.0
        p = p * r + 0.5
        p = p * r * r + r + 1.0
        x[t] = 0.0 if x[t] < _EXP_LEAST else p
        scratch[t] = shifted
    for t in range(x.shape[0]):
        bits[t] = (bits[t] + _BIAS) << _MANTISSA
    for t in range(x.shape[0]):
        x[t] *= scratch[t]


@inner
def log_row(x: FloatArray, out: FloatArray, scratch: FloatArray) -> None:
    """out = log(x) for x >= 0 and NaN; 0 counts as the smallest normal number. x and out must be different arrays.

    x = 2^e m with m between sqrt(1/2) and sqrt(2); log m = 2 atanh(s) with s = (m - 1) / (m + 1), as a series.
    """
    bits = out.view(np.int64)
    exponents = scratch.view(np.int64)
    for t in range(x.shape[0]):
        out[t] = _NORMAL_LEAST if x[t] < _NORMAL_LEAST else x[t]
    for t in range(x.shape[0]):
        e = (bits[t] - _ROOT_HALF_BITS) >> _MANTISSA
        bits[t] -= e << _MANTISSA
        exponents[t] = e + _ROUND_BITS
    for t in range(x.shape[0]):
        m = out[t]
        e_value = scratch[t] - _ROUND
        s = (m - 1.0) / (m + 1.0)
        z = s * s
        p = 1.0 / 21.0
        p = p * z + 1.0 / 19.0
        p = p * z + 1.0 / 17.0
        p = p * z + 1.0 / 15.0
        p = p * z + 1.0 / 13.0
        p = p * z + 1.0 / 11.0
        p = p * z + 1.0 / 9.0
        p = p * z + 1.0 / 7.0
        p = p * z + 1.0 / 5.0
        p = p * z + 1.0 / 3.0
        s += s
        out[t] = e_value * _LN2_HIGH + (s + (s * z * p + e_value * _LN2_LOW)) + (x[t] - x[t])
