"""Applies one model's final norm and head to given hidden states: the function that runs inside the worker process.

Only the vocabulary and the head's rows are read, since no block is computed. It runs in a worker because llama.cpp's
library resolves the labels and dequantizes the rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgecal.errors import ModelError
from edgecal.pair.model_capture import CaptureProgress, CaptureRequest

__all__ = ["ProjectRequest", "project_states"]


@dataclass(frozen=True)
class ProjectRequest:
    """A request to turn hidden states into logits of the prompts' choices.

    Attributes
    ----------
    model: the model and its n prompts.
    states: float32 [m, n_embd], the last block's hidden states with their streams merged.
    owners: int64 [m], the prompt that each state belongs to.
    """

    model: CaptureRequest
    states: NDArray[np.float32]
    owners: NDArray[np.int64]


def project_states(request: ProjectRequest, report: Callable[[CaptureProgress], None]) -> NDArray[np.float32]:
    """Returns the logits of the choices by the model's own norm and head, float32 [m, k_max], padded with -inf.

    Raises
    ------
    InputError: a prompt does not fit the model.
    ModelError: the head cannot be read or has another width.
    """
    from edgecal.lens import project, read_head
    from edgecal.llama.library import dequantize_rows
    from edgecal.pair.resident_model import read_shards
    from edgecal.pair.worker_prompts import read_vocabulary, resolve_prompts

    with read_vocabulary(request.model) as (tokenizer, n_ctx_train):
        choices = [item.choice_tokens for item in resolve_prompts(request.model, tokenizer, n_ctx_train)]
    ids = np.unique(np.concatenate(choices))
    head = replace(read_head(read_shards(request.model.path), ids, dequantize_rows), merge=None)
    if head.n_embd != request.states.shape[1]:
        raise ModelError(
            f"{request.model.name} has hidden states of {head.n_embd} numbers, got {request.states.shape[1]}"
        )
    rows = np.full((len(request.states), max(map(len, choices))), -1, dtype=np.int32)
    for row, owner in zip(rows, request.owners.tolist(), strict=True):
        row[: len(choices[owner])] = np.searchsorted(ids, choices[owner])
    return project(request.states[:, None, :], head, rows)[:, 0]
