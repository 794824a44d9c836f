"""The bytes between header and tensor data, where a file came with others than zeros.

Knows the key that keeps them while a header has another size. Does not write files.
"""

from __future__ import annotations

from edgecal.gguf.header import PADDING_KEY, Header
from edgecal.gguf.values import ARRAY_HEAD_BYTES, Value, ValueType

__all__ = ["kept_padding", "padding_edits"]


def padding_edits(source: Header) -> dict[str, Value]:
    """The key to set in an edit that will be taken back: what the padding holds, nothing where that is zeros.

    InputError as for `Header.padding`.
    """
    padding = source.padding()
    return {PADDING_KEY: Value.array(ValueType.UINT8, padding)} if padding else {}


def kept_padding(source: Header) -> bytes:
    """What `padding_edits` kept, b"" for nothing."""
    entry = source.entries.get(PADDING_KEY)
    if entry is None or entry.element_type is not ValueType.UINT8:
        return b""
    return source.array_bytes(PADDING_KEY)[ARRAY_HEAD_BYTES:]
