"""Tensor entries of a GGUF header (shape, type, place), the sizes of ggml types, and which types llama.cpp cannot
run."""

from __future__ import annotations

from dataclasses import dataclass

from edgecal.gguf.values import quoted

__all__ = ["GGML_TYPES", "MAX_DIMS", "GgmlType", "TensorInfo", "why_not_run"]

MAX_DIMS = 4


@dataclass(frozen=True, slots=True)
class GgmlType:
    """A ggml storage type: `block_elements` values of a row are stored in `block_bytes` bytes."""

    name: str
    block_elements: int
    block_bytes: int


GGML_TYPES: dict[int, GgmlType] = {
    0: GgmlType("F32", 1, 4),
    1: GgmlType("F16", 1, 2),
    2: GgmlType("Q4_0", 32, 18),
    3: GgmlType("Q4_1", 32, 20),
    6: GgmlType("Q5_0", 32, 22),
    7: GgmlType("Q5_1", 32, 24),
    8: GgmlType("Q8_0", 32, 34),
    9: GgmlType("Q8_1", 32, 36),
    10: GgmlType("Q2_K", 256, 84),
    11: GgmlType("Q3_K", 256, 110),
    12: GgmlType("Q4_K", 256, 144),
    13: GgmlType("Q5_K", 256, 176),
    14: GgmlType("Q6_K", 256, 210),
    15: GgmlType("Q8_K", 256, 292),
    16: GgmlType("IQ2_XXS", 256, 66),
    17: GgmlType("IQ2_XS", 256, 74),
    18: GgmlType("IQ3_XXS", 256, 98),
    19: GgmlType("IQ1_S", 256, 50),
    20: GgmlType("IQ4_NL", 32, 18),
    21: GgmlType("IQ3_S", 256, 110),
    22: GgmlType("IQ2_S", 256, 82),
    23: GgmlType("IQ4_XS", 256, 136),
    24: GgmlType("I8", 1, 1),
    25: GgmlType("I16", 1, 2),
    26: GgmlType("I32", 1, 4),
    27: GgmlType("I64", 1, 8),
    28: GgmlType("F64", 1, 8),
    29: GgmlType("IQ1_M", 256, 56),
    30: GgmlType("BF16", 1, 2),
    34: GgmlType("TQ1_0", 256, 54),
    35: GgmlType("TQ2_0", 256, 66),
    39: GgmlType("MXFP4", 32, 17),
    40: GgmlType("NVFP4", 64, 36),
    41: GgmlType("Q1_0", 128, 18),
    42: GgmlType("Q2_0", 64, 18),
}

# Types that ggml has removed. It reads no file with them, and does not reuse their ids.
_REMOVED_TYPES: dict[int, str] = {
    4: "Q4_2",
    5: "Q4_3",
    31: "Q4_0_4_4",
    32: "Q4_0_4_8",
    33: "Q4_0_8_8",
    36: "IQ4_NL_4_4",
    37: "IQ4_NL_4_8",
    38: "IQ4_NL_8_8",
}

# Types that llama.cpp never multiplies by: it only quantizes the other factor to Q8_1 and Q8_K.
_NO_WEIGHTS = frozenset({"Q8_1", "Q8_K", "I8", "I16", "I32", "I64", "F64"})


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of a file.

    `ne` is in ggml's order (rows last; numpy's shape is its reverse), `offset` is relative to the file's
    tensor data as stored, `data_offset` counts from the start of the file, both in bytes. `n_bytes` is None
    for a type id that is not in `GGML_TYPES`.
    """

    name: str
    ne: tuple[int, ...]
    type_id: int
    offset: int
    data_offset: int
    n_bytes: int | None

    @property
    def type_name(self) -> str:
        """`Q4_K`, ..., or `type 99` for an unknown id."""
        known = GGML_TYPES.get(self.type_id)
        return _REMOVED_TYPES.get(self.type_id, f"type {self.type_id}") if known is None else known.name


def why_not_run(info: TensorInfo, *, weights: bool) -> str | None:
    """Why llama.cpp cannot run a model with this tensor, and what to do; None if it can, or if the type is unknown.
    `weights`: llama.cpp multiplies by this tensor, such as a head."""
    if info.type_id in _REMOVED_TYPES:
        reason = "llama.cpp no longer reads"
    elif weights and info.type_name in _NO_WEIGHTS:
        reason = "llama.cpp does not multiply by"
    else:
        return None
    stored = f"{quoted(info.name)} is stored as {info.type_name}, which {reason}"
    return f"{stored}; quantize the model again, to another type"
