"""What a result records about model files and the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgecal.gguf.shards import ShardSet
    from edgecal.llama.settings import CaptureSettings
    from edgecal.pair.model_capture import ModelCapture
    from edgecal.results.fitting import FittedModel, Runtime, Settings
    from edgecal.results.judging import ModelRun

__all__ = [
    "describe_model",
    "describe_run",
    "describe_runtime",
    "describe_settings",
    "files_sha256",
    "model_name",
]


def model_name(shards: ShardSet) -> str:
    """The model's name in its metadata, else its file's."""
    name = shards.header.get("general.name")
    return name if isinstance(name, str) and name else shards.path.name


def files_sha256(
    shards: ShardSet, cache_folder: Path | None, on_bytes: Callable[[int, int], None] | None = None
) -> str:
    """SHA-256 (hex) over a model's files, from the cache if the files have not changed since."""
    from edgecal.cache import DigestMemo
    from edgecal.gguf.hashes import sha256_of

    with DigestMemo(cache_folder) as memo:
        return memo.recall(shards.paths, ["sha256"], lambda: {"sha256": sha256_of(shards, on_bytes)})[
            "sha256"
        ]


def describe_run(shards: ShardSet, seen: ModelCapture) -> FittedModel:
    """A model and what running it took."""
    return {
        "path": str(shards.path),
        "name": model_name(shards),
        "n_tokens": seen.n_tokens,
        "peak_memory_bytes": seen.peak_memory_bytes,
    }


def describe_model(shards: ShardSet, seen: ModelCapture) -> ModelRun:
    """The same with the model's architecture."""
    return {**describe_run(shards, seen), "architecture": shards.header.architecture}


def describe_runtime(seen: ModelCapture, settings: CaptureSettings) -> Runtime:
    """Versions and settings that can influence a number."""
    from edgecal.version import __version__

    used = describe_settings(settings)
    return {
        "edgecal": __version__,
        "llama_cpp": seen.llama_cpp,
        "system_info": seen.system_info,
        "n_threads": used["n_threads"],
        "n_batch": used["n_batch"],
        "n_ubatch": used["n_ubatch"],
        "n_seq_max": used["n_seq_max"],
        "share": used["share"],
        "flash_attn": used["flash_attn"],
        "kv_unified": used["kv_unified"],
    }


def describe_settings(settings: CaptureSettings) -> Settings:
    """How llama.cpp is run."""
    return {
        "n_threads": settings.n_threads,
        "n_batch": settings.n_batch,
        "n_ubatch": settings.n_ubatch,
        "n_seq_max": settings.n_seq_max,
        "share": settings.share,
        "flash_attn": settings.flash_attn,
        "kv_unified": settings.kv_unified,
    }
