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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from stored_pairs import FOLDER, Floats, StoredPair, read_pairs

from edgecal.calibration import Bracket, ChoiceLogits, Method, find_doubts, fit_bracket, fit_temperature
from edgecal.calibration.anchored import GRID_LN_TAU, Prior, combine, label_free_prior, label_losses
from edgecal.calibration.harm import MAX_RATIO
from edgecal.errors import NotIdentifiedError
from edgecal.evaluation.method_rows import DUAL_ALIGN_VARIANTS, hide_labels

N_POOL = 600
N_POOLS = 6
N_DRAWS = 15  # of labels from each pool
N_LABELS = (10, 20, 30, 50, 100, 200)
N_BOOTSTRAP = 200
VARIANTS = (Method("process"), *DUAL_ALIGN_VARIANTS)
N_VARIANT_POOLS = 2
MAX_DOUBT = 0.05
NEAR = math.log(1.15)  # right within 15 %
DEFAULT = "dual-align"
RATIOS, MASSES = (1.25, 1.5, 1.75, 2.0, 2.5, 3.0), (0.0, 0.8, 0.95)
LABEL_FREE = ("as it is", "dual-align", "daca", "naive", "low end", "middle", "prior")


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
                settled = fitted.doubt <= MAX_DOUBT and high - low <= math.log(MAX_RATIO)
                found[f"anchored {n}"].append(
                    jury.verdict(
                        math.log(fitted.temperature),
                        covered=float(low <= jury.ln_oracle <= high),
                        settled=float(settled),
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


BASES: dict[str, Callable[[StoredPair], Floats | None]] = {
    "as it is": _as_it_is,
    "content-free": _content_free,
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
    logits = hide_labels(pair.logits)
    logits = replace(logits, base_final=base.astype(np.float32), base_layers=None, chat_layers=None)
    low = fit_bracket(logits, n_bootstrap=0).low
    daca = _fit(logits, Method("daca"))
    return {
        "accuracy": float(pair.truth[np.arange(len(base)), base.argmax(axis=1)].mean()),
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


# The page.

INTRODUCTION = """# Methods, judged on {n} pairs

`python bench/methods.py --output docs/pairs.md` makes this page from the captured numbers in `bench/pairs/`: {small}
small pairs and {real} real ones, made by `make pairs`. Of each pair's questions {pool} are drawn as the prompts that a
user has and the rest judge, {pools} times; labels are drawn from each pool {draws} times.

- **error** is \\|ln(τ / right τ)\\|; 0.14 is 15 %. The right τ has the lowest negative log-likelihood (NLL) over all
  questions, by the known probabilities of the answers on small pairs and by labels on real ones.
- **harmful** is a τ with which the judging questions are less probable than with τ = 1 by more than two standard
  errors.
- "±" is a standard error over pairs.
- Methods and bounds were chosen on the *choosing* half, which the hash of a pair's name decides.
"""

BOUNDS = """## Bounds of "settled"

Each pool's result of dual-align, the default: what bounds on the bracket's ratio and on the base model's choice mass
let through and stop. "Good" is within 15 % of the right τ."""

NUISANCE = """## The base model as a nuisance

What a change of the base model's logits buys. "Batch prior" adds one bias for each choice (real pairs: for each
subject) so that the mean probabilities are uniform, or the chat model's. The last row uses labels and shows what a
known temperature of the base would be worth."""

BEHAVIOUR = """## Where post-training changed behaviour on purpose, does agreement still measure honesty?

"Right" is the chat model's accuracy on the questions where both models choose alike, and where they do not. AUROC is
the probability that a right answer has the higher score than a wrong one: 0.5 says nothing."""


def mean_of(values: Iterable[float]) -> tuple[float, float]:
    """Mean and standard error of the defined values; NaN where there are none."""
    array = np.array([value for value in values if not math.isnan(value)])
    if not array.size:
        return math.nan, math.nan
    return float(array.mean()), float(
        array.std(ddof=1) / math.sqrt(array.size)
    ) if array.size > 1 else math.nan


def show(values: Iterable[float], digits: int = 2, scale: float = 1.0) -> str:
    """ "mean ± standard error"."""
    mean, error = mean_of(values)
    if math.isnan(mean):
        return "–"
    return f"{scale * mean:.{digits}f}" + ("" if math.isnan(error) else f" ± {scale * error:.{digits}f}")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


Study = Mapping[str, Any]


def per_pair(study: Study, name: str, key: str) -> float:
    """The mean over a pair's pools (and draws) of one figure of one method; NaN if no pool has it."""
    values = [entry[key] for entry in study["found"][name] if key in entry]
    return float(np.mean(values)) if values else math.nan


def label_free_rows(studies: Sequence[Study]) -> Iterable[Sequence[str]]:
    for name in (*LABEL_FREE, *map(_title, VARIANTS)):
        errors = [per_pair(study, name, "error") for study in studies]
        entries = [entry for study in studies for entry in study["found"][name]]
        found = [entry for entry in entries if "error" in entry]
        if not found:
            continue
        yield (
            name,
            show(errors),
            f"{np.nanmax(errors):.2f}",
            f"{np.mean([entry['error'] <= NEAR for entry in found]):.0%}",
            show([per_pair(study, name, "ece_before") for study in studies], 1, 100),
            show([per_pair(study, name, "ece") for study in studies], 1, 100),
            show([per_pair(study, name, "nll") for study in studies], 3),
            f"{sum(per_pair(study, name, 'harmful') > 0.5 for study in studies)} of {len(studies)}",
            f"{np.mean(['missing' in entry for entry in entries]):.0%}",
        )


def bound_rows(studies: Sequence[Study]) -> Iterable[Sequence[str]]:
    """For each pair of bounds: how many of the pools' results are settled, and what they are worth."""
    for ratio in RATIOS:
        for mass in MASSES:
            settled, harmful, wrong, stopped, good = 0, 0, 0, 0, 0
            for study in studies:
                for bracket, entry in zip(study["brackets"], study["found"][DEFAULT], strict=True):
                    near = entry.get("error", math.inf) <= NEAR
                    ok = bracket["ratio"] <= ratio and bracket["mass"] >= mass and bracket["lost"] <= 0.05
                    ok = ok and "error" in entry
                    settled += ok
                    harmful += ok and entry["harmful"] > 0.0
                    wrong += ok and not near
                    good += near
                    stopped += near and not ok
            yield (
                f"{ratio:g}",
                f"{mass:g}",
                *(str(int(n)) for n in (settled, harmful, wrong, stopped, good)),
            )


def labelled_rows(studies: Sequence[Study]) -> Iterable[Sequence[str]]:
    for n in N_LABELS:
        ours, theirs = f"anchored {n}", f"supervised {n}"
        ratios = [per_pair(s, ours, "error") / per_pair(s, theirs, "error") for s in studies]
        worst = int(np.argmax(ratios))
        mean = mean_of(per_pair(s, ours, "error") for s in studies)[0]
        yield (
            str(n),
            show([per_pair(s, theirs, "error") for s in studies], 3),
            show([per_pair(s, ours, "error") for s in studies], 3),
            f"{mean / mean_of(per_pair(s, theirs, 'error') for s in studies)[0]:.2f}",
            f"{ratios[worst]:.2f} ({studies[worst]['name']})",
            *(show([per_pair(s, name, "ece") for s in studies], 1, 100) for name in (theirs, ours)),
            *(show([per_pair(s, name, "nll") for s in studies], 3) for name in (theirs, ours)),
            *(show([per_pair(s, name, "harmful") for s in studies], 1, 100) for name in (theirs, ours)),
            show([per_pair(s, ours, "covered") for s in studies], 0, 100),
        )


def settled_rows(studies: Sequence[Study]) -> Iterable[Sequence[str]]:
    for n in N_LABELS:
        entries = [entry for s in studies for entry in s["found"][f"anchored {n}"]]
        ours = [entry for entry in entries if entry["settled"]]
        if not ours:
            yield (str(n), "0 %", "–", "–", "–")
            continue
        yield (
            str(n),
            f"{len(ours) / len(entries):.0%}",
            f"{np.mean([entry['error'] <= NEAR for entry in ours]):.0%}",
            f"{np.mean([entry['harmful'] for entry in ours]):.2%}",
            f"{np.mean([entry['ece'] > entry['ece_before'] + 0.01 for entry in ours]):.2%}",
        )


def nuisance_rows(studies: Sequence[Study]) -> Iterable[Sequence[str]]:
    for name in BASES:
        chosen = [s["nuisance"][name] for s in studies if s["nuisance"][name] is not None]
        if chosen:
            columns = (
                show([c[key] for c in chosen], digits, scale)
                for key, digits, scale in (("accuracy", 1, 100), ("daca", 2, 1), ("low end", 2, 1))
            )
            missing = sum(math.isnan(c["low end"]) for c in chosen)
            yield (name, *columns, f"{missing} of {len(chosen)}")


def write_page(studies: Sequence[Study]) -> str:
    halves = {half: [s for s in studies if s["half"] == half] for half in ("choosing", "judging")}
    kinds = {kind: [s for s in studies if s["kind"] == kind] for kind in ("small", "real")}
    lines = [
        INTRODUCTION.format(
            n=len(studies),
            small=len(kinds["small"]),
            real=len(kinds["real"]),
            pool=N_POOL,
            pools=N_POOLS,
            draws=N_DRAWS,
        ),
        "## The pairs",
        "",
    ]
    head = (
        "pair",
        "half",
        "post-training",
        "right, base",
        "chat",
        "agree",
        "mass",
        "ECE of the chat model",
        "right τ",
        "ECE there",
        "base's own right τ",
    )
    lines += table(
        head,
        (
            (
                s["name"],
                s["half"],
                s["recipe"],
                *(f"{s['facts'][key]:.1%}" for key in ("accuracy_base", "accuracy_chat", "agreement")),
                f"{s['facts']['mass']:.2f}",
                f"{s['facts']['ece']:.1%}",
                f"{s['oracle']:.2f}",
                f"{s['facts']['ece_oracle']:.1%}",
                f"{s['facts']['oracle_base']:.2f}",
            )
            for s in studies
        ),
    )
    head = (
        "method",
        "error",
        "worst pair",
        "within 15 %",
        "ECE before, %",
        "ECE after, %",
        "NLL after",
        "harmful on",
        "no result",
    )
    for title, chosen in (*halves.items(), *kinds.items()):
        lines += [
            f"## Without labels: {title} ({len(chosen)} pairs)",
            "",
            *table(head, label_free_rows(chosen)),
        ]
    lines += ["## Error of each label-free method, pair by pair", ""]
    lines += table(
        ("pair", *LABEL_FREE, "low", "high"),
        (
            (
                s["name"],
                *(show([per_pair(s, name, "error")]) for name in LABEL_FREE),
                show([b["low"] if b["low"] is not None else math.nan for b in s["brackets"]]),
                show([b["high"] if b["high"] is not None else math.nan for b in s["brackets"]]),
            )
            for s in studies
        ),
    )
    lines += [BOUNDS, ""]
    for title, chosen in halves.items():
        lines += [
            f"### {title}",
            "",
            *table(
                (
                    "ratio at most",
                    "mass at least",
                    "settled",
                    "harmful let through",
                    "off by over 15 % let through",
                    "good ones stopped",
                    "good ones",
                ),
                bound_rows(chosen),
            ),
        ]
    head = (
        "labels",
        "error, supervised",
        "anchored",
        "ratio",
        "worst pair's ratio",
        "ECE, %: supervised",
        "anchored",
        "NLL: supervised",
        "anchored",
        "harmful, %: supervised",
        "anchored",
        "right τ in the 95 % interval, %",
    )
    for title, chosen in (*halves.items(), *kinds.items()):
        lines += [f"## With labels: {title}", "", *table(head, labelled_rows(chosen))]
        lines += table(
            ("labels", "settled", "of these within 15 %", "harmful", "ECE up by over a point"),
            settled_rows(chosen),
        )
    lines += ["## Ratio of the anchored error to the supervised one, pair by pair", ""]
    lines += table(
        ("pair", *(f"{n} labels" for n in N_LABELS)),
        (
            (
                s["name"],
                *(
                    f"{per_pair(s, f'anchored {n}', 'error') / per_pair(s, f'supervised {n}', 'error'):.2f}"
                    for n in N_LABELS
                ),
            )
            for s in studies
        ),
    )
    lines += [NUISANCE, ""]
    for title, chosen in kinds.items():
        lines += [
            f"### {title}",
            "",
            *table(
                ("the base's logits", "base right, %", "error of DACA", "of the low end", "low end missing"),
                nuisance_rows(chosen),
            ),
        ]
    lines += [
        BEHAVIOUR,
        "",
        *table(
            (
                "pair",
                "post-training",
                "agree",
                "chat right where they agree",
                "where they do not",
                "base right where they do not",
                "AUROC: the chat model's own confidence",
                "the base's probability of its choice",
                "agreement alone",
            ),
            (
                (
                    s["name"],
                    s["recipe"],
                    f"{s['facts']['agreement']:.1%}",
                    *(
                        f"{s['behaviour'][key]:.1%}"
                        for key in ("right_agree", "right_disagree", "base_right_disagree")
                    ),
                    *(f"{s['behaviour'][key]:.3f}" for key in ("auroc_own", "auroc_base", "auroc_agree")),
                )
                for s in studies
            ),
        ),
    ]
    return "\n".join(lines).rstrip() + "\n"


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
    page = write_page(studies)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(studies) + "\n", "utf-8")
    if arguments.output is None:
        print(page, end="")
    else:
        arguments.output.write_text(page, "utf-8")
    print(f"{len(pairs)} pairs in {time.monotonic() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
