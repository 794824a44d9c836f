"""Kernels over prompts: the confidence loss at many temperatures, agreement, softmax, the process loss, peak layers.

They follow the conventions of `edgecal.calibration.layer_kernels`.

conf = KL(target || softmax(beta z)) = negentropy + ln S - beta wanted. With d[j] = z[j] - max z, S is the sum of
exp(beta d[j]), wanted is E_target[d] and negentropy is E_target[ln target]. It is convex in beta: its derivative is
E_softmax[d] - wanted, and its second derivative is Var_softmax(d).
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from edgecal.calibration.arrays import BoolArray, FloatArray, IntArray
from edgecal.calibration.vector_math import exp_row, log_row
from edgecal.jit import kernel

__all__ = [
    "accumulate_rows",
    "add_confidence_rows",
    "add_evidence_rows",
    "add_process_rows",
    "agreeing_rows",
    "confidence_columns",
    "confidence_sums",
    "peak_divergence_layers",
    "softmax_rows",
]

_BLOCK_ROWS = 64  # rows that share scratch memory
_NO_CHOICE = -1e100  # d of padding: exp gives 0, and 0 times its square is 0; -inf would give NaN


@kernel(parallel=True)
def add_confidence_rows(
    targets: FloatArray,
    logits: FloatArray,
    n_choices: IntArray,
    weights: FloatArray,
    betas: FloatArray,
    losses: FloatArray,
    slopes: FloatArray,
) -> None:
    """Add weights[i] KL(targets[i] || softmax(beta logits[i])) to losses and its slope in ln tau to slopes.

    targets [n, k_max] float64 distributions (one-hot: the negative log-likelihood), logits [n, k_max] float,
    losses and slopes [n, n_beta].
    """
    n, k_max = logits.shape
    n_beta = betas.shape[0]
    for block in prange((n + _BLOCK_ROWS - 1) // _BLOCK_ROWS):
        powers, spares = np.empty(k_max * n_beta), np.empty(k_max * n_beta)
        scratch = np.empty((4, n_beta))
        total, mean, logs, spare = scratch[0], scratch[1], scratch[2], scratch[3]
        for i in range(block * _BLOCK_ROWS, min((block + 1) * _BLOCK_ROWS, n)):
            k = n_choices[i]
            top = np.float64(logits[i, 0])
            for j in range(1, k):
                if logits[i, j] > top:
                    top = np.float64(logits[i, j])
            negentropy = 0.0
            wanted = 0.0
            for j in range(k):
                d = logits[i, j] - top
                if targets[i, j] != 0.0:
                    negentropy += targets[i, j] * math.log(targets[i, j])
                    wanted += targets[i, j] * d
                for t in range(n_beta):
                    powers[j * n_beta + t] = betas[t] * d
            exp_row(powers[: k * n_beta], spares[: k * n_beta])
            for t in range(n_beta):
                total[t] = 0.0
                mean[t] = 0.0
            for j in range(k):
                d = logits[i, j] - top
                for t in range(n_beta):
                    total[t] += powers[j * n_beta + t]
                    mean[t] += powers[j * n_beta + t] * d
            log_row(total, logs, spare)
            weight = weights[i]
            loss_row = losses[i]
            slope_row = slopes[i]
            for t in range(n_beta):
                loss = negentropy + logs[t] - betas[t] * wanted
                loss_row[t] += weight * (0.0 if loss < 0.0 else loss)
                slope_row[t] -= betas[t] * weight * (mean[t] / total[t] - wanted)


@kernel(parallel=True)
def add_evidence_rows(
    evidence: FloatArray,
    targets: FloatArray,
    logits: FloatArray,
    n_choices: IntArray,
    betas: FloatArray,
    rows: FloatArray,
) -> None:
    """Add < targets[i] - softmax(beta logits[i]), evidence[i] > to rows [n, n_beta].

    evidence, logits [n, k_max] float, targets [n, k_max] float64 distributions. Both distributions sum to 1, so a
    constant added to the evidence changes nothing.
    """
    n = logits.shape[0]
    n_beta = betas.shape[0]
    for block in prange((n + _BLOCK_ROWS - 1) // _BLOCK_ROWS):
        power, spare, total, mean = np.empty(n_beta), np.empty(n_beta), np.empty(n_beta), np.empty(n_beta)
        for i in range(block * _BLOCK_ROWS, min((block + 1) * _BLOCK_ROWS, n)):
            k = n_choices[i]
            top, most = np.float64(logits[i, 0]), np.float64(evidence[i, 0])
            for j in range(1, k):
                if logits[i, j] > top:
                    top = np.float64(logits[i, j])
                if evidence[i, j] > most:
                    most = np.float64(evidence[i, j])
            wanted = 0.0
            for t in range(n_beta):
                total[t] = 0.0
                mean[t] = 0.0
            for j in range(k):
                worth = evidence[i, j] - most
                if targets[i, j] != 0.0:
                    wanted += targets[i, j] * worth
                for t in range(n_beta):
                    power[t] = betas[t] * (logits[i, j] - top)
                exp_row(power, spare)
                for t in range(n_beta):
                    total[t] += power[t]
                    mean[t] += power[t] * worth
            for t in range(n_beta):
                rows[i, t] += wanted - mean[t] / total[t]


@kernel()
def confidence_columns(
    targets: FloatArray, logits: FloatArray, n_choices: IntArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Transpose the prompts into columns for `confidence_sums`: (d [k_max, n], wanted [n], negentropy [n]).

    All float64. targets and logits as for `add_confidence_rows`.
    """
    n, k_max = logits.shape
    gaps = np.empty((k_max, n))
    wanted = np.zeros(n)
    negentropy = np.zeros(n)
    scratch = np.empty((3, _BLOCK_ROWS))
    for start in range(0, n, _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, n)
        column, logs, spare = (
            scratch[0, : stop - start],
            scratch[1, : stop - start],
            scratch[2, : stop - start],
        )
        for i in range(start, stop):
            k = n_choices[i]
            top = np.float64(logits[i, 0])
            for j in range(1, k):
                if logits[i, j] > top:
                    top = np.float64(logits[i, j])
            for j in range(k_max):
                gaps[j, i] = logits[i, j] - top if j < k else _NO_CHOICE
        for j in range(k_max):
            for i in range(start, stop):
                column[i - start] = targets[i, j]
            log_row(column, logs, spare)
            for i in range(start, stop):
                wanted[i] += targets[i, j] * gaps[j, i]
                negentropy[i] += targets[i, j] * logs[i - start]
    return gaps, wanted, negentropy


@kernel()
def confidence_sums(
    gaps: FloatArray, wanted: FloatArray, negentropy: FloatArray, weights: FloatArray, beta: float
) -> tuple[float, float, float]:
    """Sum of weights[i] conf_i at one beta, and its first and second derivative in beta.

    gaps (d), wanted and negentropy come from `confidence_columns`. The order of summation is fixed.
    """
    k_max, n = gaps.shape
    sums = np.zeros((3, _BLOCK_ROWS))
    scratch = np.empty((6, _BLOCK_ROWS))
    for start in range(0, n, _BLOCK_ROWS):
        size = min(_BLOCK_ROWS, n - start)
        power, spare, total = scratch[0, :size], scratch[1, :size], scratch[2, :size]
        mean, square, logs = scratch[3, :size], scratch[4, :size], scratch[5, :size]
        for t in range(size):
            total[t] = 0.0
            mean[t] = 0.0
            square[t] = 0.0
        for j in range(k_max):
            column = gaps[j, start : start + size]
            for t in range(size):
                power[t] = beta * column[t]
            exp_row(power, spare)
            for t in range(size):
                total[t] += power[t]
                mean[t] += power[t] * column[t]
                square[t] += power[t] * column[t] * column[t]
        log_row(total, logs, spare)
        for t in range(size):
            i = start + t
            loss = negentropy[i] + logs[t] - beta * wanted[i]
            middle = mean[t] / total[t]
            sums[0, t] += weights[i] * (0.0 if loss < 0.0 else loss)
            sums[1, t] += weights[i] * (middle - wanted[i])
            sums[2, t] += weights[i] * (square[t] / total[t] - middle * middle)
    return sums[0].sum(), sums[1].sum(), sums[2].sum()


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
