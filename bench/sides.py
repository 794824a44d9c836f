"""One side of a benchmark: runs prompts through a model, times it, and prints what it took.

    python bench/sides.py WAY MODEL PROMPTS [--threads N] [--settings JSON] [--no-flash-attn]

WAY is `ours` (edgecal's whole capture, hidden states included), `each` (llama.cpp's C API, one decode for each prompt,
cache cleared before it), `reuse` (the same, but what a prompt shares with the one before it stays in the cache) or
`llama-cpp-python` (its `Llama.generate`, which reuses likewise). All but `ours` run with llama.cpp's default settings,
in an environment that edgecal has not touched; `--no-flash-attn` changes that one of them for the C API. PROMPTS is a
file of JSON lines, the token ids of one prompt each.

What is timed is the work with a loaded model, making a context included where the side makes one. A few logits of each
prompt are printed too, so that who compares sides can see that they computed the same.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from timing import peak_bytes, report

# Tokens whose logits are printed.
CHECKED = 32
_CACHE_STEP = 256


def checked_tokens(n_vocab: int) -> np.ndarray:
    return np.linspace(0, min(n_vocab, 150_000) - 1, CHECKED).astype(np.int64)


def write_prompts(path: Path, prompts: Sequence[np.ndarray]) -> Path:
    path.write_text("".join(json.dumps(prompt.tolist()) + "\n" for prompt in prompts), "utf-8")
    return path


def read_prompts(path: Path) -> list[np.ndarray]:
    return [np.array(json.loads(line), dtype=np.int32) for line in path.read_text("utf-8").splitlines()]


def deviation(one: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> float:
    """Rms difference of two sides' logits as a share of their spread."""
    first, second = np.array(one), np.array(other)
    return float(np.sqrt(np.mean((first - second) ** 2)) / second.std())


def run_ours(
    path: Path,
    prompts: list[np.ndarray],
    n_threads: int,
    settings: dict[str, Any],
    more: Callable[[], dict[str, Any]] = dict,
) -> None:
    from edgecal.llama.capture import capture
    from edgecal.llama.model import Model
    from edgecal.llama.settings import CaptureSettings

    began = time.perf_counter()
    with Model(path) as model:
        loaded, loaded_processor = time.perf_counter(), time.process_time()
        ids = checked_tokens(model.n_vocab)
        seen: list[list[float]] = [[] for _ in prompts]
        for chunk in capture(model, prompts, CaptureSettings(n_threads=n_threads, **settings), hidden=True):
            assert chunk.hidden is not None
            for index, logits in zip(chunk.indices, chunk.logits, strict=True):
                seen[index] = logits[ids].tolist()
        ended, processor_s = time.perf_counter(), time.process_time() - loaded_processor
    assert all(seen)
    report(
        time_s=ended - loaded,
        processor_s=processor_s,
        load_s=loaded - began,
        peak_bytes=peak_bytes(),
        logits=seen,
        **more(),
    )


def run_plain(
    path: Path, prompts: list[np.ndarray], n_threads: int, *, reuse: bool, flash_attn: bool = True
) -> None:
    """llama.cpp's C API with its defaults; only the size of the context and the threads are set, and flash attention
    where it is to be off."""
    from llama_cpp import llama_cpp as bindings

    lib: Any = bindings
    quiet = lib.llama_log_callback(lambda _level, _text, _user: None)
    lib.llama_log_set(quiet, ctypes.c_void_p(0))
    lib.llama_backend_init()
    began = time.perf_counter()
    model_params = lib.llama_model_default_params()
    model_params.n_gpu_layers = 0
    model = lib.llama_model_load_from_file(str(path).encode(), model_params)
    n_vocab = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
    loaded, loaded_processor = time.perf_counter(), time.process_time()
    params = lib.llama_context_default_params()
    params.n_ctx = -(-max(map(len, prompts)) // _CACHE_STEP) * _CACHE_STEP
    params.n_threads = params.n_threads_batch = n_threads
    if not flash_attn:
        params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context = lib.llama_init_from_model(model, params)
    memory = lib.llama_get_memory(context)
    ids, seen = checked_tokens(n_vocab), []
    before, n_decoded = np.empty(0, dtype=np.int32), 0
    for prompt in prompts:
        shared = _n_shared(before, prompt) if reuse else 0
        if shared:
            lib.llama_memory_seq_rm(memory, 0, shared, -1)
        else:
            lib.llama_memory_clear(memory, False)
        rest = np.ascontiguousarray(prompt[shared:])
        for start in range(0, len(rest), params.n_batch):
            part = rest[start : start + params.n_batch]
            pointer = part.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
            status = lib.llama_decode(context, lib.llama_batch_get_one(pointer, len(part)))
            assert status == 0, status
        n_decoded += len(rest)
        logits = np.ctypeslib.as_array(lib.llama_get_logits_ith(context, -1), shape=(n_vocab,))
        seen.append(logits[ids].tolist())
        before = prompt
    ended, processor_s = time.perf_counter(), time.process_time() - loaded_processor
    report(
        time_s=ended - loaded,
        processor_s=processor_s,
        load_s=loaded - began,
        peak_bytes=peak_bytes(),
        n_decoded=n_decoded,
        logits=seen,
    )
    lib.llama_free(context)
    lib.llama_model_free(model)


def run_llama_cpp_python(path: Path, prompts: list[np.ndarray], n_threads: int) -> None:
    from llama_cpp import Llama

    began = time.perf_counter()
    n_ctx = max(512, max(map(len, prompts)) + 1)
    llama = Llama(str(path), n_ctx=n_ctx, n_threads=n_threads, n_threads_batch=n_threads, verbose=False)
    loaded = time.perf_counter()
    ids, seen = checked_tokens(llama.n_vocab()), []
    for prompt in prompts:
        generation = llama.generate(prompt.tolist(), temp=0.0)
        next(generation)  # the first token; what comes before it is the prompt's evaluation
        logits = np.ctypeslib.as_array(llama._ctx.get_logits_ith(-1), shape=(llama.n_vocab(),))
        seen.append(logits[ids].tolist())
        generation.close()
    ended = time.perf_counter()
    report(time_s=ended - loaded, load_s=loaded - began, peak_bytes=peak_bytes(), logits=seen)


def _n_shared(before: np.ndarray, prompt: np.ndarray) -> int:
    """Tokens at the beginning of both, but for the last of the prompt, which has to be run for its logits."""
    length = min(len(before), len(prompt) - 1)
    different = np.flatnonzero(before[:length] != prompt[:length])
    return int(different[0]) if len(different) else length


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("way", choices=("ours", "each", "reuse", "llama-cpp-python"))
    parser.add_argument("model", type=Path)
    parser.add_argument("prompts", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--settings", default="{}")
    parser.add_argument("--no-flash-attn", action="store_true", help="for the ways by the C API")
    arguments = parser.parse_args()
    prompts = read_prompts(arguments.prompts)
    if arguments.way == "ours":
        run_ours(arguments.model, prompts, arguments.threads, json.loads(arguments.settings))
    elif arguments.way == "llama-cpp-python":
        run_llama_cpp_python(arguments.model, prompts, arguments.threads)
    else:
        run_plain(
            arguments.model,
            prompts,
            arguments.threads,
            reuse=arguments.way == "reuse",
            flash_attn=not arguments.no_flash_attn,
        )


if __name__ == "__main__":
    main()
