"""Tiny random models of many architectures, with the tensors that llama.cpp itself asks for.

`write_tiny_arch(path, name, seed=...)` writes one of `ARCHS`; `tiny_arch(name)` gives one that tests share.
The names and sizes of the tensors come from llama.cpp (see `tiny_arch_probe`), run once for all
architectures in a process of its own; numbers, types and metadata are ours, so a file looks like a
published one: only the keys that the architecture needs, and optional tensors where we want them.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from support.arch_spec import N_EMBD, N_HEAD, N_VOCAB, ArchSpec
from support.arch_specs import ARCHS, REFUSED
from support.tiny_models import FloatArray, normal, tiny_folder, write_gguf
from support.tiny_vocab import bpe_vocab

__all__ = ["ARCHS", "N_VOCAB", "REFUSED", "tiny_arch", "write_tiny_arch"]

SPECS = {**ARCHS, **REFUSED}

# Optional tensors that published models lack and that would only blur what is tested.
_NEVER = r"(\.scale|\.input_scale)$|^rope_|\.rope_|^cls"


def _metadata(spec: ArchSpec) -> dict[str, Any]:
    keys: dict[str, Any] = {
        "vocab_size": spec.n_vocab,
        "context_length": 512,
        "embedding_length": N_EMBD,
        "block_count": spec.n_layer,
        "feed_forward_length": 2 * N_EMBD,
        "attention.head_count": N_HEAD,
        "attention.head_count_kv": N_HEAD,
        "attention.layer_norm_rms_epsilon": 0.3,
        "attention.layer_norm_epsilon": 0.7,
        "rope.dimension_count": N_EMBD // N_HEAD,
        **({"nextn_predict_layers": spec.n_extra} if spec.n_extra else {}),
        **spec.keys,
    }
    return {
        "general.name": "Tiny Random",
        **{f"{spec.arch}.{key}": value for key, value in keys.items()},
        **spec.plain_keys,
        **bpe_vocab().padded(spec.n_vocab).metadata(),
    }


def _write_keys(path: Path, spec: ArchSpec) -> Path:
    n_extra = 0 if spec.extra_tensors else spec.n_extra  # the ones that llama.cpp would make are ours to add
    return write_gguf(path, spec.arch, _metadata(replace(spec, n_extra=n_extra)), {})


@cache
def tensor_sizes() -> dict[str, dict[str, list[int]] | str]:
    """For each name of `SPECS` the tensors of the model and their ggml sizes, as llama.cpp creates them; what it
    said where it does not.

    Where llama.cpp takes its process along, another one goes on behind that model.
    """
    folder = tiny_folder() / "arch-metadata"
    folder.mkdir(exist_ok=True)
    script = Path(__file__).with_name("tiny_arch_probe.py")
    found: dict[str, dict[str, list[int]] | str] = {}
    waiting = list(SPECS)
    while waiting:
        paths = [_write_keys(folder / f"{name}.gguf", SPECS[name]) for name in waiting]
        done = subprocess.run(
            [sys.executable, str(script), *map(str, paths)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ, "GGML_NO_BACKTRACE": "1"},
        )
        lines = done.stdout.splitlines()
        found |= {name: json.loads(line) for name, line in zip(waiting, lines, strict=False)}
        if done.returncode:
            found[waiting[len(lines)]] = f"exit {done.returncode}: {done.stderr[-2000:]}"
        waiting = [name for name in waiting if name not in found]
    return found


def _tensors_of(name: str) -> dict[str, list[int]]:
    sizes = tensor_sizes()[name]
    if isinstance(sizes, str):
        raise RuntimeError(f"{name}: llama.cpp made no model of this metadata: {sizes}")
    return sizes | SPECS[name].extra_tensors


def _numbers(seed: int, name: str, shape: tuple[int, ...], spec: ArchSpec) -> FloatArray:
    noise = normal(seed, name, *shape)
    small = np.float32(0.3) * noise
    if name == "token_embd.weight":
        return noise * np.float32(spec.logit_spread / np.sqrt(shape[-1])) if spec.tied else noise
    if name == "output.weight":
        return noise * np.float32(spec.logit_spread / np.sqrt(shape[-1]))
    if re.search(r"hc_\w*(base|scale)", name):  # else all streams of a token are much alike
        return 2 * noise
    if name.endswith("ssm_a"):  # a state decays: the exponent is negative
        return -np.abs(noise) - np.float32(0.1)
    if ("norm" in name or "layer_output_scale" in name) and name.endswith("weight"):
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
    perturbation: float = 0.0,
    sharpness: float = 1.0,
) -> Path:
    """Write a model of `ARCHS` or `REFUSED` (3 blocks, 64 wide, 544 tokens, byte-level BPE) and return its path.

    `quantization` applies to matrices of blocks, `head_quantization` (default: the same) to the output head,
    which is the embedding when tied. `metadata` overrides keys (full names); None removes one. `perturbation` is the
    share of other random numbers in each tensor, `sharpness` multiplies the head, or the final norm where the head
    is tied: a model near that of the same seed, and more confident.
    """
    spec = SPECS[name]
    left_out = re.compile(f"{_NEVER}|{spec.drop}" + (r"|^output\.weight$" if spec.tied else ""))
    tensors = {
        key: _numbers(seed, key, tuple(reversed(ne)), spec)
        for key, ne in _tensors_of(name).items()
        if re.search(spec.keep, key) or not left_out.search(key)
    }
    for key in tensors if perturbation else ():
        other = _numbers(seed + 1000, key, tensors[key].shape, spec)
        tensors[key] += np.float32(perturbation) * (other - tensors[key])
    head = "output.weight" if "output.weight" in tensors else "token_embd.weight"
    if sharpness != 1:
        tensors[head if head == "output.weight" else "output_norm.weight"] *= np.float32(sharpness)
    types = {
        key: quantization
        for key, data in tensors.items()
        if data.ndim > 1
        and key.endswith(".weight")
        and not re.search(r"ssm_|shortconv|gate_inp|norm|position", key)
    }
    types[head] = head_quantization or quantization
    return write_gguf(path, spec.arch, {**_metadata(SPECS[name]), **(metadata or {})}, tensors, types=types)


@cache
def tiny_arch(name: str, quantization: str = "F32") -> Path:
    """One shared model file of this architecture, written at first use, seed 1."""
    return write_tiny_arch(
        tiny_folder() / f"{name}-{quantization}.gguf", name, seed=1, quantization=quantization
    )
