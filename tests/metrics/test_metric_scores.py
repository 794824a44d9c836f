"""The metrics by hand-made values, at the bin edges, and by their laws."""

import numpy as np
import pytest

from edgecal.errors import InputError
from edgecal.metrics import (
    compute_accuracy,
    compute_brier,
    compute_ece,
    compute_nll,
    softmax_confidence,
    softmax_probs,
)


def test_ece_by_hand():
    confidence = [0.95, 0.95, 0.55, 0.55]
    correct = [True, False, True, True]
    # bin (0.9, 1]: |0.5 - 0.95|, bin (0.5, 0.6]: |1 - 0.55|; half of the examples each
    assert compute_ece(confidence, correct) == pytest.approx(0.45)


def ece_by_loop(confidence, correct, n_bins):
    total = 0.0
    for b in range(n_bins):
        low, high = b / n_bins, (b + 1) / n_bins
        inside = (confidence > low) & (confidence <= high) | ((b == 0) & (confidence == 0))
        if inside.any():
            total += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return total


@pytest.mark.parametrize("n_bins", [1, 2, 3, 7, 10, 15, 100])
def test_ece_equals_a_loop_over_bins_edges_included(n_bins):
    rng = np.random.default_rng(n_bins)
    edges = np.arange(n_bins + 1) / n_bins
    confidence = np.concatenate([edges, edges, rng.uniform(size=300)])
    correct = rng.uniform(size=confidence.size) < 0.5
    assert compute_ece(confidence, correct, n_bins) == pytest.approx(ece_by_loop(confidence, correct, n_bins))


@pytest.mark.parametrize("k", range(1, 10))
def test_an_inner_edge_belongs_to_the_bin_below(k):
    edge, below, above = k / 10, k / 10 - 0.05, k / 10 + 0.05
    # In one bin the two errors cancel, in two bins they add up.
    assert compute_ece([edge, below], [False, True]) == pytest.approx(abs(1 - edge - below) / 2)
    assert compute_ece([edge, above], [False, True]) == pytest.approx((edge + 1 - above) / 2)


def test_zero_is_in_the_first_bin_and_one_in_the_last():
    assert compute_ece([0.0, 0.1], [True, False]) == pytest.approx((1 - 0.1) / 2)
    assert compute_ece([1.0, 0.91], [False, True]) == pytest.approx((1 - 0.09) / 2)
    assert compute_ece([1.0, 1.0], [True, True]) == 0.0
    assert compute_ece([0.0], [False]) == 0.0


def test_one_over_k_is_in_the_bin_below():
    for k in (2, 5, 10):
        assert compute_ece([1 / k, 1 / k - 0.01], [True, False]) == pytest.approx(abs(1 - 2 / k + 0.01) / 2)


def test_accuracy_nll_and_brier_by_hand():
    probs = [[0.7, 0.3], [0.5, 0.5], [0.2, 0.8]]
    assert compute_accuracy(probs, [0, 1, 1]) == pytest.approx(2 / 3)  # a tie goes to the lowest index
    assert compute_nll(probs, [0, 1, 0]) == pytest.approx(-np.log(0.7 * 0.5 * 0.2) / 3)
    assert compute_nll([[1.0, 0.0]], [1]) == np.inf
    assert compute_brier([0.7, 0.6], [True, False]) == pytest.approx((0.09 + 0.36) / 2)


def test_softmax_by_formula_with_ragged_choices():
    logits = np.array([[1.0, 2.0, 0.5], [3.0, 1.0, np.nan]], dtype=np.float32)
    probs = softmax_probs(logits, [3, 2], 2.0)
    expected = np.exp([0.5, 1.0, 0.25])
    np.testing.assert_allclose(probs[0], expected / expected.sum(), rtol=1e-15)
    np.testing.assert_allclose(probs[1], [1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1)), 0.0], rtol=1e-15)
    np.testing.assert_array_equal(softmax_confidence(logits, [3, 2], 2.0), probs.max(axis=1))


def test_softmax_laws():
    rng = np.random.default_rng(0)
    logits, n_choices = rng.normal(size=(50, 5)) * 3, np.full(50, 5)
    probs = softmax_probs(logits, n_choices, 1.7)
    np.testing.assert_allclose(probs.sum(axis=1), 1.0, rtol=1e-14)
    np.testing.assert_allclose(softmax_probs(logits + 100, n_choices, 1.7), probs, rtol=1e-11)
    np.testing.assert_allclose(softmax_probs(logits * 1e4, n_choices).max(axis=1), 1.0)
    for tau in (0.05, 1.0, 50.0):
        np.testing.assert_array_equal(
            softmax_probs(logits, n_choices, tau).argmax(axis=1), logits.argmax(axis=1)
        )
    assert softmax_probs(np.zeros((0, 4)), np.zeros(0, int)).shape == (0, 4)
    assert softmax_confidence(np.zeros((0, 4)), np.zeros(0, int)).shape == (0,)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: compute_ece([], []), "no example"),
        (lambda: compute_ece([0.5], [True], 0), "number of bins"),
        (lambda: compute_ece([1.1], [True]), "between 0 and 1"),
        (lambda: compute_ece([np.nan], [True]), "between 0 and 1"),
        (lambda: compute_brier([0.5, 0.5], [True]), "do not fit"),
        (lambda: compute_accuracy([[0.5, 0.5]], [2]), "from 0 to 1"),
        (lambda: compute_accuracy(np.zeros((0, 2)), np.zeros(0, int)), "no labelled example"),
        (lambda: compute_nll([[0.5, 0.5]], [-1]), "from 0 to 1"),
        (lambda: softmax_probs([[0.0, 1.0]], [2], 0.0), "temperature"),
        (lambda: softmax_probs([[0.0, 1.0]], [3]), "number of choices"),
        (lambda: softmax_probs([0.0, 1.0], [2]), "do not fit"),
    ],
)
def test_nonsense_is_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()
