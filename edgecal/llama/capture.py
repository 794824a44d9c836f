"""Captures a model's output after each prompt: its logits and, on request, the residual stream after every block.

By default a prompt's numbers depend on the model, the prompt's tokens and the settings only: not on the other prompts,
their order, or how they were batched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from edgecal.architectures import PLAIN_STREAM, ResidualStream, family_of
from edgecal.errors import InputError, ModelError
from edgecal.llama.context import Context
from edgecal.llama.decode_rows import OUTPUT_ROWS
from edgecal.llama.library import steady_experts
from edgecal.llama.machine import settle_cache_bytes
from edgecal.llama.model import Model
from edgecal.llama.packing import CACHE_STEP, CapturePlan, ContextPlan, Span, cut_into_spans, plan_capture
from edgecal.llama.settings import CaptureSettings
from edgecal.llama.streams import Streams

__all__ = ["CaptureChunk", "capture", "check_prompts", "plan_for"]

# Limits of a chunk. A single decode may produce more bytes than this; it is a chunk of its own then.
_CHUNK_PROMPTS = 64
_CHUNK_BYTES = 32 << 20


@dataclass(frozen=True)
class CaptureChunk:
    """Logits and hidden states of m prompts, each at its last token.

    Attributes
    ----------
    indices: int64 [m], the prompts' indices.
    hidden: float32 [m, n_layer, n_streams * n_embd], the residual stream after each block; None if not asked for.
    logits: float32 [m, n_vocab], llama.cpp's own.
    """

    indices: NDArray[np.int64]
    hidden: NDArray[np.float32] | None
    logits: NDArray[np.float32]


def capture(
    model: Model,
    prompts: Sequence[NDArray[np.int32]],
    settings: CaptureSettings,
    *,
    hidden: bool,
    stream: ResidualStream = PLAIN_STREAM,
    progress: Callable[[int, int], None] | None = None,
    plan: CapturePlan | None = None,
) -> Iterator[CaptureChunk]:
    """Runs every prompt exactly once and yields the results chunk by chunk, in the order of computation.

    A chunk's memory is bounded whatever the vocabulary's size; the caller owns the arrays. A mixture-of-experts model
    must be the first model that computes in its process (see `steady_experts`).

    Parameters
    ----------
    model: a loaded model.
    prompts: token ids of each prompt, at least one token each.
    settings: how llama.cpp is run.
    hidden: capture hidden states too. Otherwise the native hook is neither loaded nor installed, so that models
        whose blocks cannot be read still yield their logits.
    stream: where the hidden states are found in this model's graph.
    progress: called with (prompts done, rows run of `plan.n_rows`) after each decode.
    plan: the result of `plan_for` for these same arguments; None: computed here.

    Raises
    ------
    InputError: a prompt is empty, longer than the model's context, or has a token outside its vocabulary;
        raised before anything is run.
    ModelError: llama.cpp failed or produced values that are not finite, or a block was not captured.
    """
    check_prompts(model, prompts)
    if model.n_expert > 0:
        steady_experts()
    return _run(
        model,
        prompts,
        settings,
        stream if hidden else None,
        progress,
        plan_for(model, prompts, settings) if plan is None else plan,
    )


def plan_for(model: Model, prompts: Sequence[NDArray[np.int32]], settings: CaptureSettings) -> CapturePlan:
    """Plans how a loaded model runs some prompts, with as many sequences as memory allows.

    The results do not depend on their number; for architectures where llama.cpp's results would, each prompt runs
    alone.
    """
    if not family_of(model.architecture).may_share:
        settings = replace(settings, share=False)
    return plan_capture(
        prompts,
        settings,
        n_ctx_train=model.n_ctx_train,
        can_rewind=model.can_rewind,
        is_wide=model.n_expert > 0 or settings.flash_attn,
        sequence_bytes=model.cache_bytes(CACHE_STEP),
        cache_bytes=settle_cache_bytes(),
    )


def _run(
    model: Model,
    prompts: Sequence[NDArray[np.int32]],
    settings: CaptureSettings,
    stream: ResidualStream | None,
    progress: Callable[[int, int], None] | None,
    plan: CapturePlan,
) -> Iterator[CaptureChunk]:
    width = 0 if stream is None else stream.n_streams * model.n_embd
    bytes_each = 4 * (model.n_vocab + model.n_layer * width)
    n_prompts_done = n_rows_done = 0

    def tell(n_prompts: int, n_rows: int) -> None:
        nonlocal n_prompts_done, n_rows_done
        n_prompts_done += n_prompts
        n_rows_done += n_rows
        if progress is not None:
            progress(n_prompts_done, n_rows_done)

    for part in plan.contexts:
        streams = Streams(
            partial(
                Context,
                model,
                settings,
                n_ctx_seq=part.n_ctx_seq,
                n_seq_max=part.n_seq_max,
                n_outputs_max=OUTPUT_ROWS,
                hidden=stream is not None,
                stream=stream or PLAIN_STREAM,
            ),
            part,
            prompts,
            _chunks(cut_into_spans(part.steps), bytes_each),
            partial(_Slots, model, width=width),
            may_help=partial(_has_room_for_two, model, settings, part),
            progress=tell,
        )
        for slots in streams.run():
            yield slots.chunk()


def _has_room_for_two(model: Model, settings: CaptureSettings, plan: ContextPlan) -> bool:
    """Whether there is memory for a second context, and two threads of which each context gets one."""
    cache_bytes = plan.n_seq_max * model.cache_bytes(plan.n_ctx_seq)
    return settings.n_threads == 2 and settings.is_exact and cache_bytes <= settle_cache_bytes()


class _Slots:
    """Arrays that decodes write results into. They start as NaN, so that a result that was never written is found."""

    def __init__(self, model: Model, indices: Sequence[int], width: int) -> None:
        """`width`: floats per hidden state; 0 where none are captured."""
        n = len(indices)
        self._path = model.path
        self._indices = np.array(indices, dtype=np.int64)
        self.of_prompt: Mapping[int, int] = {index: slot for slot, index in enumerate(indices)}
        self.logits: NDArray[np.float32] = np.full((n, model.n_vocab), np.nan, dtype=np.float32)
        self.hidden: NDArray[np.float32] | None = (
            np.full((n, model.n_layer, width), np.nan, dtype=np.float32) if width else None
        )
        self.captured: NDArray[np.uint8] | None = (
            np.zeros((n, model.n_layer), dtype=np.uint8) if width else None
        )

    def chunk(self) -> CaptureChunk:
        if self.captured is not None and not self.captured.all():
            slot, block = (int(at[0]) for at in np.nonzero(self.captured == 0))
            raise ModelError(
                f"{self._path}: block {block} was not captured for prompt {self._indices[slot]} (from 0); "
                "methods that need no hidden states (--method daca) still work"
            )
        broken = ~(self.logits < np.inf).all(axis=1)  # a masked token's logit may be minus infinity
        if broken.any():
            raise ModelError(
                f"{self._path}: the logits after prompt {self._indices[broken.argmax()]} (from 0) are not "
                "finite numbers; are the model's weights damaged?"
            )
        if self.hidden is not None and not np.isfinite(self.hidden).all():
            slot, block = (int(at[0]) for at in np.nonzero(~np.isfinite(self.hidden).all(axis=2)))
            raise ModelError(
                f"{self._path}: the hidden state after block {block} of prompt {self._indices[slot]} (from 0) "
                "is not finite; methods that need no hidden states (--method daca) may still work"
            )
        return CaptureChunk(self._indices, self.hidden, self.logits)


def _chunks(spans: Sequence[Span], bytes_each: int) -> Iterator[list[Span]]:
    """Groups spans, in the given order, so that the results of each group fit a chunk."""
    limit = max(1, min(_CHUNK_PROMPTS, _CHUNK_BYTES // bytes_each))
    waiting: list[Span] = []
    n_waiting = 0
    for span in spans:
        if waiting and n_waiting + len(span.prompts) > limit:
            yield waiting
            waiting, n_waiting = [], 0
        waiting.append(span)
        n_waiting += len(span.prompts)
    yield waiting


def check_prompts(model: Model, prompts: Sequence[NDArray[np.int32]]) -> None:
    for index, prompt in enumerate(prompts):
        if len(prompt) == 0:
            raise InputError(f"prompt {index} (from 0) has no tokens; a model needs at least one")
        if len(prompt) > model.n_ctx_train:
            raise InputError(
                f"prompt {index} (from 0) has {len(prompt)} tokens, but the context of {model.path} is "
                f"{model.n_ctx_train}; shorten or leave out this prompt"
            )
        ids = np.asarray(prompt)
        if ids.min() < 0 or ids.max() >= model.n_vocab:
            bad = int(ids[(ids < 0) | (ids >= model.n_vocab)][0])
            raise InputError(
                f"prompt {index} (from 0) has the token id {bad}, but {model.path} has {model.n_vocab} tokens, "
                "numbered from 0"
            )
