"""What was computed once is kept: a model's answers to a prompt, and the digests of its files.

Knows keys, small arrays and files, not what they mean; what influences a number is the caller's to say. A cache
may be lost, damaged, full or locked at any time: then there is nothing in it, and one line says why. It never
gives a number that was not put in, and never makes a run fail.

From the bottom up: `arrays` (arrays as bytes), `store` (one SQLite file of checked values), `folder` (where the
files are, and how many), `captures` (`CaptureCache`), `memo` (`DigestMemo`).
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
