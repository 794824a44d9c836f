"""The bracket: the two temperatures between which the right one lies under two opposite assumptions.

Without labels a temperature is only partly identified. Two extreme assumptions about what post-training added give
the ends, from the same logits that a fit uses. Let g be the base model's probabilities and f_tau = softmax(z / tau) the
chat model's:

- *It added nothing.* Then g is the best available distribution, and tau is the temperature that brings f_tau closest
  to it: mean KL(g || f_tau) is minimal. This is the method `naive` and gives the high end.
- *The chat model knows everything the base model knows, and more.* Then f_tau is calibrated, so under f_tau the
  expected evidence log g equals that under g: mean < f_tau, log g > = mean < g, log g >. An overconfident chat model
  has more expected evidence, an underconfident one less. The tau of equality is the low end.

Under the second assumption a temperature at which f has more evidence than g is too low. So the low end is the lowest
tau between TAU_MIN and TAU_MAX at which f has no more; the lowest of several roots gives the wider bracket. If f has
no more evidence even at TAU_MIN, where it puts nearly all probability on its top choice (the models disagree too often,
or g is the same for every choice), the assumption excludes nothing and there is no low end; nor if f still has more
at TAU_MAX. Probabilities of 0 are harmless: f and g both sum to 1, so log g may be replaced by g's logits, which are
finite.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from edgecal.calibration.arrays import FloatArray
from edgecal.calibration.bootstrap import Refits, refit_resamples
from edgecal.calibration.choice_logits import ChoiceLogits
from edgecal.calibration.losses import Terms, build_loss
from edgecal.calibration.method import MIN_EXAMPLES, Method
from edgecal.calibration.search import GRID_TAU, find_crossing, find_valley
from edgecal.results.fitting import BracketEnds

__all__ = ["Bracket", "fit_bracket"]

MAX_SHARE_LOST = 0.05  # of the refits, as for a fit
_FLAT_NATS = 1e-9  # evidence and losses that vary by less count as flat


@dataclass(frozen=True)
class Bracket:
    """Both ends, each with its own interval.

    Attributes
    ----------
    low, high : temperatures between TAU_MIN and TAU_MAX; None if the end does not exist
    low_interval, high_interval : percentile bootstrap intervals over prompts at the fit's level; None without the end,
        without a bootstrap, or if more than 5 % of the refits lack the end
    low_lost, high_lost : share of the refits that lack the end
    n_prompts : number of prompts
    ratios : float64 [n_bootstrap], the higher end of each refit over its lower one; infinite if an end is missing.
        Both ends of a refit use the same resample, which is also the fit's resample of the same number and seed.
    """

    low: float | None
    high: float | None
    low_interval: tuple[float, float] | None
    high_interval: tuple[float, float] | None
    low_lost: float
    high_lost: float
    n_prompts: int
    ratios: FloatArray = field(repr=False, compare=False)

    @property
    def ratio(self) -> float:
        """The larger end over the smaller, since low may exceed high; infinite if an end is missing."""
        if self.low is None or self.high is None:
            return math.inf
        return max(self.low, self.high) / min(self.low, self.high)

    def to_dict(self) -> BracketEnds:
        """Ends and intervals as JSON-ready values."""
        return {
            "low": self.low,
            "high": self.high,
            "low_interval": None if self.low_interval is None else list(self.low_interval),
            "high_interval": None if self.high_interval is None else list(self.high_interval),
        }


def fit_bracket(
    logits: ChoiceLogits, *, n_bootstrap: int = 1000, level: float = 0.95, seed: int = 0
) -> Bracket:
    """Fit both ends of the bracket to all prompts, without using labels.

    A missing end is None, never an error; with fewer than 30 prompts both are. Same input, same bits, on any number of
    threads.
    """
    if logits.n_prompts < MIN_EXAMPLES:
        no_ratios = np.full(n_bootstrap, np.inf)
        return Bracket(None, None, None, None, 1.0, 1.0, logits.n_prompts, no_ratios)
    high, high_refits = _high_end(logits, n_bootstrap, seed)
    low, low_refits = _low_end(logits, n_bootstrap, seed)
    ends = np.stack([low_refits.taus, high_refits.taus])
    ratios: FloatArray = np.nan_to_num(ends.max(axis=0) / ends.min(axis=0), nan=np.inf)
    low_lost, high_lost = (float(np.isnan(end).mean()) if n_bootstrap else 0.0 for end in ends)

    def interval(end: float | None, refits: Refits, share_lost: float) -> tuple[float, float] | None:
        exists = n_bootstrap and end is not None and share_lost <= MAX_SHARE_LOST
        return refits.interval(level) if exists else None

    return Bracket(
        low=low,
        high=high,
        low_interval=interval(low, low_refits, low_lost),
        high_interval=interval(high, high_refits, high_lost),
        low_lost=low_lost,
        high_lost=high_lost,
        n_prompts=logits.n_prompts,
        ratios=ratios,
    )


def _high_end(logits: ChoiceLogits, n_bootstrap: int, seed: int) -> tuple[float | None, Refits]:
    """The minimum of the naive loss, and its refits; a minimum at an end of the range counts as missing."""
    loss = build_loss(logits, Method("naive"))
    minimum, losses = find_valley(loss.in_beta())
    table = np.empty((loss.n_used, GRID_TAU.size), dtype=np.float32)
    loss.evaluate(GRID_TAU, table)
    refits = refit_resamples(loss, table, n_resamples=n_bootstrap, seed=seed)
    inside = (refits.taus > GRID_TAU[0]) & (refits.taus < GRID_TAU[-1])
    flat = float(np.ptp(losses)) <= _FLAT_NATS
    taus = np.where(inside & (not flat), refits.taus, np.nan)
    return None if minimum.at_bound or flat else minimum.tau, Refits(taus, refits.share_at_bound)


def _low_end(logits: ChoiceLogits, n_bootstrap: int, seed: int) -> tuple[float | None, Refits]:
    """The lowest tau at which the chat model has no more evidence than the base model, and its refits."""
    from edgecal.calibration.prompt_kernels import add_evidence_rows, softmax_rows

    n = logits.n_prompts
    targets = softmax_rows(logits.base_final, logits.n_choices)

    def evidence_gap(tau: FloatArray) -> FloatArray:
        """The base model's expected evidence less the chat model's: float64 [n, n_tau]."""
        rows = np.zeros((n, tau.size))
        add_evidence_rows(logits.base_final, targets, logits.chat_final, logits.n_choices, 1.0 / tau, rows)
        return rows

    def objective(tau: FloatArray) -> tuple[FloatArray, FloatArray]:
        mean: FloatArray = evidence_gap(tau).mean(axis=0)
        return mean, mean

    table = evidence_gap(GRID_TAU)
    slopes: FloatArray = table.mean(axis=0)
    root = find_crossing(objective, slopes) if slopes[0] < -_FLAT_NATS else None
    terms = Terms(np.arange(n), np.zeros(n, dtype=np.int64), np.ones(1), True, n)
    refits = refit_resamples(
        terms, table.astype(np.float32), n_resamples=n_bootstrap, seed=seed, crossing=True
    )
    return root, refits
