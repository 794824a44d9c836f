"""GGUF files: reading headers safely, and editing metadata without touching a tensor byte.

Knows the file format and where results may be written. Does not know how a temperature is fitted, and
never loads llama.cpp.
"""

from __future__ import annotations

from edgecal.gguf.header import Header, KeyEntry, read_header
from edgecal.gguf.tensors import GGML_TYPES, GgmlType, TensorInfo
from edgecal.gguf.values import Value, ValueType

__all__ = ["GGML_TYPES", "GgmlType", "Header", "KeyEntry", "TensorInfo", "Value", "ValueType", "read_header"]
