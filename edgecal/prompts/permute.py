"""Puts a question's options in other orders, for probabilities that do not depend on where an option stands.

An order is a tuple of K indices: `order[j]` is the original option that stands at place j (and so has the j-th
letter). A probability of place j belongs to the original option `order[j]`:

    original[list(order)] = permuted      or, the other way,      permuted = original[list(order)]

Does not know prompts or models.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations

import numpy as np

from edgecal.errors import InputError
from edgecal.prompts.model import Question

__all__ = ["permute_question", "reorder"]

_MAX_LISTED = 5_040  # 7!: so many orders can be listed; of more, few enough are wanted to draw until distinct


def permute_question(question: Question, n: int, seed: int) -> list[tuple[int, ...]]:
    """Distinct orders of a question's options.

    First the one that leaves them, then the shifts by 1, 2, ... places round the circle, so that with n = K
    every option has had every letter once; beyond K further orders are drawn by the seed and the question's
    content.

    Parameters
    ----------
    question: with K options.
    n: orders wanted, at least 1; there are never more than K! of them.
    seed: of the draw.

    Returns
    -------
    min(n, K!) orders.

    Raises
    ------
    InputError: n is under 1, or absurdly many (over 5,040) are wanted.
    """
    k = len(question.choices)
    if not 1 <= n <= _MAX_LISTED:
        raise InputError(f"the number of orders of the options must be 1 to {_MAX_LISTED}, got {n}")
    orders = [tuple((place + shift) % k for place in range(k)) for shift in range(min(n, k))]
    if n <= k:
        return orders
    rng = np.random.Generator(np.random.PCG64(_seed_of(question, seed)))
    if math.factorial(k) <= _MAX_LISTED:
        taken = set(orders)
        others = [order for order in permutations(range(k)) if order not in taken]
        return orders + [others[index] for index in rng.permutation(len(others))[: n - k]]
    found = dict.fromkeys(orders)
    while len(found) < n:
        found.setdefault(tuple(int(index) for index in rng.permutation(k)))
    return list(found)


def reorder(question: Question, order: Sequence[int]) -> Question:
    """The same question with the original option `order[j]` at place j; the answer moves along.

    Raises
    ------
    InputError: `order` is no permutation of 0..K-1.
    """
    if sorted(order) != list(range(len(question.choices))):
        raise InputError(
            f"{question.source or 'a question'}: {tuple(order)} is no order of {len(question.choices)} options"
        )
    return replace(
        question,
        choices=tuple(question.choices[index] for index in order),
        answer=None if question.answer is None else list(order).index(question.answer),
    )


def _seed_of(question: Question, seed: int) -> int:
    content: list[object] = [seed, question.question, question.choices]
    if question.passage is not None:
        content.append(question.passage)
    return int.from_bytes(hashlib.sha256(json.dumps(content).encode()).digest(), "big")
