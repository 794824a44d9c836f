"""Random prompts as decisions make them: states, some of which begin alike, and questions behind them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int32]


def random_states(rng: np.random.Generator, n: int, *, lengths: Sequence[int], n_vocab: int) -> list[Tokens]:
    """`n` states; each third one continues the one before, and some begin with half of it."""
    states: list[Tokens] = []
    for number in range(n):
        length = int(rng.integers(lengths[0], lengths[1]))
        state = rng.integers(3, n_vocab, length).astype(np.int32)
        if number % 3 == 1:
            before = states[-1][: len(states[-1]) // (2 if number % 2 else 1)]
            state = np.concatenate([before, state])[: lengths[1]]
        states.append(state)
    return states


def random_questions(
    rng: np.random.Generator, n: int, *, lengths: Sequence[int], n_vocab: int
) -> list[Tokens]:
    """`n` questions; about half of them begin like the one before, as a question in another order does."""
    questions: list[Tokens] = []
    for number in range(n):
        question = rng.integers(3, n_vocab, int(rng.integers(lengths[0], lengths[1]))).astype(np.int32)
        if number % 2 and len(question) > 2:
            question = np.concatenate([questions[-1][: len(question) // 2], question[len(question) // 2 :]])
        questions.append(question)
    return questions
