"""The bootstrap: weights mean what repeated examples mean, draws depend on the seed alone, intervals hold."""

import math

import numpy as np
import pytest
from support.metric_data import draw_answers, ragged_case, random_case

from edgecal.errors import InputError
from edgecal.metrics import (
    FIGURES,
    Judged,
    compute_figures,
    compute_reliability,
    compute_risk_coverage,
    estimate,
    estimate_difference,
    estimate_figures,
    estimate_paired,
    softmax_probs,
)
from edgecal.metrics.estimate import NAMES, Examples, draw_weights

CALIBRATION_ERRORS = {"ece", "ece_15", "ece_equal_mass", "ece_debiased", "rmsce_debiased", "mce", "smece"} | {
    "classwise_ece"
}


def expanded(judged, weights):
    return judged.take(np.repeat(np.arange(len(judged)), weights.astype(int)))


@pytest.mark.parametrize("make", [random_case, ragged_case])
def test_weights_are_repeated_examples(make):
    for seed in range(42):
        judged = Judged.from_probs(*make(seed))
        order = np.random.default_rng(seed).permutation(len(judged))  # any order will do
        weights = np.concatenate(list(draw_weights(len(judged), 4, seed)))
        found = Examples(judged, order).resample(weights)
        for row, column in zip(weights, found.T, strict=True):
            expected = compute_figures(expanded(judged.take(order), row))
            for name, value in zip(NAMES, column, strict=True):
                within = {"smece": 2e-5, "rmsce_debiased": 1e-7}.get(name, 1e-12)
                assert value == pytest.approx(expected[name], abs=within, nan_ok=True), name


def test_draws_are_the_generators_raw_output():
    n, seed = 37, 11
    raw = [int(x) for x in np.random.PCG64(seed).random_raw(5 * n)]
    weights = np.concatenate(list(draw_weights(n, 5, seed)))
    for r in range(5):
        counts = np.zeros(n)
        for bits in raw[r * n : (r + 1) * n]:
            counts[(bits >> 32) * n >> 32] += 1
        np.testing.assert_array_equal(weights[r], counts)


def test_draws_look_like_draws():
    weights = np.concatenate(list(draw_weights(200, 2000, 0)))
    assert np.all(weights.sum(axis=1) == 200)
    # counts are nearly Poisson with mean 1; a column's mean over 2,000 resamples has sd 0.022
    assert np.abs(weights.mean(axis=0) - 1).max() < 0.1
    assert weights.var() == pytest.approx(1 - 1 / 200, abs=0.02)
    assert not np.array_equal(weights, np.concatenate(list(draw_weights(200, 2000, 1))))


def test_passes_leave_no_trace(monkeypatch):
    judged = Judged.from_probs(*ragged_case(2))
    whole = estimate_figures(judged, n_bootstrap=50, seed=3)
    monkeypatch.setattr(estimate, "_ELEMENTS_PER_PASS", 700)  # three resamples at a time
    np.testing.assert_equal(estimate_figures(judged, n_bootstrap=50, seed=3), whole)


def test_the_seed_decides():
    judged = Judged.from_probs(*ragged_case(4))
    first = estimate_figures(judged, n_bootstrap=100, seed=1)
    np.testing.assert_equal(estimate_figures(judged, n_bootstrap=100, seed=1), first)
    other = estimate_figures(judged, n_bootstrap=100, seed=2)
    for name in NAMES:
        assert other[name].value == first[name].value
        assert (other[name].low, other[name].high) != (first[name].low, first[name].high)


def test_intervals_are_percentiles_and_hold_the_value():
    judged = Judged.from_probs(*ragged_case(5, n=300))
    values = compute_figures(judged)
    estimates = estimate_figures(judged, n_bootstrap=300, level=0.9)
    weights = np.concatenate(list(draw_weights(300, 300, 0)))
    assert list(estimates) == NAMES_IN_ORDER
    order = np.lexsort(
        [*judged.probs.T[::-1], judged.n_choices, judged.labels, judged.correct, judged.confidence]
    )
    drawn = Examples(judged, order).resample(weights)
    for name, one, column in zip(NAMES, estimates.values(), drawn, strict=True):
        assert one.value == values[name]
        low, high = np.quantile(column, [0.05, 0.95])
        if name in CALIBRATION_ERRORS:
            low, high = max(0, min(low, 2 * one.value - high)), max(high, 2 * one.value - low)
        assert (one.low, one.high) == pytest.approx((low, high), abs=1e-12), name
        assert one.low <= one.value <= one.high, name


NAMES_IN_ORDER = [figure.name for figure in FIGURES]


def test_no_resamples_no_intervals():
    for one in estimate_figures(Judged.from_probs(*ragged_case(1)), n_bootstrap=0).values():
        assert not math.isnan(one.value)
        assert math.isnan(one.low) and math.isnan(one.high)


def test_infinite_and_undefined_figures():
    probs = np.array([[0.0, 1.0]] + [[0.7, 0.3]] * 40)
    estimates = estimate_figures(Judged.from_probs(probs, np.zeros(41, int)), n_bootstrap=200)
    assert estimates["nll"].value == math.inf
    # the impossible label is missing from about a third of the resamples
    assert estimates["nll"].low == pytest.approx(-math.log(0.7)) and estimates["nll"].high == math.inf
    # one wrong answer in 41: where it was not drawn the AUROC is undefined, and left out
    assert estimates["auroc"].low == estimates["auroc"].high == 0.0
    right = estimate_figures(Judged.from_probs(probs[1:], np.zeros(40, int)), n_bootstrap=20)
    assert all(math.isnan(x) for x in vars(right["auroc"]).values())
    both = estimate_difference(*[Judged.from_probs(probs, np.zeros(41, int))] * 2, n_bootstrap=20)
    assert math.isnan(both["nll"].value) and math.isnan(both["nll"].low)
    assert vars(both["brier"]) == {"value": 0.0, "low": 0.0, "high": 0.0}


def tempered(rng, n):
    """Logits that are three times too large, and the labels' real probabilities behind them."""
    logits = rng.normal(size=(n, 4)) * 1.2
    counts = np.full(n, 4)
    labels = (rng.random(n)[:, None] > np.cumsum(softmax_probs(logits, counts), axis=1)[:, :-1]).sum(axis=1)
    before = Judged.from_probs(softmax_probs(logits, counts, 1 / 3), labels)
    after = Judged.from_probs(softmax_probs(logits, counts), labels)
    return before, after


def test_the_difference_of_equals_is_exactly_nothing():
    before, _ = tempered(np.random.default_rng(0), 150)
    for one in estimate_difference(before, before, n_bootstrap=50).values():
        assert (one.value, one.low, one.high) == (0.0, 0.0, 0.0)


def test_a_paired_interval_knows_that_the_questions_are_the_same():
    before, after = tempered(np.random.default_rng(1), 400)
    first, second, change = estimate_paired(before, after, n_bootstrap=300, seed=5)
    np.testing.assert_equal(first, estimate_figures(before, n_bootstrap=300, seed=5))
    np.testing.assert_equal(change, estimate_difference(before, after, n_bootstrap=300, seed=5))
    for name in NAMES:
        assert second[name].value == compute_figures(after)[name]
        assert change[name].value == second[name].value - first[name].value
        assert change[name].low <= change[name].value <= change[name].high
    assert vars(change["accuracy"]) == {
        "value": 0.0,
        "low": 0.0,
        "high": 0.0,
    }  # a temperature changes no answer
    for name in ("brier", "brier_multiclass", "nll", "confidence", "ece"):
        assert change[name].high < 0.0, name  # surely better
        separate = math.hypot(*(one[name].high - one[name].low for one in (first, second)))
        if name != "ece":
            assert change[name].high - change[name].low < 0.9 * separate, name


def test_intervals_hold_the_truth():
    """95 % intervals over 150 sets of 200 answers: 90 % or more hold what 2,000,000 answers show."""

    def curve(c):
        return 0.1 + 0.6 * c**2

    big = draw_answers(np.random.default_rng(7), 2_000_000, curve)
    truth = compute_figures(Judged.from_confidence(*big))
    hits = dict.fromkeys(NAMES, 0)
    n_sets = 150
    for seed in range(n_sets):
        judged = Judged.from_confidence(*draw_answers(np.random.default_rng([8, seed]), 200, curve))
        for name, one in estimate_figures(judged, n_bootstrap=200, seed=seed).items():
            hits[name] += one.low <= truth[name] <= one.high
    for name in ("accuracy", "confidence", "brier", "auroc", "aurc", "ece", "ece_debiased", "smece"):
        assert hits[name] / n_sets >= 0.9, (name, hits[name])


def test_intervals_near_calibration_say_that_it_may_be_calibrated():
    """Percentiles alone would never hold the true error of 0; the debiased errors' joined intervals mostly do."""
    hits = dict.fromkeys(NAMES, 0)
    for seed in range(100):
        judged = Judged.from_confidence(*draw_answers(np.random.default_rng([9, seed]), 400, lambda c: c))
        for name, one in estimate_figures(judged, n_bootstrap=100, seed=seed).items():
            hits[name] += one.low <= 0.0
    assert hits["ece_debiased"] > 80 and hits["rmsce_debiased"] > 90
    assert hits["ece"] > 40


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda j: estimate_figures(j, n_bootstrap=-1), "number of resamples is -1"),
        (lambda j: estimate_figures(j, level=1.0), "level of the interval is 1.0"),
        (lambda j: estimate_figures(j, level=math.nan), "level of the interval is nan"),
        (lambda j: estimate_figures(j, seed=-3), "seed is -3"),
        (lambda j: estimate_difference(j, j.take([0])), "before has 40 examples and after 1"),
        (lambda j: compute_reliability(j, 0), "number of bins"),
        (lambda j: compute_reliability(j, level=0.0), "level of the interval"),
        (lambda j: compute_risk_coverage(j, 1), "expected 2 or more"),
    ],
)
def test_nonsense_is_refused(call, words):
    with pytest.raises(InputError, match=words) as caught:
        call(Judged.from_probs(*ragged_case(0, n=40)))
    assert "\n" not in str(caught.value)
