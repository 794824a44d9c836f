"""Predicts the cost of a capture by loading the model and timing a short probe: the function that runs in the worker.

The prompts themselves are not run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from edgecal.architectures import PLAIN_STREAM
from edgecal.pair.model_capture import CaptureProgress, CaptureRequest
from edgecal.pair.resident_model import find_stream, read_shards
from edgecal.results.fitting import PlannedModel

if TYPE_CHECKING:
    from edgecal.llama.model import Model
    from edgecal.llama.packing import CapturePlan

__all__ = ["plan_model"]

# Rows of a probe: a full decode, like most decodes of a run. The fastest of several probes counts.
_PROBE_ROWS = 128
_PROBES = 3


def plan_model(request: CaptureRequest, report: Callable[[CaptureProgress], None]) -> PlannedModel:
    """Loads the model, plans the prompts and measures the model's speed.

    Raises
    ------
    InputError, ModelError: as `capture_model`.
    """
    from edgecal.llama.capture import plan_for
    from edgecal.llama.library import buffer_bytes, clear_log
    from edgecal.llama.machine import available_bytes
    from edgecal.llama.tokenizer import Tokenizer
    from edgecal.pair.capture_cache import PromptCaptureCache
    from edgecal.pair.resident_model import RESIDENT
    from edgecal.pair.worker_prompts import resolve_prompts

    free = available_bytes()
    clear_log()
    with PromptCaptureCache(request, report) as cache:
        began_s = time.monotonic()
        with RESIDENT.model(request.path, report) as model:
            load_s = time.monotonic() - began_s
            repacked = buffer_bytes("REPACK")
            tokenizer = Tokenizer(model.vocab, model.n_vocab, request.name)
            resolved = resolve_prompts(request, tokenizer, model.n_ctx_train)
            captures = cache.read(resolved, layers=request.layers)
            tokens = [
                item.tokens for item, capture in zip(resolved, captures, strict=True) if capture is None
            ]
            plan = plan_for(model, tokens, request.settings)
            rate = _probe(request, model)
            return PlannedModel(
                path=request.path,
                n_prompts=len(resolved),
                n_kept=len(resolved) - len(tokens),
                n_tokens=plan.n_tokens,
                n_distinct=plan.n_distinct,
                n_computed=plan.n_rows,
                n_decodes=sum(part.n_decodes for part in plan.contexts),
                n_sequences=max((part.n_seq_max for part in plan.contexts), default=0),
                tokens_per_s=rate,
                seconds=plan.n_rows / rate + (load_s if tokens else 0.0),
                file_bytes=read_shards(request.path).n_bytes,
                buffer_bytes=repacked,
                cache_bytes=_cache_bytes(model, plan),
                available_bytes=free,
                n_threads=request.settings.n_threads,
            )


def _probe(request: CaptureRequest, model: Model) -> float:
    """Measures the tokens per second of a full decode."""
    from edgecal.llama.capture import capture

    n_rows = min(_PROBE_ROWS, model.n_ctx_train)
    ids = np.arange(n_rows, dtype=np.int32) % model.n_vocab
    alone = replace(request.settings, share=False)
    ends_s: list[float] = []
    for _ in capture(
        model,
        [ids] * (_PROBES + 1),
        alone,
        hidden=request.layers,
        stream=find_stream(request.path) if request.layers else PLAIN_STREAM,
        progress=lambda n_prompts, n_tokens: ends_s.append(time.monotonic()),
    ):
        pass
    # The first decode only warms up. Each further one lasts from the end of the one before it to its own end.
    seconds = min(after - before for before, after in pairwise(ends_s))
    return n_rows / max(seconds, 1e-9)


def _cache_bytes(model: Model, plan: CapturePlan) -> int:
    sizes: Sequence[int] = [part.n_seq_max * model.cache_bytes(part.n_ctx_seq) for part in plan.contexts]
    return max(sizes, default=0)
