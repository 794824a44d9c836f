"""Decides when a run has used enough prompts: plans the looks, and sets the levels that keep their intervals valid.

Prompts come in a random order. At each look a run fits the first n of them; it stops as soon as the interval's
half-width is at most `tolerance` times the temperature. Looking repeatedly and stopping when the interval is narrow
raises the error above what the interval's level states. Two measures prevent that.

*Looks are planned.* A pilot and, if many more prompts are needed, one intermediate stage only estimate the spread
(Stein 1945; the intermediate stage is Hall's, 1981). Their results are shown, but no run ends on them. They use only
the interval's relative width, which to first order is independent of whether the interval lies too high or too low,
and consistent, so that the size of the next look is in the limit a constant (Anscombe 1952). It predicts the number
of prompts at which the interval will be narrow enough. The run looks there if that is at most twice its present number
of prompts; otherwise it advances in stages, because a spread estimated from few prompts may be far off.

*Looks share the error.* Counted look k may miss with probability alpha (1 - s) s^(k - 1), where s is the `saved`
share; the look at all prompts gets the rest, so that its interval is the plain one if it is the only counted look.
This is error spending (Lan & DeMets 1983), which does not need the number of looks in advance. The temperature is an
M-estimate, so n (tau_n - tau) is to first order a sum of independent terms, and the standardised errors Z_k of
the looks are jointly normal with correlation sqrt(n_j / n_k). The bound c_k with which look k spends exactly its
part, P(|Z_j| <= c_j for all j < k, |Z_k| > c_k), follows by numerical integration from look to look
(Armitage, McPherson & Rowe 1969). The intervals of all counted looks then hold simultaneously at the overall
level ("repeated confidence intervals", Jennison & Turnbull 1989), for whatever reason the run ends.

*Hopeless runs end early.* At every look, counted or not, the caller may find that no further prompts will make the
result trustworthy. If that test may be wrong with probability doubt 2^-k at look k, it is right at all looks together
with probability 1 - `doubt`, because the parts sum to `doubt`, however the looks depend on each other (Bonferroni).

All of this relies on large n, so no look has fewer than `pilot` prompts. Intervals are for the temperature of the
population that the prompts were drawn from; for the finite list itself they are conservative.
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
_NODES: Final = (
    64  # of the integral over a look's error: enough for looks whose numbers of prompts are 10 % apart
)
_MAX_BOUND: Final = 10.0
_BOUND_WIDTH: Final = 1e-6
_STAGE_SHARE: Final = 0.8  # of the predicted number: the intermediate stage that estimates the spread again
_STAGE_PAYS: Final = (
    1.5  # the stage is skipped unless it has at least this many times the prompts of the last look
)
_MIN_GROWTH: Final = 1.1  # from one counted look to the next
_MAX_GROWTH: Final = 2  # from any look to the next
_GAMMA: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX: Final = (
    (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)),
    (np.uint64(27), np.uint64(0x94D049BB133111EB)),
)


@dataclass(frozen=True)
class Step:
    """The next step of a run.

    Attributes
    ----------
    stop : whether the last look is the result; then the other fields describe it
    n_prompts : fit the first n_prompts of the order (may be the last look's number again, at another level)
    level : level of that fit's interval
    counts : whether the run may end there; else the interval is provisional, for the user and the plan
    doubt : the probability with which a test that the run is hopeless may be wrong at this look
    """

    stop: bool
    n_prompts: int
    level: float
    counts: bool
    doubt: float


@dataclass(frozen=True)
class Look:
    """A fit made at a `Step`: the step's numbers, and the result.

    `temperature` and `interval` are None if the prompts did not determine a temperature. `hopeless`: no further
    prompts will make the result trustworthy, so the run ends here. `what` was found: "temperature", or what an
    anchored fit goes by (see `AdaptiveFit`).
    """

    n_prompts: int
    level: float
    counts: bool
    temperature: float | None = None
    interval: tuple[float, float] | None = None
    hopeless: bool = False
    what: str = "temperature"

    @property
    def tolerance(self) -> float:
        """Half of the interval's width divided by the temperature; infinite without a temperature."""
        if self.temperature is None or self.interval is None:
            return math.inf
        return (self.interval[1] - self.interval[0]) / 2.0 / self.temperature


@dataclass(frozen=True)
class AdaptivePlan:
    """The rule of a run: a pure function of its looks, so that a run can be resumed from their list.

    Attributes
    ----------
    tolerance : above 0; the run stops when the interval's half-width divided by the temperature is at most this
    level : above 0 and below 1; level of the result's interval, all looks together
    pilot : 1 or more; prompts of the first stage, and the fewest that a run ends on while others are left
    margin : 1 or more; factor on the predicted number of prompts
    saved : above 0 and below 1; the share of the remaining error that a look leaves to later ones
    doubt : above 0 and below 1; probability that a run wrongly ends as hopeless, all looks together

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
        """The step that follows `looks` (in the order in which they were made; empty at first) of n_total prompts.

        A run that follows these steps makes a handful of looks and ends with a narrow interval, at all prompts, or as
        hopeless. The caller may add provisional looks of its own (`counts` false).
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
        """A look at n_prompts, or at all prompts if there are fewer; the look at all always counts and spends the rest.

        A counted look after which the prompts would not suffice for another is made at all prompts at once. If
        n_prompts exceeds the greatest growth, the look is made at that growth and is provisional.
        """
        if counts and _grow(n_prompts) > n_total:
            n_prompts = n_total
        n_prompts = min(n_prompts, n_total)
        reach = max(self.pilot, _MAX_GROWTH * looks[-1].n_prompts) if looks else n_prompts
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
        """The number of prompts at which a counted look will be narrow enough: widths shrink with the root of n.

        Its level depends slightly on its distance from the looks before, hence a few iterations.
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
        """Level of the interval of a counted look at n_prompts that follows `looks`."""
        spent = [(look.n_prompts, _NORMAL.inv_cdf((1.0 + look.level) / 2.0)) for look in looks if look.counts]
        part = (1.0 - self.level) * (self.saved ** len(spent))
        if n_prompts < n_total:
            part *= 1.0 - self.saved
        return 2.0 * _NORMAL.cdf(joint_bound(spent, n_prompts, part)) - 1.0


def joint_bound(before: Sequence[tuple[int, float]], n: int, part: float) -> float:
    """The bound c with P(|Z_j| <= c_j for every look before, |Z| > c) = part, for a look at n.

    before: (n_j, c_j) of the earlier looks, n_1 < n_2 < ... < n; part: above 0 and below 1. The Z are standard
    normal with correlation sqrt(n_j / n_k): the values of one Brownian path at the times n_j, divided by sqrt(n_j).
    The path's density at a look, restricted to paths that have exceeded no bound, is carried to the next look by
    Gauss-Legendre integration. Without earlier looks the result is the normal quantile.
    """
    if not before:
        return _NORMAL.inv_cdf(1.0 - part / 2.0)
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    positions = np.zeros(1)
    masses = np.ones(1)  # probability mass at `positions`, without paths that exceeded a bound
    time = 0
    for n_j, c_j in before:
        reach = c_j * math.sqrt(n_j)
        deviation = math.sqrt(n_j - time)
        steps = (reach * nodes[:, None] - positions) / deviation
        density = np.exp(-0.5 * steps * steps) @ masses / (deviation * math.sqrt(2.0 * math.pi))
        positions, masses, time = reach * nodes, reach * weights * density, n_j
    deviation = math.sqrt(n - time)
    low, high = 0.0, _MAX_BOUND
    while high - low > _BOUND_WIDTH:
        middle = (low + high) / 2.0
        above = [
            _NORMAL.cdf((position - middle * math.sqrt(n)) / deviation) for position in positions.tolist()
        ]
        low, high = (middle, high) if 2.0 * float(np.dot(above, masses)) > part else (low, middle)
    return high


def _grow(n_prompts: int) -> int:
    return math.ceil(_MIN_GROWTH * n_prompts)


def draw_order(n: int, seed: int) -> npt.NDArray[np.int64]:
    """int64 [n]: the numbers 0 to n - 1 in a random order that depends on `seed` (0 to 2^64 - 1) alone.

    Sorted by SplitMix64's output for each number (Steele et al. 2014). It is a bijection, so there are no ties and the
    order is the same on every platform and with every version of NumPy.
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
