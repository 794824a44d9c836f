"""Tiny random llamas of 256 tokens without text, in every quantization, with experts or without."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from support.tiny_models import llama_tensors, tiny_folder, write_gguf

__all__ = ["tiny_llama"]

N_EXPERT = 8


@cache
def tiny_llama(
    quantization: str,
    *,
    n_ctx_train: int = 2048,
    experts: bool = False,
    n_ctx_orig: int | None = None,
    damaged: bool = False,
) -> Path:
    """2 blocks, 256 wide, 256 tokens without text; with `experts` 2 of 8 feed-forward parts for each token; with
    `n_ctx_orig` other factors for positions in contexts longer than that."""
    tensors = llama_tensors(
        6, n_layer=2, n_embd=256, n_head=4, n_head_kv=2, n_ff=256, n_vocab=256, tied=False, logit_spread=3.0
    )
    keys = {
        "context_length": n_ctx_train, "embedding_length": 256, "block_count": 2, "feed_forward_length": 256,
        "attention.head_count": 4, "attention.head_count_kv": 2, "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.dimension_count": 64, "vocab_size": 256,
    }  # fmt: skip
    if experts:
        keys |= {"expert_count": N_EXPERT, "expert_used_count": 2}
        rng = np.random.default_rng(1)
        for il in range(2):
            tensors[f"blk.{il}.ffn_gate_inp.weight"] = rng.normal(size=(N_EXPERT, 256)).astype(np.float32) / 8
            for kind in ("gate", "up", "down"):
                one = tensors.pop(f"blk.{il}.ffn_{kind}.weight")
                tensors[f"blk.{il}.ffn_{kind}_exps.weight"] = np.stack(
                    [np.roll(one, expert, axis=1) for expert in range(N_EXPERT)]
                )
    if n_ctx_orig is not None:
        keys |= {"rope.scaling.type": "longrope", "rope.scaling.original_context_length": n_ctx_orig}
        tensors["rope_factors_short.weight"] = np.full(32, 1, np.float32)
        tensors["rope_factors_long.weight"] = np.full(32, 4, np.float32)
    if damaged:
        tensors["output_norm.weight"][:] = np.nan
    types = {name: quantization for name, data in tensors.items() if data.ndim > 1 and "gate_inp" not in name}
    return write_gguf(
        tiny_folder() / f"sharing-{quantization}-{n_ctx_train}-{experts}-{n_ctx_orig}-{damaged}.gguf",
        "llama",
        {**{f"llama.{key}": value for key, value in keys.items()}, "tokenizer.ggml.model": "none"},
        tensors,
        types=types,
    )
