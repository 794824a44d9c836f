"""Computes all figures at once, with bootstrap intervals, for one set of answers or for a before and an after.

A resample is a row of weights, how often each example counts. The examples are sorted once, so that the figures of many
resamples are computed in one pass.

Intervals are percentile intervals (Efron 1979). Resampling adds noise, and noise pushes a calibration error up:
near calibration the resamples of an error lie above its value, which itself lies above the truth, and in
simulations their percentiles never held a true error of 0. So the interval of a calibration error is joined
with its mirror image about the value and cut at 0: it always holds the value, and the truth about as often as
it says where the error is well above its noise. At perfect calibration it still misses 0 too often, smooth ECE
most; there the debiased errors are the ones to read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgecal.errors import InputError
from edgecal.metrics.binned import debiased_error, debiased_rms_error, mean_error, worst_error
from edgecal.metrics.figure import FIGURES
from edgecal.metrics.judged import FloatArray, IntArray, Judged
from edgecal.metrics.ranking import area_under_risk, right_above_wrong
from edgecal.metrics.scores import LetterBins, bin_letters, brier_terms, letter_error, nll_terms
from edgecal.metrics.smooth import FINE, cells_for, smooth_error
from edgecal.metrics.tally import Tally, bin_equal_mass, bin_equal_width

__all__ = [
    "NAMES",
    "Estimate",
    "Examples",
    "canonical_order",
    "compute_figures",
    "draw_weights",
    "estimate_difference",
    "estimate_figures",
    "estimate_paired",
]

NAMES = tuple(figure.name for figure in FIGURES)

_ELEMENTS_PER_PASS = 1 << 18  # a few MB for each temporary


class Examples:
    """Examples in the given order, prepared for any number of resamples.

    figures: float64 [n_figures], counting each example once.
    """

    def __init__(self, judged: Judged, order: IntArray) -> None:
        judged = judged.take(order)
        self.n = len(judged)
        by_confidence = np.argsort(judged.confidence, kind="stable")
        self.ascending = None if np.all(np.diff(by_confidence) == 1) else by_confidence
        self.levels, self.starts = np.unique(judged.confidence[by_confidence], return_index=True)
        self.correct = judged.correct[by_confidence].astype(np.float64)
        self.terms: tuple[FloatArray, FloatArray] | None = None
        self.letters: LetterBins | None = None
        if judged.probs is not None:
            self.terms = brier_terms(judged), nll_terms(judged)
            self.letters = bin_letters(judged)
        self.figures = self._compute(np.ones((1, self.n)), FINE)[:, 0]
        self.n_cells = cells_for(float(self.figures[NAMES.index("smece")]))

    def resample(self, weights: FloatArray) -> FloatArray:
        """float64 [n_figures, b] for weights [b, n], whole numbers that sum to n in each row."""
        return self._compute(weights, self.n_cells)

    def _compute(self, weights: FloatArray, n_cells: int) -> FloatArray:
        tally = self.tally(weights)
        n, hits, u = tally.n, tally.hits, tally.levels
        wide, fine, mass = bin_equal_width(tally, 10), bin_equal_width(tally, 15), bin_equal_mass(tally, 15)
        squares = np.einsum("bm,m->b", n, u * u) + np.einsum("bm,m->b", hits, 1.0 - 2.0 * u)
        unknown = np.full(len(weights), np.nan)
        found = {
            "accuracy": tally.cum_hits[:, -1] / self.n,
            "confidence": np.einsum("bm,m->b", n, u) / self.n,
            "ece": mean_error(wide),
            "ece_15": mean_error(fine),
            "ece_equal_mass": mean_error(mass),
            "ece_debiased": debiased_error(mass),
            "rmsce_debiased": debiased_rms_error(mass),
            "mce": worst_error(wide),
            "smece": smooth_error(tally, n_cells),
            "brier": np.maximum(squares / self.n, 0.0),
            "brier_multiclass": unknown,
            "nll": unknown,
            "auroc": right_above_wrong(tally),
            "aurc": area_under_risk(tally),
            "classwise_ece": unknown,
        }
        if self.terms is not None and self.letters is not None:
            found["brier_multiclass"] = _weighted_mean(self.terms[0], weights)
            found["nll"] = _weighted_mean(self.terms[1], weights)
            found["classwise_ece"] = letter_error(self.letters, weights)
        return np.stack([found[name] for name in NAMES])

    def tally(self, weights: FloatArray) -> Tally:
        n = weights if self.ascending is None else weights[:, self.ascending]
        hits = n * self.correct
        if len(self.levels) < self.n:
            n, hits = (np.add.reduceat(x, self.starts, axis=1) for x in (n, hits))
        return Tally(self.levels, n, hits)


def _weighted_mean(terms: FloatArray, weights: FloatArray) -> FloatArray:
    finite = np.isfinite(terms)
    mean: FloatArray = np.einsum("bn,n->b", weights, np.where(finite, terms, 0.0)) / weights.shape[1]
    if not finite.all():
        mean[weights[:, ~finite].any(axis=1)] = np.inf
    return mean


def canonical_order(*judged: Judged) -> IntArray:
    """An order of the examples that does not depend on their order in the input, up to identical examples."""
    keys = []
    for one in judged:
        keys += [one.confidence, one.correct]
        if one.probs is not None and one.labels is not None and one.n_choices is not None:
            keys += [one.labels, one.n_choices, *one.probs.T]
    order: IntArray = np.lexsort(keys[::-1])
    return order


def draw_weights(n: int, n_bootstrap: int, seed: int) -> Iterator[FloatArray]:
    """How often each of n examples is drawn in n draws with replacement: float64 [b, n], n_bootstrap rows in all.

    Draw j of resample r is PCG64(seed)'s raw output r n + j scaled to the range, so it depends on nothing else;
    raw outputs are the same in every NumPy. No example is favoured by more than n / 2^32.
    """
    source = np.random.PCG64(seed)
    rows = max(1, _ELEMENTS_PER_PASS // n)
    for first in range(0, n_bootstrap, rows):
        weights = np.empty((min(rows, n_bootstrap - first), n))
        for row in weights:
            bits = source.random_raw(n) >> np.uint64(32)
            drawn = (bits * np.uint64(n)) >> np.uint64(32)
            row[:] = np.bincount(drawn.astype(np.int64), minlength=n)
        yield weights


_CALIBRATION_ERRORS = frozenset(
    "ece ece_15 ece_equal_mass ece_debiased rmsce_debiased mce smece classwise_ece".split()
)


@dataclass(frozen=True)
class Estimate:
    """A figure and its interval; NaN where undefined, and low and high NaN where none was asked for."""

    value: float
    low: float
    high: float


def compute_figures(judged: Judged) -> dict[str, float]:
    """Every figure of `FIGURES` by name, in that order. NaN where undefined or where probabilities are needed
    and not known; nll is inf where a right option has probability 0. No figure depends on the order of the
    examples, not even in its last bit.
    """
    return _as_dict(Examples(judged, canonical_order(judged)).figures)


def estimate_figures(
    judged: Judged, *, n_bootstrap: int = 1000, level: float = 0.95, seed: int = 0
) -> dict[str, Estimate]:
    """Every figure with an interval from n_bootstrap resamples of the examples, of which it holds `level`.

    For calibration errors the interval is wider, as the module says. The same examples in any order, level and
    seed give the same bits. Resamples in which a figure is undefined are left out of its interval.
    n_bootstrap = 0: no intervals (NaN). Below 0, a negative seed, or a level not between 0 and 1: InputError.
    """
    _check_settings(n_bootstrap, level, seed)
    examples = Examples(judged, canonical_order(judged))
    resampled = _resampled([examples], n_bootstrap, seed)[0]
    return _with_intervals(examples.figures, resampled, level)


def estimate_difference(
    before: Judged, after: Judged, *, n_bootstrap: int = 1000, level: float = 0.95, seed: int = 0
) -> dict[str, Estimate]:
    """After minus before for every figure: the third result of `estimate_paired`."""
    return estimate_paired(before, after, n_bootstrap=n_bootstrap, level=level, seed=seed)[2]


def estimate_paired(
    before: Judged, after: Judged, *, n_bootstrap: int = 1000, level: float = 0.95, seed: int = 0
) -> tuple[dict[str, Estimate], dict[str, Estimate], dict[str, Estimate]]:
    """Figures before, figures after, and after minus before, from the same resamples of the same examples.

    before, after: the same n questions in the same order, else InputError. The difference's interval holds
    `level` of the resamples' differences, which is narrower than what two separate intervals suggest. Before
    is as `estimate_figures` gives it, to the bit; identical input has a difference of exactly 0. A difference
    is NaN where one of the two is undefined or both are infinite.
    """
    _check_settings(n_bootstrap, level, seed)
    if len(before) != len(after):
        raise InputError(
            f"before has {len(before)} examples and after {len(after)}, expected the same questions"
        )
    order = canonical_order(before, after)
    pair = [Examples(before, order), Examples(after, order)]
    values = [pair[0].figures, Examples(after, canonical_order(after)).figures]  # as for each one alone
    resampled = _resampled(pair, n_bootstrap, seed)
    with np.errstate(invalid="ignore"):
        change, changes = values[1] - values[0], resampled[1] - resampled[0]
    return (
        _with_intervals(values[0], resampled[0], level),
        _with_intervals(values[1], resampled[1], level),
        _with_intervals(change, changes, level, floor=-1.0),
    )


def _resampled(examples: list[Examples], n_bootstrap: int, seed: int) -> list[FloatArray]:
    """The figures of every resample, float64 [n_figures, n_bootstrap] for each of `examples`."""
    n = examples[0].n
    parts: list[list[FloatArray]] = [[np.empty((len(NAMES), 0))] for _ in examples]
    for weights in draw_weights(n, n_bootstrap, seed):
        for one, figures in zip(examples, parts, strict=True):
            figures.append(one.resample(weights))
    return [np.concatenate(figures, axis=1) for figures in parts]


def _as_dict(values: FloatArray) -> dict[str, float]:
    return {name: float(value) for name, value in zip(NAMES, values, strict=True)}


def _with_intervals(
    values: FloatArray, resampled: FloatArray, level: float, floor: float = 0.0
) -> dict[str, Estimate]:
    """floor: the least value that a calibration error, or a difference of two, can have."""
    estimates = {}
    for (name, value), drawn in zip(_as_dict(values).items(), resampled, strict=True):
        known = np.sort(drawn[~np.isnan(drawn)])
        tail = 0.5 * (1.0 - level)
        low, high = (_quantile(known, share) for share in (tail, 1.0 - tail))
        if name in _CALIBRATION_ERRORS and known.size:
            low, high = max(floor, min(low, 2.0 * value - high)), min(1.0, max(high, 2.0 * value - low))
        estimates[name] = Estimate(value, low, high) if not math.isnan(value) else Estimate(*[math.nan] * 3)
    return estimates


def _quantile(ascending: FloatArray, share: float) -> float:
    """Linear interpolation between order statistics, which may be infinite; NaN if there are none."""
    if not ascending.size:
        return math.nan
    place = share * (ascending.size - 1)
    below, above = float(ascending[math.floor(place)]), float(ascending[math.ceil(place)])
    return below if below == above else below + (place - math.floor(place)) * (above - below)


def _check_settings(n_bootstrap: int, level: float, seed: int) -> None:
    if n_bootstrap < 0:
        raise InputError(f"the number of resamples is {n_bootstrap}, expected 0 or more")
    if not 0.0 < level < 1.0:
        raise InputError(f"the level of the interval is {level}, expected a number between 0 and 1")
    if seed < 0:
        raise InputError(f"the seed is {seed}, expected 0 or more")
