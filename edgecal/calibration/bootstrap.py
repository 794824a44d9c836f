"""How far a temperature would move with other prompts: percentile bootstrap from tabulated slopes.

All prompts are resampled with replacement, each with its agreement status; only those behind the loss have a
row in the table. Knows nothing of what the loss is, nor of when an interval is acceptable.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgecal.calibration.choice_logits import FloatArray
from edgecal.calibration.losses import Loss
from edgecal.calibration.search import TAU_MAX, TAU_MIN, grid_step

__all__ = ["Refits", "refit_resamples"]

# Multiply-adds in one kernel call: a fraction of a second, so that Ctrl-C is heard soon.
_WORK_PER_CALL = 500_000_000
_MIN_RESAMPLES_PER_CALL = 16


@dataclass(frozen=True, eq=False)
class Refits:
    """`taus`: float64, one for each resample that has examples for every term of the loss, in order.

    `share_at_bound`: share of all resamples whose minimum is at an end of the range or that lack a term.
    """

    taus: FloatArray
    share_at_bound: float

    def interval(self, level: float) -> tuple[float, float]:
        """Percentile interval holding `level` of the refits (quantiles interpolated linearly)."""
        low, high = np.quantile(self.taus, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
        return float(low), float(high)


def refit_resamples(loss: Loss, slopes: FloatArray, *, n_resamples: int, seed: int) -> Refits:
    """Refit `n_resamples` resamples of the prompts.

    slopes: float32 [n_used, n_nodes], slopes in ln tau of each row's loss at n_nodes temperatures evenly spaced in
    ln tau from TAU_MIN to TAU_MAX. With the 65 nodes of GRID_TAU a resample's minimum is within 1e-5 (relative) of
    an exact refit's. The same seed gives the same bits, on any number of threads.
    """
    from edgecal.calibration.resample_kernels import resample_minima

    n_nodes = slopes.shape[1]
    positions = np.empty(n_resamples)
    chunk = max(_MIN_RESAMPLES_PER_CALL, _WORK_PER_CALL // max(1, slopes.size))
    for first in range(0, n_resamples, chunk):
        resample_minima(
            slopes, loss.prompts, loss.groups, loss.factors, loss.by_group,
            loss.n_prompts, np.uint64(seed), first, positions[first : first + chunk],
        )  # fmt: skip
    defined = positions[positions >= 0.0]
    at_bound = (defined == 0.0) | (defined == n_nodes - 1)
    taus = TAU_MIN * np.exp(defined * grid_step(n_nodes))
    taus[defined == n_nodes - 1] = TAU_MAX
    missing = n_resamples - defined.size
    return Refits(taus, float(np.count_nonzero(at_bound) + missing) / max(n_resamples, 1))
