"""Time to a temperature that is known to 5 %, against 1,000 prompts one after the other.

    python bench/time_to_temperature.py [WORK_FOLDER] [--json FILE] [--repetitions N] [--quick]

Prompts needed: `edgecal fit` on the bundled pair stops by itself when its 95 % interval is within 5 % (`--tolerance
0.05`), in a few random orders of the questions; the median counts. Seconds for a prompt: whole capture of 5-shot
prompts on the random 0.5B model. The peer runs 1,000 prompts, each by one llama_decode with the cache cleared, at the
seconds for a prompt that it takes for the same 5-shot prompts. (A pair is two models on either side, which cancels.)
Wanted: at least 6 times faster.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from functools import partial
from pathlib import Path

from questions import make_sets
from sides import write_prompts
from timing import BENCH, finish, make_parser, middle, pair, run_side, say_machine, skip, take_in_turn

from models import ROOT, SHAPES, find_vocabulary, make_model

BASE, CHAT = (ROOT / f"models/edgecal-tiny-{role}-Q8_0.gguf" for role in ("base", "chat"))
QUESTIONS = ROOT / "models/questions/unlabelled.jsonl"
N_PEER = 1_000
WANTED = 6.0


def main() -> None:
    parser = make_parser(__doc__, repetitions=5)
    parser.add_argument("--shape", default="0.5B", choices=SHAPES)
    parser.add_argument("--kind", default="Q4_0")
    parser.add_argument("--tolerance", type=float, default=0.05)
    parser.add_argument("--seeds", type=int, default=5, help="orders of the questions")
    parser.add_argument("--prompts", type=int, default=20, help="5-shot prompts that are timed")
    parser.add_argument("--subjects", type=int, default=2, help="of those prompts")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.shape, arguments.prompts, arguments.seeds, arguments.repetitions = "0.1B", 4, 1, 1
    work: Path = arguments.work_folder
    os.environ["EDGECAL_CACHE_DIR"] = str(work / "cache")  # not the user's
    if "--tolerance" not in run_edgecal("fit", "--help"):
        skip("this edgecal has no adaptive stopping (`edgecal fit --tolerance`)")
    say_machine(arguments.threads)
    needed = [count_needed(arguments.tolerance, seed) for seed in range(arguments.seeds)]
    n_needed = statistics.median(needed)
    print(
        f"prompts needed for {arguments.tolerance:.0%} at 95 %: {n_needed:.0f} (from {min(needed)} to {max(needed)} "
        f"in {len(needed)} orders)"
    )
    model = make_model(work, arguments.shape, arguments.kind, arguments.source)
    _, five_shot, _ = make_sets(
        find_vocabulary(work, arguments.source),
        n_zero=1,
        n_five=arguments.prompts,
        n_permuted=1,
        n_subjects=arguments.subjects,
    )
    print(five_shot.describe())
    path = write_prompts(work / "temperature-prompts.jsonl", five_shot.tokens)
    options = ["--threads", arguments.threads, "--settings", arguments.settings]
    sides = {
        way: partial(run_side, BENCH / "sides.py", way, model, path, *options) for way in ("ours", "each")
    }
    taken = take_in_turn(sides, arguments.repetitions, warm_up=not arguments.quick)
    for way, n, name in (("ours", n_needed, "ours"), ("each", N_PEER, "one decode each")):
        each_s = middle(taken[way]) / len(five_shot.tokens)
        print(f"  {name}: {n:.0f} prompts x {each_s:.3f} s = {n * each_s:.0f} s")
    ratio = pair(
        "time to temperature, 1,000 prompts one by one / ours",
        taken["each"],
        taken["ours"],
        wanted=("at least", WANTED),
        scale=N_PEER / n_needed,
    )
    print(f"  {ratio}")
    finish(
        arguments.json,
        [ratio],
        taken,
        model=model.name,
        n_threads=arguments.threads,
        settings=arguments.settings,
        tolerance=arguments.tolerance,
        n_needed=needed,
    )


def count_needed(tolerance: float, seed: int) -> int:
    """Prompts after which `edgecal fit` on the bundled pair stopped."""
    options = [
        "--data",
        QUESTIONS,
        "--tolerance",
        tolerance,
        "--seed",
        seed,
        "--dry-run",
        "--json",
        "--quiet",
    ]
    return int(json.loads(run_edgecal("fit", BASE, CHAT, *options))["n_prompts"])


def run_edgecal(*arguments: object) -> str:
    command = [sys.executable, "-m", "edgecal", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"{' '.join(command)} ended with {result.returncode}: {result.stderr.strip()}")
    return result.stdout


if __name__ == "__main__":
    main()
