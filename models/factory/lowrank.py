"""A low-rank change of a GGUF model: the settings by which it is found, and the file that it makes.

In the file a changed matrix is stored as Q8_0; every other tensor, and every key but the name, the file type and the
version of the quantization, stays as it is, byte for byte. It needs no PyTorch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import (
    GGMLQuantizationType,
    GGUFReader,
    GGUFValueType,
    GGUFWriter,
    LlamaFileType,
    dequantize,
    quantize,
)
from numpy.typing import NDArray

Floats = NDArray[np.float32]
LEFT_OUT = ("general.architecture", "general.file_type", "general.quantization_version", "general.name")


@dataclass(frozen=True)
class Training:
    """How a low-rank change is found.

    Attributes
    ----------
    kind: "sft", the label's negative log-likelihood over the whole vocabulary; or "dpo", direct preference
        optimisation (arXiv 2305.18290) of the right label over the wrong one that the base model finds likeliest,
        with `anchor` times the loss of "sft" added (arXiv 2404.19733).
    n_epochs, learning_rate, n_rows: passes, peak rate (warmed up over 5 % of the steps, then linear to 0), batch size.
    rank, alpha: of the change, which is scaled by alpha / rank.
    beta, anchor: of "dpo".
    """

    kind: str = "sft"
    n_epochs: int = 2
    learning_rate: float = 6e-4
    n_rows: int = 16
    rank: int = 16
    alpha: int = 32
    beta: float = 0.3
    anchor: float = 0.0


def change_of(update: Mapping[str, Floats], name: str) -> Floats:
    """The change of a tensor, float32 [n_out, n_in]: a [n_out, rank] times b transposed, b [n_in, rank]."""
    change: Floats = update[name + ".a"].astype(np.float32) @ update[name + ".b"].astype(np.float32).T
    return change


def write_with_update(base: Path, target: Path, update: Mapping[str, Floats], name: str) -> None:
    """Writes `base` plus `update` to `target`, by way of a temporary file beside it.

    update: for a tensor T that changes, `T.a` [n_out, rank] and `T.b` [n_in, rank].

    Raises
    ------
    ValueError: the update changes a tensor that the base does not have, or has in another shape.
    """
    reader = GGUFReader(base)
    wanted = {key.rsplit(".", 1)[0] for key in update}
    if missing := wanted - {tensor.name for tensor in reader.tensors}:
        raise ValueError(f"{base}: the update changes {sorted(missing)[0]}, which the file does not have")
    partial = target.with_name(target.name + ".partial")
    architecture = reader.fields["general.architecture"].contents()
    writer = GGUFWriter(partial, architecture)
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key in LEFT_OUT:
            continue
        if field.types[0] == GGUFValueType.ARRAY:
            writer.add_key_value(key, field.contents(), GGUFValueType.ARRAY, sub_type=field.types[-1])
        else:
            writer.add_key_value(key, field.contents(), field.types[0])
    writer.add_name(name)
    writer.add_file_type(LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(2)
    for tensor in reader.tensors:
        if tensor.name not in wanted:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
            continue
        change = change_of(update, tensor.name)
        weights = dequantize(tensor.data, tensor.tensor_type)
        if weights.shape != change.shape:
            raise ValueError(
                f"{base}: {tensor.name} has the shape {weights.shape}, its change {change.shape}; they must be alike"
            )
        stored = quantize(weights + change, GGMLQuantizationType.Q8_0)
        writer.add_tensor(tensor.name, stored, raw_dtype=GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.replace(target)
