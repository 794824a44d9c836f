"""The anchored fit: labels overrule the prior, weights are scaled right, and it sees only what it may see."""

import math
from dataclasses import replace

import numpy as np
import pytest
from support.choice_data import make_choice_logits

from edgecal.calibration import fit_anchored, fit_bracket
from edgecal.calibration.anchored import (
    GRID_LN_TAU,
    Prior,
    combine,
    label_free_prior,
    label_losses,
)
from edgecal.errors import InputError

TAU = 3.0


def questions(n=800, seed=0, tau=TAU, n_labelled=None):
    """A chat model whose logits are `tau` times too large, and labels drawn from the right probabilities."""
    rng = np.random.default_rng(seed)
    data = make_choice_logits(n, 1, 4, seed=seed, layers=False, noise=0.3)
    right = data.base_final.astype(np.float64) + 0.3 * rng.normal(size=data.base_final.shape)
    probs = np.exp(right - right.max(axis=1, keepdims=True))
    probs /= probs.sum(axis=1, keepdims=True)
    labels = (rng.random(n)[:, None] > np.cumsum(probs, axis=1)[:, :-1]).sum(axis=1).astype(np.int32)
    if n_labelled is not None:
        labels[rng.permutation(n)[n_labelled:]] = -1
    return replace(data, chat_final=(tau * right).astype(np.float32), labels=labels)


def test_many_labels_overrule_a_wrong_prior():
    data = questions(4000)
    losses = label_losses(data, np.arange(4000)).sum(axis=0)
    wrong = Prior(1.0 / (1.0 + ((GRID_LN_TAU - math.log(0.3)) / 0.1) ** 2 / 4.0) ** 2.5)
    fitted = combine(wrong, losses, n_prompts=4000, n_labelled=4000)
    assert fitted.prior_temperature == pytest.approx(0.3, rel=0.01)
    assert fitted.temperature == pytest.approx(TAU, rel=0.08)
    assert fitted.interval[0] < TAU < fitted.interval[1]


def test_without_labels_the_prior_is_the_result_and_sees_no_label():
    hidden = questions(n_labelled=0)
    fitted = fit_anchored(hidden, 1.0)
    assert fitted.temperature == fitted.prior_temperature and fitted.interval == fitted.prior_interval
    assert fitted.n_labelled == 0
    full = label_free_prior(questions(), 1.0)
    assert np.array_equal(full.density, label_free_prior(hidden, 1.0).density)


def width(fitted):
    return math.log(fitted.interval[1] / fitted.interval[0])


def test_the_less_mass_the_base_puts_on_the_choices_the_wider_the_prior():
    data = questions(n_labelled=0)
    masses = (1.0, 0.8, 0.5, 0.0)
    trusted, *others = fitted = [fit_anchored(data, mass) for mass in masses]
    assert trusted.prior_temperature == pytest.approx(TAU, rel=0.25)
    widths = [width(one) for one in fitted]
    assert widths == sorted(widths) and width(others[-1]) > 1.3 * width(trusted)


def mean_errors(prior, table, n_labelled):
    """Of 60 draws of labels: mean |ln(tau / right tau)| of the anchored fit and of labels alone, and how many
    intervals hold the right tau."""
    truth = float(GRID_LN_TAU[table.sum(axis=0).argmin()])
    errors, alone, covered = [], [], 0
    for draw in range(60):
        losses = table[np.random.default_rng(draw).permutation(len(table))[:n_labelled]].sum(axis=0)
        fitted = combine(prior, losses, n_prompts=len(table), n_labelled=n_labelled)
        errors.append(abs(math.log(fitted.temperature) - truth))
        alone.append(abs(float(GRID_LN_TAU[losses.argmin()]) - truth))
        covered += fitted.interval[0] <= math.exp(truth) <= fitted.interval[1]
    return np.mean(errors), np.mean(alone), covered


def test_a_base_that_was_taught_to_be_unsure_is_overruled_by_30_labels():
    """Its bracket is narrow and wrong."""
    data = questions(1200, seed=3)
    unsure = replace(data, base_final=(data.base_final / 1.6).astype(np.float32))
    bracket = fit_bracket(unsure, n_bootstrap=0)
    assert bracket.ratio < 1.5 and bracket.low > 1.3 * TAU
    table = label_losses(data, np.arange(1200))
    errors, alone, _ = mean_errors(label_free_prior(unsure, 1.0), table, 30)
    assert errors < 1.2 * alone


def test_without_a_lower_end_the_upper_end_is_the_yardstick():
    """A chat model that hardly knows anything of these questions, and is as sure as of others."""
    data = questions(1200, seed=3)
    stranger = replace(
        data, chat_final=np.roll(data.chat_final, 1, axis=0) + np.float32(0.3) * data.chat_final
    )
    bracket = fit_bracket(stranger, n_bootstrap=0)
    assert bracket.low is None and bracket.high is not None
    errors, alone, _ = mean_errors(
        label_free_prior(stranger, 1.0), label_losses(stranger, np.arange(1200)), 30
    )
    assert errors < 0.9 * alone


def test_an_underconfident_model_is_found_with_few_labels():
    data = questions(tau=0.4, n_labelled=60)
    fitted = fit_anchored(data, 0.5)
    assert fitted.temperature == pytest.approx(0.4, rel=0.35)
    assert fitted.temperature < 1.0 and fitted.doubt < 0.2


def test_the_order_of_prompts_changes_no_more_than_the_last_digits():
    data = questions(n_labelled=30)
    order = np.random.default_rng(1).permutation(data.n_prompts)
    assert fit_anchored(data.take(order), 1.0).temperature == pytest.approx(
        fit_anchored(data, 1.0).temperature, rel=1e-9
    )


def test_equal_weights_change_nothing_whatever_their_size():
    data = questions(n_labelled=50)
    for weight in (1.0, 7.3, 1e-3):
        weighted = fit_anchored(data, 1.0, weights=np.full(data.n_prompts, weight))
        assert weighted.temperature == pytest.approx(fit_anchored(data, 1.0).temperature, rel=1e-9)


def test_unequal_weights_widen_the_interval():
    data = questions(n_labelled=200)
    weights = np.where(np.arange(data.n_prompts) % 2, 10.0, 1.0)
    flat = Prior(np.ones(GRID_LN_TAU.size))
    labelled = np.flatnonzero(data.labels >= 0)
    plain = combine(flat, label_losses(data, labelled).sum(axis=0), n_prompts=800, n_labelled=200)
    weighted, unweighted = fit_anchored(data, 0.5, weights=weights), fit_anchored(data, 0.5)
    assert plain.interval[0] < weighted.temperature < plain.interval[1]
    assert width(weighted) > 1.1 * width(unweighted)


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf])
def test_a_weight_that_is_no_positive_number_is_refused(weight):
    data = questions(n_labelled=30)
    weights = np.ones(data.n_prompts)
    weights[np.flatnonzero(data.labels >= 0)[3]] = weight
    with pytest.raises(InputError, match="weight"):
        fit_anchored(data, 1.0, weights=weights)


def test_doubt_is_large_where_one_is_as_likely_as_the_temperature():
    data = questions(tau=1.1, n_labelled=30)
    assert fit_anchored(data, 0.5).doubt > 0.05
    assert fit_anchored(questions(tau=4.0, n_labelled=200), 0.5).doubt < 0.01


@pytest.mark.parametrize("n_labelled", [30, 100])
def test_few_labels_are_worth_more_than_alone_and_intervals_hold_the_truth(n_labelled):
    """The anchored error is smaller than the supervised one, and 95 % intervals cover."""
    data = questions(1200, seed=3)
    table = label_losses(data, np.arange(1200))
    errors, alone, covered = mean_errors(label_free_prior(data, 0.5), table, n_labelled)
    assert errors < alone
    assert covered >= 52
