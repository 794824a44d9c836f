"""Whole capture of 0-shot prompts, 5-shot prompts and permuted options, against llama.cpp and llama-cpp-python.

    python bench/prefill.py [WORK_FOLDER] [--json FILE] [--repetitions N] [--quick] [--shape 0.5B] [--kind Q4_0]

Ours gives logits and all hidden states. The peers give logits: (a) one llama_decode for each prompt, cache cleared;
(b) llama-cpp-python as it comes, which reuses what a prompt shares with the one before it, in file order; (c) the same
by the C API. The order is the best for (b) and (c) (subject by subject); `--order shuffled` shows another.

Printed are the tokens, the distinct tokens, and so the saving that is possible over (a); what is achieved of it
(wanted: at least 0.9); and that ours is never slower than (b).
"""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import numpy as np
from questions import PromptSet, make_sets
from sides import deviation, write_prompts
from timing import (
    BENCH,
    Ratio,
    Taken,
    finish,
    make_parser,
    middle,
    pair,
    run_side,
    say_machine,
    take_in_turn,
)

from models import SHAPES, find_vocabulary, make_model

WANTED_SHARE, WANTED_OVER_PYTHON = 0.9, 1.0
ALLOWED_DEVIATION = 0.2  # of the logits' spread; random weights magnify what kernels round differently
PEERS = {
    "each": "(a) one decode each",
    "llama-cpp-python": "(b) llama-cpp-python",
    "reuse": "(c) C API, reuse",
}


def main() -> None:
    parser = make_parser(__doc__, repetitions=5)
    parser.add_argument("--shape", default="0.5B", choices=SHAPES)
    parser.add_argument("--kind", default="Q4_0")
    parser.add_argument("--order", choices=("file", "shuffled"), default="file")
    parser.add_argument("--prompts", type=int, nargs=3, default=[32, 20, 8], metavar="N", help="of each set")
    parser.add_argument("--subjects", type=int, default=2, help="of the 5-shot prompts")
    parser.add_argument("--only", nargs="+", metavar="SET", help="0-shot, 5-shot, 'permuted options'")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.shape, arguments.prompts, arguments.subjects, arguments.repetitions = (
            "0.1B",
            [6, 4, 2],
            1,
            1,
        )
    work: Path = arguments.work_folder
    n_zero, n_five, n_permuted = arguments.prompts
    model = make_model(work, arguments.shape, arguments.kind, arguments.source)
    say_machine(arguments.threads)
    vocabulary = find_vocabulary(work, arguments.source)
    sets = make_sets(
        vocabulary, n_zero=n_zero, n_five=n_five, n_permuted=n_permuted, n_subjects=arguments.subjects
    )
    sets = [each for each in sets if arguments.only is None or each.name in arguments.only]
    ratios: list[Ratio] = []
    times: dict[str, list[Taken]] = {}
    for prompt_set in sets:
        path = write_prompts(work / "prefill-prompts.jsonl", _ordered(prompt_set, arguments.order))
        options = ["--threads", arguments.threads, "--settings", arguments.settings]
        sides = {
            way: partial(run_side, BENCH / "sides.py", way, model, path, *options) for way in ("ours", *PEERS)
        }
        taken = take_in_turn(sides, arguments.repetitions)
        ratios += compare(prompt_set, taken)
        times |= {f"{prompt_set.name}, {way}": runs for way, runs in taken.items()}
    finish(
        arguments.json,
        ratios,
        times,
        model=model.name,
        n_threads=arguments.threads,
        order=arguments.order,
        settings=arguments.settings,
        sets=[
            {
                "name": each.name,
                "n_prompts": len(each.tokens),
                "n_tokens": each.n_tokens,
                "n_distinct": each.n_distinct,
            }
            for each in sets
        ],
    )


def compare(prompt_set: PromptSet, taken: dict[str, list[Taken]]) -> list[Ratio]:
    """Prints and returns the ratios of one set, after seeing that all sides computed the same."""
    print(prompt_set.describe())
    ours = taken["ours"]
    found = []
    for way, name in PEERS.items():
        off = deviation(ours[0].said["logits"], taken[way][0].said["logits"])
        assert off < ALLOWED_DEVIATION, f"{name}: logits differ from ours by {off:.1%} of their spread"
        label = f"{prompt_set.name}, {name} / ours"
        wanted = ("at least", WANTED_OVER_PYTHON) if way == "llama-cpp-python" else None
        ratio = pair(label, taken[way], ours, wanted=wanted)
        found.append(ratio)
        rate = prompt_set.n_tokens / middle(taken[way])
        print(f"  {ratio}; {middle(taken[way]):.2f} s, {rate:.0f} tokens/s; logits differ by {off:.2%}")
        if way == "each":
            share = pair(
                f"{prompt_set.name}, achieved of the possible saving",
                taken[way],
                ours,
                wanted=("at least", WANTED_SHARE),
                scale=1 / prompt_set.possible_saving,
            )
            found.append(share)
            print(f"  {share}")
    time_s, peak = middle(ours), max(run.peak_bytes for run in ours)
    print(
        f"  ours: {time_s:.2f} s, {prompt_set.n_tokens / time_s:.0f} tokens/s, "
        f"{prompt_set.n_distinct / time_s:.0f} distinct; peak {peak / 1e6:.0f} MB",
        flush=True,
    )
    return found


def _ordered(prompt_set: PromptSet, order: str) -> list[np.ndarray]:
    tokens = list(prompt_set.tokens)
    if order == "shuffled":
        random.Random(0).shuffle(tokens)
    return tokens


if __name__ == "__main__":
    main()
