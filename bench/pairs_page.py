"""Writes docs/pairs.md from what methods.py found."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

NEAR = math.log(1.15)  # right within 15 %
MAX_DOUBT = 0.05
RATIOS, MASSES = (1.25, 1.5, 1.75, 2.0, 2.5, 3.0), (0.0, 0.8)
ANCHORED_RATIOS = (1.5, 2.0, 3.0, math.inf)
LABEL_FREE = ("as it is", "dual-align", "daca", "naive", "low end", "middle", "prior")
DEFAULT = "dual-align"

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
let through and stop, and whether a bracket that holds 1 (with its ends' intervals) is allowed. "Good" is within 15 % of
the right τ. edgecal's are 1.5, 0.8 and refused."""

ANCHORED = """## Bounds of an anchored result

All pairs: results whose doubt is at most 5 % and whose 95 % interval has at most this ratio of its ends."""

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


def variants_of(studies: Sequence[Study]) -> list[str]:
    """The other variants of the losses that were fitted."""
    return (
        [name for name in studies[0]["found"] if name.startswith(("process", "dual-align "))]
        if studies
        else []
    )


def label_free_rows(studies: Sequence[Study]) -> Iterable[Sequence[str]]:
    for name in (*LABEL_FREE, *variants_of(studies)):
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
    """For each set of bounds: how many of the pools' results are settled, and what they are worth."""
    for ratio, mass, one in itertools.product(RATIOS, MASSES, (False, True)):
        settled, harmful, wrong, stopped, good = 0, 0, 0, 0, 0
        for study in studies:
            for bracket, entry in zip(study["brackets"], study["found"][DEFAULT], strict=True):
                near = entry.get("error", math.inf) <= NEAR
                ok = bracket["ratio"] <= ratio and bracket["mass"] >= mass and bracket["lost"] <= 0.05
                ok = ok and "error" in entry and not (one and bracket["holds_one"])
                settled += ok
                harmful += ok and entry["harmful"] > 0.0
                wrong += ok and not near
                good += near
                stopped += near and not ok
        counts = (settled, harmful, wrong, stopped, good)
        yield (f"{ratio:g}", f"{mass:g}", "refused" if one else "allowed", *(str(int(n)) for n in counts))


def labelled_rows(studies: Sequence[Study], n_labels: Sequence[int]) -> Iterable[Sequence[str]]:
    for n in n_labels if studies else ():
        ours, theirs = f"anchored {n}", f"supervised {n}"
        ratios = [per_pair(s, ours, "error") / per_pair(s, theirs, "error") for s in studies]
        worst = int(np.argmax(ratios))
        mean = mean_of(per_pair(s, ours, "error") for s in studies)[0]
        yield (
            str(n),
            show([per_pair(s, theirs, "error") for s in studies], 3),
            show([per_pair(s, ours, "error") for s in studies], 3),
            f"{mean / mean_of(per_pair(s, theirs, 'error') for s in studies)[0]:.2f}",
            f"{np.mean(ratios):.2f}",
            f"{ratios[worst]:.2f} ({studies[worst]['name']})",
            *(show([per_pair(s, name, "ece") for s in studies], 1, 100) for name in (theirs, ours)),
            *(show([per_pair(s, name, "nll") for s in studies], 3) for name in (theirs, ours)),
            *(show([per_pair(s, name, "harmful") for s in studies], 1, 100) for name in (theirs, ours)),
            show([per_pair(s, ours, "covered") for s in studies], 0, 100),
        )


def settled_rows(studies: Sequence[Study], n_labels: Sequence[int]) -> Iterable[Sequence[str]]:
    """What bounds on an anchored result's interval let through, where its doubt is small."""
    for bound in ANCHORED_RATIOS:
        for n in n_labels:
            entries = [entry for s in studies for entry in s["found"][f"anchored {n}"]]
            kept = [e for e in entries if e["doubt"] <= MAX_DOUBT and e["width"] <= math.log(bound)]
            near = [entry["error"] <= NEAR for entry in kept]
            worse = [entry["ece"] > entry["ece_before"] + 0.01 for entry in kept]
            yield (
                f"{bound:g}",
                str(n),
                f"{len(kept) / len(entries):.0%}",
                *(f"{np.mean(x):.1%}" if kept else "–" for x in (near, [e["harmful"] for e in kept], worse)),
            )


def nuisance_rows(studies: Sequence[Study]) -> Iterable[Sequence[str]]:
    for name in studies[0]["nuisance"] if studies else ():
        chosen = [s["nuisance"][name] for s in studies if s["nuisance"][name] is not None]
        if chosen:
            columns = (
                show([c[key] for c in chosen], digits, scale)
                for key, digits, scale in (("accuracy", 1, 100), ("daca", 2, 1), ("low end", 2, 1))
            )
            missing = sum(math.isnan(c["low end"]) for c in chosen)
            yield (name, *columns, f"{missing} of {len(chosen)}")


def by_pair(study: Study, names: Sequence[str], key: str, digits: int, scale: float = 1.0) -> Iterable[str]:
    """One figure of several methods on one pair: mean and standard error over pools and draws."""
    for name in names:
        yield show([entry[key] for entry in study["found"].get(name, ()) if key in entry], digits, scale)


def pair_rows(study: Study, n_labels: Sequence[int]) -> Iterable[Sequence[str]]:
    """All of one pair: label-free methods, then each number of labels."""
    for name in (*LABEL_FREE, *(f"{kind} {n}" for n in n_labels for kind in ("supervised", "anchored"))):
        yield (
            name,
            *by_pair(study, [name], "error", 3),
            *by_pair(study, [name], "ece", 1, 100),
            *by_pair(study, [name], "nll", 3),
            *by_pair(study, [name], "harmful", 0, 100),
            *by_pair(study, [name], "covered", 0, 100),
        )


def coverage_rows(studies: Sequence[Study]) -> Iterable[Sequence[str]]:
    """Whether the bracket holds the right temperature, pair by pair."""
    for study in studies:
        found = study["brackets"]
        both = [b for b in found if b["low"] is not None and b["high"] is not None]
        held = [b["low"] <= study["oracle"] <= b["high"] for b in both]
        yield (
            study["name"],
            f"{study['oracle']:.2f}",
            *(show([b[end] for b in found if b[end] is not None]) for end in ("low", "high")),
            show([b["ratio"] for b in both]),
            f"{np.mean(held):.0%}" if both else "–",
            f"{np.mean([b['settled'] for b in found]):.0%}",
        )


def write_page(studies: Sequence[Study], n_labels: Sequence[int], counts: Mapping[str, int]) -> str:
    """The page. n_labels: numbers of labels that were tried; counts: what the introduction says of pools and draws."""
    halves = {half: [s for s in studies if s["half"] == half] for half in ("choosing", "judging")}
    kinds = {kind: [s for s in studies if s["kind"] == kind] for kind in ("small", "real")}
    n_kinds = {kind: len(chosen) for kind, chosen in kinds.items()}
    lines = [INTRODUCTION.format(n=len(studies), **n_kinds, **counts)]
    lines += ["## The pairs", "", *table(PAIR_HEAD, map(pair_facts, studies))]
    for title, chosen in (*halves.items(), *kinds.items()):
        heading = f"## Without labels: {title}, {len(chosen)} pairs"
        lines += [heading, "", *table(LABEL_FREE_HEAD, label_free_rows(chosen))]
    lines += ["## The bracket", "", *table(BRACKET_HEAD, coverage_rows(studies)), BOUNDS, ""]
    for title, chosen in halves.items():
        lines += [f"### {title}", "", *table(BOUND_HEAD, bound_rows(chosen))]
    for title, chosen in (*halves.items(), *kinds.items()):
        lines += [f"## With labels: {title}, {len(chosen)} pairs", ""]
        lines += table(LABELLED_HEAD, labelled_rows(chosen, n_labels))
    lines += [ANCHORED, "", *table(SETTLED_HEAD, settled_rows(studies, n_labels))]
    lines += ["## Anchored error over supervised error, pair by pair", ""]
    lines += table(("pair", *(f"{n} labels" for n in n_labels)), (ratio_row(s, n_labels) for s in studies))
    lines += [NUISANCE, ""]
    for title, chosen in kinds.items():
        lines += [f"### {title}", "", *table(NUISANCE_HEAD, nuisance_rows(chosen))]
    lines += [BEHAVIOUR, "", *table(BEHAVIOUR_HEAD, map(behaviour_row, studies))]
    lines += ["## Every pair", "", "Means and standard errors over pools and draws of labels.", ""]
    for study in studies:
        lines += [f"### {study['name']}", "", *table(EVERY_HEAD, pair_rows(study, n_labels))]
    return "\n".join(lines).rstrip() + "\n"


PAIR_HEAD = (
    "pair", "half", "post-training", "right, base", "chat", "agree", "mass", "ECE", "right τ", "ECE there",
    "base's own right τ",
)  # fmt: skip
LABEL_FREE_HEAD = (
    "method", "error", "worst pair", "within 15 %", "ECE before, %", "ECE after, %", "NLL after", "harmful on",
    "no result",
)  # fmt: skip
BRACKET_HEAD = ("pair", "right τ", "low end", "high end", "ratio", "holds the right τ", "settled")
BOUND_HEAD = (
    "ratio at most", "mass at least", "bracket that holds 1", "settled", "harmful let through",
    "off by over 15 % let through", "good ones stopped", "good ones",
)  # fmt: skip
LABELLED_HEAD = (
    "labels", "error: supervised", "anchored", "ratio", "mean of the pairs' ratios", "worst pair's ratio",
    "ECE, %: supervised", "anchored",
    "NLL: supervised", "anchored", "harmful, %: supervised", "anchored", "right τ in the 95 % interval, %",
)  # fmt: skip
SETTLED_HEAD = (
    "interval's ratio at most",
    "labels",
    "let through",
    "within 15 %",
    "harmful",
    "ECE up by a point",
)
NUISANCE_HEAD = ("the base's logits", "base right, %", "error of DACA", "of the low end", "low end missing")
BEHAVIOUR_HEAD = (
    "pair", "post-training", "agree", "chat right where they agree", "where not", "base right where not",
    "AUROC: chat's confidence", "base's probability of its choice", "agreement",
)  # fmt: skip
EVERY_HEAD = ("method and labels", "error", "ECE, %", "NLL", "harmful, %", "right τ in the interval, %")


def pair_facts(study: Study) -> Sequence[str]:
    facts = study["facts"]
    return (
        study["name"],
        study["half"],
        study["recipe"],
        *(f"{facts[key]:.1%}" for key in ("accuracy_base", "accuracy_chat", "agreement")),
        f"{facts['mass']:.2f}",
        f"{facts['ece']:.1%}",
        f"{study['oracle']:.2f}",
        f"{facts['ece_oracle']:.1%}",
        f"{facts['oracle_base']:.2f}",
    )


def ratio_row(study: Study, n_labels: Sequence[int]) -> Sequence[str]:
    errors = [
        [per_pair(study, f"{kind} {n}", "error") for n in n_labels] for kind in ("anchored", "supervised")
    ]
    return (study["name"], *(f"{ours / theirs:.2f}" for ours, theirs in zip(*errors, strict=True)))


def behaviour_row(study: Study) -> Sequence[str]:
    found = study["behaviour"]
    return (
        study["name"],
        study["recipe"],
        f"{study['facts']['agreement']:.1%}",
        *(f"{found[key]:.1%}" for key in ("right_agree", "right_disagree", "base_right_disagree")),
        *(f"{found[key]:.3f}" for key in ("auroc_own", "auroc_base", "auroc_agree")),
    )
