"""Prompts as users have them, in tokens of Qwen2's tokenizer: 0-shot, 5-shot, and with permuted options.

The questions are the longer ones of the built-in bank, 16 of each of its subjects, which makes prompts about as long as
those of MMLU. As there, 5 questions of each subject are worked examples for the others. The bank holds no answers:
those that worked examples need are drawn, since what a prompt says matters to no time.

The order is that of an MMLU folder, subject by subject, which is the best for programs that reuse only what a prompt
shares with the one before it. Knows nothing of times.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from edgecal.llama.model import Model
from edgecal.llama.tokenizer import Tokenizer
from edgecal.prompts import Prompt, Prompting, PromptTemplate, Question, permute_question, read_bank

N_SHOTS, N_ORDERS = 5, 4
_N_LONGEST = 16


@dataclass(frozen=True)
class PromptSet:
    """Prompts, and their tokens: int32 arrays."""

    name: str
    prompts: tuple[Prompt, ...]
    tokens: tuple[np.ndarray, ...]

    @property
    def n_tokens(self) -> int:
        return sum(map(len, self.tokens))

    @property
    def n_distinct(self) -> int:
        return count_distinct(self.tokens)

    @property
    def possible_saving(self) -> float:
        """How many times fewer tokens there are when what is shared is computed once."""
        return self.n_tokens / self.n_distinct

    def describe(self) -> str:
        return (
            f"{self.name}: {len(self.tokens)} prompts, {self.n_tokens:,} tokens, {self.n_distinct:,} distinct, "
            f"possible saving {self.possible_saving:.2f}"
        )


def count_distinct(prompts: Sequence[np.ndarray]) -> int:
    """Nodes of the trie of all prompts: tokens that are left when what prompts share is counted once."""
    ordered = sorted(tuple(prompt.tolist()) for prompt in prompts)
    return len(ordered[0]) + sum(len(after) - _n_shared(before, after) for before, after in pairwise(ordered))


def _n_shared(first: Sequence[int], second: Sequence[int]) -> int:
    return next(
        (at for at, (x, y) in enumerate(zip(first, second, strict=False)) if x != y),
        min(len(first), len(second)),
    )


def make_sets(
    vocabulary: Path, *, n_zero: int, n_five: int, n_permuted: int, n_subjects: int
) -> list[PromptSet]:
    """The three sets: `n_zero` 0-shot prompts of all subjects, `n_five` 5-shot prompts of `n_subjects` subjects, and
    `n_permuted` questions in 4 orders of their options each."""
    asked, pool = split_bank()
    subjects = list(dict.fromkeys(question.subject for question in asked))[:n_subjects]
    spread = _spread(asked, n_zero)
    by_subject = [
        question
        for subject in subjects
        for question in _spread([each for each in asked if each.subject == subject], n_five // n_subjects)
    ]
    return [
        make_set("0-shot", vocabulary, [_render(spread)]),
        make_set("5-shot", vocabulary, [_render(by_subject, pool)]),
        make_set(
            "permuted options", vocabulary, [permute(question) for question in _spread(asked, n_permuted)]
        ),
    ]


def make_set(name: str, vocabulary: Path, groups: Sequence[Sequence[Prompt]]) -> PromptSet:
    prompts = tuple(prompt for group in groups for prompt in group)
    with Model(vocabulary, vocab_only=True) as model:
        tokenizer = Tokenizer(model.vocab, model.n_vocab, vocabulary.name)
        return PromptSet(name, prompts, tuple(tokenizer.prompt_tokens(prompt) for prompt in prompts))


def split_bank() -> tuple[list[Question], list[Question]]:
    """Questions to ask and questions to take worked examples from, subject by subject, with drawn answers."""
    rng = random.Random(0)
    bank = [replace(question, answer=rng.randrange(len(question.choices))) for question in read_bank()]
    asked, pool = [], []
    for subject in dict.fromkeys(question.subject for question in bank):
        longest = sorted((each for each in bank if each.subject == subject), key=_n_characters)[-_N_LONGEST:]
        rng.shuffle(longest)
        pool.extend(longest[:N_SHOTS])
        asked.extend(longest[N_SHOTS:])
    return asked, pool


def permute(question: Question, n_orders: int = N_ORDERS) -> list[Prompt]:
    """One prompt for each order of the options."""
    template = PromptTemplate()
    return [
        template.render(replace(question, choices=tuple(question.choices[at] for at in order)))
        for order in permute_question(question, n_orders, 0)
    ]


def _render(questions: Sequence[Question], pool: Sequence[Question] = ()) -> list[Prompt]:
    prompting = Prompting(n_shots=N_SHOTS if pool else 0, pool=pool)
    return [pair.base for pair in prompting.render(questions)]


def _spread(questions: Sequence[Question], n: int) -> list[Question]:
    """n of the questions, evenly over the list; all if there are fewer."""
    n = min(n, len(questions))
    return [questions[at * len(questions) // n] for at in range(n)]


def _n_characters(question: Question) -> int:
    return len(question.question) + sum(map(len, question.choices))
