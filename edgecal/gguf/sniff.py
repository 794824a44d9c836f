"""What a file that is not a usable GGUF file probably is, for an error message that helps.

Knows first bytes of common formats; reads nothing itself.
"""

from __future__ import annotations

__all__ = ["describe_foreign"]

_PREFIXES: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a git-lfs pointer, not the file itself: run `git lfs pull`"),
    (b"PK\x03\x04", "a zip archive or PyTorch checkpoint: convert the model to GGUF first"),
    (b"\x80\x02", "a pickled PyTorch checkpoint: convert the model to GGUF first"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
    (b"\xfd7zXZ", "an xz archive: unpack it first"),
    (b"(\xb5/\xfd", "a zstd archive: unpack it first"),
    (b"\x89HDF", "an HDF5 file: convert the model to GGUF first"),
    (b"\x7fELF", "a program or library"),
    (b"lmgg", "a GGML file from before GGUF: convert the model again"),
    (b"fmgg", "a GGML file from before GGUF: convert the model again"),
    (b"tjgg", "a GGJT file from before GGUF: convert the model again"),
    (b"algg", "an old LoRA adapter"),
    (b"FUGG", "GGUF with reversed bytes: convert the model on a little-endian machine"),
)


def describe_foreign(head: bytes) -> str:
    """A clause for "not a GGUF file: it looks like ..."; empty when nothing is recognised.

    `head` is the file's first bytes, 32 or more where there are as many.
    """
    for prefix, description in _PREFIXES:
        if head.startswith(prefix):
            return description
    if head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < 1 << 32:
        return "a safetensors file: convert the model to GGUF first"
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page: the download probably needs a login or another address"
    if text.startswith((b"{", b"[")):
        return "a JSON file"
    if head.strip(b"\0") == b"":
        return "nothing but zero bytes: the download or copy did not finish"
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
        return "a text file"
    return ""
