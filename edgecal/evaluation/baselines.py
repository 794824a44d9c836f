"""Judges the methods without a fitted temperature: CAPE, internal consistency, BaseCal, stated confidence.

It takes arrays and returns judged examples; `edgecal.api.extra_runs` runs the prompts that these methods need.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgecal.calibration import ChoiceLogits
from edgecal.metrics import Judged, softmax_probs

__all__ = [
    "average_permutations",
    "judge_consistency",
    "judge_logits",
    "judge_reevaluation",
    "judge_statements",
]


def judge_logits(
    logits: npt.NDArray[np.floating],
    n_choices: npt.NDArray[np.integer],
    labels: npt.NDArray[np.integer],
    temperature: float = 1.0,
) -> Judged:
    """Judges the softmax of logits / temperature against labels; logits are float [n, k_max], of which n_choices[i]
    count."""
    return Judged.from_probs(softmax_probs(logits, n_choices, temperature), labels, n_choices)


def average_permutations(
    probs: npt.NDArray[np.floating],
    owners: npt.NDArray[np.integer],
    orders: Sequence[Sequence[int]],
    n_questions: int,
) -> npt.NDArray[np.float64]:
    """CAPE: the mean over permuted prompts of each question's probabilities, mapped back to its own options.

    Parameters
    ----------
    probs: float [m, k_max], the model's probabilities for m permuted prompts.
    owners: int [m], each prompt's question, 0 to n_questions - 1; every question occurs at least once.
    orders: m orders; `orders[i][j]` is the original option that stood at place j of prompt i.
    n_questions: number of questions.

    Returns
    -------
    float64 [n_questions, k_max]; each row sums to 1. (CAPE: Jiang et al., "Calibrating language models via
    augmented prompt ensembles", 2023.)
    """
    total = np.zeros((n_questions, probs.shape[1]))
    counts = np.bincount(owners, minlength=n_questions)
    for row, owner, order in zip(probs, owners, orders, strict=True):
        total[owner, list(order)] += row[: len(order)]
    mean: npt.NDArray[np.float64] = total / counts[:, None]
    return mean


def judge_consistency(logits: ChoiceLogits) -> Judged | None:
    """Internal consistency: the share of the intermediate layers whose preferred choice is the final one.

    Layers 1 to L - 1 of the chat model vote; the answer is the model's own. None without intermediate layers.
    (Xie et al., "Calibrating reasoning in language models with internal consistency", NeurIPS 2024.)
    """
    if logits.chat_layers is None or logits.chat_layers.shape[1] < 2:
        return None
    votes = np.argmax(logits.chat_layers[:, :-1, :], axis=2)
    answers = np.argmax(logits.chat_final, axis=1)
    share = (votes == answers[:, None]).mean(axis=1)
    return Judged.from_confidence(share, answers == logits.labels)


def judge_reevaluation(logits: ChoiceLogits) -> Judged:
    """BaseCal-ReEval: the answer is the chat model's choice, its confidence the base model's probability of it.

    The probability is the softmax over a question's choices, without a temperature. Where the base model prefers
    another choice it can be anything down to 0, so it is the confidence of an answer and no distribution over the
    choices: figures that need one are NaN. BaseCal-Proj is the same with `base_final` mapped from the chat model's
    hidden states (`edgecal.evaluation.linear_map`). (Tan et al., arXiv 2601.03042, 2026, whose mean over an answer's
    tokens is the one token of a label here.)
    """
    chat = judge_logits(logits.chat_final, logits.n_choices, logits.labels)
    assert chat.predicted is not None
    base = softmax_probs(logits.base_final, logits.n_choices)
    return Judged.from_confidence(base[np.arange(len(base)), chat.predicted], chat.correct)


def judge_statements(
    statements: Sequence[tuple[int, float] | None], labels: npt.NDArray[np.integer]
) -> tuple[Judged | None, npt.NDArray[np.int64]]:
    """Judges stated answers and confidences against labels.

    Parameters
    ----------
    statements: for each question the stated choice and confidence (0 to 1), or None if they were not understood.
    labels: int [n].

    Returns
    -------
    The judged examples (None if nothing was understood), and their questions, int64 [m].
    """
    which = np.array([i for i, item in enumerate(statements) if item is not None], dtype=np.int64)
    understood = [item for item in statements if item is not None]
    if not understood:
        return None, which
    confidence = np.array([item[1] for item in understood])
    correct = np.array([item[0] for item in understood]) == labels[which]
    return Judged.from_confidence(confidence, correct), which
