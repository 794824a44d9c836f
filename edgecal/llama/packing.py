"""What to run in which order: prompts become decodes that share beginnings and fill micro-batches.

A pure function of the prompts' tokens, the model's limits and the settings; does not know llama.cpp. What a prompt
gets never depends on its company, and that rests on three rules, found by measuring (docs/log.md):

- llama.cpp's kernels take rows in fours, and use another kernel for the rest and, with some weight types, for
  fewer than 8 rows. So each decode has a multiple of 4 rows, and each of its sequences at least 8. What is missing
  is filled with tokens behind the last, which a causal model cannot see from there.
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

# What a decode costs beside its rows, in rows: to start, and for each sequence, since attention works on one after the
# other (docs/log.md).
_DECODE_COST = 1
_SEQUENCE_COST = 1

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
    """Lets a prompt go on from a state, up to the rows that it runs together with others.

    Attributes
    ----------
    depth: of the state, -1 for none.
    place: among the prompts that end together.
    prompt: which, by index.
    start: tokens in the state.
    stop: tokens before the rows that it runs with others; `start` if there is nothing between.
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
    """Runs prompts to their ends side by side, each from where its `LeadStep` left it.

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

    def cuts(self, step: Step) -> list[int]:
        """Where a step's rows of each sequence are cut into decodes (see `decode_cuts`)."""
        n_sequences = len(step.prompts) if isinstance(step, EndStep) else 1
        return decode_cuts(step.n_rows // n_sequences, _rows_each(self.width, n_sequences))


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
    n_decodes = _n_decodes(n_rows, width)
    n_steps = -(-n_rows // ROW_STEP)
    return [ROW_STEP * (n_steps * at // n_decodes) for at in range(1, n_decodes)]


@dataclass(frozen=True)
class _Filling:
    """How much a prompt may share, and how many places its rows take with what is filled up."""

    n_ctx_train: int
    can_rewind: bool

    def sharable(self, length: int) -> int:
        """Tokens that a prompt may share at most: its last rows are always run for it alone."""
        if self.can_rewind:
            return max(0, length - LEAST_ROWS + ROW_STEP - 1) if self._has_room(length) else 0
        n_rows = _filled(length)
        return (
            min(n_rows - LEAST_ROWS, (length - 1) // ROW_STEP * ROW_STEP) if n_rows <= self.n_ctx_train else 0
        )

    def most_cells(self, length: int) -> int:
        """Tokens that a prompt's sequence may come to hold, whatever it shares."""
        if self.can_rewind and self._has_room(length):
            return length + ROW_STEP - 1
        return _filled(length) if _filled(length) <= self.n_ctx_train else length

    def _has_room(self, length: int) -> bool:
        return length + ROW_STEP - 1 <= self.n_ctx_train


def _filled(n_rows: int) -> int:
    return max(LEAST_ROWS, -(-n_rows // ROW_STEP) * ROW_STEP)


def _rows_each(width: int, n_sequences: int) -> int:
    """Rows that each sequence may have in a decode of at most `width` rows."""
    return width // n_sequences // ROW_STEP * ROW_STEP


def _n_decodes(n_rows: int, width: int) -> int:
    return -(-n_rows // width)


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
    most_together = min(OUTPUT_ROWS, n_seq_max - n_nested, width // (2 * LEAST_ROWS)) if share else 1
    endings = _Endings(most_together, width, min(size, filling.n_ctx_train))
    _add_steps(tree, [(index, len(prompts[index])) for index in members], n_nested, endings)
    steps = tuple(endings.steps)
    n_shared = max((step.depth + 1 for step in steps if isinstance(step, SharedStep)), default=0)
    n_together = max(len(step.prompts) for step in steps if isinstance(step, EndStep))
    return ContextPlan(size, n_shared, n_together, width, steps)


def _add_steps(tree: Node, members: Sequence[tuple[int, int]], n_nested: int, endings: _Endings) -> None:
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
            endings.add(index, depth, start, length - start)
        if not is_deepest:
            waiting.extend((child, depth + 1, start) for child in reversed(node.children))
    endings.flush()


@dataclass(frozen=True)
class _Ending:
    """A prompt that waits to be ended: where its step stands, its rows, and how many it has room for."""

    at: int
    n_rows: int
    room: int

    def lead(self, together: int) -> int:
        """Rows that it runs alone before so many together with others: none, or a multiple of 4 and at least 8."""
        return _filled(self.n_rows - together) if self.n_rows > together else 0

    @property
    def has_room(self) -> bool:
        """Whether it can be filled up; else it is run as it is and alone."""
        return _filled(self.n_rows) <= self.room


class _Endings:
    """Puts prompts that end side by side into decodes, whatever they go on from, and collects all steps.

    What one has more rows than the others it runs alone before. What a prompt goes on from is taken at once, since
    the state will not stay.
    """

    def __init__(self, most: int, width: int, n_cells: int) -> None:
        """`most` prompts in a decode of at most `width` rows; a sequence holds at most `n_cells` tokens."""
        self.steps: list[Step] = []
        self._most, self._width, self._n_cells = most, width, n_cells
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
            lead = replace(lead, stop=lead.start + ending.lead(length))
            self.steps[ending.at] = lead
            leads.append(lead)
        self.steps.append(
            EndStep(length, tuple(lead.prompt for lead in leads), tuple(lead.stop for lead in leads))
        )
        self._waiting = []

    def _length(self, endings: Sequence[_Ending]) -> int:
        """Rows of each prompt when these end side by side, for the least cost; 0: they cannot."""
        n = len(endings)
        if n == 1:
            return _filled(endings[0].n_rows) if endings[0].has_room else endings[0].n_rows
        if n > self._most or not all(ending.has_room for ending in endings):
            return 0
        # All rows of one of them, or as many as fill one decode, with what makes rows in fours.
        starts = [*(ending.n_rows for ending in endings), _rows_each(self._width, n) - ROW_STEP + 1]
        lengths = {
            length
            for start in starts
            for length in range(max(LEAST_ROWS, start), max(LEAST_ROWS, start) + ROW_STEP)
            if length * n % ROW_STEP == 0
            and all(ending.lead(length) + length <= ending.room for ending in endings)
        }
        return min(lengths, key=lambda length: (self._price(endings, length), length), default=0)

    def _price(self, endings: Sequence[_Ending], length: int) -> int:
        """What it costs, in rows, to run so many rows of each side by side, and what each has more alone."""
        leads = [ending.lead(length) for ending in endings]
        n_alone = sum(_n_decodes(lead, self._width) for lead in leads)
        n_together = _n_decodes(length, _rows_each(self._width, len(endings)))
        return (
            sum(leads)
            + length * len(endings)
            + (_DECODE_COST + _SEQUENCE_COST) * n_alone
            + (_DECODE_COST + _SEQUENCE_COST * len(endings)) * n_together
        )
