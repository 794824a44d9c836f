"""Keeps the states of texts that are asked about again and again, and runs prompts that continue from them.

A state is what a model remembers of the first tokens of a prompt. The states that were used last stay in sequences of
one context, so a prompt that begins with one of them runs its own tokens only. Prompts of one call share more below
the state where they can (`prefix_tree`). Rows follow the rules of `decode_rows`. So the logits of a prompt are the same
bits as `capture` gives for that prompt alone, whatever other prompts, earlier calls or forgotten states there were.

**Memory.** The sequences are as long as the longest prompt so far needs. When one needs more, a longer context is made,
and states are computed anew.

**Rows.** A call runs at most `n + 7` rows for each distinct state of n tokens that is not in memory and `m + 9` for
each prompt of m tokens behind its state. Where a model cannot be rewound (recurrent ones), states end at multiples of
four tokens, so it is `n` and `m + 12` rows; a state of fewer than 8 tokens is not kept. Prompts that reach to the last
three tokens of the model's context share nothing, nor do any of architectures whose numbers depend on their company.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType, TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecal.architectures import family_of
from edgecal.errors import InputError, ModelError
from edgecal.llama.capture import capture, check_prompts, plan_for
from edgecal.llama.context import Context
from edgecal.llama.decode_rows import LEAST_ROWS, OUTPUT_ROWS, Room
from edgecal.llama.library import steady_experts
from edgecal.llama.machine import settle_cache_bytes
from edgecal.llama.model import Model
from edgecal.llama.packing import (
    CACHE_STEP,
    ContextPlan,
    Endings,
    LeadStep,
    SharedStep,
    Step,
    cache_size,
    cut_into_spans,
    decode_width,
)
from edgecal.llama.prefix_tree import Node, build_tree, n_common
from edgecal.llama.settings import CaptureSettings
from edgecal.llama.streams import StepRunner

__all__ = ["OnLogits", "ResidentContext"]

Tokens = NDArray[np.int32]
OnLogits = Callable[[int, NDArray[np.float32]], None]

# Most rows of a decode. States are longer than what prompts of a capture share, and wide decodes suit them better
# (docs/log.md).
_WIDTH = 192

# Most states in memory unless more are pinned, and prefixes that prompts share below them: a question in several
# orders begins with the same instructions.
_MOST_STATES = 3
_MOST_NESTED = 2


class ResidentContext:
    """A context on a loaded model, made at the first call; a context manager that frees it.

    Not for use from several threads at once. The model must outlive it.

    Attributes
    ----------
    is_exact: whether a prompt's bits depend on nothing but the prompt. False only for a mixture of experts in a process
        that has already computed without `steady_experts`: then the last bits may depend on a prompt's company.
    """

    def __init__(
        self,
        model: Model,
        settings: CaptureSettings,
        *,
        n_ctx: int,
        params: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """
        Parameters
        ----------
        model: the model; it may belong to somebody else (`Model.of_handle`).
        settings: how llama.cpp is run; `n_seq_max` and `share` are not used.
        n_ctx: most tokens of a prompt. More than the model was trained with counts as that.
        params: further parameters of llama.cpp's context, such as "rope_freq_base".
        """
        self._model, self._settings, self._params = model, settings, params
        self.n_ctx = min(n_ctx, model.n_ctx_train)
        is_wide = model.n_expert > 0 or settings.flash_attn
        width = decode_width(settings, is_wide=is_wide, most=_WIDTH)
        self._room = Room(model.n_ctx_train, model.can_rewind, width)
        self.is_exact = settings.is_exact and (model.n_expert == 0 or steady_experts())
        self._may_share = family_of(model.architecture).may_share
        self._memory: _Memory | None = None
        self._pinned: Counter[bytes] = Counter()

    def run(self, prompts: Sequence[Tokens], n_kept: Sequence[int], on_logits: OnLogits) -> int:
        """Runs some prompts.

        Parameters
        ----------
        prompts: int32 token ids of each, at least one.
        n_kept: how many of its leading tokens each prompt's state holds, 0 to all; 0 for no state. All prompts of one
            state should have the same number.
        on_logits: called once for each prompt, in the order of computation, with its index and the logits after its
            last token, float32 [n_vocab]. The array is overwritten afterwards.

        Returns
        -------
        The rows that were run, padding included.

        Raises
        ------
        InputError: a prompt is empty, longer than `n_ctx`, or has a token outside the vocabulary; before anything is
            run.
        ModelError: llama.cpp failed or produced values that are not finite. States are forgotten then.
        """
        for index, prompt in enumerate(prompts):
            if len(prompt) > self.n_ctx:
                raise InputError(
                    f"prompt {index} (from 0): has {len(prompt)} tokens, but the context is {self.n_ctx}; shorten "
                    "it, or load the model with a larger n_ctx"
                )
        check_prompts(self._model, prompts)
        if not prompts:
            return 0
        if not self._may_share:
            return self._run_alone(prompts, on_logits)
        n_cells = [self._room.most_cells(len(prompt)) for prompt in prompts]
        # A few models use other factors for positions in contexts longer than this; `capture` has a prompt's own size.
        are_long = [cache_size(n) > self._model.n_ctx_orig for n in n_cells]
        n_rows = 0
        for is_long in sorted(
            set(are_long), key=lambda each: self._memory is None or self._memory.is_long != each
        ):
            members = [index for index, long in enumerate(are_long) if long is is_long]
            memory = self._memory_for(max(n_cells[index] for index in members), is_long)
            try:
                n_rows += memory.run(
                    prompts, n_kept, members, [_tokens(key) for key in self._pinned], on_logits
                )
            except BaseException:
                self.close()  # what its sequences hold is not known
                raise
        return n_rows

    def pin(self, state: Tokens) -> None:
        """Keeps a state longer than others: it is given up only if there is no memory for all that are pinned. Each
        call needs one of `unpin`."""
        self._pinned[self._pin_key(state)] += 1

    def unpin(self, state: Tokens) -> None:
        """Ends one `pin`."""
        self._pinned[self._pin_key(state)] -= 1
        self._pinned += Counter()  # drops what is not pinned any more

    def _pin_key(self, state: Tokens) -> bytes:
        return _key(state[: len(state) // self._room.step * self._room.step])

    def _memory_for(self, n_cells: int, is_long: bool) -> _Memory:
        """The context, made anew if the one at hand is too small."""
        have = self._memory
        n_states = max(_MOST_STATES, len(self._pinned) + 1)
        if have is not None and have.is_long == is_long:
            if have.n_ctx_seq >= n_cells:
                n_seq_max = self._n_seq_max(have.n_ctx_seq, n_states)
                if have.n_states >= n_states or have.n_seq_max >= n_seq_max:
                    return have
            n_cells = max(n_cells, have.n_ctx_seq if have.n_ctx_seq >= n_cells else have.n_ctx_seq * 3 // 2)
        size = self._size(n_cells, is_long)
        self.close()
        self._memory = _Memory(
            self._model,
            self._settings,
            self._room,
            n_ctx_seq=size,
            n_seq_max=self._n_seq_max(size, n_states),
            is_long=is_long,
            params=self._params,
        )
        return self._memory

    def _size(self, n_cells: int, is_long: bool) -> int:
        """A size that holds `n_cells` tokens if the longest prompt does, on the side of `n_ctx_orig` that is asked."""
        size = _whole_steps(min(n_cells, self._room.most_cells(self.n_ctx)))
        n_short = self._model.n_ctx_orig // CACHE_STEP * CACHE_STEP
        return max(size, n_short + CACHE_STEP) if is_long else min(size, n_short)

    def _n_seq_max(self, size: int, n_states: int) -> int:
        each = max(1, self._model.cache_bytes(size))
        return max(2, min(n_states + _MOST_NESTED + OUTPUT_ROWS, settle_cache_bytes() // each))

    def _run_alone(self, prompts: Sequence[Tokens], on_logits: OnLogits) -> int:
        plan = plan_for(self._model, prompts, self._settings)
        for chunk in capture(self._model, prompts, self._settings, hidden=False, plan=plan):
            for index, logits in zip(chunk.indices.tolist(), chunk.logits, strict=True):
                on_logits(index, logits)
        return plan.n_rows

    def close(self) -> None:
        """Frees the context, and so all states; may be called again. The next call makes another."""
        memory, self._memory = self._memory, None
        if memory is not None:
            memory.close()

    def __enter__(self) -> ResidentContext:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True)
class _StateStep(SharedStep):
    """Runs a prefix into the sequence `depth`, continuing from the first `start` tokens of the sequence `source`; -1
    for none."""

    source: int = -1


class _Memory:
    """One llama.cpp context and what its sequences hold: first states, then shared prefixes, then ending prompts."""

    def __init__(
        self,
        model: Model,
        settings: CaptureSettings,
        room: Room,
        *,
        n_ctx_seq: int,
        n_seq_max: int,
        is_long: bool,
        params: Mapping[str, Any],
    ) -> None:
        self.n_ctx_seq, self.n_seq_max, self.is_long = n_ctx_seq, n_seq_max, is_long
        self._model, self._room = model, room
        n_together = min(OUTPUT_ROWS, n_seq_max - 1, room.width // (2 * LEAST_ROWS))
        self._n_nested = min(_MOST_NESTED, n_seq_max - n_together - 1)
        self.n_states = n_seq_max - n_together - self._n_nested
        self._plan = ContextPlan(n_ctx_seq, self.n_states + self._n_nested, n_together, room.width, ())
        self._states: list[Tokens | None] = [None] * self.n_states
        self._used: list[int] = [0] * self.n_states  # when each was used last
        self._now = 0
        self._logits = np.empty((n_together, model.n_vocab), np.float32)
        self._context = Context(
            model,
            settings,
            n_ctx_seq=n_ctx_seq,
            n_seq_max=n_seq_max,
            n_outputs_max=OUTPUT_ROWS,
            hidden=False,
            params=params,
        )
        self._runner = _Runner(self._context, self._plan, ())
        self.close = self._context.close

    def run(
        self,
        prompts: Sequence[Tokens],
        n_kept: Sequence[int],
        members: Sequence[int],
        pins: Sequence[Tokens],
        on_logits: OnLogits,
    ) -> int:
        """Runs the prompts `members`, which must fit."""
        plan = replace(self._plan, steps=tuple(self._steps(prompts, n_kept, members, pins)))
        self._runner.take_up(plan, prompts)
        for span in cut_into_spans(plan.steps):
            self._logits[:] = np.nan
            place_of = {index: place for place, index in enumerate(span.prompts)}
            for batch in self._runner.decodes(span, place_of):
                self._context.decode(batch, self._logits, None, None)
            for index, place in place_of.items():
                logits = self._logits[place]
                if not (logits < np.inf).all():  # a masked token's logit may be minus infinity
                    raise ModelError(
                        f"{self._model.path}: the logits after prompt {index} (from 0) are not finite numbers; are "
                        "the model's weights damaged?"
                    )
                on_logits(index, logits)
        return sum(step.n_rows for step in plan.steps)

    def _steps(
        self,
        prompts: Sequence[Tokens],
        n_kept: Sequence[int],
        members: Sequence[int],
        pins: Sequence[Tokens],
    ) -> list[Step]:
        endings = Endings(
            self._plan.n_together,
            self._room.width,
            min(self.n_ctx_seq, self._model.n_ctx_train),
        )
        groups: dict[bytes, list[int]] = {}
        for index in members:
            n = n_kept[index] // self._room.step * self._room.step
            groups.setdefault(_key(prompts[index][:n]), []).append(index)
        # Of states that begin alike the longest comes first where it can be rewound to the others, else last. States in
        # memory come before all, since others would take their places.
        ordered = sorted(groups.items(), reverse=self._room.can_rewind)
        for _, group in sorted(ordered, key=lambda item: self._find(_tokens(item[0])) is None):
            lengths = [min(n_kept[index], self._room.sharable(len(prompts[index]))) for index in group]
            start = min(lengths) // self._room.step * self._room.step
            if start < LEAST_ROWS:
                start = 0
            slot = -1
            if start:
                slot, steps = self._prepare(prompts[group[0]][:start], group[0], pins)
                endings.steps.extend(steps)
            self._add_prompts(prompts, group, slot, start, endings)
        endings.flush()
        return endings.steps

    def _find(self, state: Tokens) -> int | None:
        """The sequence that holds a state, or a longer one that can be rewound to it."""
        for slot, have in enumerate(self._states):
            if have is not None and _covers(have, state, self._room.can_rewind):
                return slot
        return None

    def _prepare(self, state: Tokens, prompt: int, pins: Sequence[Tokens]) -> tuple[int, list[Step]]:
        """Finds or chooses a sequence for a state; the step that computes it, if it is not there."""
        self._now += 1
        slot = self._find(state)
        if slot is not None:
            self._used[slot] = self._now
            return slot, []
        source, start = self._best_source(state)
        slot = self._choose_slot(source, start, pins)
        self._states[slot] = state.copy()
        self._used[slot] = self._now
        return slot, [_StateStep(slot, prompt, start, len(state), source)]

    def _best_source(self, state: Tokens) -> tuple[int, int]:
        """The sequence that shares most tokens with a state, and how many; -1 and 0 if none shares enough."""
        best, most = -1, LEAST_ROWS - 1
        for slot, have in enumerate(self._states):
            if have is None:
                continue
            n = n_common(have, state)
            if not self._room.can_rewind and (n < len(have) or len(state) - n < LEAST_ROWS):
                continue  # it cannot be shortened, and the rest could not be padded
            if n > most:
                best, most = slot, n
        return (best, most) if best >= 0 else (-1, 0)

    def _choose_slot(self, source: int, start: int, pins: Sequence[Tokens]) -> int:
        """The sequence for a new state. The source itself, if its own state remains available in the longer one;
        otherwise an unused one or that used longest ago, of those not pinned if there are any."""
        if source >= 0 and self._room.can_rewind:
            have = self._states[source]
            if have is not None and len(have) == start:
                return source

        def rank(slot: int) -> tuple[bool, bool, bool, int]:
            have = self._states[slot]
            is_pinned = have is not None and any(_covers(have, pin, self._room.can_rewind) for pin in pins)
            return is_pinned, have is not None, slot == source, self._used[slot]

        return min(range(self.n_states), key=rank)

    def _add_prompts(
        self, prompts: Sequence[Tokens], group: Sequence[int], slot: int, start: int, endings: Endings
    ) -> None:
        """Adds the steps of prompts that continue from a state's first `start` tokens."""
        bodies = [prompts[index][start : self._room.sharable(len(prompts[index]))] for index in group]
        tree = build_tree(bodies, self._room.step, self._room.is_worth_keeping)
        waiting: list[tuple[Node, int, int, int]] = [(tree, 0, slot, start)]
        while waiting:
            node, depth, source, above = waiting.pop()
            n_tokens = start + node.n_tokens
            if depth:
                sequence = self.n_states + depth - 1
                endings.steps.append(_StateStep(sequence, group[node.prompt], above, n_tokens, source))
                source = sequence
            is_deepest = depth >= self._n_nested
            ending = [group[at] for at in (node.all_prompts() if is_deepest else node.prompts)]
            for index in sorted(ending, key=lambda index: endings.sort_key(len(prompts[index]) - n_tokens)):
                endings.add(index, source, n_tokens, len(prompts[index]) - n_tokens)
            if not is_deepest:
                waiting.extend((child, depth + 1, source, n_tokens) for child in reversed(node.children))


class _Runner(StepRunner):
    """Runs the steps of one call after another in a context whose sequences stay as they are between them."""

    def __init__(self, context: Context, plan: ContextPlan, prompts: Sequence[Tokens]) -> None:
        super().__init__(context, plan, prompts)
        # Which state each sequence last continued from, by number, and how many of its tokens it took.
        self._origins: dict[int, tuple[int, int]] = {}

    def take_up(self, plan: ContextPlan, prompts: Sequence[Tokens]) -> None:
        """Takes the steps and prompts of the next call."""
        self._plan, self._prompts = plan, prompts

    def _begin_shared(self, step: SharedStep) -> int:
        assert isinstance(step, _StateStep)
        self._continue(step.source, step.depth, step.start)
        self._n_states += 1
        self._state_numbers[step.depth] = self._n_states
        return step.depth

    def _begin_lead(self, step: LeadStep) -> int:
        sequence = self._plan.n_shared + step.place
        self._continue(step.depth, sequence, step.start)
        return sequence

    def _continue(self, source: int, sequence: int, n_tokens: int) -> None:
        """Makes a sequence hold the first tokens of the sequence `source`, or none if that is -1. One that continued
        from the same state before is rewound to it, which saves a copy."""
        if source < 0:
            self._context.empty(sequence)
            self._origins.pop(sequence, None)
            return
        if source == sequence:
            self._context.rewind(sequence, n_tokens)
            return
        number = self._state_numbers[source]
        before, n_before = self._origins.get(sequence, (-1, 0))
        if before != number or n_before < n_tokens or not self._context.rewind(sequence, n_tokens):
            self._context.fork(source, sequence)
            self._context.rewind(sequence, n_tokens)  # does nothing where it is not possible, nor needed
        self._origins[sequence] = number, n_tokens


def _covers(have: Tokens, state: Tokens, can_rewind: bool) -> bool:
    """Whether a sequence that holds `have` can serve `state`."""
    if len(have) < len(state) or (len(have) > len(state) and not can_rewind):
        return False
    return bool((have[: len(state)] == state).all())


def _whole_steps(n_cells: int) -> int:
    return -(-n_cells // CACHE_STEP) * CACHE_STEP


def _key(tokens: Tokens) -> bytes:
    return np.ascontiguousarray(tokens, np.int32).tobytes()


def _tokens(key: bytes) -> Tokens:
    return np.frombuffer(key, np.int32)
