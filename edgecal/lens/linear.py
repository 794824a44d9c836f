"""Sums of products, in an order that is fixed: the same bits whatever else is computed, on any number of threads.

Knows arrays only.
"""

from __future__ import annotations

import numpy as np
from numba import prange
from numpy.typing import NDArray

from edgecal.jit import inner, kernel

__all__ = ["dot", "multiply_rows"]


@inner
def dot(x: NDArray[np.float64], row: NDArray[np.float32]) -> float:
    """Eight running sums, added up in one fixed order: several times faster than one, and as repeatable."""
    n = x.shape[0]
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = 0.0
    whole = n - n % 8
    for e in range(0, whole, 8):
        s0 += x[e] * np.float64(row[e])
        s1 += x[e + 1] * np.float64(row[e + 1])
        s2 += x[e + 2] * np.float64(row[e + 2])
        s3 += x[e + 3] * np.float64(row[e + 3])
        s4 += x[e + 4] * np.float64(row[e + 4])
        s5 += x[e + 5] * np.float64(row[e + 5])
        s6 += x[e + 6] * np.float64(row[e + 6])
        s7 += x[e + 7] * np.float64(row[e + 7])
    total = ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7))
    for e in range(whole, n):
        total += x[e] * np.float64(row[e])
    return total


@kernel(parallel=True)
def multiply_rows(x: NDArray[np.float64], weight: NDArray[np.float32]) -> NDArray[np.float64]:
    """Each row of x times each row of a matrix: float64 [m, n_out] of x [m, n_in] and weight [n_out, n_in]."""
    m = x.shape[0]
    n_out = weight.shape[0]
    out = np.empty((m, n_out))
    for task in prange(m * n_out):
        out[task // n_out, task % n_out] = dot(x[task // n_out], weight[task % n_out])
    return out
