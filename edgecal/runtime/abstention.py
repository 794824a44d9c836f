"""Finds the confidence above which a model is right as often as wanted, with a guarantee, for apps that abstain below
it.

The thresholds to be tried are fixed beforehand: 0, 0.05, ..., 0.95. For each, the questions at least that sure are
counted, and the lower end of the exact (Clopper-Pearson) interval of their accuracy must reach the wanted accuracy,
at a level that is shared out evenly among all thresholds (Bonferroni). So whichever is picked: with probability
`level` over the draw of the calibration questions, the accuracy among answered questions is at least the wanted one,
for questions drawn from where the calibration questions were. Nothing is assumed about the confidences, so the
threshold errs on the safe side.

Clopper & Pearson 1934, Biometrika 26. Geifman & El-Yaniv 2017, "Selective classification for deep neural networks",
have the same guarantee with a search over the data's own confidences; Angelopoulos et al. 2021 ("Learn then test",
arXiv 2110.01052) have the general theory of testing a list of parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, SupportsFloat

from edgecal.errors import InputError, NotIdentifiedError

__all__ = [
    "THRESHOLDS",
    "Threshold",
    "check_min_confidence",
    "clopper_pearson_low",
    "is_real",
    "threshold_for",
    "threshold_from_eval",
]

THRESHOLDS = tuple(step / 20 for step in range(20))

_NEGLIGIBLE = 1e-17


@dataclass(frozen=True)
class Threshold:
    """The confidence at or above which to answer, and what is known about those answers.

    Attributes
    ----------
    min_confidence: answer where the confidence is at least this; for `Model.choose(min_confidence=...)` and
        `Model.decide`.
    wanted_accuracy: what was asked for.
    accuracy_low: with probability `level` the accuracy among answered questions is at least this, and at least
        the wanted one.
    level: probability over the draw of the calibration questions that the guarantee holds.
    n, n_answered, n_correct: calibration questions, how many of them are answered, and how many correctly.
    """

    min_confidence: float
    wanted_accuracy: float
    accuracy_low: float
    level: float
    n: int
    n_answered: int
    n_correct: int

    @property
    def coverage(self) -> float:
        """Share of the calibration questions that are answered, above 0 and at most 1."""
        return self.n_answered / self.n

    @property
    def accuracy(self) -> float:
        """Share of the answered calibration questions that are answered correctly."""
        return self.n_correct / self.n_answered


def threshold_for(
    accuracy: float, confidences: Sequence[float], correct: Sequence[bool], *, level: float = 0.95
) -> Threshold:
    """The lowest threshold above which answers are right as often as wanted, from calibration questions with answers.

    Parameters
    ----------
    accuracy: wanted among the answered questions, above 0 and below 1.
    confidences: [n] within 0 to 1, how sure the model was (`Answer.confidence`, `Decision.probability`); n >= 1.
    correct: [n], whether it was right. The temperature must not have been fitted on these answers; one that edgecal
        fitted without labels is fine.
    level: probability with which the guarantee holds, above 0 and below 1.

    Raises
    ------
    InputError: a value is out of range, or the lengths differ.
    NotIdentifiedError: no threshold can be guaranteed: even where it is sure, the model is not right that often, or
        there are too few questions.
    """
    try:
        sure = [float(value) for value in confidences]
        hits = [bool(value) for value in correct]
    except (TypeError, ValueError) as error:
        raise InputError(f"expected a list of numbers and a list of booleans ({error!s:.80})") from None
    if len(sure) != len(hits) or not sure:
        raise InputError(
            f"got {len(sure)} confidences and {len(hits)} answers, expected as many of each and at least one"
        )
    if not all(0.0 <= value <= 1.0 for value in sure):
        raise InputError("a confidence is not between 0 and 1")
    counts = []
    for threshold in THRESHOLDS:
        answered = [hit for value, hit in zip(sure, hits, strict=True) if value >= threshold]
        counts.append((threshold, len(answered), sum(answered)))
    return _lowest(accuracy, counts, level)


def threshold_from_eval(accuracy: float, result: Mapping[str, Any], *, level: float = 0.95) -> Threshold:
    """The same from the result of `edgecal eval --json` or `edgecal.evaluate(...).to_dict()`.

    The thresholds are the edges of its reliability diagram, whose bins are open on the left: 0, just above 0.1, ...,
    just above 0.9. The figures are those after the temperature or, for a file without one, such as a baked file, those
    of the file as it is.

    Raises
    ------
    InputError: it is not such a result, or a value is out of range.
    NotIdentifiedError: as `threshold_for`.
    """
    try:
        if result["kind"] != "eval":
            raise InputError(
                f"the result is of the kind {result['kind']!r}, expected that of edgecal eval --json"
            )
        pictures = result["plots"]["reliability"]
        bins = pictures["after"] or pictures["before"]
        edges = [float(edge) for edge in bins["edges"]]
        n = [int(count) for count in bins["n"]]
        right = [
            round(count * float(share)) if count else 0
            for count, share in zip(n, bins["accuracy"], strict=True)
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"the result is not what edgecal eval --json prints ({error!r:.80})") from None
    if len(edges) != len(n) + 1 or sum(n) < 1:
        raise InputError("the result's reliability diagram has no questions in it, or bins without edges")
    counts = [
        (0.0 if at == 0 else math.nextafter(edges[at], 1.0), sum(n[at:]), sum(right[at:]))
        for at in range(len(n))
    ]
    return _lowest(accuracy, counts, level)


def _lowest(accuracy: float, counts: Sequence[tuple[float, int, int]], level: float) -> Threshold:
    """The lowest threshold that can be guaranteed, from (threshold, answered, right) of each, ascending. The first
    answers everything."""
    for name, value in (("accuracy", accuracy), ("level", level)):
        if not (is_real(value) and 0.0 < value < 1.0):
            raise InputError(f"the {name} is {value!r:.60}, expected a number above 0 and below 1")
    alpha = (1.0 - level) / len(counts)
    n = counts[0][1]
    lows = [clopper_pearson_low(right, answered, alpha) for _, answered, right in counts]
    for (threshold, answered, right), low in zip(counts, lows, strict=True):
        if low >= accuracy:
            return Threshold(threshold, accuracy, low, level, n, answered, right)
    best = max(range(len(counts)), key=lows.__getitem__)
    threshold, answered, right = counts[best]
    raise NotIdentifiedError(
        f"no threshold can be guaranteed with {n} questions: of those answered with a confidence of at least "
        f"{threshold:.2f}, {right} of {answered} are right, which guarantees an accuracy of {lows[best]:.3f}, and "
        f"{accuracy:g} is wanted; give more questions with answers, or ask for less"
    )


def clopper_pearson_low(n_right: int, n: int, alpha: float) -> float:
    """The lower end of the exact one-sided interval of a share n_right / n, at confidence 1 - alpha (Clopper & Pearson
    1934): the share p at which n_right or more out of n have probability alpha; 0 if n_right is 0.

    0 <= n_right <= n; 0 < alpha < 1.
    """
    if n_right == 0:
        return 0.0
    low, high = 0.0, 1.0
    while True:
        middle = 0.5 * (low + high)
        if not low < middle < high:
            return low
        if _upper_tail(n_right, n, middle) <= alpha:
            low = middle
        else:
            high = middle


def _upper_tail(k: int, n: int, p: float) -> float:
    """P(X >= k) for X binomial with n draws of probability p, 0 < p < 1 and 1 <= k <= n."""
    odds = p / (1.0 - p)
    term = math.exp(
        math.lgamma(n + 1)
        - math.lgamma(k + 1)
        - math.lgamma(n - k + 1)
        + k * math.log(p)
        + (n - k) * math.log1p(-p)
    )
    if k <= n * p:  # the tail is the larger part: sum the smaller one
        total, below = 0.0, term
        for i in range(k, 0, -1):
            below *= i / ((n - i + 1) * odds)
            total += below
            if below < total * _NEGLIGIBLE:
                break
        return 1.0 - total
    total = 0.0
    for i in range(k, n + 1):
        total += term
        if term < total * _NEGLIGIBLE:
            break
        term *= (n - i) / (i + 1) * odds
    return min(total, 1.0)


def check_min_confidence(min_confidence: float | None) -> None:
    """InputError unless it is None or a number from 0 to 1."""
    # not (... <= ...) also refuses NaN
    if min_confidence is not None and not (is_real(min_confidence) and 0.0 <= min_confidence <= 1.0):
        raise InputError(f"min_confidence is {min_confidence!r:.60}, expected a number from 0 to 1")


def is_real(value: Any) -> bool:
    """Whether a value is a number; texts and booleans are not."""
    return isinstance(value, SupportsFloat) and not isinstance(value, (str, bool))
