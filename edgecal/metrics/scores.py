"""Accuracy, calibration error, likelihood and Brier score, of the chosen option and of all options' probabilities.

Functions on `LetterBins` and weights judge many resamples at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgecal.errors import InputError
from edgecal.metrics.judged import FloatArray, IntArray, Judged

__all__ = [
    "LetterBins",
    "bin_letters",
    "brier_terms",
    "compute_accuracy",
    "compute_brier",
    "compute_brier_multiclass",
    "compute_classwise_ece",
    "compute_ece",
    "compute_mean_confidence",
    "compute_nll",
    "letter_error",
    "nll_terms",
    "softmax_confidence",
    "softmax_probs",
]


def softmax_probs(
    logits: npt.ArrayLike, n_choices: npt.ArrayLike, temperature: float = 1.0
) -> npt.NDArray[np.float64]:
    """softmax(logits / temperature) over the first n_choices[i] entries of each row, zeros after them.

    logits: float [n, k_max], finite where they count; n_choices: int [n], 1 to k_max; temperature > 0.
    Returns float64 [n, k_max]; the largest entry of a row keeps its place at any temperature.
    """
    z = np.asarray(logits, dtype=np.float64)
    counts = np.asarray(n_choices)
    if z.ndim != 2 or counts.shape != z.shape[:1]:
        raise InputError(
            f"logits {z.shape} and n_choices {counts.shape} do not fit, expected [n, k_max] and [n]"
        )
    if not (np.isfinite(temperature) and temperature > 0):
        raise InputError(f"the temperature is {temperature}, expected a finite number above 0")
    if counts.size and not (np.all(counts >= 1) and np.all(counts <= z.shape[1])):
        raise InputError(f"a number of choices is not between 1 and {z.shape[1]}")
    counted = np.arange(z.shape[1]) < counts[:, None]
    top = np.max(z, axis=1, keepdims=True, where=counted, initial=-np.inf)
    powers = np.zeros_like(z)
    np.divide(np.subtract(z, top, out=powers, where=counted), temperature, out=powers, where=counted)
    np.exp(powers, out=powers, where=counted)
    probs: npt.NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return probs


def softmax_confidence(
    logits: npt.ArrayLike, n_choices: npt.ArrayLike, temperature: float = 1.0
) -> npt.NDArray[np.float64]:
    """The largest probability of each row of `softmax_probs`: float64 [n], above 0 and at most 1."""
    probs = softmax_probs(logits, n_choices, temperature)
    confidence: npt.NDArray[np.float64] = probs.max(axis=1, initial=0.0)
    return confidence


def compute_accuracy(probs: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Share of rows whose largest entry (ties: the lowest index) is the label.

    probs: float [n, k_max], logits do as well; labels: int [n], 0 to k_max - 1. No rows: InputError.
    """
    scores, right = _check_labelled(probs, labels)
    return float(np.mean(np.argmax(scores, axis=1) == right))


def compute_nll(probs: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Mean negative log-likelihood of the labels in nats; inf where a label has probability 0.

    probs: float [n, k_max]; labels: int [n], 0 to k_max - 1. No rows: InputError.
    """
    scores, right = _check_labelled(probs, labels)
    with np.errstate(divide="ignore"):
        logs = np.log(scores[np.arange(len(right)), right])
    return float(np.mean(-logs))


def compute_mean_confidence(confidence: npt.ArrayLike) -> float:
    """Mean confidence; equals the accuracy if calibrated, but not only then.

    confidence: float [n] within 0 to 1. No rows: InputError.
    """
    sure = np.asarray(confidence)
    return float(np.mean(_check_confidence(sure, np.zeros(sure.shape, dtype=bool))[0]))


def compute_brier(confidence: npt.ArrayLike, correct: npt.ArrayLike) -> float:
    """Brier score of the top choice: mean of (confidence - correct)^2, from 0 to 1.

    confidence: float [n] within 0 to 1; correct: bool [n]. All right: mean of (1 - confidence)^2; all wrong: of
    confidence^2. No rows: InputError. (Brier 1950, for the event that the answer is right.)
    """
    sure, hit = _check_confidence(confidence, correct)
    return float(np.mean((sure - hit) ** 2))


def compute_ece(confidence: npt.ArrayLike, correct: npt.ArrayLike, n_bins: int = 10) -> float:
    """Expected calibration error: mean over examples of their bin's |accuracy - mean confidence|.

    confidence: float [n] within 0 to 1; correct: bool [n]. The bins are of equal width, (lo, hi], and the
    first also holds 0; so k / n_bins is in the lower of its two bins. Empty bins count nothing.
    From 0 to 1, as a share, not in percent. No rows: InputError. (Guo et al. 2017, with the bins stated.)
    """
    if n_bins < 1:
        raise InputError(f"the number of bins is {n_bins}, expected 1 or more")
    sure, hit = _check_confidence(confidence, correct)
    inner_edges = np.arange(1, n_bins) / n_bins
    bins = np.searchsorted(inner_edges, sure, side="left")
    gaps = np.bincount(bins, weights=hit - sure, minlength=n_bins)
    return float(np.abs(gaps).sum() / len(sure))


def _check_labelled(
    probs: npt.ArrayLike, labels: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.integer]]:
    scores, right = np.asarray(probs, dtype=np.float64), np.asarray(labels)
    if scores.ndim != 2 or right.shape != scores.shape[:1]:
        raise InputError(f"probs {scores.shape} and labels {right.shape} do not fit, expected [n, k] and [n]")
    if len(right) == 0:
        raise InputError("there is no labelled example to judge")
    if not np.issubdtype(right.dtype, np.integer) or np.any((right < 0) | (right >= scores.shape[1])):
        raise InputError(f"a label is not a whole number from 0 to {scores.shape[1] - 1}")
    return scores, right


def _check_confidence(
    confidence: npt.ArrayLike, correct: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    sure, hit = np.asarray(confidence, dtype=np.float64), np.asarray(correct)
    if sure.ndim != 1 or hit.shape != sure.shape:
        raise InputError(f"confidence {sure.shape} and correct {hit.shape} do not fit, expected [n] and [n]")
    if len(sure) == 0:
        raise InputError("there is no example to judge")
    if not np.all((sure >= 0.0) & (sure <= 1.0)):
        raise InputError("a confidence is not between 0 and 1")
    return sure, hit.astype(bool).astype(np.float64)


LETTER_BINS = 15


def compute_brier_multiclass(
    probs: npt.ArrayLike, labels: npt.ArrayLike, n_choices: npt.ArrayLike | None = None
) -> float:
    """Mean over examples of sum over options of (probability - 1 if right, else probability)^2.

    Input and errors as `Judged.from_probs`. From 0 to 2 (the original form; some halve it or divide it by the
    number of options). One example with certainty: 0 if right, 2 if wrong. (Brier 1950.)
    """
    return float(np.mean(brier_terms(Judged.from_probs(probs, labels, n_choices))))


def compute_classwise_ece(
    probs: npt.ArrayLike,
    labels: npt.ArrayLike,
    n_choices: npt.ArrayLike | None = None,
    n_bins: int = LETTER_BINS,
) -> float:
    """Expected calibration error of each option letter's probability, averaged over the letters.

    Input and errors as `Judged.from_probs`. A class is an option's place (A, B, ...); only the questions that
    have that option count for it, and every class that some question has counts the same. Within a class:
    equal-width bins (lo, hi], the first also holds 0, mean over the questions of their bin's
    |share of questions with that label - mean probability|. Ties share a bin. One example: the mean over its
    options of |probability - 1 if right, else probability|. From 0 to 1. It shows a preference for a letter,
    and is the one figure that changes when options are permuted. (Kull et al. 2019, with the bins stated.)
    """
    if n_bins < 1:
        raise InputError(f"the number of bins is {n_bins}, expected 1 or more")
    judged = Judged.from_probs(probs, labels, n_choices)
    return float(letter_error(bin_letters(judged, n_bins), np.ones((1, len(judged))))[0])


def nll_terms(judged: Judged) -> FloatArray:
    """-log of each right option's probability in nats, float64 [n]; inf where it is 0."""
    probs, labels, _ = _options(judged)
    with np.errstate(divide="ignore"):
        return -np.log(probs[np.arange(len(labels)), labels])


def brier_terms(judged: Judged) -> FloatArray:
    """Sum over the options of (probability - truth)^2 for each example, float64 [n]."""
    probs, labels, _ = _options(judged)
    truth = np.zeros_like(probs)
    truth[np.arange(len(labels)), labels] = 1.0
    terms: FloatArray = np.sum((probs - truth) ** 2, axis=1)
    return terms


@dataclass(frozen=True, eq=False)
class LetterBins:
    """Each pair of an example and one of its options: float64 and int64 [n_pairs].

    example: the row; bin: class * n_bins + the bin of its probability; gap: truth - probability.
    """

    example: IntArray
    bin: IntArray
    gap: FloatArray
    n_classes: int
    n_bins: int


def bin_letters(judged: Judged, n_bins: int = LETTER_BINS) -> LetterBins:
    """Puts every option of every example into its class's bin; class by class, examples in order."""
    probs, labels, n_choices = _options(judged)
    n_classes = probs.shape[1]
    option, example = np.nonzero(np.arange(n_classes)[:, None] < n_choices)
    p = probs[example, option]
    bins = np.searchsorted(np.arange(1, n_bins) / n_bins, p, side="left")
    return LetterBins(example, option * n_bins + bins, (labels[example] == option) - p, n_classes, n_bins)


def letter_error(letters: LetterBins, weights: FloatArray) -> FloatArray:
    """Classwise ECE for weights [b, n], how often each example counts: float64 [b].

    A class without examples in a row is left out of that row's mean; at least one class always has some.
    """
    size = letters.n_classes * letters.n_bins
    errors = np.empty(len(weights))
    for row, weight in enumerate(weights):
        counts = weight[letters.example]
        gaps = np.bincount(letters.bin, weights=counts * letters.gap, minlength=size)
        n = np.bincount(letters.bin, weights=counts, minlength=size)
        by_class = np.abs(gaps).reshape(-1, letters.n_bins).sum(axis=1)
        n_by_class = n.reshape(-1, letters.n_bins).sum(axis=1)
        there = n_by_class > 0.0
        errors[row] = np.mean(by_class[there] / n_by_class[there])
    return errors


def _options(judged: Judged) -> tuple[FloatArray, IntArray, IntArray]:
    if judged.probs is None or judged.labels is None or judged.n_choices is None:
        raise InputError("the probabilities of the options are not known, expected Judged.from_probs")
    return judged.probs, judged.labels, judged.n_choices
