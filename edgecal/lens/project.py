"""The kernel that applies a head to hidden states.

Knows arrays only. Deterministic: every output is made from its own row of hidden states by one fixed order
of float64 additions, so it depends neither on what else is projected nor on the number of threads.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange
from numpy.typing import NDArray

from edgecal.jit import inner, kernel
from edgecal.lens.head import Head
from edgecal.lens.linear import dot

__all__ = ["project"]


def project(hidden: NDArray[np.float32], head: Head, row_index: NDArray[np.int32]) -> NDArray[np.float32]:
    """Logits of chosen head rows for every prompt and block: the logit lens.

    `z = transform(rows[j] . (norm(merge(h)) * weight + bias) + row_bias[j])` with
    RMSNorm `h / sqrt(mean(h^2) + eps)` (arXiv 1910.07467) or
    LayerNorm `(h - mean(h)) / sqrt(var(h) + eps)` (arXiv 1607.06450), and
    `transform(x) = c * tanh(scale * x / c)` with a soft cap c, else `scale * x`; where blocks hand out several
    streams, `merge` (`edgecal.lens.merge`) makes them one.

    Parameters
    ----------
    hidden: float32 [n, n_layer, width], the residual stream after each block.
    head: as `read_head` gives it; `width` must be the same.
    row_index: int32 [n, k_max], for each prompt the rows of `head.rows`; -1 is padding.

    Returns
    -------
    float32 [n, n_layer, k_max]; -inf where `row_index` is -1. Hidden states that are not finite give logits
    that are not. Accumulated in float64.

    Raises
    ------
    ValueError: shapes that do not fit each other, or a row that the head does not have.
    """
    if hidden.ndim != 3 or hidden.shape[2] != head.width:
        raise ValueError(f"hidden has shape {hidden.shape}, expected [n, n_layer, {head.width}]")
    if row_index.ndim != 2 or len(row_index) != len(hidden):
        raise ValueError(f"row_index has shape {row_index.shape}, expected [{len(hidden)}, k_max]")
    if row_index.size and not -1 <= row_index.min() <= row_index.max() < len(head.rows):
        raise ValueError(
            f"row_index holds {row_index.min()} to {row_index.max()}, expected -1 to {len(head.rows) - 1}"
        )
    merged = hidden if head.merge is None else head.merge(hidden)
    return _project(
        np.ascontiguousarray(merged, np.float32),
        np.ascontiguousarray(row_index, np.int32),
        head.rows,
        head.row_bias,
        head.norm_weight,
        head.norm_bias,
        head.normalized,
        head.centered,
        head.eps,
        head.logit_scale,
        0.0 if head.soft_cap is None else head.soft_cap,
    )


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


@kernel(parallel=True)
def _project(
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
            z = (dot(x, rows[j]) + np.float64(row_bias[j])) * logit_scale
            if soft_cap != 0.0:
                z = soft_cap * math.tanh(z / soft_cap)
            out[i, il, k] = np.float32(z)
    return out
