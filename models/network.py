"""The network of the bundled pair: a llama-architecture transformer in PyTorch.

Its job is to compute what llama.cpp computes for ``general.architecture = llama``: RMSNorm before each
half block, rotary embedding over neighbouring pairs of a head's coordinates (llama.cpp's "NORM" order, so the
export permutes nothing), grouped key/value heads, SwiGLU, and a head of its own.
It does not know the world, the tokenizer, how it is trained or how it is written to a file.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    """Sizes in llama.cpp's words. The defaults are multiples of 256, as K-quants need."""

    n_vocab: int = 1536
    n_embd: int = 256
    n_layer: int = 8
    n_head: int = 8
    n_head_kv: int = 4
    n_ff: int = 512
    n_ctx: int = 512
    rope_base: float = 10000.0
    norm_eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        """Coordinates of one attention head."""
        return self.n_embd // self.n_head


SHAPES = {256: Shape(), 128: Shape(n_embd=128, n_head=4, n_head_kv=2, n_ff=384)}  # by n_embd


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last axis, in float32."""

    def __init__(self, n_embd: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n_embd))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


def rotary_tables(shape: Shape, n_positions: int) -> tuple[Tensor, Tensor]:
    """cos and sin of the rotary angles, each [n_positions, head_dim / 2], float32."""
    exponent = torch.arange(0, shape.head_dim, 2, dtype=torch.float64) / shape.head_dim
    angle = torch.arange(n_positions, dtype=torch.float64)[:, None] * shape.rope_base**-exponent
    return angle.cos().float(), angle.sin().float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each neighbouring pair (x[2i], x[2i+1]) of [..., n_tokens, head_dim] by its angle."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


class Attention(nn.Module):
    """Causal self-attention with grouped key/value heads."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        width_kv = shape.n_head_kv * shape.head_dim
        self.q = nn.Linear(shape.n_embd, shape.n_embd, bias=False)
        self.k = nn.Linear(shape.n_embd, width_kv, bias=False)
        self.v = nn.Linear(shape.n_embd, width_kv, bias=False)
        self.output = nn.Linear(shape.n_embd, shape.n_embd, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        n_rows, n_tokens, _ = x.shape
        s = self.shape

        def heads(y: Tensor, n: int) -> Tensor:
            return y.view(n_rows, n_tokens, n, s.head_dim).transpose(1, 2)

        q = rotate(heads(self.q(x), s.n_head), cos, sin)
        k = rotate(heads(self.k(x), s.n_head_kv), cos, sin)
        v = heads(self.v(x), s.n_head_kv)
        repeat = s.n_head // s.n_head_kv
        k, v = k.repeat_interleave(repeat, dim=1), v.repeat_interleave(repeat, dim=1)
        scores = (q.to(v.dtype) * s.head_dim**-0.5) @ k.to(v.dtype).transpose(-1, -2)
        causal = torch.ones(n_tokens, n_tokens, dtype=torch.bool).tril()
        weights = scores.float().masked_fill(~causal, -torch.inf).softmax(-1).to(v.dtype)
        out = weights @ v
        return self.output(out.transpose(1, 2).reshape(n_rows, n_tokens, s.n_embd))


class Block(nn.Module):
    """One block: attention, then SwiGLU, each behind its RMSNorm and added to the residual stream."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attn_norm = RMSNorm(shape.n_embd, shape.norm_eps)
        self.attention = Attention(shape)
        self.ffn_norm = RMSNorm(shape.n_embd, shape.norm_eps)
        self.gate = nn.Linear(shape.n_embd, shape.n_ff, bias=False)
        self.up = nn.Linear(shape.n_embd, shape.n_ff, bias=False)
        self.down = nn.Linear(shape.n_ff, shape.n_embd, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attention(self.attn_norm(x), cos, sin)
        y = self.ffn_norm(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Network(nn.Module):
    """Token ids [n_rows, n_tokens] to the normed residual stream, and by `head` to vocabulary logits."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.n_vocab, shape.n_embd)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.n_layer))
        self.norm = RMSNorm(shape.n_embd, shape.norm_eps)
        self.output = nn.Linear(shape.n_embd, shape.n_vocab, bias=False)
        cos, sin = rotary_tables(shape, shape.n_ctx)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.reset()

    def reset(self) -> None:
        """Draw the weights from torch's global generator: all small, what a block adds smaller still."""
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                last = name.endswith(("attention.output.weight", "down.weight"))
                nn.init.normal_(weight, std=0.02 / (2 * self.shape.n_layer) ** 0.5 if last else 0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Hidden states after the final norm, [n_rows, n_tokens, n_embd]."""
        n_tokens = tokens.shape[1]
        cos, sin = self.cos[:n_tokens], self.sin[:n_tokens]
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, cos, sin)
        return self.norm(x)

    def head(self, hidden: Tensor) -> Tensor:
        """Vocabulary logits of hidden states [..., n_embd]."""
        logits: Tensor = self.output(hidden)
        return logits
