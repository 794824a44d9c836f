"""The heavy kernels over prompts and layers: divergence of the two models, stability entropy.

Logits are float32, all arithmetic is float64 (conversions are written np.float64, because numba's float() leaves a
float32 as it is). Each prompt is computed on its own and writes only its own row, so the bits depend neither on
threads nor on how prompts are split into calls. beta = 1 / tau multiplies logits; slopes are derivatives with respect
to x = ln tau, which are -beta times the derivatives with respect to beta.

Inputs are not checked: the first n_choices[i] entries of a row must be finite and n_choices >= 1. NaN or inf among
them makes only that prompt's results NaN.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from edgecal.calibration.arrays import FloatArray, IntArray
from edgecal.calibration.vector_math import exp_row, log_row
from edgecal.jit import inner, kernel

__all__ = ["divergence_profile", "stability_at_one", "stability_entropy"]

# Layers whose sums, each at most k, are multiplied before one logarithm is taken: 256^64 = 2^512 is far below 1e308.
_LAYERS_PER_LOG = 64

_NEAR = 0.3  # |p - q| / (p + q) below which the divergence is computed as a series


@inner
def _softmax_layers(z: FloatArray, k: int, p: FloatArray, total: FloatArray, scratch: FloatArray) -> None:
    """p [k, n_layer] = softmax over the first k logits of each layer of z [n_layer, k_max]."""
    n_layer = z.shape[0]
    for t in range(n_layer):
        top = np.float64(z[t, 0])
        for j in range(1, k):
            if z[t, j] > top:
                top = np.float64(z[t, j])
        for j in range(k):
            p[j, t] = z[t, j] - top
        total[t] = 0.0
    for j in range(k):
        row = p[j]
        exp_row(row, scratch)
        for t in range(n_layer):
            total[t] += row[t]
    for j in range(k):
        for t in range(n_layer):
            p[j, t] /= total[t]


@kernel(parallel=True)
def divergence_profile(base: FloatArray, chat: FloatArray, n_choices: IntArray) -> FloatArray:
    """Jensen-Shannon divergence of the two models at every layer, in nats: float64 [n, n_layer], 0 to ln 2.

    base, chat [n, n_layer, k_max] float. With m = (p + q) / 2 and r = |p - q| / (p + q) a choice's term is
    m (r atanh(r) + log1p(-r^2) / 2) = m sum of r^(2 n) / (2 n (2 n - 1)) over n >= 1: the definition, rearranged so
    that nearly equal probabilities lose no digits. Where they are far apart the definition itself is more accurate.
    Every term is >= 0; the sum is exactly symmetric, and 0 for equal rows.
    """
    n, n_layer = base.shape[:2]
    out = np.zeros((n, n_layer))
    for i in prange(n):
        k = n_choices[i]
        p = np.empty((k, n_layer))
        q = np.empty((k, n_layer))
        scratch = np.empty((6, n_layer))
        _softmax_layers(base[i], k, p, scratch[0], scratch[1])
        _softmax_layers(chat[i], k, q, scratch[0], scratch[1])
        total = out[i]
        apart, ratio, log_high, log_low = scratch[2], scratch[3], scratch[4], scratch[5]
        for j in range(k):
            for t in range(n_layer):
                both = p[j, t] + q[j, t]
                r = abs(p[j, t] - q[j, t]) / (1.0 if both == 0.0 else both)
                ratio[t] = 1.0 + r
                apart[t] = 1.0 - r
            log_row(ratio, log_high, scratch[0])
            log_row(apart, log_low, scratch[0])
            for t in range(n_layer):
                both = p[j, t] + q[j, t]
                r = abs(p[j, t] - q[j, t]) / (1.0 if both == 0.0 else both)
                z = r * r
                near = 1.0 / 552.0
                near = near * z + 1.0 / 462.0
                near = near * z + 1.0 / 380.0
                near = near * z + 1.0 / 306.0
                near = near * z + 1.0 / 240.0
                near = near * z + 1.0 / 182.0
                near = near * z + 1.0 / 132.0
                near = near * z + 1.0 / 90.0
                near = near * z + 1.0 / 56.0
                near = near * z + 1.0 / 30.0
                near = near * z + 1.0 / 12.0
                near = near * z + 1.0 / 2.0
                far = max(p[j, t], q[j, t]) * log_high[t] + min(p[j, t], q[j, t]) * log_low[t]
                total[t] += 0.5 * (far if r >= _NEAR else both * z * near)
        for t in range(n_layer):
            if total[t] > math.log(2.0):
                total[t] = math.log(2.0)
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
    scratch: FloatArray,
) -> None:
    """Add one layer's contribution to the ISE at every beta; the inner loops run over beta so that they vectorize.

    With d[j] = z[j] - max z and S = sum exp(beta d): p = exp(beta d) / S and dp/dbeta = p (d - E[d]).
    mixture: p is added to mix [k, n_beta] and dp/dbeta to turn. Else H = ln S - beta E[d], both parts >= 0, and
    dH/dbeta = -beta Var(d); S is multiplied into `product`, so that many layers share one logarithm.
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
                row[t] = betas[t] * d
            exp_row(row, scratch)
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
def _sum_layers(z: FloatArray, k: int, mixture: bool, shares: FloatArray) -> float:
    """Sums over untempered layers z [n_layer, k_max]: adds their probabilities to shares [k] and returns 0 (mixture),
    or returns the sum of their entropies."""
    n_layer = z.shape[0]
    p = np.empty((k, n_layer))
    scratch = np.empty((2, n_layer))
    _softmax_layers(z, k, p, scratch[0], scratch[1])
    entropy = 0.0
    for j in range(k):
        row = p[j]
        if mixture:
            for t in range(n_layer):
                shares[j] += row[t]
        else:
            log_row(row, scratch[0], scratch[1])
            for t in range(n_layer):
                entropy -= row[t] * scratch[0, t]
    return entropy


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
    """Writes one prompt's ISE at every beta to entropy [n_beta], and its derivative in beta to slope [n_beta]."""
    n_layer = layers.shape[0]
    n_beta = betas.shape[0]
    p = np.empty((k, n_beta))
    total = np.empty(n_beta)
    mean = np.empty(n_beta)
    product = np.ones(n_beta)
    logs = np.empty(n_beta)
    spare = np.empty(n_beta)
    mix = np.zeros((k, n_beta))
    turn = np.zeros((k, n_beta))
    tempered = first if all_layers else n_layer - 1
    held = np.zeros(k)
    held_entropy = _sum_layers(layers[first:tempered], k, mixture, held) if first < tempered else 0.0
    for t in range(n_beta):
        entropy[t] = held_entropy
        slope[t] = 0.0
    for j in range(k):
        for t in range(n_beta):
            mix[j, t] = held[j]
    for layer in range(tempered, n_layer):
        _add_layer(
            layers[layer], k, betas, mixture, p, total, mean, product, mix, turn, entropy, slope, spare
        )
        if not mixture and (
            (layer - tempered) % _LAYERS_PER_LOG == _LAYERS_PER_LOG - 1 or layer == n_layer - 1
        ):
            log_row(product, logs, spare)
            for t in range(n_beta):
                entropy[t] += logs[t]
                product[t] = 1.0
    scale = 1.0 / (n_layer - first)
    if mixture:
        for j in range(k):
            share = mix[j]
            for t in range(n_beta):
                share[t] *= scale
            log_row(share, logs, spare)
            for t in range(n_beta):
                entropy[t] -= share[t] * logs[t]
                slope[t] -= turn[j, t] * scale * logs[t]
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
    all_layers: beta multiplies every layer from `first` on, else only the last.
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


@kernel(parallel=True)
def stability_at_one(layers: FloatArray, n_choices: IntArray, first: IntArray, mixture: bool) -> FloatArray:
    """Inferential stability entropy of each prompt's untempered layers, in nats: float64 [n].

    layers, n_choices, first and mixture as for `stability_entropy`; beta is 1.
    """
    n, n_layer, k_max = layers.shape
    out = np.empty(n)
    for i in prange(n):
        shares = np.zeros((3, k_max))
        scale = 1.0 / (n_layer - first[i])
        entropy = _sum_layers(layers[i, first[i] :], n_choices[i], mixture, shares[0]) * scale
        if mixture:
            for j in range(k_max):
                shares[0, j] *= scale
            log_row(shares[0], shares[1], shares[2])
            for j in range(n_choices[i]):
                entropy -= shares[0, j] * shares[1, j]
        out[i] = 0.0 if entropy < 0.0 else entropy
    return out
