"""Every method on every stored pair, without labels and with few: writes docs/pairs.md. No model runs; under a minute.

    python bench/methods.py [--output docs/pairs.md] [--pairs FOLDER] [--json FILE]

Of a pair's n questions, N_POOL are drawn as the prompts that a user has, and the others judge; N_POOLS times. From a
pool come the label-free temperatures, and draws of labels from it the supervised and the anchored ones. The right
temperature (the oracle) has the lowest negative log-likelihood over all n questions, by the known probabilities of the
answers where these are known, else by the labels.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pairs_page import write_page
from stored_pairs import FOLDER, Floats, StoredPair, read_pairs

from edgecal.calibration import Bracket, ChoiceLogits, Method, find_doubts, fit_bracket, fit_temperature
from edgecal.calibration.anchored import GRID_LN_TAU, Prior, combine, label_free_prior, label_losses
from edgecal.calibration.harm import holds_one
from edgecal.errors import NotIdentifiedError
from edgecal.evaluation.method_rows import DUAL_ALIGN_VARIANTS, hide_labels

N_POOL = 500
N_POOLS = 4
N_DRAWS = 15  # of labels from each pool
N_LABELS = (10, 20, 30, 50, 100, 200)
N_BOOTSTRAP = 200
VARIANTS = (Method("process"), *DUAL_ALIGN_VARIANTS)
N_VARIANT_POOLS = 1


@dataclass(frozen=True, eq=False)
class Judge:
    """Judges temperatures on some questions: `z` chat logits [n, K], padding -inf; `truth` [n, K] sums to 1."""

    z: Floats
    truth: Floats

    @classmethod
    def of(cls, pair: StoredPair, rows: Any = slice(None)) -> Judge:
        z = pair.arrays["chat_final"][rows].astype(np.float64)
        return cls(z - z.max(axis=1, keepdims=True), pair.truth[rows])

    def losses(self, tau: float) -> Floats:
        """The expected negative log-likelihood of each question, [n], in nats."""
        scaled = self.z / tau
        expected = np.where(self.truth > 0.0, scaled, 0.0)
        losses: Floats = np.log(np.exp(scaled).sum(axis=1)) - (self.truth * expected).sum(axis=1)
        return losses

    def ece(self, tau: float, n_bins: int = 10) -> float:
        """The calibration error of the largest probability; equal bins, open on the left."""
        powers = np.exp(self.z / tau)
        probs = powers / powers.sum(axis=1, keepdims=True)
        sure, right = probs.max(axis=1), self.truth[np.arange(len(probs)), probs.argmax(axis=1)]
        bins = np.clip(np.ceil(sure * n_bins).astype(int) - 1, 0, n_bins - 1)
        return float(np.abs(np.bincount(bins, right - sure, minlength=n_bins)).sum() / len(sure))

    def oracle(self) -> float:
        return math.exp(lowest(np.array([self.losses(tau).mean() for tau in np.exp(GRID_LN_TAU)])))


def lowest(losses: Floats) -> float:
    """ln tau of the lowest loss on GRID_LN_TAU, between its nodes by a parabola; an end of the range is possible."""
    at = int(np.argmin(losses))
    x, step = float(GRID_LN_TAU[at]), float(GRID_LN_TAU[1] - GRID_LN_TAU[0])
    if 0 < at < len(losses) - 1:
        before, here, after = losses[at - 1 : at + 2].tolist()
        bend = before - 2.0 * here + after
        x += 0.5 * step * (before - after) / bend if bend > 0.0 else 0.0
    return x


@dataclass(frozen=True, eq=False)
class Jury:
    """The questions that judge what was fitted on one pool."""

    judge: Judge
    ln_oracle: float

    @cached_property
    def before(self) -> tuple[Floats, float]:
        """Each question's NLL at tau = 1, and the ECE."""
        return self.judge.losses(1.0), self.judge.ece(1.0)

    def verdict(self, ln_tau: float | None, **more: float) -> dict[str, float]:
        """The figures of one temperature; None: the method found none."""
        if ln_tau is None:
            return {"missing": 1.0}
        tau, (losses, ece) = math.exp(ln_tau), self.before
        change = self.judge.losses(tau) - losses
        se = float(change.std(ddof=1)) / math.sqrt(len(change))
        return {
            "error": abs(ln_tau - self.ln_oracle),
            "ece": self.judge.ece(tau),
            "ece_before": ece,
            "nll": float((losses + change).mean()),
            "harmful": float(change.mean() > 2.0 * se),
            **more,
        }


def study(pair: StoredPair) -> dict[str, Any]:
    """All that there is to say of one pair."""
    whole = Judge.of(pair)
    oracle = whole.oracle()
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    brackets = []
    for seed in range(N_POOLS):
        order = np.random.default_rng([seed, 1]).permutation(pair.logits.n_prompts)
        pool, rest = np.sort(order[:N_POOL]), np.sort(order[N_POOL:])
        jury = Jury(Judge.of(pair, rest), math.log(oracle))
        logits = pair.logits.take(pool)
        mass = float(pair.arrays["base_mass"][pool].mean())
        unlabelled = hide_labels(logits)
        bracket = fit_bracket(unlabelled, n_bootstrap=N_BOOTSTRAP, seed=seed)
        prior = label_free_prior(unlabelled, mass)
        brackets.append(
            {
                "low": bracket.low,
                "high": bracket.high,
                "ratio": bracket.ratio,
                "lost": max(bracket.low_lost, bracket.high_lost),
                "mass": mass,
                "holds_one": holds_one(bracket),
                "settled": not find_doubts(bracket, mass),
            }
        )
        for name, ln_tau in _label_free(unlabelled, bracket, prior):
            found[name].append(jury.verdict(ln_tau))
        for method in VARIANTS if seed < N_VARIANT_POOLS else ():
            found[_title(method)].append(jury.verdict(_fit(unlabelled, method)))
        table = label_losses(logits, np.arange(N_POOL))
        for draw in range(N_DRAWS):
            shuffled = np.random.default_rng([seed, draw, 2]).permutation(N_POOL)
            for n in N_LABELS:
                losses = table[shuffled[:n]].sum(axis=0)
                found[f"supervised {n}"].append(jury.verdict(lowest(losses)))
                fitted = combine(prior, losses, n_prompts=N_POOL, n_labelled=n)
                low, high = np.log(fitted.interval).tolist()
                found[f"anchored {n}"].append(
                    jury.verdict(
                        math.log(fitted.temperature),
                        covered=float(low <= jury.ln_oracle <= high),
                        width=high - low,
                        doubt=fitted.doubt,
                    )
                )
    return {
        "name": pair.name,
        "kind": pair.kind,
        "half": pair.half,
        "recipe": pair.meta.get("recipe", ""),
        "oracle": oracle,
        "facts": _facts(pair, whole, oracle),
        "nuisance": {name: _yardsticks(pair, change) for name, change in BASES.items()},
        "behaviour": _behaviour(pair),
        "found": dict(found),
        "brackets": brackets,
    }


def _label_free(logits: ChoiceLogits, bracket: Bracket, prior: Prior) -> Iterator[tuple[str, float | None]]:
    """ln tau of each of LABEL_FREE."""
    low, high = (None if end is None else math.log(end) for end in (bracket.low, bracket.high))
    yield "as it is", 0.0
    for name in ("dual-align", "daca", "naive"):
        yield name, _fit(logits, Method(name))
    yield "low end", low
    yield "middle", None if low is None or high is None else (low + high) / 2.0
    nothing = np.zeros(GRID_LN_TAU.size)
    yield "prior", math.log(combine(prior, nothing, n_prompts=logits.n_prompts, n_labelled=0).temperature)


def _title(method: Method) -> str:
    return " ".join(
        option for option in (method.name, method.ise, method.tau_scope, method.combine) if option
    )


def _fit(logits: ChoiceLogits, method: Method) -> float | None:
    try:
        return math.log(fit_temperature(logits, method, n_bootstrap=0).temperature)
    except NotIdentifiedError:
        return None


def _facts(pair: StoredPair, judge: Judge, oracle: float) -> dict[str, float]:
    rows = np.arange(len(judge.truth))
    base, chat = (pair.arrays[f"{role}_final"] for role in ("base", "chat"))
    own = Judge(_shift(base), judge.truth)
    return {
        "accuracy_base": float(judge.truth[rows, base.argmax(axis=1)].mean()),
        "accuracy_chat": float(judge.truth[rows, chat.argmax(axis=1)].mean()),
        "agreement": float(pair.logits.agreement.mean()),
        "mass": pair.base_mass,
        "ece": judge.ece(1.0),
        "ece_oracle": judge.ece(oracle),
        "oracle_base": own.oracle(),
    }


# The base as a nuisance: what is done to the base model's logits before they serve as the yardstick.


def _shift(logits: npt.NDArray[np.floating]) -> Floats:
    z = logits.astype(np.float64)
    shifted: Floats = z - z.max(axis=1, keepdims=True)
    return shifted


def _probs(logits: Floats) -> Floats:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs: Floats = powers / powers.sum(axis=1, keepdims=True)
    return probs


def _as_it_is(pair: StoredPair) -> Floats:
    return _shift(pair.arrays["base_final"])


def _towards(pair: StoredPair, target: Callable[[Floats, Floats], Floats]) -> Floats:
    """The base's logits plus one bias for each choice and subject, so that mean probabilities are `target`'s."""
    base, chat = _shift(pair.arrays["base_final"]), _shift(pair.arrays["chat_final"])
    widths = pair.arrays["n_choices"]
    names = pair.arrays["subjects"] if pair.kind == "real" else np.zeros(len(widths), dtype=np.int8)
    for group in {(int(a), int(b)) for a, b in zip(names, widths, strict=True)}:
        rows, k = (names == group[0]) & (widths == group[1]), group[1]
        part = base[rows, :k]
        wanted = target(_probs(part), _probs(chat[rows, :k]))
        bias = np.zeros(k)
        for _ in range(100):
            bias += np.log(wanted) - np.log(_probs(part + bias).mean(axis=0))
        base[rows, :k] = part + bias
    return base


def _uniform_prior(pair: StoredPair) -> Floats:
    return _towards(pair, lambda base, chat: np.full(base.shape[1], 1.0 / base.shape[1]))


def _chat_prior(pair: StoredPair) -> Floats:
    return _towards(pair, lambda base, chat: chat.mean(axis=0))


def _content_free(pair: StoredPair) -> Floats | None:
    """Less the mean log-probabilities on prompts without content (Zhao et al. 2021, arXiv 2102.09690)."""
    free = pair.arrays.get("base_free")
    if free is None:
        return None
    base = _shift(pair.arrays["base_final"])
    counted = np.isfinite(base)
    groups = pair.arrays.get("free_subjects", np.zeros(len(free), dtype=np.int8))
    subjects = (
        pair.arrays["subjects"] if "free_subjects" in pair.arrays else np.zeros(len(base), dtype=np.int8)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        for group in np.unique(groups):
            mean = np.log(_probs(_shift(free[groups == group]))).mean(axis=0)
            rows = subjects == group
            base[rows] -= np.where(np.isfinite(mean), mean, 0.0)
    base[~counted] = -np.inf
    return base


def _own_temperature(pair: StoredPair) -> Floats:
    """With the temperature that labels give the base model: what no unlabelled prompt tells."""
    base = _shift(pair.arrays["base_final"])
    return base / Judge(base, pair.truth).oracle()


def _rotations(pair: StoredPair) -> Floats | None:
    """The log-mean over cyclic orders of the options, of the first questions; those without it are left out (NaN)."""
    rotated = pair.arrays.get("base_rotated")
    if rotated is None:
        return None
    base = np.full(pair.arrays["base_final"].shape, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        powers = np.exp(rotated - rotated.max(axis=2, keepdims=True, initial=-np.inf))
        probs = powers / powers.sum(axis=2, keepdims=True)
    orders = np.arange(rotated.shape[1])[None, :, None] < pair.arrays["n_choices"][: len(rotated), None, None]
    with np.errstate(divide="ignore"):
        base[: len(rotated)] = np.log(np.where(orders, probs, 0.0).sum(axis=1) / orders.sum(axis=1))
    return base


def _much_mass(pair: StoredPair) -> Floats:
    """Only the half of the questions on which the base model puts more of its probability on the choices."""
    base, mass = _shift(pair.arrays["base_final"]), pair.arrays["base_mass"]
    return np.where((mass >= np.median(mass))[:, None], base, np.nan)


BASES: dict[str, Callable[[StoredPair], Floats | None]] = {
    "as it is": _as_it_is,
    "content-free": _content_free,
    "mean over rotations (500 questions)": _rotations,
    "only prompts with much choice mass": _much_mass,
    "batch prior, uniform": _uniform_prior,
    "batch prior, the chat model's": _chat_prior,
    "own temperature (labels)": _own_temperature,
}


def _yardsticks(pair: StoredPair, change: Callable[[StoredPair], Floats | None]) -> dict[str, float] | None:
    """What DACA and the bracket's low end find with a changed base: errors, and the base's accuracy."""
    base = change(pair)
    if base is None:
        return None
    ln_oracle = math.log(Judge.of(pair).oracle())
    kept = ~np.isnan(base).any(axis=1)
    base, truth = base[kept], pair.truth[kept]
    logits = hide_labels(pair.logits.take(kept))
    logits = replace(logits, base_final=base.astype(np.float32), base_layers=None, chat_layers=None)
    low = fit_bracket(logits, n_bootstrap=0).low
    daca = _fit(logits, Method("daca"))
    return {
        "accuracy": float(truth[np.arange(len(base)), base.argmax(axis=1)].mean()),
        "daca": math.nan if daca is None else abs(daca - ln_oracle),
        "low end": math.nan if low is None else abs(math.log(low) - ln_oracle),
    }


def _behaviour(pair: StoredPair) -> dict[str, float]:
    """What agreement with the base model says of the chat model's answers, against its own confidence."""
    base, chat = pair.arrays["base_final"], pair.arrays["chat_final"]
    rows = np.arange(len(base))
    choice, agree = chat.argmax(axis=1), pair.logits.agreement
    right = pair.truth[rows, choice]
    by_base = _probs(_shift(base))[rows, choice]
    return {
        "right_agree": float(right[agree].mean()),
        "right_disagree": float(right[~agree].mean()) if not agree.all() else math.nan,
        "base_right_disagree": float(pair.truth[rows, base.argmax(axis=1)][~agree].mean())
        if not agree.all()
        else math.nan,
        "auroc_own": _auroc(_probs(_shift(chat)).max(axis=1), right),
        "auroc_base": _auroc(by_base, right),
        "auroc_agree": _auroc(agree.astype(float), right),
    }


def _auroc(score: Floats, right: Floats) -> float:
    """The probability that a right answer has the higher score, ties half; `right` in 0..1 are weights."""
    order = np.argsort(score, kind="stable")
    _, first, counts = np.unique(score[order], return_index=True, return_counts=True)
    good = np.add.reduceat(right[order], first)
    bad = counts - good
    below = np.concatenate([[0.0], np.cumsum(bad)[:-1]])
    return float((good * (below + bad / 2.0)).sum() / (good.sum() * bad.sum()))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=Path, default=FOLDER)
    parser.add_argument("--output", type=Path, help="write the page here instead of to stdout")
    parser.add_argument("--json", type=Path, help="write every figure of every pool and draw here")
    arguments = parser.parse_args()
    began = time.monotonic()
    pairs = read_pairs(arguments.pairs)
    if not pairs:
        parser.error(f"{arguments.pairs} holds no pairs; `make pairs` makes them")
    with ProcessPoolExecutor() as pool:
        studies = list(pool.map(study, pairs))
    counts = {"pool": N_POOL, "pools": N_POOLS, "draws": N_DRAWS}
    page = write_page(studies, N_LABELS, counts)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(studies) + "\n", "utf-8")
    if arguments.output is None:
        print(page, end="")
    else:
        arguments.output.write_text(page, "utf-8")
    print(f"{len(pairs)} pairs in {time.monotonic() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
