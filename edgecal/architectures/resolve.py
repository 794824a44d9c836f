"""Completes a family's row with one file's metadata: kind and epsilon of the final norm, logit scale, soft cap, and the
node of llama.cpp's graph that holds the residual stream after a block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgecal.architectures.table import GetKey, family_of
from edgecal.errors import ModelError

__all__ = ["PLAIN_STREAM", "Norm", "ResidualStream", "Transform", "norm_of", "stream_of", "transform_of"]

LAYER_NORM_EPS = "attention.layer_norm_epsilon"
RMS_NORM_EPS = "attention.layer_norm_rms_epsilon"
LOGIT_SCALE = "logit_scale"
SOFT_CAP = "final_logit_softcapping"

_BASE_WIDTH = 256  # the "256" in "256 / width"


@dataclass(frozen=True)
class Norm:
    """The final norm: RMSNorm, or LayerNorm if `centered` (the mean is subtracted first)."""

    centered: bool
    eps: float


@dataclass(frozen=True)
class Transform:
    """Transforms each logit: multiplied by `scale`, then softly capped unless `soft_cap` is None."""

    scale: float = 1.0
    soft_cap: float | None = None


def norm_of(architecture: str, get: GetKey, where: object) -> Norm:
    """Kind and epsilon of the final norm, from the metadata; `where` names the file in errors.

    Where the table leaves the kind open, it follows from the epsilon key that the file has; RMSNorm if it has both,
    unless the RMS epsilon is zero. A family without a norm of its own still has an epsilon, which its merge uses.

    Raises
    ------
    ModelError: neither key exists, or the epsilon is not a finite number >= 0.
    """
    family = family_of(architecture)
    if not family.reads_eps:
        return Norm(centered=family.norm == "layer", eps=0.0)
    rms_key, layer_key = (f"{architecture}.{name}" for name in (RMS_NORM_EPS, LAYER_NORM_EPS))
    rms, layer = get(rms_key), get(layer_key)
    if rms is None and layer is None:
        raise ModelError(
            f"{where}: expected {rms_key} or {layer_key}, found neither, so the final norm is unknown; "
            "use --method daca, which needs no lens"
        )
    centered = family.norm == "layer" or (family.norm == "by key" and not rms and layer is not None)
    key, value = (layer_key, layer) if centered else (rms_key, rms)
    if value is None:
        key, value = (rms_key, rms) if centered else (layer_key, layer)
    return Norm(centered, _number(value, key, where, least=0.0))


def transform_of(architecture: str, n_embd: int, get: GetKey, where: object) -> Transform:
    """Logit scale and soft cap of this file; as in llama.cpp, zero in the file means "none".

    Raises
    ------
    ModelError: a value is not a finite number.
    """
    family = family_of(architecture)
    return Transform(
        _scale(architecture, n_embd, get, where),
        None
        if family.soft_cap is None
        else _key(
            architecture, SOFT_CAP, get if family.soft_cap == "read" else None, family.cap_default, where
        )
        or None,
    )


def _scale(architecture: str, n_embd: int, get: GetKey, where: object) -> float:
    family = family_of(architecture)
    by_width = _BASE_WIDTH / n_embd
    if family.scale is None:
        return 1.0
    if family.scale == "256 / width":
        return by_width
    default = by_width if family.scale_default == "256 / width" else family.scale_default
    factor = _key(architecture, LOGIT_SCALE, get, default, where)
    if not factor:
        return 1.0
    return 1.0 / factor if family.scale == "divides" else factor


def _key(
    architecture: str, name: str, get: GetKey | None, default: float | None, where: object
) -> float | None:
    key = f"{architecture}.{name}"
    value = None if get is None else get(key)
    return default if value is None else _number(value, key, where)


def _number(value: Any, key: str, where: object, least: float = float("-inf")) -> float:
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value < float("inf")
    if not good:
        raise ModelError(
            f"{where}: {key} is {value!r}, expected a number; the file is damaged, convert the model again"
        )
    return float(value)


STREAMS_KEY = "hyper_connection.count"
MAX_STREAMS = 64

_ALTUP_STREAMS = 4  # fixed in llama.cpp


@dataclass(frozen=True)
class ResidualStream:
    """Where a graph holds the residual stream.

    Attributes
    ----------
    node: its name in the graph, which is followed by a hyphen and the block's number.
    n_streams: how many streams of n_embd floats a token has; more than one in models with hyper-connections and
        the like.
    by_stream: whether the tensor stores all tokens of one stream before those of the next, rather than a token's
        streams side by side. A capture has them side by side in either case.
    """

    node: str = "l_out"
    n_streams: int = 1
    by_stream: bool = False


PLAIN_STREAM = ResidualStream()


def stream_of(architecture: str, get: GetKey, where: object) -> ResidualStream:
    """The residual stream of a file; `get` returns the value of a metadata key, None if it is missing.

    Raises
    ------
    ModelError: the architecture has several streams and the file does not say how many; `where` names the file.
    """
    family = family_of(architecture)
    if family.merge is None:
        return ResidualStream(family.node)
    if family.merge == "altup":
        return ResidualStream(family.node, _ALTUP_STREAMS, by_stream=True)
    key = f"{architecture}.{STREAMS_KEY}"
    n_streams = get(key)
    if not isinstance(n_streams, int) or isinstance(n_streams, bool) or not 1 <= n_streams <= MAX_STREAMS:
        raise ModelError(
            f"{where}: {key} is {n_streams!r}, expected 1 to {MAX_STREAMS}; the file is damaged, convert the model "
            "again"
        )
    return ResidualStream(family.node, n_streams)
