"""Generates text with one model after each prompt: the function that runs inside the worker process."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from edgecal.errors import InputError
from edgecal.llama.settings import CaptureSettings
from edgecal.pair.model_capture import CaptureProgress
from edgecal.prompts.records import Prompt

__all__ = ["GenerateRequest", "Generation", "GiveUp", "generate_texts"]


@dataclass(frozen=True)
class GiveUp:
    """Stop early if fewer than `min_share` of the texts of the first `n_first` prompts contain a match of the regular
    expression `pattern`."""

    n_first: int
    pattern: str
    min_share: float


@dataclass(frozen=True)
class GenerateRequest:
    """A request to generate text with one model.

    Attributes
    ----------
    path, name: the model's file, and how messages name the model.
    prompts: with text or tokens; their labels are ignored.
    max_tokens: most tokens to generate after each prompt.
    settings: how llama.cpp is run.
    stop_pattern: a regular expression; a text ends as soon as it contains a match. None: only the end of the model's
        turn ends a text early.
    give_up: when to stop early, or None.
    """

    path: str
    name: str
    prompts: tuple[Prompt, ...]
    max_tokens: int
    settings: CaptureSettings
    stop_pattern: str | None = None
    give_up: GiveUp | None = None


@dataclass(frozen=True)
class Generation:
    """The texts that one model generated.

    Attributes
    ----------
    texts: one for each prompt, in the prompts' order; only those of the first prompts if the run stopped early.
    n_prompt_tokens: tokens of the prompts that were run.
    n_generated: generated tokens, without those that end a turn.
    """

    texts: tuple[str, ...]
    n_prompt_tokens: int
    n_generated: int


def generate_texts(request: GenerateRequest, report: Callable[[CaptureProgress], None]) -> Generation:
    """Generates text after every prompt, always taking the most probable token.

    `report` gets the prompts and tokens done; its total of tokens is an upper limit.

    Raises
    ------
    InputError: a prompt does not fit the model (context, tokenizer), or a pattern is not a regular expression.
    ModelError: llama.cpp failed.
    """
    from edgecal.llama.generate import generate
    from edgecal.llama.model import Model
    from edgecal.llama.tokenizer import Tokenizer

    stop = None if request.stop_pattern is None else _compile(request.stop_pattern)
    expected = None if request.give_up is None else _compile(request.give_up.pattern)

    def on_load(share: float) -> None:
        report(CaptureProgress("load", 100 * share, 100))

    with Model(request.path, on_progress=on_load) as model:
        tokenizer = Tokenizer(model.vocab, model.n_vocab, request.name)
        tokens = [tokenizer.prompt_tokens(prompt) for prompt in request.prompts]
        for prompt, ids in zip(request.prompts, tokens, strict=True):
            if len(ids) + request.max_tokens > model.n_ctx_train:
                raise InputError(
                    f"{prompt.source}: the prompt has {len(ids)} tokens and {request.max_tokens} are to be "
                    f"generated, more than the context of {request.name}, which is {model.n_ctx_train}; shorten "
                    "the prompt or leave it out"
                )
        n_total = sum(map(len, tokens)) + request.max_tokens * len(tokens)
        report(CaptureProgress("run", 0, len(tokens), 0, n_total))
        texts: list[str] = []
        n_generated = n_run = 0
        for start, end in _parts(len(tokens), request.give_up):
            part = [""] * (end - start)
            n_before = n_run

            def on_run(n_prompts: int, n_tokens: int, start: int = start, n_before: int = n_before) -> None:
                nonlocal n_run
                n_run = n_before + n_tokens
                report(CaptureProgress("run", start + n_prompts, len(tokens), n_run, n_total))

            for generated in generate(
                model,
                tokenizer,
                tokens[start:end],
                request.settings,
                max_tokens=request.max_tokens,
                is_done=None if stop is None else lambda text: stop.search(text) is not None,
                progress=on_run,
            ):
                part[generated.index] = generated.text
                n_generated += len(generated.tokens)
            texts.extend(part)
            if expected is not None and request.give_up is not None and end < len(tokens):
                n_matching = sum(expected.search(text) is not None for text in texts)
                if n_matching < request.give_up.min_share * len(texts):
                    break
        return Generation(
            texts=tuple(texts),
            n_prompt_tokens=sum(map(len, tokens[: len(texts)])),
            n_generated=n_generated,
        )


def _parts(n_prompts: int, give_up: GiveUp | None) -> list[tuple[int, int]]:
    """Splits the prompts into the first ones, after which the run may stop, and the others."""
    cut = n_prompts if give_up is None else min(max(1, give_up.n_first), n_prompts)
    return [part for part in ((0, cut), (cut, n_prompts)) if part[0] < part[1]]


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise InputError(f"{pattern!r} is not a regular expression: {error}") from None
