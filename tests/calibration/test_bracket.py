"""The bracket against plain float64 NumPy, prompt by prompt, and what is said where it has no end."""

import math

import numba
import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import log_softmax, softmax
from support.choice_data import make_choice_logits, rebuild, twin_counts
from support.temperature_reference import temperature

from edgecal.calibration import ChoiceLogits, Method, fit_bracket, fit_temperature
from edgecal.calibration.prompt_kernels import add_evidence_rows, softmax_rows

PAIRS = {
    "near": {"noise": 0.3, "seed": 1},
    "ragged": {"noise": 0.6, "seed": 2, "k": (2, 5)},
    "sharp": {"noise": 0.5, "seed": 3, "sharpness": 9.0},
}


def make(noise, seed, k=4, sharpness=2.5, n=200):
    return make_choice_logits(n, 1, k, seed=seed, noise=noise, sharpness=sharpness, layers=False)


def excess(data, tau, weights=None):
    """Twin: mean < f_tau - g, log g >, from probabilities and their logarithms."""
    terms = []
    for i, k in enumerate(data.n_choices):
        base, chat = (z[i, :k].astype(np.float64) for z in (data.base_final, data.chat_final))
        terms.append(np.dot(softmax(chat / tau) - softmax(base), log_softmax(base)))
    return float(np.average(terms, weights=weights))


def twin_low(data, weights=None):
    return brentq(lambda tau: excess(data, tau, weights), 0.05, 50.0, xtol=1e-12)


@pytest.mark.parametrize("name", PAIRS)
def test_both_ends_equal_the_twins(name):
    data = make(**PAIRS[name])
    bracket = fit_bracket(data, n_bootstrap=0)
    assert bracket.low == pytest.approx(twin_low(data), rel=1e-9)
    assert bracket.high == pytest.approx(temperature(data, "naive"), rel=1e-6)
    assert bracket.high == fit_temperature(data, Method("naive"), n_bootstrap=0).temperature
    assert bracket.ratio == bracket.high / bracket.low
    assert (bracket.low_interval, bracket.high_interval, bracket.ratios.size) == (None, None, 0)


def test_the_kernel_equals_numpy_for_ragged_rows_and_far_logits():
    data = make(0.6, 5, k=(2, 6), sharpness=60.0, n=130)
    betas = np.array([1e-3, 0.3, 1.0, 20.0])
    rows = np.ones((130, 4))  # it adds
    targets = softmax_rows(data.base_final, data.n_choices)
    add_evidence_rows(data.base_final, targets, data.chat_final, data.n_choices, betas, rows)
    for i, k in enumerate(data.n_choices):
        base, chat = (z[i, :k].astype(np.float64) for z in (data.base_final, data.chat_final))
        wanted = [1.0 - np.dot(softmax(chat * beta) - softmax(base), log_softmax(base)) for beta in betas]
        np.testing.assert_allclose(rows[i], wanted, rtol=1e-12, atol=1e-12)


def test_refits_are_of_the_fits_own_resamples_and_paired():
    data = make(0.6, 2, n=60)
    bracket = fit_bracket(data, n_bootstrap=30, seed=7)
    lows, highs = [], []
    for resample in range(30):
        counts = twin_counts(60, 7, resample)
        lows.append(twin_low(data, counts))
        drawn = data.take(np.repeat(np.arange(60), counts))
        highs.append(fit_temperature(drawn, Method("naive"), n_bootstrap=0).temperature)
    np.testing.assert_allclose(bracket.ratios, np.array(highs) / np.array(lows), rtol=1e-4)
    np.testing.assert_allclose(bracket.low_interval, np.quantile(lows, [0.025, 0.975]), rtol=1e-4)
    np.testing.assert_allclose(bracket.high_interval, np.quantile(highs, [0.025, 0.975]), rtol=1e-4)
    assert bracket.high_interval == fit_temperature(data, Method("naive"), n_bootstrap=30, seed=7).interval


def binary(kinds, p=0.8):
    """Prompts with two choices: the base says p of the first, the chat model's logit of it is as given, n times."""
    chat = np.concatenate([np.full(n, z) for z, n in kinds])
    base = np.log([p, 1 - p])
    return ChoiceLogits(
        base_final=np.tile(base, (chat.size, 1)).astype(np.float32),
        chat_final=np.stack([chat, np.zeros(chat.size)], axis=1).astype(np.float32),
        base_layers=None,
        chat_layers=None,
        n_choices=np.full(chat.size, 2, dtype=np.int32),
        labels=np.full(chat.size, -1, dtype=np.int32),
    )


def test_of_several_roots_the_lowest_counts():
    """Firm agreement, less firm disagreement and faint agreement take over one after the other as tau falls."""
    data = binary([(20.0, 26), (-2.0, 6), (0.2, 8)])
    grid = np.geomspace(0.05, 50, 100)
    signs = np.sign([excess(data, tau) for tau in grid])
    crossings = grid[1:][np.diff(signs) != 0]
    assert signs[0] > 0 > signs[-1] and len(crossings) == 3
    bracket = fit_bracket(data, n_bootstrap=0)
    assert bracket.low == pytest.approx(
        brentq(lambda tau: excess(data, tau), 0.05, crossings[1] * 0.9, xtol=1e-12), rel=1e-9
    )


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(make(2.0, 4), id="too many disagree"),
        pytest.param(binary([(20.0, 65), (-0.2, 35)]), id="found only at middling temperatures"),
        pytest.param(binary([(3.0, 100)], p=0.5), id="base says the same of both"),
        pytest.param(binary([(4000.0, 100)]), id="too sure for any temperature"),
    ],
)
def test_a_low_end_that_is_not_there(data):
    bracket = fit_bracket(data, n_bootstrap=50)
    assert bracket.low is None and bracket.low_interval is None and math.isinf(bracket.ratio)
    assert bracket.to_dict()["low"] is None


def test_the_middling_case_above_has_a_root_all_the_same():
    data = binary([(20.0, 65), (-0.2, 35)])
    assert excess(data, 0.05) < 0 < excess(data, 5.0) and excess(data, 50.0) < 0


def test_refits_without_a_low_end_are_counted_and_leave_it_without_an_interval():
    data = make(1.5, 8, n=100)
    bracket = fit_bracket(data, n_bootstrap=200)
    found = np.array([excess(data, 0.05, twin_counts(100, 0, b)) > 0 for b in range(200)])
    assert 0.05 < bracket.low_lost < 0.9 and bracket.low_lost == pytest.approx(1 - found.mean(), abs=0.011)
    assert bracket.low_interval is None and bracket.high_interval is not None
    assert np.isinf(bracket.ratios).mean() == bracket.low_lost


def test_a_chat_model_that_says_nothing_has_no_high_end_and_few_prompts_have_none_at_all():
    flat = fit_bracket(binary([(0.0, 100)]), n_bootstrap=20)
    assert (flat.low, flat.high, flat.high_lost) == (None, None, 1.0)
    few = fit_bracket(make(0.3, 1, n=29), n_bootstrap=20)
    assert (few.low, few.high, few.n_prompts) == (None, None, 29) and np.isinf(few.ratios).all()


def test_laws():
    """Constants and the order of choices change nothing, the unit of the chat model's logits scales both ends."""
    data = make(0.5, 6)
    plain = fit_bracket(data, n_bootstrap=100)
    order = np.array([2, 0, 3, 1])
    shifted = rebuild(
        data, base_final=data.base_final + np.float32(2), chat_final=data.chat_final - np.float32(8)
    )
    turned = rebuild(data, base_final=data.base_final[:, order], chat_final=data.chat_final[:, order])
    for other in (shifted, turned):
        found = fit_bracket(other, n_bootstrap=100)
        assert (found.low, found.high) == pytest.approx((plain.low, plain.high), rel=1e-5)
        np.testing.assert_allclose(found.ratios, plain.ratios, rtol=1e-4)
    doubled = fit_bracket(rebuild(data, chat_final=data.chat_final * np.float32(2)), n_bootstrap=100)
    assert (doubled.low, doubled.high) == pytest.approx((2 * plain.low, 2 * plain.high), rel=1e-9)


def test_a_chat_model_that_is_its_base_sharpened_has_a_bracket_of_one_point():
    data = make(0.5, 6)
    bracket = fit_bracket(rebuild(data, chat_final=data.base_final * np.float32(4)), n_bootstrap=50)
    assert (bracket.low, bracket.high) == (pytest.approx(4, rel=1e-6), pytest.approx(4, rel=1e-6))
    np.testing.assert_allclose(bracket.ratios, 1.0, atol=1e-4)


def test_threads_and_labels_change_no_bit():
    data = make(0.6, 2, n=150)
    before = numba.get_num_threads()
    found = []
    for threads in (1, min(2, before)):
        numba.set_num_threads(threads)
        found.append(fit_bracket(data, n_bootstrap=64, seed=3))
    numba.set_num_threads(before)
    found.append(fit_bracket(rebuild(data, labels=np.full_like(data.labels, -1)), n_bootstrap=64, seed=3))
    for other in found[1:]:
        assert other == found[0] and other.ratios.tobytes() == found[0].ratios.tobytes()
