"""The light kernels over prompts: softmax, rows of the process loss, sums of rows, peak divergence layers.

Free functions on arrays without policy, with the conventions of `edgecal.calibration.kernels`.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from edgecal.calibration.choice_logits import FloatArray, IntArray
from edgecal.jit import inner, kernel

__all__ = ["accumulate_rows", "add_process_rows", "peak_divergence_layers", "softmax_rows"]


@inner
def _softmax(z: FloatArray, k: int, beta: float, p: FloatArray) -> tuple[float, float]:
    """p = softmax(beta z) over the first k; returns (log of the sum, largest logit).

    The sum is of exp(beta (z - max)), between 1 and k, so nothing overflows and log p[j] is exactly
    beta (z[j] - max) - log of the sum.
    """
    top = np.float64(z[0])
    for j in range(1, k):
        if z[j] > top:
            top = np.float64(z[j])
    total = 0.0
    for j in range(k):
        p[j] = math.exp(beta * (z[j] - top))
        total += p[j]
    for j in range(k):
        p[j] /= total
    return math.log(total), top


@kernel(parallel=True)
def softmax_rows(logits: FloatArray, n_choices: IntArray) -> FloatArray:
    """Softmax over the first n_choices[i] entries of each row; zeros behind them.

    logits [n, k_max] float, n_choices [n] int; returns float64 [n, k_max].
    """
    n, k_max = logits.shape
    out = np.zeros((n, k_max))
    for i in prange(n):
        _softmax(logits[i], n_choices[i], 1.0, out[i])
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
    """Add rows[i] to sums[groups[i]], one after the other: the same bits however the rows are cut into calls.

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
