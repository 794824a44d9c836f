"""Splits questions into those to fit on and those to judge on: 30 % and 70 % as in DACA, by seed.

A split is drawn from the number of questions alone, so that it cannot depend on a label, a text or a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgecal.errors import InputError

__all__ = ["DEFAULT_FIT_SHARE", "Split", "make_splits"]

DEFAULT_FIT_SHARE = 0.3


@dataclass(frozen=True, eq=False)
class Split:
    """One division of n questions.

    Attributes
    ----------
    seed: what it was drawn with.
    fit: int64 [n_fit], questions to fit on, in random order, so that the first m are a random draw as well.
    judge: int64 [n - n_fit], the others.
    """

    seed: int
    fit: npt.NDArray[np.int64]
    judge: npt.NDArray[np.int64]


def make_splits(n_questions: int, seeds: Sequence[int], fit_share: float = DEFAULT_FIT_SHARE) -> list[Split]:
    """One split for each seed.

    Parameters
    ----------
    n_questions: 2 or more.
    seeds: 0 to 2^64 - 1 each.
    fit_share: share of the questions to fit on, above 0 and below 1; rounded, with at least one on each side.

    Raises
    ------
    InputError: too few questions, or a share out of range.
    """
    if not 0.0 < fit_share < 1.0:
        raise InputError(f"the share to fit on is {fit_share}, expected a number between 0 and 1")
    if n_questions < 2:
        raise InputError(
            "questions with an answer cannot be split into some to fit on and some to judge where there "
            f"{'is' if n_questions == 1 else 'are'} only {n_questions}; give more"
        )
    n_fit = min(max(round(fit_share * n_questions), 1), n_questions - 1)
    splits = []
    for seed in seeds:
        order = np.random.Generator(np.random.PCG64(seed)).permutation(n_questions)
        splits.append(Split(seed, order[:n_fit], order[n_fit:]))
    return splits
