"""Tiny models whose blocks are attention and one feed-forward part: a row for each, see `arch_spec.ArchSpec`."""

from __future__ import annotations

from support.arch_spec import MROPE, OPEN_MLA, QKV_BIAS, SWA, ArchSpec

DENSE: dict[str, ArchSpec] = {
    "llama": ArchSpec("llama", keys={"attention.layer_norm_epsilon": None}, drop=QKV_BIAS),
    "llama-tied": ArchSpec("llama", drop=QKV_BIAS, tied=True),
    "qwen2": ArchSpec("qwen2"),  # with a head bias, which this architecture may have
    "qwen3": ArchSpec("qwen3", keys={"attention.key_length": 16, "attention.value_length": 16}),
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
    "gpt2": ArchSpec("gpt2", "layer", keys={"attention.layer_norm_rms_epsilon": None}),
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
    "granite": ArchSpec(
        "granite",
        keys={"logit_scale": 4.0, "residual_scale": 0.5, "embedding_scale": 2.0, "attention.scale": 0.2},
        drop=QKV_BIAS,
        logit_spread=12.0,
    ),
    "minicpm": ArchSpec("minicpm", keys={"logit_scale": 0.5, "residual_scale": 0.7}, drop=QKV_BIAS),
    "olmo": ArchSpec("olmo", "layer"),
    "olmo2": ArchSpec("olmo2"),
    "baichuan": ArchSpec("baichuan"),
    "bitnet": ArchSpec("bitnet", tied=True),
    "chatglm": ArchSpec("chatglm"),
    "codeshell": ArchSpec("codeshell", "layer"),
    "command-r-no-scale": ArchSpec("command-r", "layer", tied=True),
    "ernie4_5": ArchSpec("ernie4_5"),
    "exaone4": ArchSpec("exaone4", keys={"attention.sliding_window": 64}),
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
    "hunyuan-dense": ArchSpec("hunyuan-dense"),
    "internlm2": ArchSpec("internlm2"),
    "jais": ArchSpec("jais", "layer", keys={"attention.max_alibi_bias": 8.0}),
    "minicpm-default": ArchSpec("minicpm", drop=QKV_BIAS, logit_spread=12.0),
    "minicpm3": ArchSpec(
        "minicpm3",
        keys=OPEN_MLA,
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
    "plamo": ArchSpec("plamo"),
    "qwen2vl": ArchSpec("qwen2vl", keys={"rope.dimension_sections": [4, 2, 2, 0]}),
    "smollm3": ArchSpec("smollm3"),
    "starcoder": ArchSpec("starcoder", "layer"),
    "talkie": ArchSpec("talkie", keys={"logit_scale": 0.5}),
    "apertus": ArchSpec(
        "apertus",
        plain_keys={"xielu.alpha_n": 0.8, "xielu.alpha_p": 0.8, "xielu.beta": 0.5, "xielu.eps": -1e-6},
    ),
    "arcee": ArchSpec("arcee"),
    "deci": ArchSpec("deci"),
    "exaone": ArchSpec("exaone"),
    "gemma4": ArchSpec(
        "gemma4",
        keys={
            **SWA,
            "attention.shared_kv_layers": 0,
            "embedding_length_per_layer_input": 16,
            "final_logit_softcapping": 5.0,
            "attention.key_length_swa": 16,
            "attention.value_length_swa": 16,
        },
        tied=True,
        last_keeps_all_rows=True,
        keep=r"rope_freqs",
        drop=r"gate_inp|_exps",
    ),
    "graniteswitch": ArchSpec(
        "graniteswitch",
        keys={
            "logit_scale": 4.0,
            "residual_scale": 0.5,
            "embedding_scale": 2.0,
            "adapters.count": 2,
            "adapters.lora_rank": 4,
            "adapters.router_gain": 1.0,
            "adapters.token_ids_activate": [10, 11],
            "adapters.token_ids_substitute": [12, 13],
        },
        logit_spread=12.0,
    ),
    "hrm_text": ArchSpec(
        "hrm_text",
        n_layer=6,
        keys={"hrm.layers_per_stack": 1, "hrm.h_cycles": 2, "hrm.l_cycles": 2},
        last_keeps_all_rows=True,
    ),
    "hunyuan_vl": ArchSpec("hunyuan_vl", keys=MROPE),
    "jais2": ArchSpec("jais2", "layer"),
    "maincoder": ArchSpec("maincoder"),
    "mistral3": ArchSpec("mistral3"),
    "nanbeige": ArchSpec("nanbeige"),
    "nanbeige-loops": ArchSpec("nanbeige", n_loops=2, keys={"num_loops": 2}),
    "paddleocr": ArchSpec("paddleocr", keys=MROPE),
    "pangu-embedded": ArchSpec("pangu-embedded"),
    "plamo3": ArchSpec("plamo3", keys=SWA),
    "qwen": ArchSpec("qwen"),
    "qwen3vl": ArchSpec("qwen3vl", keys=MROPE),
    "refact": ArchSpec("refact"),
    "seed_oss": ArchSpec("seed_oss"),
    "spark2_5": ArchSpec("spark2_5", keys=SWA),
    "xverse": ArchSpec("xverse"),
    "nanbeige-loops-without-norm": ArchSpec(
        "nanbeige", n_loops=2, keys={"num_loops": 2, "skip_loop_final_norm": True}
    ),
    "plm": ArchSpec("plm", keys=OPEN_MLA, tied=True),
}
