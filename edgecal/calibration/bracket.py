"""The bracket: the two temperatures between which the right one lies, if neither model counts against the other.

Without labels a temperature is only partly identified. Two extreme readings of what post-training did give its ends,
from the same logits that a fit uses, with g the base model's probabilities and f_tau = softmax(z / tau) the chat
model's:

- *It added nothing*: g is all that anybody knows, and tau is the one that brings f nearest to it, mean KL(g || f_tau)
  least. That is the method `naive`; it is the high end.
- *The chat model knows what the base model knows, and more*: f_tau itself is honest, so by its own account it must
  find as much of the base's evidence as the base does, mean < f_tau, log g > = mean < g, log g >. A chat model that is
  too sure finds more, one that is not sure enough less. Where the two are equal is the low end.

The reading behind the low end says of a temperature at which f finds more than g that it is too low. So the low end
is the lowest tau between TAU_MIN and TAU_MAX at which no more is found. Of several roots it is the lowest: it gives
the wider bracket. Where not even f at TAU_MIN, nearly its bare choices, finds more than g (they disagree too often,
or g says the same of every option), the reading excludes nothing, and there is no low end; nor where f still finds
more at TAU_MAX. Probabilities of 0 do no harm: f and g sum to 1, so log g may be replaced by g's logits, and those are
finite.

Knows nothing of choice masses, labels, or of when a bracket is narrow enough.
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
_FLAT_NATS = 1e-9  # of evidence, or of loss: less than this is none


@dataclass(frozen=True)
class Bracket:
    """Both ends, each with its own interval.

    Attributes
    ----------
    low, high : temperatures between TAU_MIN and TAU_MAX, None where there is no such end
    low_interval, high_interval : percentile bootstrap intervals over prompts at the fit's level; None without an end,
        without a bootstrap, or where more than 5 % of the refits have no such end
    low_lost, high_lost : share of the refits that have no such end
    n_prompts : how many prompts it is from
    ratios : float64 [n_bootstrap], the higher end of each refit over its lower; infinite where it lacks one. Both
        ends of a refit are of the same resample, and that is the fit's of the same number and seed.
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
        """The higher end over the lower, which are not always high and low; infinite where one is missing."""
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
    """Both ends of the bracket of all prompts, labels unseen. Same input, same bits, on any number of threads.

    An end that cannot be had is None, never an error; fewer than 30 prompts have neither.
    """
    if logits.n_prompts < MIN_EXAMPLES:
        none = np.full(n_bootstrap, np.inf)
        return Bracket(None, None, None, None, 1.0, 1.0, logits.n_prompts, none)
    high, of_high = _high_end(logits, n_bootstrap, seed)
    low, of_low = _low_end(logits, n_bootstrap, seed)
    ends = np.stack([of_low.taus, of_high.taus])
    ratios: FloatArray = np.nan_to_num(ends.max(axis=0) / ends.min(axis=0), nan=np.inf)
    low_lost, high_lost = (float(np.isnan(end).mean()) if n_bootstrap else 0.0 for end in ends)

    def interval(end: float | None, refits: Refits, share: float) -> tuple[float, float] | None:
        known = n_bootstrap and end is not None and share <= MAX_SHARE_LOST
        return refits.interval(level) if known else None

    return Bracket(
        low=low,
        high=high,
        low_interval=interval(low, of_low, low_lost),
        high_interval=interval(high, of_high, high_lost),
        low_lost=low_lost,
        high_lost=high_lost,
        n_prompts=logits.n_prompts,
        ratios=ratios,
    )


def _high_end(logits: ChoiceLogits, n_bootstrap: int, seed: int) -> tuple[float | None, Refits]:
    """Where the naive loss is least, and its refits; one at an end of the range counts as none."""
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
    """The lowest tau at which the chat model finds no more of the base's evidence than the base, and its refits."""
    from edgecal.calibration.confidence_kernels import add_evidence_rows
    from edgecal.calibration.row_kernels import softmax_rows

    n = logits.n_prompts
    targets = softmax_rows(logits.base_final, logits.n_choices)

    def lack(tau: FloatArray) -> FloatArray:
        """Evidence that the chat model lacks: float64 [n, n_tau], mean below 0 where it finds more than the base."""
        rows = np.zeros((n, tau.size))
        add_evidence_rows(logits.base_final, targets, logits.chat_final, logits.n_choices, 1.0 / tau, rows)
        return rows

    def objective(tau: FloatArray) -> tuple[FloatArray, FloatArray]:
        mean: FloatArray = lack(tau).mean(axis=0)
        return mean, mean

    table = lack(GRID_TAU)
    slopes: FloatArray = table.mean(axis=0)
    root = find_crossing(objective, slopes) if slopes[0] < -_FLAT_NATS else None
    terms = Terms(np.arange(n), np.zeros(n, dtype=np.int64), np.ones(1), True, n)
    refits = refit_resamples(
        terms, table.astype(np.float32), n_resamples=n_bootstrap, seed=seed, crossing=True
    )
    return root, refits
