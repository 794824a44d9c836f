"""What to run in which order: prompts become decodes that share beginnings and fill micro-batches.

A pure function of the prompts' tokens, the model's limits and the settings; does not know llama.cpp. What a prompt
gets never depends on its company, and that rests on three rules, found by measuring (docs/log.md):

- llama.cpp's kernels take rows in fours, and use another kernel for the rest and, with some weight types, for
  fewer than 8 rows. So each sequence's rows of a decode are a multiple of 4 and at least 8. What is missing is
  filled with tokens behind the last, which a causal model cannot see from there.
- The last block and the head compute the output rows only, so that each decode that ends prompts has 4 of them.
- Each sequence has a stream of the cache for itself, whose size depends on its own length only (a few models
  scale positions by it).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecal.llama.settings import CaptureSettings
from edgecal.llama.trie import Node, build_tree, count_distinct

__all__ = [
    "CACHE_STEP",
    "LEAST_ROWS",
    "OUTPUT_ROWS",
    "ROW_STEP",
    "CapturePlan",
    "ContextPlan",
    "PromptStep",
    "SharedStep",
    "Step",
    "cache_size",
    "decode_cuts",
    "plan_capture",
]

ROW_STEP = 4
LEAST_ROWS = 8
OUTPUT_ROWS = 4

# llama.cpp rounds a sequence's cache up to a multiple of this.
CACHE_STEP = 256

# What a decode that ends prompts costs beside its rows, in rows: its output rows, and its start.
_DECODE_COST = 6

# Beginnings that are kept in memory, one inside the other.
_MOST_NESTED = 6


@dataclass(frozen=True)
class SharedStep:
    """Runs tokens that several prompts share and keeps the state.

    Attributes
    ----------
    depth: where the state is kept; the state at depth - 1, if there is one, comes before these tokens.
    prompt: a prompt that holds the tokens.
    start, stop: which of its tokens.
    """

    depth: int
    prompt: int
    start: int
    stop: int

    @property
    def n_rows(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class PromptStep:
    """Runs prompts from a state to their ends.

    Attributes
    ----------
    depth: of the state that they go on from, -1 for none.
    start: tokens in that state.
    length: rows of each prompt, filled up behind its last token.
    prompts: which, by index.
    """

    depth: int
    start: int
    length: int
    prompts: tuple[int, ...]

    @property
    def n_rows(self) -> int:
        return self.length * len(self.prompts)


Step = SharedStep | PromptStep


@dataclass(frozen=True)
class ContextPlan:
    """A context, and what it runs one after the other.

    Attributes
    ----------
    n_ctx_seq: tokens that each sequence's cache holds.
    n_shared: sequences that keep states.
    n_together: sequences that run prompts to their ends.
    steps: the decodes; each needs what those before it left.
    """

    n_ctx_seq: int
    n_shared: int
    n_together: int
    steps: tuple[Step, ...]

    @property
    def n_seq_max(self) -> int:
        return self.n_shared + self.n_together


@dataclass(frozen=True)
class CapturePlan:
    """Everything that is run for some prompts.

    Attributes
    ----------
    contexts: one after the other.
    n_tokens: tokens of all prompts.
    n_distinct: the least that any order could run (see `count_distinct`).
    """

    contexts: tuple[ContextPlan, ...]
    n_tokens: int
    n_distinct: int

    @property
    def n_rows(self) -> int:
        """Tokens that are run, with what is filled up and what is run twice."""
        return sum(step.n_rows for context in self.contexts for step in context.steps)


def plan_capture(
    prompts: Sequence[NDArray[np.int32]],
    settings: CaptureSettings,
    *,
    n_ctx_train: int,
    sequence_bytes: int = 0,
    cache_bytes: int | None = None,
) -> CapturePlan:
    """Every prompt is in exactly one `PromptStep`.

    Parameters
    ----------
    prompts: token ids, at least one each.
    settings: `share` False runs each prompt whole and alone.
    n_ctx_train: tokens that the model can hold; a prompt that cannot be filled up to rows of four within them
        is run whole and alone.
    sequence_bytes: of a cache for `CACHE_STEP` tokens of one sequence.
    cache_bytes: that all caches of a context may take; None: no limit. Two sequences are always made.

    Returns
    -------
    Contexts from small caches to large.
    """
    rows = [_fill(len(prompt), n_ctx_train) for prompt in prompts]
    by_size: dict[int, list[int]] = {}
    for index, n_rows in enumerate(rows):
        by_size.setdefault(cache_size(n_rows), []).append(index)
    contexts = []
    for size, members in sorted(by_size.items()):
        n_seq_max = settings.n_seq_max
        if cache_bytes is not None and sequence_bytes > 0:
            n_seq_max = min(n_seq_max, max(2, cache_bytes // (sequence_bytes * (size // CACHE_STEP))))
        contexts.append(_plan_context(prompts, rows, members, size, n_seq_max, settings))
    return CapturePlan(tuple(contexts), sum(map(len, prompts)), count_distinct(prompts))


def cache_size(length: int) -> int:
    """Tokens of the cache for a sequence of `length`: the smallest power of two times 256 that holds it."""
    size = CACHE_STEP
    while size < length:
        size *= 2
    return size


def decode_cuts(n_tokens: int, n_batch: int, n_ubatch: int) -> list[int]:
    """Where the tokens of one long prompt are cut into decodes, ascending; empty when one decode holds them.

    Cuts are at multiples of n_ubatch, so that they cut no micro-batch that llama.cpp would not cut. A last
    micro-batch of fewer than 8 rows is avoided: the last decode then takes over 8 tokens of the one before.
    """
    step = n_ubatch * (n_batch // n_ubatch)
    cuts = list(range(step, n_tokens, step))
    rest = n_tokens % n_ubatch
    if 0 < rest < LEAST_ROWS and n_tokens > n_ubatch > LEAST_ROWS:
        tail = n_tokens - rest - LEAST_ROWS
        cuts = [cut for cut in cuts if cut < tail] + [tail]
    return cuts


def _fill(length: int, n_ctx_train: int) -> int:
    filled = max(LEAST_ROWS, -(-length // ROW_STEP) * ROW_STEP)
    return filled if filled <= n_ctx_train else length


def _is_filled(n_rows: int) -> bool:
    return n_rows % ROW_STEP == 0 and n_rows >= LEAST_ROWS


def _plan_context(
    prompts: Sequence[NDArray[np.int32]],
    rows: Sequence[int],
    members: Sequence[int],
    size: int,
    n_seq_max: int,
    settings: CaptureSettings,
) -> ContextPlan:
    if settings.share:
        bodies = [prompts[index][: _sharable(len(prompts[index]), rows[index])] for index in members]
        tree = build_tree(bodies, ROW_STEP, LEAST_ROWS)
    else:
        tree = Node(0, 0, sorted(range(len(members)), key=lambda at: (rows[members[at]], members[at])))
    n_nested = min(_MOST_NESTED, n_seq_max // 2)
    most_together = min(OUTPUT_ROWS, n_seq_max - n_nested) if settings.share else 1
    steps = tuple(_steps(tree, members, rows, n_nested, most_together, settings.n_ubatch))
    n_shared = max((step.depth + 1 for step in steps if isinstance(step, SharedStep)), default=0)
    n_together = max(len(step.prompts) for step in steps if isinstance(step, PromptStep))
    return ContextPlan(size, n_shared, n_together, steps)


def _sharable(length: int, n_rows: int) -> int:
    """Tokens that a prompt may share: its own last rows are always run for it alone."""
    return min(n_rows - LEAST_ROWS, (length - 1) // ROW_STEP * ROW_STEP) if _is_filled(n_rows) else 0


def _steps(
    tree: Node,
    members: Sequence[int],
    rows: Sequence[int],
    n_nested: int,
    most_together: int,
    n_ubatch: int,
) -> Iterator[Step]:
    waiting: list[tuple[Node, int, int]] = [(tree, -1, 0)]  # node, its depth, tokens in the state above it
    while waiting:
        node, depth, start = waiting.pop()
        if depth >= 0:
            yield SharedStep(depth, members[node.prompt], start, node.n_tokens)
        is_deepest = depth + 1 >= n_nested
        ending = [members[at] for at in (node.all_prompts() if is_deepest else node.prompts)]
        for group in _groups(ending, rows, node.n_tokens, most_together, n_ubatch):
            yield PromptStep(depth, node.n_tokens, max(rows[index] for index in group) - node.n_tokens, group)
        if not is_deepest:
            waiting.extend((child, depth + 1, node.n_tokens) for child in reversed(node.children))


def _groups(
    prompts: Sequence[int], rows: Sequence[int], start: int, most: int, n_ubatch: int
) -> list[tuple[int, ...]]:
    """Prompts that end together: neighbours in length, shared out so that the rows and the cost of the decodes
    together are least. A group fits one micro-batch, or is a single prompt."""
    order = sorted(prompts, key=lambda index: rows[index])  # equals stay in the tree's order
    best = [0]  # least cost of the first n prompts
    size_of_last = [0]
    for n in range(1, len(order) + 1):
        length = rows[order[n - 1]] - start
        most_here = most if _is_filled(rows[order[n - 1]]) else 1
        costs = []
        for size in range(1, min(most_here, n) + 1):
            if size > 1 and (size * length > n_ubatch or not _is_filled(rows[order[n - size]])):
                break
            costs.append((best[n - size] + size * length + _DECODE_COST, size))
        cost, size = min(costs)
        best.append(cost)
        size_of_last.append(size)
    groups: list[tuple[int, ...]] = []
    n = len(order)
    while n > 0:
        groups.append(tuple(order[n - size_of_last[n] : n]))
        n -= size_of_last[n]
    return groups[::-1]
