"""Measures how well confidence tells right answers from wrong ones: AUROC, risk against coverage, AURC.

One temperature for all questions hardly changes these, since they depend only on the order of the confidences.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgecal.errors import InputError
from edgecal.metrics.judged import FloatArray, Judged
from edgecal.metrics.tally import Tally, tally_examples

__all__ = ["area_under_risk", "compute_aurc", "compute_auroc", "compute_risk_coverage", "right_above_wrong"]


def compute_auroc(confidence: npt.ArrayLike, correct: npt.ArrayLike) -> float:
    """Chance that a right answer has a higher confidence than a wrong one; ties count half.

    confidence: float [n] within 0 to 1; correct: bool [n]. Over all pairs of a right and a wrong answer, the
    area under the ROC curve. From 0 to 1, 0.5 if the confidence says nothing. All right, all wrong or one
    example: NaN, there is no pair. No examples: InputError. (Hanley & McNeil 1982.)
    """
    return float(right_above_wrong(tally_examples(confidence, correct))[0])


def compute_aurc(confidence: npt.ArrayLike, correct: npt.ArrayLike) -> float:
    """Area under the risk-coverage curve: the risk at coverage i / n, averaged over i = 1..n.

    confidence: float [n] within 0 to 1; correct: bool [n]. The risk at coverage i / n is the share of wrong
    answers among the i most confident. Ties: the expected value over all orders of equal confidences, so no
    order of the input matters; if all are equal it is the error rate. One example: 0 if right, else 1; all
    right 0, all wrong 1. From 0 to 1, lower is better; even a perfect order has more than 0 if some answers
    are wrong. No examples: InputError.
    (Geifman & El-Yaniv 2017 for the curve; Geifman, Uziel & El-Yaniv 2019 for its area.)
    """
    return float(area_under_risk(tally_examples(confidence, correct))[0])


def compute_risk_coverage(judged: Judged, max_points: int = 200) -> tuple[FloatArray, FloatArray]:
    """The risk-coverage curve: (coverage, risk), float64 [m] each, m = min(n, max_points), coverage ascending.

    coverage[j] = i / n for m whole numbers i spread evenly from 1 to n; risk[j] is the expected share of wrong
    answers among the i most confident, over all orders of equal confidences. max_points < 2: InputError.
    """
    if max_points < 2:
        raise InputError(f"the curve is to have {max_points} points, expected 2 or more")
    tally = tally_examples(judged.confidence, judged.correct)
    n, wrong = tally.n[0, ::-1], (tally.n - tally.hits)[0, ::-1]
    kept_at = np.append(0.0, np.cumsum(n))
    wrong_at = np.append(0.0, np.cumsum(wrong))
    m = min(tally.total, max_points)
    kept = np.unique(np.rint(np.linspace(1.0, tally.total, m)))
    risk = np.interp(kept, kept_at, wrong_at) / kept
    return kept / tally.total, np.clip(risk, 0.0, 1.0)


def right_above_wrong(tally: Tally) -> FloatArray:
    """AUROC of each row, float64 [b]; NaN where a row has no right or no wrong answer."""
    wrong = tally.n - tally.hits
    wrong_below = tally.cum_n - tally.cum_hits
    n_right, n_wrong = tally.cum_hits[:, -1], wrong_below[:, -1]
    above = np.einsum("bm,bm->b", tally.hits, wrong_below) - 0.5 * np.einsum("bm,bm->b", tally.hits, wrong)
    pairs = n_right * n_wrong
    area: FloatArray = np.divide(above, pairs, out=np.full_like(pairs, np.nan), where=pairs > 0.0)
    return area


def area_under_risk(tally: Tally) -> FloatArray:
    """AURC of each row, float64 [b].

    A group of m equals with e wrong ones, after c examples with w wrong ones, adds the expected
    sum over j = 1..m of (w + e j / m) / (c + j) = (w - e c / m) (H(c + m) - H(c)) + e, H the harmonic numbers.
    """
    total = tally.total
    harmonic = np.append(0.0, np.cumsum(1.0 / np.arange(1, total + 1)))
    kept = total - tally.cum_n  # more confident than each level
    upto = np.empty((kept.shape[0], kept.shape[1] + 1))
    upto[:, 0] = total
    upto[:, 1:] = kept
    steps = -np.diff(harmonic[upto.astype(np.intp)], axis=1)
    wrong = tally.n - tally.hits
    wrong_upto = tally.cum_n - tally.cum_hits
    wrong_above = wrong_upto[:, -1:] - wrong_upto
    rate = np.divide(wrong, tally.n, out=np.zeros_like(wrong), where=tally.n > 0.0)
    wrong_above -= rate * kept
    wrong_above *= steps
    area: FloatArray = (wrong_above.sum(axis=1) + wrong_upto[:, -1]) / total
    return np.clip(area, 0.0, 1.0)
