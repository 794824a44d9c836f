"""Caches one model's prompt captures on disk, keyed by content: model digest, llama.cpp's version, settings, tokens.

Everything that influences a result is part of the key, so a cached capture equals the one that would be computed. If
the cache cannot be used, the run continues with one warning.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgecal.cache import CaptureCache, DigestMemo, identify_files
from edgecal.gguf.hashes import CONTENT_DIGEST, content_sha256
from edgecal.pair.model_capture import CaptureProgress, CaptureRequest
from edgecal.pair.resident_model import read_shards, wants_repacking

if TYPE_CHECKING:
    from edgecal.llama.tokenizer import ResolvedPrompt

__all__ = ["CAPTURE_REVISION", "PromptCapture", "PromptCaptureCache", "prompt_key"]

# The arrays of one prompt with k choices: final_logits float32 [k], choice_mass float64 [], top_token int32 []; with
# layers also layer_logits float32 [n_layer, k] and lens_error float64 []; with hidden states last_hidden float32
# [n_embd] too.
PromptCapture = dict[str, NDArray[Any]]

# Increase this whenever the same model and tokens would give other results than before.
CAPTURE_REVISION = 2

# Settings that change no bit of the results in the default mode.
_FREE_SETTINGS = ("n_threads", "n_batch", "n_ubatch", "n_seq_max", "share")

_LAYER_ARRAYS = ("layer_logits", "lens_error")


class PromptCaptureCache:
    """The cached captures of one model with its settings; a context manager. Always empty without a folder."""

    def __init__(self, request: CaptureRequest, report: Callable[[CaptureProgress], None]) -> None:
        self._cache: CaptureCache | None = None
        self._memo_warning: str | None = None
        if request.cache_folder is None:
            return
        shards = read_shards(request.path)
        self._paths = shards.paths
        self._identity = identify_files(shards.paths)

        def compute() -> dict[str, str]:
            return {
                CONTENT_DIGEST: content_sha256(
                    shards, lambda done, total: report(CaptureProgress("digest", done, total))
                )
            }

        with DigestMemo(request.cache_folder) as memo:
            digest = memo.recall(shards.paths, [CONTENT_DIGEST], compute)[CONTENT_DIGEST]
            self._memo_warning = memo.warning
        # The file's name is not used: a renamed copy, with or without a temperature in it, has the same captures.
        name = shards.header.get("general.name")
        label = f"{name if isinstance(name, str) and name else 'unnamed'} ({digest[:8]})"
        self._cache = CaptureCache(request.cache_folder, _context(request, label, digest))

    def __enter__(self) -> PromptCaptureCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._cache is not None:
            self._cache.close()

    @property
    def may_hold(self) -> bool:
        """Whether there is a cache."""
        return self._cache is not None

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why the cache cannot be used: at most one line, none if it can."""
        warning = None if self._cache is None else self._cache.warning or self._memo_warning
        return () if warning is None else (warning,)

    def read(
        self, resolved: Sequence[ResolvedPrompt], *, layers: bool, hidden: bool = False
    ) -> list[PromptCapture | None]:
        """Returns each prompt's capture; None if it is not cached, or cached without what is wanted of it."""
        if self._cache is None:
            return [None] * len(resolved)
        captures = self._cache.read([_key(item) for item in resolved])
        wanted = [*(_LAYER_ARRAYS if layers else ()), *(("last_hidden",) if hidden else ())]
        return [
            capture if capture is not None and all(name in capture for name in wanted) else None
            for capture in captures
        ]

    def write(
        self,
        resolved: Sequence[ResolvedPrompt],
        captures: Sequence[PromptCapture | None],
        indices: Sequence[int],
    ) -> None:
        """Writes the captures at the given indices."""
        # If the file was replaced meanwhile, the digest is not that of the file that was run.
        if self._cache is not None and indices and identify_files(self._paths) == self._identity:
            pairs = [(resolved[index], captures[index]) for index in indices]
            self._cache.write([(_key(item), capture) for item, capture in pairs if capture is not None])


def prompt_key(
    tokens: NDArray[np.int32], choice_ids: NDArray[np.int32], label_of: NDArray[np.int32] | None = None
) -> bytes:
    """Returns a prompt's cache key: the SHA-256, 32 bytes, of its tokens, its choice tokens, and the label of each
    (None: each is a label of its own)."""
    digest = hashlib.sha256(np.int64(len(tokens)).tobytes())
    digest.update(np.ascontiguousarray(tokens, "<i4").tobytes())
    digest.update(np.ascontiguousarray(choice_ids, "<i4").tobytes())
    if label_of is not None:
        digest.update(b"forms" + np.ascontiguousarray(label_of, "<i4").tobytes())
    return digest.digest()


def _key(item: ResolvedPrompt) -> bytes:
    return prompt_key(item.tokens, item.choice_tokens, item.label_of if item.has_forms else None)


def _context(request: CaptureRequest, label: str, digest: str) -> dict[str, Any]:
    """Returns everything besides the tokens that may influence a capture."""
    from edgecal.llama.library import describe_llama_cpp, system_info

    settings = request.settings.describe()
    loose = _FREE_SETTINGS if request.settings.is_exact else ()
    return {
        "model": label,
        "content_sha256": digest,
        "revision": CAPTURE_REVISION,
        "llama_cpp": describe_llama_cpp(),
        "system_info": system_info(),
        "repack": wants_repacking(request.path),
        **{f"settings.{name}": value for name, value in settings.items() if name not in loose},
    }
