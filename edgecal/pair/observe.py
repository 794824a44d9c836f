"""What one model says about each prompt: the function that runs inside the worker process.

Resolves the labels' tokens, takes what the cache has, captures the rest, projects the hidden states onto the choice
tokens and keeps only what the fit needs. Does not know the other model, nor what the logits are for.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecal.architectures import PLAIN_STREAM
from edgecal.pair.kept import AnswerCache
from edgecal.pair.loaded import LOADED, find_stream
from edgecal.pair.observation import Observation, ObserveProgress, ObserveRequest, widen
from edgecal.pair.resolve import read_vocabulary, resolve_prompts, warn_of_marks

if TYPE_CHECKING:
    from edgecal.llama.vocabulary import ResolvedPrompt, Tokenizer
    from edgecal.pair.answers import Answer

__all__ = ["observe_model"]

_NOT_EXACT = (
    "run with --fast: the last bits of the numbers depend on which prompts were run together, so that a longer list "
    "or another order may change the temperature's last digits"
)

Report = Callable[[ObserveProgress], None]


def observe_model(request: ObserveRequest, report: Report) -> Observation:
    """Runs one model over the prompts.

    Raises
    ------
    InputError: a prompt does not fit the model (labels, context, tokenizer).
    ModelError: llama.cpp or the hook failed, or the lens does not reproduce the model's logits.
    """
    with AnswerCache(request, report) as cache:
        if cache.may_hold and not LOADED.holds(request.path):
            # If everything is kept, the weights are not needed.
            with read_vocabulary(request) as (tokenizer, n_ctx_train):
                resolved = resolve_prompts(request, tokenizer, n_ctx_train)
                answers = cache.read(resolved, layers=request.layers)
                if all(answer is not None for answer in answers):
                    return _gather(request, resolved, answers, tokenizer, cache)
        with LOADED.model(request.path, report) as model:
            from edgecal.llama.vocabulary import Tokenizer

            tokenizer = Tokenizer(model.vocab, model.n_vocab, request.name)
            resolved = resolve_prompts(request, tokenizer, model.n_ctx_train)
            answers = cache.read(resolved, layers=request.layers)
            _run(request, model, resolved, answers, cache, report)
            return _gather(request, resolved, answers, tokenizer, cache)


def _run(
    request: ObserveRequest,
    model: Any,
    resolved: Sequence[ResolvedPrompt],
    answers: list[Answer | None],
    cache: AnswerCache,
    report: Report,
) -> None:
    """Runs the prompts that have no answer yet."""
    from edgecal.llama.capture import capture, plan_for
    from edgecal.pair.answers import AnswerMaker
    from edgecal.pair.judge import LensJudge

    missing = [index for index, answer in enumerate(answers) if answer is None]
    if not missing:
        return
    tokens = [resolved[index].tokens for index in missing]
    choices = [resolved[index].choice_tokens for index in missing]
    plan = plan_for(model, tokens, request.settings)
    n_done, n_all = len(answers) - len(missing), len(answers)
    report(ObserveProgress("run", n_done, n_all, 0, plan.n_rows))

    def on_capture(n_prompts_done: int, n_rows_done: int) -> None:
        report(ObserveProgress("run", n_done + n_prompts_done, n_all, n_rows_done, plan.n_rows))

    stream, judge = PLAIN_STREAM, None
    if request.layers:
        stream = find_stream(request.path)
        judge = LensJudge.of_model(request.name, model, request.settings, stream, np.concatenate(choices))
        judge.judge()
    maker = AnswerMaker(judge)
    unkept: list[int] = []
    for chunk in capture(
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
            answers[missing[at]] = maker.make(choices[at], chunk.logits[row], hidden)
            unkept.append(missing[at])
        if maker.is_sure:
            cache.write(resolved, answers, unkept)
            unkept = []
    if judge is not None:
        judge.judge()
    cache.write(resolved, answers, unkept)


def _gather(
    request: ObserveRequest,
    resolved: Sequence[ResolvedPrompt],
    answers: Sequence[Answer | None],
    tokenizer: Tokenizer,
    cache: AnswerCache,
) -> Observation:
    from edgecal.llama.library import describe_llama_cpp, system_info

    complete = [answer for answer in answers if answer is not None]
    assert len(complete) == len(answers)
    k_max = max(len(answer["final_logits"]) for answer in complete)
    final = np.stack([widen(answer["final_logits"], k_max) for answer in complete])
    layers = lens = None
    if request.layers:
        layers = np.stack([widen(answer["layer_logits"], k_max) for answer in complete])
        lens = np.array([float(answer["lens_error"]) for answer in complete])

    def outside(answer: Answer, item: ResolvedPrompt) -> str | None:
        top = int(answer["top_token"])
        if top in item.choice_tokens:
            return None
        return tokenizer.piece(top) if tokenizer.has_tokenizer else ""

    return Observation(
        final_logits=final,
        layer_logits=layers,
        choice_mass=np.array([float(answer["choice_mass"]) for answer in complete]),
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
    )


def _peak_memory_bytes() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
