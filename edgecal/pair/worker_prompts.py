"""Checks whether prompts fit a model, and resolves them to token ids. Needs the vocabulary, not the weights."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgecal.errors import InputError
from edgecal.pair.model_capture import CaptureProgress, CaptureRequest
from edgecal.prompts.records import Prompt

if TYPE_CHECKING:
    from edgecal.llama.tokenizer import ResolvedPrompt, Tokenizer

__all__ = [
    "check_prompts",
    "choice_tokens",
    "find_misfits",
    "read_vocabulary",
    "resolve_prompts",
    "warn_of_marks",
]


def check_prompts(request: CaptureRequest, report: Callable[[CaptureProgress], None]) -> None:
    """Checks that the prompts fit a model, without loading its weights.

    Raises
    ------
    InputError, ModelError: those errors of `capture_model` that depend on the prompts and the vocabulary only.
    """
    with read_vocabulary(request) as (tokenizer, n_ctx_train):
        resolve_prompts(request, tokenizer, n_ctx_train)


def find_misfits(request: CaptureRequest, report: Callable[[CaptureProgress], None]) -> list[tuple[int, str]]:
    """Returns the prompts that do not fit a model, each as its index and the message of `capture_model`.

    Raises
    ------
    ModelError: the file's vocabulary cannot be read.
    """
    with read_vocabulary(request) as (tokenizer, n_ctx_train):

        def find_flaw(prompt: Prompt) -> str | None:
            try:
                _resolve_one(prompt, request.name, tokenizer, n_ctx_train)
            except InputError as error:
                return str(error)
            return None

        flaws = [(index, find_flaw(prompt)) for index, prompt in enumerate(request.prompts)]
    return [(index, flaw) for index, flaw in flaws if flaw is not None]


def choice_tokens(request: CaptureRequest, report: Callable[[CaptureProgress], None]) -> NDArray[np.int32]:
    """Returns each prompt's choice tokens, int32 [n, k_max], padded with -1; raises as `check_prompts`."""
    with read_vocabulary(request) as (tokenizer, n_ctx_train):
        rows = [item.choice_tokens for item in resolve_prompts(request, tokenizer, n_ctx_train)]
    tokens = np.full((len(rows), max(map(len, rows))), -1, dtype=np.int32)
    for row, ids in zip(tokens, rows, strict=True):
        row[: len(ids)] = ids
    return tokens


@contextlib.contextmanager
def read_vocabulary(request: CaptureRequest) -> Iterator[tuple[Tokenizer, int]]:
    """Yields the tokenizer and the length of the context; loads no weights."""
    from edgecal.llama.model import Model
    from edgecal.llama.tokenizer import Tokenizer
    from edgecal.pair.resident_model import read_shards

    with Model(request.path, vocab_only=True) as model:
        n_ctx_train = read_shards(request.path).header.get(f"{model.architecture}.context_length")
        if not isinstance(n_ctx_train, int):
            n_ctx_train = sys.maxsize  # llama.cpp will report the error when it loads the file
        yield Tokenizer(model.vocab, model.n_vocab, request.name), n_ctx_train


def resolve_prompts(request: CaptureRequest, tokenizer: Tokenizer, n_ctx_train: int) -> list[ResolvedPrompt]:
    """Returns the token ids of every prompt and its choices; raises InputError for the first that does not fit."""
    return [_resolve_one(prompt, request.name, tokenizer, n_ctx_train) for prompt in request.prompts]


def warn_of_marks(
    request: CaptureRequest, resolved: Sequence[ResolvedPrompt], tokenizer: Tokenizer
) -> list[str]:
    """Returns one warning if ready-made prompts spell control tokens, otherwise none."""
    pairs = zip(request.prompts, resolved, strict=True)
    spelled = dict.fromkeys(
        m for prompt, item in pairs for m in tokenizer.marks_of(prompt, item.tokens.tolist())
    )
    if not spelled:
        return []
    shown = ", ".join(map(repr, list(spelled)[:3])) + (", ..." if len(spelled) > 3 else "")
    return [
        f"ready-made prompts contain the text of control tokens of {request.name} ({shown}), and the model gets them "
        'as control tokens; to have such text tokenized as plain text, give it as {"question": ..., "choices": ...}'
    ]


def _resolve_one(prompt: Prompt, name: str, tokenizer: Tokenizer, n_ctx_train: int) -> ResolvedPrompt:
    resolved = tokenizer.resolve(prompt)
    if len(resolved.tokens) > n_ctx_train:
        raise InputError(
            f"{prompt.source}: the prompt has {len(resolved.tokens)} tokens, more than the context of "
            f"{name}, which is {n_ctx_train}; shorten the prompt or leave it out"
        )
    return resolved
