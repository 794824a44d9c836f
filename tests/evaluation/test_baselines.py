"""CAPE maps permuted options back, layers vote, the base model rates the answer, statements meet labels."""

import dataclasses

import numpy as np
import pytest
from support.choice_data import make_choice_logits, rebuild

from edgecal.evaluation.baselines import (
    average_permutations,
    judge_consistency,
    judge_logits,
    judge_reevaluation,
    judge_statements,
)
from edgecal.metrics import FIGURES, compute_figures


def test_a_model_that_likes_content_is_not_changed_by_permutations():
    rng = np.random.default_rng(0)
    content = rng.dirichlet(np.ones(4), size=5)
    orders = [tuple(int(i) for i in rng.permutation(4)) for _ in range(15)]
    owners = np.repeat(np.arange(5), 3)
    seen = np.array([content[owner][list(order)] for owner, order in zip(owners, orders, strict=True)])
    assert np.allclose(average_permutations(seen, owners, orders, 5), content)


def test_a_model_that_likes_a_letter_becomes_even_over_all_shifts():
    always_a = np.tile([0.7, 0.2, 0.1], (3, 1))
    shifts = [(0, 1, 2), (1, 2, 0), (2, 0, 1)]
    mean = average_permutations(always_a, np.zeros(3, dtype=int), shifts, 1)
    assert np.allclose(mean, 1 / 3)


def test_fewer_options_stay_in_their_columns():
    probs = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]])
    mean = average_permutations(probs, np.array([0, 0]), [(0, 1), (1, 0)], 1)
    assert np.allclose(mean, [[0.85, 0.15, 0.0]])


def test_consistency_is_the_share_of_layers_that_agree():
    data = make_choice_logits(3, 5, 2, seed=1)
    layers = np.zeros((3, 5, 2), dtype=np.float32)
    final = np.array([[0.0, 1.0]] * 3, dtype=np.float32)
    for question, n_agree in enumerate((0, 1, 4)):
        layers[question, :n_agree, 1] = 1.0
        layers[question, n_agree:, 0] = 1.0
    judged = judge_consistency(
        rebuild(data, chat_layers=layers, chat_final=final, labels=np.array([1, 0, 1], dtype=np.int32))
    )
    assert judged.confidence.tolist() == [0.0, 0.25, 1.0]
    assert judged.correct.tolist() == [True, False, True]


def test_no_layers_no_consistency():
    assert judge_consistency(make_choice_logits(3, 4, 2, layers=False)) is None
    assert judge_consistency(make_choice_logits(3, 1, 2)) is None


RAGGED = make_choice_logits(400, 3, (2, 5), seed=7)
NEED_A_DISTRIBUTION = {"brier_multiclass", "nll", "classwise_ece"}


def test_reevaluation_is_the_base_models_probability_of_the_chat_models_choice():
    """Question by question, by the formula."""
    judged = judge_reevaluation(RAGGED)
    rows = zip(RAGGED.base_final, RAGGED.chat_final, RAGGED.n_choices, RAGGED.labels, strict=True)
    for i, (base, chat, k, label) in enumerate(rows):
        powers = np.exp(base[:k].astype(np.float64))
        choice = int(np.argmax(chat[:k]))
        assert judged.confidence[i] == pytest.approx(powers[choice] / powers.sum(), rel=1e-12)
        assert judged.correct[i] == (choice == label)
    assert (judged.confidence < 1 / RAGGED.n_choices).any()  # the base model prefers another choice there
    assert (judged.correct == judge_logits(RAGGED.chat_final, RAGGED.n_choices, RAGGED.labels).correct).all()


def test_reevaluation_by_a_base_model_equal_to_the_chat_model_is_the_chat_model_as_it_is():
    data = rebuild(RAGGED, base_final=RAGGED.chat_final, base_layers=RAGGED.chat_layers)
    judged = judge_reevaluation(data)
    vanilla = judge_logits(data.chat_final, data.n_choices, data.labels)
    np.testing.assert_array_equal(judged.confidence, vanilla.confidence)
    mine, figures = compute_figures(judged), compute_figures(vanilla)
    assert {name for name, value in mine.items() if np.isnan(value)} == NEED_A_DISTRIBUTION
    assert all(mine[name] == figures[name] for name in mine if name not in NEED_A_DISTRIBUTION)


def test_reevaluation_follows_the_options_into_another_order():
    data = make_choice_logits(200, 2, 4, seed=8, layers=False)
    order = np.array([2, 0, 3, 1])
    moved = dataclasses.replace(
        data,
        base_final=data.base_final[:, order],
        chat_final=data.chat_final[:, order],
        labels=np.argsort(order)[data.labels].astype(np.int32),
    )
    one, other = judge_reevaluation(data), judge_reevaluation(moved)
    np.testing.assert_allclose(one.confidence, other.confidence, rtol=1e-12)
    np.testing.assert_array_equal(one.correct, other.correct)


def test_reevaluation_ignores_constants_and_how_sure_the_chat_model_is():
    shift = np.random.default_rng(0).normal(size=(400, 1)).astype(np.float32) * 4
    changed = rebuild(
        RAGGED,
        base_final=RAGGED.base_final + shift,
        chat_final=RAGGED.chat_final * np.float32(0.25) - shift,
        base_layers=None,
        chat_layers=None,
    )
    one, other = judge_reevaluation(RAGGED), judge_reevaluation(changed)
    np.testing.assert_allclose(one.confidence, other.confidence, rtol=1e-5)
    np.testing.assert_array_equal(one.correct, other.correct)


def test_figures_of_a_confidence_that_is_no_largest_probability():
    """Four questions of four options each: the base model gives the chat model's choice 0.05, 0.05, 0.9 and 0.9."""
    sure = np.log([0.05, 0.85, 0.05, 0.05]), np.log([0.9, 0.05, 0.03, 0.02])
    base = np.array([sure[0], sure[0], sure[1], sure[1]], dtype=np.float32)
    chat = np.tile(np.array([[1.0, 0.0, 0.0, 0.0]], dtype=np.float32), (4, 1))
    data = make_choice_logits(4, 1, 4, layers=False)
    labels = np.array([0, 1, 0, 0], dtype=np.int32)
    figures = compute_figures(
        judge_reevaluation(rebuild(data, base_final=base, chat_final=chat, labels=labels))
    )
    assert set(figures) == {figure.name for figure in FIGURES}
    assert figures["accuracy"] == 0.75
    assert figures["confidence"] == pytest.approx(0.475)
    assert figures["ece"] == pytest.approx(0.5 * 0.45 + 0.5 * 0.1)
    assert figures["mce"] == pytest.approx(0.45)
    assert figures["brier"] == pytest.approx((0.95**2 + 0.05**2 + 2 * 0.1**2) / 4)
    assert figures["auroc"] == pytest.approx((0.5 + 1 + 1) / 3)
    assert all(np.isnan(figures[name]) for name in NEED_A_DISTRIBUTION)


def test_statements():
    judged, which = judge_statements([(0, 0.9), None, (2, 0.4)], np.array([0, 1, 1]))
    assert which.tolist() == [0, 2]
    assert judged.confidence.tolist() == [0.9, 0.4]
    assert judged.correct.tolist() == [True, False]
    assert judge_statements([None, None], np.array([0, 1]))[0] is None
