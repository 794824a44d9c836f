"""Does the choice of questions of `edgecal label` bias the fit, and how many labels does it save?

    python bench/labelling.py [FILE.npz ...] [--repetitions N]

Simulated on arrays alone, in under a minute: the pairs in bench/pairs or the given files, which hold base_final,
chat_final, n_choices, labels and base_mass; if there are none, the bundled pair is captured. Each pair's labels are
asked for in many random orders, uniform and as `edgecal label` draws them, and ln tau is fitted on the first 20, 50 and
100: by the weighted likelihood alone, and anchored by the unlabelled questions. Errors are from the temperature that
all labels give, their means with standard errors. "unweighted" is the same choice without weights: what the bias would
be. "until" stops as the command does, at the first of 30, 40, ... labels with an interval narrow enough. "saves" is the
share of labels that the choice makes superfluous: from the variance of the weighted score, without simulation.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from edgecal.api import DEFAULT_RATIO
from edgecal.api.label_session import MIN_LABELS
from edgecal.calibration import ChoiceLogits
from edgecal.calibration.anchored import GRID_LN_TAU, combine, label_free_prior, label_losses, weigh_losses
from edgecal.calibration.labelling import LabelOrder, compute_label_sizes, draw_label_order

ROOT = Path(__file__).parents[1]
COUNTS = (20, 50, 100)
STEP = 10


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE.npz")
    parser.add_argument("--repetitions", type=int, default=400)
    arguments = parser.parse_args()
    started_s = time.perf_counter()
    files = arguments.files or sorted((ROOT / "bench/pairs").glob("*.npz"))
    pairs = [(path.stem, *read_pair(path)) for path in files] or [("bundled", *capture_bundled())]
    for name, logits, mass in pairs:
        simulate(name, logits, mass, arguments.repetitions)
    print(f"\n{arguments.repetitions} repetitions, {time.perf_counter() - started_s:.0f} s")


def read_pair(path: Path) -> tuple[ChoiceLogits, float]:
    with np.load(path) as held:
        labels, n_choices = (held[name].astype(np.int32) for name in ("labels", "n_choices"))
        logits = ChoiceLogits(held["base_final"], held["chat_final"], None, None, n_choices, labels)
        return logits, float(held["base_mass"].mean())


def capture_bundled() -> tuple[ChoiceLogits, float]:
    import edgecal

    prompts = edgecal.load_prompts(ROOT / "models/questions/test.jsonl")
    models = [ROOT / f"models/edgecal-tiny-{role}-Q8_0.gguf" for role in ("base", "chat")]
    captured = edgecal.capture(*models, prompts, layers=False)
    return captured.logits, captured.choice_mass["base"]


def simulate(name: str, logits: ChoiceLogits, mass: float, n_repetitions: int) -> None:
    known = np.flatnonzero(logits.labels >= 0)
    logits = logits.take(known)
    losses = label_losses(logits, np.arange(known.size))
    oracle = find_minimum(losses.sum(axis=0))
    prior = label_free_prior(logits, mass)
    fitted = combine(prior, np.zeros(GRID_LN_TAU.size), n_prompts=known.size, n_labelled=0)
    sizes = compute_label_sizes(logits, fitted.prior_temperature)
    at = int(np.argmin(np.abs(GRID_LN_TAU - oracle)))
    scores = losses[:, at + 1] - losses[:, at - 1]
    saved = 1.0 - (scores**2 / sizes).mean() / (scores**2).mean()
    print(
        f"\n{name}: {known.size} questions, oracle {np.exp(oracle):.2f}, without labels "
        f"{fitted.prior_temperature:.2f}; the choice saves {saved:.1%} of the labels"
    )
    print(
        f"  {'choice':<10} {'labels':>6}   {'likelihood: error':>18} {'sd':>5}   {'anchored: error':>16} {'sd':>5} "
        f"{'|error|':>7} {'ratio':>5} {'covered':>7}"
    )

    def fit(order: LabelOrder, n: int, *, weighted: bool = True) -> tuple[float, ...]:
        asked = losses[order.order[:n]]
        weights = 1.0 / order.inclusion_probabilities(n) if weighted else np.ones(n)
        total = weigh_losses(asked, weights)
        found = combine(prior, total, n_prompts=known.size, n_labelled=n)
        low, high = np.log(found.interval)
        error = np.log(found.temperature) - oracle
        return find_minimum(total) - oracle, error, high - low, float(low <= oracle <= high), n

    def until_narrow(order: LabelOrder) -> tuple[float, ...]:
        n = min(MIN_LABELS, known.size)
        while (found := fit(order, n))[2] > np.log(DEFAULT_RATIO) and n < known.size:
            n = min(n + STEP, known.size)
        return found

    equal = np.ones(known.size)
    for what, drawn, weighted in (
        ("uniform", equal, True),
        ("chosen", sizes, True),
        ("unweighted", sizes, False),
    ):
        orders = [draw_label_order(drawn, seed) for seed in range(n_repetitions)]
        for n in [count for count in COUNTS if count <= known.size]:
            show(what, f"{n}", [fit(order, n, weighted=weighted) for order in orders])
        if weighted:
            until = [until_narrow(order) for order in orders]
            mean = np.mean([found[-1] for found in until])
            show(what, f"~{mean:.0f}", until)
            show(f"{what} =", f"{mean:.0f}", [fit(order, round(mean)) for order in orders])


def show(choice: str, n: str, found: list[tuple[float, ...]]) -> None:
    alone, anchored, width, covered, _ = np.array(found).T
    error, beside = (f"{x.mean():+.3f} ± {x.std() / len(x) ** 0.5:.3f}" for x in (alone, anchored))
    print(
        f"  {choice:<10} {n:>6}   {error:>18} {alone.std():5.3f}   {beside:>16} {anchored.std():5.3f} "
        f"{np.abs(anchored).mean():7.3f} {np.exp(np.median(width)):5.2f} {covered.mean():7.1%}"
    )


def find_minimum(total: np.ndarray) -> float:
    """The ln tau with the least total loss on the grid, between its nodes by a parabola."""
    at = min(max(int(np.argmin(total)), 1), total.size - 2)
    left, middle, right = total[at - 1 : at + 2]
    bend = left - 2.0 * middle + right
    step = GRID_LN_TAU[1] - GRID_LN_TAU[0]
    return float(GRID_LN_TAU[at] + (step * (left - right) / (2.0 * bend) if bend > 0.0 else 0.0))


if __name__ == "__main__":
    main()
