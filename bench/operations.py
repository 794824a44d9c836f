"""What a token's time consists of in plain llama_decode: milliseconds for each kind of operation, by way and depth.

    python bench/operations.py [WORK_FOLDER] [--json FILE] [--repetitions N] [--quick] [--shape 0.5B] [--kind Q4_0]

Each way is one decode of some rows behind some tokens, with llama.cpp's defaults but for what its name says; the four
sequences have a stream of the cache each, as edgecal's prompts have. An eval callback that asks for every tensor lets
llama.cpp compute them one by one, and the time from question to answer is the operation's. The least of all repetitions
is shown, since what disturbs a run only ever adds to it; the ways are run in turn. Threads spin while they wait.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from timing import finish, make_parser, report, run_side, say_machine

from models import SHAPES, make_model

N_CTX, N_OUTPUTS = 512, 1
N_SHOWN = 12


@dataclass(frozen=True)
class Way:
    """A decode of `n_rows` of each of `n_sequences`, each behind `depth` tokens."""

    name: str
    flash_attn: bool
    n_sequences: int
    depth: int
    n_rows: int


WAYS = (
    Way("400 behind 0", True, 1, 0, 400),
    Way("80 behind 0", True, 1, 0, 80),
    Way("80 behind 0, no flash attention", False, 1, 0, 80),
    Way("80 behind 320", True, 1, 320, 80),
    Way("80 behind 320, no flash attention", False, 1, 320, 80),
    Way("4 x 24 behind 376, no flash attention", False, 4, 376, 24),
    Way("4 x 80 behind 320, no flash attention", False, 4, 320, 80),
)


def main() -> None:
    parser = make_parser(__doc__, repetitions=9)
    parser.add_argument("--shape", default="0.5B", choices=SHAPES)
    parser.add_argument("--kind", default="Q4_0")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.shape, arguments.repetitions = "0.1B", 1
    work: Path = arguments.work_folder
    model = make_model(work, arguments.shape, arguments.kind, arguments.source)
    say_machine(arguments.threads)
    spinning = {"OMP_WAIT_POLICY": "active"}
    side = run_side(__file__, "time", model, arguments.threads, arguments.repetitions, environment=spinning)
    found: list[dict[str, float]] = side.said["ms"]
    print(
        "milliseconds for a row, in the order of the columns:", *(f"  {way.name}" for way in WAYS), sep="\n"
    )
    kinds = sorted(
        {kind for each in found for kind in each}, key=lambda kind: -max(ms.get(kind, 0.0) for ms in found)
    )
    for kind in kinds[:N_SHOWN]:
        print(f"  {kind:28}", *(f"{ms.get(kind, 0.0):7.3f}" for ms in found))
    print(
        f"  {'all others':28}",
        *(f"{sum(ms.get(kind, 0.0) for kind in kinds[N_SHOWN:]):7.3f}" for ms in found),
    )
    print(f"  {'together':28}", *(f"{sum(ms.values()):7.3f}" for ms in found), flush=True)
    finish(arguments.json, [], {"all": [side]}, model=model.name, n_threads=arguments.threads, ms=found)


def time_operations(model_path: str, n_threads: str, repetitions: str) -> None:
    """A side: for each way the least milliseconds a row of each kind of operation."""
    from edgecal.llama.library import find_function, load_library

    lib: Any = load_library()
    began = time.perf_counter()
    params = lib.llama_model_default_params()
    params.n_gpu_layers = 0
    model = lib.llama_model_load_from_file(model_path.encode(), params)
    timer = _Timer(lib, find_function("ggml_op_desc"), find_function("ggml_get_name"))
    contexts = [_make_context(lib, model, way, int(n_threads), timer) for way in WAYS]
    least: list[dict[str, float]] = [{} for _ in WAYS]
    for _ in range(int(repetitions) + 1):
        for way, context, known in zip(WAYS, contexts, least, strict=True):
            memory = lib.llama_get_memory(context)
            for sequence in range(way.n_sequences):
                lib.llama_memory_seq_rm(memory, sequence, way.depth, -1)
            timer.taken.clear()
            timer.is_on = True
            _decode(lib, context, way.n_sequences, way.depth, way.n_rows, n_outputs=N_OUTPUTS)
            timer.is_on = False
            for kind, seconds in timer.taken.items():
                ms = 1e3 * seconds / (way.n_sequences * way.n_rows)
                known[kind] = min(ms, known.get(kind, ms))
    report(time_s=time.perf_counter() - began, ms=least)


class _Timer:
    """Adds up seconds by kind of operation: a weight's name for multiplications, else what ggml calls it."""

    def __init__(self, lib: Any, describe: Any, name: Any) -> None:
        self.taken: dict[str, float] = defaultdict(float)
        self.is_on = False
        self._asked = 0.0
        for function in (describe, name):
            function.restype, function.argtypes = ctypes.c_char_p, [ctypes.c_void_p]
        self._describe, self._name = describe, name
        prototype = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_bool, ctypes.c_void_p)
        self._function = prototype(self._call)
        self.callback = lib.ggml_backend_sched_eval_callback(
            ctypes.cast(self._function, ctypes.c_void_p).value
        )

    def _call(self, tensor: int, ask: bool, _user: int) -> bool:
        if ask:
            self._asked = time.perf_counter()
            return self.is_on
        seconds = time.perf_counter() - self._asked
        kind = self._describe(tensor).decode()
        if kind == "MUL_MAT":
            kind += " " + self._name(tensor).decode().split("-")[0]
        self.taken[kind] += seconds
        return True


def _make_context(lib: Any, model: Any, way: Way, n_threads: int, timer: _Timer) -> Any:
    params = lib.llama_context_default_params()
    params.n_ctx, params.n_seq_max = N_CTX * way.n_sequences, way.n_sequences
    params.n_threads = params.n_threads_batch = n_threads
    params.kv_unified = False
    if not way.flash_attn:
        params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.cb_eval = timer.callback
    context = lib.llama_init_from_model(model, params)
    for sequence in range(way.n_sequences if way.depth else 0):
        _decode(lib, context, 1, 0, way.depth, n_outputs=0, first=sequence)
    return context


def _decode(
    lib: Any, context: Any, n_sequences: int, start: int, n_rows: int, *, n_outputs: int, first: int = 0
) -> None:
    """One decode of random tokens of several sequences, `n_outputs` outputs each."""
    tokens = np.random.default_rng(start + n_rows).integers(1000, 2000, (n_sequences, n_rows))
    batch = lib.llama_batch_init(tokens.size, 0, 1)
    batch.n_tokens = tokens.size
    for at, token in enumerate(tokens.ravel().tolist()):
        sequence, row = divmod(at, n_rows)
        batch.token[at], batch.pos[at] = token, start + row
        batch.n_seq_id[at], batch.seq_id[at][0] = 1, first + sequence
        batch.logits[at] = row >= n_rows - n_outputs
    assert lib.llama_decode(context, batch) == 0
    lib.llama_batch_free(batch)


if __name__ == "__main__":
    if sys.argv[1:2] == ["time"]:
        time_operations(*sys.argv[2:])
    else:
        main()
