"""The plan of a run that stops early: its bounds against simulated paths, and what it asks for when."""

import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest

from edgecal.calibration.sequential import AdaptivePlan, Look, draw_order, joint_bound
from edgecal.errors import InputError

NORMAL = NormalDist()


def run_plan(plan, n_total, fit):
    """The looks of a run; fit(n, level) gives (temperature, interval)."""
    looks = []
    while not (step := plan.next_step(looks, n_total)).stop:
        looks.append(Look(step.n_prompts, step.level, step.counts, *fit(step.n_prompts, step.level)))
        assert len(looks) < 40
    assert (step.n_prompts, step.level) == (looks[-1].n_prompts, looks[-1].level)
    return looks


def exact_fit(spread):
    """A temperature of 2 whose interval has exactly the width that its size and level ask for."""

    def fit(n, level):
        half = NORMAL.inv_cdf((1 + level) / 2) * spread * 2.0 / math.sqrt(n)
        return 2.0, (2.0 - half, 2.0 + half)

    return fit


def test_the_first_bound_is_the_normal_quantile():
    assert joint_bound([], 100, 0.05) == pytest.approx(1.959964, abs=1e-6)


@pytest.mark.parametrize("sizes", [(100, 110, 121), (100, 200, 1000)])
def test_bounds_spend_what_they_are_asked_to(sizes):
    """Monte-Carlo twin: paths with independent increments, counted where they first pass a bound."""
    parts = (0.04, 0.03, 0.02)
    before = []
    for n, part in zip(sizes, parts, strict=True):
        before.append((n, joint_bound(before, n, part)))
    rng = np.random.default_rng(1)
    n_paths = 400_000
    place, time, inside = np.zeros(n_paths), 0, np.ones(n_paths, dtype=bool)
    for (n, bound), part in zip(before, parts, strict=True):
        place += rng.normal(size=n_paths) * math.sqrt(n - time)
        time = n
        passed = inside & (np.abs(place) > bound * math.sqrt(n))
        assert passed.mean() == pytest.approx(part, abs=5 * math.sqrt(part / n_paths))
        inside &= ~passed


def test_a_list_shorter_than_the_pilot_gives_the_plain_interval():
    looks = run_plan(AdaptivePlan(), 80, exact_fit(5.0))
    assert [(look.n_prompts, look.counts) for look in looks] == [(80, True)]
    assert looks[0].level == pytest.approx(0.95, abs=1e-12)


def test_a_list_that_is_too_short_is_doubled_up_to_and_gives_the_plain_interval():
    looks = run_plan(AdaptivePlan(tolerance=0.01), 600, exact_fit(0.5))
    assert [(look.n_prompts, look.counts) for look in looks] == [
        (100, False),
        (200, False),
        (400, False),
        (600, True),
    ]
    assert looks[-1].level == pytest.approx(0.95, abs=1e-12)


@pytest.mark.parametrize("spread", [0.3, 0.9, 3.0])
def test_no_look_is_at_more_than_twice_as_many_prompts_as_the_one_before(spread):
    looks = run_plan(AdaptivePlan(tolerance=0.05), 100_000, exact_fit(spread))
    for before, after in itertools.pairwise(looks):
        assert before.n_prompts <= after.n_prompts <= 2 * before.n_prompts
    assert looks[-1].tolerance <= 0.05 and [look.counts for look in looks].count(True) == 1


def test_a_spread_that_shrinks_on_the_way_saves_what_a_jump_would_have_run():
    """A pilot that asks for far more prompts than are needed: 100, then all 2,000, in earlier versions."""
    looks = run_plan(
        AdaptivePlan(tolerance=0.05), 2000, lambda n, level: exact_fit(3.0 if n < 200 else 0.4)(n, level)
    )
    assert [look.n_prompts for look in looks][:2] == [100, 200] and looks[-1].n_prompts < 400


def test_a_hopeless_look_ends_a_run_whether_it_counts_or_not():
    for counts in (False, True):
        look = Look(100, 0.95, counts, 2.0, (1.0, 4.0), hopeless=True)
        step = AdaptivePlan().next_step([look], 10_000)
        assert (step.stop, step.n_prompts, step.level, step.counts) == (True, 100, 0.95, counts)


def test_the_doubts_of_all_looks_sum_to_no_more_than_the_plans():
    plan = AdaptivePlan(tolerance=0.001, doubt=0.04)
    looks, doubts = [], []
    while not (step := plan.next_step(looks, 1_000_000)).stop:
        doubts.append(step.doubt)
        looks.append(
            Look(step.n_prompts, step.level, step.counts, *exact_fit(3.0)(step.n_prompts, step.level))
        )
    assert doubts[:3] == [0.02, 0.01, 0.005] and sum(doubts) < 0.04 and len(doubts) > 10


def test_a_steady_spread_takes_a_pilot_stages_and_one_look():
    plan = AdaptivePlan(tolerance=0.05)
    looks = run_plan(plan, 10_000, exact_fit(0.6))
    assert [look.counts for look in looks] == [False] * 3 + [True]
    assert looks[-1].level == pytest.approx(1 - 0.05 * (1 - plan.saved), abs=1e-12)
    bound = NORMAL.inv_cdf((1 + looks[-1].level) / 2)
    assert looks[-1].n_prompts == math.ceil(plan.margin * (bound * 0.6 / 0.05) ** 2)
    assert looks[-1].tolerance == pytest.approx(0.05 / math.sqrt(plan.margin), rel=1e-3)


def test_a_narrow_pilot_is_looked_at_again_as_it_is():
    looks = run_plan(AdaptivePlan(tolerance=0.5), 10_000, exact_fit(0.6))
    assert [(look.n_prompts, look.counts) for look in looks] == [(100, False), (100, True)]


def test_a_look_that_is_too_wide_goes_on_and_spends_more():
    plan = AdaptivePlan(tolerance=0.05)

    def wider(n, level):  # the spread shows only behind the stages that estimate it
        return exact_fit(0.6 if n < 600 else 0.9)(n, level)

    looks = run_plan(plan, 100_000, wider)
    counted = [look for look in looks if look.counts]
    assert len(counted) >= 2
    assert counted[-1].tolerance <= 0.05
    assert all(b.n_prompts >= 1.1 * a.n_prompts for a, b in itertools.pairwise(counted))
    spent = [(look.n_prompts, NORMAL.inv_cdf((1 + look.level) / 2)) for look in counted]
    part = 0.05 * (1 - plan.saved) * plan.saved
    assert spent[1][1] == pytest.approx(joint_bound(spent[:1], spent[1][0], part), abs=1e-5)


def test_without_a_temperature_it_goes_on_to_the_end():
    looks = run_plan(AdaptivePlan(), 1000, lambda n, level: (None, None))
    assert [look.n_prompts for look in looks] == [100, 200, 400, 800, 1000]
    assert [look.counts for look in looks] == [False] * 4 + [True]
    assert math.isinf(looks[-1].tolerance)


def test_a_provisional_look_never_ends_a_run():
    look = Look(5000, 0.95, False, 2.0, (1.999, 2.001))
    step = AdaptivePlan().next_step([look], 10_000)
    assert (step.stop, step.n_prompts, step.counts) == (False, 5000, True)


@pytest.mark.parametrize(
    "options",
    [
        {"tolerance": 0.0},
        {"tolerance": math.nan},
        {"tolerance": math.inf},
        {"level": 1.0},
        {"pilot": 0},
        {"margin": 0.9},
        {"saved": 1.0},
        {"doubt": 0.0},
    ],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(InputError, match=f"the plan's {next(iter(options))} is .*, expected"):
        AdaptivePlan(**options)


def test_the_order_is_a_permutation_that_the_seed_decides():
    order = draw_order(1000, 7)
    assert sorted(order.tolist()) == list(range(1000))
    np.testing.assert_array_equal(order, draw_order(1000, 7))
    assert not np.array_equal(order, draw_order(1000, 8))
    assert draw_order(5, 0).tolist() == twin_order(5, 0)
    assert draw_order(5, 2**64 - 1).tolist() == twin_order(5, 2**64 - 1)
    assert draw_order(0, 0).tolist() == []
    with pytest.raises(InputError, match="seed"):
        draw_order(3, -1)


def twin_order(n, seed):
    mask, gamma = 2**64 - 1, 0x9E3779B97F4A7C15

    def mix(z):
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & mask
        return z ^ (z >> 31)

    key = mix((seed + gamma) & mask)
    return sorted(range(n), key=lambda i: mix(((i + 1) * gamma + key) & mask))


def test_the_order_favours_no_place():
    places = np.array([np.argsort(draw_order(50, seed)) for seed in range(2000)])
    assert np.abs(places.mean(axis=0) - 24.5).max() < 5 * 14.4 / math.sqrt(2000)
    assert abs(np.corrcoef(places[:, 0], places[:, 1])[0, 1]) < 0.1
