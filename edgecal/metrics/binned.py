"""Calibration errors over bins (equal-mass, debiased, the worst bin) and the numbers of a reliability diagram.

`compute_*` judge one set of examples. The functions on a tally judge all resamples at once and return float64 [b].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from edgecal.errors import InputError
from edgecal.metrics.judged import FloatArray, IntArray, Judged
from edgecal.metrics.tally import BinSums, bin_equal_mass, bin_equal_width, tally_examples

__all__ = [
    "Reliability",
    "compute_ece_debiased",
    "compute_ece_equal_mass",
    "compute_mce",
    "compute_reliability",
    "compute_rmsce_debiased",
    "debiased_error",
    "debiased_rms_error",
    "mean_error",
    "worst_error",
]

MASS_BINS = 15
WORST_BINS = 10
MIN_EXAMPLES = 20

_erf = np.frompyfunc(math.erf, 1, 1)


def compute_ece_equal_mass(
    confidence: npt.ArrayLike, correct: npt.ArrayLike, n_bins: int = MASS_BINS
) -> float:
    """Calibration error over bins that hold equally many examples: mean of |accuracy - mean confidence|.

    confidence: float [n] within 0 to 1; correct: bool [n]. The examples in ascending order of confidence are
    cut into n_bins parts of n / n_bins examples (the first n mod n_bins parts have one more). A bin is
    (lo, hi] with hi the confidence of its part's last example: equal confidences are never parted, ties across
    a cut go to the lower bin, and parts that are all of one confidence merge. With n < n_bins each distinct
    confidence is a bin. One example: |correct - confidence|; all right: 1 - mean confidence; all wrong: mean
    confidence. From 0 to 1. No examples: InputError.
    (Nguyen & O'Connor 2015; as "adaptive ECE" in Mukhoti et al. 2020; cuts as in Kumar et al. 2019.)
    """
    return _over_mass_bins(confidence, correct, n_bins, mean_error)


def compute_ece_debiased(confidence: npt.ArrayLike, correct: npt.ArrayLike, n_bins: int = MASS_BINS) -> float:
    """Equal-mass calibration error less the part that noise in the bins' accuracies adds on average.

    Input and bins as `compute_ece_equal_mass`. With p_j the share of the examples in bin j, d_j its
    |accuracy - mean confidence| and s_j^2 = accuracy (1 - accuracy) / n_j the variance of its accuracy, the
    plug-in sum(p_j d_j) is too large by about sum(p_j (E|N(d_j, s_j)| - d_j)), which is taken off. The mean of
    the folded normal, s sqrt(2 / pi) exp(-d^2 / 2 s^2) + d erf(d / (s sqrt 2)), is exact where the source
    draws samples, so the result is deterministic. Never below 0: a negative estimate is returned as 0.
    A bin with one example does not show its noise and counts 0; if no bin has two, NaN (so for one example).
    A bin that is all right or all wrong shows no noise and keeps its d_j: all right gives 1 - mean confidence.
    (Kumar, Liang & Ma 2019, the debiased estimator of the L1 error in their library's form.)
    """
    return _over_mass_bins(confidence, correct, n_bins, debiased_error)


def compute_rmsce_debiased(
    confidence: npt.ArrayLike, correct: npt.ArrayLike, n_bins: int = MASS_BINS
) -> float:
    """Root of the mean squared calibration error over equal-mass bins, noise taken off.

    Input and bins as `compute_ece_equal_mass`. sqrt(max(0, sum(p_j (d_j^2 - accuracy (1 - accuracy) /
    (n_j - 1))))): the sum under the root is unbiased for the bins at hand. A bin with one example counts 0; if
    no bin has two, NaN (so for one example). All right or all wrong: the root of the plug-in.
    (Kumar, Liang & Ma 2019, section 5: "debiased estimator".)
    """
    return _over_mass_bins(confidence, correct, n_bins, debiased_rms_error)


def compute_mce(
    confidence: npt.ArrayLike,
    correct: npt.ArrayLike,
    n_bins: int = WORST_BINS,
    min_examples: int = MIN_EXAMPLES,
) -> float:
    """Maximum calibration error: the largest |accuracy - mean confidence| of the equal-width bins.

    confidence: float [n] within 0 to 1; correct: bool [n]. Bins are (lo, hi], the first also holds 0, as in
    `compute_ece`. Bins with fewer than min_examples are left out, unless all are, because a handful of examples
    otherwise decides the figure (20 have a standard error of up to 0.11); min_examples=1 is the textbook's.
    One example: |correct - confidence|. From 0 to 1, at least the ECE over the bins that count.
    No examples: InputError. (Naeini et al. 2015; leaving out is ours.)
    """
    _check_bins(n_bins)
    if min_examples < 1:
        raise InputError(f"the smallest bin that counts has {min_examples} examples, expected 1 or more")
    tally = tally_examples(confidence, correct)
    return float(worst_error(bin_equal_width(tally, n_bins), min_examples)[0])


def mean_error(bins: BinSums) -> FloatArray:
    """Mean over the examples of their bin's |accuracy - mean confidence|."""
    error: FloatArray = bins.gap.sum(axis=1) / bins.n.sum(axis=1)
    return error


def worst_error(bins: BinSums, min_examples: int = MIN_EXAMPLES) -> FloatArray:
    """Largest |accuracy - mean confidence| of the bins with min_examples, of all bins if none has as many."""
    counts = bins.n >= min_examples
    counts |= ~counts.any(axis=1, keepdims=True)
    gap = np.divide(bins.gap, bins.n, out=np.zeros_like(bins.gap), where=counts & (bins.n > 0))
    worst: FloatArray = gap.max(axis=1)
    return worst


def debiased_error(bins: BinSums) -> FloatArray:
    """`compute_ece_debiased` for each row."""
    used, n, gap, accuracy = _per_bin(bins)
    spread = np.sqrt(accuracy * (1.0 - accuracy) / n)
    ratio = np.divide(gap, spread, out=np.full_like(gap, np.inf), where=spread > 0.0)
    erf = np.asarray(_erf(ratio / math.sqrt(2.0)), dtype=np.float64)
    folded = spread * math.sqrt(2.0 / math.pi) * np.exp(-0.5 * ratio**2) + gap * erf
    share = np.where(used, bins.n, 0.0) / bins.n.sum(axis=1, keepdims=True)
    error = np.maximum((share * (2.0 * gap - folded)).sum(axis=1), 0.0)
    return np.where(used.any(axis=1), error, np.nan)


def debiased_rms_error(bins: BinSums) -> FloatArray:
    """`compute_rmsce_debiased` for each row."""
    used, n, gap, accuracy = _per_bin(bins)
    square = gap**2 - accuracy * (1.0 - accuracy) / (n - 1.0)
    share = np.where(used, bins.n, 0.0) / bins.n.sum(axis=1, keepdims=True)
    error = np.sqrt(np.maximum((share * square).sum(axis=1), 0.0))
    return np.where(used.any(axis=1), error, np.nan)


def _per_bin(bins: BinSums) -> tuple[npt.NDArray[np.bool_], FloatArray, FloatArray, FloatArray]:
    """Which bins have two examples, and their n, gap and accuracy; harmless numbers in the others."""
    used = bins.n >= 2
    n = np.where(used, bins.n, 2.0)
    accuracy = np.where(used, np.clip(bins.hits / n, 0.0, 1.0), 0.0)
    return used, n, np.where(used, bins.gap / n, 0.0), accuracy


def _over_mass_bins(
    confidence: npt.ArrayLike,
    correct: npt.ArrayLike,
    n_bins: int,
    error: Callable[[BinSums], FloatArray],
) -> float:
    _check_bins(n_bins)
    return float(error(bin_equal_mass(tally_examples(confidence, correct), n_bins))[0])


def _check_bins(n_bins: int) -> None:
    if n_bins < 1:
        raise InputError(f"the number of bins is {n_bins}, expected 1 or more")


@dataclass(frozen=True, eq=False)
class Reliability:
    """edges: float64 [n_bins + 1], ascending from 0 to 1. n: int64 [n_bins], examples in each bin.

    confidence, accuracy: float64 [n_bins], means; low, high: the accuracy's interval. NaN in empty bins.
    """

    edges: FloatArray
    n: IntArray
    confidence: FloatArray
    accuracy: FloatArray
    low: FloatArray
    high: FloatArray


def compute_reliability(judged: Judged, n_bins: int = 10, level: float = 0.95) -> Reliability:
    """Confidence and accuracy in equal-width bins (lo, hi], the first also holds 0, as in `compute_ece`.

    The interval of a bin's accuracy is Wilson's at `level`, which stays within 0 to 1 and has a width also
    where all or none are right. n_bins < 1, or level not between 0 and 1: InputError. (Wilson 1927.)
    """
    if n_bins < 1:
        raise InputError(f"the number of bins is {n_bins}, expected 1 or more")
    if not 0.0 < level < 1.0:
        raise InputError(f"the level of the interval is {level}, expected a number between 0 and 1")
    bins = bin_equal_width(tally_examples(judged.confidence, judged.correct), n_bins)
    n = bins.n[0]
    some = np.where(n > 0, n, np.nan)
    accuracy = np.clip(bins.hits[0] / some, 0.0, 1.0)
    confidence = np.clip(bins.confidence[0] / some, 0.0, 1.0)
    z2 = NormalDist().inv_cdf(0.5 + 0.5 * level) ** 2 / some
    middle = (accuracy + 0.5 * z2) / (1.0 + z2)
    half = np.sqrt(z2 * (accuracy * (1.0 - accuracy) + 0.25 * z2)) / (1.0 + z2)
    low = np.where(accuracy == 0.0, 0.0, middle - half)  # exact at the ends, where rounding could pass them
    high = np.where(accuracy == 1.0, 1.0, middle + half)
    return Reliability(np.arange(n_bins + 1) / n_bins, n.astype(np.int64), confidence, accuracy, low, high)
