"""The heavy kernels over prompts and layers: divergence of the models, stability entropy, the confidence loss.

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
    "add_confidence_rows",
    "divergence_profile",
    "exp_log_rows",
    "stability_entropy",
]

# Layers whose sums, each at most K, are multiplied before a logarithm is taken: 26^64 is far below 1e308.
_LAYERS_PER_LOG = 64

_NEAR = 0.3  # |p - q| / (p + q) up to which the divergence is a series


# exp and log of whole rows, in plain arithmetic that the compiler turns into vector instructions: several times
# faster than a call for each number, and the same bits on every processor. Both are within 2 units in the last
# place. 1.5 * 2^52 added to a number leaves it rounded to a whole one, in the lowest bits.
_ROUND = 6755399441055744.0
_ROUND_BITS = np.int64(0x4338000000000000)
_LOG2_E = 1.4426950408889634
_LN2_HIGH = 0.6931471803691238  # its last 21 bits are 0: whole multiples up to 2^20 are exact
_LN2_LOW = 1.9082149292705877e-10
_EXP_LEAST = -708.0  # below it exp is below 3.4e-308, and 0 here
_NORMAL_LEAST = 2.2250738585072014e-308
_ROOT_HALF_BITS = np.int64(0x3FE6A09E667F3BCD)
_BIAS, _MANTISSA = np.int64(1023), np.int64(52)

_BLOCK_ROWS = 64  # rows that share scratch memory


@inner
def _exp_row(x: FloatArray, scratch: FloatArray) -> None:
    """x = exp(x) for x <= 0, NaN and -inf too: 2^k times a Taylor polynomial on |r| <= ln 2 / 2."""
    bits = scratch.view(np.int64)
    for t in range(x.shape[0]):
        v = _EXP_LEAST if x[t] < _EXP_LEAST else x[t]
        shifted = v * _LOG2_E + _ROUND
        k = shifted - _ROUND
        r = (v - k * _LN2_HIGH) - k * _LN2_LOW
        p = 1.0 / 6227020800.0
        p = p * r + 1.0 / 479001600.0
        p = p * r + 1.0 / 39916800.0
        p = p * r + 1.0 / 3628800.0
        p = p * r + 1.0 / 362880.0
        p = p * r + 1.0 / 40320.0
        p = p * r + 1.0 / 5040.0
        p = p * r + 1.0 / 720.0
        p = p * r + 1.0 / 120.0
        p = p * r + 1.0 / 24.0
        p = p * r + 1.0 / 6.0
        p = p * r + 0.5
        p = p * r * r + r + 1.0
        x[t] = 0.0 if x[t] < _EXP_LEAST else p
        scratch[t] = shifted
    for t in range(x.shape[0]):
        bits[t] = (bits[t] + _BIAS) << _MANTISSA
    for t in range(x.shape[0]):
        x[t] *= scratch[t]


@inner
def _log_row(x: FloatArray, out: FloatArray, scratch: FloatArray) -> None:
    """out = log(x) for x >= 0, NaN too; 0 counts as the smallest normal number. x and out are not the same.

    x = 2^e m with m between sqrt(1/2) and sqrt(2), log m = 2 atanh(s) with s = (m - 1) / (m + 1), as a series.
    """
    bits = out.view(np.int64)
    exponents = scratch.view(np.int64)
    for t in range(x.shape[0]):
        out[t] = _NORMAL_LEAST if x[t] < _NORMAL_LEAST else x[t]
    for t in range(x.shape[0]):
        e = (bits[t] - _ROOT_HALF_BITS) >> _MANTISSA
        bits[t] -= e << _MANTISSA
        exponents[t] = e + _ROUND_BITS
    for t in range(x.shape[0]):
        m = out[t]
        e_value = scratch[t] - _ROUND
        s = (m - 1.0) / (m + 1.0)
        z = s * s
        p = 1.0 / 21.0
        p = p * z + 1.0 / 19.0
        p = p * z + 1.0 / 17.0
        p = p * z + 1.0 / 15.0
        p = p * z + 1.0 / 13.0
        p = p * z + 1.0 / 11.0
        p = p * z + 1.0 / 9.0
        p = p * z + 1.0 / 7.0
        p = p * z + 1.0 / 5.0
        p = p * z + 1.0 / 3.0
        s += s
        out[t] = e_value * _LN2_HIGH + (s + (s * z * p + e_value * _LN2_LOW)) + (x[t] - x[t])


@kernel()
def exp_log_rows(x: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(exp(-x), log(x)) as the kernels take them, float64 [n]; x float64 [n] >= 0."""
    scratch = np.empty(x.shape[0])
    powers = -x
    logs = np.empty(x.shape[0])
    _exp_row(powers, scratch)
    _log_row(x, logs, scratch)
    return powers, logs


@inner
def _softmax_layers(z: FloatArray, k: int, p: FloatArray, total: FloatArray, scratch: FloatArray) -> None:
    """p [k, n_layer] = softmax over the first k of each layer of z [n_layer, k_max]."""
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
        _exp_row(row, scratch)
        for t in range(n_layer):
            total[t] += row[t]
    for j in range(k):
        for t in range(n_layer):
            p[j, t] /= total[t]


@kernel(parallel=True)
def divergence_profile(base: FloatArray, chat: FloatArray, n_choices: IntArray) -> FloatArray:
    """Jensen-Shannon divergence of the two models at every layer, in nats: float64 [n, n_layer], 0 to ln 2.

    base, chat [n, n_layer, k_max] float. With m = (p + q) / 2 and r = |p - q| / (p + q) a choice's term is
    m (r atanh(r) + log1p(-r^2) / 2) = m sum of r^(2 n) / (2 n (2 n - 1)) over n >= 1, the definition rearranged
    so that nearly equal probabilities lose no digits; where they are far apart the definition itself is the
    exact one. Every term is >= 0, the sum is exactly symmetric, and 0 for equal rows.
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
            _log_row(ratio, log_high, scratch[0])
            _log_row(apart, log_low, scratch[0])
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
                row[t] = betas[t] * d
            _exp_row(row, scratch)
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
    scratch = np.empty((6, 1))
    held = np.zeros((2, k, 1))
    p_one = np.empty((k, 1))
    scratch[2:] = 0.0
    scratch[2] = 1.0
    tempered = first if all_layers else n_layer - 1
    for layer in range(first, tempered):
        _add_layer(
            layers[layer], k, one, mixture, p_one, scratch[0], scratch[1], scratch[2],
            held[0], held[1], scratch[3], scratch[4], scratch[5],
        )  # fmt: skip
        scratch[3, 0] += math.log(scratch[2, 0])
        scratch[2, 0] = 1.0
    p = np.empty((k, n_beta))
    total = np.empty(n_beta)
    mean = np.empty(n_beta)
    product = np.ones(n_beta)
    logs = np.empty(n_beta)
    spare = np.empty(n_beta)
    mix = np.zeros((k, n_beta))
    turn = np.zeros((k, n_beta))
    for t in range(n_beta):
        entropy[t] = scratch[3, 0]
        slope[t] = 0.0
        for j in range(k):
            mix[j, t] = held[0, j, 0]
    for layer in range(tempered, n_layer):
        _add_layer(
            layers[layer], k, betas, mixture, p, total, mean, product, mix, turn, entropy, slope, spare
        )
        if not mixture and (
            (layer - tempered) % _LAYERS_PER_LOG == _LAYERS_PER_LOG - 1 or layer == n_layer - 1
        ):
            _log_row(product, logs, spare)
            for t in range(n_beta):
                entropy[t] += logs[t]
                product[t] = 1.0
    scale = 1.0 / (n_layer - first)
    if mixture:
        for j in range(k):
            share = mix[j]
            for t in range(n_beta):
                share[t] *= scale
            _log_row(share, logs, spare)
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
            _exp_row(powers[: k * n_beta], spares[: k * n_beta])
            for t in range(n_beta):
                total[t] = 0.0
                mean[t] = 0.0
            for j in range(k):
                d = logits[i, j] - top
                for t in range(n_beta):
                    total[t] += powers[j * n_beta + t]
                    mean[t] += powers[j * n_beta + t] * d
            _log_row(total, logs, spare)
            weight = weights[i]
            loss_row = losses[i]
            slope_row = slopes[i]
            for t in range(n_beta):
                loss = negentropy + logs[t] - betas[t] * wanted
                loss_row[t] += weight * (0.0 if loss < 0.0 else loss)
                slope_row[t] -= betas[t] * weight * (mean[t] / total[t] - wanted)
