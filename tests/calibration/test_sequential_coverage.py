"""The interval that a run reports when it stops: how often it holds the truth, over many simulated runs.

Pairs of models without end are simulated; the truth is the optimum of very many prompts. Each run draws fresh
prompts and stops as the plan says, with the real fit and the real bootstrap. The same runs are also made as one
would without a plan: a look every few prompts, stopping at the first interval that is narrow enough.
"""

import math

import numba
import numpy as np
import pytest
from support.choice_data import make_choice_logits

from edgecal.calibration import AdaptivePlan, Look, Method, fit_temperature

N_RESAMPLES = 200
METHOD = Method("naive")


def make_pair(n, seed):
    return make_choice_logits(n, 1, 4, seed=seed, layers=False, labels=False, noise=0.6)


@pytest.fixture(scope="module")
def truth():
    taus = [fit_temperature(make_pair(200_000, seed), METHOD, n_bootstrap=0).temperature for seed in (1, 2)]
    assert taus[0] == pytest.approx(taus[1], rel=0.003)
    return sum(taus) / 2


@pytest.fixture(autouse=True)
def one_thread():
    before = numba.get_num_threads()
    numba.set_num_threads(1)  # thousands of short calls; the bits are the same
    yield
    numba.set_num_threads(before)


def fit_first(data, n, level, seed):
    fit = fit_temperature(data.take(np.arange(n)), METHOD, n_bootstrap=N_RESAMPLES, level=level, seed=seed)
    return Look(n, level, True, fit.temperature, fit.interval)


def run_planned(data, seed, plan):
    looks = []
    while not (step := plan.next_step(looks, data.n_prompts)).stop:
        look = fit_first(data, step.n_prompts, step.level, seed)
        looks.append(Look(look.n_prompts, look.level, step.counts, look.temperature, look.interval))
    return looks[-1]


def run_greedy(data, seed, tolerance):
    for n in range(30, data.n_prompts + 1, 3):
        look = fit_first(data, n, 0.95, seed)
        if look.tolerance <= tolerance:
            break
    return look


def holds(look, truth):
    return look.interval[0] <= truth <= look.interval[1]


def test_planned_runs_cover_as_claimed_and_greedy_ones_do_not(truth):
    n_runs, tolerance = 500, 0.1
    planned, greedy = [], []
    for seed in range(n_runs):
        data = make_pair(300, 1000 + seed)
        planned.append(holds(run_planned(data, seed, AdaptivePlan(tolerance=tolerance)), truth))
        greedy.append(holds(run_greedy(data, seed, tolerance), truth))
    noise = math.sqrt(0.95 * 0.05 / n_runs)
    assert np.mean(planned) >= 0.95 - 2 * noise
    assert np.mean(greedy) < 0.95 - 3 * noise


def test_runs_with_a_stage_and_a_look_far_behind_the_pilot_cover(truth):
    n_runs, plan = 150, AdaptivePlan(tolerance=0.05)
    looks = [run_planned(make_pair(2000, 9000 + seed), seed, plan) for seed in range(n_runs)]
    assert all(look.tolerance <= plan.tolerance for look in looks)
    assert np.mean([holds(look, truth) for look in looks]) >= 0.95 - 2 * math.sqrt(0.95 * 0.05 / n_runs)
    assert 200 < np.median([look.n_prompts for look in looks]) < 400
