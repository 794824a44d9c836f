"""What one model answers in its own words: the function that runs inside the worker process.

Does not know what the texts are for, nor how they are read.
"""

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
    """When to stop early: if fewer than `min_share` of the texts of the first `n_first` prompts match the
    regular expression `pattern` somewhere."""

    n_first: int
    pattern: str
    min_share: float


@dataclass(frozen=True)
class GenerateRequest:
    """One model and the prompts that it is to go on from.

    Attributes
    ----------
    path, name: the model's file, and how messages call it.
    prompts: with text or tokens; their labels are not looked at.
    max_tokens: tokens to generate at most after each.
    settings: how llama.cpp is run.
    stop_pattern: a regular expression; a text ends as soon as it matches somewhere. None: at the model's own
        end of its turn only.
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
    """What one model said.

    Attributes
    ----------
    texts: one for each prompt in its order; with `gave_up` only those of the first prompts.
    gave_up: whether it stopped early.
    n_prompt_tokens, n_generated: tokens of the prompts that were run, and generated after them (without the
        tokens that end a turn).
    llama_cpp, system_info: versions and processor features in use.
    """

    texts: tuple[str, ...]
    gave_up: bool
    n_prompt_tokens: int
    n_generated: int
    llama_cpp: str
    system_info: str


def generate_texts(request: GenerateRequest, report: Callable[[CaptureProgress], None]) -> Generation:
    """Lets one model go on from every prompt, always with its most probable token.

    `report` is told the prompts and tokens done; the total of tokens is the most that there can be.

    Raises
    ------
    InputError: a prompt does not fit the model (context, tokenizer), or a pattern is no regular expression.
    ModelError: llama.cpp failed.
    """
    from edgecal.llama.generate import generate
    from edgecal.llama.library import describe_llama_cpp, system_info
    from edgecal.llama.model import Model
    from edgecal.llama.tokenizer import Tokenizer

    stop = None if request.stop_pattern is None else _compile(request.stop_pattern)
    hope = None if request.give_up is None else _compile(request.give_up.pattern)

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
        gave_up = False
        for start, end in _parts(len(tokens), request.give_up):
            part = [""] * (end - start)
            n_before = n_run

            def on_run(n_prompts: int, n_tokens: int, start: int = start, n_before: int = n_before) -> None:
                nonlocal n_run
                n_run = n_before + n_tokens
                report(CaptureProgress("run", start + n_prompts, len(tokens), n_run, n_total))

            for said in generate(
                model,
                tokenizer,
                tokens[start:end],
                request.settings,
                max_tokens=request.max_tokens,
                is_done=None if stop is None else lambda text: stop.search(text) is not None,
                progress=on_run,
            ):
                part[said.index] = said.text
                n_generated += len(said.tokens)
            texts.extend(part)
            if hope is not None and request.give_up is not None and end < len(tokens):
                n_hopeful = sum(hope.search(text) is not None for text in texts)
                if n_hopeful < request.give_up.min_share * len(texts):
                    gave_up = True
                    break
        return Generation(
            texts=tuple(texts),
            gave_up=gave_up,
            n_prompt_tokens=sum(map(len, tokens[: len(texts)])),
            n_generated=n_generated,
            llama_cpp=describe_llama_cpp(),
            system_info=system_info(),
        )


def _parts(n_prompts: int, give_up: GiveUp | None) -> list[tuple[int, int]]:
    """The first prompts, after which it may stop, and the others."""
    cut = n_prompts if give_up is None else min(max(1, give_up.n_first), n_prompts)
    return [part for part in ((0, cut), (cut, n_prompts)) if part[0] < part[1]]


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise InputError(f"{pattern!r} is no regular expression: {error}") from None
