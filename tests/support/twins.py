"""Tiny models of many families of which transformers has a model too: the GGUF, and how the two correspond.

`TWINS` says for each family what a tensor is called in transformers, in which order its rows lie there and
which key of the file is which setting, written down from the two implementations; transformers' own GGUF
loader is not used. `twin_path(name)` writes the file. `transformers_models` builds the other side.

Scales, caps, windows, biases and norms are such that leaving out any of them changes the logits a lot.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from support.tiny_archs import ArchSpec, probe_sizes, write_tiny_spec
from support.tiny_models import tiny_folder

__all__ = ["TWINS", "Twin", "twin_path"]

# Modules of transformers, and the tensors of a GGUF that lie in each, one below the other.
_ENDS = {"embed_tokens": "token_embd", "norm": "output_norm"}
_TWO_NORMS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
_FOUR_NORMS = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
_QK_NORMS = {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}
_QKV = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v"}
_ATTENTION = {**_QKV, "self_attn.o_proj": "attn_output"}
_GATED = {"mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
_EXPERTS = {
    "mlp.gate": "ffn_gate_inp",
    "mlp.experts.gate_up_proj": "ffn_gate_exps ffn_up_exps",
    "mlp.experts.down_proj": "ffn_down_exps",
}

_NO_BIAS = r"\.bias$"
_GQA = {"attention.head_count_kv": 2}
_MOE = {**_GQA, "expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 64}
_WIDE_HEADS = {"attention.key_length": 32, "attention.value_length": 32, "rope.dimension_count": 32}
_SLIDING = {"attention.sliding_window": 8, "attention.sliding_window_pattern": [1, 0, 1]}
_LAYER_TYPES = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}


@dataclass(frozen=True)
class Twin:
    """One family.

    spec: the GGUF; fused: its queries, keys and values are one tensor. config: transformers' configuration
    class. blocks, ends: its modules inside and outside of blocks, and their tensors. keys: settings of the
    configuration, and the GGUF keys (without the architecture) that hold them; settings: those that no key
    holds. permuted: llama.cpp rotates neighbouring dimensions of a head (2i and 2i + 1) where transformers
    rotates those half a head apart (i and i + d / 2), so rows of queries and keys lie in another order.
    norm_offset: transformers keeps a norm's weight less this.
    """

    spec: ArchSpec
    config: str
    blocks: dict[str, str]
    ends: dict[str, str] = field(default_factory=lambda: _ENDS)
    keys: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    fused: bool = False
    permuted: bool = False
    norm_offset: float = 0.0


TWINS: dict[str, Twin] = {
    "llama": Twin(
        ArchSpec("llama", keys={**_GQA, "rope.freq_base": 500.0}, drop=_NO_BIAS),
        "LlamaConfig",
        {**_TWO_NORMS, **_ATTENTION, **_GATED},
        permuted=True,
    ),
    "mixtral": Twin(
        ArchSpec("llama", keys=_MOE, drop=_NO_BIAS),
        "MixtralConfig",
        {**_TWO_NORMS, **_ATTENTION, **_EXPERTS},
        keys={"num_local_experts": "expert_count", "num_experts_per_tok": "expert_used_count"},
        permuted=True,
    ),
    "qwen2": Twin(  # with a head bias, which llama.cpp adds where there is one
        ArchSpec("qwen2", keys=_GQA), "Qwen2Config", {**_TWO_NORMS, **_ATTENTION, **_GATED}
    ),
    "qwen3": Twin(
        ArchSpec("qwen3", keys={**_GQA, **_WIDE_HEADS}, drop=_NO_BIAS),
        "Qwen3Config",
        {**_TWO_NORMS, **_QK_NORMS, **_ATTENTION, **_GATED},
    ),
    "qwen3moe": Twin(
        ArchSpec("qwen3moe", keys=_MOE, drop=_NO_BIAS),
        "Qwen3MoeConfig",
        {**_TWO_NORMS, **_QK_NORMS, **_ATTENTION, **_EXPERTS},
        keys={
            "num_experts": "expert_count",
            "num_experts_per_tok": "expert_used_count",
            "moe_intermediate_size": "expert_feed_forward_length",
        },
        settings={"norm_topk_prob": True},
    ),
    "gemma": Twin(
        ArchSpec("gemma", keys={**_GQA, **_WIDE_HEADS}, drop=_NO_BIAS, tied=True),
        "GemmaConfig",
        {**_TWO_NORMS, **_ATTENTION, **_GATED},
        norm_offset=1.0,
    ),
    "gemma2": Twin(
        ArchSpec(
            "gemma2",
            keys={
                **_GQA,
                **_WIDE_HEADS,
                **_SLIDING,
                "final_logit_softcapping": 5.0,
                "attn_logit_softcapping": 1.0,
            },
            drop=_NO_BIAS,
            tied=True,
        ),
        "Gemma2Config",
        {**_FOUR_NORMS, **_ATTENTION, **_GATED},
        keys={
            "final_logit_softcapping": "final_logit_softcapping",
            "attn_logit_softcapping": "attn_logit_softcapping",
            "sliding_window": "attention.sliding_window",
            "query_pre_attn_scalar": "attention.key_length",
        },
        settings=_LAYER_TYPES,
        norm_offset=1.0,
    ),
    "gemma3": Twin(
        ArchSpec(
            "gemma3",
            keys={
                **_GQA,
                **_WIDE_HEADS,
                **_SLIDING,
                "rope.freq_base": 1e6,
                "rope.freq_base_swa": 100.0,
                "final_logit_softcapping": 4.0,
            },
            drop=_NO_BIAS,
            tied=True,
        ),
        "Gemma3TextConfig",
        {**_FOUR_NORMS, **_QK_NORMS, **_ATTENTION, **_GATED},
        keys={
            "final_logit_softcapping": "final_logit_softcapping",
            "sliding_window": "attention.sliding_window",
            "query_pre_attn_scalar": "attention.key_length",
        },
        settings={
            **_LAYER_TYPES,
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            },
        },
        norm_offset=1.0,
    ),
    "phi2": Twin(  # half of each head is rotated; attention and MLP side by side
        ArchSpec("phi2", "layer", keys={"rope.dimension_count": 8}),
        "PhiConfig",
        {
            "input_layernorm": "attn_norm",
            **_QKV,
            "self_attn.dense": "attn_output",
            "mlp.fc1": "ffn_up",
            "mlp.fc2": "ffn_down",
        },
        {"embed_tokens": "token_embd", "final_layernorm": "output_norm"},
    ),
    "phi3": Twin(
        ArchSpec("phi3", keys=_GQA, drop=_NO_BIAS),
        "Phi3Config",
        {
            **_TWO_NORMS,
            "self_attn.qkv_proj": "attn_qkv",
            "self_attn.o_proj": "attn_output",
            "mlp.gate_up_proj": "ffn_up",
            "mlp.down_proj": "ffn_down",
        },
        fused=True,
    ),
    "gpt2": Twin(
        ArchSpec("gpt2", "layer"),
        "GPT2Config",
        {
            "ln_1": "attn_norm",
            "attn.c_attn": "attn_qkv",
            "attn.c_proj": "attn_output",
            "ln_2": "ffn_norm",
            "mlp.c_fc": "ffn_up",
            "mlp.c_proj": "ffn_down",
        },
        {"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm"},
        keys={"layer_norm_epsilon": "attention.layer_norm_epsilon", "n_inner": "feed_forward_length"},
    ),
    "stablelm": Twin(
        ArchSpec("stablelm", "layer", keys={**_GQA, "rope.dimension_count": 8}, drop=r"attn_[qk]_norm"),
        "StableLmConfig",
        {**_TWO_NORMS, **_ATTENTION, **_GATED},
        settings={"use_qkv_bias": True},
    ),
    "command-r": Twin(
        ArchSpec("command-r", "layer", keys={**_GQA, "logit_scale": 0.25}, drop=_NO_BIAS, tied=True),
        "CohereConfig",
        {"input_layernorm": "attn_norm", **_ATTENTION, **_GATED},
        keys={"logit_scale": "logit_scale"},
    ),
    "cohere2": Twin(
        ArchSpec(
            "cohere2", "layer", keys={**_GQA, **_SLIDING, "logit_scale": 0.25}, drop=_NO_BIAS, tied=True
        ),
        "Cohere2Config",
        {"input_layernorm": "attn_norm", **_ATTENTION, **_GATED},
        keys={"logit_scale": "logit_scale", "sliding_window": "attention.sliding_window"},
        settings=_LAYER_TYPES,
    ),
    "granite": Twin(
        ArchSpec(
            "granite",
            keys={
                **_GQA,
                "logit_scale": 4.0,
                "residual_scale": 0.5,
                "embedding_scale": 2.0,
                "attention.scale": 1.0,
            },
            drop=_NO_BIAS,
            logit_spread=12.0,
        ),
        "GraniteConfig",
        {**_TWO_NORMS, **_ATTENTION, **_GATED},
        keys={
            "logits_scaling": "logit_scale",
            "residual_multiplier": "residual_scale",
            "embedding_multiplier": "embedding_scale",
            "attention_multiplier": "attention.scale",
        },
        permuted=True,
    ),
    "olmo2": Twin(  # norms behind attention and MLP, none before
        ArchSpec("olmo2", keys=_GQA, drop=_NO_BIAS),
        "Olmo2Config",
        {
            "post_attention_layernorm": "post_attention_norm",
            "post_feedforward_layernorm": "post_ffw_norm",
            **_QK_NORMS,
            **_ATTENTION,
            **_GATED,
        },
    ),
}


@cache
def _sizes() -> dict[str, dict[str, list[int]]]:
    sizes = probe_sizes({name: twin.spec for name, twin in TWINS.items()})
    for name, twin in TWINS.items():
        if twin.fused:
            for il in range(twin.spec.n_layer):
                parts = [sizes[name].pop(f"blk.{il}.attn_{part}.weight") for part in "qkv"]
                sizes[name][f"blk.{il}.attn_qkv.weight"] = [parts[0][0], sum(rows for _, rows in parts)]
    return sizes


@cache
def twin_path(name: str) -> Path:
    """The GGUF of one family (3 blocks, 64 wide, 544 tokens, float32), written at first use."""
    return write_tiny_spec(tiny_folder() / f"twin-{name}.gguf", TWINS[name].spec, _sizes()[name], seed=1)
