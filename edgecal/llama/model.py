"""Loads a model file with llama.cpp on the CPU and reads its sizes."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from edgecal.errors import InputError, ModelError
from edgecal.llama.library import clear_log, first_error_line, load_library
from edgecal.llama.microbatch import Memory

__all__ = ["Model"]

_META_BYTES = 256

# llama.cpp lists these as hybrid, but cuts their micro-batches by other rules.
_OWN_RULES = frozenset({"deepseek4"})


class Model:
    """A loaded GGUF model; a context manager that frees it.

    Attributes
    ----------
    path: the file (the first shard of a split model).
    handle: llama.cpp's model pointer; None after `close()`.
    vocab: llama.cpp's vocabulary pointer, valid as long as the model.
    architecture: `general.architecture`.
    n_layer: blocks of the trunk, without blocks for multi-token prediction.
    n_embd: floats of one residual stream of a token.
    n_embd_out: floats of llama.cpp's embedding of a token; more than n_embd where that holds all streams of a model
        with several.
    n_vocab: number of tokens, and so of logits.
    n_ctx_train: context length that the model was trained with.
    n_ctx_orig: the length before its positions were stretched; a model may use other factors for them in contexts
        whose sequences are longer (longrope).
    n_expert: experts of a mixture-of-experts block; 0 for a dense model.
    memory: how the model remembers earlier tokens, as far as micro-batches depend on it.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        vocab_only: bool = False,
        repack: bool = True,
        on_progress: Callable[[float], None] | None = None,
    ) -> None:
        """Loads the file; `on_progress` is called with the share loaded so far, 0 to 1.

        `vocab_only` loads neither weights nor sizes, which is quick and enough to tokenize: only `vocab`, `n_vocab` and
        `architecture` are valid then. `repack` lets llama.cpp reorder weights for its fastest kernels.

        Raises
        ------
        InputError: the file does not exist.
        ModelError: llama.cpp cannot load it (its first error line is quoted), or it is not a causal language model.
        """
        self.path = Path(path)
        if not self.path.is_file():
            raise InputError(f"{self.path}: no such model file; give the path of a GGUF file")
        library: Any = load_library()
        with ExitStack() as stack:
            self.handle: int | None = self._load(library, vocab_only, repack, on_progress)
            stack.callback(library.llama_model_free, self.handle)
            self._read(library)
            if not vocab_only:
                self._check(library)
            self._stack = stack.pop_all()

    @classmethod
    def of_handle(cls, handle: int, path: str | Path) -> Model:
        """Wraps a model that somebody else has loaded and frees, later than this wrapper is used; `close` frees
        nothing. `handle` is llama.cpp's pointer to it, `path` its file. Raises ModelError if it is not a causal
        language model."""
        model = cls.__new__(cls)
        model.path, model.handle, model._stack = Path(path), handle, ExitStack()
        library: Any = load_library()
        model._read(library)
        model._check(library)
        return model

    def _load(
        self, library: Any, vocab_only: bool, repack: bool, on_progress: Callable[[float], None] | None
    ) -> int:
        failure: list[BaseException] = []

        def report(share: float, _user: object) -> bool:
            if on_progress is not None:
                try:
                    on_progress(share)
                except BaseException as error:  # an exception cannot pass through C; it is raised again below
                    failure.append(error)
                    return False
            return True

        params = library.llama_model_default_params()
        params.n_gpu_layers = 0
        params.vocab_only = vocab_only
        params.use_extra_bufts = repack
        # A local variable keeps the callback alive while llama.cpp calls it.
        callback = library.llama_progress_callback(report)
        params.progress_callback = callback
        clear_log()
        handle = library.llama_model_load_from_file(os.fsencode(self.path), params)
        if failure:
            if handle:
                library.llama_model_free(handle)
            raise failure[0]
        if not handle:
            reason = first_error_line() or "llama.cpp gave no reason"
            raise ModelError(
                f"{self.path}: llama.cpp cannot load the model ({reason}); is the file complete?"
            )
        return int(handle)

    def _read(self, library: Any) -> None:
        self.vocab = int(library.llama_model_get_vocab(self.handle))
        self.architecture = self._metadata(library, "general.architecture") or "unknown"
        self.n_layer = int(library.llama_model_n_layer(self.handle))
        self.n_embd = int(library.llama_model_n_embd(self.handle))
        self.n_embd_out = int(library.llama_model_n_embd_out(self.handle))
        self.n_vocab = int(library.llama_vocab_n_tokens(self.vocab))
        self.n_ctx_train = int(library.llama_model_n_ctx_train(self.handle))
        self.n_ctx_orig = self._number("rope.scaling.original_context_length", self.n_ctx_train)
        self.n_expert = self._number("expert_count", 0)
        self.memory = self._memory(library)

    @property
    def can_rewind(self) -> bool:
        """Whether the last tokens of a sequence can be removed; a state of fixed size cannot be rewound."""
        return self.memory in (Memory.ATTENTION, Memory.SLIDING)

    def _memory(self, library: Any) -> Memory:
        if self.architecture in _OWN_RULES:
            return Memory.OTHER
        if library.llama_model_is_recurrent(self.handle):
            return Memory.RECURRENT
        if library.llama_model_is_hybrid(self.handle):
            return Memory.HYBRID
        return Memory.SLIDING if library.llama_model_n_swa(self.handle) > 0 else Memory.ATTENTION

    def _check(self, library: Any) -> None:
        if library.llama_model_has_encoder(self.handle) or library.llama_model_is_diffusion(self.handle):
            raise ModelError(
                f"{self.path}: the architecture {self.architecture} does not predict one next token from the "
                "tokens before it; edgecal needs a causal language model"
            )
        if self.n_layer < 1:
            raise ModelError(f"{self.path}: the model has {self.n_layer} blocks; at least 1 is needed")

    def _metadata(self, library: Any, key: str) -> str | None:
        buffer = ctypes.create_string_buffer(_META_BYTES)
        length = library.llama_model_meta_val_str(self.handle, key.encode(), buffer, _META_BYTES)
        return buffer.value.decode("utf-8", "replace") if length >= 0 else None

    def cache_bytes(self, n_tokens: int) -> int:
        """Returns the bytes of llama.cpp's cache for one sequence of `n_tokens`, with any state of fixed size.

        Exact for plain attention with 16-bit keys and values; an estimate where layers differ.
        """
        library: Any = load_library()
        n_head = max(1, int(library.llama_model_n_head(self.handle)))
        n_head_kv = int(library.llama_model_n_head_kv(self.handle))
        head = self.n_embd // n_head
        per_token = n_head_kv * (
            self._number("attention.key_length", head) + self._number("attention.value_length", head)
        )
        state = self._number("ssm.inner_size", 0) * self._number("ssm.state_size", 0)
        return self.n_layer * (2 * per_token * n_tokens + 4 * state)

    def _number(self, name: str, default: int) -> int:
        text = self._metadata(load_library(), f"{self.architecture}.{name}")
        return int(text) if text is not None and text.isdigit() else default

    def close(self) -> None:
        """Frees the model; may be called again. Close its contexts first."""
        self.handle = None
        self._stack.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
