"""The judged answers: how sure each was, whether it was right and, if known, the options' probabilities.

They are checked once here, so that no figure needs to.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgecal.errors import InputError

__all__ = ["Judged"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

_SUM_TOLERANCE = 1e-4  # probabilities stored as float32 or printed with five digits still pass


@dataclass(frozen=True, eq=False)
class Judged:
    """n answered questions, n >= 1; made by `from_probs` or `from_confidence`.

    confidence: float64 [n] within 0 to 1, how sure the answer was. correct: bool [n].
    probs: float64 [n, k_max], the options' probabilities, zeros beyond a row's n_choices; None if unknown,
    and then so are labels: int64 [n], the right option; n_choices: int64 [n]; predicted: int64 [n].
    """

    confidence: FloatArray
    correct: BoolArray
    probs: FloatArray | None = None
    labels: IntArray | None = None
    n_choices: IntArray | None = None
    predicted: IntArray | None = None

    def __len__(self) -> int:
        return len(self.confidence)

    @classmethod
    def from_probs(
        cls, probs: npt.ArrayLike, labels: npt.ArrayLike, n_choices: npt.ArrayLike | None = None
    ) -> Judged:
        """The answer is the likeliest option (ties: the lowest index), its probability the confidence.

        probs: float [n, k_max], rows summing to 1 within 1e-4, zeros beyond n_choices; labels: int [n], below
        the row's n_choices; n_choices: int [n], 1 to k_max, None if every row has k_max. Else InputError.
        """
        table = np.array(probs, dtype=np.float64)
        if table.ndim != 2:
            raise InputError(f"probs have shape {table.shape}, expected [n, k_max]")
        counts = np.full(len(table), table.shape[1]) if n_choices is None else np.asarray(n_choices)
        right = np.asarray(labels)
        if right.shape != table.shape[:1] or counts.shape != table.shape[:1]:
            raise InputError(
                f"probs {table.shape}, labels {right.shape} and n_choices {counts.shape} do not fit, "
                "expected [n, k_max], [n] and [n]"
            )
        _check_not_empty(len(table))
        if not np.issubdtype(counts.dtype, np.integer) or np.any((counts < 1) | (counts > table.shape[1])):
            raise InputError(f"a number of choices is not a whole number from 1 to {table.shape[1]}")
        if not np.issubdtype(right.dtype, np.integer) or np.any((right < 0) | (right >= counts)):
            raise InputError("a label is not a whole number from 0 to its row's number of choices - 1")
        _check_shares(table, "probability")
        behind = np.arange(table.shape[1]) >= counts[:, None]
        if np.any(table[behind] != 0.0):
            raise InputError("a probability beyond its row's number of choices is not 0")
        off = np.abs(table.sum(axis=1) - 1.0)
        if np.any(off > _SUM_TOLERANCE):
            row = int(np.argmax(off))
            raise InputError(f"the probabilities of row {row} sum to {table[row].sum():.6g}, expected 1")
        predicted = np.argmax(table, axis=1).astype(np.int64)
        confidence = table.max(axis=1)
        right = right.astype(np.int64)
        return cls(confidence, predicted == right, table, right, counts.astype(np.int64), predicted)

    @classmethod
    def from_confidence(cls, confidence: npt.ArrayLike, correct: npt.ArrayLike) -> Judged:
        """Answers with only a confidence; figures that need probabilities are NaN.

        confidence: float [n] within 0 to 1; correct: bool [n], or 0 and 1. Else InputError.
        """
        sure, hit = np.array(confidence, dtype=np.float64), np.asarray(correct)
        if sure.ndim != 1 or hit.shape != sure.shape:
            raise InputError(
                f"confidence {sure.shape} and correct {hit.shape} do not fit, expected [n] and [n]"
            )
        _check_not_empty(len(sure))
        _check_shares(sure, "confidence")
        if not np.all((hit == 0) | (hit == 1)):
            raise InputError("correct holds something other than true and false")
        return cls(sure, hit.astype(bool))

    def take(self, indices: npt.ArrayLike) -> Judged:
        """The examples at `indices`: int [m], m >= 1, or bool [n]. None of them: InputError."""
        at = np.asarray(indices)
        if at.size == 0:
            at = at.astype(np.int64)
        part = Judged(
            self.confidence[at],
            self.correct[at],
            None if self.probs is None else self.probs[at],
            None if self.labels is None else self.labels[at],
            None if self.n_choices is None else self.n_choices[at],
            None if self.predicted is None else self.predicted[at],
        )
        _check_not_empty(len(part))
        return part


def _check_not_empty(n: int) -> None:
    if n == 0:
        raise InputError("there is no example to judge")


def _check_shares(values: FloatArray, name: str) -> None:
    if not np.all((values >= 0.0) & (values <= 1.0)):
        raise InputError(f"a {name} is not between 0 and 1")
