"""Whole capture against llama-perplexity's multiple-choice mode: the same questions, whole processes, loading included.

    python bench/perplexity.py [WORK_FOLDER] [--json FILE] [--repetitions N] [--quick] [--bin FOLDER]

Ours reads the prompts, tokenizes them, captures logits and all hidden states, and picks an answer; the peer
is given the same prompts, each letter as a continuation, and picks the likeliest. It runs as it comes, one question
at a time (with `-np 5` where a question has five options, since it stops there else), and with `-np 32 -c 64`, which
lets it decode several at once. That both choose the same letters is checked. Wanted: faster.

The program is built from llama.cpp's source with its default settings (10 minutes on 2 cores, once); see models.py for
SOURCE. `--bin` is a folder with a llama-perplexity that is there already.
"""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
from questions import PromptSet, make_sets
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

from edgecal.data import read_data
from edgecal.prompts import Prompt
from models import ROOT, SHAPES, find_vocabulary, make_model

PROGRAM = "llama-perplexity"
WANTED = 1.0
N_PARALLEL = 4  # the program's default
PEERS: dict[str, tuple[str, ...]] = {"as it comes": (), "-np 32 -c 64": ("-np", "32", "-c", "64")}
ALLOWED_OTHERS = 0.1  # of the letters: near ties fall either way with other kernels
_TALLY = re.compile(r"^(\d+)\t([\d.]+)$", re.MULTILINE)


def main() -> None:
    parser = make_parser(__doc__, repetitions=5)
    parser.add_argument("--shape", default="0.5B", choices=SHAPES)
    parser.add_argument("--kind", default="Q4_0")
    parser.add_argument(
        "--prompts", type=int, nargs=2, default=[48, 16], metavar="N", help="0-shot and 5-shot"
    )
    parser.add_argument("--bin", type=Path, help="the folder of a llama-perplexity instead of building one")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.shape, arguments.prompts, arguments.repetitions = "0.1B", [6, 4], 1
    work: Path = arguments.work_folder
    program = (arguments.bin or build_program(work, arguments.source, arguments.jobs)) / PROGRAM
    model = make_model(work, arguments.shape, arguments.kind, arguments.source)
    say_machine(arguments.threads)
    n_zero, n_five = arguments.prompts
    sets = make_sets(
        find_vocabulary(work, arguments.source), n_zero=n_zero, n_five=n_five, n_permuted=1, n_subjects=2
    )[:2]
    ratios: list[Ratio] = []
    times: dict[str, list[Taken]] = {}
    for prompt_set in sets:
        print(prompt_set.describe())
        lines, tasks = work / "perplexity-prompts.jsonl", work / "perplexity-tasks.bin"
        write_lines(lines, prompt_set)
        write_tasks(tasks, prompt_set)
        ours = [model, lines, arguments.threads, arguments.settings]
        sides = {"ours": partial(run_side, BENCH / "perplexity.py", "--side", *ours)}
        n_choices = max(len(labels(prompt)) for prompt in prompt_set.prompts)
        for name, options in PEERS.items():
            options = options or ("-np", str(max(n_choices, N_PARALLEL)))
            sides[name] = partial(run_program, program, model, tasks, arguments.threads, options)
        taken = take_in_turn(sides, arguments.repetitions, warm_up=not arguments.quick)
        for name in PEERS:
            check_same(prompt_set, taken["ours"][0], taken[name][0])
            ratio = pair(
                f"{prompt_set.name}, {PROGRAM} {name} / ours",
                taken[name],
                taken["ours"],
                wanted=("at least", WANTED),
                of=lambda run: run.process_s,
            )
            ratios.append(ratio)
            seconds = [middle(taken[side], lambda run: run.process_s) for side in (name, "ours")]
            print(f"  {ratio}; {seconds[0]:.2f} s against {seconds[1]:.2f} s", flush=True)
        times |= {f"{prompt_set.name}, {name}": runs for name, runs in taken.items()}
    finish(
        arguments.json,
        ratios,
        times,
        model=model.name,
        n_threads=arguments.threads,
        settings=arguments.settings,
    )


def build_program(work: Path, source: Path | None, jobs: int) -> Path:
    """The folder of the built program, with llama.cpp's own default of threads."""
    sys.path.insert(0, str(ROOT / "tests/tools"))
    from building import build, find_source

    print(f"building {PROGRAM} in {work}, unless it is there", flush=True)
    return build(find_source(source, work), work / "llama.cpp", jobs, (PROGRAM,), openmp=True)


def write_lines(path: Path, prompt_set: PromptSet) -> None:
    """The prompts as edgecal reads them."""
    records = (
        {"prompt": each.text, "labels": [f" {label}" for label in labels(each)]}
        for each in prompt_set.prompts
    )
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")


def write_tasks(path: Path, prompt_set: PromptSet) -> None:
    """llama-perplexity's form: the number of tasks, where each begins, and the tasks. A task is a text and two lists
    of answers, each a number, texts and as many flags; the second list is not used. A text is its length and bytes;
    numbers are 32 bits."""
    tasks = []
    for prompt in prompt_set.prompts:
        answers = labels(prompt)
        flags = [int(at == right(prompt)) for at in range(len(answers))]
        once = struct.pack("<I", len(answers)) + b"".join(map(_text, answers))
        once += struct.pack(f"<{len(flags)}i", *flags)
        tasks.append(_text(prompt.text or "") + once + struct.pack("<I", 0))
    start = 4 + 4 * len(tasks)
    starts = start + np.cumsum([0, *map(len, tasks[:-1])])
    path.write_bytes(struct.pack(f"<{1 + len(tasks)}I", len(tasks), *starts) + b"".join(tasks))


def _text(text: str) -> bytes:
    return struct.pack("<I", len(text.encode())) + text.encode()


def labels(prompt: Prompt) -> tuple[str, ...]:
    return prompt.labels or ()


def right(prompt: Prompt) -> int:
    assert prompt.answer is not None
    return prompt.answer


def run_program(program: Path, model: Path, tasks: Path, n_threads: int, options: tuple[str, ...]) -> Taken:
    command = [program, "-m", model, "--multiple-choice", "-bf", tasks, "-t", n_threads, *options]
    began = time.perf_counter()
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    process_s = time.perf_counter() - began
    tallies = _TALLY.findall(result.stdout)
    if result.returncode or not tallies:
        sys.exit(f"{' '.join(map(str, command))} ended with {result.returncode}:\n{result.stderr[-3000:]}")
    n_done, share = tallies[-1]
    return Taken(
        process_s, process_s, 0, {"n_right": round(int(n_done) * float(share) / 100), "n": int(n_done)}
    )


def check_same(prompt_set: PromptSet, ours: Taken, peer: Taken) -> None:
    """Both have answered all questions, and as often as the other with the letter that was drawn as right."""
    drawn = [right(prompt) for prompt in prompt_set.prompts]
    n_right = sum(chosen == answer for chosen, answer in zip(ours.said["chosen"], drawn, strict=True))
    others = abs(n_right - peer.said["n_right"])
    assert peer.said["n"] == len(drawn), f"{PROGRAM} did {peer.said['n']} of {len(drawn)} questions"
    assert others <= max(1, ALLOWED_OTHERS * len(drawn)), (
        f"{n_right} right, by {PROGRAM} {peer.said['n_right']}"
    )


def side(model_path: str, lines: str, n_threads: str, settings: str) -> None:
    """Ours, from the questions' file to the chosen letters."""
    from edgecal.llama.capture import capture
    from edgecal.llama.model import Model
    from edgecal.llama.settings import CaptureSettings
    from edgecal.llama.tokenizer import Tokenizer

    began = time.perf_counter()
    with Model(model_path) as model:
        tokenizer = Tokenizer(model.vocab, model.n_vocab, model_path)
        prompts = [each for each in read_data([lines]).records if isinstance(each, Prompt)]
        resolved = [tokenizer.resolve(prompt) for prompt in prompts]
        chosen = [-1] * len(resolved)
        capture_settings = CaptureSettings(n_threads=int(n_threads), **json.loads(settings))
        for chunk in capture(model, [each.tokens for each in resolved], capture_settings, hidden=True):
            for index, logits in zip(chunk.indices, chunk.logits, strict=True):
                chosen[index] = int(logits[resolved[index].choice_tokens].argmax())
    report(time_s=time.perf_counter() - began, peak_bytes=peak_bytes(), chosen=chosen)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--side"]:
        side(*sys.argv[2:])
    else:
        main()
