"""Estimates how far a temperature would move with other prompts: a percentile bootstrap from tabulated slopes.

All prompts are resampled with replacement, each with its agreement status; only those in the loss have a row in the
table.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgecal.calibration.arrays import FloatArray
from edgecal.calibration.losses import Terms
from edgecal.calibration.search import TAU_MAX, TAU_MIN, grid_step

__all__ = ["Refits", "refit_resamples"]

# Multiply-adds in one kernel call: a fraction of a second, so that Ctrl-C takes effect soon.
_WORK_PER_CALL = 500_000_000
_MIN_RESAMPLES_PER_CALL = 16


@dataclass(frozen=True, eq=False)
class Refits:
    """The temperatures of all resamples.

    `taus`: float64, one per resample in order; NaN where a resample lacks examples for a term of the loss, or
    (`crossing`) has no root.

    `share_at_bound`: share of all resamples that are NaN or whose minimum is at an end of the range.
    """

    taus: FloatArray
    share_at_bound: float

    def interval(self, level: float) -> tuple[float, float]:
        """Percentile interval that contains `level` of the defined refits (quantiles interpolated linearly)."""
        defined = self.taus[~np.isnan(self.taus)]
        low, high = np.quantile(defined, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
        return float(low), float(high)


def refit_resamples(
    terms: Terms, slopes: FloatArray, *, n_resamples: int, seed: int, crossing: bool = False
) -> Refits:
    """Refit `n_resamples` resamples of the prompts.

    terms: maps rows to prompts and says how rows sum to a loss.
    slopes: float32 [n_used, n_nodes], slopes in ln tau of each row's loss at n_nodes temperatures evenly spaced in
    ln tau from TAU_MIN to TAU_MAX. With the 65 nodes of GRID_TAU a resample's minimum is within 1e-5 (relative) of
    an exact refit's. crossing: find, instead of the minimum, the lowest tau at which the slope, negative at TAU_MIN,
    reaches 0. The same seed gives the same bits on any number of threads.
    """
    from edgecal.calibration.resample_kernels import refit_positions

    n_nodes = slopes.shape[1]
    positions = np.empty(n_resamples)
    chunk = max(_MIN_RESAMPLES_PER_CALL, _WORK_PER_CALL // max(1, slopes.size))
    for first in range(0, n_resamples, chunk):
        refit_positions(
            slopes, terms.prompts, terms.groups, terms.factors, terms.by_group,
            terms.n_prompts, np.uint64(seed), first, crossing, positions[first : first + chunk],
        )  # fmt: skip
    missing = positions < 0.0
    at_bound = missing | (positions == 0.0) | (positions == n_nodes - 1)
    taus = TAU_MIN * np.exp(positions * grid_step(n_nodes))
    taus[positions == n_nodes - 1] = TAU_MAX
    taus[missing] = np.nan
    return Refits(taus, float(np.count_nonzero(at_bound)) / max(n_resamples, 1))
