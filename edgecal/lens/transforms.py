"""What each architecture does between its last block and its logits, beyond norm and head.

Facts of llama.cpp as of the release that edgecal is pinned to (its `src/models/*.cpp`). An architecture that
is not named here gets the plain treatment, a norm and a matrix; whether that is right for a model is never
assumed but measured, by `edgecal.lens.check`. Knows metadata keys, no tensors.

All of it fits one formula, in this order: `x = scale * (head . norm(hidden) + bias)`, and with a soft cap c
`c * tanh(x / c)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from edgecal.errors import ModelError

__all__ = [
    "LogitKeys",
    "Norm",
    "Transform",
    "logit_keys",
    "norm_of",
    "reads_head_bias",
    "reads_head_scale",
    "transform_of",
]

GetKey = Callable[[str], Any]

LAYER_NORM_EPS = "attention.layer_norm_epsilon"
RMS_NORM_EPS = "attention.layer_norm_rms_epsilon"

# `logit_scale` multiplies the logits; without the key there is no scale unless a default is given here.
_MULTIPLY: dict[str, float | None] = {
    "cohere2": None,
    "cohere2moe": None,
    "command-r": None,
    "grok": 0.5773502691896257,
    "muse-glimmer": None,
    "talkie": None,
}
# `logit_scale` divides the logits. MiniCPM's default depends on its width, see below.
_DIVIDE = frozenset({"granite", "granitemoe", "granitehybrid", "graniteswitch", "granite_swa", "minicpm"})
_MINICPM_BASE_WIDTH = 256

# `final_logit_softcapping`, with the value that llama.cpp takes where the key is missing.
_SOFT_CAP: dict[str, float | None] = {
    "gemma2": 30.0,
    "gemma3": None,
    "gemma3n": 30.0,
    "gemma4": 30.0,
    "grok": None,
    "muse-glimmer": 30.0,
}
_CAP_KEY_IGNORED = frozenset({"gemma3n"})

# The kind of the final norm where the epsilon keys of a file do not tell: a file may have both.
_LAYER_NORM = frozenset(
    {
        "bloom", "codeshell", "cohere2", "command-r", "dbrx", "falcon", "gpt2", "gptneox", "jais", "jais2",
        "mpt", "nemotron", "olmo", "orion", "phi2", "pockettts", "rwkv6", "rwkv7", "stablelm", "starcoder",
        "starcoder2",
    }
)  # fmt: skip
# These have an epsilon for some LayerNorm elsewhere; Nemotron-H files may have no other.
_RMS_NORM = frozenset({"arwkv7", "glm5-next", "nemotron_h", "nemotron_h_moe", "rwkv6qwen2"})

# llama.cpp loads `output.bias` for these and never adds it.
_BIAS_UNUSED = frozenset({"dream", "qwen2vl"})

# Beside a head of NVFP4 llama.cpp loads `output.scale` for every architecture; these graphs never multiply by it.
_SCALE_UNUSED = frozenset(
    {
        "bailingmoe3", "cohere2moe", "deepseek2", "deepseek2-ocr", "deepseek32", "deepseek4", "dots3note", "glm-dsa",
        "glm5-next", "hy_v4", "kimi-k3", "kimi-linear", "laguna", "mistral4", "spark2_5", "talkie",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Norm:
    """The final norm: RMSNorm, or LayerNorm if `centered` (the mean is subtracted first)."""

    centered: bool
    eps: float


@dataclass(frozen=True)
class Transform:
    """Applied to each logit: `scale`, then a soft cap unless `soft_cap` is None."""

    scale: float = 1.0
    soft_cap: float | None = None


@dataclass(frozen=True)
class LogitKeys:
    """Which metadata keys reach the logits of an architecture, each None where llama.cpp reads no such key.

    scale: what `<architecture>.logit_scale` does to them; soft_cap: "read", or "fixed" where there is a cap
    that no key changes (`<architecture>.final_logit_softcapping` is ignored).
    """

    scale: Literal["multiplies", "divides"] | None
    soft_cap: Literal["read", "fixed"] | None


def logit_keys(architecture: str) -> LogitKeys:
    """The keys that llama.cpp reads; whether a file has them is another matter."""
    scale: Literal["multiplies", "divides"] | None = None
    if architecture in _MULTIPLY:
        scale = "multiplies"
    elif architecture in _DIVIDE:
        scale = "divides"
    if architecture not in _SOFT_CAP:
        return LogitKeys(scale, None)
    return LogitKeys(scale, "fixed" if architecture in _CAP_KEY_IGNORED else "read")


def norm_of(architecture: str, get: GetKey, where: object) -> Norm:
    """The kind of the final norm and its epsilon, from the metadata; `where` names the file in errors.

    Some architectures are known to have the one or the other. Else the epsilon key that a file has tells;
    RMSNorm if it has both. Cohere 2 MoE takes RMSNorm if that epsilon is there and not zero.

    Raises
    ------
    ModelError: neither key is there, or the epsilon is not a finite number from 0 on.
    """
    rms_key, layer_key = (f"{architecture}.{name}" for name in (RMS_NORM_EPS, LAYER_NORM_EPS))
    rms, layer = get(rms_key), get(layer_key)
    if rms is None and layer is None:
        raise ModelError(
            f"{where}: expected {rms_key} or {layer_key}, found neither, so the final norm is not known; "
            "use --method daca, which needs no lens"
        )
    if architecture in _LAYER_NORM:
        centered = True
    elif architecture in _RMS_NORM:
        centered = False
    else:
        centered = rms is None or (architecture == "cohere2moe" and rms == 0)
    key, value = (layer_key, layer) if centered else (rms_key, rms)
    if value is None:
        key, value = (rms_key, rms) if centered else (layer_key, layer)
    return Norm(centered, _number(value, key, where, least=0.0))


def transform_of(architecture: str, n_embd: int, get: GetKey, where: object) -> Transform:
    """Logit scale and soft cap of this file; zero in the file means "none", as llama.cpp has it.

    Raises
    ------
    ModelError: a value is not a finite number.
    """
    scale = 1.0
    scale_key = f"{architecture}.logit_scale"
    if architecture in _MULTIPLY or architecture in _DIVIDE:
        value = get(scale_key)
        default = _MULTIPLY.get(architecture)
        if architecture == "minicpm":
            default = _MINICPM_BASE_WIDTH / n_embd
        factor = default if value is None else _number(value, scale_key, where)
        if factor:
            scale = 1.0 / factor if architecture in _DIVIDE else factor
    elif architecture == "minicpm3":  # scales the head's input instead, which is the same
        scale = _MINICPM_BASE_WIDTH / n_embd
    if architecture not in _SOFT_CAP:
        return Transform(scale)
    cap_key = f"{architecture}.final_logit_softcapping"
    value = None if architecture in _CAP_KEY_IGNORED else get(cap_key)
    cap = _SOFT_CAP[architecture] if value is None else _number(value, cap_key, where)
    return Transform(scale, cap or None)


def reads_head_bias(architecture: str) -> bool:
    """Whether llama.cpp adds `output.bias` to the logits of this architecture where the file has one."""
    return architecture not in _BIAS_UNUSED


def reads_head_scale(architecture: str) -> bool:
    """Whether llama.cpp multiplies an NVFP4 head by `output.scale` where the file has one."""
    return architecture not in _SCALE_UNUSED


def _number(value: Any, key: str, where: object, least: float = float("-inf")) -> float:
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value < float("inf")
    if not good:
        raise ModelError(
            f"{where}: {key} is {value!r}, expected a number; the file is damaged, convert the model again"
        )
    return float(value)
