"""The end of a model, read from its GGUF: final norm, head rows for the wanted tokens, logit transforms.

Finds the tensors and puts them together. Bytes are read in `rows`, facts on architectures are in
`transforms`, numbers are crunched in `project`; whether the result is right is found out in `check`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecal.errors import ModelError
from edgecal.gguf import Header, ShardSet, TensorInfo
from edgecal.lens.rows import Dequantize, n_rows_of, read_rows, read_vector
from edgecal.lens.transforms import norm_of, reads_head_bias, reads_head_scale, transform_of

__all__ = ["Head", "read_head"]

# LFM2's converter gave the final norm the name of the embedding norm. BLOOM has both, so this comes second.
_NORM_NAMES = ("output_norm", "token_embd_norm")


@dataclass(frozen=True, eq=False)
class Head:
    """What turns a residual stream into the logits of r tokens: `transform(rows . norm(h) + row_bias)`.

    Attributes
    ----------
    architecture: `general.architecture`.
    centered: LayerNorm if true, RMSNorm if false; eps: added to the variance or mean square.
    norm_weight, norm_bias: float32 [n_embd]; ones and zeros where the model has none.
    token_ids: int32 [r], the tokens of the rows, in the order that was asked for.
    rows: float32 [r, n_embd], dequantized; row_bias: float32 [r], zeros where there is none.
    logit_scale: multiplies the logits; soft_cap: c in c * tanh(x / c) after that, or None.
    n_vocab: rows of the whole head; type_name: how it is stored (Q6_K, ...); tied: it is the embedding.
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
    tied: bool

    @property
    def n_embd(self) -> int:
        """Width of the residual stream."""
        return int(self.rows.shape[1])


def read_head(source: ShardSet | Header, token_ids: NDArray[np.integer], dequantize: Dequantize) -> Head:
    """Read the end of a model and the head's rows of `token_ids` (int [r], in any order).

    `source` is what `find_shards` gives, or the header of a model's only file. Only those rows' bytes are
    read, whatever the size of the model; `dequantize` turns those of quantized types into numbers, as
    `edgecal.llama.dequantize` does. The head is `output.weight`, else the tied `token_embd.weight`; its
    bias `output.bias`; the norm `output_norm.weight` and `.bias`, either of which may be missing.

    Raises
    ------
    ModelError: no architecture, no head, no epsilon, sizes that do not fit each other, a token outside the
    head, or a storage type that is not known, not run by llama.cpp, or refused by `dequantize`.
    """
    ids: NDArray[np.int32] = np.asarray(token_ids, np.int32)
    found = _Finder(source, dequantize)
    architecture = found.architecture
    head = found.tensor("output.weight")
    tied = head is None
    head = head or found.tensor("token_embd.weight")
    if head is None:
        raise ModelError(
            f"{found.where}: has neither output.weight nor token_embd.weight, so no head to read logits from; "
            "is this a language model?"
        )
    path, info = head
    n_embd, n_vocab = info.ne[0], n_rows_of(info)
    outside = ids[(ids < 0) | (ids >= n_vocab)]
    if outside.size:
        raise ModelError(
            f"{path}: {info.name} has {n_vocab} rows, token {outside[0]} has none; "
            "use --method daca, which needs no lens"
        )
    norm = norm_of(architecture, found.get, found.where)
    transform = transform_of(architecture, n_embd, found.get, found.where)
    weight = bias = None
    for name in _NORM_NAMES:
        weight = found.vector(f"{name}.weight", n_embd)
        bias = found.vector(f"{name}.bias", n_embd)
        if weight is not None or bias is not None:
            break
    row_bias = found.vector("output.bias", n_vocab) if reads_head_bias(architecture) else None
    scaled = info.type_name == "NVFP4" and reads_head_scale(architecture)
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
        tied=tied,
    )


class _Finder:
    """Looks up keys and tensors; `where` names the file in errors."""

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

    def vector(self, name: str, n: int) -> NDArray[np.float32] | None:
        place = self.tensor(name)
        if place is None:
            return None
        path, info = place
        if info.ne[0] != n or n_rows_of(info) != 1:
            raise ModelError(f"{path}: {name} has sizes {list(info.ne)}, expected [{n}]; the file is damaged")
        return read_vector(path, info, self._dequantize)
