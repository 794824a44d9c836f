"""Scale and bias for two options: found, kept only where labels show it, and refused where they cannot."""

import numpy as np
import pytest

from edgecal.calibration import ChoiceLogits, fit_platt


def noul(d, yes):
    """Questions whose logits differ by d, with the answers `yes`: True, False or None."""
    z = np.stack([np.asarray(d) / 2, -np.asarray(d) / 2], axis=1).astype(np.float32)
    labels = [-1 if answer is None else int(not answer) for answer in yes]
    n = len(labels)
    return ChoiceLogits(z, z, None, None, np.full(n, 2, np.int32), np.array(labels, np.int32))


def drawn(n, scale, bias, seed=0):
    rng = np.random.default_rng(seed)
    d = rng.normal(0, 4, n)
    yes = rng.random(n) < 1 / (1 + np.exp(-(scale * d + bias)))
    return d, [bool(one) for one in yes]


def test_what_the_labels_were_drawn_with_is_found():
    found = fit_platt(noul(*drawn(4000, 0.5, -1.5)), 2.0, n_bootstrap=100)
    assert found.temperature == pytest.approx(2.0, rel=0.08)
    assert found.bias == pytest.approx(-1.5, abs=0.15)
    assert found.interval[0] < found.temperature < found.interval[1]
    assert found.bias_interval[0] < found.bias < found.bias_interval[1]
    assert found.is_better and found.n_labelled == 4000 and found.trial.gain > 0.1


def test_a_minimum_by_a_search():
    d, yes = drawn(60, 0.7, 0.4, seed=3)
    found = fit_platt(noul(d, yes), 1.0, n_bootstrap=20)
    d32, first = np.float32(d / 2) - np.float32(-d / 2), np.array(yes)
    m = first.sum()
    target = np.where(first, (m + 1) / (m + 2), 1 / (len(yes) - m + 2))

    def objective(scale, bias):
        x = scale * d32.astype(np.float64) + bias
        return float((np.logaddexp(0, x) - target * x).sum())

    best = objective(1 / found.temperature, found.bias)
    for step in (1e-3, -1e-3):
        assert objective(1 / found.temperature + step, found.bias) > best
        assert objective(1 / found.temperature, found.bias + step) > best


def test_where_there_is_no_bias_noise_is_not_kept():
    kept = [
        fit_platt(noul(*drawn(60, 0.5, 0.0, seed=seed)), 2.0, n_bootstrap=20).is_better for seed in range(40)
    ]
    assert sum(kept) <= 2


def test_unlabelled_questions_do_not_matter():
    d, yes = drawn(100, 0.5, -1.5)
    more = fit_platt(noul([*d, 9.0, -9.0], [*yes, None, None]), 2.0, n_bootstrap=20)
    assert more == fit_platt(noul(d, yes), 2.0, n_bootstrap=20)


def test_swapping_the_options_turns_the_bias():
    d, yes = drawn(200, 0.5, -1.5)
    one = fit_platt(noul(d, yes), 2.0, n_bootstrap=20)
    other = fit_platt(noul(-d, [not answer for answer in yes]), 2.0, n_bootstrap=20)
    assert other.bias == pytest.approx(-one.bias, abs=1e-6)
    assert other.temperature == pytest.approx(one.temperature, rel=1e-6)


@pytest.mark.parametrize(
    ("d", "yes"),
    [
        drawn(29, 0.5, 0.0),
        (np.ones(200), [True] * 196 + [False] * 4),
        (np.linspace(-3, 3, 100), [bool(x < 0) for x in np.linspace(-3, 3, 100)]),
    ],
    ids=["few labels", "one kind", "against the labels"],
)
def test_none_where_labels_determine_nothing(d, yes):
    assert fit_platt(noul(d, yes), 1.0, n_bootstrap=20) is None


@pytest.mark.parametrize("d", [np.linspace(-9, 9, 100), np.linspace(-900, 900, 100)])
def test_separable_labels_have_a_finite_fit(d):
    found = fit_platt(noul(d, [bool(x > 0) for x in d]), 1.0, n_bootstrap=20)
    assert 0.05 <= found.temperature <= 50 and np.isfinite([*found.interval, found.bias]).all()
