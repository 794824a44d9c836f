"""Runs the steps of a plan: in one context, or in two side by side while other programs want the processors.

A `StepRunner` turns steps into one context's decodes: it keeps shared states, continues from them and builds each
batch. `Streams` decides which context runs what. The threads of a decode wait for each other after every operation, so
when another program takes one thread's processor, all of them stall. Two contexts with one thread each do not wait,
and so use whatever time other programs leave (docs/log.md, "Beside other programs"). The price is a second context's
memory, and both contexts run the prefixes that their prompts share. So a second context runs only while other programs
want the processors, and only where a prompt's results do not depend on which context runs it. Results come in the
plan's order.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgecal.errors import ModelError
from edgecal.llama.context import Context, TokenBatch
from edgecal.llama.decode_rows import OUTPUT_ROWS
from edgecal.llama.machine import is_crowded
from edgecal.llama.packing import ContextPlan, EndStep, LeadStep, SharedStep, Span, Step

__all__ = ["Results", "StepRunner", "Streams"]

_N_STREAMS = 2  # with one thread each
_MOST_AHEAD = 1  # how many chunks beyond the next one to be yielded may be begun


class Results(Protocol):
    """Arrays for a chunk's results, as `Context.decode` takes them; `of_prompt` maps each prompt to its slot."""

    of_prompt: Mapping[int, int]
    logits: NDArray[np.float32]
    hidden: NDArray[np.float32] | None
    captured: NDArray[np.uint8] | None


R = TypeVar("R", bound=Results)


class _Chunk(Generic[R]):
    """Spans whose results are yielded together, and how many of them have not run yet."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self.spans = spans
        self.n_left = len(spans)
        self.results: R | None = None  # made when its first span is taken, given up when it is yielded


class Streams(Generic[R]):
    """Runs chunks of spans in one context, and in a second one beside it when that is faster.

    The caller's thread runs the first stream, a helper thread the second. Both take spans in the plan's order.
    """

    def __init__(
        self,
        open_context: Callable[[], Context],
        plan: ContextPlan,
        prompts: Sequence[NDArray[np.int32]],
        chunks: Iterable[Sequence[Span]],
        make_results: Callable[[Sequence[int]], R],
        *,
        may_help: Callable[[], bool],
        progress: Callable[[int, int], None],
    ) -> None:
        """
        Parameters
        ----------
        open_context: creates a context for the plan.
        plan, prompts: as for `StepRunner`.
        chunks: the plan's spans in its order; the results of each chunk are yielded together.
        make_results: allocates the results of some prompts, given by index.
        may_help: whether a second context is allowed and memory suffices; called once, when one is wanted.
        progress: called in the caller's thread with the numbers of prompts and rows of the plan run since the last
            call.
        """
        self._open_context, self._plan, self._prompts = open_context, plan, prompts
        self._make_results, self._may_help, self._progress = make_results, may_help, progress
        self._chunks = [_Chunk[R](spans) for spans in chunks]
        self._queue = deque((at, span) for at, chunk in enumerate(self._chunks) for span in chunk.spans)
        # Guards everything that both threads change.
        self._changed = threading.Condition()
        self._n_yielded = 0  # chunks
        self._n_prompts = self._n_rows = 0  # run but not yet reported
        self._is_helping = self._is_over = False
        self._error: BaseException | None = None

    def run(self) -> Iterator[R]:
        """Yields the results of each chunk, in order."""
        helper: threading.Thread | None = None
        may_help = True
        try:
            with self._open_context() as context:
                runner = StepRunner(context, self._plan, self._prompts)
                while self._n_yielded < len(self._chunks):
                    if helper is None and may_help and is_crowded(_N_STREAMS) and len(self._queue) > 1:
                        may_help = self._may_help()
                        if may_help:
                            helper = threading.Thread(target=self._help, name="edgecal-stream", daemon=True)
                            helper.start()
                    taken = self._take()
                    if taken is not None:
                        self._compute(context, runner, *taken, is_helper=False)
                    yield from self._finished(is_idle=taken is None)
        finally:
            with self._changed:
                self._is_over = True
                self._changed.notify_all()
            if helper is not None:
                helper.join()  # takes at most one decode; the caller may free the model afterwards

    def _take(self, *, is_helper: bool = False) -> tuple[_Chunk[R], Span] | None:
        """Takes the next span. Returns None if there is none, or if too many chunks would wait for an earlier one. The
        helper instead waits until it is wanted; for it, None means that the run is over."""
        with self._changed:
            self._changed.notify_all()  # lets the helper check again whether it is wanted
            if is_helper:
                self._is_helping = False
                self._changed.wait_for(lambda: self._is_over or (self._has_next() and is_crowded(_N_STREAMS)))
                if self._is_over:
                    return None
                self._is_helping = True
            elif not self._has_next():
                return None
            at, span = self._queue.popleft()
            chunk = self._chunks[at]
            if chunk.results is None:
                chunk.results = self._make_results([index for one in chunk.spans for index in one.prompts])
            return chunk, span

    def _has_next(self) -> bool:
        return bool(self._queue) and self._queue[0][0] <= self._n_yielded + _MOST_AHEAD

    def _compute(
        self, context: Context, runner: StepRunner, chunk: _Chunk[R], span: Span, *, is_helper: bool
    ) -> None:
        results = chunk.results
        assert results is not None
        for is_counted, batches in (
            (False, runner.restore(span.states)),
            (True, runner.decodes(span, results.of_prompt)),
        ):
            for batch in batches:
                context.n_threads_at_most = 1 if is_helper or self._is_helping else None
                context.decode(batch, results.logits, results.hidden, results.captured)
                with self._changed:
                    if self._is_over:
                        return
                    if is_counted:
                        self._n_rows += len(batch.tokens)
                        self._n_prompts += int((batch.wanted >= 0).sum())
                if not is_helper:
                    self._report_progress()
        with self._changed:
            chunk.n_left -= 1
            self._changed.notify_all()

    def _report_progress(self) -> None:
        with self._changed:
            counts = self._n_prompts, self._n_rows
            self._n_prompts = self._n_rows = 0
        if any(counts):
            self._progress(*counts)

    def _finished(self, *, is_idle: bool) -> Iterator[R]:
        """Yields the results that are complete and next in order; if idle, waits for the first of them."""
        while self._n_yielded < len(self._chunks):
            chunk = self._chunks[self._n_yielded]
            with self._changed:
                if is_idle:
                    self._changed.wait_for(partial(self._is_settled, chunk))
                    is_idle = False
                if self._error is not None:
                    raise self._error
                if chunk.n_left:
                    return
                self._n_yielded += 1
                self._changed.notify_all()  # the helper may continue with the next chunk
                results, chunk.results = chunk.results, None
            self._report_progress()
            assert results is not None
            yield results

    def _is_settled(self, chunk: _Chunk[R]) -> bool:
        return chunk.n_left == 0 or self._error is not None

    def _help(self) -> None:
        """The second stream: takes spans while other programs want the processors."""
        try:
            context = self._open_context()
        except ModelError:  # not enough memory for a second context; the first one runs all spans
            return
        try:
            with context:
                runner = StepRunner(context, self._plan, self._prompts)
                while (taken := self._take(is_helper=True)) is not None:
                    self._compute(context, runner, *taken, is_helper=True)
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()


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
