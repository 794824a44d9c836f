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
from edgecal.pair.worker_prompts import choice_tokens

__all__ = ["LabelLogits", "ProjectRequest", "pick", "project_states"]


@dataclass(frozen=True)
class ProjectRequest:
    """A request for the logits of all labels from hidden states.

    Attributes
    ----------
    model: the model and its n prompts, which say what labels there are.
    states: float32 [m, n_embd], the last block's hidden states with their streams merged.
    """

    model: CaptureRequest
    states: NDArray[np.float32]


@dataclass(frozen=True)
class LabelLogits:
    """A model's logits of all labels that n prompts have.

    Attributes
    ----------
    token_ids: int32 [r], the labels' tokens, ascending.
    columns: int64 [n, k_max], for each prompt's choices their places in `token_ids`; -1 is padding.
    logits: float32 [m, r], by the model's own norm and head from m hidden states.
    """

    token_ids: NDArray[np.int32]
    columns: NDArray[np.int64]
    logits: NDArray[np.float32]


def pick(logits: NDArray[np.floating], columns: NDArray[np.int64]) -> NDArray[np.float32]:
    """The logits of each prompt's choices: float [n, r] at int [n, k_max] as float32, -inf where that is -1."""
    chosen = np.take_along_axis(logits, np.maximum(columns, 0), axis=1)
    return np.where(columns < 0, -np.inf, chosen).astype(np.float32)


def project_states(request: ProjectRequest, report: Callable[[CaptureProgress], None]) -> LabelLogits:
    """Returns the logits of all labels by the model's own norm and head.

    Raises
    ------
    InputError: a prompt does not fit the model.
    ModelError: the head cannot be read or has another width.
    """
    from edgecal.lens import project, read_head
    from edgecal.llama.library import dequantize_rows
    from edgecal.pair.resident_model import read_shards

    tokens = choice_tokens(request.model, report)
    ids = np.unique(tokens[tokens >= 0])
    head = replace(read_head(read_shards(request.model.path), ids, dequantize_rows), merge=None)
    if head.n_embd != request.states.shape[1]:
        raise ModelError(
            f"{request.model.name} has hidden states of {head.n_embd} numbers, got {request.states.shape[1]}"
        )
    every = np.tile(np.arange(len(ids), dtype=np.int32), (len(request.states), 1))
    logits = project(request.states[:, None, :], head, every)[:, 0]
    return LabelLogits(ids, np.where(tokens < 0, -1, np.searchsorted(ids, tokens)), logits)
