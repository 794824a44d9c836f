"""Do no harm: reasons, their bounds, the check by labels, and how seldom a run is given up wrongly."""

import math
from dataclasses import replace

import numba
import numpy as np
import pytest
from scipy.special import log_softmax
from support.choice_data import make_choice_logits, rebuild, twin_counts

from edgecal.calibration import (
    AdaptivePlan,
    AnchoredFit,
    Bracket,
    Look,
    check_choices,
    check_labels,
    doubt_mass,
    find_anchored_doubts,
    find_doubts,
    fit_bracket,
    is_hopeless,
)
from edgecal.calibration.harm import MAX_RATIO, MIN_LABELLED, MIN_MASS


def bracket(low=2.0, high=3.0, *, low_lost=0.0, high_lost=0.0, n=200, ratios=None):
    return Bracket(
        low, high, None, None, low_lost, high_lost, n, np.full(1000, 1.5) if ratios is None else ratios
    )


@pytest.mark.parametrize(
    ("found", "mass", "words"),
    [
        (bracket(2.0, 3.0), 0.8, []),
        (bracket(2.0, 3.001), 0.8, [["ratio of 1.5 ", "at most 1.5", "2 to 3", "--labels", "base"]]),
        (bracket(4.0, 1.9), 0.8, [["ratio of 2.1", "at most 1.5"]]),
        (bracket(0.9, 1.2), 0.8, [["0.9 to 1.2", "holds 1", "leave it so", "--labels"]]),
        (bracket(1.01, 1.2), 0.8, []),
        (bracket(0.8, 0.99), 0.8, []),
        (bracket(), 0.799, [["79.9%", "80%", "--labels", "base"]]),
        (bracket(low=None), 1.0, [["no low end", "0.05 to 50", "--labels"]]),
        (bracket(high=None), 1.0, [["no high end", "0.05 and 50", "--labels"]]),
        (bracket(low_lost=0.05), 1.0, []),
        (bracket(low_lost=0.06), 1.0, [["low end, 2,", "6%", "5%", "more prompts"]]),
        (bracket(high_lost=0.06), 1.0, [["high end, 3,", "6%", "5%"]]),
        (bracket(None, None, n=29), 1.0, [["29 prompts", "30"]]),
        (bracket(None, None), 0.5, [["50.0%"], ["no low end"], ["no high end"]]),
    ],
)
def test_each_reason_names_the_figure_the_bound_and_what_to_do(found, mass, words):
    doubts = find_doubts(found, mass)
    assert len(doubts) == len(words)
    for doubt, expected in zip(doubts, words, strict=True):
        assert "\n" not in doubt and all(word in doubt for word in expected), doubt


def anchored(tau=3.0, interval=(2.5, 3.6), prior=(1.5, 6.0), doubt=0.01, n=20):
    return AnchoredFit(tau, interval, 3.0, prior, 400, n, doubt, 0.95)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (anchored(), []),
        (anchored(interval=(2.0, 4.0), doubt=0.05), []),
        (
            anchored(interval=(2.0, 4.4)),
            [["20 labels", "2 to 4.4", "ratio of 2.2", "at most 2", "about 30 in"]],
        ),
        (anchored(interval=(1.5, 4.5)), [["ratio of 3", "about 110 in all"]]),
        (
            anchored(interval=(1.5, 4.5), prior=(2.0, 4.0)),
            [["ratio of 3", "about 60 in all"]],
        ),  # they conflict
        (
            anchored(tau=1.3, interval=(1.0, 1.7), doubt=0.06),
            [["6%", "nearer to 1", "1.3", "5%", "about 70 in"]],
        ),
        (anchored(tau=1.01, interval=(0.8, 1.3), doubt=0.4), [["40%", "leave the model as it is"]]),
        (anchored(tau=1.0, interval=(0.6, 1.7), doubt=0.5), [["ratio of 2.8"], ["50%", "leave the model"]]),
    ],
)
def test_an_anchored_fit_is_doubted_by_its_own_posterior(found, words):
    doubts = find_anchored_doubts(found)
    assert len(doubts) == len(words), doubts
    for doubt, expected in zip(doubts, words, strict=True):
        assert "\n" not in doubt and all(word in doubt for word in expected), doubt


def test_a_bracket_whose_ends_are_not_surely_beyond_1_holds_it():
    """The ends' own intervals decide: a low end of 1.01 that other prompts would put at 0.98 excludes nothing."""
    sure, unsure = (
        replace(bracket(1.03, 1.2), low_interval=(1.01, 1.05)),
        replace(bracket(1.01, 1.2), low_interval=(0.98, 1.04)),
    )
    below = replace(bracket(0.8, 0.99), high_interval=(0.97, 1.01))
    assert find_doubts(sure, 0.9) == ()
    for found in (unsure, below):
        (doubt,) = find_doubts(found, 0.9)
        assert "holds 1" in doubt


def test_a_low_mass_is_told_with_what_is_said_instead_and_what_mends_that():
    (doubt,) = find_doubts(bracket(), 0.5, " and would rather say 'x'", "ask better")
    assert doubt.startswith(
        "the base model puts only 50.0% of its probability on the choices and would rather say 'x';"
    )
    assert doubt.endswith(": ask better") and doubt_mass(0.5, " and would rather say 'x'", "ask better") == [
        doubt
    ]
    assert doubt_mass(MIN_MASS, "x", "y") == []


@pytest.mark.parametrize("n", [MIN_LABELLED - 1, MIN_LABELLED, 200])
@pytest.mark.parametrize(
    ("sharpness", "tau", "found"), [(3.0, 2.5, "better"), (1.0, 40.0, "worse"), (1.0, 1.02, "undecided")]
)
def test_labels_judge_a_temperature_as_the_twin_does(n, sharpness, tau, found):
    data = make_choice_logits(240, 1, (2, 5), seed=3, layers=False, sharpness=sharpness, noise=0.1)
    labels = data.labels.copy()
    labels[n:] = -1
    data = rebuild(data, labels=labels)
    check = check_labels(data, tau, n_bootstrap=100, seed=5)
    if n < MIN_LABELLED:
        assert check is None
        return
    nll = {
        t: np.array(
            [
                -log_softmax(data.chat_final[i, : data.n_choices[i]].astype(np.float64) / t)[labels[i]]
                for i in range(n)
            ]
        )
        for t in (1.0, tau)
    }
    change = nll[tau] - nll[1.0]
    drawn = [twin_counts(n, 5, b) @ change / n for b in range(100)]
    assert check.n == n and check.nll_before == pytest.approx(nll[1.0].mean(), rel=1e-9)
    assert check.nll_after == pytest.approx(nll[tau].mean(), rel=1e-9)
    assert check.interval == pytest.approx(np.quantile(drawn, [0.025, 0.975]), rel=1e-6, abs=1e-12)
    if n == 200:
        assert (check.found, check.harmful) == (found, found != "better")
    both = f"{check.nll_before:.4f} before and {check.nll_after:.4f} after"
    assert both in check.doubt and "\n" not in check.doubt


@pytest.mark.parametrize(
    ("mine", "found"),
    [(lambda z: z / 3, "better"), (lambda z: z * 9, "worse"), (lambda z: z * 1.0, "undecided")],
)
def test_labels_judge_another_confidence_in_the_same_choices_as_the_twin_does(mine, found):
    data = make_choice_logits(240, 1, (2, 5), seed=3, layers=False, sharpness=3.0, noise=0.1)
    labels = data.labels.copy()
    labels[200:] = -1
    data = rebuild(data, labels=labels)
    z = data.chat_final.astype(np.float64)
    check = check_choices(data, mine(z), n_bootstrap=100, seed=5)
    losses = []
    for logits in (z, mine(z)):
        probs = [np.exp(log_softmax(logits[i, : data.n_choices[i]])) for i in range(200)]
        right = [one.max() if one.argmax() == label else np.delete(one, one.argmax()).sum()
                 for one, label in zip(probs, labels, strict=False)]  # fmt: skip
        losses.append(-np.log(right))
    drawn = [twin_counts(200, 5, b) @ (losses[1] - losses[0]) / 200 for b in range(100)]
    assert check.nll_before == pytest.approx(losses[0].mean(), rel=1e-6)
    assert check.nll_after == pytest.approx(losses[1].mean(), rel=1e-6)
    assert check.interval == pytest.approx(np.quantile(drawn, [0.025, 0.975]), rel=1e-5, abs=1e-9)
    assert check.found == found


def test_a_choice_of_probability_one_that_is_wrong_has_a_finite_loss():
    data = make_choice_logits(40, 1, 4, seed=3, layers=False)
    data = rebuild(data, chat_final=np.tile(np.float32([900, 0, 0, 0]), (40, 1)), labels=np.full(40, 1))
    check = check_choices(data, np.zeros((40, 4)), n_bootstrap=20)
    assert check.nll_before == pytest.approx(900, abs=2) and check.nll_after == pytest.approx(-np.log(0.75))


def test_words_tell_worse_from_not_shown_to_be_better():
    data = make_choice_logits(240, 1, 4, seed=3, layers=False, sharpness=1.0, noise=0.1)
    said = {tau: check_labels(data, tau, n_bootstrap=100).doubt for tau in (1.0, 40.0)}
    assert "do not show that it helps" in said[1.0] and "does harm" in said[40.0]


def test_a_mass_is_hopeless_when_its_interval_is_below_the_bound():
    wide = np.tile([0.5, 1.0], 50)  # mean 0.75, sd 0.25: 0.75 + 1.96 * 0.025 is just below 0.8
    assert is_hopeless(bracket(), wide, 0.05)
    assert not is_hopeless(bracket(), wide, 0.01)
    assert not is_hopeless(bracket(), np.full(100, MIN_MASS + 1e-9), 0.05)


def test_a_ratio_is_hopeless_when_hardly_a_refit_is_within_the_bound():
    ratios = np.full(999, 3.0)
    ratios[:24] = MAX_RATIO
    mass = np.ones(100)
    assert is_hopeless(bracket(ratios=ratios), mass, 0.05)  # (24 + 1) / 1000 is half of it
    assert not is_hopeless(bracket(ratios=ratios), mass, 0.049)
    assert is_hopeless(bracket(ratios=np.full(999, math.inf)), mass, 0.05)
    assert not is_hopeless(bracket(ratios=np.full(19, 3.0)), mass, 0.05)  # 19 refits cannot say so


def given_up(noise, seed, plan):
    """Whether a run over 800 simulated prompts is given up on the way, and after how many."""
    data = make_choice_logits(800, 1, 4, seed=seed, layers=False, labels=False, noise=noise)
    looks = []
    while not (step := plan.next_step(looks, 800)).stop:
        found = fit_bracket(data.take(np.arange(step.n_prompts)), n_bootstrap=400, seed=seed)
        hopeless = step.n_prompts < 800 and is_hopeless(found, np.ones(step.n_prompts), step.doubt)
        looks.append(Look(step.n_prompts, step.level, step.counts, hopeless=hopeless))
    return looks[-1].n_prompts if looks[-1].hopeless else None


@pytest.mark.parametrize(("noise", "settled"), [(0.55, True), (1.0, False)])
def test_runs_are_seldom_given_up_wrongly_and_often_rightly(noise, settled):
    """A population whose ratio is just within the bound, and one well beyond it."""
    before = numba.get_num_threads()
    numba.set_num_threads(1)  # thousands of short calls; the bits are the same
    try:
        truth = make_choice_logits(100_000, 1, 4, seed=1, layers=False, labels=False, noise=noise)
        ratio = fit_bracket(truth, n_bootstrap=0).ratio
        assert (1.4 < ratio < MAX_RATIO) if settled else ratio > 2.3
        ends = [given_up(noise, 500 + seed, AdaptivePlan()) for seed in range(120)]
    finally:
        numba.set_num_threads(before)
    share = np.mean([end is not None for end in ends])
    if settled:
        assert share <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 120)
    else:
        assert share > 0.8
