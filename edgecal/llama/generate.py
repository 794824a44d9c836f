"""Generates text after a prompt by greedy decoding, always taking the most probable token.

A text depends only on the model, the prompt's tokens and the settings: each prompt is alone in the context's memory,
and a tie goes to the lowest token id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from edgecal.errors import InputError, ModelError
from edgecal.llama.context import Context, TokenBatch
from edgecal.llama.decode_rows import decode_cuts
from edgecal.llama.model import Model
from edgecal.llama.packing import cache_size
from edgecal.llama.settings import CaptureSettings
from edgecal.llama.tokenizer import Tokenizer

__all__ = ["GeneratedText", "generate"]


@dataclass(frozen=True)
class GeneratedText:
    """The text that a model generated after one prompt.

    Attributes
    ----------
    index: the prompt's index.
    text: without the prompt and without the token that ended it; bytes that are not UTF-8 become U+FFFD.
    tokens: int32 [n_generated], the text's token ids.
    """

    index: int
    text: str
    tokens: NDArray[np.int32]


def generate(
    model: Model,
    tokenizer: Tokenizer,
    prompts: Sequence[NDArray[np.int32]],
    settings: CaptureSettings,
    *,
    max_tokens: int,
    is_done: Callable[[str], bool] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[GeneratedText]:
    """Generates after each prompt until the model ends its turn, `is_done` holds, or `max_tokens` are generated.

    Yields the texts in the order of computation, short prompts first.

    Parameters
    ----------
    model, tokenizer: a loaded model and its tokenizer.
    prompts: token ids of each prompt, at least one token each, all in the vocabulary.
    settings: how llama.cpp is run; prompts never share a decode.
    max_tokens: most tokens to generate after a prompt, at least 1.
    is_done: called with the text so far after each token; ends the text if it returns true.
    progress: called with (prompts done, tokens run and generated) after each decode.

    Raises
    ------
    InputError: a prompt and max_tokens together exceed the model's context, or max_tokens is below 1; raised before
        anything is run.
    ModelError: llama.cpp failed, or its logits are not finite.
    """
    if max_tokens < 1:
        raise InputError(f"the number of tokens to generate must be at least 1, got {max_tokens}")
    for index, prompt in enumerate(prompts):
        if len(prompt) + max_tokens > model.n_ctx_train:
            raise InputError(
                f"prompt {index} (from 0) has {len(prompt)} tokens and {max_tokens} are to be generated, but the "
                f"context of {model.path} is {model.n_ctx_train}; shorten or leave out this prompt"
            )
    return _run(model, tokenizer, prompts, settings, max_tokens, is_done, progress)


def _run(
    model: Model,
    tokenizer: Tokenizer,
    prompts: Sequence[NDArray[np.int32]],
    settings: CaptureSettings,
    max_tokens: int,
    is_done: Callable[[str], bool] | None,
    progress: Callable[[int, int], None] | None,
) -> Iterator[GeneratedText]:
    n_prompts_done = n_tokens_done = 0
    by_size: dict[int, list[int]] = {}
    for index in sorted(range(len(prompts)), key=lambda index: len(prompts[index])):
        by_size.setdefault(cache_size(len(prompts[index]) + max_tokens), []).append(index)
    for size, indices in by_size.items():
        with Context(model, settings, n_ctx_seq=size, n_seq_max=1, n_outputs_max=1, hidden=False) as context:
            for index in indices:
                context.clear()
                text = b""
                tokens: list[int] = []
                for n_run, token in _most_probable(model, context, prompts[index], max_tokens):
                    n_tokens_done += n_run
                    if token is not None and not tokenizer.ends_generation(token):
                        tokens.append(token)
                        text += tokenizer.piece_bytes(token)
                    elif token is not None:
                        break
                    if progress is not None:
                        progress(n_prompts_done, n_tokens_done)
                    if token is not None and is_done is not None and is_done(text.decode("utf-8", "replace")):
                        break
                n_prompts_done += 1
                if progress is not None:
                    progress(n_prompts_done, n_tokens_done)
                yield GeneratedText(index, text.decode("utf-8", "replace"), np.array(tokens, dtype=np.int32))


def _most_probable(
    model: Model, context: Context, prompt: NDArray[np.int32], max_tokens: int
) -> Iterator[tuple[int, int | None]]:
    """Yields after each decode (its tokens, the most probable next token; None before the prompt's end)."""
    logits = np.full((1, model.n_vocab), np.nan, dtype=np.float32)
    cuts = decode_cuts(len(prompt), context.n_ubatch)
    for start, stop in pairwise([0, *cuts, len(prompt)]):
        last = stop == len(prompt)
        context.decode(_batch(prompt[start:stop], start, wanted=last), logits, None, None)
        yield stop - start, _argmax(model, logits) if last else None
    for at in range(len(prompt), len(prompt) + max_tokens - 1):
        token = np.array([_argmax(model, logits)], dtype=np.int32)
        context.decode(_batch(token, at, wanted=True), logits, None, None)
        yield 1, _argmax(model, logits)


def _batch(tokens: NDArray[np.int32], start: int, *, wanted: bool) -> TokenBatch:
    slots = np.full(len(tokens), -1, dtype=np.int32)
    if wanted:
        slots[-1] = 0
    positions = np.arange(start, start + len(tokens), dtype=np.int32)
    return TokenBatch(
        np.asarray(tokens, dtype=np.int32), positions, np.zeros_like(positions), slots, slots >= 0
    )


def _argmax(model: Model, logits: NDArray[np.float32]) -> int:
    if not (logits < np.inf).all():  # a masked token's logit may be minus infinity
        raise ModelError(f"{model.path}: the logits are not finite numbers; are the model's weights damaged?")
    return int(logits[0].argmax())
