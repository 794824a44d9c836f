"""The choice of questions to label: sizes, order, inclusion probabilities, and that it does not bias a fit."""

import math

import numpy as np
import pytest

from edgecal.calibration import ChoiceLogits, fit_anchored
from edgecal.calibration.anchored import GRID_LN_TAU, label_losses, weigh_losses
from edgecal.calibration.labelling import compute_label_sizes, draw_label_order
from edgecal.errors import InputError


def make_logits(n=600, seed=0, k=4):
    """A chat model that no single temperature mends: far too sure where it is sure, honest elsewhere."""
    rng = np.random.Generator(np.random.PCG64(seed))
    chat = rng.normal(0, 2.0, (n, k)) * rng.choice([0.3, 1.0, 4.0], (n, 1))
    honest = chat / np.where(np.ptp(chat, axis=1, keepdims=True) > 8, 5.0, 1.2)
    truth = np.exp(honest - honest.max(axis=1, keepdims=True))
    labels = (truth.cumsum(axis=1) / truth.sum(axis=1, keepdims=True) < rng.random((n, 1))).sum(axis=1)
    base = honest + rng.normal(0, 1.0, (n, k))
    counts = np.full(n, k, np.int32)
    return ChoiceLogits(base.astype("f4"), chat.astype("f4"), None, None, counts, labels.astype(np.int32))


def plain_size(chat, base, tau):
    f, g = (np.exp(z - z.max()) / np.exp(z - z.max()).sum() for z in (chat / tau, base))
    mean = sum(p * z for p, z in zip(f, chat, strict=True))
    return math.sqrt(sum((p + q) / 2 * (z - mean) ** 2 for p, q, z in zip(f, g, chat, strict=True)))


def test_sizes_against_a_loop_and_their_laws():
    logits = make_logits(50)
    sizes = compute_label_sizes(logits, 2.5)
    roots = np.array(
        [
            plain_size(c, b, 2.5)
            for c, b in zip(logits.chat_final.astype("f8"), logits.base_final, strict=True)
        ]
    )
    np.testing.assert_allclose(sizes, 0.5 + 0.5 * roots / roots.mean(), rtol=1e-6)
    assert sizes.mean() == pytest.approx(1) and sizes.min() >= 0.5
    hidden = ChoiceLogits(
        np.c_[logits.base_final + 3, np.zeros(50, "f4")],
        np.c_[logits.chat_final - 7, np.ones(50, "f4")],
        None,
        None,
        logits.n_choices,
        np.full(50, -1),
    )
    np.testing.assert_allclose(compute_label_sizes(hidden, 2.5), sizes, rtol=1e-5)


def test_sizes_where_no_label_says_anything():
    same = np.zeros((3, 2), "f4")
    logits = ChoiceLogits(same, same, None, None, np.full(3, 2), np.full(3, -1))
    assert compute_label_sizes(logits, 1.0).tolist() == [1, 1, 1]
    assert compute_label_sizes(logits.take([]), 1.0).size == 0


def test_an_order_is_its_seeds_own():
    sizes = np.linspace(0.5, 2.0, 40)
    order = draw_label_order(sizes, 3)
    assert order.order.tolist() == draw_label_order(sizes, 3).order.tolist()
    assert order.order.tolist() != draw_label_order(sizes, 4).order.tolist()
    assert sorted(order.order.tolist()) == list(range(40))
    for n in (0, 1, 17, 39, 40):
        found = order.inclusion_probabilities(n)
        assert found.shape == (n,) and np.all((found > 0) & (found <= 1))
        weights = order.weights(n)
        np.testing.assert_array_equal(weights[order.order[:n]], 1 / found)
        assert np.all(weights[order.order[n:]] == 1)
    assert np.all(order.inclusion_probabilities(40) == 1)
    with pytest.raises(InputError, match="above 0"):
        draw_label_order(np.array([1.0, 0.0]), 0)


def test_large_sizes_come_first_as_often_as_they_should():
    sizes = np.array([1.0, 2.0, 5.0])
    first = [int(draw_label_order(sizes, seed).order[0]) for seed in range(4000)]
    np.testing.assert_allclose(np.bincount(first) / 4000, sizes / 8, atol=0.025)


def test_the_choice_does_not_bias_totals_nor_the_fit():
    """Over 400 orders: the weighted scores at the oracle sum to 0 as those of all labels do, and the fitted ln tau is
    that of uniform labels. Without weights both are off by many standard errors."""
    logits = make_logits()
    losses = label_losses(logits, np.arange(600))
    oracle = int(np.argmin(losses.sum(axis=0)))
    scores = losses[:, oracle + 1] - losses[:, oracle - 1]
    sizes = compute_label_sizes(logits, 1.5)
    n = 100
    found = {"chosen": [], "unweighted": [], "uniform": []}
    totals = {"chosen": [], "unweighted": []}
    for seed in range(400):
        order = draw_label_order(sizes, seed)
        asked, weights = order.order[:n], order.weights(n)
        totals["chosen"].append(weights[asked] @ scores[asked] / 600)
        totals["unweighted"].append(scores[asked].mean())
        for name, chosen, weigh in (
            ("chosen", asked, weights[asked]),
            ("unweighted", asked, np.ones(n)),
            ("uniform", draw_label_order(np.ones(600), seed).order[:n], np.ones(n)),
        ):
            found[name].append(GRID_LN_TAU[np.argmin(weigh_losses(losses[chosen], weigh))])

    def deviations(values, wanted):
        return (np.mean(values) - wanted) / (np.std(values) / 20)

    assert abs(deviations(totals["chosen"], scores.mean())) < 3
    assert abs(deviations(totals["unweighted"], scores.mean())) > 10
    uniform = np.mean(found["uniform"])
    assert abs(deviations(found["chosen"], uniform)) < 3
    assert abs(deviations(found["unweighted"], uniform)) > 10


def test_weights_reach_the_anchored_fit():
    logits = make_logits()
    order = draw_label_order(compute_label_sizes(logits, 1.5), 0)
    labels = np.full(600, -1)
    labels[order.order[:60]] = logits.labels[order.order[:60]]
    partly = ChoiceLogits(logits.base_final, logits.chat_final, None, None, logits.n_choices, labels)
    weighted = fit_anchored(partly, 1.0, weights=order.weights(60))
    assert weighted.n_labelled == 60
    assert weighted.temperature != fit_anchored(partly, 1.0).temperature
