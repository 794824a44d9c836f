"""Kernels of the bootstrap: draw prompts with replacement, add up tabulated losses, find the minimum.

A refit never goes back to the logits: each prompt's loss is a row of values and slopes on a grid of ln tau,
a resample's loss is a sum of rows with whole-number counts, and between nodes it is the cubic that has the
values and slopes of both ends (Hermite). Draws come from a counter (SplitMix64's output function on
key + j * constant), so draw j of resample b is a pure function of the seed: no state, no order, no thread
can change it. Knows nothing of what a loss is made of.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from edgecal.calibration.choice_logits import FloatArray, IntArray
from edgecal.jit import inner, kernel

__all__ = ["cell_minimum", "draw_counts", "grid_minimum", "resample_minima"]

_BLOCK = 8  # resamples that share one pass over the rows
_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_S27, _S30, _S31, _S32 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(32)


@inner
def _mix(z: np.uint64) -> np.uint64:
    """SplitMix64's finaliser: a bijection of 64 bits whose outputs look independent (Steele et al. 2014)."""
    z = (z ^ (z >> _S30)) * _MIX_1
    z = (z ^ (z >> _S27)) * _MIX_2
    mixed: np.uint64 = z ^ (z >> _S31)
    return mixed


@inner
def _draw(n_prompts: int, seed: np.uint64, resample: int, counts: IntArray) -> None:
    """Fill counts with how often each of n_prompts is drawn in n_prompts draws with replacement.

    The top 32 bits of a draw are scaled to the range: no prompt is favoured by more than n_prompts / 2^32.
    """
    for i in range(n_prompts):
        counts[i] = 0
    key = _mix(_mix(seed + _GAMMA) + np.uint64(resample) * _GAMMA)
    for j in range(n_prompts):
        bits = _mix(key + np.uint64(j) * _GAMMA) >> _S32
        counts[(bits * np.uint64(n_prompts)) >> _S32] += 1


@kernel()
def draw_counts(n_prompts: int, seed: np.uint64, resample: int) -> IntArray:
    """int32 [n_prompts]: how often resample `resample` of seed `seed` holds each prompt; sums to n_prompts."""
    counts = np.empty(n_prompts, dtype=np.int32)
    _draw(n_prompts, seed, resample, counts)
    return counts


@inner
def _cell_minimum(f0: float, f1: float, g0: float, g1: float) -> tuple[float, float]:
    """The minimum inside one cell: (t, value) with 0 <= t <= 1, or (-1, inf).

    f0, f1 are the values at t = 0 and 1, g0, g1 the slopes in t. The cubic's derivative is
    a t^2 + b t + c; the root where it passes from - to + is (-b + sqrt(b^2 - 4 a c)) / (2 a).
    """
    c = g0
    b = 6.0 * (f1 - f0) - 4.0 * g0 - 2.0 * g1
    a = 3.0 * (g0 + g1) - 6.0 * (f1 - f0)
    disc = b * b - 4.0 * a * c
    if g0 < 0.0 < g1:
        t = -2.0 * c / (b + math.sqrt(max(disc, 0.0)))
        t = min(max(t, 0.0), 1.0)
    else:
        if not disc > 0.0:
            return -1.0, math.inf
        root = math.sqrt(disc)
        if b > 0.0:
            t = -2.0 * c / (b + root)
        elif a != 0.0:
            t = (root - b) / (2.0 * a)
        else:
            return -1.0, math.inf
        if not 0.0 <= t <= 1.0:
            return -1.0, math.inf
    return t, f0 + t * (c + t * (0.5 * b + t * a / 3.0))


@kernel()
def cell_minimum(f0: float, f1: float, g0: float, g1: float) -> tuple[float, float]:
    """As `_cell_minimum`, for calls from Python."""
    return _cell_minimum(f0, f1, g0, g1)


@inner
def _grid_minimum(values: FloatArray, slopes: FloatArray) -> tuple[float, float]:
    last = values.shape[0] - 1
    position = 0.0
    best = values[0]
    for cell in range(last):
        t, value = _cell_minimum(values[cell], values[cell + 1], slopes[cell], slopes[cell + 1])
        if t >= 0.0 and value < best:
            position = cell + t
            best = value
    if values[last] < best:
        position = float(last)
        best = values[last]
    return position, best


@kernel()
def grid_minimum(values: FloatArray, slopes: FloatArray) -> tuple[float, float]:
    """Lowest point of the piecewise cubic: (position in cells from 0 to n - 1, value); ties to the left.

    values, slopes float64 [n], n >= 2, slopes per cell. The ends count; NaN never wins over a number.
    """
    return _grid_minimum(values, slopes)


@kernel(parallel=True)
def resample_minima(
    values: FloatArray,
    slopes: FloatArray,
    prompts: IntArray,
    groups: IntArray,
    factors: FloatArray,
    by_group: bool,
    n_prompts: int,
    seed: np.uint64,
    first: int,
    positions: FloatArray,
) -> None:
    """Refit resamples first, first + 1, ...: positions[r] is the minimum's place in cells, -1 if undefined.

    values, slopes float32 [m, n_nodes]: one row for each prompt behind the loss, slopes per cell.
    prompts int64 [m]: the row's prompt, 0 to n_prompts - 1. groups int64 [m]: 0 or 1, the row's loss term.
    factors float64 [n_groups]: weight of each term. by_group: a term is a mean over its own examples, else
    both are sums. Undefined: a term for which no example was drawn.
    """
    m, n_nodes = values.shape
    n_groups = factors.shape[0]
    n_resamples = positions.shape[0]
    for block in prange((n_resamples + _BLOCK - 1) // _BLOCK):
        begin = block * _BLOCK
        size = min(_BLOCK, n_resamples - begin)
        counts = np.empty((_BLOCK, n_prompts), dtype=np.int32)
        drawn = np.zeros((_BLOCK, n_groups))
        sums = np.zeros((_BLOCK, n_groups, 2, n_nodes))
        for r in range(size):
            _draw(n_prompts, seed, first + begin + r, counts[r])
        for i in range(m):
            group = groups[i]
            row_values = values[i]
            row_slopes = slopes[i]
            for r in range(size):
                count = counts[r, prompts[i]]
                if count > 0:
                    drawn[r, group] += count
                    weight = float(count)
                    sum_values = sums[r, group, 0]
                    sum_slopes = sums[r, group, 1]
                    for t in range(n_nodes):
                        sum_values[t] += weight * row_values[t]
                    for t in range(n_nodes):
                        sum_slopes[t] += weight * row_slopes[t]
        for r in range(size):
            total = np.zeros((2, n_nodes))
            missing = False
            for group in range(n_groups):
                if drawn[r, group] == 0.0:
                    missing = True
                else:
                    scale = factors[group] / drawn[r, group] if by_group else factors[group]
                    for t in range(n_nodes):
                        total[0, t] += scale * sums[r, group, 0, t]
                        total[1, t] += scale * sums[r, group, 1, t]
            positions[begin + r] = -1.0 if missing else _grid_minimum(total[0], total[1])[0]
