"""Turns judged examples into a result's parts: figures with intervals, the numbers behind pictures, the worst answers.

Arrays become JSON-ready values here, so that printing, drawing and reading back use the same values. NaN, for an
undefined figure, becomes null.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecal.calibration import Bracket, ChoiceLogits, Method, evaluate_loss
from edgecal.calibration.losses import compute_divergence
from edgecal.metrics import (
    Estimate,
    Judged,
    compute_reliability,
    compute_risk_coverage,
    estimate_figures,
    estimate_paired,
)
from edgecal.results.judging import (
    AskedQuestion,
    Figures,
    FiguresByState,
    FigureSet,
    LayerDivergence,
    LossCurve,
    Plots,
    ReliabilityBins,
    RiskCurve,
    Spread,
    SubjectFigures,
    WrongAnswer,
)

__all__ = [
    "SUBJECT_BOOTSTRAP",
    "judge_parts",
    "list_wrong",
    "number",
    "numbers",
    "picture_judged",
    "picture_layers",
    "picture_loss",
    "shape_figures",
    "shape_spread",
]


def number(value: float | None) -> float | None:
    """A finite float, or None."""
    return float(value) if value is not None and math.isfinite(value) else None


def numbers(values: Iterable[float] | npt.NDArray[np.floating]) -> list[float | None]:
    """Each value as `number` returns it."""
    return [number(value) for value in values]


def shape_figures(estimates: Mapping[str, Estimate]) -> FigureSet:
    """Figures with their intervals: {name: {value, low, high}}."""
    return {
        name: {"value": number(item.value), "low": number(item.low), "high": number(item.high)}
        for name, item in estimates.items()
    }


def shape_spread(values: Iterable[float | None]) -> Spread:
    """Mean and standard deviation (population) over the splits that have a value, and each split's value."""
    each = [number(value) for value in values]
    known = [value for value in each if value is not None]
    return {
        "mean": float(np.mean(known)) if known else None,
        "sd": float(np.std(known)) if known else None,
        "values": each,
    }


# Resamples for a subject's intervals at most: there can be many subjects, and their intervals are wide anyway.
SUBJECT_BOOTSTRAP = 200

_SHOWN_WRONG = 20


def judge_parts(
    before: Judged,
    after: Judged | None,
    subjects: Sequence[str | None],
    *,
    base: Judged | None = None,
    n_bootstrap: int,
    level: float,
    seed: int,
) -> tuple[Figures, list[SubjectFigures]]:
    """Figures with intervals of several sets of examples on the same n questions, overall and by subject.

    Parameters
    ----------
    before, after, base: n examples each, in the same order; `after` is None without a temperature.
    subjects: n subjects, None where a question has none.
    n_bootstrap, level, seed: of the intervals; for a subject at most `SUBJECT_BOOTSTRAP` resamples. All sets
        are resampled alike.

    Returns
    -------
    Figures of each set (the base model's only if it is given); and the same for each subject, in alphabetical order.
    """
    overall = _figures(base, before, after, n_bootstrap, level, seed)
    rows: list[SubjectFigures] = []
    for subject in sorted({subject for subject in subjects if subject is not None}):
        where = np.array([i for i, other in enumerate(subjects) if other == subject], dtype=np.int64)
        base_part, after_part = (None if one is None else one.take(where) for one in (base, after))
        n_resamples = min(n_bootstrap, SUBJECT_BOOTSTRAP)
        part = _figures(base_part, before.take(where), after_part, n_resamples, level, seed)
        rows.append({"subject": subject, "n": len(where), **_without_difference(part)})
    return overall, rows


def _without_difference(figures: Figures) -> FiguresByState:
    states: FiguresByState = {"before": figures["before"], "after": figures["after"]}
    return {"base": figures["base"], **states} if "base" in figures else states


def _figures(
    base: Judged | None, before: Judged, after: Judged | None, n_bootstrap: int, level: float, seed: int
) -> Figures:
    def estimate(one: Judged) -> FigureSet:
        return shape_figures(estimate_figures(one, n_bootstrap=n_bootstrap, level=level, seed=seed))

    figures: Figures
    if after is None:
        figures = {"before": estimate(before), "after": None, "difference": None}
    else:
        sets = estimate_paired(before, after, n_bootstrap=n_bootstrap, level=level, seed=seed)
        was, now, difference = map(shape_figures, sets)
        figures = {"before": was, "after": now, "difference": difference}
    return figures if base is None else {"base": estimate(base), **figures}


def list_wrong(questions: Sequence[AskedQuestion], before: Judged, after: Judged | None) -> list[WrongAnswer]:
    """The at most 20 questions answered wrongly with the most confidence, the worst first.

    `questions` are those that the examples answer.
    """
    predicted, labels = before.predicted, before.labels
    if predicted is None or labels is None:
        return []
    wrong = np.flatnonzero(~before.correct)
    worst = wrong[np.argsort(-before.confidence[wrong], kind="stable")][:_SHOWN_WRONG]
    return [
        {
            **questions[int(i)],
            "answer": int(labels[i]),
            "predicted": int(predicted[i]),
            "confidence_before": float(before.confidence[i]),
            "confidence_after": None if after is None else float(after.confidence[i]),
        }
        for i in worst
    ]


_LOSS_POINTS = 121
_LOSS_REACH = 3.0  # times the temperature and its inverse


def picture_judged(
    base: Judged | None,
    before: Judged,
    after: Judged | None,
    *,
    loss: LossCurve | None = None,
    layers: LayerDivergence | None = None,
) -> Plots:
    """The numbers behind all pictures: for up to three sets of examples, and for the loss and the layers if given."""
    return {
        "reliability": {
            "base": None if base is None else _reliability(base),
            "before": _reliability(before),
            "after": None if after is None else _reliability(after),
        },
        "risk_coverage": {
            "base": None if base is None else _risk_coverage(base),
            "before": _risk_coverage(before),
            "after": None if after is None else _risk_coverage(after),
        },
        "loss": loss,
        "layers": layers,
    }


def picture_loss(
    logits: ChoiceLogits, method: Method, chosen: float, interval: Sequence[float], bracket: Bracket
) -> LossCurve | None:
    """A method's loss around the chosen temperature and the bracket, on the questions that it was fitted on.

    None if the method minimises nothing.
    """
    if method.name == "vanilla":
        return None
    places = [1.0, chosen, *(end for end in (bracket.low, bracket.high) if end is not None)]
    low, high = min(places) / _LOSS_REACH, max(places) * _LOSS_REACH
    grid = np.unique(np.concatenate([np.geomspace(low, high, _LOSS_POINTS), [1.0, chosen]]))
    return {
        "method": method.name,
        "unit": "nats squared" if method.name == "process" else "nats",
        "temperature": grid.tolist(),
        "loss": evaluate_loss(logits, method, grid).tolist(),
        "chosen": float(chosen),
        "interval": [float(interval[0]), float(interval[1])],
        "bracket": bracket.to_dict(),
    }


def picture_layers(logits: ChoiceLogits) -> LayerDivergence | None:
    """Mean divergence of the two models by layer, for agreement and disagreement, and the layers at which it jumps
    most.

    None without layer logits or with fewer than 2 layers.
    """
    if logits.n_layer is None or logits.n_layer < 2:
        return None
    profile, peaks = compute_divergence(logits)
    agree = logits.agreement
    n_layer = profile.shape[1]

    def mean(which: np.ndarray[Any, np.dtype[np.bool_]]) -> list[float] | None:
        return profile[which].mean(axis=0).tolist() if which.any() else None

    return {
        "layer": list(range(1, n_layer + 1)),
        "agreement": mean(agree),
        "disagreement": mean(~agree),
        "pdl_histogram": [int(count) for count in np.bincount(peaks[~agree] - 1, minlength=n_layer)],
        "n_agreement": int(agree.sum()),
        "n_disagreement": int((~agree).sum()),
    }


def _reliability(judged: Judged) -> ReliabilityBins:
    found = compute_reliability(judged)
    return {
        "edges": found.edges.tolist(),
        "n": found.n.tolist(),
        "confidence": numbers(found.confidence),
        "accuracy": numbers(found.accuracy),
        "low": numbers(found.low),
        "high": numbers(found.high),
    }


def _risk_coverage(judged: Judged) -> RiskCurve:
    coverage, risk = compute_risk_coverage(judged)
    return {"coverage": coverage.tolist(), "risk": risk.tolist()}
