"""Counts examples by confidence: all that a figure of confidence and correctness may depend on.

A tally has one column for each distinct confidence, ascending, so neither the order of the examples nor the
order among equals can reach a figure; and one row for each resample, so that a thousand of them cost one sort.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from edgecal.metrics.judged import FloatArray, IntArray, Judged

__all__ = ["BinSums", "Tally", "bin_equal_mass", "bin_equal_width", "tally_examples"]


@dataclass(frozen=True, eq=False)
class Tally:
    """levels: float64 [m], the distinct confidences, ascending.

    n, hits: float64 [b, m], how many examples of each resample have that confidence, and how many of these
    are right; whole numbers, n may be 0. Every resample holds the same number of examples in all, `total`.
    """

    levels: FloatArray
    n: FloatArray
    hits: FloatArray

    @cached_property
    def total(self) -> int:
        return int(self.n[0].sum())

    @cached_property
    def cum_n(self) -> FloatArray:
        return np.cumsum(self.n, axis=1)

    @cached_property
    def cum_hits(self) -> FloatArray:
        return np.cumsum(self.hits, axis=1)

    @cached_property
    def cum_confidence(self) -> FloatArray:
        return np.cumsum(self.n * self.levels, axis=1)


@dataclass(frozen=True, eq=False)
class BinSums:
    """float64 [b, n_bins] each: number of examples, of right ones, and sum of the confidences in each bin."""

    n: FloatArray
    hits: FloatArray
    confidence: FloatArray

    @property
    def gap(self) -> FloatArray:
        """|right answers - sum of confidences| of each bin; 0 if it is empty."""
        return np.abs(self.hits - self.confidence)


def tally_examples(confidence: npt.ArrayLike, correct: npt.ArrayLike) -> Tally:
    """One row that counts each example once; input as `Judged.from_confidence` takes it, and its errors."""
    judged = Judged.from_confidence(confidence, correct)
    levels, at = np.unique(judged.confidence, return_inverse=True)
    n = np.bincount(at.ravel(), minlength=len(levels)).astype(np.float64)
    hits = np.bincount(at.ravel(), weights=judged.correct, minlength=len(levels)).astype(np.float64)
    return Tally(levels, n[None], hits[None])


def bin_equal_width(tally: Tally, n_bins: int) -> BinSums:
    """Bins (j / n_bins, (j + 1) / n_bins]; the first also holds 0. Empty bins are included, as zeros."""
    inner_edges = np.arange(1, n_bins) / n_bins
    ends = np.append(np.searchsorted(tally.levels, inner_edges, side="right"), len(tally.levels))
    return _sum_between(tally, np.broadcast_to(ends, (len(tally.n), n_bins)))


def bin_equal_mass(tally: Tally, n_bins: int) -> BinSums:
    """Bins of total / n_bins examples each, the first ones one larger if that is not a whole number.

    A bin ends with the confidence of its last example in ascending order, (lo, hi]: equal confidences are never
    parted, those that would lie across an end are in the lower bin, and a bin may be left empty by that. With
    fewer examples than bins each example is a bin.
    """
    share, rest = divmod(tally.total, n_bins)
    j = np.arange(1, n_bins + 1)
    ranks = (j * share + np.minimum(j, rest)).astype(np.float64)
    ends = np.stack([np.searchsorted(row, ranks, side="left") for row in tally.cum_n]) + 1
    return _sum_between(tally, ends)


def _sum_between(tally: Tally, ends: IntArray) -> BinSums:
    """Sums over the levels ends[j - 1] to ends[j] - 1, ends [b, n_bins] ascending in each row."""

    def between(running: FloatArray) -> FloatArray:
        upto = np.where(ends > 0, np.take_along_axis(running, np.maximum(ends - 1, 0), axis=1), 0.0)
        return np.diff(upto, axis=1, prepend=0.0)

    return BinSums(between(tally.cum_n), between(tally.cum_hits), between(tally.cum_confidence))
