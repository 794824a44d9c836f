"""llama.cpp's rules for cutting a decode into micro-batches, as one pure function.

llama.cpp does not report which tokens a micro-batch holds, so edgecal derives them by the same rules, those of
llama-cpp-python 0.3.36. Every token belongs to exactly one sequence; tokens are numbered from 0 in the batch's order.
Tests compare the rules with llama.cpp itself.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from edgecal.errors import ModelError

__all__ = ["Memory", "MicroBatch", "SplitRule", "split", "split_rule"]


class Memory(enum.Enum):
    """How a model remembers earlier tokens, as far as micro-batches depend on it."""

    ATTENTION = "attention"  # a key and value for every token
    SLIDING = "sliding"  # the same, but some layers attend only to a window
    RECURRENT = "recurrent"  # a state of fixed size
    HYBRID = "hybrid"  # layers of both kinds
    OTHER = "other"  # has its own rules, which are known here only where all rules agree


class SplitRule(enum.Enum):
    """The three rules for cutting a decode."""

    SIMPLE = "simple"  # in batch order, n_ubatch at a time
    EQUAL = "equal"  # the same number of tokens from every sequence that has some left, sequence by sequence
    EQUAL_SEQUENTIAL = "equal-sequential"  # the same, but only from consecutively numbered sequences


@dataclass(frozen=True)
class MicroBatch:
    """One micro-batch: its `tokens` in the order of its rows, and those of them that are outputs."""

    tokens: tuple[int, ...]
    outputs: tuple[int, ...]


def split_rule(memory: Memory, *, n_seq_max: int, kv_unified: bool) -> SplitRule:
    """Returns the rule for a context.

    A cache with a stream per sequence and any recurrent state need the same number of tokens from each sequence; one
    shared cache takes tokens in batch order. With one sequence all rules agree.

    Raises ModelError for `Memory.OTHER` with one cache shared by several sequences.
    """
    if n_seq_max == 1:
        return SplitRule.SIMPLE
    if memory is Memory.RECURRENT or not kv_unified:
        return SplitRule.EQUAL_SEQUENTIAL
    if memory is Memory.HYBRID:
        return SplitRule.EQUAL
    if memory is Memory.OTHER:
        raise ModelError(
            "llama.cpp cuts micro-batches of this architecture by its own rules when prompts share one "
            "cache; run with kv_unified=False or n_seq_max=1"
        )
    return SplitRule.SIMPLE


def split(
    seq_ids: Sequence[int], is_output: Sequence[bool], n_ubatch: int, rule: SplitRule
) -> list[MicroBatch]:
    """Cuts a decode into micro-batches, in the order in which llama.cpp computes them.

    Parameters
    ----------
    seq_ids: the sequence of each token.
    is_output: whether llama.cpp computes each token's logits.
    n_ubatch: most tokens of a micro-batch.
    rule: the result of `split_rule`.

    Returns
    -------
    Micro-batches that together hold every token exactly once; empty if there are no tokens.
    """
    if rule is SplitRule.SIMPLE:
        cuts = [range(at, min(at + n_ubatch, len(seq_ids))) for at in range(0, len(seq_ids), n_ubatch)]
        parts: list[Sequence[int]] = list(cuts)
    else:
        parts = _split_equal(seq_ids, n_ubatch, sequential=rule is SplitRule.EQUAL_SEQUENTIAL)
    return [MicroBatch(tuple(part), tuple(token for token in part if is_output[token])) for part in parts]


def _split_equal(seq_ids: Sequence[int], n_ubatch: int, *, sequential: bool) -> list[Sequence[int]]:
    """Cuts by the two equal rules.

    Each micro-batch takes the sequences that have tokens left, in the order of their next tokens (with `sequential`,
    skipping any whose number is not one above the last taken), and the same number of tokens from each: as many as the
    shortest has left, or as fit. It holds all its tokens of one sequence, then those of the next.
    """
    parts: list[Sequence[int]] = []
    remaining: Sequence[int] = range(len(seq_ids))
    while remaining:
        left: dict[int, list[int]] = {}
        chosen: list[int] = []
        for token in remaining:
            sequence = seq_ids[token]
            left.setdefault(sequence, []).append(token)
            # The check comes before a sequence is taken because llama.cpp takes one sequence more than fits.
            if len(chosen) > n_ubatch or sequence in chosen:
                continue
            if not sequential or not chosen or sequence == chosen[-1] + 1:
                chosen.append(sequence)
        share = min(max(1, n_ubatch // len(chosen)), *(len(left[sequence]) for sequence in chosen))
        part = [token for sequence in chosen for token in left[sequence][:share]]
        taken = set(part)
        remaining = [token for token in remaining if token not in taken]
        parts.append(part)
    return parts
