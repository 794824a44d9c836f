"""GGUF files: reading headers safely, and editing metadata without touching a tensor byte.

Knows the file format, the calibration keys, and where results may be written. Does not know how a
temperature is fitted, and never loads llama.cpp.

From the bottom up: `values` and `tensors` (types), `reader` (bounded reading), `header`, `split` (shards),
`model` and `vocabulary` (checks), `copying`, `draft`, `padding`, `verify`, `edit` and `inplace` (writing), `output`
(where), `calibration` and `strip` (which keys), `stamp` (all together); beside them `typed`, `provenance`,
`cautions` and `diff`, which only commands need.

A name is loaded with its own module when it is first asked for: `edgecal show` reads a header, and shall not wait
for all that can write one.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgecal.gguf.calibration import (
        CalibrationRecord,
        SamplingTemperature,
        calibration_edits,
        is_baked,
        read_calibration,
        read_doubts,
        read_sampling,
    )
    from edgecal.gguf.digest import CONTENT_REVISION, ModelDigests, content_sha256, digests_of, sha256_of
    from edgecal.gguf.edit import edited_size, write_edited
    from edgecal.gguf.header import Header, KeyEntry, read_header
    from edgecal.gguf.inplace import edit_in_place
    from edgecal.gguf.journal import recover
    from edgecal.gguf.model import MAX_BLOCKS, check_model
    from edgecal.gguf.output import OutputPlan, WrittenOutput, default_output, plan_output, write_output
    from edgecal.gguf.padding import padding_edits
    from edgecal.gguf.split import PlacedSibling, ShardSet, find_shards
    from edgecal.gguf.stamp import write_calibrated
    from edgecal.gguf.stores import content_store
    from edgecal.gguf.strip import strip_edits
    from edgecal.gguf.tensors import GGML_TYPES, GgmlType, TensorInfo, why_not_run
    from edgecal.gguf.values import Value, ValueType
    from edgecal.gguf.vocabulary import VocabularyMatch, compare_vocabularies

__all__ = [
    "CONTENT_REVISION",
    "GGML_TYPES",
    "MAX_BLOCKS",
    "CalibrationRecord",
    "GgmlType",
    "Header",
    "KeyEntry",
    "ModelDigests",
    "OutputPlan",
    "PlacedSibling",
    "SamplingTemperature",
    "ShardSet",
    "TensorInfo",
    "Value",
    "ValueType",
    "VocabularyMatch",
    "WrittenOutput",
    "calibration_edits",
    "check_model",
    "compare_vocabularies",
    "content_sha256",
    "content_store",
    "default_output",
    "digests_of",
    "edit_in_place",
    "edited_size",
    "find_shards",
    "is_baked",
    "padding_edits",
    "plan_output",
    "read_calibration",
    "read_doubts",
    "read_header",
    "read_sampling",
    "recover",
    "sha256_of",
    "strip_edits",
    "why_not_run",
    "write_calibrated",
    "write_edited",
    "write_output",
]

_HOMES = {
    "calibration": (
        "CalibrationRecord",
        "SamplingTemperature",
        "calibration_edits",
        "is_baked",
        "read_calibration",
        "read_doubts",
        "read_sampling",
    ),
    "digest": ("CONTENT_REVISION", "ModelDigests", "content_sha256", "digests_of", "sha256_of"),
    "edit": ("edited_size", "write_edited"),
    "header": ("Header", "KeyEntry", "read_header"),
    "inplace": ("edit_in_place",),
    "journal": ("recover",),
    "model": ("MAX_BLOCKS", "check_model"),
    "output": ("OutputPlan", "WrittenOutput", "default_output", "plan_output", "write_output"),
    "padding": ("padding_edits",),
    "split": ("PlacedSibling", "ShardSet", "find_shards"),
    "stamp": ("write_calibrated",),
    "stores": ("content_store",),
    "strip": ("strip_edits",),
    "tensors": ("GGML_TYPES", "GgmlType", "TensorInfo", "why_not_run"),
    "values": ("Value", "ValueType"),
    "vocabulary": ("VocabularyMatch", "compare_vocabularies"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    module = _HOME_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'edgecal.gguf' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"edgecal.gguf.{module}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
