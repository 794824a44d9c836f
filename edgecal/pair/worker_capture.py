"""Captures one model on some prompts: the function that runs inside the worker process.

Resolves the labels' tokens, reads cached captures, runs the other prompts, projects their hidden states onto the choice
tokens and keeps only what the fit needs. A prompt's capture depends only on the model, the prompt's tokens, its choice
tokens and the settings, so a cached capture equals a computed one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgecal.architectures import PLAIN_STREAM
from edgecal.pair.capture_cache import PromptCapture, PromptCaptureCache
from edgecal.pair.model_capture import CaptureProgress, CaptureRequest, ModelCapture, widen
from edgecal.pair.resident_model import RESIDENT, find_stream
from edgecal.pair.worker_prompts import read_vocabulary, resolve_prompts, warn_of_marks

if TYPE_CHECKING:
    from edgecal.llama.tokenizer import ResolvedPrompt, Tokenizer
    from edgecal.pair.lens_judge import LensJudge

__all__ = ["capture_model"]

_NOT_EXACT = (
    "run with --fast: the last bits of the results depend on which prompts share a batch, so a longer list or another "
    "order may change the temperature's last digits"
)

Report = Callable[[CaptureProgress], None]


def capture_model(request: CaptureRequest, report: Report) -> ModelCapture:
    """Runs one model over the prompts.

    Raises
    ------
    InputError: a prompt does not fit the model (labels, context, tokenizer).
    ModelError: llama.cpp or the hook failed, or the lens does not reproduce the model's logits.
    """
    with PromptCaptureCache(request, report) as cache:
        if cache.may_hold and not RESIDENT.holds(request.path):
            # If every prompt is cached, the weights need not be loaded.
            with read_vocabulary(request) as (tokenizer, n_ctx_train):
                resolved = resolve_prompts(request, tokenizer, n_ctx_train)
                captures = cache.read(resolved, layers=request.layers, hidden=request.hidden)
                if all(capture is not None for capture in captures):
                    return _gather(request, resolved, captures, tokenizer, cache)
        with RESIDENT.model(request.path, report) as model:
            from edgecal.llama.tokenizer import Tokenizer

            tokenizer = Tokenizer(model.vocab, model.n_vocab, request.name)
            resolved = resolve_prompts(request, tokenizer, model.n_ctx_train)
            captures = cache.read(resolved, layers=request.layers, hidden=request.hidden)
            _run(request, model, resolved, captures, cache, report)
            return _gather(request, resolved, captures, tokenizer, cache)


def _run(
    request: CaptureRequest,
    model: Any,
    resolved: Sequence[ResolvedPrompt],
    captures: list[PromptCapture | None],
    cache: PromptCaptureCache,
    report: Report,
) -> None:
    """Runs the prompts that have no capture yet, and stores theirs in `captures`."""
    from edgecal.llama.capture import capture as capture_prompts
    from edgecal.llama.capture import plan_for
    from edgecal.pair.lens_judge import LensJudge

    missing = [index for index, capture in enumerate(captures) if capture is None]
    if not missing:
        return
    tokens = [resolved[index].tokens for index in missing]
    plan = plan_for(model, tokens, request.settings)
    n_done, n_all = len(captures) - len(missing), len(captures)
    report(CaptureProgress("run", n_done, n_all, 0, plan.n_rows))

    def on_capture(n_prompts_done: int, n_rows_done: int) -> None:
        report(CaptureProgress("run", n_done + n_prompts_done, n_all, n_rows_done, plan.n_rows))

    stream, judge = PLAIN_STREAM, None
    if request.layers:
        stream = find_stream(request.path)
        choice_ids = np.concatenate([resolved[index].choice_tokens for index in missing])
        judge = LensJudge.of_model(request.name, model, request.settings, stream, choice_ids)
        judge.judge()
    unwritten: list[int] = []
    for chunk in capture_prompts(
        model,
        tokens,
        request.settings,
        hidden=request.layers,
        stream=stream,
        progress=on_capture,
        plan=plan,
    ):
        for row, at in enumerate(chunk.indices.tolist()):
            hidden = None if chunk.hidden is None else chunk.hidden[row]
            capture = _capture_prompt(resolved[missing[at]], chunk.logits[row], hidden, judge)
            if request.hidden and hidden is not None and judge is not None:
                merge = judge.head.merge
                capture["last_hidden"] = hidden[-1].copy() if merge is None else merge(hidden[-1])
            captures[missing[at]] = capture
            unwritten.append(missing[at])
        if judge is None or judge.is_sure:
            cache.write(resolved, captures, unwritten)
            unwritten = []
    if judge is not None:
        judge.judge()
    cache.write(resolved, captures, unwritten)


def _capture_prompt(
    item: ResolvedPrompt,
    logits: NDArray[np.float32],
    hidden: NDArray[np.float32] | None,
    judge: LensJudge | None,
) -> PromptCapture:
    """Makes one prompt's capture from llama.cpp's results; without a lens judge it has no layers.

    logits: float32 [n_vocab]; hidden: float32 [n_layer, n_embd]. Raises ModelError as soon as
    enough prompts have shown that the lens does not reproduce the model's logits.
    """
    choice_ids = item.choice_tokens
    chosen = logits[choice_ids]
    wide = logits.astype(np.float64)
    peak = wide.max()
    log_total = peak + np.log(np.exp(wide - peak).sum())
    capture: PromptCapture = {
        "final_logits": item.label_logits(chosen).astype(np.float32),
        "choice_mass": np.asarray(np.exp(chosen.astype(np.float64) - log_total).sum()),
        "top_token": np.asarray(logits.argmax(), dtype=np.int32),
    }
    if judge is not None:
        from edgecal.lens import project

        assert hidden is not None
        was_sure = judge.is_sure
        rows = np.searchsorted(judge.head.token_ids, choice_ids).astype(np.int32)
        layers = project(hidden[None], judge.head, rows[None])[0]
        capture["layer_logits"] = item.label_logits(layers).astype(np.float32)
        capture["lens_error"] = np.asarray(judge.add(hidden[-1], logits, choice_ids))
        if judge.is_sure and not was_sure:
            judge.judge()
    return capture


def _gather(
    request: CaptureRequest,
    resolved: Sequence[ResolvedPrompt],
    captures: Sequence[PromptCapture | None],
    tokenizer: Tokenizer,
    cache: PromptCaptureCache,
) -> ModelCapture:
    from edgecal.llama.library import describe_llama_cpp, system_info

    complete = [capture for capture in captures if capture is not None]
    assert len(complete) == len(captures)
    k_max = max(len(capture["final_logits"]) for capture in complete)
    final = np.stack([widen(capture["final_logits"], k_max) for capture in complete])
    layers = lens = last_hidden = None
    if request.hidden:
        last_hidden = np.stack([capture["last_hidden"] for capture in complete])
    if request.layers:
        layers = np.stack([widen(capture["layer_logits"], k_max) for capture in complete])
        lens = np.array([float(capture["lens_error"]) for capture in complete])

    def outside(capture: PromptCapture, item: ResolvedPrompt) -> str | None:
        top = int(capture["top_token"])
        if top in item.choice_tokens:
            return None
        return tokenizer.piece(top) if tokenizer.has_tokenizer else ""

    return ModelCapture(
        final_logits=final,
        layer_logits=layers,
        choice_mass=np.array([float(capture["choice_mass"]) for capture in complete]),
        outside=tuple(map(outside, complete, resolved)),
        lens_errors=lens,
        n_tokens=sum(len(item.tokens) for item in resolved),
        llama_cpp=describe_llama_cpp(),
        system_info=system_info(),
        peak_memory_bytes=_peak_memory_bytes(),
        warnings=(
            *cache.warnings,
            *(() if request.settings.is_exact else (_NOT_EXACT,)),
            *warn_of_marks(request, resolved, tokenizer),
        ),
        last_hidden=last_hidden,
        token_counts=_count_tokens([item.tokens for item in resolved]),
    )


def _count_tokens(prompts: Sequence[NDArray[np.int32]]) -> NDArray[np.int64]:
    """See `ModelCapture.token_counts`."""
    counts = np.empty((len(prompts), 2), dtype=np.int64)
    before = np.empty(0, dtype=np.int32)
    for at, tokens in enumerate(prompts):
        n = min(len(before), len(tokens))
        differs = np.flatnonzero(before[:n] != tokens[:n])
        counts[at] = len(tokens), len(tokens) - (int(differs[0]) if len(differs) else n)
        before = tokens
    return counts


def _peak_memory_bytes() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
