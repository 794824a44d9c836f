"""Finds what to divide so that all logits of a model are divided: facts by architecture, tensors by name.

The facts come from `edgecal.architectures`, as for the lens. There are two ways; the more exact comes first:

- the model's own logit scale, a key: Cohere multiplies by it, Granite and MiniCPM divide. Only if the file has that
  key, since a runtime that knows the model reads the keys that its files have, not all that they could have.
- the final norm's weight and bias, before the head, and the head's bias if llama.cpp adds one. The head itself never
  changes, and so neither does a tied embedding.

A soft cap c follows both: c becomes c / tau.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecal.architectures import family_of, refusal_of, transform_of
from edgecal.errors import InputError
from edgecal.gguf.header import Header
from edgecal.gguf.shards import ShardSet
from edgecal.gguf.tensors import GGML_TYPES, TensorInfo, why_not_run
from edgecal.gguf.values import Value, ValueType

__all__ = ["Recipe", "divided", "find_recipe", "is_known", "why_check"]

_NO_NORM_WEIGHT = "its final norm has no weight and its logits no scale, so there is nothing small to divide"
_REFUSED = {
    "olmo": _NO_NORM_WEIGHT,
    "hrm_text": _NO_NORM_WEIGHT,
    "qwen4exp": "its streams are mixed after the final norm, so that no weight divides all logits",
    "gemma3n": "its soft cap of 30 is fixed in llama.cpp, which ignores the key, so it cannot be divided",
}

# llama.cpp's "none", and its "unspecified" with and without a sign.
_NOT_POOLED = (0, -1, 2**32 - 1)

_KNOWN_TYPES = frozenset(known.name for known in GGML_TYPES.values())


@dataclass(frozen=True)
class Recipe:
    """What baking changes in a model.

    Attributes
    ----------
    tensors: names of the F32 tensors to divide.
    keys: metadata keys and their new values; in the order in which new ones are added.
    head_type: how the head is stored (Q6_K, ...).
    """

    tensors: tuple[str, ...]
    keys: dict[str, Value]
    head_type: str


def is_known(architecture: str) -> bool:
    """Whether edgecal knows the architecture's graph; an unknown one is baked only if the check proves it right."""
    return family_of(architecture).is_known


def why_check(architecture: str, recipe: Recipe) -> str | None:
    """Why a bake must be checked by running it before it is written; None if the facts suffice."""
    if not is_known(architecture):
        return (
            f"edgecal does not know the architecture {architecture}, so whether dividing its final norm divides its "
            "logits must be checked"
        )
    if recipe.head_type not in _KNOWN_TYPES:
        return (
            f"its head is stored as {recipe.head_type}, which edgecal does not know, so how well its logits are kept "
            "must be checked"
        )
    return None


def find_recipe(shards: ShardSet, tau: float) -> Recipe:
    """What to change in a model so that its logits are divided by `tau` (a positive float32 other than 1).

    Raises
    ------
    InputError: the architecture or the file cannot be baked, and why.
    """
    header = shards.header
    architecture = header.architecture
    if not architecture:
        raise InputError(f"{header.path}: general.architecture is missing; this is not a language model")
    _check_bakeable(shards, architecture)
    head = shards.find_tensor("output.weight") or shards.find_tensor("token_embd.weight")
    if head is None:
        raise InputError(
            f"{header.path}: has neither output.weight nor token_embd.weight, so no logits to bake"
        )
    unusable = why_not_run(head[1], weights=True)
    if unusable is not None:
        raise InputError(f"{head[0]}: {unusable}")
    n_embd, head_type = (head[1].ne or (1,))[0], head[1].type_name
    transform = transform_of(architecture, n_embd, header.get, header.path)
    family = family_of(architecture)
    has_scale_key = family.scale in ("multiplies", "divides")
    keys: dict[str, Value] = {}
    tensors: tuple[str, ...] = ()
    scale_key = f"{architecture}.logit_scale"
    scale = _float_key(header, scale_key) if has_scale_key else None
    if scale:
        keys[scale_key] = _float32(
            header, scale_key, scale * tau if family.scale == "divides" else scale / tau
        )
    else:
        tensors = _tensors_in_front_of_the_logits(shards, architecture)
    if transform.soft_cap is not None:
        cap_key = f"{architecture}.final_logit_softcapping"
        if family.soft_cap == "fixed":
            raise _refusal(header, architecture, "its soft cap is fixed in llama.cpp and cannot be divided")
        _float_key(header, cap_key)
        keys[cap_key] = _float32(header, cap_key, transform.soft_cap / tau)
    return Recipe(tensors, keys, head_type)


def divided(data: bytes, tau: float, where: str) -> bytes:
    """The bytes of an F32 tensor, each number divided by `tau` and rounded once.

    InputError: a quotient is beyond what float32 holds; `where` names file and tensor.
    """
    before = np.frombuffer(data, "<f4").astype(np.float64)
    with np.errstate(over="ignore"):
        after = (before / tau).astype("<f4")
    if not np.array_equal(np.isfinite(after), np.isfinite(before)):
        raise InputError(
            f"{where}: divided by {tau:g} it holds numbers that are too large; is that temperature right?"
        )
    return after.tobytes()


def _check_bakeable(shards: ShardSet, architecture: str) -> None:
    header = shards.header
    reason = refusal_of(architecture) or _REFUSED.get(architecture)
    if reason is not None:
        raise _refusal(header, architecture, reason)
    kind = header.get("general.type")
    if isinstance(kind, str) and kind != "model":
        raise InputError(
            f"{header.path}: general.type is {kind!r}, expected a model; give the model's own file"
        )
    if architecture == "nanbeige":
        loops, skips = header.get("nanbeige.num_loops", 1), header.get("nanbeige.skip_loop_final_norm", False)
        if loops != 1 and not skips:
            raise _refusal(header, architecture, "its final norm is also applied between its loops")
    pooled = header.get(f"{architecture}.pooling_type", 0)
    classifies = any(name.startswith("cls.") for one in shards.headers for name in one.tensors)
    if pooled not in _NOT_POOLED or classifies:
        what = "holds a classifier" if classifies else "pools its hidden states"
        raise _refusal(header, architecture, f"it {what}, which the final norm feeds besides the logits")


def _tensors_in_front_of_the_logits(shards: ShardSet, architecture: str) -> tuple[str, ...]:
    norm = family_of(architecture).norm_tensor
    if norm is None or shards.find_tensor(f"{norm}.weight") is None:
        raise _refusal(shards.header, architecture, _NO_NORM_WEIGHT)
    wanted = [f"{norm}.weight", f"{norm}.bias"]
    if family_of(architecture).head_bias:
        wanted.append("output.bias")
    found = [item for item in map(shards.find_tensor, wanted) if item is not None]
    for path, info in found:
        _check_numbers(path, info)
    return tuple(info.name for _, info in found)


def _check_numbers(path: Any, info: TensorInfo) -> None:
    if info.type_name != "F32":
        raise InputError(
            f"{path}: {info.name} is {info.type_name}, expected F32: divided, it would lose bits; "
            "convert the model again with a current converter, which keeps vectors in F32"
        )


def _float_key(header: Header, key: str) -> float | None:
    """The value of a key that llama.cpp reads as FLOAT32; None if it is missing."""
    if key not in header:
        return None
    if header.type_of(key) is not ValueType.FLOAT32:
        raise InputError(
            f"{header.path}: {key} is {header.type_of(key).name}, expected FLOAT32, which llama.cpp insists on"
        )
    return float(header.get(key, math.nan))


def _float32(header: Header, key: str, number: float) -> Value:
    value = Value.float32(number)
    if not math.isfinite(value.python()) or value.python() == 0:
        raise InputError(f"{header.path}: {key} would become {number:g}, which float32 does not hold")
    return value


def _refusal(header: Header, architecture: str, reason: str) -> InputError:
    return InputError(f"{header.path}: a model of the architecture {architecture} cannot be baked: {reason}")
