"""How much memory there is, and what of it llama.cpp's caches may take. Knows no models."""

from __future__ import annotations

from pathlib import Path

__all__ = ["available_bytes", "settle_cache_bytes"]

# More sequences than this holds bring nothing: decodes are full before.
_MOST_CACHE_BYTES = 1 << 30
_CACHE_SHARE = 4

_CONTROL_GROUP = Path("/sys/fs/cgroup")


def available_bytes() -> int:
    """Bytes that this process can have without others being swapped out, within its container's limit."""
    import psutil

    available = int(psutil.virtual_memory().available)
    limit, used = _read_number("memory.max"), _read_number("memory.current")
    if limit is not None and used is not None:
        available = min(available, max(0, limit - used))
    return available


def settle_cache_bytes() -> int:
    """What the caches of one context may take together: a quarter of what is available, at most 1 GiB."""
    return min(_MOST_CACHE_BYTES, available_bytes() // _CACHE_SHARE)


def _read_number(name: str) -> int | None:
    try:
        text = (_CONTROL_GROUP / name).read_text("ascii")
    except (OSError, UnicodeDecodeError):
        return None
    return int(text) if text.strip().isdigit() else None
