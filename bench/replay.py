"""Records the calls that a capture makes to llama.cpp's C API, and makes them again, plainly.

What is recorded is all that decides the work: making and freeing contexts, what is done to their memory, and the
tokens of each decode. Made again, without edgecal's planning, copying and hook, they are plain decoding of the same
tokens in the same packing. Knows nothing of what the calls are for.
"""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

_ON_MEMORY = (
    "llama_memory_clear",
    "llama_memory_seq_rm",
    "llama_memory_seq_cp",
    "llama_memory_seq_keep",
    "llama_memory_seq_add",
)

# Kinds of calls, as `Recording.play` tells them apart.
CONTEXT, MEMORY = "contexts", "memory"
SHARED, ENDING = "decodes without output", "decodes with outputs"


class Batch:
    """A copy of a `llama_batch` of token ids; `raw` is one again."""

    def __init__(self, library: Any, given: Any) -> None:
        n = given.n_tokens

        def copy(pointer: Any, dtype: Any) -> np.ndarray:
            return np.ctypeslib.as_array(pointer, shape=(n,)).astype(dtype)

        self.tokens, self.positions = copy(given.token, np.int32), copy(given.pos, np.int32)
        self.counts, self.flags = copy(given.n_seq_id, np.int32), copy(given.logits, np.int8)
        self._sequences = [
            np.ctypeslib.as_array(given.seq_id[row], shape=(int(self.counts[row]),)).copy()
            for row in range(n)
        ]
        self.raw = type(given)()
        fields = dict(self.raw._fields_)
        self._pointers = (ctypes.POINTER(ctypes.c_int32) * n)(
            *(ids.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)) for ids in self._sequences)
        )
        self.raw.n_tokens = n
        self.raw.token = ctypes.cast(self.tokens.ctypes.data, fields["token"])
        self.raw.pos = ctypes.cast(self.positions.ctypes.data, fields["pos"])
        self.raw.n_seq_id = ctypes.cast(self.counts.ctypes.data, fields["n_seq_id"])
        self.raw.seq_id = ctypes.cast(self._pointers, fields["seq_id"])
        self.raw.logits = ctypes.cast(self.flags.ctypes.data, fields["logits"])


class Recording:
    """Calls in their order, by what to do in the replay; handles are those of the recorded run.

    Attributes
    ----------
    n_tokens, n_decodes: what was decoded.
    n_outputs: of these tokens, those whose logits were asked for.
    """

    def __init__(self, library: Any, model: Any, n_vocab: int) -> None:
        self._library, self._model, self._n_vocab = library, model, n_vocab
        self._steps: list[Callable[[dict[Any, Any]], None]] = []
        self._kinds: list[str] = []
        self._checks: list[tuple[int, Any, int, np.ndarray]] = []
        self.n_tokens = self.n_decodes = self.n_outputs = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """While this lasts, calls of the bindings are recorded."""
        names = ["llama_init_from_model", "llama_get_memory", "llama_decode", "llama_free", *_ON_MEMORY]
        names.append("llama_get_logits_ith")
        originals = {name: getattr(self._library, name) for name in names}
        try:
            for name, original in originals.items():
                setattr(self._library, name, self._wrapped(name, original))
            yield
        finally:
            for name, original in originals.items():
                setattr(self._library, name, original)

    def _wrapped(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(first: Any, *rest: Any) -> Any:
            found = original(first, *rest)
            self._record(name, original, first, rest, found)
            return found

        return call

    def _record(self, name: str, original: Callable[..., Any], first: Any, rest: Any, found: Any) -> None:
        kind = MEMORY if name in _ON_MEMORY else CONTEXT
        if name == "llama_init_from_model":
            params = type(rest[0]).from_buffer_copy(rest[0])
            params.cb_eval = type(params.cb_eval)()  # the hook
            params.cb_eval_user_data = None

            def step(handles: dict[Any, Any]) -> None:
                handles[found] = original(self._model, params)
                assert handles[found]
        elif name == "llama_get_memory":

            def step(handles: dict[Any, Any]) -> None:
                handles[found] = original(handles[first])
        elif name == "llama_decode":
            batch = Batch(self._library, rest[0])
            self.n_tokens += len(batch.tokens)
            self.n_decodes += 1
            n_outputs = int(np.count_nonzero(batch.flags))
            self.n_outputs += n_outputs
            kind = ENDING if n_outputs else SHARED

            def step(handles: dict[Any, Any]) -> None:
                assert self._library.llama_decode(handles[first], batch.raw) == 0
        elif name == "llama_get_logits_ith":
            row = np.ctypeslib.as_array(found, shape=(self._n_vocab,)).copy()
            self._checks.append((len(self._steps), first, rest[0], row))
            return
        else:

            def step(handles: dict[Any, Any]) -> None:
                original(handles[first], *rest)

        self._steps.append(step)
        self._kinds.append(kind)

    def play(self) -> dict[str, float]:
        """Makes all the calls again. Returns the seconds that each kind of call took."""
        handles: dict[Any, Any] = {}
        taken = dict.fromkeys((CONTEXT, MEMORY, SHARED, ENDING), 0.0)
        for step, kind in zip(self._steps, self._kinds, strict=True):
            began = time.perf_counter()
            step(handles)
            taken[kind] += time.perf_counter() - began
        return taken

    def is_identical(self) -> bool:
        """Plays once more and tells whether all logits that the capture read have the same bits."""
        handles: dict[Any, Any] = {}
        checks = iter(self._checks)
        check = next(checks, None)
        for number, step in enumerate(self._steps):
            while check is not None and check[0] == number:
                _, context, row, logits = check
                pointer = self._library.llama_get_logits_ith(handles[context], row)
                if np.ctypeslib.as_array(pointer, shape=(self._n_vocab,)).tobytes() != logits.tobytes():
                    return False
                check = next(checks, None)
            step(handles)
        return check is None
