"""Runs a model with its last block's output made so small that the final norm's epsilon matters.

After the last block, hidden states of real models are so large that the epsilon, even a wrong one, changes no bit of
the logits; after the first blocks, where the lens uses the epsilon too, it may. llama.cpp can add a control vector to a
block's output: a vector that cancels all but a small rest of the output leaves that rest to the final norm.
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

# The results of each loaded model, by arguments: a resident model is judged again for each part of the prompts, with
# the same result.
_results: WeakKeyDictionary[Model, dict[object, SmallEnding]] = WeakKeyDictionary()

# The size may differ from the requested one by less than this factor; otherwise the vector was not added to the tensor
# that is captured.
_FACTOR = 2.0


def run_with_small_ending(
    model: Model, settings: CaptureSettings, stream: ResidualStream, size: float, *, centered: bool
) -> SmallEnding:
    """Runs one prompt of fixed tokens with a last block's output of root mean square `size` (`centered`: of standard
    deviation `size`).

    Returns
    -------
    The last block's output as captured, float32 [n_embd], and llama.cpp's logits, float32 [n_vocab]. None where the
    last block cannot be steered: several streams, a single block, a graph that adds the vector elsewhere or then has
    two tensors with the captured name (BitNet). None also where the model cannot run at all; the capture proper then
    raises the error.
    """
    if stream.n_streams > 1 or model.n_layer < 2:
        return None
    results, key = _results.setdefault(model, {}), (settings, stream, size, centered)
    if key not in results:
        try:
            results[key] = _run(model, settings, stream, size, centered)
        except ModelError:
            results[key] = None
    return results[key]


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

        # The first run adds zeros, so that both runs compute the same graph.
        plain = run(np.zeros(model.n_embd, np.float32))
        if plain is None or not (plain_size := _size(plain, centered)) > 0:
            return None
        small = run(plain * np.float32(size / plain_size) - plain)
        if small is None or not size / _FACTOR < _size(small, centered) < size * _FACTOR:
            return None
        return small, logits[0]


def _size(x: NDArray[np.float32], centered: bool) -> float:
    wide = x.astype(np.float64)
    return float(wide.std() if centered else np.sqrt(np.mean(wide * wide)))
