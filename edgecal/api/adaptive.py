"""Runs a pair on as many questions as the temperature needs, and fits it and the bracket around it.

The order of the questions and the looks (fits on the way) are decided here; `AdaptivePlan` decides when to stop.
Neither uses labels, so that they cannot influence the result.

An anchored fit runs every labelled prompt first. The others only make its prior, so it asks for them until the bracket
is known as exactly as the plan asks: each look is at the end of the bracket that is known less exactly, or at the only
one there is. Without any end, all are run. No such run is hopeless, as labels may settle any pair.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgecal.calibration import (
    AdaptivePlan,
    Look,
    Method,
    draw_order,
    find_doubts,
    fit_anchored,
    fit_bracket,
    fit_temperature,
    foresee_lack,
    is_hopeless,
)
from edgecal.errors import NotIdentifiedError

if TYPE_CHECKING:
    from edgecal.api.questions import LoadedQuestions
    from edgecal.calibration import AnchoredFit, Bracket, TemperatureFit
    from edgecal.pair.pair_capture import PairCapture, PairRunner
    from edgecal.results.fitting import Adaptive

__all__ = ["AdaptiveFit", "fit_adaptively", "fit_all"]


@dataclass(frozen=True)
class AdaptiveFit:
    """A fit, and the questions that it used.

    Attributes
    ----------
    loaded: the questions that were run, in canonical order.
    captured, fitted, bracket: both models' capture of them, the temperature, and the bracket.
    looks: every fit on the way, the last one included; just one for a run over all questions.
    anchored: what labels and prompts said, each and together; None for another method.
    """

    loaded: LoadedQuestions
    captured: PairCapture
    fitted: TemperatureFit
    bracket: Bracket
    looks: tuple[Look, ...]
    anchored: AnchoredFit | None = None

    def describe(self, plan: AdaptivePlan | None, n_total: int) -> Adaptive | None:
        """How the result was reached, for the result's `adaptive`; None for a run over all questions."""
        if plan is None:
            return None
        last = self.looks[-1]
        return {
            "tolerance": plan.tolerance,
            "reached": last.tolerance if math.isfinite(last.tolerance) else None,
            "n_available": n_total,
            "stopped": "hopeless" if last.hopeless else "all" if last.n_prompts == n_total else "tolerance",
            "looks": [
                {
                    "n_prompts": look.n_prompts,
                    "counts": look.counts,
                    "level": look.level,
                    "temperature": look.temperature,
                    "interval": None if look.interval is None else list(look.interval),
                }
                for look in self.looks
            ],
        }


OnLook = Callable[[Look, bool], None]


def fit_all(
    runner: PairRunner,
    loaded: LoadedQuestions,
    method: Method,
    *,
    level: float,
    n_bootstrap: int,
    seed: int,
    on_fit: Callable[[], None],
) -> AdaptiveFit:
    """Runs all questions and fits once; errors as `fit_temperature`."""
    runner.run(loaded.base, loaded.chat)
    captured = runner.captured(loaded.base, loaded.chat, range(len(loaded.pairs)))
    on_fit()
    bracket = fit_bracket(captured.logits, n_bootstrap=n_bootstrap, seed=seed)
    if method.name == "anchored":
        looks = (Look(len(loaded.pairs), level, True, *_wider_end(bracket), what=_ANCHORED_LOOK),)
        return _anchor(loaded, captured, bracket, looks, n_bootstrap, seed, level)
    fitted = _fit(captured, loaded, method, n_bootstrap, seed, level)
    look = Look(len(loaded.pairs), fitted.level, True, fitted.temperature, fitted.interval)
    return AdaptiveFit(loaded, captured, fitted, bracket, (look,))


def fit_adaptively(
    runner: PairRunner,
    loaded: LoadedQuestions,
    method: Method,
    plan: AdaptivePlan,
    *,
    gives_up: bool,
    n_bootstrap: int,
    seed: int,
    on_fit: Callable[[], None],
    on_look: OnLook,
) -> AdaptiveFit:
    """Runs questions in a random order, by `seed`, until the interval is as narrow as the plan asks.

    With `gives_up` it also ends when more questions cannot settle the result. It always ends, with an error, if the
    rest is not expected to hold as many examples as the method needs. `on_fit` is called before each fit, `on_look`
    after it, with the look and whether it is the result.

    Raises
    ------
    InputError, ModelError: as `PairRunner.run`.
    NotIdentifiedError: all questions together do not determine a temperature; or those so far do not, and more would
        neither settle it nor bring the missing examples.
    """
    n_total = len(loaded.pairs)
    order = draw_order(n_total, seed).tolist()
    anchors = method.name == "anchored"
    if anchors:
        order.sort(key=(loaded.labels < 0).tolist().__getitem__)  # the labelled ones first
        plan = replace(plan, pilot=max(plan.pilot, int((loaded.labels >= 0).sum())))
    looks: list[Look] = []
    n_run = 0
    result: tuple[LoadedQuestions, PairCapture, TemperatureFit | None, Bracket] | None = None
    while not (step := plan.next_step(looks, n_total)).stop:
        new = [loaded.pairs[index] for index in order[n_run : step.n_prompts]]
        if new:
            runner.run([pair.base for pair in new], [pair.chat for pair in new])
        n_run = max(n_run, step.n_prompts)
        # Canonical order, so that the number of looks cannot affect any sum.
        places = sorted(range(n_run), key=lambda place: order[place])
        used = loaded.take([order[place] for place in places])
        captured = runner.captured(used.base, used.chat, places)
        on_fit()
        level = step.level if anchors else plan.level
        bracket = fit_bracket(captured.logits, n_bootstrap=n_bootstrap, seed=seed, level=level)
        masses = captured.base.choice_mass
        hopeless = gives_up and step.n_prompts < n_total and is_hopeless(bracket, masses, step.doubt)
        try:
            fitted = None if anchors else _fit(captured, used, method, n_bootstrap, seed, step.level)
        except NotIdentifiedError as error:
            if step.n_prompts >= n_total:
                raise
            lack = foresee_lack(captured.logits, method, n_total, step.doubt)
            if hopeless or lack:
                mass = captured.choice_mass["base"]
                doubts = find_doubts(bracket, mass, **captured.mass_words) if hopeless else ()
                warnings = dict.fromkeys([*error.warnings, *doubts])
                raise NotIdentifiedError(lack or str(error), list(warnings)) from None
            looks.append(Look(step.n_prompts, step.level, step.counts))
        else:
            result = used, captured, fitted, bracket
            if fitted is None:
                found, what = _wider_end(bracket), _ANCHORED_LOOK
            else:
                found, what = (fitted.temperature, fitted.interval), "temperature"
            looks.append(Look(step.n_prompts, step.level, step.counts, *found, hopeless=hopeless, what=what))
        on_look(looks[-1], plan.next_step(looks, n_total).stop)
    assert result is not None  # a run ends with a temperature, or with an error
    used, captured, fitted, bracket = result
    if fitted is None:
        return _anchor(used, captured, bracket, tuple(looks), n_bootstrap, seed, plan.level)
    return AdaptiveFit(used, captured, fitted, bracket, tuple(looks))


_ANCHORED_LOOK = "end of the bracket"


def _wider_end(bracket: Bracket) -> tuple[float | None, tuple[float, float] | None]:
    """The end of the bracket that is known less exactly, and its interval; None for both if no end has an interval."""
    ends = [
        (end, interval)
        for end, interval in ((bracket.low, bracket.low_interval), (bracket.high, bracket.high_interval))
        if end is not None and interval is not None
    ]
    return max(ends, key=lambda one: (one[1][1] - one[1][0]) / one[0], default=(None, None))


def _anchor(
    loaded: LoadedQuestions,
    captured: PairCapture,
    bracket: Bracket,
    looks: tuple[Look, ...],
    n_bootstrap: int,
    seed: int,
    level: float,
) -> AdaptiveFit:
    """The anchored fit of prompts that were run, with the weights of their labels."""
    logits = captured.logits
    found = fit_anchored(logits, captured.choice_mass["base"], weights=loaded.label_weights, level=level)
    counted = fit_temperature(logits, Method("vanilla"), n_bootstrap=n_bootstrap, seed=seed, level=level)
    fitted = replace(
        counted,
        temperature=found.temperature,
        interval=found.interval,
        method=Method("anchored"),
        n_used=found.n_labelled,
    )
    return AdaptiveFit(loaded, captured, fitted, bracket, looks, found)


def _fit(
    captured: PairCapture,
    loaded: LoadedQuestions,
    method: Method,
    n_bootstrap: int,
    seed: int,
    level: float,
) -> TemperatureFit:
    try:
        return fit_temperature(captured.logits, method, n_bootstrap=n_bootstrap, seed=seed, level=level)
    except NotIdentifiedError as error:
        warnings = [*loaded.warnings(), *captured.warnings(yardstick=not method.needs_labels)]
        raise NotIdentifiedError(str(error), warnings) from None
