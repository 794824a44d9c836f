"""An independent float64 edgecal for llama-architecture models: plain NumPy from the GGUF's tensors to the temperature.

Shares no code with the package. Weights are dequantized and everything is computed in float64, so it differs from
llama.cpp by what llama.cpp's own arithmetic (quantized activations, float32) costs, and from nothing else.
"""

from __future__ import annotations

import gguf
import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax


class ReferenceLlama:
    """Forward pass of a llama-architecture GGUF in float64."""

    def __init__(self, path):
        reader = gguf.GGUFReader(path)

        def field(name, default=None):
            key = f"llama.{name}"
            return reader.fields[key].contents() if key in reader.fields else default

        self.n_layer = field("block_count")
        self.n_head = field("attention.head_count")
        self.n_head_kv = field("attention.head_count_kv", self.n_head)
        self.eps = field("attention.layer_norm_rms_epsilon")
        self.rope_base = field("rope.freq_base", 10000.0)
        self.w = {
            tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            .astype(np.float64)
            .reshape([int(n) for n in reversed(tensor.shape)])
            for tensor in reader.tensors
        }
        self.head = self.w.get("output.weight", self.w["token_embd.weight"])

    def norm(self, x, name):
        return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + self.eps) * self.w[name]

    def rope(self, x):
        n_tokens, _, n_rot = x.shape
        angle = np.arange(n_tokens)[:, None] * self.rope_base ** (-np.arange(0, n_rot, 2) / n_rot)
        cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
        out = np.empty_like(x)
        out[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
        out[..., 1::2] = x[..., 0::2] * sin + x[..., 1::2] * cos
        return out

    def block(self, il, name):
        return self.w[f"blk.{il}.{name}.weight"]

    def hidden(self, tokens):
        """float64 [n_layer, n_embd]: the residual stream after each block at the last token."""
        x = self.w["token_embd.weight"][tokens]
        n_tokens = len(tokens)
        mask = np.triu(np.full((n_tokens, n_tokens), -np.inf), 1)
        after = []
        for il in range(self.n_layer):
            h = self.norm(x, f"blk.{il}.attn_norm.weight")
            q = self.rope((h @ self.block(il, "attn_q").T).reshape(n_tokens, self.n_head, -1))
            k = self.rope((h @ self.block(il, "attn_k").T).reshape(n_tokens, self.n_head_kv, -1))
            v = (h @ self.block(il, "attn_v").T).reshape(n_tokens, self.n_head_kv, -1)
            k, v = (np.repeat(item, self.n_head // self.n_head_kv, axis=1) for item in (k, v))
            scores = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(q.shape[-1]) + mask
            mixed = np.einsum("hij,jhd->ihd", softmax(scores, axis=-1), v).reshape(n_tokens, -1)
            x = x + mixed @ self.block(il, "attn_output").T
            h = self.norm(x, f"blk.{il}.ffn_norm.weight")
            gate = h @ self.block(il, "ffn_gate").T
            x = (
                x
                + (gate / (1 + np.exp(-gate)) * (h @ self.block(il, "ffn_up").T))
                @ self.block(il, "ffn_down").T
            )
            after.append(x[-1])
        return np.array(after)

    def logits(self, tokens):
        """float64 [n_layer, n_vocab]: the logit lens after each block; the last is the model's output."""
        return self.norm(self.hidden(tokens), "output_norm.weight") @ self.head.T


def entropy(p):
    return -np.sum(np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0), axis=-1)


def fit_reference(
    base, chat, method, *, labels=None, ise="mixture", tau_scope="all", combine="stratified", lam=0.1
):
    """The temperature that minimises METHOD's loss, by a dense scan and a bounded refinement.

    base, chat: lists of float64 [n_layer, K], choice logits by layer.
    """

    def stability(layers):
        return entropy(layers.mean(axis=0)) if ise == "mixture" else entropy(layers).mean()

    conf_of, proc_of, agree, weight = [], [], [], []
    for zg, zf in zip(base, chat, strict=True):
        pg, pf = softmax(zg, axis=-1), softmax(zf, axis=-1)
        divergence = entropy((pg + pf) / 2) - (entropy(pg) + entropy(pf)) / 2
        pdl = 1 + int(np.argmax(np.abs(np.diff(divergence))))
        target = stability(pg[pdl:])

        def conf(tau, g=pg[-1], z=zf[-1]):
            return float(
                np.sum(np.where(g > 0, g * np.log(np.where(g > 0, g, 1)), 0) - g * log_softmax(z / tau))
            )

        def proc(tau, z=zf[pdl:], target=target):
            divided = z / tau if tau_scope == "all" else np.vstack([z[:-1], z[-1:] / tau])
            return float((stability(softmax(divided, axis=-1)) - target) ** 2)

        conf_of.append(conf)
        proc_of.append(proc)
        agree.append(int(np.argmax(zg[-1])) == int(np.argmax(zf[-1])))
        weight.append(divergence[pdl] / np.log(2))

    def loss(tau):
        def conf(keep):
            return [f(tau) for f, a in zip(conf_of, agree, strict=True) if keep(a)]

        def proc(keep):
            return [f(tau) for f, a in zip(proc_of, agree, strict=True) if keep(a)]

        if method == "naive":
            return np.mean(conf(lambda a: True))
        if method == "daca":
            return np.mean(conf(lambda a: a))
        if method == "process":
            return np.mean(proc(lambda a: not a))
        if method == "ts":
            return -np.mean([log_softmax(z[-1] / tau)[y] for z, y in zip(chat, labels, strict=True)])
        if combine == "stratified":
            return (sum(conf(lambda a: a)) + sum(proc(lambda a: not a))) / len(agree)
        if combine == "divergence":
            return np.mean(
                [(1 - w) * c(tau) + w * p(tau) for c, p, w in zip(conf_of, proc_of, weight, strict=True)]
            )
        return np.mean(conf(lambda a: a)) + lam * np.mean(proc(lambda a: not a))

    grid = np.exp(np.linspace(np.log(0.05), np.log(50), 100))
    values = [loss(tau) for tau in grid]
    best = int(np.argmin(values))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    return float(minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-7}).x)
