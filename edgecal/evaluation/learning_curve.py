"""How much a number of labels buys: anchored and supervised fits on draws of labels, beside the label-free methods.

Of each split's fitting part some questions, drawn at random, are labelled; the anchored fit sees the rest without
labels. All are judged on the other part, against the temperature that its own labels give.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edgecal.calibration import TAU_MAX, TAU_MIN, ChoiceLogits
from edgecal.calibration.anchored import combine, label_free_prior, label_losses
from edgecal.calibration.scaling import fit_supervised
from edgecal.evaluation.baselines import judge_logits
from edgecal.evaluation.method_rows import hide_labels
from edgecal.evaluation.splits import Split
from edgecal.metrics import compute_ece, compute_nll
from edgecal.results.judging import LearningCurve, LearningLine, LearningPoint, MeanWithError

__all__ = ["LABEL_COUNTS", "N_DRAWS", "draw_labelled", "fit_anchored_draws", "measure_learning"]

LABEL_COUNTS = (0, 10, 20, 30, 50, 100, 200)
N_DRAWS = 10  # of labels, for each split


class _Run(NamedTuple):
    """One temperature, judged."""

    error: float | None  # |ln(tau / oracle)|; None where the oracle is an end of the range
    ece: float
    nll: float
    harmful: bool
    at_bound: bool


def draw_labelled(split: Split) -> list[npt.NDArray[np.int64]]:
    """N_DRAWS orders in which the questions of a split's fitting part are labelled: positions in `split.fit`.

    Drawn from the split's seed and the number of questions alone.
    """
    rng = np.random.Generator(np.random.PCG64([split.seed, len(split.fit)]))
    return [rng.permutation(len(split.fit)) for _ in range(N_DRAWS)]


def fit_anchored_draws(logits: ChoiceLogits, split: Split, base_mass: float) -> dict[int, list[float]]:
    """The anchored temperature of every draw, for every number of labels that the split's fitting part has.

    No fit sees another label than its draw's.
    """
    part = logits.take(split.fit)
    prior = label_free_prior(hide_labels(part), base_mass)
    losses = label_losses(part, np.arange(part.n_prompts))
    return {
        n: [
            combine(prior, losses[order[:n]].sum(axis=0), n_prompts=part.n_prompts, n_labelled=n).temperature
            for order in draw_labelled(split)
        ]
        for n in LABEL_COUNTS
        if n <= part.n_prompts
    }


def measure_learning(
    logits: ChoiceLogits,
    splits: Sequence[Split],
    anchored: Sequence[Mapping[int, Sequence[float]]],
    label_free: Mapping[str, Sequence[float | None]],
    on_step: Callable[[], None] | None = None,
) -> LearningCurve:
    """The curves of `anchored` and `ts`, and a point at 0 labels for each label-free method.

    Parameters
    ----------
    logits: of all questions, all labelled.
    splits: the divisions.
    anchored: for each split what `fit_anchored_draws` found.
    label_free: by method each split's temperature, None where there is none. A method that has none at all is left out.
    on_step: called after each split.
    """
    found: dict[tuple[str, int], list[list[_Run]]] = {}
    bare = replace(logits, base_layers=None, chat_layers=None)
    for at, split in enumerate(splits):
        part = bare.take(split.fit)
        judge = _Judge(bare.take(split.judge))
        taus: dict[tuple[str, int], list[float]] = {("anchored", n): list(t) for n, t in anchored[at].items()}
        orders = draw_labelled(split)
        for n in anchored[at]:
            if n:
                taus["ts", n] = [fit_supervised(part.take(order[:n])).tau for order in orders]
        for name, each in label_free.items():
            tau = each[at]
            if tau is not None:
                taus[name, 0] = [tau]
        for key, drawn in taus.items():
            found.setdefault(key, []).append([judge(tau) for tau in drawn])
        if on_step is not None:
            on_step()
    methods = [name for name in ("anchored", "ts", *label_free) if any(name == key[0] for key in found)]
    lines: list[LearningLine] = [
        {
            "method": method,
            "uses_labels": method not in label_free,
            "points": [_point(n, runs) for (name, n), runs in found.items() if name == method],
        }
        for method in methods
    ]
    return {"n_draws": N_DRAWS, "lines": lines}


class _Judge:
    """Judges temperatures on labelled questions, against the one that these labels give."""

    def __init__(self, logits: ChoiceLogits) -> None:
        self._logits = logits
        oracle = fit_supervised(logits)
        self._oracle = None if oracle.at_bound else oracle.tau
        self._before = self._figures(1.0)[1]

    def __call__(self, tau: float) -> _Run:
        ece, nll = self._figures(tau)
        error = None if self._oracle is None else abs(math.log(tau / self._oracle))
        return _Run(error, ece, nll, nll > self._before, tau in (TAU_MIN, TAU_MAX))

    def _figures(self, tau: float) -> tuple[float, float]:
        logits = self._logits
        judged = judge_logits(logits.chat_final, logits.n_choices, logits.labels, tau)
        assert judged.probs is not None
        return compute_ece(judged.confidence, judged.correct), compute_nll(judged.probs, logits.labels)


def _point(n_labels: int, by_split: Sequence[Sequence[_Run]]) -> LearningPoint:
    runs = [run for of_split in by_split for run in of_split]
    return {
        "n_labels": n_labels,
        "n_runs": len(runs),
        "error": _mean([[run.error for run in of_split] for of_split in by_split]),
        "ece": _mean([[run.ece for run in of_split] for of_split in by_split]),
        "nll": _mean([[run.nll for run in of_split] for of_split in by_split]),
        "n_harmful": sum(run.harmful for run in runs),
        "n_at_bound": sum(run.at_bound for run in runs),
    }


def _mean(by_split: Sequence[Sequence[float | None]]) -> MeanWithError:
    """The mean over splits, of those that have values, and its standard error (draws of one split share its labels)."""
    means = [np.mean([x for x in values if x is not None]) for values in by_split if None not in values]
    error = float(np.std(means, ddof=1)) / math.sqrt(len(means)) if len(means) > 1 else None
    return {"mean": float(np.mean(means)) if means else None, "error": error}
