"""A plain, slow way to run tiny models: one prompt at a time, blocks' outputs by a Python eval callback.

An independent witness for tests; the package's own capture is native and lives elsewhere. In this process:
a model that llama.cpp would abort on takes the tests with it.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray
from support.ggml_types import llama_lib_folder


@dataclass(frozen=True)
class TinyRun:
    """What one model said to n prompts.

    hidden: float32 [n, n_layer, n_streams * n_embd], the residual streams after each block at the last token,
    side by side; logits: float32 [n, n_vocab] at the last token; rows: int [n, n_layer], how many rows each block's
    tensor held when it was seen.
    """

    hidden: NDArray[np.float32]
    logits: NDArray[np.float32]
    rows: NDArray[np.int64]


@cache
def _ggml() -> ctypes.CDLL:
    lib = ctypes.CDLL(str(llama_lib_folder() / "libggml-base.so"))
    for name, result, arguments in (
        ("ggml_get_name", ctypes.c_char_p, [ctypes.c_void_p]),
        ("ggml_nrows", ctypes.c_int64, [ctypes.c_void_p]),
        ("ggml_nbytes", ctypes.c_size_t, [ctypes.c_void_p]),
        ("ggml_backend_tensor_get", None, [ctypes.c_void_p] * 2 + [ctypes.c_size_t] * 2),
    ):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


@contextlib.contextmanager
def quiet_llama() -> Iterator[None]:
    """Keep llama.cpp from writing to stderr."""

    @llama_cpp.llama_log_callback
    def nothing(_level: int, _text: bytes, _userdata: int) -> None:
        pass

    llama_cpp.llama_log_set(nothing, None)
    try:
        yield
    finally:
        llama_cpp.llama_log_set(ctypes.cast(None, llama_cpp.llama_log_callback), None)


def random_prompts(seed: int, n: int, n_vocab: int, n_tokens: int = 9) -> list[list[int]]:
    """n prompts of ordinary tokens, of n_tokens to n_tokens + 2 tokens."""
    rng = np.random.default_rng(seed)
    return [[int(t) for t in rng.integers(3, min(n_vocab, 250), n_tokens + i % 3)] for i in range(n)]


def run(
    path: Path | str,
    prompts: list[list[int]],
    n_ubatch: int = 64,
    *,
    node: str | None = "l_out",
    n_streams: int = 1,
    by_stream: bool = False,
) -> TinyRun:
    """Decode each prompt alone, logits at its last token only.

    The graph has the residual streams in tensors `<node>-<il>`: each token's `n_streams` one after the other, or
    with `by_stream` the first of all tokens, then the second of all, and so on. With node None they are not looked
    for, and `hidden` has no blocks.
    """
    ggml = _ggml()
    prefix = f"{node}-".encode()
    seen: dict[int, tuple[int, NDArray[np.float32]]] = {}

    def see(tensor: int, ask: bool, _userdata: int) -> bool:
        name = ggml.ggml_get_name(tensor)
        number = name[len(prefix) :]
        if not name.startswith(prefix) or not number.isdigit():
            return not ask
        if not ask:
            n_rows, n_bytes = ggml.ggml_nrows(tensor) // n_streams, ggml.ggml_nbytes(tensor)
            data = np.empty(n_bytes // 4, np.float32)
            ggml.ggml_backend_tensor_get(tensor, data.ctypes.data, 0, n_bytes)
            if n_rows:
                parts = data.reshape((n_streams, n_rows, -1) if by_stream else (1, n_rows, -1))
                seen[int(number)] = (n_rows, parts[:, -1].ravel())
        return True

    with contextlib.ExitStack() as stack:
        stack.enter_context(quiet_llama())
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = 0
        model: Any = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        assert model, f"llama.cpp does not load {path}"
        stack.callback(llama_cpp.llama_model_free, model)
        n_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        n_layer = llama_cpp.llama_model_n_layer(model)
        cp = llama_cpp.llama_context_default_params()
        cp.n_ctx, cp.n_batch, cp.n_ubatch, cp.n_threads, cp.n_threads_batch = 256, 256, n_ubatch, 1, 1
        cp.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        cp.cb_eval = callback = llama_cpp.ggml_backend_sched_eval_callback(see)
        context: Any = llama_cpp.llama_init_from_model(model, cp)
        assert context, f"no context for {path}"
        stack.callback(llama_cpp.llama_free, context)
        memory = llama_cpp.llama_get_memory(context)
        hidden, logits, rows = [], [], []
        for prompt in prompts:
            if memory:
                llama_cpp.llama_memory_clear(memory, True)
            seen.clear()
            tokens = (llama_cpp.llama_token * len(prompt))(*prompt)
            status = llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(tokens, len(prompt)))
            assert status == 0, f"llama_decode: {status}"
            logits.append(
                np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, -1), (n_vocab,)).copy()
            )
            blocks = range(0 if node is None else n_layer)
            missing = set(blocks) - set(seen)
            assert not missing, f"{path}: no {node} of blocks {sorted(missing)}"
            hidden.append([seen[il][1] for il in blocks])
            rows.append([seen[il][0] for il in blocks])
        del callback
    return TinyRun(np.array(hidden, np.float32), np.stack(logits), np.array(rows))
