"""Tiny random models of many architectures, with the tensors that llama.cpp itself asks for.

`write_tiny_arch(path, name, seed=...)` writes one of `ARCHS`; `tiny_arch(name)` gives one that tests share;
`write_tiny_spec` writes one of a test's own. The names and sizes of the tensors come from llama.cpp (see
`tiny_arch_probe`), run once for many architectures in a process of its own; numbers, types and metadata are
ours, so a file looks like a published one: only the keys that the architecture needs, and optional tensors
where we want them.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from support.tiny_models import FloatArray, normal, tiny_folder, write_gguf
from support.tiny_vocab import bpe_vocab

N_VOCAB = 544
N_EMBD = 64
N_HEAD = 4

# Optional tensors that published models lack and that would only blur what is tested.
_NEVER = r"(\.scale|\.input_scale)$|^rope_|\.rope_|^cls|nextn"


@dataclass(frozen=True)
class ArchSpec:
    """One architecture: its keys without the prefix `<arch>.`, and what differs from the usual.

    `norm`: "rms" or "layer", which epsilon key the file has. `drop`: a pattern of optional tensors to leave
    out. `tied`: no output.weight. `last_keeps_all_rows`: the last `l_out` holds every token of the
    micro-batch, not just the rows whose logits are wanted. `logit_spread`: about the standard deviation of
    the logits before any transform of them.
    """

    arch: str
    norm: str = "rms"
    n_layer: int = 3
    keys: dict[str, Any] = field(default_factory=dict)
    drop: str = r"^$"
    tied: bool = False
    last_keeps_all_rows: bool = False
    logit_spread: float = 3.0


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
        keys={
            **_MLA,
            "attention.head_count_kv": N_HEAD,
            "attention.key_length": 24,
            "attention.value_length": 16,
        },
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


def _metadata(spec: ArchSpec) -> dict[str, Any]:
    eps = {"rms": "layer_norm_rms_epsilon", "layer": "layer_norm_epsilon"}[spec.norm]
    keys: dict[str, Any] = {
        "vocab_size": N_VOCAB,
        "context_length": 512,
        "embedding_length": N_EMBD,
        "block_count": spec.n_layer,
        "feed_forward_length": 2 * N_EMBD,
        "attention.head_count": N_HEAD,
        "attention.head_count_kv": N_HEAD,
        f"attention.{eps}": 1e-5,
        "rope.dimension_count": N_EMBD // N_HEAD,
        **spec.keys,
    }
    return {
        "general.name": "Tiny Random",
        **{f"{spec.arch}.{key}": value for key, value in keys.items()},
        **bpe_vocab().padded(N_VOCAB).metadata(),
    }


def probe_sizes(specs: dict[str, ArchSpec]) -> dict[str, dict[str, list[int]]]:
    """For each of `specs` the tensors of the model and their ggml sizes, as llama.cpp creates them."""
    folder = tiny_folder() / "arch-metadata"
    folder.mkdir(exist_ok=True)
    paths = [
        write_gguf(folder / f"{name}.gguf", spec.arch, _metadata(spec), {}) for name, spec in specs.items()
    ]
    script = Path(__file__).with_name("tiny_arch_probe.py")
    done = subprocess.run(
        [sys.executable, str(script), *map(str, paths)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "GGML_NO_BACKTRACE": "1"},
    )
    lines = done.stdout.splitlines()
    if done.returncode:
        name = [*specs, "after the last"][len(lines)]
        raise RuntimeError(f"{name}: exit {done.returncode}: {done.stderr[-2000:]}")
    return {name: json.loads(line) for name, line in zip(specs, lines, strict=True)}


@cache
def tensor_sizes() -> dict[str, dict[str, list[int]]]:
    """`probe_sizes` of `ARCHS`."""
    return probe_sizes(ARCHS)


def _numbers(seed: int, name: str, shape: tuple[int, ...], spec: ArchSpec) -> FloatArray:
    noise = normal(seed, name, *shape)
    small = np.float32(0.3) * noise
    if name == "token_embd.weight":
        return noise * np.float32(spec.logit_spread / np.sqrt(shape[-1])) if spec.tied else noise
    if name == "output.weight":
        return noise * np.float32(spec.logit_spread / np.sqrt(shape[-1]))
    if name.endswith("ssm_a"):  # a state decays: the exponent is negative
        return -np.abs(noise) - np.float32(0.1)
    if "norm" in name and name.endswith("weight"):
        return 1 + small
    if name.endswith("ssm_d") or name.endswith(".bias") or len(shape) == 1:
        return small
    return noise * np.float32(1 / np.sqrt(shape[-1]))


def write_tiny_arch(
    path: Path | str,
    name: str,
    *,
    seed: int,
    quantization: str = "F32",
    head_quantization: str | None = None,
    metadata: dict[str, Any] | None = None,
    tensors: dict[str, FloatArray] | None = None,
) -> Path:
    """Write the model `name` of `ARCHS` (3 blocks, 64 wide, 544 tokens, byte-level BPE) and return its path.

    Keywords as for `write_tiny_spec`, `tensors` being its `extra`.
    """
    return write_tiny_spec(
        path,
        ARCHS[name],
        tensor_sizes()[name],
        seed=seed,
        quantization=quantization,
        head_quantization=head_quantization,
        metadata=metadata,
        extra=tensors,
    )


def write_tiny_spec(
    path: Path | str,
    spec: ArchSpec,
    sizes: dict[str, list[int]],
    *,
    seed: int,
    quantization: str = "F32",
    head_quantization: str | None = None,
    metadata: dict[str, Any] | None = None,
    extra: dict[str, FloatArray] | None = None,
) -> Path:
    """Write the model of one spec, whose tensors' sizes `probe_sizes` has found, and return its path.

    `quantization` applies to matrices of blocks, `head_quantization` (default: the same) to the output head,
    which is the embedding when tied. `metadata` overrides keys (full names); None removes one. `extra`
    tensors are added.
    """
    left_out = re.compile(f"{_NEVER}|{spec.drop}" + (r"|^output\.weight$" if spec.tied else ""))
    tensors = {
        key: _numbers(seed, key, tuple(reversed(ne)), spec)
        for key, ne in sizes.items()
        if not left_out.search(key)
    } | (extra or {})
    head = "output.weight" if "output.weight" in tensors else "token_embd.weight"
    types = {
        key: quantization
        for key, data in tensors.items()
        if data.ndim > 1
        and key.endswith(".weight")
        and not re.search(r"ssm_|shortconv|gate_inp|norm|position", key)
    }
    types[head] = head_quantization or quantization
    return write_gguf(path, spec.arch, {**_metadata(spec), **(metadata or {})}, tensors, types=types)


@cache
def tiny_arch(name: str, quantization: str = "F32") -> Path:
    """One shared model file of this architecture, written at first use, seed 1."""
    return write_tiny_arch(
        tiny_folder() / f"{name}-{quantization}.gguf", name, seed=1, quantization=quantization
    )
