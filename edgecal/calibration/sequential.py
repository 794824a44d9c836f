"""When enough prompts have been seen: sizes of the looks, and the levels that keep their interval honest.

Prompts come in a random order. A run looks at the first n of them, fits, and stops as soon as the interval's
half-width is at most `tolerance` times the temperature. Whoever looks more than once and stops when the
interval pleases has more chances to be wrong than the interval's level says, so two things are done.

*Where to look is planned.* A pilot and, where the way is long, one more stage on the way estimate the spread
alone (Stein 1945; the stage on the way is Hall's 1981). They are shown but no run ends on them, and what they
use is the interval's relative width: to first order independent of whether the interval lies too high or too
low, and consistent, so that the size of the next look is in the limit a constant (Anscombe 1952). From it
follows the number of prompts at which the interval will be narrow enough, and that is where the run looks, if that
is no more than twice as far as it is. A spread from few prompts may be far off, so a longer way is gone in stages.

*Looks share the error.* Counted look k may miss with probability alpha (1 - s) s^(k - 1), s the `saved` share; what is
left at the end goes to the look at all prompts, which is thus the plain interval if it is the only one. This
is error spending (Lan & DeMets 1983): it asks for no number of looks in advance. The temperature is an
M-estimate, so n (tau_n - tau) is to first order a sum of independent terms, and the standardised errors Z_k of
the looks are jointly normal with correlation sqrt(n_j / n_k). The bound c_k with which look k spends no more
than its part, P(|Z_j| <= c_j for all j < k, |Z_k| > c_k), follows by numerical integration from look to look
(Armitage, McPherson & Rowe 1969). The intervals of the counted looks then hold all at once with the overall
level ("repeated confidence intervals", Jennison & Turnbull 1989), whatever reason ends the run.

*A run that cannot be settled ends early.* At every look, counted or not, whoever fits may find that no more prompts
will make the result believable. A test for that is right at every look together with probability 1 - `doubt` if at
look k it may be wrong with probability doubt 2^-k: the parts sum to `doubt`, whatever the looks depend on (Bonferroni).

What this leans on is large n: nothing is looked at before `pilot` prompts. Intervals are for the temperature
of the population that the prompts were drawn from; for the finite list itself they are on the safe side.
Knows numbers of prompts and intervals; nothing of prompts, models, methods, or how an interval is made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt

from edgecal.errors import InputError

__all__ = ["DEFAULT_TOLERANCE", "AdaptivePlan", "Look", "Step", "draw_order", "joint_bound"]

DEFAULT_TOLERANCE: Final = 0.05

_NORMAL: Final = NormalDist()
_NODES: Final = 64  # of the integral over a look's error: enough for numbers of prompts 10 % apart
_MAX_BOUND: Final = 10.0
_BOUND_WIDTH: Final = 1e-6
_STAGE_SHARE: Final = 0.8  # of the predicted number: where the spread is estimated once more
_STAGE_PAYS: Final = 1.5  # a stage that would not add half as many prompts again is left out
_LEAST_GROWTH: Final = 1.1  # from one counted look to the next
_MOST_GROWTH: Final = 2  # from any look to the next
_GAMMA: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX: Final = (
    (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)),
    (np.uint64(27), np.uint64(0x94D049BB133111EB)),
)


@dataclass(frozen=True)
class Step:
    """What to do next.

    Attributes
    ----------
    stop : the last look is the result, and the other fields are its
    n_prompts : fit the first n_prompts of the order (may be as many as the last time, at another level)
    level : of the interval to be computed then
    counts : whether the run may end there; else the interval is provisional, for the user and the plan
    doubt : the probability with which each test that the run is hopeless may be wrong at this look
    """

    stop: bool
    n_prompts: int
    level: float
    counts: bool
    doubt: float


@dataclass(frozen=True)
class Look:
    """A fit that was made as a `Step` asked: its numbers, and what came out.

    `temperature` and `interval` are None where the prompts did not determine a temperature. `hopeless`: no more
    prompts will make the result believable, so the run ends here.
    """

    n_prompts: int
    level: float
    counts: bool
    temperature: float | None = None
    interval: tuple[float, float] | None = None
    hopeless: bool = False

    @property
    def tolerance(self) -> float:
        """Half of the interval's width over the temperature; infinite without a temperature."""
        if self.temperature is None or self.interval is None:
            return math.inf
        return (self.interval[1] - self.interval[0]) / 2.0 / self.temperature


@dataclass(frozen=True)
class AdaptivePlan:
    """The rule of a run: pure, so that a run can be continued from the list of its looks.

    Attributes
    ----------
    tolerance : above 0; the interval's half-width over the temperature at which to stop
    level : above 0 and below 1; of the interval of the result, all looks together
    pilot : 1 or more; prompts of the first stage, and the fewest that a run ends on while others are left
    margin : 1 or more; how many times the predicted number of prompts to look at
    saved : above 0 and below 1; the share of the remaining error that a look leaves to those after it
    doubt : above 0 and below 1; how likely a run may wrongly end as hopeless, all looks together

    Raises InputError outside these ranges.
    """

    tolerance: float = DEFAULT_TOLERANCE
    level: float = 0.95
    pilot: int = 100
    margin: float = 1.15
    saved: float = 0.2
    doubt: float = 0.05

    def __post_init__(self) -> None:
        for name, value, fits, range_ in (
            ("tolerance", self.tolerance, 0.0 < self.tolerance < math.inf, "a number above 0"),
            ("level", self.level, 0.0 < self.level < 1.0, "a number between 0 and 1"),
            ("pilot", self.pilot, self.pilot >= 1, "1 or more"),
            ("margin", self.margin, 1.0 <= self.margin < math.inf, "1 or more"),
            ("saved", self.saved, 0.0 < self.saved < 1.0, "a number between 0 and 1"),
            ("doubt", self.doubt, 0.0 < self.doubt < 1.0, "a number between 0 and 1"),
        ):
            if not fits:
                raise InputError(f"the plan's {name} is {value}, expected {range_}")

    def next_step(self, looks: Sequence[Look], n_total: int) -> Step:
        """What follows after `looks`, in the order made, when n_total prompts are there in all.

        Asked first with no looks. A run that follows it makes a handful of looks and ends: with a narrow
        interval, at all prompts, or as hopeless. Provisional looks of the caller's own may stand among them (counts
        false).
        """
        if not looks:
            return self._at(self.pilot, looks, n_total, counts=False)
        last = looks[-1]
        if last.hopeless or (last.counts and (last.tolerance <= self.tolerance or last.n_prompts >= n_total)):
            return Step(True, last.n_prompts, last.level, last.counts, 0.0)
        if math.isinf(last.tolerance) or last.n_prompts < self.pilot:
            return self._at(max(self.pilot, 2 * last.n_prompts), looks, n_total, counts=False)
        needed = self._predict(looks, n_total)
        counted = [look.n_prompts for look in looks if look.counts]
        if counted:
            return self._at(max(needed, _grow(counted[-1])), looks, n_total, counts=True)
        stage = math.ceil(_STAGE_SHARE * needed)
        if needed < n_total and stage >= _STAGE_PAYS * last.n_prompts:
            return self._at(stage, looks, n_total, counts=False)
        return self._at(needed, looks, n_total, counts=True)

    def _at(self, n_prompts: int, looks: Sequence[Look], n_total: int, *, counts: bool) -> Step:
        """A look at n_prompts, or at all there are: that one always counts, and spends what is left.

        A counted look that would leave less than the least growth is made at all of them at once. One that is too
        far away is made provisionally, half way or nearer.
        """
        if counts and _grow(n_prompts) > n_total:
            n_prompts = n_total
        n_prompts = min(n_prompts, n_total)
        reach = max(self.pilot, _MOST_GROWTH * looks[-1].n_prompts) if looks else n_prompts
        if n_prompts > reach:
            n_prompts, counts = reach, False
        counts = counts or n_prompts == n_total
        return Step(
            stop=False,
            n_prompts=n_prompts,
            level=self._level_at(n_prompts, looks, n_total) if counts else self.level,
            counts=counts,
            doubt=self.doubt * 0.5 ** (len(looks) + 1),
        )

    def _predict(self, looks: Sequence[Look], n_total: int) -> int:
        """At how many prompts a counted look will be narrow enough: widths shrink with the root of n.

        Its level depends a little on how far it is from the looks before, hence a few rounds.
        """
        last = looks[-1]
        spread = last.tolerance / _NORMAL.inv_cdf((1.0 + last.level) / 2.0) * math.sqrt(last.n_prompts)
        least = max((_grow(look.n_prompts) for look in looks if look.counts), default=1)
        needed = last.n_prompts
        for _ in range(3):
            after = min(max(needed, least), n_total)
            bound = _NORMAL.inv_cdf((1.0 + self._level_at(after, looks, n_total)) / 2.0)
            wanted = self.margin * (bound * spread / self.tolerance) ** 2
            needed = max(last.n_prompts, math.ceil(min(wanted, n_total)))
        return needed

    def _level_at(self, n_prompts: int, looks: Sequence[Look], n_total: int) -> float:
        """Level of the interval of a counted look at n_prompts after `looks`."""
        spent = [(look.n_prompts, _NORMAL.inv_cdf((1.0 + look.level) / 2.0)) for look in looks if look.counts]
        part = (1.0 - self.level) * (self.saved ** len(spent))
        if n_prompts < n_total:
            part *= 1.0 - self.saved
        return 2.0 * _NORMAL.cdf(joint_bound(spent, n_prompts, part)) - 1.0


def joint_bound(before: Sequence[tuple[int, float]], n: int, part: float) -> float:
    """The bound c with P(|Z_j| <= c_j for every look before, |Z| > c) = part, for a look at n.

    before: (n_j, c_j) of the looks before, n_1 < n_2 < ... < n; part: above 0 and below 1. The Z are standard
    normal with correlation sqrt(n_j / n_k): the values of one Brownian path at the times n_j, divided by their
    root. The density of the path at a look, on the event that no bound was passed, is carried from one to the
    next by integration over Gauss-Legendre nodes. Without looks before, this is the normal quantile.
    """
    if not before:
        return _NORMAL.inv_cdf(1.0 - part / 2.0)
    base, weights = np.polynomial.legendre.leggauss(_NODES)
    places = np.zeros(1)
    masses = np.ones(1)  # probability mass at `places`, paths that passed a bound left out
    time = 0
    for n_j, c_j in before:
        reach = c_j * math.sqrt(n_j)
        gap = math.sqrt(n_j - time)
        steps = (reach * base[:, None] - places) / gap
        density = np.exp(-0.5 * steps * steps) @ masses / (gap * math.sqrt(2.0 * math.pi))
        places, masses, time = reach * base, reach * weights * density, n_j
    gap = math.sqrt(n - time)
    low, high = 0.0, _MAX_BOUND
    while high - low > _BOUND_WIDTH:
        middle = (low + high) / 2.0
        above = [_NORMAL.cdf((place - middle * math.sqrt(n)) / gap) for place in places.tolist()]
        low, high = (middle, high) if 2.0 * float(np.dot(above, masses)) > part else (low, middle)
    return high


def _grow(n_prompts: int) -> int:
    return math.ceil(_LEAST_GROWTH * n_prompts)


def draw_order(n: int, seed: int) -> npt.NDArray[np.int64]:
    """int64 [n]: the numbers 0 to n - 1 in a random order that `seed` (0 to 2^64 - 1) alone decides.

    Sorted by SplitMix64's output for the number (Steele et al. 2014): a bijection, so there are no ties, and
    the same order on every platform and with every version of NumPy.
    """
    if not 0 <= seed < 2**64:
        raise InputError(f"the seed is {seed}, expected 0 to 2^64 - 1")
    key = int(_mix(np.array([(seed + int(_GAMMA)) % 2**64], dtype=np.uint64))[0])
    numbers = np.arange(1, n + 1, dtype=np.uint64) * _GAMMA + np.array([key], dtype=np.uint64)
    order: npt.NDArray[np.int64] = np.argsort(_mix(numbers), kind="stable").astype(np.int64)
    return order


def _mix(z: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    for shift, factor in _MIX:
        z = (z ^ (z >> shift)) * factor
    mixed: npt.NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return mixed
