"""Merges a block's several residual streams into the one that the final norm takes.

A row of the table of architectures can only name a merge; here each is a function of one token's streams after one
block, written after llama.cpp's graphs (`src/models/deepseek4.cpp`, `hy-v4.cpp`, `glm5-next.cpp`, `qwen4exp.cpp`,
`gemma3n.cpp`). The lens also applies it after earlier blocks. All arithmetic is float64, and a row's result depends
on that row alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgecal.architectures import Merge
from edgecal.gguf.tensors import GgmlType
from edgecal.lens.rounding import round_input

__all__ = ["MERGE_TENSORS", "Merger"]

FloatArray: TypeAlias = NDArray[np.float64]
Multiply: TypeAlias = Callable[[FloatArray, NDArray[np.float32], GgmlType], FloatArray]

# The tensors that each merge needs.
MERGE_TENSORS: dict[Merge, tuple[str, ...]] = {
    "sigmoid": ("output_hc_fn.weight", "output_hc_scale.weight", "output_hc_base.weight"),
    "mean": (),
    "gated": ("output_hc_norm.weight", "output_hc_down.weight", "output_hc_up.weight"),
    "altup": ("altup_unembd_proj.weight",),
}


@dataclass(frozen=True, eq=False)
class Merger:
    """Turns hidden states of several streams into hidden states of one.

    Attributes
    ----------
    kind: which merge.
    n_streams, n_embd: streams of a token, and floats in each.
    norm_eps: epsilon of the model's RMSNorm; mix_eps: added by "sigmoid" to each weight.
    tensors: float32 matrices, in the order of `MERGE_TENSORS`; types: their storage types.
    """

    kind: Merge
    n_streams: int
    n_embd: int
    norm_eps: float
    mix_eps: float
    tensors: tuple[NDArray[np.float32], ...]
    types: tuple[GgmlType, ...]

    def __call__(self, hidden: NDArray[np.float32], *, rounds: bool = False) -> NDArray[np.float32]:
        """Merge hidden states, float32 [..., n_streams * n_embd], into float32 [..., n_embd]. `rounds`: round the
        inputs of matrix products as llama.cpp does for the types of the matrices.

        Raises
        ------
        ValueError: sizes that do not match each other.
        """
        streams = hidden.reshape(-1, self.n_streams, self.n_embd).astype(np.float64)
        with np.errstate(all="ignore"):  # non-finite values pass through; the check refuses them
            merged = _FUNCTIONS[self.kind](streams, self, _multiply_rounded if rounds else _multiply)
        return merged.reshape(*hidden.shape[:-1], self.n_embd).astype(np.float32)


def _sigmoid(streams: FloatArray, merger: Merger, multiply: Multiply) -> FloatArray:
    """Weighted sum of the streams; the weights are sigmoids of a projection of all streams, normalized together."""
    mix, scale, base = merger.tensors
    flat = streams.reshape(len(streams), -1)
    mixes: FloatArray = multiply(_rms_norm(flat, merger.norm_eps), mix, merger.types[0])
    weights = _logistic(mixes * float(scale.ravel()[0]) + base.ravel()) + merger.mix_eps
    return _sum_streams(streams * weights[:, :, None])


def _mean(streams: FloatArray, merger: Merger, _: Multiply) -> FloatArray:
    return _sum_streams(streams) / merger.n_streams


def _gated(streams: FloatArray, merger: Merger, multiply: Multiply) -> FloatArray:
    """Mean of the streams, each normalized with its own weight; a gate for every number depends on all streams."""
    norm, down, up = merger.tensors
    normed = _rms_norm(streams, merger.norm_eps) * norm.reshape(merger.n_streams, merger.n_embd)
    low = multiply(normed.reshape(len(streams), -1), down, merger.types[1]) / merger.n_streams
    gate = _logistic(multiply(low * _logistic(low), up, merger.types[2])).reshape(normed.shape)
    return _sum_streams(normed * gate) / merger.n_streams


def _altup(streams: FloatArray, merger: Merger, multiply: Multiply) -> FloatArray:
    """Mean of the first stream and a projection of each other stream, scaled to the first one's norm."""
    matrices = merger.tensors[0].reshape(merger.n_streams - 1, merger.n_embd, merger.n_embd)
    total = streams[:, 0].copy()
    length = _length(total)
    for at, matrix in enumerate(matrices, start=1):
        other = multiply(np.ascontiguousarray(streams[:, at]), matrix, merger.types[0])
        total += other * (length / _length(other))
    merged: FloatArray = total / merger.n_streams
    return merged


_FUNCTIONS: dict[Merge, Callable[[FloatArray, Merger, Multiply], FloatArray]] = {
    "sigmoid": _sigmoid,
    "mean": _mean,
    "gated": _gated,
    "altup": _altup,
}


def _multiply(x: FloatArray, matrix: NDArray[np.float32], _: GgmlType) -> FloatArray:
    from edgecal.lens.kernels import multiply_rows

    return multiply_rows(x, matrix)


def _multiply_rounded(x: FloatArray, matrix: NDArray[np.float32], kind: GgmlType) -> FloatArray:
    return _multiply(
        round_input(x.astype(np.float32), kind.name, kind.block_elements).astype(np.float64), matrix, kind
    )


def _sum_streams(streams: FloatArray) -> FloatArray:
    total: FloatArray = streams[:, 0].copy()
    for at in range(1, streams.shape[1]):
        total += streams[:, at]
    return total


def _rms_norm(x: FloatArray, eps: float) -> FloatArray:
    normed: FloatArray = x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)
    return normed


def _length(x: FloatArray) -> FloatArray:
    length: FloatArray = np.sqrt(np.sum(x * x, axis=-1, keepdims=True))
    return length


def _logistic(x: FloatArray) -> FloatArray:
    result: FloatArray = 1.0 / (1.0 + np.exp(-x))
    return result
