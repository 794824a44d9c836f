"""Which tiny models the tests make: one row for each, with the keys that its architecture needs.

A row says how llama.cpp's graph is to be read too (what the residual stream is called, how many streams there
are), so that tests compare the package's own table with one that was written apart from it. Every architecture of
llama.cpp is here, or in `NOT_MADE` with the reason. `tiny_archs` makes the models.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["ARCHS", "NOT_MADE", "N_EMBD", "N_HEAD", "N_VOCAB", "ArchSpec"]

N_VOCAB = 544
N_EMBD = 64
N_HEAD = 4


@dataclass(frozen=True)
class ArchSpec:
    """One architecture: its keys without the prefix `<arch>.`, and what differs from the usual.

    `norm`: "rms" or "layer", which epsilon key the file has. `drop`: a pattern of optional tensors to leave
    out. `tied`: no output.weight. `last_keeps_all_rows`: the last block's tensor holds every token of the
    micro-batch, not just the rows whose logits are wanted. `logit_spread`: about the standard deviation of
    the logits before any transform of them. `n_layer`: blocks in the file, of which the last `n_extra` guess
    tokens after the next one and are no part of the trunk; `n_loops`: how often the trunk is run.
    `node`, `n_streams`, `by_stream`: what the graph calls the residual stream, and how it lies in the tensor.
    """

    arch: str
    norm: str = "rms"
    n_layer: int = 3
    n_extra: int = 0
    n_loops: int = 1
    node: str = "l_out"
    n_streams: int = 1
    by_stream: bool = False
    keys: dict[str, Any] = field(default_factory=dict)
    drop: str = r"^$"
    tied: bool = False
    last_keeps_all_rows: bool = False
    logit_spread: float = 3.0
    n_vocab: int = N_VOCAB
    keep: str = r"^$"
    plain_keys: dict[str, Any] = field(default_factory=dict)
    extra_tensors: dict[str, list[int]] = field(default_factory=dict)

    @property
    def n_blocks(self) -> int:
        """Blocks whose outputs can be seen."""
        return (self.n_layer - self.n_extra) * self.n_loops


_MOE = {
    "expert_count": 4,
    "expert_used_count": 2,
    "expert_feed_forward_length": 64,
    "expert_shared_feed_forward_length": 64,
    "expert_shared_count": 1,
    "expert_gating_func": 1,
}
_SSM = {
    "ssm.conv_kernel": 4,
    "ssm.inner_size": 2 * N_EMBD,
    "ssm.state_size": 16,
    "ssm.time_step_rank": 4,
    "ssm.group_count": 1,
}
_SSM2 = {**_SSM, "ssm.group_count": 2}
_DELTA_NET = {
    "rope.dimension_sections": [4, 2, 2, 0],
    "ssm.conv_kernel": 4,
    "ssm.inner_size": 64,
    "ssm.state_size": 16,
    "ssm.time_step_rank": 4,
    "ssm.group_count": 2,
    "full_attention_interval": 2,
}
_MLA = {  # multi-head latent attention: one key-value head of rank 32 and 8 rotated dimensions
    "attention.head_count_kv": 1,
    "attention.q_lora_rank": 32,
    "attention.kv_lora_rank": 32,
    "attention.key_length": 40,
    "attention.value_length": 32,
    "attention.key_length_mla": 24,
    "attention.value_length_mla": 16,
    "rope.dimension_count": 8,
}
_OPEN_MLA = {  # the same with keys and values of every head in the cache
    **_MLA,
    "attention.head_count_kv": N_HEAD,
    "attention.key_length": 24,
    "attention.value_length": 16,
}
_QKV_BIAS = r"attn_(q|k|v|qkv|output)\.bias|ffn_\w+\.bias"


def _hybrid(n_layer: int) -> dict[str, Any]:
    heads = [0 if il == 1 else N_HEAD for il in range(n_layer)]
    return {"attention.head_count": heads, "attention.head_count_kv": heads}


ARCHS: dict[str, ArchSpec] = {
    "llama": ArchSpec("llama", drop=_QKV_BIAS),
    "llama-tied": ArchSpec("llama", drop=_QKV_BIAS, tied=True),
    "mixtral": ArchSpec("llama", keys=_MOE, drop=_QKV_BIAS + "|shexp"),
    "qwen2": ArchSpec("qwen2"),  # with a head bias, which this architecture may have
    "qwen3": ArchSpec("qwen3", keys={"attention.key_length": 16, "attention.value_length": 16}),
    "qwen3moe": ArchSpec("qwen3moe", keys=_MOE),
    "gemma": ArchSpec("gemma", tied=True),
    "gemma2": ArchSpec(
        "gemma2",
        keys={"final_logit_softcapping": 5.0, "attn_logit_softcapping": 40.0, "attention.sliding_window": 64},
        tied=True,
    ),
    "gemma2-default-cap": ArchSpec(
        "gemma2", keys={"attention.sliding_window": 64}, tied=True, logit_spread=25.0
    ),
    "gemma3": ArchSpec("gemma3", keys={"attention.sliding_window": 64}, tied=True),
    "gemma3-cap": ArchSpec(
        "gemma3", keys={"attention.sliding_window": 64, "final_logit_softcapping": 4.0}, tied=True
    ),
    "phi2": ArchSpec("phi2", "layer"),
    "phi3": ArchSpec("phi3"),
    "gpt2": ArchSpec("gpt2", "layer"),
    "gptneox": ArchSpec("gptneox", "layer", keys={"use_parallel_residual": True}),
    "gptneox-sequential": ArchSpec("gptneox", "layer", keys={"use_parallel_residual": False}),
    "stablelm": ArchSpec("stablelm", "layer"),
    "falcon": ArchSpec("falcon", "layer"),
    "bloom": ArchSpec("bloom", "layer"),
    "mpt": ArchSpec("mpt", "layer", keys={"attention.max_alibi_bias": 8.0}, drop=r"attn_[qk]_norm|ffn\.act"),
    "starcoder2": ArchSpec("starcoder2", "layer"),
    "command-r": ArchSpec("command-r", "layer", keys={"logit_scale": 0.25}, tied=True),
    "cohere2": ArchSpec(
        "cohere2", "layer", keys={"logit_scale": 0.25, "attention.sliding_window": 64}, tied=True
    ),
    "cohere2moe": ArchSpec(
        "cohere2moe",
        "layer",
        keys={**_MOE, "logit_scale": 0.25, "attention.sliding_window": 64, "leading_dense_block_count": 1},
        tied=True,
        last_keeps_all_rows=True,
    ),
    "granite": ArchSpec(
        "granite",
        keys={"logit_scale": 4.0, "residual_scale": 0.5, "embedding_scale": 2.0, "attention.scale": 0.2},
        drop=_QKV_BIAS,
        logit_spread=12.0,
    ),
    "granitemoe": ArchSpec("granitemoe", keys={**_MOE, "logit_scale": 4.0}, logit_spread=12.0),
    "granitehybrid": ArchSpec(
        "granitehybrid", keys={**_SSM2, **_hybrid(3), "logit_scale": 4.0}, logit_spread=12.0
    ),
    "minicpm": ArchSpec("minicpm", keys={"logit_scale": 0.5, "residual_scale": 0.7}, drop=_QKV_BIAS),
    "olmo": ArchSpec("olmo", "layer"),
    "olmo2": ArchSpec("olmo2"),
    "olmoe": ArchSpec("olmoe", keys=_MOE),
    "grok": ArchSpec("grok", keys={**_MOE, "logit_scale": 0.4, "embedding_scale": 2.0}),
    "grok-cap": ArchSpec(
        "grok", keys={**_MOE, "logit_scale": 0.4, "embedding_scale": 2.0, "final_logit_softcapping": 2.0}
    ),
    "gpt-oss": ArchSpec("gpt-oss", keys={**_MOE, "attention.sliding_window": 64}, last_keeps_all_rows=True),
    "qwen3next": ArchSpec("qwen3next", keys={**_DELTA_NET, **_MOE}, last_keeps_all_rows=True),
    "qwen35": ArchSpec("qwen35", keys=_DELTA_NET, last_keeps_all_rows=True),
    "mamba": ArchSpec("mamba", keys=_SSM),
    "mamba2": ArchSpec("mamba2", keys=_SSM2),
    "jamba": ArchSpec("jamba", keys={**_SSM, **_hybrid(3)}),
    "falcon-h1": ArchSpec("falcon-h1", keys=_SSM2),
    "baichuan": ArchSpec("baichuan"),
    "bitnet": ArchSpec("bitnet", tied=True),
    "chatglm": ArchSpec("chatglm"),
    "codeshell": ArchSpec("codeshell", "layer"),
    "command-r-no-scale": ArchSpec("command-r", "layer", tied=True),
    "dbrx": ArchSpec("dbrx", "layer", keys={**_MOE, "attention.clamp_kqv": 8.0}),
    "deepseek2": ArchSpec("deepseek2", keys={**_MOE, **_MLA, "leading_dense_block_count": 1}),
    "ernie4_5": ArchSpec("ernie4_5"),
    "exaone4": ArchSpec("exaone4", keys={"attention.sliding_window": 64}),
    "gemma3n": ArchSpec(  # carries several streams that are merged after the last block: no lens
        "gemma3n",
        n_layer=22,
        keys={"attention.sliding_window": 64, "attention.sliding_window_pattern": 5},
        last_keeps_all_rows=True,
    ),
    "glm4": ArchSpec("glm4"),
    "granite_swa": ArchSpec(
        "granite_swa",
        keys={
            "logit_scale": 4.0,
            "attention.sliding_window": 64,
            "attention.sliding_window_pattern": [1, 0, 1],
        },
        logit_spread=12.0,
    ),
    "grok-default": ArchSpec("grok", keys=_MOE),
    "hunyuan-dense": ArchSpec("hunyuan-dense"),
    "internlm2": ArchSpec("internlm2"),
    "jais": ArchSpec("jais", "layer", keys={"attention.max_alibi_bias": 8.0}),
    "minicpm-default": ArchSpec("minicpm", drop=_QKV_BIAS, logit_spread=12.0),
    "minicpm3": ArchSpec(
        "minicpm3",
        keys=_OPEN_MLA,
        logit_spread=0.75,
    ),
    "muse-glimmer": ArchSpec(
        "muse-glimmer",
        keys={
            "logit_scale": 8.0,
            "attention.sliding_window": 64,
            "attention.sliding_window_pattern": [1, 0, 1],
        },
    ),
    "nemotron": ArchSpec("nemotron", "layer"),
    "openelm": ArchSpec("openelm", tied=True),
    "orion": ArchSpec("orion", "layer"),
    "phimoe": ArchSpec("phimoe", keys=_MOE),
    "plamo": ArchSpec("plamo"),
    "qwen2vl": ArchSpec("qwen2vl", keys={"rope.dimension_sections": [4, 2, 2, 0]}),
    "smollm3": ArchSpec("smollm3"),
    "starcoder": ArchSpec("starcoder", "layer"),
    "talkie": ArchSpec("talkie", keys={"logit_scale": 0.5}),
    "lfm2": ArchSpec("lfm2", keys={"shortconv.l_cache": 3, **_hybrid(3)}, tied=True),
}

_SIGMOID_MOE = {**_MOE, "expert_gating_func": 2, "leading_dense_block_count": 1, "expert_weights_norm": True}
_KDA = {"kda.head_dim": 16, "kda.gate_lower_bound": -5.0, "ssm.conv_kernel": 4}
_SWA = {"attention.sliding_window": 64, "attention.sliding_window_pattern": [1, 0, 1]}
_INDEXER = {
    "attention.indexer.head_count": 4,
    "attention.indexer.key_length": 64,
    "attention.indexer.top_k": 1024,
}
_WKV = {"embedding_length": 128, "attention.head_count": 0, "attention.head_count_kv": 0, "wkv.head_size": 64, "time_mix_extra_dim": 8, "time_decay_extra_dim": 8, "token_shift_count": 2}
_WKV7 = {
    "embedding_length": 128, "attention.head_count": 0, "attention.head_count_kv": 0, "wkv.head_size": 64,
    "attention.decay_lora_rank": 8,
    "attention.iclr_lora_rank": 8,
    "attention.value_residual_mix_lora_rank": 8,
    "attention.gate_lora_rank": 8,
    "token_shift_count": 2,
}
_MROPE = {"rope.dimension_sections": [4, 2, 2, 0]}
_STREAMS = {
    "hyper_connection.count": 4,
    "hyper_connection.sinkhorn_iterations": 2,
    "hyper_connection.epsilon": 0.05,
}
# Tensors of a block behind the trunk, for architectures that llama.cpp does not make such blocks of.
_EXTRA = {
    "blk.3.nextn.eh_proj.weight": [2 * N_EMBD, N_EMBD],
    "blk.3.nextn.enorm.weight": [N_EMBD],
    "blk.3.nextn.hnorm.weight": [N_EMBD],
    "blk.3.nextn.shared_head_norm.weight": [N_EMBD],
}


def _hybrid_mla(n_layer: int) -> dict[str, Any]:
    heads = [0 if il == 1 else 1 for il in range(n_layer)]
    return {"attention.head_count_kv": heads}


ARCHS |= {
    "afmoe": ArchSpec("afmoe", keys={**_SIGMOID_MOE, **_SWA}),
    "apertus": ArchSpec(
        "apertus",
        plain_keys={"xielu.alpha_n": 0.8, "xielu.alpha_p": 0.8, "xielu.beta": 0.5, "xielu.eps": -1e-6},
    ),
    "arcee": ArchSpec("arcee"),
    "arctic": ArchSpec("arctic", keys=_MOE),
    "arwkv7": ArchSpec("arwkv7", keys={**_WKV7, "token_shift_count": 1}),
    "bailingmoe": ArchSpec("bailingmoe", keys={**_MOE, "leading_dense_block_count": 1}),
    "bailingmoe2": ArchSpec("bailingmoe2", keys=_SIGMOID_MOE),
    "bailingmoe2-mtp": ArchSpec(
        "bailingmoe2", n_layer=4, n_extra=1, keys=_SIGMOID_MOE,
        extra_tensors={**_EXTRA, "blk.3.layer_output_norm.weight": [N_EMBD]},
    ),
    "bailingmoe3": ArchSpec(
        "bailingmoe3", keys={**_SIGMOID_MOE, **_MLA, **_KDA, **_hybrid_mla(3)}
    ),
    "bailingmoe3-mtp": ArchSpec(
        "bailingmoe3", n_layer=4, n_extra=1, keys={**_SIGMOID_MOE, **_MLA, **_KDA, **_hybrid_mla(4)}
    ),
    "chameleon": ArchSpec("chameleon", n_vocab=8704),
    "chameleon-swin": ArchSpec("chameleon", n_vocab=8704, keys={"swin_norm": True}),
    "cogvlm": ArchSpec("cogvlm"),
    "deci": ArchSpec("deci"),
    "deepseek": ArchSpec("deepseek", keys={**_MOE, "leading_dense_block_count": 1}),
    "deepseek2-ocr": ArchSpec("deepseek2-ocr", keys={**_MOE, "leading_dense_block_count": 1}),
    "deepseek32": ArchSpec("deepseek32", keys={**_SIGMOID_MOE, **_MLA, **_INDEXER}),
    "deepseek32-mtp": ArchSpec(
        "deepseek32", n_layer=4, n_extra=1, keys={**_SIGMOID_MOE, **_MLA, **_INDEXER}
    ),
    "deepseek4": ArchSpec(
        "deepseek4",
        n_layer=4,
        keys={
            **_MOE, **_INDEXER, **_STREAMS,
            "expert_gating_func": 4, "expert_weights_scale": 1.5, "expert_weights_norm": True,
            "swiglu_clamp_exp": 10.0, "hash_layer_count": 0,
            "attention.head_count_kv": 1, "attention.key_length": 16, "attention.value_length": 16,
            "rope.dimension_count": 8, "attention.q_lora_rank": 32, "attention.sliding_window": 64,
            "attention.output_group_count": 2, "attention.output_lora_rank": 16,
            "attention.compress_ratios": [0, 0, 4, 128], "attention.compress_rope_freq_base": 160000.0,
        },
        node="l_last", n_streams=4, last_keeps_all_rows=True,
    ),
    "dots1": ArchSpec("dots1", keys=_SIGMOID_MOE),
    "dots3note": ArchSpec(
        "dots3note",
        keys={
            **_SIGMOID_MOE, **_MLA, **_SWA, **_INDEXER,
            "attention.kv_lora_rank_swa": 32, "attention.key_length_swa": 40, "attention.value_length_swa": 32,
            "attention.key_length_mla_swa": 24, "attention.value_length_mla_swa": 16,
            "rope.freq_base_swa": 10000.0, "attention.indexer.types": [0, 1, 0],
        },
    ),
    "ernie4_5-moe": ArchSpec(
        "ernie4_5-moe",
        keys={**_MOE, "leading_dense_block_count": 1, "interleave_moe_layer_step": 1},
    ),
    "exaone": ArchSpec("exaone"),
    "exaone-moe": ArchSpec("exaone-moe", keys={**_SIGMOID_MOE, **_SWA}),
    "exaone-moe-mtp": ArchSpec(
        "exaone-moe", n_layer=4, n_extra=1,
        extra_tensors={
            **_EXTRA, "blk.3.ffn_gate.weight": [N_EMBD, 128], "blk.3.ffn_up.weight": [N_EMBD, 128],
            "blk.3.ffn_down.weight": [128, N_EMBD],
        },
        drop=r"^blk\.3\.(ffn_gate_inp|\w+_exps|\w+_shexp|exp_probs)",
        keys={**_SIGMOID_MOE, **_SWA, "attention.sliding_window_pattern": [1, 0, 1, 0]},
    ),
    "gemma4": ArchSpec(
        "gemma4",
        keys={
            **_SWA, "attention.shared_kv_layers": 0, "embedding_length_per_layer_input": 16, "final_logit_softcapping": 5.0,
            "attention.key_length_swa": 16, "attention.value_length_swa": 16,
        },
        tied=True, last_keeps_all_rows=True, keep=r"rope_freqs", drop=r"gate_inp|_exps|layer_output_scale",
    ),
    "gemma4-moe": ArchSpec(
        "gemma4",
        keys={
            **_MOE, **_SWA, "embedding_length_per_layer_input": 0,
            "attention.key_length_swa": 16, "attention.value_length_swa": 16,
        },
        last_keeps_all_rows=True, logit_spread=25.0, keep=r"rope_freqs|gate_inp\.scale",
    ),
    "glm-dsa": ArchSpec("glm-dsa", keys={**_SIGMOID_MOE, **_MLA, **_INDEXER}),
    "glm-dsa-mtp": ArchSpec("glm-dsa", n_layer=4, n_extra=1, keys={**_SIGMOID_MOE, **_MLA, **_INDEXER}),
    "glm4moe": ArchSpec("glm4moe", keys=_SIGMOID_MOE),
    "glm4moe-mtp": ArchSpec("glm4moe", n_layer=4, n_extra=1, keys=_SIGMOID_MOE),
    "glm5-next": ArchSpec(
        "glm5-next",
        keys={
            **_SIGMOID_MOE, **_MLA, **_INDEXER, **_KDA, **_STREAMS, **_hybrid_mla(3),
            "attention.key_length": 32, "rope.dimension_count": 0,
            "attention.indexer.kpool": 4, "attention.indexer.kpool_select_tail": True,
        },
        n_streams=4, last_keeps_all_rows=True,
    ),
    "graniteswitch": ArchSpec(
        "graniteswitch",
        keys={
            "logit_scale": 4.0, "residual_scale": 0.5, "embedding_scale": 2.0,
            "adapters.count": 2, "adapters.lora_rank": 4, "adapters.router_gain": 1.0,
            "adapters.token_ids_activate": [10, 11], "adapters.token_ids_substitute": [12, 13],
        },
        logit_spread=12.0,
    ),
    "grovemoe": ArchSpec(
        "grovemoe",
        keys={**_MOE, "expert_chunk_feed_forward_length": 32, "expert_group_scale": 0.5, "experts_per_group": 2},
    ),
    "hrm_text": ArchSpec(
        "hrm_text", n_layer=6, keys={"hrm.layers_per_stack": 1, "hrm.h_cycles": 2, "hrm.l_cycles": 2}
    ),
    "hunyuan-moe": ArchSpec("hunyuan-moe", keys=_MOE),
    "hunyuan_vl": ArchSpec("hunyuan_vl", keys=_MROPE),
    "hy_v3": ArchSpec("hy_v3", keys=_SIGMOID_MOE),
    "hy_v3-mtp": ArchSpec("hy_v3", n_layer=4, n_extra=1, keys=_SIGMOID_MOE),
    "hy_v4": ArchSpec(
        "hy_v4",
        keys={
            **_SIGMOID_MOE, **_MLA, **_INDEXER, **_STREAMS,
            "hyper_connection.magnitude": 2.0, "swiglu_clamp_exp": 10.0, "attention.indexer.types": [1, 0, 1],
        },
        n_streams=4, last_keeps_all_rows=True,
    ),
    "jais2": ArchSpec("jais2", "layer"),
    "kimi-k3": ArchSpec(
        "kimi-k3",
        keys={
            **_SIGMOID_MOE, **_MLA, **_KDA, **_hybrid_mla(3), "expert_latent_length": 32,
            "attn_res.block_size": 0, "activation.situ_beta": 4.0, "activation.situ_linear_beta": 25.0,
        },
    ),
    "kimi-k3-residuals": ArchSpec(
        "kimi-k3",
        keys={
            **_SIGMOID_MOE, **_MLA, **_KDA, **_hybrid_mla(3), "expert_latent_length": 32,
            "attn_res.block_size": 2, "activation.situ_beta": 4.0, "activation.situ_linear_beta": 25.0,
        },
        last_keeps_all_rows=True,
    ),
    "kimi-linear": ArchSpec("kimi-linear", keys={**_SIGMOID_MOE, **_MLA, **_KDA, **_hybrid_mla(3)}),
    "laguna": ArchSpec("laguna", keys={**_SIGMOID_MOE, **_SWA}),
    "lfm2moe": ArchSpec(
        "lfm2moe", keys={**_SIGMOID_MOE, "shortconv.l_cache": 3, **_hybrid(3)}, tied=True
    ),
    "llama4": ArchSpec(
        "llama4", n_layer=4, keys={**_MOE, "interleave_moe_layer_step": 2}
    ),
    "maincoder": ArchSpec("maincoder"),
    "maple": ArchSpec("maple", keys={**_MOE, **_SWA, "swiglu_clamp_exp": 7.0}),
    "mellum": ArchSpec("mellum", keys={**_MOE, **_SWA}),
    "mimo2": ArchSpec("mimo2", keys={**_MOE, **_SWA, "attention.value_scale": 0.7}),
    "mimo2-mtp": ArchSpec(
        "mimo2", n_layer=4, n_extra=1,
        keys={**_MOE, **_SWA, "attention.sliding_window_pattern": [1, 0, 1, 1]},
    ),
    "minimax-01": ArchSpec(
        "minimax-01", keys={**_MOE, "residual_scale": 1.7, "full_attention_interval": 2}
    ),
    "minimax-m2": ArchSpec("minimax-m2", keys={**_MOE, "expert_gating_func": 2}),
    "minimax-m3": ArchSpec(
        "minimax-m3",
        keys={
            **_SIGMOID_MOE, **_INDEXER, "attention.indexer.key_length": 16, "attention.indexer.block_size": 4, "attention.indexer.local_blocks": 1,
        },
    ),
    "mistral3": ArchSpec("mistral3"),
    "mistral3-moe": ArchSpec("mistral3", keys=_MOE),
    "mistral4": ArchSpec("mistral4", keys={**_MOE, **_MLA, "leading_dense_block_count": 1}),
    "nanbeige": ArchSpec("nanbeige"),
    "nanbeige-loops": ArchSpec("nanbeige", n_loops=2, keys={"num_loops": 2}),
    "nemotron_h": ArchSpec(
        "nemotron_h",
        node="nemotron_h_block_out",
        last_keeps_all_rows=True,
        keys={**_SSM2, "attention.head_count_kv": [0, N_HEAD, 0], "feed_forward_length": [0, 0, 128]},
    ),
    "nemotron_h_moe": ArchSpec(
        "nemotron_h_moe",
        node="nemotron_h_block_out",
        last_keeps_all_rows=True,
        keys={
            **_MOE, **_SSM2,
            "attention.head_count_kv": [0, N_HEAD, 0], "feed_forward_length": [128, 0, 0],
        },
    ),
    "paddleocr": ArchSpec("paddleocr", keys=_MROPE),
    "pangu-embedded": ArchSpec("pangu-embedded"),
    "plamo2": ArchSpec("plamo2", keys={**_SSM, **_hybrid(3), "ssm.group_count": 0}, node="ffn_residual"),
    "plamo3": ArchSpec("plamo3", keys=_SWA),
    "plm": ArchSpec("plm", keys=_OPEN_MLA, tied=True),
    "qwen": ArchSpec("qwen"),
    "qwen2moe": ArchSpec("qwen2moe", keys=_MOE),
    "qwen35-mtp": ArchSpec("qwen35", n_layer=4, n_extra=1, keys=_DELTA_NET),
    "qwen35moe": ArchSpec("qwen35moe", keys={**_DELTA_NET, **_MOE}),
    "qwen35moe-mtp": ArchSpec("qwen35moe", n_layer=4, n_extra=1, keys={**_DELTA_NET, **_MOE}),
    "qwen3vl": ArchSpec("qwen3vl", keys=_MROPE),
    "qwen3vlmoe": ArchSpec("qwen3vlmoe", keys={**_MOE, **_MROPE}),
    "qwen4exp": ArchSpec(
        "qwen4exp",
        keys={
            **_DELTA_NET, **_MOE, **_INDEXER, **_STREAMS, "hyper_connection.low_rank": 8,
            "attention.indexer.key_length": 16,
            "attention.compress_ratios": [4, 4, 4],
        },
        node="l_last", n_streams=4,
    ),
    "refact": ArchSpec("refact"),
    "rwkv6": ArchSpec("rwkv6", "layer", keys=_WKV),
    "rwkv6-rescaled": ArchSpec("rwkv6", "layer", keys={**_WKV, "rescale_every_n_layers": 2}),
    "rwkv6qwen2": ArchSpec("rwkv6qwen2", keys={**_WKV, "attention.head_count_kv": 1, "token_shift_count": 1}, drop="time_mix_first"),
    "rwkv7": ArchSpec("rwkv7", "layer", keys=_WKV7),
    "seed_oss": ArchSpec("seed_oss"),
    "smallthinker": ArchSpec("smallthinker", keys={**_MOE, **_SWA}),
    "spark2_5": ArchSpec("spark2_5", keys=_SWA),
    "step35": ArchSpec("step35", keys={**_SIGMOID_MOE, **_SWA}),
    "step35-mtp": ArchSpec(
        "step35", n_layer=4, n_extra=1,
        keys={**_SIGMOID_MOE, **_SWA, "attention.sliding_window_pattern": [1, 0, 1, 1]},
    ),
    "xverse": ArchSpec("xverse"),
}

NOT_MADE: dict[str, str] = {}
