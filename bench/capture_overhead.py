"""What capturing costs: a whole capture against plain decoding of the same tokens in the same packing.

    python bench/capture_overhead.py [WORK_FOLDER] [--json FILE] [--repetitions N] [--quick]

A capture's calls to llama.cpp's C API are recorded once (replay.py); the peer makes them again from copies: the same
contexts, sequences and decodes, without hidden states, hook, planning or results. So the ratio holds everything that
edgecal adds. Both run in one process, in turn, and share the loaded model, for a difference of a percent is less than
what two processes differ by. Rounds differ by more than a percent too, so the ratio that is judged is that of the least
times: of each decode, and of everything else, over all rounds; its range is that of leaving out one round. The median
of the rounds' ratios is shown in wall and in processor time, and whether all logits have the same bits. Wanted: at most
1.02.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from questions import make_sets
from replay import Recording
from sides import read_prompts, write_prompts
from timing import (
    BENCH,
    Ratio,
    Taken,
    finish,
    make_parser,
    peak_bytes,
    report,
    run_side,
    say_machine,
)

from models import SHAPES, find_vocabulary, make_model

WANTED = 1.02


def main() -> None:
    parser = make_parser(__doc__, repetitions=15)
    parser.add_argument("--shape", default="0.5B", choices=SHAPES)
    parser.add_argument("--kind", nargs="+", default=["Q4_0", "Q8_0"])
    parser.add_argument("--prompts", type=int, nargs=3, default=[12, 6, 3], metavar="N", help="of each set")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.shape, arguments.kind, arguments.repetitions = "0.1B", ["Q4_0"], 3
    say_machine(arguments.threads)
    work: Path = arguments.work_folder
    n_zero, n_five, n_permuted = arguments.prompts
    sets = make_sets(
        find_vocabulary(work, arguments.source),
        n_zero=n_zero,
        n_five=n_five,
        n_permuted=n_permuted,
        n_subjects=1,
    )
    ratios: list[Ratio] = []
    times: dict[str, list[Taken]] = {}
    for kind in arguments.kind:
        model = make_model(work, arguments.shape, kind, arguments.source)
        for prompt_set in sets:
            path = write_prompts(work / "overhead-prompts.jsonl", prompt_set.tokens)
            run = run_side(
                BENCH / "capture_overhead.py",
                "--side",
                model,
                path,
                arguments.threads,
                arguments.settings,
                arguments.repetitions,
            )
            name = f"{kind}, {prompt_set.name}"
            ratios += show(name, run)
            times[name] = [run]
    finish(
        arguments.json,
        ratios,
        times,
        shape=arguments.shape,
        n_threads=arguments.threads,
        settings=arguments.settings,
    )


def show(name: str, run: Taken) -> list[Ratio]:
    assert run.said["identical"], f"{name}: the hook changed a logit"
    n_tokens, seconds = run.said["n_tokens"], run.said["seconds"]
    least = tuple(
        one / other for one, other in zip(least_s(seconds["capture"]), least_s(seconds["plain"]), strict=True)
    )
    found = [Ratio(f"{name}, capture / plain decoding, least times", least, ("at most", WANTED))]
    for clock in ("wall", "processor"):
        pairs = zip(seconds["capture"][clock], seconds["plain"][clock], strict=True)
        values = tuple(capture / plain for capture, plain in pairs)
        found.append(Ratio(f"{name}, capture / plain decoding, {clock} time", values))
    print(
        f"{name}: {n_tokens} tokens in {run.said['n_decodes']} decodes, plain "
        f"{n_tokens / least_s(seconds['plain'])[0]:.0f} tokens/s, logits identical"
    )
    for ratio in found:
        print(f"  {ratio}", flush=True)
    return found


def least_s(seconds: dict[str, list[Any]]) -> list[float]:
    """The least seconds of each decode and of all else, added up; without each of the rounds in turn."""
    parts = np.column_stack(
        [seconds["decodes"], np.array(seconds["wall"]) - np.sum(seconds["decodes"], axis=1)]
    )
    rounds = range(len(parts))
    return [float(np.delete(parts, left_out, axis=0).min(axis=0).sum()) for left_out in rounds]


@contextlib.contextmanager
def timed_decodes(library: Any) -> Iterator[list[float]]:
    """The seconds of every llama_decode while this lasts."""
    original, seconds = library.llama_decode, []

    def decode(*arguments: Any) -> Any:
        began = time.perf_counter()
        found = original(*arguments)
        seconds.append(time.perf_counter() - began)
        return found

    library.llama_decode = decode
    try:
        yield seconds
    finally:
        library.llama_decode = original


def side(model_path: str, prompts_path: str, n_threads: str, settings: str, repetitions: str) -> None:
    from edgecal.llama.capture import capture
    from edgecal.llama.library import load_library
    from edgecal.llama.model import Model
    from edgecal.llama.settings import CaptureSettings

    prompts = read_prompts(Path(prompts_path))
    capture_settings = CaptureSettings(n_threads=int(n_threads), **json.loads(settings))
    seconds: dict[str, dict[str, list[Any]]] = {
        way: {"wall": [], "processor": [], "decodes": []} for way in ("capture", "plain")
    }
    began = time.perf_counter()
    with Model(model_path) as model:

        def run_capture() -> None:
            n = sum(len(chunk.indices) for chunk in capture(model, prompts, capture_settings, hidden=True))
            assert n == len(prompts)

        library = load_library()
        recording = Recording(library, model.handle, model.n_vocab)
        with recording.running():
            run_capture()
        assert recording.n_decodes, "edgecal's calls were not seen"
        identical = recording.is_identical()
        ways: list[tuple[str, Callable[[], object]]] = [("capture", run_capture), ("plain", recording.play)]
        for number in range(int(repetitions)):
            for way, work in ways if number % 2 else reversed(ways):
                with timed_decodes(library) as decodes:
                    wall, processor = time.perf_counter(), time.process_time()
                    work()
                    seconds[way]["wall"].append(time.perf_counter() - wall)
                    seconds[way]["processor"].append(time.process_time() - processor)
                seconds[way]["decodes"].append(decodes)
    report(
        time_s=time.perf_counter() - began,
        peak_bytes=peak_bytes(),
        seconds=seconds,
        identical=identical,
        n_tokens=recording.n_tokens,
        n_decodes=recording.n_decodes,
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--side"]:
        side(*sys.argv[2:])
    else:
        main()
