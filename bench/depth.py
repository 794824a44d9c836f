"""Where the time of the 5-shot prompts goes: what plain llama_decode needs for a token at its depth, and what we add.

    python bench/depth.py [WORK_FOLDER] [--json FILE] [--repetitions N] [--quick] [--shape 0.5B] [--kind Q4_0]

A token costs more the more tokens it attends to, and prompts that share their beginnings have most of their own tokens
behind it. So tokens / distinct tokens is more than any order of decodes can save. The first table has the milliseconds
for a token of one plain decode at several depths. The second goes from what one decode for each whole prompt takes to
what ours takes, in steps that each change one thing, as shares of tokens / distinct tokens:

- the distinct tokens only, each prompt's own in one plain decode at their depth, llama.cpp's defaults: the limit;
- the same without flash attention;
- our packing, replayed by the C API (see replay.py) with flash attention, which gives up equal bits, and without;
- a whole capture.

The replays run in edgecal's environment, whose threads wait otherwise than llama.cpp's by default, and once in that of
llama.cpp. Below stand what kinds of calls the replay consists of, and the rows that are filled up.
"""

from __future__ import annotations

import ctypes
import json
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from questions import PromptSet, make_sets
from replay import Recording
from sides import read_prompts, write_prompts
from timing import (
    BENCH,
    Ratio,
    Taken,
    finish,
    make_parser,
    middle,
    pair,
    peak_bytes,
    report,
    run_side,
    say_machine,
    take_in_turn,
)

from models import SHAPES, find_vocabulary, make_model

# (tokens before, tokens of the decode); from deep to shallow, so that what comes before is still in the cache.
_DEPTHS = ((400, 80), (320, 80), (160, 80), (80, 80), (0, 80), (0, 400))
_N_CTX = 512
_SPINNING = {"OMP_WAIT_POLICY": "active"}
_FLASH = {"flash_attn": True}


def main() -> None:
    parser = make_parser(__doc__, repetitions=3)
    parser.add_argument("--shape", default="0.5B", choices=SHAPES)
    parser.add_argument("--kind", default="Q4_0")
    parser.add_argument("--set", default="5-shot", help="0-shot, 5-shot or permuted options")
    parser.add_argument("--prompts", type=int, nargs=3, default=[32, 20, 8], metavar="N", help="of each set")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.shape, arguments.prompts, arguments.repetitions = "0.1B", [6, 4, 2], 1
    work: Path = arguments.work_folder
    model = make_model(work, arguments.shape, arguments.kind, arguments.source)
    say_machine(arguments.threads)
    n_zero, n_five, n_permuted = arguments.prompts
    sets = make_sets(
        find_vocabulary(work, arguments.source),
        n_zero=n_zero,
        n_five=n_five,
        n_permuted=n_permuted,
        n_subjects=2 if n_five >= 20 else 1,
    )
    prompt_set = next(each for each in sets if each.name == arguments.set)
    depths = show_depths(model, arguments.threads, arguments.repetitions)
    # In the trie's order a prompt shares with the one before it all that it shares with any.
    prompts = sorted(prompt_set.tokens, key=lambda tokens: tokens.tolist())
    path = write_prompts(work / "depth-prompts.jsonl", prompts)
    settings = json.loads(arguments.settings)
    plain = partial(run_side, BENCH / "sides.py")
    replay = partial(run_side, __file__, "replay", model, path, arguments.threads)
    threads = ("--threads", arguments.threads)
    sides = {
        "each prompt whole": partial(plain, "each", model, path, *threads),
        "distinct tokens": partial(plain, "reuse", model, path, *threads),
        "the same, no flash attention": partial(plain, "reuse", model, path, *threads, "--no-flash-attn"),
        "our packing, flash attention": partial(replay, json.dumps(settings | _FLASH)),
        "our packing, threads that spin": partial(replay, json.dumps(settings), environment=_SPINNING),
        "our packing": partial(replay, json.dumps(settings)),
        "ours": partial(plain, "ours", model, path, *threads, "--settings", json.dumps(settings)),
    }
    taken = take_in_turn(sides, arguments.repetitions)
    ratios = show_steps(prompt_set, taken)
    finish(
        arguments.json,
        ratios,
        taken,
        model=model.name,
        n_threads=arguments.threads,
        depths=depths,
        parts=[dict(run.said["parts"]) for run in taken["our packing"]],
    )


def show_depths(model: Path, n_threads: int, repetitions: int) -> list[dict[str, Any]]:
    said = run_side(__file__, "depths", model, n_threads, repetitions).said["depths"]
    print("milliseconds (of processors) for a token of one plain decode: with flash attention, without")
    for each in said:
        columns = [f"{ms:6.3f} ({each['processor_ms'][way]:6.3f})" for way, ms in enumerate(each["ms"])]
        print(f"  {each['n_rows']:3} tokens behind {each['depth']:3}:", *columns, flush=True)
    return said


def show_steps(prompt_set: PromptSet, taken: dict[str, list[Taken]]) -> list[Ratio]:
    """Prints each way's share of the possible saving, and what our packing consists of."""
    print(prompt_set.describe())
    whole = taken["each prompt whole"]
    found = []
    for name, runs in taken.items():
        scale = 1 / prompt_set.possible_saving
        ratio = pair(name, whole, runs, scale=scale)
        of_processors = pair(f"{name}, processor time", whole, runs, of=_processor_s, scale=scale)
        found += [ratio, of_processors]
        print(
            f"  {ratio}; {middle(runs):.2f} s; processor time {of_processors.median:.3f}; "
            f"{middle(runs, _processor_s):.2f} s"
        )
    limit = pair("ours, of what the distinct tokens need", taken["distinct tokens"], taken["ours"])
    print(f"  {limit}")
    said = taken["our packing"][0].said
    parts = {
        kind: statistics.median(run.said["parts"][kind] for run in taken["our packing"])
        for kind in said["parts"]
    }
    total = sum(parts.values())
    print(
        "  our packing: " + ", ".join(f"{kind} {seconds / total:.1%}" for kind, seconds in parts.items()),
        f"\n  {said['n_decodes']} decodes of {said['n_tokens']:,} rows, "
        f"{said['n_tokens'] / prompt_set.n_distinct:.3f} of the distinct tokens, {said['n_outputs']} of them outputs",
        flush=True,
    )
    return [*found, limit]


def _processor_s(run: Taken) -> float:
    return float(run.said["processor_s"])


def replay(model_path: str, prompts_path: str, n_threads: str, settings: str) -> None:
    """A side: the calls of a capture made again, on a model that is loaded and warm."""
    from edgecal.llama.capture import capture
    from edgecal.llama.library import load_library
    from edgecal.llama.model import Model
    from edgecal.llama.settings import CaptureSettings

    prompts = read_prompts(Path(prompts_path))
    capture_settings = CaptureSettings(n_threads=int(n_threads), **json.loads(settings))
    with Model(model_path) as model:
        recording = Recording(load_library(), model.handle, model.n_vocab)
        with recording.running():
            for _ in capture(model, prompts, capture_settings, hidden=True):
                pass
        began_processor = time.process_time()
        parts = recording.play()
        processor_s = time.process_time() - began_processor
    report(
        time_s=sum(parts.values()),
        processor_s=processor_s,
        peak_bytes=peak_bytes(),
        parts=parts,
        n_tokens=recording.n_tokens,
        n_decodes=recording.n_decodes,
        n_outputs=recording.n_outputs,
    )


def depths(model_path: str, n_threads: str, repetitions: str) -> None:
    """A side: milliseconds for a token of plain decodes with one output, medians."""
    from llama_cpp import llama_cpp as bindings

    lib: Any = bindings
    quiet = lib.llama_log_callback(lambda _level, _text, _user: None)
    lib.llama_log_set(quiet, ctypes.c_void_p(0))
    lib.llama_backend_init()
    model_params = lib.llama_model_default_params()
    model_params.n_gpu_layers = 0
    model = lib.llama_model_load_from_file(model_path.encode(), model_params)
    tokens = np.random.default_rng(0).integers(1000, 2000, _N_CTX).astype(np.int32)
    contexts = []
    for kind in (lib.LLAMA_FLASH_ATTN_TYPE_ENABLED, lib.LLAMA_FLASH_ATTN_TYPE_DISABLED):
        params = lib.llama_context_default_params()
        params.n_ctx, params.n_threads, params.n_threads_batch = _N_CTX, int(n_threads), int(n_threads)
        params.flash_attn_type = kind
        contexts.append(lib.llama_init_from_model(model, params))

    def run(context: Any, start: int, stop: int) -> tuple[float, float]:
        part = np.ascontiguousarray(tokens[start:stop])
        pointer = part.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        began, began_processor = time.perf_counter(), time.process_time()
        assert lib.llama_decode(context, lib.llama_batch_get_one(pointer, len(part))) == 0
        wall, processor = time.perf_counter() - began, time.process_time() - began_processor
        return 1e3 * wall / len(part), 1e3 * processor / len(part)

    ms: dict[tuple[int, int, int], list[tuple[float, float]]] = {}
    began = time.perf_counter()
    for context in contexts:
        run(context, 0, _N_CTX)
    for _ in range(int(repetitions)):
        for depth, n_rows in _DEPTHS:
            for way, context in enumerate(contexts):
                lib.llama_memory_seq_rm(lib.llama_get_memory(context), 0, depth, -1)
                ms.setdefault((depth, n_rows, way), []).append(run(context, depth, depth + n_rows))
    report(
        time_s=time.perf_counter() - began,
        depths=[
            {
                "depth": depth,
                "n_rows": n_rows,
                **{
                    name: [statistics.median(each[at] for each in ms[depth, n_rows, way]) for way in (0, 1)]
                    for at, name in enumerate(("ms", "processor_ms"))
                },
            }
            for depth, n_rows in _DEPTHS
        ],
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["replay"]:
        replay(*sys.argv[2:])
    elif sys.argv[1:2] == ["depths"]:
        depths(*sys.argv[2:])
    else:
        main()
