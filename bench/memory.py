"""Peak memory of a process that captures, against what llama.cpp has to hold.

    python bench/memory.py [WORK_FOLDER] [--json FILE] [--repetitions N] [--quick]

The bound is the model file, the weights that llama.cpp repacked, the keys and values that it caches, and 350 MB for
everything else: Python, NumPy, compute buffers, outputs and results. llama.cpp's log says how large its buffers are.
The peak is VmHWM, which counts the pages of the mapped file too. 5-shot prompts on models of 0.5B and 1B.
"""

from __future__ import annotations

import ctypes
import json
import re
import sys
from pathlib import Path
from typing import Any

from questions import make_sets
from sides import read_prompts, run_ours, write_prompts
from timing import BENCH, Ratio, Taken, finish, make_parser, run_side, say_machine

from models import SHAPES, find_vocabulary, make_model

REST_BYTES = 350e6
_BUFFER = re.compile(r"(\w+)\s+(model|KV|RS|compute|output)\s+buffer size\s*=\s*([\d.]+) MiB")
_NEW_CONTEXT = "llama_context: constructing"


def main() -> None:
    parser = make_parser(__doc__, repetitions=3)
    parser.add_argument("--shape", nargs="+", default=["0.5B", "1B"], choices=SHAPES)
    parser.add_argument("--kind", nargs="+", default=["Q4_0"])
    parser.add_argument("--prompts", type=int, default=20)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.shape, arguments.prompts, arguments.repetitions = ["0.1B"], 4, 1
    say_machine(arguments.threads)
    work: Path = arguments.work_folder
    vocabulary = find_vocabulary(work, arguments.source)
    _, five_shot, _ = make_sets(vocabulary, n_zero=1, n_five=arguments.prompts, n_permuted=1, n_subjects=2)
    prompts = write_prompts(work / "memory-prompts.jsonl", five_shot.tokens)
    print(five_shot.describe())
    ratios, times = [], {}
    for shape in arguments.shape:
        for kind in arguments.kind:
            model = make_model(work, shape, kind, arguments.source)
            side = [BENCH / "memory.py", "--side", model, prompts, arguments.threads, arguments.settings]
            runs = [run_side(*side) for _ in range(arguments.repetitions)]
            times[f"{shape} {kind}"] = runs
            ratios.append(compare(f"{shape} {kind}", model.stat().st_size, runs))
    finish(arguments.json, ratios, times, n_threads=arguments.threads, settings=arguments.settings)


def compare(name: str, file_bytes: int, runs: list[Taken]) -> Ratio:
    """Prints the sum and returns peak / bound of each run."""
    values = []
    for run in runs:
        held = run.said["buffers"]
        bound = file_bytes + held["repacked"] + held["cache"] + REST_BYTES
        values.append(run.peak_bytes / bound)
    parts = ", ".join(f"{what} {n_bytes / 1e6:.0f} MB" for what, n_bytes in held.items())
    ratio = Ratio(f"{name}, peak / bound", tuple(values), ("at most", 1.0))
    print(f"{name}: peak {max(run.peak_bytes for run in runs) / 1e6:.0f} MB; bound {bound / 1e6:.0f} MB")
    print(f"  file {file_bytes / 1e6:.0f} MB; by llama.cpp's log: {parts}\n  {ratio}", flush=True)
    return ratio


def sum_buffers(log: str) -> dict[str, float]:
    """Bytes of llama.cpp's buffers by its log: of contexts that came one after the other, the largest's."""
    loading, *contexts = log.split(_NEW_CONTEXT)
    found = {"repacked": 0.0, "cache": 0.0, "compute": 0.0, "outputs": 0.0}
    for name, what, size in _BUFFER.findall(loading):
        if what == "model" and name.endswith("REPACK"):
            found["repacked"] += float(size) * 2**20
    for context in contexts:
        sums = dict.fromkeys(("cache", "compute", "outputs"), 0.0)
        for _, what, size in _BUFFER.findall(context):
            kind = {"KV": "cache", "RS": "cache", "compute": "compute", "output": "outputs"}.get(what)
            if kind is not None:
                sums[kind] += float(size) * 2**20
        found |= {kind: max(found[kind], size) for kind, size in sums.items()}
    return found


def side(model: str, prompts: str, n_threads: str, settings: str) -> None:
    """Captures as `sides.py ours` does, and reads llama.cpp's log meanwhile."""
    from edgecal.llama.library import load_library

    library: Any = load_library()
    lines: list[bytes] = []
    listener = library.llama_log_callback(lambda _level, text, _user: lines.append(text or b""))
    library.llama_log_set(listener, ctypes.c_void_p(0))
    library.llama_log_set = lambda *_: None  # edgecal takes its log back before each step
    run_ours(
        Path(model),
        read_prompts(Path(prompts)),
        int(n_threads),
        json.loads(settings),
        lambda: {"buffers": sum_buffers(b"".join(lines).decode("utf-8", "replace"))},
    )


if __name__ == "__main__":
    if "--side" in sys.argv:
        side(*sys.argv[2:])
    else:
        main()
