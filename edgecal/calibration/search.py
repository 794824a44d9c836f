"""Finds the minimum of a loss of one temperature between TAU_MIN and TAU_MAX.

Losses are functions of x = ln tau and need not be convex. They are tabulated on a grid; cubic pieces between its nodes
locate local minima, and root finding on the slope refines them. The ends of the range are candidates too; the lowest
candidate wins, and ties go to the lowest tau. A loss that is convex in beta = 1 / tau has one minimum, which Newton's
method finds without a grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from edgecal.calibration.arrays import FloatArray

__all__ = [
    "GRID_TAU",
    "TAU_MAX",
    "TAU_MIN",
    "Minimum",
    "Objective",
    "find_crossing",
    "find_minimum",
    "find_valley",
    "grid_step",
]

TAU_MIN: Final = 0.05
TAU_MAX: Final = 50.0

# 64 cells of 11 % in tau. A loss is a sum of terms whose features are about one unit of ln tau wide, so polynomials
# between nodes follow it closely.
GRID_TAU: Final[FloatArray] = np.geomspace(TAU_MIN, TAU_MAX, 65)
GRID_TAU[[0, -1]] = TAU_MIN, TAU_MAX
GRID_TAU.setflags(write=False)

_ZOOM_CELLS: Final = 8
_MAX_CANDIDATES: Final = 8
_NEAR: Final = 2e-5  # the largest error of a cubic piece, as a share of the loss's range
_MAX_ROOT_STEPS: Final = 60
_ROOT_WIDTH: Final = 1e-12  # in ln tau, so relative to tau

_GUESS_WIDTH: Final = (
    1e-4  # in ln tau: the first search for the loss's root is this close to the polynomial's root
)

_MAX_NEWTON_STEPS: Final = 100  # halving alone would need 60
_LAST_STEP: Final = 1e-8  # relative; the error after a Newton step is about its square

# tau [n] -> (loss [n], slope in ln tau [n])
Objective: TypeAlias = Callable[[FloatArray], tuple[FloatArray, FloatArray]]
# beta = 1 / tau -> (loss, first derivative in beta, second derivative in beta)
ConvexObjective: TypeAlias = Callable[[float], tuple[float, float, float]]


@dataclass(frozen=True)
class Minimum:
    """The minimum on the range: `tau`, the loss there, and whether tau is an end of the range."""

    tau: float
    loss: float
    at_bound: bool


def grid_step(n_nodes: int) -> float:
    """Width in ln tau of one cell of a grid of n_nodes from TAU_MIN to TAU_MAX."""
    return float(np.log(TAU_MAX / TAU_MIN)) / (n_nodes - 1)


def find_minimum(objective: Objective, losses: FloatArray, slopes: FloatArray) -> Minimum:
    """Find the global minimum of `objective` on [TAU_MIN, TAU_MAX], to about 1e-10 relative in tau.

    `losses` and `slopes` are the objective's values on GRID_TAU. A cell whose cubic piece has a minimum that may be the
    lowest is refined with the objective itself.
    """
    from edgecal.calibration.resample_kernels import cell_minimum, slope_root

    step = grid_step(GRID_TAU.size)
    candidates = []
    for cell in range(GRID_TAU.size - 1):
        t, value = cell_minimum(losses[cell], losses[cell + 1], slopes[cell] * step, slopes[cell + 1] * step)
        if t >= 0.0:
            candidates.append((value, cell, t))
    candidates.sort()
    if candidates:
        near = min(candidates[0][0], losses[0], losses[-1]) + _NEAR * float(np.ptp(losses))
        candidates = [candidate for candidate in candidates[:_MAX_CANDIDATES] if candidate[0] <= near]
    best = Minimum(TAU_MIN, float(losses[0]), True)
    for _, cell, t in sorted(candidates, key=lambda candidate: candidate[1]):
        low, high = np.log(GRID_TAU[cell : cell + 2]).tolist()
        tau = _refine(objective, low, high, low + step * slope_root(slopes, cell, t))
        loss = float(objective(np.array([tau]))[0][0])
        if loss < best.loss:
            best = Minimum(tau, loss, tau in (TAU_MIN, TAU_MAX))
    if losses[-1] < best.loss:
        best = Minimum(TAU_MAX, float(losses[-1]), True)
    return best


def find_crossing(objective: Objective, slopes: FloatArray) -> float | None:
    """Find the lowest tau at which the slope, negative at TAU_MIN, reaches 0; to about 1e-12 relative.

    `slopes` are the objective's on GRID_TAU; two zeros within one cell are missed. None if there is no zero or the
    slope is not negative at TAU_MIN.
    """
    from edgecal.calibration.resample_kernels import first_crossing

    position = float(first_crossing(slopes))
    if position < 0.0:
        return None
    cell = min(int(position), GRID_TAU.size - 2)
    if not slopes[cell] < 0.0 < slopes[cell + 1]:
        return float(GRID_TAU[round(position)])
    low, high = np.log(GRID_TAU[cell : cell + 2]).tolist()
    root = _root(objective, low, high, float(slopes[cell]), float(slopes[cell + 1]))
    return float(np.exp(root).clip(TAU_MIN, TAU_MAX))


def find_valley(objective: ConvexObjective) -> tuple[Minimum, FloatArray]:
    """Find the minimum of a loss that is convex in beta = 1 / tau, to about 1e-10 relative in tau.

    Newton's method finds the root of the derivative as a function of tau, in which it is nearly straight; where a step
    leaves the bracket or does not shrink fast enough, the bracket is halved in ln tau instead. Also returns the loss
    at TAU_MIN, 1 and TAU_MAX.
    """
    lowest, middle, highest = (objective(1.0 / tau) for tau in (TAU_MIN, 1.0, TAU_MAX))
    losses = np.array([lowest[0], middle[0], highest[0]])
    if lowest[1] <= 0.0:
        return Minimum(TAU_MIN, lowest[0], True), losses
    if highest[1] >= 0.0:
        return Minimum(TAU_MAX, highest[0], True), losses
    low, high, tau, last = TAU_MIN, TAU_MAX, 1.0, math.inf
    _, slope, curvature = middle
    for _ in range(_MAX_NEWTON_STEPS):
        if slope == 0.0:
            break
        low, high = (tau, high) if slope > 0.0 else (low, tau)
        step = slope * tau * tau / curvature if curvature > 0.0 else math.inf
        newton = low <= tau + step <= high and abs(step) < 0.5 * last
        if not newton:
            step = math.sqrt(low * high) - tau
        last = abs(step)
        tau += step
        if last <= (_LAST_STEP if newton else _ROOT_WIDTH) * tau:
            break
        _, slope, curvature = objective(1.0 / tau)
    return Minimum(tau, objective(1.0 / tau)[0], tau in (TAU_MIN, TAU_MAX)), losses


def _refine(objective: Objective, low: float, high: float, guess: float) -> float:
    """tau of the minimum near the guess, or else of the lowest minimum between x = low and x = high."""
    root = _root_near(objective, guess)
    if root is None:
        root = _root_between(objective, low, high)
    return float(np.exp(root).clip(TAU_MIN, TAU_MAX))


def _root_near(objective: Objective, guess: float) -> float | None:
    """The x where the parabola through three slopes around the guess turns positive; None unless the first slope is
    negative and the last positive."""
    left, middle, right = objective(np.exp(guess + _GUESS_WIDTH * np.arange(-1.0, 2.0)))[1].tolist()
    if not left < 0.0 < right:
        return None
    linear, square = (right - left) / 2.0, (right + left) / 2.0 - middle
    below_root = max(linear * linear - 4.0 * square * middle, 0.0)
    return float(guess - _GUESS_WIDTH * 2.0 * middle / (linear + math.sqrt(below_root)))


def _root_between(objective: Objective, low: float, high: float) -> float:
    """The x of the lowest minimum on a finer grid, refined to the slope's root."""
    from edgecal.calibration.resample_kernels import grid_minimum

    x = np.linspace(low, high, _ZOOM_CELLS + 1)
    losses, slopes = objective(np.exp(x).clip(TAU_MIN, TAU_MAX))
    step = (high - low) / _ZOOM_CELLS
    position = float(grid_minimum(losses, slopes * step)[0])
    cell = min(int(position), _ZOOM_CELLS - 1)
    if slopes[cell] < 0.0 < slopes[cell + 1]:
        return _root(objective, x[cell], x[cell + 1], slopes[cell], slopes[cell + 1])
    return low + position * step


def _root(objective: Objective, low: float, high: float, slope_low: float, slope_high: float) -> float:
    """The x between low and high where the slope turns from negative to positive: regula falsi, Illinois rule."""
    side = 0
    x = low
    for _ in range(_MAX_ROOT_STEPS):
        x = (low * slope_high - high * slope_low) / (slope_high - slope_low)
        slope = float(objective(np.exp(np.array([x])))[1][0])
        if slope < 0.0:
            moved, low, slope_low = abs(x - low), x, slope
            if side < 0:
                slope_high *= 0.5
            side = -1
        elif slope > 0.0:
            moved, high, slope_high = abs(x - high), x, slope
            if side > 0:
                slope_low *= 0.5
            side = 1
        else:
            break
        if min(moved, high - low) <= _ROOT_WIDTH:
            break
    return x
