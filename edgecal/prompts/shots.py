"""Worked examples: which answered questions stand before a question in its prompt.

Within a subject nearly all questions get the same examples in the same order, so that their prompts share a
prefix. Does not know templates.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgecal.errors import InputError
from edgecal.prompts.model import Question

__all__ = ["WorkedQuestion", "with_shots"]


@dataclass(frozen=True)
class WorkedQuestion:
    """A question and the answered questions that are shown before it, in their order."""

    question: Question
    shots: tuple[Question, ...] = ()


def with_shots(
    questions: Sequence[Question], k: int, *, seed: int, pool: Sequence[Question] = ()
) -> list[WorkedQuestion]:
    """Gives each question K worked examples of its own subject.

    A subject's examples come from `pool` where that has any answered question of the subject (MMLU's `dev`
    split is meant for it), else from the answered ones among `questions`. They stand in an order that the
    seed, the subject and their contents fix, and nothing else: not the files' order, nor what else is there.
    Every question takes the first K that are not itself; one with the same text (passage included) counts as
    itself, whatever its options, and a text that comes twice is one example. Questions without a subject form a group.

    Parameters
    ----------
    questions: the questions to be asked.
    k: worked examples for each, from 0.
    seed: of the order.
    pool: further questions to take examples from.

    Returns
    -------
    One for each question, in the order given.

    Raises
    ------
    InputError: k is negative, or a subject has fewer than K answered questions for one of its questions.
    """
    if k < 0:
        raise InputError(f"the number of worked examples must be at least 0, got {k}")
    if k == 0:
        return [WorkedQuestion(question) for question in questions]
    from_pool, from_questions = _by_subject(pool, seed), _by_subject(questions, seed)
    worked = []
    for question in questions:
        own = question.subject
        candidates = from_pool.get(own) or from_questions.get(own, [])
        shots: list[Question] = []
        for candidate in candidates:
            if len(shots) == k:
                break
            if _same_text(candidate) != _same_text(question):
                shots.append(candidate)
        if len(shots) < k:
            of = f"the subject {own!r}" if own is not None else "questions without a subject"
            where = "among those to take examples from" if own in from_pool else "in the data"
            raise InputError(
                f"{question.source or 'a question'}: {k} worked examples wanted, but of {of} there are only "
                f"{len(shots)} other questions with an answer {where}; ask for fewer, or give more questions"
            )
        worked.append(WorkedQuestion(question, tuple(shots)))
    return worked


def _by_subject(questions: Iterable[Question], seed: int) -> dict[str | None, list[Question]]:
    """The answered questions of each subject in the order in which they serve, each text once."""
    groups: dict[str | None, list[tuple[bytes, Question]]] = {}
    for question in questions:
        if question.answer is not None:
            groups.setdefault(question.subject, []).append((_rank(question, seed), question))
    ordered: dict[str | None, list[Question]] = {}
    for subject, group in groups.items():
        first: dict[tuple[str, str], Question] = {}
        for _, question in sorted(group, key=lambda item: item[0]):
            first.setdefault(_same_text(question), question)
        ordered[subject] = list(first.values())
    return ordered


def _rank(question: Question, seed: int) -> bytes:
    """A hash by which to sort: a permutation that does not change for the others when one is added."""
    content = [seed, question.subject, question.question, question.choices, question.answer]
    if question.passage is not None:
        content.append(question.passage)
    return hashlib.sha256(json.dumps(content).encode()).digest()


def _same_text(question: Question) -> tuple[str, str]:
    return " ".join((question.passage or "").split()), " ".join(question.question.split())
