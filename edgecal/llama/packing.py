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

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
    "EndStep",
    "LeadStep",
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

# Rows of a decode. More make the kernels slower where the rows no longer fit into a core's cache, and let tokens attend
# to places behind them; fewer than 32 are slower, too (docs/log.md).
_WIDTH = 96

# Beginnings that are kept in memory, one inside the other.
_MOST_NESTED = 6


@dataclass(frozen=True)
class SharedStep:
    """Runs tokens that several prompts share and keeps the state.

    Attributes
    ----------
    depth: where the state is kept; the state at depth - 1, if there is one, comes before these tokens.
    prompt: a prompt that holds the tokens.
    start, stop: which of its tokens. Rows that are filled up behind them are forgotten before the state is used.
    """

    depth: int
    prompt: int
    start: int
    stop: int

    @property
    def n_rows(self) -> int:
        return _filled(self.stop - self.start)


@dataclass(frozen=True)
class LeadStep:
    """Lets a prompt go on from a state, up to the rows that it ends with.

    Attributes
    ----------
    depth: of the state, -1 for none.
    place: among the prompts that end together.
    prompt: which, by index.
    start: tokens in the state.
    stop: tokens before the rows that it ends with; `start` if there is nothing between.
    """

    depth: int
    place: int
    prompt: int
    start: int
    stop: int

    @property
    def n_rows(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class EndStep:
    """Runs prompts to their ends, each from where its `LeadStep` left it.

    Attributes
    ----------
    length: rows of each prompt, filled up behind its last token.
    prompts: which, by index, in the order of their places.
    starts: tokens of each before these rows.
    """

    length: int
    prompts: tuple[int, ...]
    starts: tuple[int, ...]

    @property
    def n_rows(self) -> int:
        return self.length * len(self.prompts)


Step = SharedStep | LeadStep | EndStep


@dataclass(frozen=True)
class ContextPlan:
    """A context, and what it runs one after the other.

    Attributes
    ----------
    n_ctx_seq: tokens that each sequence's cache holds.
    n_shared: sequences that keep states.
    n_together: sequences that run prompts to their ends.
    width: rows that a decode may have.
    steps: what is run; each needs what those before it left.
    """

    n_ctx_seq: int
    n_shared: int
    n_together: int
    width: int
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
    can_rewind: bool = False,
    is_wide: bool = False,
    sequence_bytes: int = 0,
    cache_bytes: int | None = None,
) -> CapturePlan:
    """Every prompt is in exactly one `EndStep`.

    Parameters
    ----------
    prompts: token ids, at least one each.
    settings: `share` False runs each prompt whole and alone.
    n_ctx_train: tokens that the model can hold; a prompt that cannot be filled up to rows of four within them
        is run whole and alone.
    can_rewind: the model can forget the last tokens of a sequence, so that what prompts share may end at any token;
        else it ends at every fourth.
    is_wide: decodes of as many rows as a micro-batch may have, for models whose weights are each used by few rows.
    sequence_bytes: of a cache for `CACHE_STEP` tokens of one sequence.
    cache_bytes: that all caches of a context may take; None: no limit. Two sequences are always made.

    Returns
    -------
    Contexts from small caches to large.
    """
    width = settings.n_ubatch if is_wide or not settings.share else min(settings.n_ubatch, _WIDTH)
    filling = _Filling(n_ctx_train, can_rewind)
    by_size: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        by_size.setdefault(cache_size(filling.most_cells(len(prompt))), []).append(index)
    contexts = []
    for size, members in sorted(by_size.items()):
        n_seq_max = settings.n_seq_max
        if cache_bytes is not None and sequence_bytes > 0:
            n_seq_max = min(n_seq_max, max(2, cache_bytes // (sequence_bytes * (size // CACHE_STEP))))
        contexts.append(_plan_context(prompts, members, size, n_seq_max, width, settings.share, filling))
    return CapturePlan(tuple(contexts), sum(map(len, prompts)), count_distinct(prompts))


def cache_size(length: int) -> int:
    """Tokens of the cache for a sequence of `length`: the smallest power of two times 256 that holds it."""
    size = CACHE_STEP
    while size < length:
        size *= 2
    return size


def decode_cuts(n_rows: int, width: int) -> list[int]:
    """Where many rows of one sequence are cut into decodes of at most `width`, ascending; empty if one holds them.

    The decodes are as few as can be and differ by 4 rows at most, the later ones being the larger; only the last
    may be no multiple of 4. With a `width` that is a multiple of 4 and at least 16, none has fewer than 8 rows.
    """
    n_decodes = -(-n_rows // width)
    n_steps = -(-n_rows // ROW_STEP)
    return [ROW_STEP * (n_steps * at // n_decodes) for at in range(1, n_decodes)]


@dataclass(frozen=True)
class _Filling:
    """How many rows a prompt takes behind what it shares, and how much it may share."""

    n_ctx_train: int
    can_rewind: bool

    def rows(self, length: int, start: int) -> int:
        """Of a prompt of some length behind its first `start` tokens; unfilled where the model has no room."""
        filled = _filled(length - start)
        return filled if start + filled <= self.n_ctx_train else length - start

    def sharable(self, length: int) -> int:
        """Tokens that a prompt may share at most: its last rows are always run for it alone."""
        if self.can_rewind:
            return max(0, length - LEAST_ROWS + ROW_STEP - 1) if self._has_room(length) else 0
        n_rows = self.rows(length, 0)
        return min(n_rows - LEAST_ROWS, (length - 1) // ROW_STEP * ROW_STEP) if _is_filled(n_rows) else 0

    def most_cells(self, length: int) -> int:
        """Tokens that a prompt's sequence may come to hold, whatever it shares."""
        if self.can_rewind and self._has_room(length):
            return length + ROW_STEP - 1
        return self.rows(length, 0)

    def _has_room(self, length: int) -> bool:
        return length + ROW_STEP - 1 <= self.n_ctx_train


def _filled(n_rows: int) -> int:
    return max(LEAST_ROWS, -(-n_rows // ROW_STEP) * ROW_STEP)


def _is_filled(n_rows: int) -> bool:
    return n_rows % ROW_STEP == 0 and n_rows >= LEAST_ROWS


def _plan_context(
    prompts: Sequence[NDArray[np.int32]],
    members: Sequence[int],
    size: int,
    n_seq_max: int,
    width: int,
    share: bool,
    filling: _Filling,
) -> ContextPlan:
    if share:
        bodies = [prompts[index][: filling.sharable(len(prompts[index]))] for index in members]
        tree = build_tree(bodies, 1 if filling.can_rewind else ROW_STEP, LEAST_ROWS)
    else:
        tree = Node(0, 0, list(range(len(members))))
    n_nested = min(_MOST_NESTED, n_seq_max // 2)
    most_together = min(OUTPUT_ROWS, n_seq_max - n_nested) if share else 1
    endings = _Endings(most_together, width, min(size, filling.n_ctx_train))
    _add_steps(tree, [(index, len(prompts[index])) for index in members], n_nested, filling, endings)
    steps = tuple(endings.steps)
    n_shared = max((step.depth + 1 for step in steps if isinstance(step, SharedStep)), default=0)
    n_together = max(len(step.prompts) for step in steps if isinstance(step, EndStep))
    return ContextPlan(size, n_shared, n_together, width, steps)


def _add_steps(
    tree: Node, members: Sequence[tuple[int, int]], n_nested: int, filling: _Filling, endings: _Endings
) -> None:
    """Walks the tree. `members` are the prompts that it is made of: index and length."""
    waiting: list[tuple[Node, int, int]] = [(tree, -1, 0)]  # node, its depth, tokens in the state above it
    while waiting:
        node, depth, above = waiting.pop()
        start = node.n_tokens
        if depth >= 0:
            endings.steps.append(SharedStep(depth, members[node.prompt][0], above, start))
        is_deepest = depth + 1 >= n_nested
        ending = [members[at] for at in (node.all_prompts() if is_deepest else node.prompts)]
        for index, length in sorted(ending, key=lambda member: member[1]):  # equals stay in the tree's order
            endings.add(index, depth, start, filling.rows(length, start))
        if not is_deepest:
            waiting.extend((child, depth + 1, start) for child in reversed(node.children))
    endings.flush()


@dataclass(frozen=True)
class _Ending:
    """A prompt that waits to be ended: where its step stands, its rows, and how many it has room for."""

    at: int
    n_rows: int
    room: int


class _Endings:
    """Puts prompts that end into one decode, whatever they go on from, and collects all steps.

    A long prompt runs alone up to its last rows, as many as those with which others end, so that nothing has to be
    filled up. A short one ends whole. What a prompt goes on from is taken at once, since the state will not stay.
    """

    def __init__(self, most: int, width: int, n_cells: int) -> None:
        """`most` prompts in a decode of at most `width` rows; a sequence holds at most `n_cells` tokens."""
        self.steps: list[Step] = []
        self._most, self._width, self._n_cells = most, width, n_cells
        self._end = max(LEAST_ROWS, width // 4 // ROW_STEP * ROW_STEP)  # rows that a long prompt ends with
        self._short = max(
            width // 2 - ROW_STEP, self._end + LEAST_ROWS - ROW_STEP
        )  # rows of the longest short one
        self._waiting: list[_Ending] = []

    def add(self, prompt: int, depth: int, start: int, n_rows: int) -> None:
        """A prompt goes on from the state that is kept at `depth` now; it has `n_rows` behind that."""
        ending = _Ending(len(self.steps), n_rows, self._n_cells - start)
        if self._waiting and self._length([*self._waiting, ending]) == 0:
            self.flush()
            ending = replace(ending, at=len(self.steps))
        self.steps.append(LeadStep(depth, len(self._waiting), prompt, start, start))
        self._waiting.append(ending)

    def flush(self) -> None:
        """Ends the prompts that wait."""
        if not self._waiting:
            return
        length = self._length(self._waiting)
        leads = []
        for ending in self._waiting:
            lead = self.steps[ending.at]
            assert isinstance(lead, LeadStep)
            lead = replace(lead, stop=lead.start + max(0, ending.n_rows - length))
            self.steps[ending.at] = lead
            leads.append(lead)
        self.steps.append(
            EndStep(length, tuple(lead.prompt for lead in leads), tuple(lead.stop for lead in leads))
        )
        self._waiting = []

    def _length(self, endings: Sequence[_Ending]) -> int:
        """Rows with which each of these prompts can end, 0 if they had better not end together."""
        if len(endings) == 1:
            return endings[0].n_rows
        short = [ending for ending in endings if ending.n_rows <= self._short]
        length = max((ending.n_rows for ending in short), default=self._end)
        fits = (
            len(endings) <= self._most
            and length * len(endings) <= self._width
            and all(_is_filled(ending.n_rows) for ending in endings)
            and all(ending.n_rows >= length + self._end for ending in endings if ending.n_rows > self._short)
            and all(length <= ending.room for ending in short)
            and sum(length - ending.n_rows for ending in short) <= (len(endings) - 1) * _DECODE_COST
        )
        return length if fits else 0
