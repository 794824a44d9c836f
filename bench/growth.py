"""How the time of a whole capture grows: with the prompts on a small model, and with the model on a few prompts.

    python bench/growth.py [WORK_FOLDER] [--json FILE] [--repetitions N] [--quick]

Prompts: 100 to 10,000 of the bundled chat model's questions, each in up to five orders of its options, drawn by a seed
so that a larger set shares more. Models: random weights of 0.1B, 0.5B and 1B on the same 0-shot and 5-shot prompts.
Printed are seconds, distinct tokens and peak memory, and the exponent of the power law through them: of seconds in
distinct tokens, and of seconds in the weights that each token meets. Wanted: linear, so exponents of at most 1.05 and
1.1 (they are below 1 where what a run costs at least is a good part of a short one).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from questions import PromptSet, make_set, make_sets, permute
from sides import write_prompts
from timing import BENCH, Ratio, Taken, finish, make_parser, middle, run_side, say_machine, take_in_turn

from edgecal.data import read_data
from edgecal.prompts import Question
from models import ROOT, SHAPES, find_vocabulary, make_model

CHAT = ROOT / "models/edgecal-tiny-chat-Q8_0.gguf"
QUESTIONS = ROOT / "models/questions/unlabelled.jsonl"
N_ORDERS = 5
SIZES = [100, 316, 1_000, 3_162, 10_000]
WANTED_IN_TOKENS, WANTED_IN_WEIGHTS = 1.05, 1.1


def main() -> None:
    parser = make_parser(__doc__, repetitions=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--shape", nargs="+", default=list(SHAPES), choices=SHAPES)
    parser.add_argument("--kind", default="Q4_0")
    parser.add_argument(
        "--prompts", type=int, nargs=2, default=[24, 10], metavar="N", help="0-shot and 5-shot"
    )
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.sizes, arguments.shape, arguments.prompts = [100, 316], ["0.1B", "0.5B"], [4, 2]
        arguments.repetitions = 1
    say_machine(arguments.threads)
    ratios: list[Ratio] = []
    times: dict[str, list[Taken]] = {}
    for grow in (grow_prompts, grow_model):
        ratio, taken = grow(arguments)
        ratios.append(ratio)
        times |= taken
    finish(arguments.json, ratios, times, n_threads=arguments.threads, settings=arguments.settings)


def grow_prompts(arguments: Any) -> tuple[Ratio, dict[str, list[Taken]]]:
    questions = [each for each in read_data([QUESTIONS]).records if isinstance(each, Question)]
    every = make_set("all", CHAT, [permute(question, N_ORDERS) for question in questions])
    order = list(range(len(every.tokens)))
    random.Random(0).shuffle(order)
    sets = []
    for size in arguments.sizes:
        drawn = order[:size]
        sets.append(
            PromptSet(
                f"{len(drawn)} prompts",
                tuple(every.prompts[at] for at in drawn),
                tuple(every.tokens[at] for at in drawn),
            )
        )
    sides = {each.name: side(CHAT, each, arguments) for each in sets}
    taken = take_in_turn(sides, arguments.repetitions, warm_up=False)
    print(CHAT.name)
    for each in sets:
        show(each.name, each.n_distinct, taken[each.name])
    ratio = fit_exponent(
        "seconds in distinct tokens, exponent",
        [each.n_distinct for each in sets],
        [taken[each.name] for each in sets],
        WANTED_IN_TOKENS,
    )
    return ratio, taken


def grow_model(arguments: Any) -> tuple[Ratio, dict[str, list[Taken]]]:
    vocabulary = find_vocabulary(arguments.work_folder, arguments.source)
    n_zero, n_five = arguments.prompts
    zero, five, _ = make_sets(vocabulary, n_zero=n_zero, n_five=n_five, n_permuted=1, n_subjects=1)
    prompts = PromptSet("prompts", (), zero.tokens + five.tokens)
    sides = {
        shape: side(
            make_model(arguments.work_folder, shape, arguments.kind, arguments.source), prompts, arguments
        )
        for shape in arguments.shape
    }
    taken = take_in_turn(sides, arguments.repetitions, warm_up=not arguments.quick)
    print(f"random {arguments.kind} models on {n_zero} 0-shot and {n_five} 5-shot prompts")
    for shape, runs in taken.items():
        show(
            f"{shape} ({SHAPES[shape].n_block_weights / 1e6:.0f}M weights in blocks)",
            prompts.n_distinct,
            runs,
        )
    ratio = fit_exponent(
        "seconds for a token in the blocks' weights, exponent",
        [SHAPES[shape].n_block_weights for shape in taken],
        list(taken.values()),
        WANTED_IN_WEIGHTS,
    )
    return ratio, taken


def side(model: Path, prompts: PromptSet, arguments: Any) -> Callable[[], Taken]:
    path = arguments.work_folder / f"growth-{model.stem}-{len(prompts.tokens)}.jsonl"
    arguments.work_folder.mkdir(parents=True, exist_ok=True)
    write_prompts(path, prompts.tokens)
    options = ["--threads", arguments.threads, "--settings", arguments.settings]
    return partial(run_side, BENCH / "sides.py", "ours", model, path, *options)


def show(name: str, n_distinct: int, runs: Sequence[Taken]) -> None:
    time_s, peak = middle(runs), max(run.peak_bytes for run in runs)
    print(
        f"  {name}: {n_distinct:,} distinct tokens, {time_s:.2f} s, {1e6 * time_s / n_distinct:.1f} us each; "
        f"peak {peak / 1e6:.0f} MB",
        flush=True,
    )


def fit_exponent(name: str, sizes: Sequence[int], runs: Sequence[Sequence[Taken]], wanted: float) -> Ratio:
    """The slope of log seconds on log size, one for each repetition."""
    log_sizes = np.log(np.array(sizes, dtype=np.float64))
    values = []
    for repetition in zip(*runs, strict=True):
        log_times = np.log([run.time_s for run in repetition])
        values.append(float(np.polyfit(log_sizes, log_times, 1)[0]))
    ratio = Ratio(name, tuple(values), ("at most", wanted))
    print(f"  {ratio}", flush=True)
    return ratio


if __name__ == "__main__":
    main()
