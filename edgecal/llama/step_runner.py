"""Turns the steps of a plan into decodes of one context: keeps shared states, continues from them, builds each batch.

`packing` decides what runs in which order; `streams` decides which context runs it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from edgecal.errors import ModelError
from edgecal.llama.context import Context, TokenBatch
from edgecal.llama.decode_rows import OUTPUT_ROWS
from edgecal.llama.packing import ContextPlan
from edgecal.llama.steps import EndStep, LeadStep, SharedStep, Span, Step

__all__ = ["StepRunner"]


class StepRunner:
    """Prepares one context's memory for each span, in the plan's order, and yields the span's decodes.

    Sequences 0, 1, ... hold the shared state of each depth; the sequences after them finish prompts.
    """

    def __init__(self, context: Context, plan: ContextPlan, prompts: Sequence[NDArray[np.int32]]) -> None:
        self._context = context
        self._plan = plan
        self._prompts = prompts
        # The shared states in memory, by depth, and their numbers: 1, 2, ... in the order in which they were made.
        self._shared: list[SharedStep] = []
        self._state_numbers: list[int] = [0] * plan.n_shared
        self._n_states = 0
        # The number of the state that each finishing sequence last continued from; 0: none, -1: not used yet.
        self._parents: list[int] = [-1] * plan.n_together
        context.clear()

    def restore(self, states: Sequence[SharedStep]) -> Iterator[TokenBatch]:
        """Yields the decodes of shared states that another context has run and this one has not, outermost first."""
        are_equal = [have == want for have, want in zip(self._shared, states, strict=False)]
        n_equal = are_equal.index(False) if False in are_equal else len(are_equal)
        for step in states[n_equal:]:
            yield from self._decodes(step, {})

    def decodes(self, span: Span, slot_of: Mapping[int, int]) -> Iterator[TokenBatch]:
        """Yields the decodes of a span whose states are in place; each must run before the next is taken.

        `slot_of` maps each prompt that the span finishes to its slot in the results.
        """
        for step in span.steps:
            yield from self._decodes(step, slot_of)

    def _decodes(self, step: Step, slot_of: Mapping[int, int]) -> Iterator[TokenBatch]:
        if isinstance(step, EndStep):
            parts = self._end_rows(step, slot_of)
        else:
            sequence = self._begin_shared(step) if isinstance(step, SharedStep) else self._begin_lead(step)
            tokens = _padded(self._prompts[step.prompt][step.start : step.stop], step.n_rows)
            parts = [_row_batch(tokens, step.start, sequence)]
        n_rows = len(parts[0].tokens)
        for start, stop in pairwise([0, *self._plan.cuts(step), n_rows]):
            if start < stop:
                yield _joined([_part(part, start, stop) for part in parts])
        if isinstance(step, SharedStep) and n_rows > step.stop - step.start:
            self._remove_padding(step)

    def _begin_shared(self, step: SharedStep) -> int:
        """Prepares the sequence of a shared state and returns its id."""
        if step.depth == 0:
            self._context.empty(0)
        else:
            self._context.fork(step.depth - 1, step.depth)
        self._shared[step.depth :] = [step]
        self._n_states += 1
        self._state_numbers[step.depth] = self._n_states
        return step.depth

    def _remove_padding(self, step: SharedStep) -> None:
        if not self._context.rewind(step.depth, step.stop):
            raise ModelError("llama.cpp cannot remove the last tokens of a sequence; run with share=False")

    def _begin_lead(self, step: LeadStep) -> int:
        """Prepares the sequence that finishes a prompt and returns its id. If it last continued from the same state, it
        is rewound to it, which saves a copy."""
        state = 0 if step.depth < 0 else self._state_numbers[step.depth]
        sequence = self._plan.n_shared + step.place
        if step.depth < 0:
            self._context.empty(sequence)
        elif self._parents[step.place] != state or not self._context.rewind(sequence, step.start):
            self._context.fork(step.depth, sequence)
        self._parents[step.place] = state
        return sequence

    def _end_rows(self, step: EndStep, slot_of: Mapping[int, int]) -> list[TokenBatch]:
        """One batch of rows for each prompt."""
        parts = []
        for place, (index, start) in enumerate(zip(step.prompts, step.starts, strict=True)):
            rest = self._prompts[index][start:]
            part = _row_batch(_padded(rest, step.length), start, self._plan.n_shared + place)
            part.wanted[len(rest) - 1] = slot_of[index]
            parts.append(part)
        return parts


def _padded(tokens: NDArray[np.int32], n_rows: int) -> NDArray[np.int32]:
    """Pads to n_rows by repeating the last token."""
    return np.concatenate([tokens, np.repeat(tokens[-1:], n_rows - len(tokens))])


def _joined(parts: Sequence[TokenBatch]) -> TokenBatch:
    """Joins parts into one decode. Every decode that finishes prompts gets OUTPUT_ROWS output rows, if it has as many
    rows, because llama.cpp's kernels for the last block and the head depend on their number."""
    batch = TokenBatch(*(np.concatenate(column) for column in zip(*map(_columns, parts), strict=True)))
    batch.outputs[batch.wanted >= 0] = True
    n_wanted = int(batch.outputs.sum())
    if n_wanted:
        batch.outputs[np.flatnonzero(~batch.outputs)[::-1][: max(0, OUTPUT_ROWS - n_wanted)]] = True
    return batch


def _columns(batch: TokenBatch) -> tuple[NDArray[np.generic], ...]:
    return batch.tokens, batch.positions, batch.seq_ids, batch.wanted, batch.outputs


def _row_batch(tokens: NDArray[np.int32], start: int, sequence: int) -> TokenBatch:
    """A batch of one sequence's tokens from position `start` on, none of them wanted yet."""
    n = len(tokens)
    return TokenBatch(
        tokens=np.asarray(tokens, dtype=np.int32),
        positions=np.arange(start, start + n, dtype=np.int32),
        seq_ids=np.full(n, sequence, dtype=np.int32),
        wanted=np.full(n, -1, dtype=np.int32),
        outputs=np.zeros(n, dtype=np.bool_),
    )


def _part(batch: TokenBatch, start: int, stop: int) -> TokenBatch:
    names = ("tokens", "positions", "seq_ids", "wanted", "outputs")
    return replace(batch, **{name: getattr(batch, name)[start:stop] for name in names})
