"""The fit: finds one temperature and its interval, and raises an error if the data do not determine one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgecal.calibration.arrays import FloatArray
from edgecal.calibration.bootstrap import refit_resamples
from edgecal.calibration.choice_logits import ChoiceLogits
from edgecal.calibration.losses import build_loss, compute_divergence
from edgecal.calibration.method import Method, check_examples
from edgecal.calibration.search import GRID_TAU, TAU_MAX, TAU_MIN, find_minimum, find_valley
from edgecal.errors import InputError, NotIdentifiedError

__all__ = ["TemperatureFit", "evaluate_loss", "fit_temperature"]

MAX_SHARE_AT_BOUND = 0.05
FLAT_NATS = 1e-9  # a loss that varies less than this over the whole range of tau is flat


@dataclass(frozen=True)
class TemperatureFit:
    """A fitted temperature with its interval and the figures behind it.

    Attributes
    ----------
    temperature : divides the chat model's final logits; TAU_MIN < temperature < TAU_MAX
    interval : percentile bootstrap interval over prompts at `level`; (NaN, NaN) with n_bootstrap = 0
    method : the method with all its options completed
    n_prompts, n_agreement, n_disagreement : number of prompts, and of each kind
    agreement_rate : n_agreement / n_prompts (NaN with no prompts, possible for vanilla only)
    n_used : number of examples in the loss; 0 for vanilla
    pdl_histogram : for l = 1..L at index l - 1, how many disagreement examples have their peak divergence at
        layer l; None without layer logits or with one layer
    loss_before, loss_after : the loss in its unit (nats, or nats squared for the process loss) at tau = 1 and
        at the temperature; None for vanilla
    n_bootstrap, seed, level : the arguments of the fit
    share_at_bound : share of the bootstrap refits that ended at an end of the range or lacked a loss term
    """

    temperature: float
    interval: tuple[float, float]
    method: Method
    n_prompts: int
    n_agreement: int
    n_disagreement: int
    agreement_rate: float
    n_used: int
    pdl_histogram: list[int] | None
    loss_before: float | None
    loss_after: float | None
    n_bootstrap: int
    share_at_bound: float
    seed: int
    level: float


def fit_temperature(
    logits: ChoiceLogits,
    method: Method,
    *,
    n_bootstrap: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> TemperatureFit:
    """Find the temperature in [TAU_MIN, TAU_MAX] that minimises the method's loss, and its interval.

    Newton's method finds the minimum of a loss that is convex in 1 / tau (`daca`, `naive`, `ts`). Any other loss is
    tabulated on a grid of 65 temperatures, evenly spaced in ln tau, and every cell that may contain the lowest
    minimum is refined. Both are accurate to about 1e-10 relative. The interval comes from `n_bootstrap` resamples of
    all prompts (0: no interval and no check of the refits) and does not affect the temperature. Same input, same
    bits: nothing depends on threads, and draws are a function of `seed` (0 to 2^64 - 1) alone.

    Raises
    ------
    InputError
        The method needs layers or labels that `logits` does not have, or an option is out of range.
    NotIdentifiedError
        The loss has fewer than 30 examples (Dual-Align: 30 agreements and 10 disagreements), is flat, or has its
        minimum at an end of the range, or more than 5 % of the refits end there or lack examples.
    """
    _check_options(n_bootstrap, level, seed)
    divergence = None
    pdl_histogram = None
    agree = logits.agreement
    if method.needs_layers or (logits.n_layer is not None and logits.n_layer > 1):
        divergence = compute_divergence(logits)
        n_layer = divergence[0].shape[1]
        pdl_histogram = [int(c) for c in np.bincount(divergence[1][~agree] - 1, minlength=n_layer)]
    n_agreement = int(np.count_nonzero(agree))
    n_prompts = logits.n_prompts

    def result(
        temperature: float,
        interval: tuple[float, float],
        n_used: int,
        losses: tuple[float | None, float | None],
        share_at_bound: float,
    ) -> TemperatureFit:
        return TemperatureFit(
            temperature=temperature,
            interval=interval,
            method=method,
            n_prompts=n_prompts,
            n_agreement=n_agreement,
            n_disagreement=n_prompts - n_agreement,
            agreement_rate=n_agreement / n_prompts if n_prompts else math.nan,
            n_used=n_used,
            pdl_histogram=pdl_histogram,
            loss_before=losses[0],
            loss_after=losses[1],
            n_bootstrap=n_bootstrap,
            share_at_bound=share_at_bound,
            seed=seed,
            level=level,
        )

    if method.name == "vanilla":
        return result(1.0, (1.0, 1.0), 0, (None, None), 0.0)
    loss = build_loss(logits, method, divergence)
    check_examples(logits, method)
    table = np.empty((loss.n_used, GRID_TAU.size), dtype=np.float32) if n_bootstrap else None
    if loss.is_convex:
        minimum, losses = find_valley(loss.in_beta())
        _check_shape(np.append(losses, minimum.loss))
        before = float(losses[1])
    else:
        losses, slopes = loss.evaluate(np.append(GRID_TAU, 1.0), table)
        _check_shape(losses)
        minimum = find_minimum(loss.evaluate, losses[:-1], slopes[:-1])
        before = float(losses[-1])
    if minimum.at_bound:
        raise NotIdentifiedError(
            f"the loss is lowest at the end of the range {TAU_MIN} to {TAU_MAX}, at {minimum.tau}: these prompts "
            "do not determine a temperature; try other or more prompts, or another method"
        )
    if table is None:
        return result(minimum.tau, (math.nan, math.nan), loss.n_used, (before, minimum.loss), 0.0)
    if loss.is_convex:  # Newton's method did not evaluate it on the grid
        loss.evaluate(GRID_TAU, table)
    refits = refit_resamples(loss, table, n_resamples=n_bootstrap, seed=seed)
    if refits.share_at_bound > MAX_SHARE_AT_BOUND:
        raise NotIdentifiedError(
            f"{100 * refits.share_at_bound:.1f} % of {n_bootstrap} bootstrap refits end at {TAU_MIN} or "
            f"{TAU_MAX} or lack examples, expected at most {100 * MAX_SHARE_AT_BOUND:.0f} %: "
            "these prompts hardly determine a temperature; give more prompts"
        )
    interval = refits.interval(level)
    return result(minimum.tau, interval, loss.n_used, (before, minimum.loss), refits.share_at_bound)


def evaluate_loss(logits: ChoiceLogits, method: Method, tau: npt.ArrayLike) -> FloatArray:
    """Evaluate the method's loss at each tau (any shape, finite and > 0, also outside the fit's range); same shape.

    The unit is nats (`process`: nats squared; `dual-align` mixes both). Raises NotIdentifiedError if there are no
    examples to average over, InputError for missing layers or labels that the method needs, and for `vanilla`.
    """
    taus = np.asarray(tau, dtype=np.float64)
    if not np.all(np.isfinite(taus) & (taus > 0.0)):
        raise InputError("a temperature is not a finite number above 0")
    loss = build_loss(logits, method)
    sizes = np.bincount(loss.groups, minlength=loss.factors.size)
    if loss.n_prompts == 0 or (loss.by_group and not np.all(sizes)):
        raise NotIdentifiedError(f"method {method.name} has no example to average its loss over")
    values: FloatArray = loss.evaluate(taus.reshape(-1))[0].reshape(taus.shape)
    return values


def _check_options(n_bootstrap: int, level: float, seed: int) -> None:
    if n_bootstrap < 0:
        raise InputError(f"the number of bootstrap resamples is {n_bootstrap}, expected 0 or more")
    if not 0.0 < level < 1.0:
        raise InputError(f"the level of the interval is {level}, expected a number between 0 and 1")
    if not 0 <= seed < 2**64:
        raise InputError(f"the seed is {seed}, expected 0 to 2^64 - 1")


def _check_shape(losses: FloatArray) -> None:
    if not np.all(np.isfinite(losses)):  # finite logits cannot overflow; only a bug gets here
        raise AssertionError("the loss is not finite")
    if float(np.ptp(losses)) <= FLAT_NATS:
        raise NotIdentifiedError(
            f"the loss is flat: it varies by {float(np.ptp(losses)):.1e} nats over every temperature from "
            f"{TAU_MIN} to {TAU_MAX}, so these prompts do not determine one; use other prompts"
        )
