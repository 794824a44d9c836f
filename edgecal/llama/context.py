"""One llama.cpp context: runs decodes and tells the hook which rows of which micro-batch to capture."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecal.architectures import PLAIN_STREAM, ResidualStream
from edgecal.errors import ModelError
from edgecal.llama.hook import HiddenCapture, PlannedRow
from edgecal.llama.library import (
    clear_log,
    ggml_addresses,
    last_error_lines,
    load_library,
    note_compute,
)
from edgecal.llama.machine import threads_for_decode
from edgecal.llama.microbatch import MicroBatch, split, split_rule
from edgecal.llama.model import Model
from edgecal.llama.settings import MAX_SEQUENCES, CaptureSettings

__all__ = ["Context", "TokenBatch"]

_FLASH_ATTN_DISABLED, _FLASH_ATTN_ENABLED = 0, 1

# While it creates a context whose cache has a stream per sequence, llama.cpp builds a trial graph that divides the
# tokens of a full micro-batch among the streams. For these architectures it aborts if they do not divide evenly.
_NEEDS_EVEN_SPLIT = frozenset({"kimi-linear", "minimax-01"})


@dataclass(frozen=True)
class TokenBatch:
    """The tokens of one decode, as five arrays of the same length. At most one token per sequence is wanted.

    Attributes
    ----------
    tokens: int32, token ids.
    positions: int32, each token's position in its sequence.
    seq_ids: int32, each token's sequence.
    wanted: int32, the slot that receives this token's logits and hidden states, or -1.
    outputs: bool, whether llama.cpp computes this token's logits; true for every wanted token.
    """

    tokens: NDArray[np.int32]
    positions: NDArray[np.int32]
    seq_ids: NDArray[np.int32]
    wanted: NDArray[np.int32]
    outputs: NDArray[np.bool_]


class Context:
    """A context of a loaded model for `n_seq_max` sequences of up to `n_ctx_seq` tokens each.

    With `hidden`, the residual stream of the wanted tokens is captured after every block; `stream` says where the graph
    holds it. Otherwise the native hook is neither loaded nor installed. A context manager; the model must outlive it.

    Attributes
    ----------
    n_batch, n_ubatch: most tokens of a decode and of a micro-batch.
    n_threads_at_most: limits the threads of the next decodes, because another context of this process computes at the
        same time; None: as many as the settings and other programs allow.
    """

    def __init__(
        self,
        model: Model,
        settings: CaptureSettings,
        *,
        n_ctx_seq: int,
        n_seq_max: int,
        n_outputs_max: int,
        hidden: bool,
        stream: ResidualStream = PLAIN_STREAM,
        params: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Raises ModelError if llama.cpp cannot create the context (too little memory, an unsupported kind of model).

        `n_outputs_max` is how many tokens of one decode may be outputs; `params` are further context parameters of
        llama.cpp by name, such as "rope_freq_base".
        """
        self._model = model
        self._library: Any = load_library()
        self._n_threads, self._all_threads = settings.n_threads, settings.flash_attn
        self.n_threads_at_most: int | None = None
        self._rule = split_rule(model.memory, n_seq_max=n_seq_max, kv_unified=settings.kv_unified)
        if model.architecture in _NEEDS_EVEN_SPLIT and not settings.kv_unified:
            n_seq_max = _even_sequence_count(n_seq_max, n_ctx_seq, settings)
        n_ctx = n_ctx_seq * n_seq_max
        # llama.cpp aborts if the limit leaves no room for one output per sequence.
        self._n_outputs_max = max(n_outputs_max, n_seq_max)
        self.n_batch = min(settings.n_batch, n_ctx)
        self.n_ubatch = min(settings.n_ubatch, self.n_batch)
        with ExitStack() as stack:
            self._hook = (
                stack.enter_context(HiddenCapture(model.n_layer, model.n_embd, ggml_addresses(), stream))
                if hidden
                else None
            )
            native = self._params(settings, n_ctx, n_seq_max)
            for name, value in params.items():
                setattr(native, name, value)
            clear_log()
            self._handle = self._library.llama_init_from_model(model.handle, native)
            if not self._handle:
                raise ModelError(
                    f"{model.path}: llama.cpp cannot create a context for {n_seq_max} sequences of {n_ctx_seq} "
                    f"tokens ({last_error_lines() or 'it gave no reason'}); is there enough memory?"
                )
            stack.callback(self._library.llama_free, self._handle)
            self._memory = self._library.llama_get_memory(self._handle)
            if not self._memory:
                raise ModelError(
                    f"{model.path}: the architecture {model.architecture} has no memory of earlier tokens; "
                    "edgecal needs a causal language model"
                )
            self._stack = stack.pop_all()

    def _params(self, settings: CaptureSettings, n_ctx: int, n_seq_max: int) -> Any:
        params = self._library.llama_context_default_params()
        params.n_ctx = n_ctx
        params.n_batch = self.n_batch
        params.n_ubatch = self.n_ubatch
        params.n_seq_max = n_seq_max
        # By default llama.cpp reserves memory for n_batch rows of logits (300 MB for a vocabulary of 150,000).
        params.n_outputs_max = self._n_outputs_max
        params.n_threads = settings.n_threads
        params.n_threads_batch = settings.n_threads
        params.flash_attn_type = _FLASH_ATTN_ENABLED if settings.flash_attn else _FLASH_ATTN_DISABLED
        params.kv_unified = settings.kv_unified
        # In a sliding window's cache that wraps around, a key's position would depend on how decodes are cut.
        params.swa_full = True
        params.offload_kqv = False
        params.op_offload = False
        params.no_perf = True
        if self._hook is not None:
            params.cb_eval = self._library.ggml_backend_sched_eval_callback(self._hook.callback)
            params.cb_eval_user_data = self._hook.user
        return params

    def clear(self) -> None:
        """Removes all sequences and overwrites their keys and values with zeros, so that old values cannot enter a
        later sum."""
        self._library.llama_memory_clear(self._memory, True)

    def empty(self, sequence: int) -> None:
        """Removes one sequence."""
        self._library.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def fork(self, source: int, target: int) -> None:
        """Makes the target sequence a copy of the source. llama.cpp copies the data when the next decode runs."""
        self.empty(target)
        self._library.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def rewind(self, sequence: int, n_tokens: int) -> bool:
        """Removes all but the first `n_tokens` tokens of a sequence. Does nothing and returns False if the model's
        state cannot be rewound."""
        if not self._model.can_rewind:
            return False
        return bool(self._library.llama_memory_seq_rm(self._memory, sequence, n_tokens, -1))

    def steer_last_block(self, vector: NDArray[np.float32]) -> bool:
        """Makes llama.cpp add a vector, float32 [n_embd], to the last block's output at every token of later decodes.
        Returns False if llama.cpp refuses the vector."""
        block = (
            self._model.n_layer - 1
        )  # llama.cpp's array starts at the second block; the first takes no vector
        vectors = np.zeros((block, self._model.n_embd), np.float32)
        vectors[-1] = vector
        pointer = vectors.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        status = self._library.llama_set_adapter_cvec(
            self._handle, pointer, vectors.size, self._model.n_embd, block, block
        )
        return int(status) == 0

    def decode(
        self,
        batch: TokenBatch,
        logits: NDArray[np.float32],
        hidden: NDArray[np.float32] | None,
        captured: NDArray[np.uint8] | None,
    ) -> None:
        """Runs one decode of at most `n_batch` tokens and writes the results of the wanted tokens.

        Parameters
        ----------
        batch: the tokens.
        logits: float32 [n_slots, n_vocab], receives llama.cpp's logits at each wanted token's slot.
        hidden, captured: as `HiddenCapture.plan` takes them, for n_slots prompts; None without the hook.

        Raises
        ------
        ModelError: llama.cpp failed, or a block's tensor was not as expected.
        """
        self._check_size(batch)
        if self._hook is not None and hidden is not None and captured is not None:
            self._hook.plan(hidden, captured, self._plan(batch))
        self._run(batch)
        if self._hook is not None:
            try:
                self._hook.finish()
            except ModelError as error:
                raise ModelError(f"{self._model.path}: {error}") from None
        self._read("logits", batch, logits)

    def decode_inputs(self, batch: TokenBatch, inputs: NDArray[np.float32]) -> None:
        """Runs one decode, all of whose tokens must be outputs, and writes the output head's inputs for the wanted
        tokens: float32 [n_slots, n_embd], the final norm's output. Needs a context without the hook; errors as for
        `decode`."""
        self._check_size(batch)
        # llama.cpp's "embeddings" are these inputs. Not set for good: some architectures then compute no logits.
        self._library.llama_set_embeddings(self._handle, True)
        try:
            self._run(batch)
            self._read("embeddings", batch, inputs)
        finally:
            self._library.llama_set_embeddings(self._handle, False)

    def _check_size(self, batch: TokenBatch) -> None:
        n_outputs = int(batch.outputs.sum())
        if n_outputs > self._n_outputs_max or len(batch.tokens) > self.n_batch:  # llama.cpp would abort
            raise ModelError(
                f"a decode of {len(batch.tokens)} tokens, {n_outputs} of them outputs, does not fit a context of "
                f"{self.n_batch} tokens and {self._n_outputs_max} outputs"
            )

    def _run(self, batch: TokenBatch) -> None:
        clear_log()
        note_compute()
        with threads_for_decode(
            self._n_threads, at_most=self.n_threads_at_most, all_of_them=self._all_threads
        ) as n_threads:
            self._library.llama_set_n_threads(self._handle, n_threads, n_threads)
            status = self._decode(batch)
        if status != 0:
            raise ModelError(
                f"{self._model.path}: llama.cpp's decode of {len(batch.tokens)} tokens failed with status "
                f"{status} ({last_error_lines() or 'it gave no reason'})"
            )

    def _read(self, what: str, batch: TokenBatch, results: NDArray[np.float32]) -> None:
        """Copies the "logits" or "embeddings" (`what`) of the wanted tokens to their slots."""
        get = getattr(self._library, f"llama_get_{what}_ith")
        for row in np.flatnonzero(batch.wanted >= 0):
            pointer = get(self._handle, int(row))
            if not pointer:
                raise ModelError(f"{self._model.path}: llama.cpp has no {what} for token {row} of a decode")
            results[batch.wanted[row]] = np.ctypeslib.as_array(pointer, shape=results.shape[1:])

    def micro_batches(self, batch: TokenBatch) -> list[MicroBatch]:
        """Returns the micro-batches into which llama.cpp will cut this decode."""
        return split(batch.seq_ids.tolist(), batch.outputs.tolist(), self.n_ubatch, self._rule)

    def _plan(self, batch: TokenBatch) -> list[tuple[int, int, list[PlannedRow]]]:
        plan = []
        wanted = batch.wanted.tolist()
        for part in self.micro_batches(batch):
            row_of = {token: row for row, token in enumerate(part.tokens)}
            rows = [
                (row_of[token], row, wanted[token])
                for row, token in enumerate(part.outputs)
                if wanted[token] >= 0
            ]
            plan.append((len(part.tokens), len(part.outputs), rows))
        return plan

    def _decode(self, batch: TokenBatch) -> int:
        n_tokens = len(batch.tokens)
        # llama.cpp reads these arrays in place, so they must live until the decode returns.
        tokens = np.ascontiguousarray(batch.tokens, dtype=np.int32)
        positions = np.ascontiguousarray(batch.positions, dtype=np.int32)
        seq_ids = np.ascontiguousarray(batch.seq_ids, dtype=np.int32)
        counts = np.ones(n_tokens, dtype=np.int32)
        flags = np.ascontiguousarray(batch.outputs, dtype=np.int8)
        seq_pointers = (ctypes.POINTER(ctypes.c_int32) * n_tokens)()
        addresses = np.ctypeslib.as_array(
            ctypes.cast(seq_pointers, ctypes.POINTER(ctypes.c_size_t)), (n_tokens,)
        )
        addresses[:] = seq_ids.ctypes.data + np.arange(n_tokens, dtype=np.uint64) * seq_ids.itemsize
        native = self._library.llama_batch()
        native.n_tokens = n_tokens
        native.token = tokens.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        native.pos = positions.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        native.n_seq_id = counts.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        native.seq_id = ctypes.cast(seq_pointers, ctypes.POINTER(ctypes.POINTER(ctypes.c_int32)))
        native.logits = flags.ctypes.data_as(ctypes.POINTER(ctypes.c_int8))
        return int(self._library.llama_decode(self._handle, native))

    def close(self) -> None:
        """Frees the context, then the hook's capture; may be called again."""
        self._stack.close()

    def __enter__(self) -> Context:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _even_sequence_count(n_seq_max: int, n_ctx_seq: int, settings: CaptureSettings) -> int:
    """Returns the smallest number of sequences, at least `n_seq_max`, that divides a full micro-batch evenly.

    Raises ModelError if there is none up to `MAX_SEQUENCES`, llama.cpp's limit.
    """
    for n in range(n_seq_max, MAX_SEQUENCES + 1):
        if min(settings.n_ubatch, settings.n_batch, n * n_ctx_seq) % n == 0:
            return n
    raise ModelError(
        f"llama.cpp needs the {settings.n_ubatch} tokens of a micro-batch to divide evenly among the sequences of this "
        f"architecture, and no number of sequences from {n_seq_max} to {MAX_SEQUENCES} does that; use an n_ubatch "
        "that is a multiple of 64"
    )
