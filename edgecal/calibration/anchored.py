"""The anchored fit: a temperature from unlabelled prompts and a few labels together.

The unlabelled prompts give a prior for x = ln tau, the labels a likelihood, and the temperature is the posterior
median, which minimises the expected |ln tau error|. The prior's parts are Student t distributions: near their centres
they act like many labels, but their tails are so heavy that labels which contradict them overrule them. Everything is
computed on a grid in x, so the result is deterministic and has no local minima.

Labels that were chosen with unequal probabilities (see `edgecal label`) come with weights, the inverse probabilities.
The weighted log-likelihood then estimates that of a uniform choice; it is scaled so that its curvature equals the
inverse of its own variance, as that of an ordinary log-likelihood does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from edgecal.calibration.arrays import FloatArray
from edgecal.calibration.bracket import fit_bracket
from edgecal.calibration.choice_logits import ChoiceLogits
from edgecal.calibration.method import Method
from edgecal.calibration.search import TAU_MAX, TAU_MIN
from edgecal.calibration.temperature_fit import fit_temperature
from edgecal.errors import InputError, NotIdentifiedError

__all__ = [
    "AnchoredFit",
    "Prior",
    "combine",
    "fit_anchored",
    "label_free_prior",
    "label_losses",
    "weigh_losses",
]

GRID_LN_TAU: Final[FloatArray] = np.linspace(math.log(TAU_MIN), math.log(TAU_MAX), 513)
GRID_LN_TAU.setflags(write=False)

# The prior's parts, chosen on the choosing half of the stored pairs (docs/pairs.md) and on further ones (docs/log.md).
OVERCONFIDENCE: Final = (
    (-0.03, 0.3, 0.03, 1.0),
    (-0.3, 0.45, 0.08, 0.6),
)  # low, high, scale of the edges, weight
_LEAST_SLOPE: Final = 1e-4  # so that no temperature is impossible
SCALE_YARDSTICK: Final = 0.2  # in ln tau
SCALE_BY_RATIO: Final = 0.05  # of ln(high / low)
SCALE_ONE_END: Final = 0.7  # where the bracket has no lower end
SCALE_BY_MASS: Final = 1.0  # of the probability that the base model puts elsewhere
NO_YARDSTICK: Final = 0.05  # what the yardstick leaves to a temperature far from it, per unit of ln tau


@dataclass(frozen=True, eq=False)
class Prior:
    """What the unlabelled prompts say of ln tau: its density on GRID_LN_TAU, float64 [513], not normalised."""

    density: FloatArray

    def log_density(self) -> FloatArray:
        """The logarithm of the density, up to a constant: float64 [513]."""
        return np.log(self.density)


@dataclass(frozen=True)
class AnchoredFit:
    """An anchored fit.

    Attributes
    ----------
    temperature : the posterior median
    interval : the central posterior interval at `level`
    prior_temperature, prior_interval : the same without labels
    n_prompts, n_labelled : number of prompts, and of those with a label
    doubt : posterior probability that this temperature makes the model less honest than it is, that is, that the right
        one is nearer to 1 than to this one in ln tau
    """

    temperature: float
    interval: tuple[float, float]
    prior_temperature: float
    prior_interval: tuple[float, float]
    n_prompts: int
    n_labelled: int
    doubt: float
    level: float


def fit_anchored(
    logits: ChoiceLogits,
    base_mass: float,
    *,
    weights: FloatArray | None = None,
    level: float = 0.95,
    prior: Prior | None = None,
) -> AnchoredFit:
    """Fits one temperature to all prompts and the labels that some of them have (none is allowed).

    base_mass: the base model's mean probability on the choices, 0 to 1. weights: float64 [n_prompts], for labelled
    prompts the inverse of the probability with which each was chosen for labelling, up to a common factor; None: all
    had the same. prior: `label_free_prior` of the same arguments, if at hand; it takes most of the time.
    """
    if prior is None:
        prior = label_free_prior(logits, base_mass)
    labelled = np.flatnonzero(logits.labels >= 0)
    losses = label_losses(logits, labelled)
    if weights is None:
        total: FloatArray = losses.sum(axis=0)
    else:
        chosen = np.asarray(weights, dtype=np.float64)[labelled]
        if not np.all(np.isfinite(chosen) & (chosen > 0.0)):
            raise InputError("a weight of a labelled prompt is not a finite number above 0")
        total = weigh_losses(losses, chosen)
    return combine(prior, total, n_prompts=logits.n_prompts, n_labelled=labelled.size, level=level)


def combine(
    prior: Prior, losses: FloatArray, *, n_prompts: int, n_labelled: int, level: float = 0.95
) -> AnchoredFit:
    """The posterior of a prior and the labels' negative log-likelihood on GRID_LN_TAU (float64 [513], a sum, nats)."""
    log_prior = prior.log_density()
    before, after = _Distribution(log_prior), _Distribution(log_prior - losses)
    x = after.quantile(0.5)
    beyond = after.cdf(x / 2.0)
    return AnchoredFit(
        temperature=math.exp(x),
        interval=after.interval(level),
        prior_temperature=math.exp(before.quantile(0.5)),
        prior_interval=before.interval(level),
        n_prompts=n_prompts,
        n_labelled=n_labelled,
        doubt=beyond if x > 0.0 else 1.0 - beyond,
        level=level,
    )


def label_losses(logits: ChoiceLogits, rows: np.typing.NDArray[np.integer]) -> FloatArray:
    """The negative log-likelihood of the labels of `rows` at every tau of GRID_LN_TAU: float64 [n_rows, 513], nats."""
    z = logits.chat_final[rows].astype(np.float64)
    z -= z.max(axis=1, keepdims=True, initial=-np.inf)
    chosen = z[np.arange(z.shape[0]), logits.labels[rows]]
    losses = np.empty((z.shape[0], GRID_LN_TAU.size))
    for j, beta in enumerate(np.exp(-GRID_LN_TAU).tolist()):
        losses[:, j] = np.log(np.exp(z * beta).sum(axis=1)) - chosen * beta
    return losses


def weigh_losses(losses: FloatArray, weights: FloatArray) -> FloatArray:
    """The weighted sum of losses, scaled so that its curvature is the inverse variance of its minimum.

    With scores s_i the variance of the minimum is sum(w^2 s^2) / (sum w s^2)^2 (the sandwich, Huber 1967), so the scale
    is sum(w s^2) / sum(w^2 s^2), with scores at the minimum of the weighted sum.
    """
    if not weights.size:
        return np.zeros(GRID_LN_TAU.size)
    weights = weights / weights.mean()
    total = weights @ losses
    at = min(max(int(np.argmin(total)), 1), GRID_LN_TAU.size - 2)
    scores = losses[:, at + 1] - losses[:, at - 1]
    spread = float(weights**2 @ scores**2)
    scale = float(weights @ scores**2) / spread if spread > 0.0 else 1.0
    scaled: FloatArray = scale * total
    return scaled


class _Distribution:
    """A distribution on GRID_LN_TAU, its density linear between the nodes."""

    def __init__(self, log_density: FloatArray) -> None:
        density = np.exp(log_density - log_density.max())
        cells = (density[:-1] + density[1:]) / 2.0
        self._cdf = np.concatenate([[0.0], np.cumsum(cells)])
        self._cdf /= self._cdf[-1]

    def cdf(self, x: float) -> float:
        return float(np.interp(x, GRID_LN_TAU, self._cdf))

    def quantile(self, share: float) -> float:
        return float(np.interp(share, self._cdf, GRID_LN_TAU))

    def interval(self, level: float) -> tuple[float, float]:
        tail = (1.0 - level) / 2.0
        return math.exp(self.quantile(tail)), math.exp(self.quantile(1.0 - tail))


def label_free_prior(logits: ChoiceLogits, base_mass: float) -> Prior:
    """What the unlabelled prompts say of ln tau; labels are not looked at.

    The prior is the product of two statements, with the widths above (docs/pairs.md judges them):

    - *Post-training mostly makes models overconfident, by up to 30 points; less often it makes them still more so, or
      underconfident.* The chat model's mean confidence at tau, which calibration would make its accuracy, falls as tau
      grows. How far it may have to fall is much the same for all models, which the temperature itself is not.
    - *The base model is a yardstick, or is none.* ln tau is near the mean of DACA's and of the bracket's two ends'
      middle, the nearer the narrower the bracket and the more of its probability the base model puts on the choices.
      Without a lower end the chat model does not know all that the base model knows, at no tau; then ln tau is near
      the upper end, which says that post-training added nothing.
    """
    confidence = _mean_confidence(logits)
    fall = float(np.interp(0.0, GRID_LN_TAU, confidence)) - confidence
    plausible: FloatArray = np.zeros(GRID_LN_TAU.size)
    for low, high, scale, weight in OVERCONFIDENCE:
        plausible += weight * _flat(fall, low, high, scale)
    density = plausible * (np.abs(np.gradient(confidence, GRID_LN_TAU)) + _LEAST_SLOPE)
    yardstick = _yardstick(logits, base_mass)
    return Prior(
        density if yardstick is None else density * (NO_YARDSTICK + _student(GRID_LN_TAU, *yardstick))
    )


def _yardstick(logits: ChoiceLogits, base_mass: float) -> tuple[float, float] | None:
    """Centre and scale in ln tau of what the base model says; None if it says nothing."""
    bracket = fit_bracket(logits, n_bootstrap=0)
    if bracket.high is None:
        return None
    elsewhere = SCALE_BY_MASS * (1.0 - base_mass)
    upper = math.log(bracket.high), SCALE_ONE_END + elsewhere
    if bracket.low is None:
        return upper
    try:
        daca = math.log(fit_temperature(logits, Method("daca"), n_bootstrap=0).temperature)
    except NotIdentifiedError:
        return upper
    middle = math.log(bracket.low * bracket.high) / 2.0
    return (daca + middle) / 2.0, SCALE_YARDSTICK + SCALE_BY_RATIO * math.log(bracket.ratio) + elsewhere


def _mean_confidence(logits: ChoiceLogits) -> FloatArray:
    """The chat model's mean top probability over all prompts at every tau of GRID_LN_TAU: float64 [513]."""
    z = logits.chat_final.astype(np.float64)
    z -= z.max(axis=1, keepdims=True, initial=-np.inf)
    confidence: FloatArray = np.array(
        [(1.0 / np.exp(z * beta).sum(axis=1)).mean() for beta in np.exp(-GRID_LN_TAU)]
    )
    return confidence


def _student(x: FloatArray, centre: float, scale: float) -> FloatArray:
    """The density of a Student t distribution with four degrees of freedom."""
    distance = (x - centre) / scale
    density: FloatArray = 0.375 / scale * (1.0 + distance**2 / 4.0) ** -2.5
    return density


def _flat(x: FloatArray, low: float, high: float, scale: float) -> FloatArray:
    """The density of a uniform variable between low and high, plus a Student t variable (four degrees of freedom)."""

    def cdf(distance: FloatArray) -> FloatArray:
        u = distance / np.sqrt(4.0 + distance**2)
        share: FloatArray = 0.5 + 0.75 * u - 0.25 * u**3
        return share

    density: FloatArray = (cdf((x - low) / scale) - cdf((x - high) / scale)) / (high - low)
    return density
