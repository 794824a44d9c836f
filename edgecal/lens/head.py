"""The end of a model, read from its GGUF: final norm, head rows of the requested tokens, logit transforms.

Finds the tensors and assembles them. `weight_rows` reads the bytes, `edgecal.architectures` holds the facts on
architectures, `project` and `stream_merge` do the arithmetic, and `self_check` decides whether the result is right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecal.architectures import family_of, norm_of, stream_of, transform_of
from edgecal.architectures.resolve import RMS_NORM_EPS
from edgecal.errors import ModelError
from edgecal.gguf.header import Header
from edgecal.gguf.shards import ShardSet
from edgecal.gguf.tensors import GGML_TYPES, GgmlType, TensorInfo
from edgecal.lens.rounding import SUM_TYPES
from edgecal.lens.stream_merge import MERGE_TENSORS, Merger
from edgecal.lens.weight_rows import Dequantize, n_rows_of, read_minima, read_rows, read_vector

__all__ = ["Head", "read_head"]

MIX_EPS = "hyper_connection.epsilon"


@dataclass(frozen=True, eq=False)
class Head:
    """Turns a residual stream into the logits of r tokens: `transform(rows . norm(merge(h)) + row_bias)`.

    Attributes
    ----------
    architecture: `general.architecture`.
    centered: LayerNorm if true, RMSNorm if false; eps: added to the variance or mean square.
    norm_weight, norm_bias: float32 [n_embd]; ones and zeros where the model has none.
    token_ids: int32 [r], the tokens of the rows, in the requested order.
    rows: float32 [r, n_embd], dequantized; row_bias: float32 [r], zeros where the model has none.
    logit_scale: multiplies the logits; soft_cap: c in c * tanh(x / c) after that, or None.
    n_vocab: rows of the whole head; type_name: its storage type (Q6_K, ...).
    block_elements: how many numbers of a row one block of that type stores.
    row_minima: float32 [r, n_embd / 32], each block's minimum in a type that stores one (`SUM_TYPES`), else None.
    normalized: false where no norm stands before the head (the merge has one).
    merge: merges several streams into one; None where a token has only one.
    """

    architecture: str
    centered: bool
    eps: float
    norm_weight: NDArray[np.float32]
    norm_bias: NDArray[np.float32]
    token_ids: NDArray[np.int32]
    rows: NDArray[np.float32]
    row_bias: NDArray[np.float32]
    logit_scale: float
    soft_cap: float | None
    n_vocab: int
    type_name: str
    block_elements: int = 1
    row_minima: NDArray[np.float32] | None = None
    normalized: bool = True
    merge: Merger | None = None

    @property
    def n_embd(self) -> int:
        """Width of one residual stream."""
        return int(self.rows.shape[1])

    @property
    def width(self) -> int:
        """Floats in a hidden state: n_embd for each of its streams."""
        return self.n_embd * (1 if self.merge is None else self.merge.n_streams)

    def transform(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scales the head's output, then caps it softly, as the model does."""
        scaled = z * self.logit_scale
        return scaled if self.soft_cap is None else self.soft_cap * np.tanh(scaled / self.soft_cap)


def read_head(source: ShardSet | Header, token_ids: NDArray[np.integer], dequantize: Dequantize) -> Head:
    """Read the end of a model and the head's rows of `token_ids` (int [r], in any order).

    `source` comes from `find_shards`, or is the header of a single-file model. Reads the bytes of those rows only,
    whatever the size of the model; `dequantize` converts quantized ones to float32, as `edgecal.llama.library`
    does. The head is `output.weight`, else the tied `token_embd.weight`; its bias is `output.bias`. The table of
    architectures names the norm's weight and bias, either of which may be missing.

    Raises
    ------
    ModelError: no architecture, head or epsilon, sizes that do not match each other, a token outside the head, or
    a storage type that edgecal does not know, llama.cpp does not run or `dequantize` refuses.
    """
    ids: NDArray[np.int32] = np.asarray(token_ids, np.int32)
    found = _Finder(source, dequantize)
    architecture = found.architecture
    head = found.tensor("output.weight") or found.tensor("token_embd.weight")
    if head is None:
        raise ModelError(
            f"{found.where}: the file has neither output.weight nor token_embd.weight, so there is no head to read "
            "logits from; is this a language model?"
        )
    path, info = head
    n_embd, n_vocab = info.ne[0], n_rows_of(info)
    outside = ids[(ids < 0) | (ids >= n_vocab)]
    if outside.size:
        raise ModelError(
            f"{path}: {info.name} has {n_vocab} rows and none for token {outside[0]}; "
            "use --method daca, which needs no lens"
        )
    norm = norm_of(architecture, found.get, found.where)
    transform = transform_of(architecture, n_embd, found.get, found.where)
    family = family_of(architecture)
    weight = bias = None
    if family.norm_tensor is not None:
        weight = found.vector(f"{family.norm_tensor}.weight", n_embd)
        bias = found.vector(f"{family.norm_tensor}.bias", n_embd)
    row_bias = found.vector("output.bias", n_vocab) if family.head_bias else None
    scaled = info.type_name == "NVFP4" and family.head_scale
    row_scale = found.vector("output.scale", 1) if scaled else None
    rows = read_rows(path, info, ids, dequantize)
    return Head(
        architecture=architecture,
        centered=norm.centered,
        eps=norm.eps,
        norm_weight=np.ones(n_embd, np.float32) if weight is None else weight,
        norm_bias=np.zeros(n_embd, np.float32) if bias is None else bias,
        token_ids=ids,
        rows=rows if row_scale is None else rows * row_scale,
        row_bias=np.zeros(len(ids), np.float32) if row_bias is None else row_bias[ids],
        logit_scale=transform.scale,
        soft_cap=transform.soft_cap,
        n_vocab=n_vocab,
        type_name=info.type_name,
        block_elements=GGML_TYPES[info.type_id].block_elements,
        row_minima=read_minima(path, info, ids, dequantize) if info.type_name in SUM_TYPES else None,
        normalized=family.norm is not None,
        merge=None if family.merge is None else _read_merger(found, n_embd),
    )


def _read_merger(found: _Finder, n_embd: int) -> Merger:
    """Read the merge of an architecture that has one."""
    kind = family_of(found.architecture).merge
    assert kind is not None
    n_streams = stream_of(found.architecture, found.get, found.where).n_streams
    width = n_streams * n_embd
    # In NumPy's order; None allows any size.
    shapes: dict[str, tuple[tuple[int | None, int | None], ...]] = {
        "sigmoid": ((n_streams, width), (1, 1), (1, n_streams)),
        "mean": (),
        "gated": ((None, None), (None, width), (width, None)),
        "altup": (((n_streams - 1) * n_embd, n_embd),),
    }
    matrices = tuple(
        found.matrix(name, shape) for name, shape in zip(MERGE_TENSORS[kind], shapes[kind], strict=True)
    )
    tensors = tuple(numbers for numbers, _ in matrices)
    if kind == "gated" and (tensors[0].size != width or tensors[1].shape[0] != tensors[2].shape[1]):
        raise ModelError(
            f"{found.where}: the sizes of {', '.join(MERGE_TENSORS[kind])} do not match {n_streams} streams of "
            f"{n_embd}; the file is damaged"
        )
    mix_eps = found.number(f"{found.architecture}.{MIX_EPS}") if kind == "sigmoid" else 0.0
    norm_eps = 0.0 if kind in ("mean", "altup") else found.number(f"{found.architecture}.{RMS_NORM_EPS}")
    return Merger(
        kind, n_streams, n_embd, norm_eps, mix_eps, tensors, tuple(ggml_type for _, ggml_type in matrices)
    )


class _Finder:
    """Looks up metadata keys and tensors; `where` names the file in errors."""

    def __init__(self, source: ShardSet | Header, dequantize: Dequantize) -> None:
        self._dequantize = dequantize
        self._shards = ShardSet((source.path,), (source,), None) if isinstance(source, Header) else source
        self.where = self._shards.path
        architecture = self._shards.header.architecture
        if architecture is None:
            raise ModelError(f"{self.where}: general.architecture is missing; convert the model again")
        self.architecture = architecture

    def get(self, key: str) -> Any:
        return self._shards.header.get(key)

    def tensor(self, name: str) -> tuple[Path, TensorInfo] | None:
        return self._shards.find_tensor(name)

    def number(self, key: str) -> float:
        value = self.get(key)
        if not isinstance(value, float) or not math.isfinite(value):
            raise ModelError(f"{self.where}: {key} is {value!r}, expected a number; the file is damaged")
        return value

    def matrix(self, name: str, shape: tuple[int | None, int | None]) -> tuple[NDArray[np.float32], GgmlType]:
        """A whole tensor as float32 [n_rows, ne[0]], and its type; `shape` is required, None allows any size."""
        found = self.tensor(name)
        if found is None:
            raise ModelError(
                f"{self.where}: {name}, which {self.architecture} needs, is missing; the file is damaged"
            )
        path, info = found
        sizes = (n_rows_of(info), info.ne[0])
        if any(wanted not in (None, size) for wanted, size in zip(shape, sizes, strict=True)):
            raise ModelError(
                f"{path}: {name} has {sizes[0]} rows of {sizes[1]}, expected {shape[0]} of {shape[1]}; "
                "the file is damaged"
            )
        return read_rows(path, info, np.arange(sizes[0]), self._dequantize), GGML_TYPES[info.type_id]

    def vector(self, name: str, n: int) -> NDArray[np.float32] | None:
        found = self.tensor(name)
        if found is None:
            return None
        path, info = found
        if info.ne[0] != n or n_rows_of(info) != 1:
            raise ModelError(f"{path}: {name} has sizes {list(info.ne)}, expected [{n}]; the file is damaged")
        return read_vector(path, info, self._dequantize)
