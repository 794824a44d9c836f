"""The light kernels over prompts: agreement, softmax, rows of the process loss, sums of rows, peak layers.

They follow the conventions of `edgecal.calibration.layer_kernels`.
"""

from __future__ import annotations

import numpy as np

from edgecal.calibration.arrays import BoolArray, FloatArray, IntArray
from edgecal.calibration.vector_math import exp_row
from edgecal.jit import kernel

__all__ = ["accumulate_rows", "add_process_rows", "agreeing_rows", "peak_divergence_layers", "softmax_rows"]

_BLOCK_ROWS = 64  # rows that share scratch memory


@kernel()
def agreeing_rows(base: FloatArray, chat: FloatArray) -> BoolArray:
    """bool [n]: whether both rows have their largest entry at the same index (ties: the lowest); float [n, k_max]."""
    n, k_max = base.shape
    out = np.empty(n, dtype=np.bool_)
    for i in range(n):
        of_base, of_chat = 0, 0
        top_base, top_chat = base[i, 0], chat[i, 0]
        for j in range(1, k_max):  # selects instead of branches, which the processor could not predict
            higher = base[i, j] > top_base
            of_base, top_base = (j, base[i, j]) if higher else (of_base, top_base)
            higher = chat[i, j] > top_chat
            of_chat, top_chat = (j, chat[i, j]) if higher else (of_chat, top_chat)
        out[i] = of_base == of_chat
    return out


@kernel()
def softmax_rows(logits: FloatArray, n_choices: IntArray) -> FloatArray:
    """Softmax over the first n_choices[i] entries of each row; zeros after them.

    logits [n, k_max] float, n_choices [n] int; returns float64 [n, k_max].
    """
    n, k_max = logits.shape
    out = np.empty((n, k_max))
    spare = np.empty(_BLOCK_ROWS * k_max)
    for start in range(0, n, _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, n)
        for i in range(start, stop):
            k = n_choices[i]
            top = np.float64(logits[i, 0])
            for j in range(1, k):
                if logits[i, j] > top:
                    top = np.float64(logits[i, j])
            for j in range(k_max):
                out[i, j] = logits[i, j] - top if j < k else -np.inf
        exp_row(out[start:stop].reshape(-1), spare[: (stop - start) * k_max])
        for i in range(start, stop):
            total = 0.0
            for j in range(n_choices[i]):
                total += out[i, j]
            for j in range(n_choices[i]):
                out[i, j] /= total
    return out


@kernel()
def add_process_rows(
    entropies: FloatArray,
    slopes: FloatArray,
    reference: FloatArray,
    weights: FloatArray,
    losses: FloatArray,
    loss_slopes: FloatArray,
) -> None:
    """Add weights[i] (ISE_i - reference[i])^2 to losses [n, n_beta], and its slope in ln tau to loss_slopes.

    entropies and slopes [n, n_beta] from `stability_entropy`; reference [n] is the base model's ISE.
    """
    for i in range(entropies.shape[0]):
        for t in range(entropies.shape[1]):
            gap = entropies[i, t] - reference[i]
            losses[i, t] += weights[i] * gap * gap
            loss_slopes[i, t] += weights[i] * 2.0 * gap * slopes[i, t]


@kernel()
def accumulate_rows(rows: FloatArray, groups: IntArray, sums: FloatArray) -> None:
    """Add rows[i] to sums[groups[i]] in order, so that the bits do not depend on how the rows are split into calls.

    rows float64 [n, n_beta], groups int [n], sums float64 [n_groups, n_beta].
    """
    for i in range(rows.shape[0]):
        for t in range(rows.shape[1]):
            sums[groups[i], t] += rows[i, t]


def peak_divergence_layers(profile: FloatArray) -> IntArray:
    """Peak divergence layer of each prompt: argmax over l = 2..L of |d[l] - d[l-1]|, ties to the lowest.

    profile float64 [n, n_layer] from `divergence_profile`, n_layer >= 2; returns int64 [n], layers from 1.
    """
    jumps = np.abs(np.diff(profile, axis=1))
    peaks: IntArray = np.argmax(jumps, axis=1) + 2
    return peaks
