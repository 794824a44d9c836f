"""Runs a model with its last block's output pushed to a size at which the final norm's epsilon counts.

Hidden states of real models are so large that the epsilon, and with it a wrong one, changes no bit of the logits after
the last block; after the first blocks, where the lens uses it too, it may. llama.cpp adds a control vector to a block's
output: one that is the output's opposite but for a small rest leaves the final norm that rest.

Does not know what the numbers are for.
"""

from __future__ import annotations

from typing import TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from edgecal.architectures import ResidualStream
from edgecal.errors import ModelError
from edgecal.llama.context import Context, TokenBatch
from edgecal.llama.library import steady_experts
from edgecal.llama.model import Model
from edgecal.llama.packing import CACHE_STEP
from edgecal.llama.settings import CaptureSettings

__all__ = ["run_with_small_ending"]

N_TOKENS = 8

SmallEnding: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32]] | None

# A model that stays loaded is judged anew for each part of the prompts, and says the same every time.
_kept: WeakKeyDictionary[Model, dict[object, SmallEnding]] = WeakKeyDictionary()

# How far the size may be from what was asked for: less tells that the vector did not reach what was captured.
_FACTOR = 2.0


def run_with_small_ending(
    model: Model, settings: CaptureSettings, stream: ResidualStream, size: float, *, centered: bool
) -> SmallEnding:
    """One prompt of fixed tokens whose last block's output has that root mean square (`centered`: about its mean).

    Returns
    -------
    The last block's output as it was captured, float32 [n_embd], and llama.cpp's logits, float32 [n_vocab]; None where
    llama.cpp does not let the last block be steered: several streams, a single block, a graph that adds the vector
    elsewhere or then has two tensors of the name that is captured (BitNet). A model that fails altogether gives None
    too, and its error when it is run.
    """
    if stream.n_streams > 1 or model.n_layer < 2:
        return None
    kept, key = _kept.setdefault(model, {}), (settings, stream, size, centered)
    if key not in kept:
        try:
            kept[key] = _run(model, settings, stream, size, centered)
        except ModelError:
            kept[key] = None
    return kept[key]


def _run(
    model: Model, settings: CaptureSettings, stream: ResidualStream, size: float, centered: bool
) -> SmallEnding:
    if model.n_expert > 0:
        steady_experts()
    n = min(N_TOKENS, model.n_ctx_train)
    tokens = (np.arange(n, dtype=np.int64) * 2 + 1) * model.n_vocab // (2 * n)
    wanted = np.full(n, -1, np.int32)
    wanted[-1] = 0
    batch = TokenBatch(
        tokens=tokens.astype(np.int32),
        positions=np.arange(n, dtype=np.int32),
        seq_ids=np.zeros(n, np.int32),
        wanted=wanted,
        outputs=wanted >= 0,
    )
    logits = np.zeros((1, model.n_vocab), np.float32)
    hidden = np.zeros((1, model.n_layer, model.n_embd), np.float32)
    captured = np.zeros((1, model.n_layer), np.uint8)
    with Context(
        model, settings, n_ctx_seq=CACHE_STEP, n_seq_max=1, n_outputs_max=1, hidden=True, stream=stream
    ) as context:

        def run(vector: NDArray[np.float32]) -> NDArray[np.float32] | None:
            if not context.steer_last_block(vector):
                return None
            context.clear()
            context.decode(batch, logits, hidden, captured)
            last: NDArray[np.float32] = hidden[0, -1].copy()
            return last

        # The first time with zeros, so that the graph is the same both times.
        plain = run(np.zeros(model.n_embd, np.float32))
        if plain is None or not (found := _size(plain, centered)) > 0:
            return None
        small = run(plain * np.float32(size / found) - plain)
        if small is None or not size / _FACTOR < _size(small, centered) < size * _FACTOR:
            return None
        return small, logits[0]


def _size(x: NDArray[np.float32], centered: bool) -> float:
    wide = x.astype(np.float64)
    return float(wide.std() if centered else np.sqrt(np.mean(wide * wide)))
