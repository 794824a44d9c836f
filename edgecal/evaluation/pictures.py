"""The numbers behind the report's pictures. Knows nothing of drawing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgecal.calibration import Bracket, ChoiceLogits, Method, evaluate_loss
from edgecal.calibration.losses import compute_divergence
from edgecal.evaluation.shape import numbers
from edgecal.metrics import Judged, compute_reliability, compute_risk_coverage
from edgecal.results.judging import LayerDivergence, LossCurve, Plots, ReliabilityBins, RiskCurve

__all__ = ["picture_judged", "picture_layers", "picture_loss"]

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
    """The numbers behind all pictures: of up to three sets of examples, and of the loss and the layers if given."""
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

    None for a method that minimises nothing.
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
    """Mean divergence of the two models by layer, for agreement and disagreement, and where it jumps most.

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
