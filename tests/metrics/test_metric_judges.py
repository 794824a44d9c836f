"""Agreement with other libraries on 1,000 seeded cases: ties, confidences of 0, 1/k and 1, one example.

Judges: scikit-learn (Brier, log loss, AUROC), uncertainty-calibration (binned, debiased), relplot (smooth ECE).
"""

import warnings

import numpy as np
import pytest
import relplot
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score
from support.metric_data import random_case

from edgecal.metrics import (
    Judged,
    compute_brier,
    compute_ece,
    compute_ece_debiased,
    compute_ece_equal_mass,
    compute_figures,
    compute_rmsce_debiased,
    compute_smece,
    smooth,
)
from edgecal.metrics.tally import tally_examples

with warnings.catch_warnings():
    warnings.simplefilter("ignore", SyntaxWarning)  # one of its docstrings has a stray backslash
    import calibration


@pytest.fixture(scope="module")
def judged_cases():
    cases = [Judged.from_probs(*random_case(seed)) for seed in range(1000)]
    return [(judged, compute_figures(judged)) for judged in cases]


def bins_of(judged, edges):
    return calibration.utils.bin(list(zip(judged.confidence, judged.correct, strict=True)), edges)


def test_scikit_learn_agrees(judged_cases):
    seen = {"one class": 0, "pairs": 0, "impossible": 0}
    for judged, figures in judged_cases:
        n, k = judged.probs.shape
        assert figures["brier"] == pytest.approx(
            brier_score_loss(judged.correct, judged.confidence, pos_label=True, labels=[False, True]),
            abs=1e-13,
        )
        assert figures["brier_multiclass"] == pytest.approx(
            brier_score_loss(judged.labels, judged.probs, labels=range(k), scale_by_half=False), abs=1e-13
        )
        if np.all(judged.probs[np.arange(n), judged.labels] > 0.0):
            expected = log_loss(judged.labels, judged.probs, labels=range(k))
            assert figures["nll"] == pytest.approx(expected, rel=1e-12, abs=1e-12)
        else:
            seen["impossible"] += 1
            assert figures["nll"] == np.inf
        if judged.correct.all() or not judged.correct.any():
            seen["one class"] += 1
            assert np.isnan(figures["auroc"])
        else:
            seen["pairs"] += 1
            expected = roc_auc_score(judged.correct, judged.confidence)
            assert figures["auroc"] == pytest.approx(expected, abs=1e-12)
    assert min(seen.values()) > 100, seen  # every branch was taken often


def test_uncertainty_calibration_agrees(judged_cases):
    utils = calibration.utils
    compared = 0
    for judged, figures in judged_cases:
        sure, correct, n = judged.confidence, judged.correct, len(judged)
        for name, n_bins in (("ece", 10), ("ece_15", 15)):
            expected = utils.plugin_ce(bins_of(judged, utils.get_equal_prob_bins(sure, n_bins)), power=1)
            assert figures[name] == pytest.approx(expected, abs=1e-12)
            assert compute_ece(sure, correct, n_bins) == pytest.approx(expected, abs=1e-12)
        mass = bins_of(judged, utils.get_equal_bins(list(sure), 15))
        assert figures["ece_equal_mass"] == pytest.approx(utils.plugin_ce(mass, power=1), abs=1e-12)
        if any(len(inside) >= 2 for inside in mass):
            compared += 1
            assert figures["rmsce_debiased"] == pytest.approx(utils.unbiased_l2_ce(mass), abs=1e-7)
        else:
            assert np.isnan(figures["rmsce_debiased"])
            assert n < 30
    assert compared > 500


def test_the_debiased_error_is_the_mean_of_the_sampled_one():
    """uncertainty-calibration samples what is here in closed form; its mean over many samples is the same."""
    utils = calibration.utils
    compared = 0
    for seed in range(120):
        probs, labels = random_case(seed)
        judged = Judged.from_probs(probs, labels)
        bins = bins_of(judged, utils.get_equal_bins(list(judged.confidence), 15))
        if min(len(inside) for inside in bins) < 2:
            continue  # refused there
        np.random.seed(seed)  # noqa: NPY002 - the library draws from NumPy's global state
        expected = utils.normal_debiased_ce(bins, power=1, resamples=4000)
        ours = compute_ece_debiased(judged.confidence, judged.correct)
        five_errors = 2.5 / np.sqrt(
            4000 * len(judged)
        )  # a sample's standard deviation is 0.5 / sqrt(n) at most
        assert ours == pytest.approx(max(expected, 0.0), abs=five_errors)
        compared += 1
    assert compared > 30


def inner_cases(step):
    """relplot halves what lies on the very ends (its reflection leaves out the end's own image): keep off them.

    The exact treatment of 0 and 1 is held against a twin in test_metric_figures.
    """
    for seed in range(0, 1000, step):
        probs, labels = random_case(seed)
        judged = Judged.from_probs(probs, labels)
        yield np.clip(judged.confidence, 0.01, 0.99), judged.correct


def test_relplot_agrees(monkeypatch):
    """relplot finds the width on a grid of 1/1024, sums over a mesh, and adds 1e-4 to the density."""
    monkeypatch.setattr(relplot.config, "smECE_mesh_pts", 4000)
    differences = []
    for confidence, correct in inner_cases(1):
        ours = compute_smece(confidence, correct)
        if ours < 0.15:  # at larger widths its kernel, cut off at half the range, shows
            differences.append(abs(ours - relplot.smECE(confidence, correct.astype(float))))
    assert len(differences) > 200
    assert max(differences) < 2e-3


def smoothed_gap(confidence, correct, width):
    """The mean |smoothed residual| at a width that is given."""
    tally = tally_examples(confidence, correct)
    residuals = (tally.hits - tally.n * tally.levels) / tally.total
    waves = smooth._to_waves(smooth._to_grid(tally.levels, residuals, smooth.FINE))
    return float(smooth._gap_at(waves, np.array([width]))[0])


@pytest.mark.parametrize("width", [0.01, 0.03, 0.1])
def test_relplot_agrees_at_a_given_width(monkeypatch, width):
    monkeypatch.setattr(relplot.config, "smECE_mesh_pts", 4000)
    for confidence, correct in inner_cases(10):
        theirs = relplot.metrics.smECE_sigma(confidence, correct.astype(float), width)
        assert smoothed_gap(confidence, correct, width) == pytest.approx(theirs, abs=1e-3)


def test_single_functions_are_the_figures(judged_cases):
    for judged, figures in judged_cases[:60]:
        sure, correct = judged.confidence, judged.correct
        assert compute_brier(sure, correct) == pytest.approx(figures["brier"], abs=1e-13)
        assert compute_smece(sure, correct) == figures["smece"]
        assert compute_ece_equal_mass(sure, correct) == figures["ece_equal_mass"]
        np.testing.assert_equal(compute_rmsce_debiased(sure, correct), figures["rmsce_debiased"])
