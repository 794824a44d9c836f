"""Scale and bias for questions with two options, from labels: `p(first) = sigmoid(d / temperature + bias)`, where d is
the logit of the first option less that of the second.

Yes/no answers are often off-centre: a model that says yes too readily cannot be mended by a temperature, which moves no
probability past one half. The fit is Platt's (1999, "Probabilistic outputs for support vector machines"), with his
smoothed targets (n + 1) / (n + 2) and 1 / (m + 2), by which the minimum exists even where the labels are separable. It
is kept only if, over labels that it was not fitted on, it gains more than two standard errors on the temperature that
would be used otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from edgecal.calibration.arrays import BoolArray, FloatArray
from edgecal.calibration.choice_logits import ChoiceLogits
from edgecal.calibration.harm import MIN_LABELLED
from edgecal.calibration.scaling import N_FOLDS, Trial, compare_held_out
from edgecal.calibration.search import TAU_MAX, TAU_MIN

__all__ = ["MIN_OF_EACH", "PlattFit", "fit_platt"]

MIN_OF_EACH: Final = 5  # labels of each kind
_MAX_NEWTON_STEPS: Final = 100
_RIDGE: Final = 1e-9  # for logits that are all alike, which determine no scale


@dataclass(frozen=True)
class PlattFit:
    """Scale and bias, and what they are worth.

    Attributes
    ----------
    temperature : one over the scale, TAU_MIN to TAU_MAX
    interval : its percentile bootstrap interval over the labelled questions, 95 %
    bias : in nats, for the first option
    bias_interval : likewise
    n_labelled : number of labels
    trial : the gain on the other temperature, over labels left out
    """

    temperature: float
    interval: tuple[float, float]
    bias: float
    bias_interval: tuple[float, float]
    n_labelled: int
    trial: Trial

    @property
    def is_better(self) -> bool:
        """Whether the gain is more than noise."""
        return self.trial.low > 0.0


def fit_platt(
    logits: ChoiceLogits, rival: float, *, n_bootstrap: int = 1000, seed: int = 0
) -> PlattFit | None:
    """Fits scale and bias to the labelled questions, all of which have two options.

    Parameters
    ----------
    logits : the chat model's count.
    rival : the temperature that would be used otherwise, above 0.
    n_bootstrap, seed : resamples; the seed draws the five folds too, 0 to 2^64 - 1.

    Returns
    -------
    None with fewer than 30 labels, fewer than 5 of each kind, or logits that speak against the labels (a scale of 0 or
    less).
    """
    from edgecal.calibration.resample_kernels import draw_counts

    labelled = np.flatnonzero(logits.labels >= 0)
    z = logits.chat_final[labelled, :2].astype(np.float64)
    d: FloatArray = z[:, 0] - z[:, 1]
    first: BoolArray = logits.labels[labelled] == 0
    n = len(d)
    if n < MIN_LABELLED or min(first.sum(), n - first.sum()) < MIN_OF_EACH:
        return None
    scale, bias = _fit(d, first, np.ones(n))
    if scale <= 0.0:
        return None
    held_out = np.empty(n)
    folds = np.random.Generator(np.random.PCG64(seed)).permutation(n) % N_FOLDS
    for fold in range(N_FOLDS):
        test = folds == fold
        held_out[test] = _losses(
            d[test], first[test], *_within(*_fit(d[~test], first[~test], np.ones(n)[~test]))
        )
    refits = np.array(
        [
            _within(*_fit(d, first, draw_counts(n, np.uint64(seed), draw).astype(np.float64)))
            for draw in range(n_bootstrap)
        ]
    )
    low, high = np.quantile(1.0 / refits[:, 0], [0.025, 0.975]).tolist()
    bias_low, bias_high = np.quantile(refits[:, 1], [0.025, 0.975]).tolist()
    scale, bias = _within(scale, bias)
    return PlattFit(
        temperature=1.0 / scale,
        interval=(low, high),
        bias=bias,
        bias_interval=(bias_low, bias_high),
        n_labelled=n,
        trial=compare_held_out(held_out, _losses(d, first, 1.0 / rival, 0.0)),
    )


def _within(scale: float, bias: float) -> tuple[float, float]:
    return min(max(scale, 1.0 / TAU_MAX), 1.0 / TAU_MIN), bias


def _losses(d: FloatArray, first: BoolArray, scale: float, bias: float) -> FloatArray:
    """Negative log-likelihood of each label, in nats."""
    x = np.where(first, 1.0, -1.0) * (scale * d + bias)
    losses: FloatArray = np.logaddexp(0.0, -x)
    return losses


def _fit(d: FloatArray, first: BoolArray, weights: FloatArray) -> tuple[float, float]:
    """Scale and bias by Newton's method with backtracking; each label counts by its weight."""
    n_first, n_second = float(weights[first].sum()), float(weights[~first].sum())
    target = np.where(first, (n_first + 1.0) / (n_first + 2.0), 1.0 / (n_second + 2.0))
    features = np.stack([d, np.ones_like(d)], axis=1)

    def objective(t: FloatArray) -> float:
        x = features @ t
        return float(weights @ (np.logaddexp(0.0, x) - target * x) + _RIDGE * (t @ t) / 2.0)

    t = np.zeros(2)
    value = objective(t)
    for _ in range(_MAX_NEWTON_STEPS):
        x = features @ t
        p = np.exp(-np.logaddexp(0.0, -x))
        gradient = features.T @ (weights * (p - target)) + _RIDGE * t
        curvature = (features * (weights * p * (1.0 - p))[:, None]).T @ features + _RIDGE * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        descent = float(gradient @ step)
        if descent < 1e-12:
            break
        length = 1.0
        while (tried := objective(t - length * step)) > value - 1e-4 * length * descent and length > 1e-10:
            length /= 2.0
        t, value = t - length * step, tried
    return float(t[0]), float(t[1])
