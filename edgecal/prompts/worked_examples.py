"""Worked examples: which answered questions stand before a question, and whether a ready-made prompt has some already.

Within a subject nearly all questions get the same examples in the same order, so that their prompts share a prefix,
which llama.cpp then computes once.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from edgecal.errors import InputError
from edgecal.prompts.records import Prompt, Question

__all__ = ["WorkedQuestion", "holds_worked_examples", "with_shots"]


@dataclass(frozen=True)
class WorkedQuestion:
    """A question and the answered questions shown before it, in their order."""

    question: Question
    shots: tuple[Question, ...] = ()


def with_shots(
    questions: Sequence[Question], k: int, *, seed: int, pool: Sequence[Question] = ()
) -> list[WorkedQuestion]:
    """Gives each question K worked examples of its own subject.

    A subject's examples come from `pool` if that has any answered question of the subject (MMLU's dev split is meant
    for it), else from the answered ones among `questions`. Their order depends only on the seed, the subject and their
    contents: neither on the files' order nor on the other questions. Every question takes the first K that are not
    itself; a question with the same text (passage included) counts as itself, whatever its options, and a text that
    comes twice is one example. Questions without a subject form a group of their own.

    Parameters
    ----------
    questions: the questions to be asked.
    k: worked examples for each, at least 0.
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
    """The answered questions of each subject in the order in which they are taken, each text once."""
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
    """A hash to sort by, so that adding a question leaves the order of the others as it is."""
    content = [seed, question.subject, question.question, question.choices, question.answer]
    if question.passage is not None:
        content.append(question.passage)
    return hashlib.sha256(json.dumps(content).encode()).digest()


def _same_text(question: Question) -> tuple[str, str]:
    return " ".join((question.passage or "").split()), " ".join(question.question.split())


# A prompt ends with a cue (`Answer:`, `Sentiment:`, `Letter: (`, `=>`) after which one of its labels is to come. In a
# worked example the same cue stands before a label.
_CUES = (
    re.compile(r"\w+\W*\Z"),  # the last word and what follows it
    re.compile(r"[^\w\s]{2,}\s*\Z|[^\w\s\x00-\x7f]\s*\Z"),  # an arrow
)


def holds_worked_examples(prompt: Prompt) -> bool:
    """Whether a label or choice token follows an earlier occurrence of the prompt's final cue."""
    if prompt.tokens is not None:
        *before, cue = prompt.tokens
        choices = prompt.choice_tokens or ()
        return any(a == cue and b in choices for a, b in pairwise(before))
    text = prompt.text or ""
    labels = "|".join(re.escape(label.strip()) for label in prompt.labels or () if label.strip())
    cues = [found[0].rstrip() for cue in _CUES if (found := cue.search(text))]
    # a longer word that begins like a label is not one
    return bool(labels) and any(re.search(rf"{re.escape(cue)}\s*(?:{labels})(?!\w)", text) for cue in cues)
