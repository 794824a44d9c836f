"""Caches on disk: captures of prompts by a model, and digests of model files.

The caller states everything that influences a cached number; the cache itself sees keys, small arrays and files.
It may be lost, damaged, full or locked at any time: then lookups miss, and one line says why. It never returns a
number that was not stored, and never makes a run fail.

From the bottom up: `store` (one SQLite file of checksummed values), `folder` (where the files are and how much they
may take), `captures` (`CaptureCache`), `digests` (`DigestMemo`).
"""

from edgecal.cache.captures import CaptureCache
from edgecal.cache.digests import DigestMemo, identify_files
from edgecal.cache.folder import (
    FOLDER_VARIABLE,
    MAX_CACHE_BYTES,
    ClearedCache,
    StoreInfo,
    clear_cache,
    default_cache_folder,
    list_stores,
)

__all__ = [
    "FOLDER_VARIABLE",
    "MAX_CACHE_BYTES",
    "CaptureCache",
    "ClearedCache",
    "DigestMemo",
    "StoreInfo",
    "clear_cache",
    "default_cache_folder",
    "identify_files",
    "list_stores",
]
