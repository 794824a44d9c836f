"""Kernels of the bootstrap: draw prompts with replacement, add up tabulated slopes, find the minimum or a zero.

A refit never returns to the logits. The slope of each prompt's loss on a grid of ln tau is a row, and a resample's
slope is a sum of rows weighted by counts. Between nodes it is the polynomial through the six nearest ones, and the loss
is its integral; to find the minimum the loss is needed only up to a constant. Draws come from a counter (SplitMix64's
output function on key + j * constant), so draw j of resample b is a pure function of the seed, independent of state,
order and threads.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from edgecal.calibration.arrays import FloatArray, IntArray
from edgecal.jit import inner, kernel

__all__ = [
    "LEAST_NODES",
    "cell_minimum",
    "draw_counts",
    "first_crossing",
    "grid_minimum",
    "refit_positions",
    "slope_root",
]

LEAST_NODES = 6

_BLOCK = 8  # resamples that share one pass over the rows
_MAX_STEPS = 60
_ROOT_WIDTH = 1e-9  # of a cell
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
    """Fill counts with the number of times that each prompt occurs in n_prompts draws with replacement.

    The top 32 bits of a draw are scaled to the range, so no prompt is favoured by more than n_prompts / 2^32.
    """
    for i in range(n_prompts):
        counts[i] = 0
    key = _mix(_mix(seed + _GAMMA) + np.uint64(resample) * _GAMMA)
    for j in range(n_prompts):
        bits = _mix(key + np.uint64(j) * _GAMMA) >> _S32
        counts[(bits * np.uint64(n_prompts)) >> _S32] += 1


@kernel()
def draw_counts(n_prompts: int, seed: np.uint64, resample: int) -> IntArray:
    """int32 [n_prompts]: how often resample number `resample` of `seed` contains each prompt; sums to n_prompts."""
    counts = np.empty(n_prompts, dtype=np.int32)
    _draw(n_prompts, seed, resample, counts)
    return counts


@inner
def _cell_minimum(f0: float, f1: float, g0: float, g1: float) -> tuple[float, float]:
    """The minimum of a cubic inside one cell: (t, value) with 0 <= t <= 1, or (-1, inf) if it has none.

    f0, f1 are the values at t = 0 and 1, g0, g1 the slopes in t. The cubic's derivative is
    a t^2 + b t + c; its root from negative to positive is (-b + sqrt(b^2 - 4 a c)) / (2 a).
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
def _slope_root(slopes: FloatArray, cell: int, guess: float) -> float:
    """Where in a cell (0 to 1) the polynomial through the slopes at the six nearest nodes turns positive.

    Uses Newton's method from `guess` on divided differences, and halves where a step leaves the bracket. Returns
    `guess` unless the slope is negative at the cell's left end and positive at its right end.
    """
    low, high = 0.0, 1.0
    if not slopes[cell] < 0.0 < slopes[cell + 1]:
        return guess
    start = min(max(cell - 2, 0), slopes.shape[0] - LEAST_NODES)
    offset = float(cell - start)
    parts = np.empty(LEAST_NODES)
    for i in range(LEAST_NODES):
        parts[i] = slopes[start + i]
    for order in range(1, LEAST_NODES):
        for i in range(LEAST_NODES - 1, order - 1, -1):
            parts[i] = (parts[i] - parts[i - 1]) / order
    t = guess
    for _ in range(_MAX_STEPS):
        value = parts[LEAST_NODES - 1]
        turn = 0.0
        for i in range(LEAST_NODES - 2, -1, -1):
            turn = turn * (offset + t - i) + value
            value = value * (offset + t - i) + parts[i]
        if value < 0.0:
            low = t
        else:
            high = t
        before = t
        t = t - value / turn if turn > 0.0 else -1.0
        if not low <= t <= high:
            t = 0.5 * (low + high)
        if abs(t - before) < _ROOT_WIDTH:
            break
    return t


@kernel()
def slope_root(slopes: FloatArray, cell: int, guess: float) -> float:
    """As `_slope_root`, for calls from Python."""
    return _slope_root(slopes, cell, guess)


@inner
def _integrate(slopes: FloatArray, values: FloatArray) -> None:
    """values[i] = integral of the slopes (per cell) from node 0 to node i, from the six nodes nearest to each cell."""
    last = slopes.shape[0] - 1
    values[0] = 0.0
    for cell in range(last):
        if 2 <= cell < last - 2:
            area = (
                11.0 * (slopes[cell - 2] + slopes[cell + 3])
                - 93.0 * (slopes[cell - 1] + slopes[cell + 2])
                + 802.0 * (slopes[cell] + slopes[cell + 1])
            ) / 1440.0
        elif cell < 2:  # the cubic through the first or last four
            area = _end_area(slopes[0], slopes[1], slopes[2], slopes[3], cell)
        else:
            area = _end_area(
                slopes[last], slopes[last - 1], slopes[last - 2], slopes[last - 3], last - 1 - cell
            )
        values[cell + 1] = values[cell] + area


@inner
def _end_area(g0: float, g1: float, g2: float, g3: float, cell: int) -> float:
    """Integral over cell 0 or 1 of the cubic with these values at 0, 1, 2 and 3."""
    if cell == 0:
        return (9.0 * g0 + 19.0 * g1 - 5.0 * g2 + g3) / 24.0
    return (13.0 * (g1 + g2) - g0 - g3) / 24.0


@inner
def _grid_minimum(values: FloatArray, slopes: FloatArray) -> tuple[float, float]:
    last = values.shape[0] - 1
    position = 0.0
    best = values[0]
    place = -1
    for cell in range(last):
        t, value = _cell_minimum(values[cell], values[cell + 1], slopes[cell], slopes[cell + 1])
        if t >= 0.0 and value < best:
            position = t
            place = cell
            best = value
    if values[last] < best:
        return float(last), values[last]
    if place >= 0:
        position = place + _slope_root(slopes, place, position)
    return position, best


@kernel()
def grid_minimum(values: FloatArray, slopes: FloatArray) -> tuple[float, float]:
    """Lowest point of a tabulated function: (position in cells from 0 to n - 1, value); ties to the left.

    values, slopes float64 [n], n >= LEAST_NODES, slopes per cell. Cubics through the values and slopes at both ends
    choose the cell, the slopes at six nodes the position in it. The ends of the range count; NaN never beats a number.
    """
    return _grid_minimum(values, slopes)


@inner
def _first_crossing(slopes: FloatArray) -> float:
    last = slopes.shape[0] - 1
    if not slopes[0] < 0.0:
        return -1.0
    for cell in range(last):
        if not slopes[cell + 1] < 0.0:
            return cell + _slope_root(slopes, cell, 1.0)
    return -1.0


@kernel()
def first_crossing(slopes: FloatArray) -> float:
    """Where a function that is negative at its first node first reaches 0, in cells; -1 if it is not or never does.

    slopes float64 [n], n >= LEAST_NODES: its values at the nodes. Inside a cell the polynomial through six nodes
    interpolates.
    """
    return _first_crossing(slopes)


@kernel(parallel=True)
def refit_positions(
    slopes: FloatArray,
    prompts: IntArray,
    groups: IntArray,
    factors: FloatArray,
    by_group: bool,
    n_prompts: int,
    seed: np.uint64,
    first: int,
    crossing: bool,
    positions: FloatArray,
) -> None:
    """Refit resamples first, first + 1, ...: positions[r] is the position of the minimum in cells, -1 if undefined.

    crossing: find, instead of the loss's minimum, where its slope first reaches 0 from below, as `first_crossing`.
    slopes float32 [m, n_nodes]: one row for each prompt in the loss, slopes in ln tau, in any unit.
    prompts int64 [m]: the row's prompt, 0 to n_prompts - 1. groups int64 [m]: 0 or 1, the row's loss term.
    factors float64 [n_groups]: weight of each term. by_group: each term is a mean over its own examples, else both
    are sums. A refit is undefined if no example of a term was drawn.
    """
    m, n_nodes = slopes.shape
    n_groups = factors.shape[0]
    n_resamples = positions.shape[0]
    for block in prange((n_resamples + _BLOCK - 1) // _BLOCK):
        begin = block * _BLOCK
        size = min(_BLOCK, n_resamples - begin)
        counts = np.empty((_BLOCK, n_prompts), dtype=np.int32)
        drawn = np.zeros((_BLOCK, n_groups))
        sums = np.zeros((_BLOCK, n_groups, n_nodes))
        row = np.empty(n_nodes)
        for r in range(size):
            _draw(n_prompts, seed, first + begin + r, counts[r])
        for i in range(m):
            group = groups[i]
            prompt = prompts[i]
            for t in range(n_nodes):
                row[t] = slopes[i, t]
            for r in range(size):
                count = counts[r, prompt]
                if count > 0:
                    drawn[r, group] += count
                    weight = float(count)
                    sum_slopes = sums[r, group]
                    for t in range(n_nodes):
                        sum_slopes[t] += weight * row[t]
        total = np.empty((2, n_nodes))
        for r in range(size):
            missing = False
            total[1] = 0.0
            for group in range(n_groups):
                if drawn[r, group] == 0.0:
                    missing = True
                else:
                    scale = factors[group] / drawn[r, group] if by_group else factors[group]
                    for t in range(n_nodes):
                        total[1, t] += scale * sums[r, group, t]
            if missing:
                positions[begin + r] = -1.0
            elif crossing:
                positions[begin + r] = _first_crossing(total[1])
            else:
                _integrate(total[1], total[0])
                positions[begin + r] = _grid_minimum(total[0], total[1])[0]
