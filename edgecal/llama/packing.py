"""Plans a capture: which decodes to run in which order, so that prompts compute shared prefixes once and fill decodes.

The steps are data, which `streams` runs. The plan is a pure function of the prompts' tokens, the model's limits and
the settings. It must not let a prompt's results depend on which prompts run with it. So rows follow the rules of
`decode_rows`, and each sequence has its own stream of the cache, whose size depends on the prompt's own length only (a
few models scale positions by it).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgecal.llama.decode_rows import (
    LEAST_ROWS,
    OUTPUT_ROWS,
    Room,
    beyond_blocks,
    decode_cuts,
    filled,
    lead_rows,
    lengths_together,
    price,
    rows_each,
)
from edgecal.llama.prefix_tree import Node, build_tree, count_distinct
from edgecal.llama.settings import CaptureSettings

__all__ = [
    "CACHE_STEP",
    "CapturePlan",
    "ContextPlan",
    "EndStep",
    "Endings",
    "LeadStep",
    "SharedStep",
    "Span",
    "Step",
    "cache_size",
    "cut_into_spans",
    "decode_width",
    "plan_capture",
]

# llama.cpp rounds a sequence's cache up to a multiple of this.
CACHE_STEP = 256

# Most rows of a decode. With more, the kernels are slower, because the rows no longer fit into a core's cache, and
# attention computes more masked positions; fewer than 32 are slower, too (docs/log.md).
_WIDTH = 96

# Most shared prefixes, nested in one another, whose states are kept at a time.
_MOST_NESTED = 6


@dataclass(frozen=True)
class ContextPlan:
    """The plan for one context.

    Attributes
    ----------
    n_ctx_seq: tokens that each sequence's cache holds.
    n_shared: number of sequences that hold shared states.
    n_together: number of sequences that finish prompts.
    width: most rows of a decode.
    steps: in order; a step may need the states that earlier steps left.
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
        """Returns where a step's rows of each sequence are cut into decodes (see `decode_cuts`)."""
        n_sequences = len(step.prompts) if isinstance(step, EndStep) else 1
        return decode_cuts(step.n_rows // n_sequences, self.width, n_sequences)

    @property
    def n_decodes(self) -> int:
        """Number of decodes of all steps."""
        return sum(1 + len(self.cuts(step)) for step in self.steps if step.n_rows)


@dataclass(frozen=True)
class CapturePlan:
    """The plan of a capture.

    Attributes
    ----------
    contexts: the contexts' plans, in the order in which they run.
    n_tokens: tokens of all prompts.
    n_distinct: the fewest tokens that any plan could run (see `count_distinct`).
    """

    contexts: tuple[ContextPlan, ...]
    n_tokens: int
    n_distinct: int

    @property
    def n_rows(self) -> int:
        """Rows that are run, including padding and tokens that are run more than once."""
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
    """Plans the decodes of some prompts; each prompt is in exactly one `EndStep`.

    Parameters
    ----------
    prompts: token ids, at least one each.
    settings: `share` False runs each prompt whole and alone.
    n_ctx_train: length of the model's context in tokens; a prompt that leaves no room for padding runs whole and alone.
    can_rewind: the model can remove the last tokens of a sequence, so a shared prefix may end at any token;
        otherwise it ends at a multiple of four.
    is_wide: let a decode have as many rows as a micro-batch, for models where each weight is used by few of the rows.
    sequence_bytes: size of the cache for `CACHE_STEP` tokens of one sequence.
    cache_bytes: limit for all caches of a context; None: no limit. A context has room for at least two sequences.

    Returns
    -------
    The plan, its contexts ordered from small caches to large.
    """
    room = Room(n_ctx_train, can_rewind, decode_width(settings, is_wide=is_wide))
    by_size: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        by_size.setdefault(cache_size(room.most_cells(len(prompt))), []).append(index)
    contexts = []
    for size, members in sorted(by_size.items()):
        n_seq_max = settings.n_seq_max
        if cache_bytes is not None and sequence_bytes > 0:
            n_seq_max = min(n_seq_max, max(2, cache_bytes // (sequence_bytes * (size // CACHE_STEP))))
        contexts.append(_plan_context(prompts, members, size, n_seq_max, settings.share, room))
    return CapturePlan(tuple(contexts), sum(map(len, prompts)), count_distinct(prompts))


def decode_width(settings: CaptureSettings, *, is_wide: bool, most: int = _WIDTH) -> int:
    """Returns the most rows of a decode: `most` at most unless `is_wide`, which is as for `plan_capture`."""
    return settings.n_ubatch if is_wide or not settings.share else min(settings.n_ubatch, most)


def cache_size(length: int) -> int:
    """Returns the cache size for a sequence of `length` tokens: the smallest power of two times 256 that holds it."""
    size = CACHE_STEP
    while size < length:
        size *= 2
    return size


def _plan_context(
    prompts: Sequence[NDArray[np.int32]],
    members: Sequence[int],
    size: int,
    n_seq_max: int,
    share: bool,
    room: Room,
) -> ContextPlan:
    if share:
        bodies = [prompts[index][: room.sharable(len(prompts[index]))] for index in members]
        tree = build_tree(bodies, room.step, room.is_worth_keeping)
    else:
        tree = Node(0, 0, list(range(len(members))))
    n_nested = min(_MOST_NESTED, n_seq_max // 2)
    most_together = min(OUTPUT_ROWS, n_seq_max - n_nested, room.width // (2 * LEAST_ROWS)) if share else 1
    endings = Endings(most_together, room.width, min(size, room.n_ctx_train))
    _add_steps(tree, [(index, len(prompts[index])) for index in members], n_nested, endings)
    steps = tuple(endings.steps)
    n_shared = max((step.depth + 1 for step in steps if isinstance(step, SharedStep)), default=0)
    n_together = max(len(step.prompts) for step in steps if isinstance(step, EndStep))
    return ContextPlan(size, n_shared, n_together, room.width, steps)


def _add_steps(tree: Node, members: Sequence[tuple[int, int]], n_nested: int, endings: Endings) -> None:
    """Walks the tree and adds its prompts' steps. `members` are the tree's prompts: index and length."""
    waiting: list[tuple[Node, int, int]] = [(tree, -1, 0)]  # node, its depth, tokens of its parent's prefix
    while waiting:
        node, depth, above = waiting.pop()
        start = node.n_tokens
        if depth >= 0:
            endings.steps.append(SharedStep(depth, members[node.prompt][0], above, start))
        is_deepest = depth + 1 >= n_nested
        ending = [members[at] for at in (node.all_prompts() if is_deepest else node.prompts)]
        for index, length in sorted(ending, key=lambda member: endings.sort_key(member[1] - start)):
            endings.add(
                index, depth, start, length - start
            )  # prompts with equal keys stay in the tree's order
        if not is_deepest:
            waiting.extend((child, depth + 1, start) for child in reversed(node.children))
    endings.flush()


@dataclass(frozen=True)
class _Ending:
    """A prompt to be finished: the index of its `LeadStep`, its remaining rows, and the most rows that fit."""

    at: int
    n_rows: int
    room: int

    @property
    def has_room(self) -> bool:
        """Whether there is room for padding; otherwise the prompt runs unpadded and alone."""
        return filled(self.n_rows) <= self.room


class Endings:
    """Groups prompts that finish in one decode, whatever states they continue from, and collects all steps.

    A prompt with more rows than the others runs the excess alone first. Its `LeadStep` comes at once, because the
    shared state that it continues from will be overwritten.
    """

    def __init__(self, most: int, width: int, n_cells: int) -> None:
        """At most `most` prompts share a decode of at most `width` rows; a sequence holds at most `n_cells` tokens."""
        self.steps: list[Step] = []
        self._most, self._width, self._n_cells = most, width, n_cells
        self._waiting: list[_Ending] = []

    def sort_key(self, n_rows: int) -> tuple[int, int]:
        """Sorting prompts by this key keeps padding small: short ones, which run side by side whole, by length; the
        others by the rows that remain after the blocks of 16 that they run alone."""
        if n_rows <= rows_each(self._width, self._most):
            return n_rows, 0
        return self._width + beyond_blocks(n_rows), n_rows

    def add(self, prompt: int, depth: int, start: int, n_rows: int) -> None:
        """Adds a prompt that continues from the state now kept at `depth` and has `n_rows` tokens after it."""
        ending = _Ending(len(self.steps), n_rows, self._n_cells - start)
        if not self._can_end([*self._waiting, ending]):
            self.flush()
            ending = replace(ending, at=len(self.steps))
        self.steps.append(LeadStep(depth, len(self._waiting), prompt, start, start))
        self._waiting.append(ending)

    def flush(self) -> None:
        """Finishes the waiting prompts."""
        if not self._waiting:
            return
        length = self._length(self._waiting)
        n_alone = lead_rows(np.array([ending.n_rows for ending in self._waiting]), np.array(length)).tolist()
        leads = []
        for ending, n_rows in zip(self._waiting, n_alone, strict=True):
            lead = self.steps[ending.at]
            assert isinstance(lead, LeadStep)
            lead = replace(lead, stop=lead.start + n_rows)
            self.steps[ending.at] = lead
            leads.append(lead)
        self.steps.append(
            EndStep(length, tuple(lead.prompt for lead in leads), tuple(lead.stop for lead in leads))
        )
        self._waiting = []

    def _can_end(self, endings: Sequence[_Ending]) -> bool:
        if len(endings) == 1:
            return True
        if len(endings) > self._most or not all(ending.has_room for ending in endings):
            return False
        # No prompt needs more rows than this, whatever length is chosen, so the length need not be computed yet.
        most = max(ending.n_rows for ending in endings) + LEAST_ROWS
        return most <= min(ending.room for ending in endings) or self._length(endings) > 0

    def _length(self, endings: Sequence[_Ending]) -> int:
        """Returns the rows of each prompt at which finishing these side by side costs least; 0 if there is no room."""
        n = len(endings)
        if n == 1:
            return filled(endings[0].n_rows) if endings[0].has_room else endings[0].n_rows
        n_rows = np.array([[ending.n_rows] for ending in endings])
        room = np.array([[ending.room] for ending in endings])
        lengths = lengths_together(min(int(n_rows.max()), 2 * rows_each(self._width, n)), n)
        leads = lead_rows(n_rows, lengths)
        fits = (leads + lengths <= room).all(axis=0)
        if not fits.any():
            return 0
        cost = price(leads, 1, self._width).sum(axis=0) + price(lengths, n, self._width)
        return int(lengths[fits][cost[fits].argmin()])


@dataclass(frozen=True)
class SharedStep:
    """Runs a prefix that several prompts share and keeps the state after it.

    Attributes
    ----------
    depth: how deep this prefix is nested; the state is kept at this depth and continues the one at depth - 1, if any.
    prompt: index of a prompt that begins with the prefix.
    start, stop: the range of that prompt's tokens. Padding after them is removed before the state is used.
    """

    depth: int
    prompt: int
    start: int
    stop: int

    @property
    def n_rows(self) -> int:
        return filled(self.stop - self.start)


@dataclass(frozen=True)
class LeadStep:
    """Continues from a shared state with one prompt's own tokens, up to the rows that it runs together with others.

    Attributes
    ----------
    depth: of the state, -1 for none.
    place: position among the prompts that finish together.
    prompt: the prompt's index.
    start: number of tokens in the state.
    stop: number of tokens before the rows that run together with others; `start` if the prompt runs none alone.
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
    """Finishes several prompts in one decode, each from where its `LeadStep` left it.

    Attributes
    ----------
    length: rows of each prompt, padded after its last token.
    prompts: the prompts' indices, in the order of their places.
    starts: number of tokens of each prompt before these rows.
    """

    length: int
    prompts: tuple[int, ...]
    starts: tuple[int, ...]

    @property
    def n_rows(self) -> int:
        return self.length * len(self.prompts)


Step = SharedStep | LeadStep | EndStep


@dataclass(frozen=True)
class Span:
    """The steps up to and including one `EndStep`. Given the states, a context can run them without earlier spans.

    Attributes
    ----------
    states: the shared states that the steps continue from, outermost first.
    steps: in order; only the last is an `EndStep`.
    """

    states: tuple[SharedStep, ...]
    steps: tuple[Step, ...]

    @property
    def prompts(self) -> tuple[int, ...]:
        """Indices of the prompts that the span finishes."""
        last = self.steps[-1]
        assert isinstance(last, EndStep)
        return last.prompts


def cut_into_spans(steps: Sequence[Step]) -> list[Span]:
    """Cuts one context's steps into spans, in order. The last step must be an `EndStep`."""
    spans: list[Span] = []
    shared: list[SharedStep] = []  # the states in memory, by depth
    states: tuple[SharedStep, ...] = ()
    waiting: list[Step] = []
    for step in steps:
        waiting.append(step)
        if isinstance(step, SharedStep):
            shared[step.depth :] = [step]
        elif isinstance(step, EndStep):
            spans.append(Span(states, tuple(waiting)))
            states, waiting = tuple(shared), []
    return spans
