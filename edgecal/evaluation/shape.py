"""Numbers as plain JSON values: figures with their intervals, and spreads over splits. NaN becomes null.

Knows nothing of what the numbers mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from edgecal.metrics import Estimate
from edgecal.results.judging import FigureSet, Spread

__all__ = ["number", "numbers", "shape_figures", "shape_spread"]


def number(value: float | None) -> float | None:
    """A finite float, or None."""
    return float(value) if value is not None and math.isfinite(value) else None


def numbers(values: Iterable[float] | npt.NDArray[np.floating]) -> list[float | None]:
    """Each as `number` gives it."""
    return [number(value) for value in values]


def shape_figures(estimates: Mapping[str, Estimate]) -> FigureSet:
    """Figures with their intervals: {name: {value, low, high}}."""
    return {
        name: {"value": number(item.value), "low": number(item.low), "high": number(item.high)}
        for name, item in estimates.items()
    }


def shape_spread(values: Iterable[float | None]) -> Spread:
    """Mean and standard deviation (population) over splits, of those that have a number, and each one's value."""
    each = [number(value) for value in values]
    known = [value for value in each if value is not None]
    return {
        "mean": float(np.mean(known)) if known else None,
        "sd": float(np.std(known)) if known else None,
        "values": each,
    }
