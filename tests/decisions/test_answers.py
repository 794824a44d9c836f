"""Answers from logits: the format's formulas by hand, and the laws that an answer must keep."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

from edgecal.decisions import Choice, Decision, Decisions, Noul, Score, answer_question, label_logits
from edgecal.decisions.answers import average_orders
from edgecal.decisions.temperatures import UsedTemperature

PLAIN = UsedTemperature(1.0)
KINDS = {
    "noul": (Noul("?"), 2),
    "choice": (Choice("?", {"a": None, "b": None, "c": None}), 3),
    "score": (Score("?", ("low", "mid", "high", "top")), 4),
}


def answer(question, logits, used=PLAIN, *, mass=1.0, rather=None, **options):
    rows = np.atleast_2d(np.asarray(logits, float))
    options = {"min_mass": 0.5, "min_confidence": None} | options
    return answer_question(question, rows, [mass] * len(rows), [rather] * len(rows), used, **options)


def decision(kind, probs, **facts):
    keys = {"noul": ("true", "false"), "score": tuple(map(str, range(len(probs))))}
    known = {"label_mass": 1.0, "temperature": 1.0, "settled": None, "abstained": False} | facts
    if kind == "score":
        known.setdefault("legend", ("level",) * len(probs))
    return Decision(kind, keys.get(kind, tuple("abcdefghij"[: len(probs)])), tuple(probs), **known)


@pytest.mark.parametrize(
    ("kind", "probs", "confidence"),
    [
        # (max p - 1/n) / (1 - 1/n)
        ("choice", (0.5, 0.3, 0.2), 0.25),
        ("choice", (0.25, 0.25, 0.25, 0.25), 0.0),
        ("choice", (1.0, 0.0), 1.0),
        ("choice", (0.1, 0.9), 0.8),
        # 1 - E|level - mode| / mean |level - middle|
        ("score", (0.2, 0.5, 0.3), 1 - 0.5 / (2 / 3)),
        ("score", (0.5, 0.2, 0.2, 0.1), 1 - 0.9 / 1.0),
        ("score", (0.7, 0.15, 0.05, 0.1), 1 - 0.55 / 1.0),
        ("score", (0.4, 0.6), 1 - 0.4 / 0.5),
        ("score", (0.5, 0.0, 0.5), 0.0),  # below 0 by the formula
        ("score", (0.0, 0.0, 1.0), 1.0),
        ("score", (0.1,) * 10, 0.0),
    ],
)
def test_confidence_is_the_formats_own(kind, probs, confidence):
    found = decision(kind, probs)
    assert found.confidence == pytest.approx(confidence, abs=1e-12)
    assert found.to_dict()["confidence"] == found.confidence
    assert found.to_dict()["x_probability"] == found.probability == max(probs)


def test_the_format_of_each_type():
    facts = {
        "x_label_mass": 0.9,
        "x_temperature": 2.0,
        "x_settled": True,
        "x_abstained": False,
    }
    known = {"label_mass": 0.9, "temperature": 2.0, "settled": True}
    assert decision("noul", (0.25, 0.75), **known).to_dict() == {
        "type": "noul",
        "noul": 0.25,
        "x_probability": 0.75,
        **facts,
    }
    assert decision("choice", (0.5, 0.3, 0.2), **known).to_dict() == {
        "type": "choice",
        "choice": "a",
        "probabilities": {"a": 0.5, "b": 0.3, "c": 0.2},
        "confidence": 0.25,
        "x_probability": 0.5,
        **facts,
    }
    levels = ({"why": "calm"}, "mid", ["very"])
    score = decision("score", (0.25, 0.25, 0.5), **known, legend=levels).to_dict()
    assert score["score"] == 1.25
    assert score["probabilities"] == {"0": 0.25, "1": 0.25, "2": 0.5}
    assert score["legend"] == {"0": {"why": "calm"}, "1": "mid", "2": ["very"]}
    assert set(score) == {"type", "score", "probabilities", "legend", "confidence", "x_probability", *facts}
    more = {"order_spread": 0.1, "none_of_the_above": 0.2, "doubts": ("why",)}
    assert (
        decision("noul", (0.5, 0.5), **more).to_dict().items()
        >= {
            "x_order_spread": 0.1,
            "x_none_of_the_above": 0.2,
            "x_settled": None,
        }.items()
    )
    assert decision("noul", (0.5, 0.5), **more).to_dict()["x_doubts"] == ["why"]


def test_a_response():
    answers = {"b": decision("noul", (0.5, 0.5)), "a": decision("choice", (0.5, 0.5))}
    found = Decisions(answers, "m", 120, 40)
    assert (list(found), len(found), found["a"].key) == (["b", "a"], 2, "a")
    response = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert list(response) == ["model", "answers", "usage", "x_tokens_computed"]
    assert response["usage"] == {"input_tokens": 120, "output_tokens": 0}
    assert (response["model"], response["x_tokens_computed"]) == ("m", 40)
    assert found == replace(found, tokens_computed=7)


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_are_a_softmax_over_the_temperature(kind):
    question, n = KINDS[kind]
    logits = np.random.default_rng(3).normal(0, 4, n)
    found = answer(question, logits, UsedTemperature(2.5, True))
    expected = np.exp(logits / 2.5) / np.exp(logits / 2.5).sum()
    np.testing.assert_allclose(found.probs, expected, rtol=1e-12)
    assert (found.temperature, found.settled, found.doubts) == (2.5, True, ())
    assert (found.keys, found.order_spread, found.n_orders) == (question.keys, None, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_adding_a_constant_changes_nothing(kind):
    question, n = KINDS[kind]
    logits = np.random.default_rng(4).normal(0, 4, (3, n))
    moved = logits + np.array([[512.0], [-64.0], [0.0]])
    one, other = (answer(question, each, UsedTemperature(3.0)) for each in (logits, moved))
    np.testing.assert_allclose(one.probs, other.probs, rtol=1e-12)
    assert one.order_spread == pytest.approx(other.order_spread, abs=1e-12)


def test_permuted_options_permute_the_answer():
    logits = np.random.default_rng(5).normal(0, 2, (2, 3))
    options = dict(zip("abc", logits.T, strict=True))
    for permuted in itertools.permutations("abc"):
        question = Choice("?", dict.fromkeys(permuted))
        found = answer(question, np.array([options[name] for name in permuted]).T, UsedTemperature(1.7))
        expected = answer(KINDS["choice"][0], logits, UsedTemperature(1.7))
        assert found.key == expected.key and found.probability == expected.probability
        for name, prob in zip(expected.keys, expected.probs, strict=True):
            assert found.probs[found.keys.index(name)] == pytest.approx(prob, rel=1e-14)


@pytest.mark.parametrize("temperature", [0.05, 0.7, 1.0, 4.0, 50.0])
def test_a_temperature_changes_no_argmax(temperature):
    rng = np.random.default_rng(6)
    for question, n in KINDS.values():
        logits = rng.normal(0, 3, (2, n))
        assert answer(question, logits, UsedTemperature(temperature)).key == answer(question, logits).key


def test_logits_of_places_become_those_of_options():
    order = (2, 0, 1)
    by_place = np.array([[30.0, 10.0, 20.0], [3.0, 1.0, 2.0]])
    np.testing.assert_array_equal(label_logits(by_place, order), [[10.0, 20.0, 30.0], [1.0, 2.0, 3.0]])
    inverse = tuple(np.argsort(order).tolist())
    np.testing.assert_array_equal(label_logits(label_logits(by_place, order), inverse), by_place)


def test_orders_are_averaged_as_log_probabilities():
    logits = np.log(np.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1]])) + np.array([[7.0], [-3.0]])
    products = np.sqrt(np.array([0.6 * 0.2, 0.3 * 0.7, 0.1 * 0.1]))
    found = answer(KINDS["choice"][0], logits)
    np.testing.assert_allclose(found.probs, products / products.sum(), rtol=1e-12)
    assert found.order_spread == pytest.approx(0.7 - 0.3, abs=1e-12)  # of "b", the answer
    assert found.n_orders == 2
    same = answer(KINDS["choice"][0], logits[[0, 0]])
    assert same.order_spread == 0.0
    np.testing.assert_allclose(same.probs, answer(KINDS["choice"][0], logits[0]).probs, rtol=1e-14)


def test_an_average_of_one_order_and_of_a_masked_label():
    logits = np.array([[1.0, -np.inf, 3.0]])
    with np.errstate(all="raise"):
        found = average_orders(logits)
    assert found[1] == -np.inf and np.exp(found).sum() == pytest.approx(1.0)


def test_extreme_logits_stay_probabilities():
    with np.errstate(over="raise", invalid="raise"):
        found = answer(KINDS["choice"][0], [[1e30, -1e30, 0.0], [1e30, 0.0, -1e30]], UsedTemperature(0.1))
    assert found.probs == (1.0, 0.0, 0.0)


def test_a_bias_moves_yes_against_no():
    used = UsedTemperature(2.0, bias=0.5)
    found = answer(Noul("?"), [1.0, 3.0], used)
    assert found.probs[0] == pytest.approx(1 / (1 + np.exp(-((1.0 - 3.0) / 2.0 + 0.5))), rel=1e-12)


def test_of_equal_options_the_first():
    assert answer(KINDS["choice"][0], [1.0, 1.0, 1.0]).key == "a"
    assert answer(KINDS["score"][0], [0.0, 2.0, 2.0, 0.0]).key == "1"


def test_none_of_the_above_is_reported_apart():
    question = Choice("?", {"a": None, "b": None}, none_of_the_above=True)
    found = answer(question, np.log([0.3, 0.1, 0.6]))
    assert found.none_of_the_above == pytest.approx(0.6) and found.abstained
    np.testing.assert_allclose(found.probs, [0.75, 0.25], rtol=1e-12)
    assert found.doubts == ("none of the above is likelier than every option",)
    assert found.to_dict()["probabilities"].keys() == {"a", "b"}
    sure = answer(question, np.log([[0.5, 0.1, 0.4], [0.8, 0.1, 0.1]]))
    assert not sure.abstained and sure.none_of_the_above == pytest.approx(
        0.2 / (0.2 + 0.1 + np.sqrt(0.4)), rel=1e-9
    )
    # The spread is that of the probability given that one of the options applies.
    assert sure.order_spread == pytest.approx(8 / 9 - 5 / 6)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mass": 0.4999}, "the model puts only 50.0% of its probability on the labels"),
        ({"rather": "<|im_end|>"}, "the control token '<|im_end|>' is likelier than every label"),
        ({"min_confidence": 0.9}, "the probability is below 0.9"),
        ({"mass": 0.95, "min_mass": 0.96}, "the model puts only 95.0% of its probability on the labels"),
    ],
)
def test_what_makes_an_answer_abstain(options, said):
    found = answer(Noul("?"), [1.0, 0.0], **options)
    assert found.abstained and found.doubts == (said,)


@pytest.mark.parametrize(
    "options", [{}, {"mass": 0.5}, {"mass": 0.0, "min_mass": 0.0}, {"min_confidence": 0.5}]
)
def test_what_does_not(options):
    found = answer(Noul("?"), [1.0, 0.0], **options)
    assert not found.abstained and not found.doubts


def test_a_probability_at_the_threshold_is_enough():
    assert not answer(Noul("?"), [2.0, 2.0], min_confidence=0.5).abstained


def test_doubt_of_the_temperature_abstains_from_nothing():
    found = answer(Noul("?"), [1.0, 0.0], UsedTemperature(2.0, False, doubt="unsettled"))
    assert (found.settled, found.abstained, found.doubts) == (False, False, ("unsettled",))


def test_the_mass_is_the_mean_over_orders():
    found = answer_question(Noul("?"), np.zeros((2, 2)), [0.2, 0.9], [None, "<eos>"], PLAIN, min_mass=0.5)
    assert found.label_mass == pytest.approx(0.55)
    assert found.doubts == ("the control token '<eos>' is likelier than every label",)
