"""Do no harm: states what speaks against a temperature that a fit has found, as figures and as one line of text each.

Two independent tests. Without labels, a temperature is *settled* if the bracket is narrow and the base model puts most
of its probability on the choices, because only then can it serve as a yardstick. With labels, which no label-free
method uses, a temperature is *harmful* if it does not make them more probable.

The limits come from the choosing half of the stored small and real pairs: docs/pairs.md shows what others would let
through and stop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from edgecal.calibration.arrays import FloatArray
from edgecal.calibration.bracket import MAX_SHARE_LOST, Bracket
from edgecal.calibration.choice_logits import ChoiceLogits
from edgecal.calibration.method import MIN_EXAMPLES
from edgecal.calibration.search import TAU_MAX, TAU_MIN
from edgecal.results.fitting import MAX_RATIO, LabelVerdict

__all__ = [
    "MAX_RATIO",
    "MIN_MASS",
    "LabelCheck",
    "check_choices",
    "check_labels",
    "doubt_mass",
    "find_doubts",
    "holds_one",
    "is_hopeless",
]

MIN_MASS: Final = 0.8  # the base model's mean probability on all choices together
MIN_LABELLED: Final = 30

_REMEDY: Final = "use labels, of which a handful helps (--labels FILE, --anchor), or another base model"


def doubt_mass(base_mass: float, rather: str = "", remedy: str = "") -> list[str]:
    """Say in one line why the base model cannot serve as a yardstick; an empty list if it can. Parameters as in
    `find_doubts`."""
    if base_mass >= MIN_MASS:
        return []
    text = f"the base model puts only {base_mass:.1%} of its probability on the choices{rather}; at least "
    return [f"{text}{MIN_MASS:.0%} is needed for it to be a yardstick: {remedy or _REMEDY}"]


def find_doubts(
    bracket: Bracket, base_mass: float, rather: str = "", remedy: str = "", advice: str = _REMEDY
) -> tuple[str, ...]:
    """Say why a temperature from these prompts is not settled, one line per reason: figure, limit, what to do. Empty if
    it is settled.

    base_mass: the base model's mean probability on the choices, 0 to 1. rather: a clause to append that says where the
    base model puts its probability instead. remedy: advice for that case, in place of the general `advice`.
    """
    doubts = doubt_mass(base_mass, rather, remedy or advice)
    if bracket.n_prompts < MIN_EXAMPLES:
        doubts.append(
            f"{bracket.n_prompts} prompts are too few for a bracket, which needs at least {MIN_EXAMPLES}: give more "
            "prompts"
        )
        return tuple(doubts)
    if bracket.low is None:
        doubts.append(
            f"the bracket has no low end: at no temperature from {TAU_MIN} to {TAU_MAX:g} does the chat model support "
            f"the base model's evidence exactly as much as the base model itself, so how confident the chat model may "
            f"be cannot be determined without labels: {advice}"
        )
    if bracket.high is None:
        doubts.append(
            f"the bracket has no high end: no temperature between {TAU_MIN} and {TAU_MAX:g} brings the chat model "
            f"nearest to the base model, so the two have little in common: {advice}"
        )
    for name, end, lost in (
        ("low", bracket.low, bracket.low_lost),
        ("high", bracket.high, bracket.high_lost),
    ):
        if end is not None and lost > MAX_SHARE_LOST:
            doubts.append(
                f"the bracket's {name} end, {end:.3g}, is missing in {lost:.0%} of the bootstrap refits, at most "
                f"{MAX_SHARE_LOST:.0%} may lack it: give more prompts; {advice}"
            )
    if bracket.low is None or bracket.high is None:
        return tuple(doubts)
    ends = f"{_end(bracket.low, bracket.low_interval)} to {_end(bracket.high, bracket.high_interval)}"
    if bracket.ratio > MAX_RATIO:
        doubts.append(
            f"the right temperature may lie anywhere from {ends}, a ratio of {bracket.ratio:.2g} where at most "
            f"{MAX_RATIO:g} is allowed, and prompts without labels cannot say where: {advice}"
        )
    elif holds_one(bracket):
        doubts.append(
            f"the right temperature lies from {ends}, which holds 1, so the chat model may be calibrated as it is: "
            + ("leave it so, or use labels (--labels FILE, --anchor)" if advice == _REMEDY else "leave it so")
        )
    return tuple(doubts)


def holds_one(bracket: Bracket) -> bool:
    """Whether the right temperature may be 1, by the ends' intervals where they have any; False without both ends."""
    if bracket.low is None or bracket.high is None:
        return False
    low = min(bracket.low_interval or (bracket.low,))
    high = max(bracket.high_interval or (bracket.high,))
    return min(low, bracket.high) <= 1.0 <= max(high, bracket.low)


def is_hopeless(bracket: Bracket, base_mass: FloatArray, doubt: float) -> bool:
    """Whether no number of further prompts like these will settle a temperature; wrong with probability <= `doubt`.

    True if the probability that the ratio is within its limit (by the bootstrap), or that the mean mass is (by a normal
    interval), is at most half of `doubt`. base_mass: float64 [n], the base model's probability on the choices of each
    prompt. With few resamples (below 2 / doubt) the bracket alone never gives True.
    """
    settled = np.count_nonzero(bracket.ratios <= MAX_RATIO)
    if (settled + 1) / (bracket.ratios.size + 1) <= doubt / 2.0:
        return True
    reach = NormalDist().inv_cdf(1.0 - doubt / 2.0) * float(np.std(base_mass)) / math.sqrt(base_mass.size)
    return float(np.mean(base_mass)) + reach < MIN_MASS


@dataclass(frozen=True)
class LabelCheck:
    """The negative log-likelihood of labels (mean, nats) before and after a temperature.

    n : labelled prompts; nll_before, nll_after, difference (after minus before); interval : the difference's 95 %
    interval from a paired bootstrap; found : "better" (the whole interval is below 0), "worse" (above) or "undecided".
    """

    n: int
    nll_before: float
    nll_after: float
    difference: float
    interval: tuple[float, float]
    found: Literal["better", "worse", "undecided"]

    @property
    def harmful(self) -> bool:
        """Whether the labels fail to show that the temperature helps."""
        return self.found != "better"

    @property
    def doubt(self) -> str:
        """The objection in one line: both figures, and what to do."""
        return self.explain(anchor=True)

    def explain(self, *, anchor: bool) -> str:
        """The same; `anchor`: whether an anchored fit is something to do."""
        low, high = self.interval
        figures = (
            f"on {self.n} labelled prompts the negative log-likelihood is {self.nll_before:.4f} before and "
            f"{self.nll_after:.4f} after (difference {self.difference:+.4f}, 95 % interval {low:+.4f} to {high:+.4f})"
        )
        if self.found == "worse":
            rather = ", or fit on the labels (--anchor)" if anchor else ""
            return f"labels say that it does harm: {figures}: leave the model as it is{rather}"
        rather = ", or fit on them (--anchor)" if anchor else ""
        return f"labels do not show that it helps: {figures}: more labelled prompts may{rather}"

    def to_dict(self) -> LabelVerdict:
        """The figures as JSON-ready values."""
        return {
            "n": self.n,
            "nll_before": self.nll_before,
            "nll_after": self.nll_after,
            "difference": self.difference,
            "interval": list(self.interval),
            "found": self.found,
        }


def check_labels(
    logits: ChoiceLogits, temperature: float, *, n_bootstrap: int = 1000, seed: int = 0
) -> LabelCheck | None:
    """Judges a temperature on the labelled prompts; None if there are fewer than 30.

    Draws are a function of `seed` alone; n_bootstrap is 1 or more.
    """
    labelled = np.flatnonzero(logits.labels >= 0)
    labels = logits.labels[labelled]

    def losses(tau: float) -> FloatArray:
        z = logits.chat_final[labelled].astype(np.float64) / tau
        nll: FloatArray = _log_sum(z) - z[np.arange(labels.size), labels]
        return nll

    return _compare_losses(losses(1.0), losses(temperature), n_bootstrap, seed)


def check_choices(
    logits: ChoiceLogits, judge: npt.NDArray[np.floating], *, n_bootstrap: int = 1000, seed: int = 0
) -> LabelCheck | None:
    """Judges the confidence that other logits, float [n, k_max], give to the chat model's choices, against its own.

    That is a number for one option of each prompt, so the negative log-likelihood is that of whether it is right. None
    and draws as for `check_labels`.
    """
    labelled = np.flatnonzero(logits.labels >= 0)
    rows, choices = np.arange(labelled.size), logits.chat_final[labelled].argmax(axis=1)
    right = choices == logits.labels[labelled]

    def losses(z: npt.NDArray[np.floating]) -> FloatArray:
        z = z[labelled].astype(np.float64)
        total, chosen = _log_sum(z), z[rows, choices]
        z[rows, choices] = -np.inf
        nll: FloatArray = total - np.where(right, chosen, _log_sum(z))
        return nll

    return _compare_losses(losses(logits.chat_final), losses(judge), n_bootstrap, seed)


def _log_sum(z: FloatArray) -> FloatArray:
    """The logarithm of the sum of exponentials of each row, [n, k] to [n]."""
    top = z.max(axis=1)
    total: FloatArray = top + np.log(np.exp(z - top[:, None]).sum(axis=1))
    return total


def _compare_losses(before: FloatArray, after: FloatArray, n_bootstrap: int, seed: int) -> LabelCheck | None:
    from edgecal.calibration.resample_kernels import draw_counts

    n = before.size
    if n < MIN_LABELLED:
        return None
    change = after - before
    means = [float(draw_counts(n, np.uint64(seed), b) @ change) / n for b in range(n_bootstrap)]
    low, high = np.quantile(means, [0.025, 0.975]).tolist()
    found: Literal["better", "worse", "undecided"]
    found = "better" if high < 0.0 else "worse" if low > 0.0 else "undecided"
    return LabelCheck(n, float(before.mean()), float(after.mean()), float(change.mean()), (low, high), found)


def _end(end: float, interval: tuple[float, float] | None) -> str:
    if interval is None:
        return f"{end:.3g}"
    return f"{end:.3g} ({interval[0]:.3g} to {interval[1]:.3g})"
