"""The file of a BaseCal map, beside the chat model: what it holds, its bytes, and the check that it fits a model.

It is a GGUF file of its own, since llama.cpp refuses a model with tensors that the architecture does not name. One row
for each label is enough (see `edgecal.evaluation.linear_map`): nothing of the base model's is needed at run time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecal.errors import InputError
from edgecal.gguf.create import file_bytes
from edgecal.gguf.header import Header, read_header
from edgecal.gguf.rewrite import read_tensor
from edgecal.gguf.values import Value, ValueType
from edgecal.version import __version__

__all__ = ["ARCHITECTURE", "Projection", "projection_bytes", "read_projection"]

ARCHITECTURE = "edgecal-basecal"  # of the file, so that no program takes it for a model
_FORMAT = 1
_WEIGHT, _BIAS = "basecal.weight", "basecal.bias"

# The keys of the file, all of them with this prefix, with their types and the fields that they hold; for an array, the
# type of its items.
_PREFIX = "edgecal.basecal."
_SCALARS: tuple[tuple[str, ValueType, str], ...] = (
    ("base.name", ValueType.STRING, "base_name"),
    ("base.sha256", ValueType.STRING, "base_sha256"),
    ("chat.name", ValueType.STRING, "chat_name"),
    ("chat.sha256", ValueType.STRING, "chat_sha256"),
    ("chat.content_sha256", ValueType.STRING, "chat_content_sha256"),
    ("prompts.count", ValueType.UINT32, "prompts_count"),
    ("prompts.sha256", ValueType.STRING, "prompts_sha256"),
    ("ridge", ValueType.FLOAT64, "ridge"),
)
_ARRAYS: tuple[tuple[str, ValueType, str], ...] = (
    ("tokens", ValueType.INT32, "token_ids"),
    ("labels", ValueType.STRING, "labels"),
    ("reasons", ValueType.STRING, "reasons"),
)


@dataclass(frozen=True, eq=False)
class Projection:
    """A linear map from a chat model's last hidden state to its base model's logits of r labels.

    Attributes
    ----------
    weight: float32 [r, n_embd]; bias: float32 [r].
    token_ids, labels: each label's token, ascending, and its text.
    base_name, base_sha256, chat_name, chat_sha256: both models; the hashes are those of their files.
    chat_content_sha256: what the chat model computes with, whatever was stamped into its file
        (`edgecal.gguf.hashes`).
    prompts_count, prompts_sha256: the prompts that it was fitted on.
    ridge: penalty of the fit, as a share of the largest squared singular value of the states.
    reasons: why edgecal had refused it, one line each; empty for a sound map.
    """

    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    token_ids: Sequence[int]
    labels: Sequence[str]
    base_name: str
    base_sha256: str
    chat_name: str
    chat_sha256: str
    chat_content_sha256: str
    prompts_count: int
    prompts_sha256: str
    ridge: float
    reasons: Sequence[str] = ()

    def rows(self, token_ids: npt.NDArray[np.int32], where: object) -> list[int]:
        """The rows of labels by their tokens, int32 [k]; InputError, which begins with `where`, if one has none."""
        row_of = {token: row for row, token in enumerate(self.token_ids)}
        tokens = token_ids.tolist()
        missing = [place for place, token in enumerate(tokens, start=1) if token not in row_of]
        if missing:
            raise InputError(
                f"{where}: the BaseCal map has no row for label {missing[0]} (token {tokens[missing[0] - 1]}), only "
                f"for {', '.join(map(repr, sorted(self.labels)))}; ask with these, or fit a map on prompts with yours"
            )
        return [row_of[token] for token in tokens]

    def logits(self, state: npt.NDArray[np.float32], rows: Sequence[int]) -> npt.NDArray[np.float64]:
        """The base model's logits of the labels in some rows, float64 [k], from a state, float32 [n_embd]."""
        mapped: npt.NDArray[np.float64] = (
            self.weight[list(rows)].astype(np.float64) @ state + self.bias[list(rows)]
        )
        return mapped


def projection_bytes(projection: Projection) -> bytes:
    """The bytes of its file."""
    tensors = {_WEIGHT: projection.weight, _BIAS: projection.bias}
    keys = {
        "general.architecture": Value.string(ARCHITECTURE),
        "edgecal.version": Value.string(__version__),
        f"{_PREFIX}format": Value.uint32(_FORMAT),
        f"{_PREFIX}sha256": Value.string(_sha256(projection)),
    }
    for name, type_, field in _SCALARS:
        keys[_PREFIX + name] = Value.of(type_, getattr(projection, field))
    for name, type_, field in _ARRAYS:
        keys[_PREFIX + name] = Value.array(type_, getattr(projection, field))
    return file_bytes(keys, tensors)


def _sha256(projection: Projection) -> str:
    """Of the numbers alone, so that a damaged one is noticed."""
    from hashlib import sha256

    return sha256(projection.weight.tobytes() + projection.bias.tobytes()).hexdigest()


def read_projection(path: str | Path) -> Projection:
    """Reads a map's file.

    Raises
    ------
    InputError: it cannot be read, is damaged, or holds no map that this edgecal understands.
    """
    header = read_header(Path(path))
    if header.architecture != ARCHITECTURE:
        raise InputError(f"{path}: is not a BaseCal map; give the file that edgecal project wrote")
    fields: dict[str, Any] = {}
    if _value(header, f"{_PREFIX}format", ValueType.UINT32) != _FORMAT:
        raise InputError(f"{path}: a BaseCal map in a format that this edgecal does not know; update edgecal")
    for name, type_, field in _SCALARS:
        fields[field] = _value(header, _PREFIX + name, type_)
    for name, type_, field in _ARRAYS:
        fields[field] = tuple(_value(header, _PREFIX + name, ValueType.ARRAY, type_))
    read = Projection(_numbers(header, _WEIGHT, 2), _numbers(header, _BIAS, 1), **fields)
    counts = {
        len(read.weight),
        len(read.bias),
        len(read.labels),
        len(read.token_ids),
        len(set(read.token_ids)),
    }
    if len(counts) > 1 or _value(header, f"{_PREFIX}sha256", ValueType.STRING) != _sha256(read):
        raise InputError(
            f"{path}: a damaged BaseCal map: its numbers are not those that were written; fit it again"
        )
    return read


def _value(header: Header, key: str, type_: ValueType, element: ValueType | None = None) -> Any:
    entry = header.entries.get(key)
    if entry is None or entry.type is not type_ or entry.element_type is not element:
        raise InputError(
            f"{header.path}: a damaged BaseCal map: {key} is missing or of a wrong type; fit it again"
        )
    return header.get(key)


def _numbers(header: Header, name: str, n_dims: int) -> npt.NDArray[np.float32]:
    info = header.tensors.get(name)
    if info is None or info.type_name != "F32" or len(info.ne) != n_dims:
        raise InputError(f"{header.path}: a damaged BaseCal map: no float32 tensor {name}; fit it again")
    return np.frombuffer(read_tensor(header, name), "<f4").reshape(info.ne[::-1])
