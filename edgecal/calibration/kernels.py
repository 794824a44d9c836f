"""Kernels over prompts and layers: softmax, divergence of the models, stability entropy, rows of the losses.

Free functions on arrays without policy. Logits are float32, all arithmetic is float64 (conversions are written
np.float64: numba's float() leaves a float32 what it is). Each prompt is worked
on alone and writes only its own row, so the bits depend neither on threads nor on how prompts are cut into
calls. beta = 1 / tau multiplies logits; slopes are derivatives with respect to x = ln tau, which is
-beta times the derivative with respect to beta.

Inputs are taken as valid: the first n_choices[i] entries of a row are finite, n_choices >= 1.
NaN and inf among them make the prompt's results NaN and no other prompt's.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from edgecal.calibration.choice_logits import FloatArray, IntArray
from edgecal.jit import inner, kernel

__all__ = [
    "accumulate_rows",
    "add_confidence_rows",
    "add_process_rows",
    "divergence_profile",
    "peak_divergence_layers",
    "softmax_rows",
    "stability_entropy",
]

# Layers whose sums, each at most K, are multiplied before a logarithm is taken: 26^64 is far below 1e308.
_LAYERS_PER_LOG = 64


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


@kernel(parallel=True)
def divergence_profile(base: FloatArray, chat: FloatArray, n_choices: IntArray) -> FloatArray:
    """Jensen-Shannon divergence of the two models at every layer, in nats: float64 [n, n_layer], 0 to ln 2.

    base, chat [n, n_layer, k_max] float. With m = (p + q) / 2 and r = |p - q| / (p + q) a choice's term is
    m (r atanh(r) + log1p(-r^2) / 2), the definition rearranged so that nearly equal probabilities lose no
    digits; where they are far apart the definition itself is the exact one. Every term is >= 0, the sum is
    exactly symmetric, and 0 for equal rows.
    """
    n, n_layer, k_max = base.shape
    out = np.zeros((n, n_layer))
    for i in prange(n):
        p = np.empty(k_max)
        q = np.empty(k_max)
        for layer in range(n_layer):
            _softmax(base[i, layer], n_choices[i], 1.0, p)
            _softmax(chat[i, layer], n_choices[i], 1.0, q)
            total = 0.0
            for j in range(n_choices[i]):
                both = p[j] + q[j]
                if both != 0.0:
                    r = abs(p[j] - q[j]) / both
                    if r < 0.5:
                        total += 0.5 * both * (r * math.atanh(r) + 0.5 * math.log1p(-r * r))
                    else:
                        high, low = max(p[j], q[j]), min(p[j], q[j])
                        total += 0.5 * high * math.log(2.0 * high / both)
                        if low != 0.0:
                            total += 0.5 * low * math.log(2.0 * low / both)
            if total > math.log(2.0):
                total = math.log(2.0)
            out[i, layer] = total
    return out


@inner
def _add_layer(
    z: FloatArray,
    k: int,
    betas: FloatArray,
    mixture: bool,
    p: FloatArray,
    total: FloatArray,
    mean: FloatArray,
    product: FloatArray,
    mix: FloatArray,
    turn: FloatArray,
    entropy: FloatArray,
    slope: FloatArray,
) -> None:
    """Add one layer's part of the ISE at every beta; the loops over beta are the ones to vectorise.

    With d[j] = z[j] - max z and S = sum exp(beta d): p = exp(beta d) / S and dp/dbeta = p (d - E[d]).
    mixture: p goes to mix [k, n_beta] and dp/dbeta to turn. Else H = ln S - beta E[d], both parts >= 0, and
    dH/dbeta = -beta Var(d); S is multiplied into `product`, to take one logarithm for many layers.
    """
    n_beta = betas.shape[0]
    top = np.float64(z[0])
    for j in range(1, k):
        if z[j] > top:
            top = np.float64(z[j])
    for t in range(n_beta):
        total[t] = 0.0
        mean[t] = 0.0
    for j in range(k):
        d = np.float64(z[j]) - top
        row = p[j]
        if d == 0.0:
            for t in range(n_beta):
                row[t] = 1.0
        else:
            for t in range(n_beta):
                row[t] = math.exp(betas[t] * d)
        for t in range(n_beta):
            total[t] += row[t]
            mean[t] += row[t] * d
    if not mixture:
        for t in range(n_beta):
            product[t] *= total[t]
    for t in range(n_beta):
        total[t] = 1.0 / total[t]
        mean[t] *= total[t]
    for j in range(k):
        d = np.float64(z[j]) - top
        row = p[j]
        if mixture:
            mix_row = mix[j]
            turn_row = turn[j]
            for t in range(n_beta):
                share = row[t] * total[t]
                mix_row[t] += share
                turn_row[t] += share * (d - mean[t])
        else:
            for t in range(n_beta):
                off = d - mean[t]
                slope[t] -= betas[t] * (row[t] * total[t] * off * off)
    if not mixture:
        for t in range(n_beta):
            entropy[t] -= betas[t] * mean[t]


@inner
def _stability(
    layers: FloatArray,
    k: int,
    first: int,
    mixture: bool,
    all_layers: bool,
    betas: FloatArray,
    entropy: FloatArray,
    slope: FloatArray,
) -> None:
    """ISE of one prompt at every beta and its derivative in beta, into entropy and slope [n_beta]."""
    n_layer = layers.shape[0]
    n_beta = betas.shape[0]
    one = np.ones(1)
    scratch = np.empty((5, 1))
    held = np.zeros((2, k, 1))
    p_one = np.empty((k, 1))
    scratch[2:] = 0.0
    scratch[2] = 1.0
    tempered = first if all_layers else n_layer - 1
    for layer in range(first, tempered):
        _add_layer(
            layers[layer], k, one, mixture, p_one, scratch[0], scratch[1], scratch[2],
            held[0], held[1], scratch[3], scratch[4],
        )  # fmt: skip
        scratch[3, 0] += math.log(scratch[2, 0])
        scratch[2, 0] = 1.0
    p = np.empty((k, n_beta))
    total = np.empty(n_beta)
    mean = np.empty(n_beta)
    product = np.ones(n_beta)
    mix = np.zeros((k, n_beta))
    turn = np.zeros((k, n_beta))
    for t in range(n_beta):
        entropy[t] = scratch[3, 0]
        slope[t] = 0.0
        for j in range(k):
            mix[j, t] = held[0, j, 0]
    for layer in range(tempered, n_layer):
        _add_layer(layers[layer], k, betas, mixture, p, total, mean, product, mix, turn, entropy, slope)
        if not mixture and (
            (layer - tempered) % _LAYERS_PER_LOG == _LAYERS_PER_LOG - 1 or layer == n_layer - 1
        ):
            for t in range(n_beta):
                entropy[t] += math.log(product[t])
                product[t] = 1.0
    scale = 1.0 / (n_layer - first)
    if mixture:
        for j in range(k):
            for t in range(n_beta):
                share = mix[j, t] * scale
                if share != 0.0:
                    log_share = math.log(share)
                    entropy[t] -= share * log_share
                    slope[t] -= turn[j, t] * scale * log_share
        for t in range(n_beta):
            if entropy[t] < 0.0:
                entropy[t] = 0.0
    else:
        for t in range(n_beta):
            entropy[t] *= scale
            slope[t] *= scale


@kernel(parallel=True)
def stability_entropy(
    layers: FloatArray,
    n_choices: IntArray,
    first: IntArray,
    mixture: bool,
    all_layers: bool,
    betas: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Inferential stability entropy of each prompt at each beta, in nats, and its slope in ln tau.

    layers [n, n_layer, k_max] float; first [n] int: index (from 0) of the first layer averaged, 0 to
    n_layer - 1; betas [n_beta] > 0. mixture: entropy of the mean distribution, else mean of the entropies.
    all_layers: beta multiplies every layer from `first`, else the last alone.
    Returns two float64 [n, n_beta].
    """
    n = layers.shape[0]
    n_beta = betas.shape[0]
    entropies = np.empty((n, n_beta))
    slopes = np.empty((n, n_beta))
    for i in prange(n):
        _stability(layers[i], n_choices[i], first[i], mixture, all_layers, betas, entropies[i], slopes[i])
        for t in range(n_beta):
            slopes[i, t] *= -betas[t]
    return entropies, slopes


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
    """Add weights[i] KL(targets[i] || softmax(beta logits[i])) to losses, its slope in ln tau to slopes.

    targets [n, k_max] float64 distributions (one-hot: the negative log-likelihood), logits [n, k_max] float,
    losses and slopes [n, n_beta]. In beta it is convex, with derivative E_softmax[z] - E_target[z].
    """
    n, k_max = logits.shape
    n_beta = betas.shape[0]
    for i in prange(n):
        p = np.empty(k_max)
        k = n_choices[i]
        top = np.float64(logits[i, 0])
        for j in range(1, k):
            if logits[i, j] > top:
                top = np.float64(logits[i, j])
        negentropy = 0.0
        wanted = 0.0
        for j in range(k):
            if targets[i, j] != 0.0:
                negentropy += targets[i, j] * math.log(targets[i, j])
                wanted += targets[i, j] * (logits[i, j] - top)
        for t in range(n_beta):
            log_total = _softmax(logits[i], k, betas[t], p)[0]
            mean = 0.0
            for j in range(k):
                mean += p[j] * (logits[i, j] - top)
            loss = negentropy + log_total - betas[t] * wanted
            if loss < 0.0:
                loss = 0.0
            losses[i, t] += weights[i] * loss
            slopes[i, t] -= betas[t] * weights[i] * (mean - wanted)


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
