"""Every method and Dual-Align variant on labelled questions: fitted on 30 %, judged on 70 %, over several splits.

    python bench/methods.py [--pair BASE CHAT]... [--data FILE] [--splits N] [--variants] [--markdown]

Each model runs once over all questions; every method is fitted on the same captured logits. The label-free methods
are handed logits without labels. `ts` is the supervised oracle. Without options: the bundled pair, test questions.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from pathlib import Path

import numpy as np

import edgecal
from edgecal.calibration import ChoiceLogits, Method, fit_temperature
from edgecal.metrics import compute_accuracy, compute_ece, compute_nll, softmax_probs

MODELS = Path(__file__).parents[1] / "models"
SIMPLE = [Method("vanilla"), Method("naive"), Method("daca"), Method("process"), Method(), Method("ts")]
VARIANTS = [
    Method("dual-align", ise=ise, tau_scope=scope, combine=combine, lam=lam)
    for ise, scope, (combine, lam) in itertools.product(
        ("mixture", "mean"),
        ("all", "final"),
        (("stratified", None), ("divergence", None), ("sum", 0.1), ("sum", 0.3), ("sum", 1.0)),
    )
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pair", nargs=2, action="append", metavar=("BASE", "CHAT"))
    parser.add_argument("--data", default=str(MODELS / "questions/test.jsonl"))
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--variants", action="store_true", help="every Dual-Align variant instead of one")
    arguments = parser.parse_args()
    bundled = (MODELS / "edgecal-tiny-base-Q8_0.gguf", MODELS / "edgecal-tiny-chat-Q8_0.gguf")
    methods = SIMPLE if not arguments.variants else [*SIMPLE[:4], *VARIANTS, SIMPLE[-1]]
    prompts = edgecal.load_prompts(arguments.data)
    for base, chat in arguments.pair or [bundled]:
        captured = edgecal.capture(base, chat, prompts)
        print(
            f"\n{Path(base).name} and {Path(chat).name}, {len(prompts)} questions of {Path(arguments.data).name}, ",
            end="",
        )
        print(f"{arguments.splits} splits (30 % fit, 70 % evaluate)\n")
        print_pair(captured.logits)
        print("\n| method | temperature | ECE % | NLL | not identified |\n|---|---|---|---|---|")
        for method in methods:
            print(row(method, captured.logits, arguments.splits), flush=True)


def print_pair(logits: ChoiceLogits) -> None:
    """Prints what holds before any fit, on all questions."""
    rng = np.random.Generator(np.random.PCG64(0))
    figures = {}
    for role, final in (("base", logits.base_final), ("chat", logits.chat_final)):
        probs = softmax_probs(final, logits.n_choices, 1.0)
        figures[role] = probs.argmax(axis=1)
        ece = compute_ece(probs.max(axis=1), figures[role] == logits.labels)
        print(f"- {role}: accuracy {compute_accuracy(probs, logits.labels):.1%}, ECE {ece:.1%}, ", end="")
        print(f"NLL {compute_nll(probs, logits.labels):.3f}")
    gain = (figures["chat"] == logits.labels).astype(float) - (figures["base"] == logits.labels)
    means = gain[rng.integers(0, len(gain), (2000, len(gain)))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    print(f"- accuracy, chat less base: {gain.mean():+.1%} (paired 95 % interval {low:+.1%} to {high:+.1%})")
    print(f"- predictions differ on {np.mean(figures['base'] != figures['chat']):.1%}")


def row(method: Method, logits: ChoiceLogits, n_splits: int) -> str:
    """Fits and judges one method on every split; a line of the table with mean and standard deviation."""
    taus, eces, nlls, refused = [], [], [], []
    for seed in range(n_splits):
        order = np.random.Generator(np.random.PCG64(seed)).permutation(len(logits.labels))
        n_fit = round(0.3 * len(order))
        fit_part, judge_part = logits.take(order[:n_fit]), logits.take(order[n_fit:])
        if not method.needs_labels:
            fit_part = dataclasses.replace(fit_part, labels=np.full_like(fit_part.labels, -1))
        try:
            tau = fit_temperature(fit_part, method, n_bootstrap=200, seed=seed).temperature
        except edgecal.NotIdentifiedError as error:
            refused.append(str(error))
            continue
        probs = softmax_probs(judge_part.chat_final, judge_part.n_choices, tau)
        taus.append(tau)
        eces.append(100 * compute_ece(probs.max(axis=1), probs.argmax(axis=1) == judge_part.labels))
        nlls.append(compute_nll(probs, judge_part.labels))
    name = f"{method.name} {method.variant_text()}".strip()
    if not taus:
        return f"| {name} | – | – | – | {len(refused)} of {n_splits} |"
    cells = (
        f"{np.mean(values):.{digits}f} ± {np.std(values):.{digits}f}"
        for values, digits in ((taus, 2), (eces, 1), (nlls, 3))
    )
    return f"| {name} | {' | '.join(cells)} | {len(refused) or ''} |"


if __name__ == "__main__":
    main()
