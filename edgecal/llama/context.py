"""One llama.cpp context: runs decodes, and tells the hook which rows of which micro-batch are wanted.

Does not know how prompts are shared out among decodes, nor what the numbers are for.
"""

from __future__ import annotations

import ctypes
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecal.architectures import PLAIN_STREAM, ResidualStream
from edgecal.errors import ModelError
from edgecal.llama.hook import HiddenCapture, PlannedRow
from edgecal.llama.library import clear_log, ggml_addresses, last_error_lines, load_library
from edgecal.llama.machine import threads_for_decode
from edgecal.llama.microbatch import MicroBatch, split, split_rule
from edgecal.llama.model import Model
from edgecal.llama.settings import MAX_SEQUENCES, CaptureSettings

__all__ = ["Context", "TokenBatch"]

_FLASH_ATTN_DISABLED, _FLASH_ATTN_ENABLED = 0, 1

# Where the cache has a stream for each sequence, llama.cpp tries these out with tokens of one sequence shared out among
# all streams, and aborts the process if that does not come out even.
_SHARED_OUT_EVENLY = frozenset({"kimi-linear", "minimax-01"})


@dataclass(frozen=True)
class TokenBatch:
    """The tokens of one decode; five arrays of the same length. At most one token of a sequence is wanted.

    Attributes
    ----------
    tokens: int32, token ids.
    positions: int32, each token's place in its sequence.
    seq_ids: int32, each token's sequence.
    wanted: int32, the slot of the results that this token's logits and hidden states go to, or -1.
    outputs: bool, whether llama.cpp is to compute this token's logits; true for all that are wanted.
    """

    tokens: NDArray[np.int32]
    positions: NDArray[np.int32]
    seq_ids: NDArray[np.int32]
    wanted: NDArray[np.int32]
    outputs: NDArray[np.bool_]


class Context:
    """A context of a loaded model for `n_seq_max` sequences of up to `n_ctx_seq` tokens each.

    With `hidden`, the residual stream after every block is captured for the wanted tokens from where `stream`
    says; without, the native hook is neither loaded nor installed. A context manager; the model must outlive it.

    Attributes
    ----------
    n_batch, n_ubatch: tokens of a decode and of a micro-batch, at most.
    n_threads_at_most: of the next decodes, where others in this process compute beside them; None: as many as the
        settings and other programs allow.
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
    ) -> None:
        """Raises ModelError if llama.cpp cannot make the context (no memory, an unknown kind of model).

        `n_outputs_max` is how many tokens of one decode may be outputs.
        """
        self._model = model
        self._library: Any = load_library()
        self._n_threads, self._all_threads = settings.n_threads, settings.flash_attn
        self.n_threads_at_most: int | None = None
        self._rule = split_rule(model.memory, n_seq_max=n_seq_max, kv_unified=settings.kv_unified)
        if model.architecture in _SHARED_OUT_EVENLY and not settings.kv_unified:
            n_seq_max = _shared_out_evenly(n_seq_max, n_ctx_seq, settings)
        n_ctx = n_ctx_seq * n_seq_max
        # llama.cpp keeps logits for every sequence, and aborts where there is less room than that.
        self._n_outputs_max = max(n_outputs_max, n_seq_max)
        self.n_batch = min(settings.n_batch, n_ctx)
        self.n_ubatch = min(settings.n_ubatch, self.n_batch)
        with ExitStack() as stack:
            self._hook = (
                stack.enter_context(HiddenCapture(model.n_layer, model.n_embd, ggml_addresses(), stream))
                if hidden
                else None
            )
            params = self._params(settings, n_ctx, n_seq_max)
            clear_log()
            self._handle = self._library.llama_init_from_model(model.handle, params)
            if not self._handle:
                raise ModelError(
                    f"{model.path}: llama.cpp cannot make a context for {n_seq_max} sequences of {n_ctx_seq} "
                    f"tokens ({last_error_lines() or 'it gave no reason'}); is there enough memory?"
                )
            stack.callback(self._library.llama_free, self._handle)
            self._memory = self._library.llama_get_memory(self._handle)
            if not self._memory:
                raise ModelError(
                    f"{model.path}: the architecture {model.architecture} keeps no memory of earlier tokens; "
                    "edgecal needs a causal language model"
                )
            self._stack = stack.pop_all()

    def _params(self, settings: CaptureSettings, n_ctx: int, n_seq_max: int) -> Any:
        params = self._library.llama_context_default_params()
        params.n_ctx = n_ctx
        params.n_batch = self.n_batch
        params.n_ubatch = self.n_ubatch
        params.n_seq_max = n_seq_max
        # llama.cpp would set memory aside for n_batch rows of logits (300 MB for a vocabulary of 150,000).
        params.n_outputs_max = self._n_outputs_max
        params.n_threads = settings.n_threads
        params.n_threads_batch = settings.n_threads
        params.flash_attn_type = _FLASH_ATTN_ENABLED if settings.flash_attn else _FLASH_ATTN_DISABLED
        params.kv_unified = settings.kv_unified
        # A window's cache that wraps round would put a token's key at a place that depends on the cuts.
        params.swa_full = True
        params.offload_kqv = False
        params.op_offload = False
        params.no_perf = True
        if self._hook is not None:
            params.cb_eval = self._library.ggml_backend_sched_eval_callback(self._hook.callback)
            params.cb_eval_user_data = self._hook.user
        return params

    def clear(self) -> None:
        """Forgets all sequences. Their old keys and values are overwritten with zeros, so that what was there
        cannot reach a later sum."""
        self._library.llama_memory_clear(self._memory, True)

    def empty(self, sequence: int) -> None:
        """Forgets one sequence."""
        self._library.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def fork(self, source: int, target: int) -> None:
        """Makes the target sequence a copy of the source. What was copied counts once the next decode has run."""
        self.empty(target)
        self._library.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def rewind(self, sequence: int, n_tokens: int) -> bool:
        """Forgets what is behind the first tokens of a sequence. False, with nothing done, for a model whose state
        cannot go back."""
        if not self._model.can_rewind:
            return False
        return bool(self._library.llama_memory_seq_rm(self._memory, sequence, n_tokens, -1))

    def steer_last_block(self, vector: NDArray[np.float32]) -> bool:
        """Lets llama.cpp add a vector, float32 [n_embd], to the last block's output at every token from now on. False
        where it does not take one."""
        block = self._model.n_layer - 1  # the first block cannot have one, and has no place among them
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
        """Runs one decode of at most `n_batch` tokens and writes the wanted tokens' numbers.

        Parameters
        ----------
        batch: the tokens.
        logits: float32 [n_slots, n_vocab], receives llama.cpp's logits at each wanted token's slot.
        hidden, captured: as `HiddenCapture.plan` takes them, for n_slots prompts; None without hook.

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
        """Runs one decode, all of whose tokens must be outputs, and writes what the head is multiplied with for the
        wanted ones: float32 [n_slots, n_embd], the final norm's output. Only without hook; errors as for `decode`."""
        self._check_size(batch)
        # llama.cpp's embeddings are just that; some architectures then leave out the logits.
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
        """Copies llama.cpp's "logits" or "embeddings" of the wanted tokens to their slots."""
        get = getattr(self._library, f"llama_get_{what}_ith")
        for row in np.flatnonzero(batch.wanted >= 0):
            pointer = get(self._handle, int(row))
            if not pointer:
                raise ModelError(f"{self._model.path}: llama.cpp has no {what} for token {row} of a decode")
            results[batch.wanted[row]] = np.ctypeslib.as_array(pointer, shape=results.shape[1:])

    def micro_batches(self, batch: TokenBatch) -> list[MicroBatch]:
        """The micro-batches into which llama.cpp cuts this decode."""
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
        # The arrays are the batch's memory and live until the decode is over.
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
        """Frees the context, then the hook's capture; again is harmless."""
        self._stack.close()

    def __enter__(self) -> Context:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _shared_out_evenly(n_seq_max: int, n_ctx_seq: int, settings: CaptureSettings) -> int:
    """The least number of sequences from `n_seq_max` on that share the tokens of a full micro-batch out evenly.

    ModelError: llama.cpp takes no more than `MAX_SEQUENCES`.
    """
    for n in range(n_seq_max, MAX_SEQUENCES + 1):
        if min(settings.n_ubatch, settings.n_batch, n * n_ctx_seq) % n == 0:
            return n
    raise ModelError(
        f"llama.cpp shares the {settings.n_ubatch} tokens of a micro-batch out evenly among the sequences of this "
        f"architecture, and no number of sequences from {n_seq_max} to {MAX_SEQUENCES} does; use an n_ubatch that is "
        "a multiple of 64"
    )
