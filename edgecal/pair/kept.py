"""Answers of one model that are kept on disk, by content: the model's digest, llama.cpp, settings, tokens.

Knows what influences an answer. A cache that cannot be used costs one warning, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from edgecal.cache import CaptureCache, DigestMemo, identify_files
from edgecal.gguf.hashes import CONTENT_REVISION, content_sha256
from edgecal.pair.loaded import read_shards, wants_repacking
from edgecal.pair.observation import ObserveProgress, ObserveRequest

if TYPE_CHECKING:
    from edgecal.llama.vocabulary import ResolvedPrompt
    from edgecal.pair.answers import Answer

__all__ = ["ANSWER_REVISION", "AnswerCache"]

# To be raised whenever the same model and tokens would get other numbers than before.
ANSWER_REVISION = 2

# What changes no bit in the default mode.
_FREE_SETTINGS = ("n_threads", "n_batch", "n_ubatch", "n_seq_max", "share")

_DIGEST = f"content/{CONTENT_REVISION}"
_LAYER_ARRAYS = ("layer_logits", "lens_error")


class AnswerCache:
    """The answers kept for one model and its settings; a context manager. Empty without a folder."""

    def __init__(self, request: ObserveRequest, report: Callable[[ObserveProgress], None]) -> None:
        self._cache: CaptureCache | None = None
        self._memo_warning: str | None = None
        if request.cache_folder is None:
            return
        shards = read_shards(request.path)
        self._paths = shards.paths
        self._identity = identify_files(shards.paths)

        def compute() -> dict[str, str]:
            return {
                _DIGEST: content_sha256(
                    shards, lambda done, total: report(ObserveProgress("digest", done, total))
                )
            }

        with DigestMemo(request.cache_folder) as memo:
            digest = memo.recall(shards.paths, [_DIGEST], compute)[_DIGEST]
            self._memo_warning = memo.warning
        # Not the file's name: a copy under another one, with a temperature in it or without, says the same.
        name = shards.header.get("general.name")
        label = f"{name if isinstance(name, str) and name else 'unnamed'} ({digest[:8]})"
        self._cache = CaptureCache(request.cache_folder, _context(request, label, digest))

    def __enter__(self) -> AnswerCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._cache is not None:
            self._cache.close()

    @property
    def may_hold(self) -> bool:
        """Whether there is a cache at all."""
        return self._cache is not None

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why nothing is kept, if so: at most one line."""
        warning = None if self._cache is None else self._cache.warning or self._memo_warning
        return () if warning is None else (warning,)

    def read(self, resolved: Sequence[ResolvedPrompt], *, layers: bool) -> list[Answer | None]:
        """The kept answer to each prompt; None where there is none, or one without the layers that are wanted."""
        if self._cache is None:
            return [None] * len(resolved)
        found = self._cache.read([_key(item) for item in resolved])
        return [
            None
            if answer is None or (layers and not all(name in answer for name in _LAYER_ARRAYS))
            else answer
            for answer in found
        ]

    def write(
        self, resolved: Sequence[ResolvedPrompt], answers: Sequence[Answer | None], indices: Sequence[int]
    ) -> None:
        """Keeps the answers at the indices."""
        # A file that was replaced meanwhile is not the one that the digest is of.
        if self._cache is not None and indices and identify_files(self._paths) == self._identity:
            pairs = [(resolved[index], answers[index]) for index in indices]
            self._cache.write([(_key(item), answer) for item, answer in pairs if answer is not None])


def _key(item: ResolvedPrompt) -> bytes:
    from edgecal.pair.answers import answer_key

    return answer_key(item.tokens, item.choice_tokens)


def _context(request: ObserveRequest, label: str, digest: str) -> dict[str, Any]:
    """Everything beside the tokens that may influence an answer."""
    from edgecal.llama.library import describe_llama_cpp, system_info

    settings = request.settings.describe()
    loose = _FREE_SETTINGS if request.settings.is_exact else ()
    return {
        "model": label,
        "content_sha256": digest,
        "revision": ANSWER_REVISION,
        "llama_cpp": describe_llama_cpp(),
        "system_info": system_info(),
        "repack": wants_repacking(request.path),
        **{f"settings.{name}": value for name, value in settings.items() if name not in loose},
    }
