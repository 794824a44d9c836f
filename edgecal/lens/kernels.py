"""The lens's heavy kernels: dot products summed in a fixed order, so that the bits depend on the inputs alone."""

from __future__ import annotations

import math

import numpy as np
from numba import prange
from numpy.typing import NDArray

from edgecal.jit import inner, kernel

__all__ = ["multiply_rows", "project_rows"]


@inner
def _normalize(
    h: NDArray[np.float32],
    weight: NDArray[np.float32],
    bias: NDArray[np.float32],
    normalized: bool,
    centered: bool,
    eps: float,
    out: NDArray[np.float64],
) -> None:
    n = h.shape[0]
    if not normalized:
        for e in range(n):
            out[e] = np.float64(h[e])
        return
    mean = 0.0
    if centered:
        for e in range(n):
            mean += np.float64(h[e])
        mean /= n
    square = 0.0
    for e in range(n):
        d = np.float64(h[e]) - mean
        square += d * d
    scale = 1.0 / math.sqrt(square / n + eps)
    for e in range(n):
        out[e] = (np.float64(h[e]) - mean) * scale * np.float64(weight[e]) + np.float64(bias[e])


@inner
def _dot(x: NDArray[np.float64], row: NDArray[np.float32]) -> float:
    """Keeps eight running sums and adds them in a fixed order: several times faster than one, as reproducible."""
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
    """Multiplies each row of x [m, n_in] with each row of weight [n_out, n_in]; returns float64 [m, n_out]."""
    m = x.shape[0]
    n_out = weight.shape[0]
    out = np.empty((m, n_out))
    for task in prange(m * n_out):
        out[task // n_out, task % n_out] = _dot(x[task // n_out], weight[task % n_out])
    return out


@kernel(parallel=True)
def project_rows(
    hidden: NDArray[np.float32],
    row_index: NDArray[np.int32],
    rows: NDArray[np.float32],
    row_bias: NDArray[np.float32],
    weight: NDArray[np.float32],
    bias: NDArray[np.float32],
    normalized: bool,
    centered: bool,
    eps: float,
    logit_scale: float,
    soft_cap: float,
) -> NDArray[np.float32]:
    """Computes the formula of `edgecal.lens.project`; returns float32 [n, n_layer, k_max].

    hidden float32 [n, n_layer, n_embd], row_index int32 [n, k_max] (-1: padding), rows float32 [r, n_embd], row_bias
    float32 [r], weight and bias of the norm float32 [n_embd]; a soft_cap of 0 means no cap.
    """
    n, n_layer, n_embd = hidden.shape
    k_max = row_index.shape[1]
    out = np.empty((n, n_layer, k_max), np.float32)
    for task in prange(n * n_layer):
        i = task // n_layer
        il = task % n_layer
        x = np.empty(n_embd, np.float64)
        _normalize(hidden[i, il], weight, bias, normalized, centered, eps, x)
        for k in range(k_max):
            j = row_index[i, k]
            if j < 0:
                out[i, il, k] = -np.inf
                continue
            z = (_dot(x, rows[j]) + np.float64(row_bias[j])) * logit_scale
            if soft_cap != 0.0:
                z = soft_cap * math.tanh(z / soft_cap)
            out[i, il, k] = np.float32(z)
    return out
