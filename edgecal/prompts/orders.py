"""Orders and draws that depend on contents and a seed alone: of prompts, and of a question's options.

The order in which a user's files list prompts must not influence any figure. So prompts are sorted by the hash of their
contents before anything random or any floating-point sum.

An order of K options is a tuple of K indices: `order[j]` is the original option at place j, which has the j-th
letter. A probability of place j belongs to the original option `order[j]`:

    original[list(order)] = permuted      or, the other way,      permuted = original[list(order)]
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
from edgecal.prompts.records import Prompt, Question

__all__ = [
    "canonical_order",
    "compute_prompts_sha256",
    "count_repeats",
    "digest_prompt",
    "draw_indices",
    "permute_question",
    "reorder",
]


def canonical_order(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The prompts in an order that depends on their contents alone: by content hash, then by answer."""
    return sorted(
        prompts, key=lambda prompt: (digest_prompt(prompt), -1 if prompt.answer is None else prompt.answer)
    )


def compute_prompts_sha256(prompts: Sequence[Prompt], *, with_answers: bool = False) -> str:
    """SHA-256 (hex) of a set of prompts, whatever their order.

    Parameters
    ----------
    prompts: the rendered prompts.
    with_answers: also hash the answers and the probabilities of their choice, as is right for a method that learns
        from them.
    """
    total = hashlib.sha256()
    for prompt in canonical_order(prompts):
        total.update(digest_prompt(prompt))
        if with_answers:
            total.update(repr(prompt.answer).encode())
            if prompt.inclusion_probability is not None:
                total.update(repr(prompt.inclusion_probability).encode())
    return total.hexdigest()


def count_repeats(prompts: Sequence[Prompt]) -> int:
    """How many prompts repeat an earlier one, answers aside."""
    return len(prompts) - len({digest_prompt(prompt) for prompt in prompts})


def draw_indices(n: int, limit: int, seed: int) -> list[int]:
    """Draws `limit` of the numbers 0 to n - 1, ascending; all of them if there are fewer."""
    if limit >= n:
        return list(range(n))
    drawn = np.random.Generator(np.random.PCG64(seed)).permutation(n)[:limit]
    return [int(index) for index in np.sort(drawn)]


def digest_prompt(prompt: Prompt) -> bytes:
    """SHA-256 (32 bytes) of a prompt without its answer, subject and source."""
    if prompt.text is not None:
        content: list[object] = ["text", prompt.text, prompt.labels, prompt.labels_verbatim]
        if prompt.label_forms is not None:
            content.append(prompt.label_forms)
        if prompt.labels_alone:
            content.append("alone")
    else:
        content = ["tokens", prompt.tokens, prompt.choice_tokens]
    encoded = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(encoded.encode("utf-8", "surrogatepass")).digest()


_MAX_LISTED = (
    5_040  # 7!. Up to so many orders are listed; of more, random ones are drawn until they are distinct.
)


def permute_question(question: Question, n: int, seed: int) -> list[tuple[int, ...]]:
    """Distinct orders of a question's options.

    The first is the original order, then come its cyclic shifts by 1, 2, ... places, so that with n = K every option
    has every letter once. Beyond K, further orders are drawn by the seed and the question's content.

    Parameters
    ----------
    question: with K options.
    n: orders wanted, at least 1; there are at most K!.
    seed: of the draw.

    Returns
    -------
    min(n, K!) orders.

    Raises
    ------
    InputError: n is under 1 or over 5,040.
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
    InputError: `order` is not a permutation of 0 to K - 1.
    """
    if sorted(order) != list(range(len(question.choices))):
        raise InputError(
            f"{question.source or 'a question'}: {tuple(order)} is not an order of {len(question.choices)} options"
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
