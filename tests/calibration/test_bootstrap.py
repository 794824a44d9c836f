"""The bootstrap: draws that only the seed decides, and refits as good as fitting each resample anew."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.choice_data import make_choice_logits, twin_counts
from support.methods import variant_text

from edgecal.calibration import Method, fit_temperature
from edgecal.calibration.bootstrap import refit_resamples
from edgecal.calibration.losses import build_loss
from edgecal.calibration.resample_kernels import draw_counts
from edgecal.calibration.search import GRID_TAU, find_minimum
from edgecal.errors import NotIdentifiedError

METHODS = [
    Method("daca"),
    Method("naive"),
    Method("ts"),
    Method("process"),
    Method("process", ise="mean"),
    Method(combine="stratified"),
    Method(combine="stratified", ise="mean", tau_scope="final"),
    Method(combine="divergence"),
    Method(combine="divergence", ise="mean"),
    Method(combine="sum", lam=1.0),
]


@pytest.mark.parametrize("seed", [0, 1, 2**63, 2**64 - 1])
@pytest.mark.parametrize("n", [1, 2, 7, 1000])
def test_draws_equal_the_twin(n, seed):
    for resample in (0, 1, 999):
        counts = draw_counts(n, np.uint64(seed), resample)
        np.testing.assert_array_equal(counts, twin_counts(n, seed, resample))
        assert counts.sum() == n


def test_draws_look_like_draws():
    n, n_resamples = 400, 500
    counts = np.array([draw_counts(n, np.uint64(7), r) for r in range(n_resamples)])
    per_prompt = counts.sum(axis=0)  # Poisson-like: mean 500, sd 22
    assert abs(per_prompt - n_resamples).max() < 5 * np.sqrt(n_resamples)
    chi2 = ((per_prompt - n_resamples) ** 2 / n_resamples).sum()
    assert abs(chi2 - n) < 5 * np.sqrt(2 * n)
    assert np.mean(counts == 0) == pytest.approx(np.exp(-1), abs=0.01)
    neighbours = np.mean([np.corrcoef(a, b)[0, 1] for a, b in itertools.pairwise(counts)])
    assert abs(neighbours) < 5 / np.sqrt(n * n_resamples)
    assert not np.array_equal(counts[0], draw_counts(n, np.uint64(8), 0))


def table_of(loss):
    table = np.empty((loss.n_used, GRID_TAU.size), dtype=np.float32)
    loss.evaluate(GRID_TAU, table)
    return table


@pytest.mark.parametrize("method", METHODS, ids=lambda m: f"{m.name} {variant_text(m)}")
@pytest.mark.parametrize("k", [2, (2, 9)])
def test_refits_are_within_1e_5_of_exact_fits(method, k):
    data = make_choice_logits(160, 5, k, seed=11, noise=1.0)
    loss = build_loss(data, method)
    table = table_of(loss)
    refits = refit_resamples(loss, table, n_resamples=6, seed=3)
    exact = []
    for resample in range(6):
        members = np.repeat(np.arange(data.n_prompts), draw_counts(data.n_prompts, np.uint64(3), resample))
        again = build_loss(data.take(members), method)
        exact.append(find_minimum(again.evaluate, *again.evaluate(GRID_TAU)).tau)
    np.testing.assert_allclose(refits.taus, exact, rtol=1e-5)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    data = make_choice_logits(300, 4, 4, seed=5)
    fits = [fit_temperature(data, Method(), n_bootstrap=200, seed=seed) for seed in (1, 1, 2)]
    assert fits[0] == fits[1]
    assert fits[0].temperature == fits[2].temperature
    assert fits[0].interval != fits[2].interval


def test_the_first_resamples_do_not_depend_on_how_many_follow():
    loss = build_loss(make_choice_logits(100, 3, 3, seed=1), Method("daca"))
    table = table_of(loss)
    few, many = (refit_resamples(loss, table, n_resamples=n, seed=9).taus for n in (5, 41))
    np.testing.assert_array_equal(few, many[:5])


def test_the_interval_covers_and_shrinks_with_more_prompts():
    widths = []
    for n in (100, 400, 1600):
        fit = fit_temperature(make_choice_logits(n, 4, 4, seed=2), Method("naive"), n_bootstrap=400)
        assert fit.interval[0] < fit.temperature < fit.interval[1]
        widths.append(np.log(fit.interval[1] / fit.interval[0]))
    assert widths[0] / widths[1] == pytest.approx(2, rel=0.5)
    assert widths[1] / widths[2] == pytest.approx(2, rel=0.5)


def test_coverage_over_fresh_draws_of_the_prompts():
    population = make_choice_logits(20000, 1, 4, seed=3, layers=False)
    truth = fit_temperature(population, Method("naive"), n_bootstrap=0).temperature
    inside = 0
    for seed in range(40):
        part = population.take(np.random.default_rng(seed).integers(0, 20000, size=250))
        low, high = fit_temperature(part, Method("naive"), n_bootstrap=200, level=0.9, seed=seed).interval
        inside += low <= truth <= high
    assert 30 <= inside <= 40  # 36 expected, sd 1.9


def test_a_wider_level_gives_a_wider_interval():
    data = make_choice_logits(200, 4, 4, seed=5)
    narrow, wide = (fit_temperature(data, Method("daca"), level=level).interval for level in (0.5, 0.99))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_a_resample_without_a_term_counts_as_at_the_bound():
    data = make_choice_logits(400, 3, 4, seed=4)
    agree = np.flatnonzero(data.agreement)
    other = np.flatnonzero(~data.agreement)
    loss = build_loss(data.take([*agree[:40], other[0]]), Method(combine="sum"))
    table = table_of(loss)
    refits = refit_resamples(loss, table, n_resamples=400, seed=0)
    missing = np.mean([draw_counts(41, np.uint64(0), r)[40] == 0 for r in range(400)])
    assert missing == pytest.approx(np.exp(-1), abs=0.1)
    assert np.count_nonzero(~np.isnan(refits.taus)) == round((1 - missing) * 400)
    assert refits.share_at_bound >= missing


def test_refits_at_the_bound_refuse_the_fit():
    data = make_choice_logits(300, 8, 4, seed=0)
    with pytest.raises(NotIdentifiedError, match=r"bootstrap refits end at|lowest at the end"):
        fit_temperature(data, Method("process", tau_scope="final"))


SCRIPT = """
import numba, numpy as np, sys
from edgecal.calibration import Method, fit_temperature
from support.choice_data import make_choice_logits, twin_counts
numba.set_num_threads(int(sys.argv[1]))
data = make_choice_logits(150, 5, (2, 6), seed=21)
for method in (Method(), Method(combine="divergence", ise="mean"), Method("daca"), Method("ts")):
    for n_bootstrap in (0, 60):
        fit = fit_temperature(data, method, n_bootstrap=n_bootstrap)
        print(fit.temperature.hex(), [bound.hex() for bound in fit.interval], fit.loss_after.hex())
"""


def test_one_thread_and_many_give_the_same_bits():
    tests = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{tests}:{tests.parent}", "NUMBA_NUM_THREADS": "4"}
    runs = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT, n], env=environment, capture_output=True, text=True, check=True
        ).stdout
        for n in ("1", "3", "4")
    ]
    assert len(runs[0].splitlines()) == 8
    assert runs[0] == runs[1] == runs[2]
