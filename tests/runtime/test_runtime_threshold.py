"""Abstention: the exact bound against scipy, the guarantee by simulation, and what eval's JSON gives."""

import json

import numpy as np
import pytest
from scipy.stats import beta
from support.calibrated import CHAT, MODELS, TEMPERATURE

import edgecal
from edgecal import Choice, RunOptions
from edgecal.decisions import UsedTemperature, answer_question
from edgecal.errors import InputError, NotIdentifiedError
from edgecal.llama.settings import CaptureSettings
from edgecal.runtime import threshold_for, threshold_from_eval
from edgecal.runtime.abstention import THRESHOLDS, clopper_pearson_low


@pytest.mark.parametrize("n", [1, 2, 7, 50, 999, 30_000])
@pytest.mark.parametrize("alpha", [0.5, 0.05, 0.0025, 1e-6])
def test_the_bound_is_clopper_and_pearsons(n, alpha):
    for right in sorted({1, max(1, n // 3), max(1, n // 2), max(1, n - 2), max(1, n - 1), n}):
        expected = beta.ppf(alpha, right, n - right + 1)
        assert clopper_pearson_low(right, n, alpha) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert clopper_pearson_low(0, n, alpha) == 0.0


def test_no_questions_bound_nothing():
    assert clopper_pearson_low(0, 0, 0.05) == 0.0


def simulate(rng, n):
    """A calibrated model: right with the probability that it says."""
    confidence = rng.beta(3, 1.5, size=n)
    return confidence, rng.random(n) < confidence


def test_the_lowest_threshold_that_can_be_vouched_for():
    confidence, correct = simulate(np.random.default_rng(0), 4000)
    found = threshold_for(0.8, confidence, correct)
    assert found.min_confidence in THRESHOLDS
    answered = confidence >= found.min_confidence
    assert (found.n, found.n_answered, found.n_correct) == (4000, answered.sum(), correct[answered].sum())
    assert found.coverage == answered.mean() and found.accuracy == correct[answered].mean()
    alpha = 0.05 / len(THRESHOLDS)
    assert found.accuracy_low == pytest.approx(
        beta.ppf(alpha, found.n_correct, found.n_answered - found.n_correct + 1)
    )
    assert found.accuracy_low >= 0.8 > found.min_confidence  # answers above a threshold are better than at it
    for threshold in THRESHOLDS[: THRESHOLDS.index(found.min_confidence)]:
        rest = confidence >= threshold
        assert beta.ppf(alpha, correct[rest].sum(), rest.sum() - correct[rest].sum() + 1) < 0.8


def test_more_accuracy_costs_coverage_and_more_certainty_too():
    confidence, correct = simulate(np.random.default_rng(1), 3000)
    by_accuracy = [threshold_for(wanted, confidence, correct) for wanted in (0.6, 0.7, 0.8, 0.9)]
    assert [t.coverage for t in by_accuracy] == sorted((t.coverage for t in by_accuracy), reverse=True)
    by_level = [threshold_for(0.8, confidence, correct, level=level) for level in (0.5, 0.9, 0.999)]
    assert [t.coverage for t in by_level] == sorted((t.coverage for t in by_level), reverse=True)


@pytest.mark.parametrize("wanted", [0.7, 0.85])
def test_the_guarantee_holds(wanted):
    """Over many calibration sets, the true accuracy above the threshold falls short rarely enough. (A model whose
    confidence says nothing is the hard case: every threshold is as bad.)"""
    rng = np.random.default_rng(2)
    truth_confidence, truth_correct = simulate(rng, 200_000)
    short = 0
    for _ in range(100):
        confidence, correct = simulate(rng, 300)
        try:
            found = threshold_for(wanted, confidence, correct, level=0.8)
        except NotIdentifiedError:
            continue
        answered = truth_confidence >= found.min_confidence
        short += truth_correct[answered].mean() < wanted
    assert short <= 0.2 * 100
    fooled = 0
    for _ in range(100):
        confidence, correct = rng.random(300), rng.random(300) < wanted - 0.01
        try:
            threshold_for(wanted, confidence, correct, level=0.8)
            fooled += 1
        except NotIdentifiedError:
            continue
    assert fooled <= 0.2 * 100


def test_too_few_or_too_bad():
    with pytest.raises(NotIdentifiedError, match=r"with 10 questions.*10 of 10 are right.*0\.9 is wanted"):
        threshold_for(0.9, [0.99] * 10, [True] * 10)
    with pytest.raises(NotIdentifiedError, match="ask for less"):
        threshold_for(0.9, [0.99] * 1000, [True, False] * 500)


def test_order_does_not_matter():
    confidence, correct = simulate(np.random.default_rng(3), 500)
    assert threshold_for(0.7, confidence, correct) == threshold_for(0.7, confidence[::-1], correct[::-1])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((1.0, [0.5], [True]), "accuracy"),
        ((0.0, [0.5], [True]), "accuracy"),
        ((float("nan"), [0.5], [True]), "accuracy"),
        ((0.9, [], []), "at least one"),
        ((0.9, [0.5, 0.6], [True]), "2 confidences and 1 answers"),
        ((0.9, [1.2], [True]), "between 0 and 1"),
        ((0.9, [float("nan")], [True]), "between 0 and 1"),
    ],
)
def test_bad_input(arguments, told):
    with pytest.raises(InputError, match=told):
        threshold_for(*arguments)
    with pytest.raises(InputError, match="level"):
        threshold_for(0.5, [0.5], [True], level=1.0)


def test_from_an_evaluation(plain):
    """The reliability diagram's bins give exactly the counts of the questions themselves."""
    records = [
        json.loads(line) for line in (MODELS / "questions/dev.jsonl").read_text("utf-8").splitlines()[:150]
    ]
    evaluated = edgecal.evaluate(
        CHAT,
        records,
        temperature=TEMPERATURE,
        n_bootstrap=0,
        effect_sample=0,
        run=RunOptions(settings=CaptureSettings(n_threads=1)),
    ).to_dict()
    answers = [plain.choose(record["question"], record["choices"]) for record in records]
    found = threshold_from_eval(0.65, evaluated, level=0.7)
    assert 0 < found.coverage < 1 and found.accuracy_low >= 0.65
    evaluated["plots"]["reliability"]["after"] = None  # as of a file without temperature
    without = threshold_from_eval(0.5, evaluated, level=0.7)
    for threshold, temperature in ((found, TEMPERATURE), (without, 1.0)):
        powers = [np.array(answer.probs) ** (1 / temperature) for answer in answers]
        sure = [power.max() / power.sum() >= threshold.min_confidence for power in powers]
        right = [a.choice == record["answer"] for a, record in zip(answers, records, strict=True)]
        counts = (150, sum(sure), sum(s and r for s, r in zip(sure, right, strict=True)))
        assert (threshold.n, threshold.n_answered, threshold.n_correct) == counts


@pytest.mark.parametrize(
    "result",
    [
        {},
        {"kind": "compare"},
        {"kind": "eval", "plots": {}},
        {"kind": "eval", "plots": {"reliability": {"after": None, "before": None}}},
        {
            "kind": "eval",
            "plots": {"reliability": {"after": {"edges": [0, 1], "n": [0], "accuracy": [None]}}},
        },
        {"kind": "eval", "plots": {"reliability": {"after": {"edges": [0], "n": [1], "accuracy": [1.0]}}}},
        {
            "kind": "eval",
            "plots": {"reliability": {"after": {"edges": [0, 1], "n": ["x"], "accuracy": [1.0]}}},
        },
    ],
)
def test_results_that_are_not_an_evaluation(result):
    with pytest.raises(InputError, match="result"):
        threshold_from_eval(0.9, result)


@pytest.mark.parametrize(
    "arguments",
    [
        (None, [0.5], [True]),
        ("0.5", [0.5], [True]),
        (0.5, None, [True]),
        (0.5, 5, [True]),
        (0.5, ["much"], [True]),
        (0.5, [None], [True]),
        (0.5, [0.5], 1),
    ],
)
def test_what_are_no_numbers(arguments):
    with pytest.raises(InputError, match="expected a"):
        threshold_for(*arguments)
    with pytest.raises(InputError, match="expected a number"):
        threshold_for(0.5, [0.5], [True], level=None)


def test_decisions_have_a_threshold_as_answers_have():
    """Above it, decisions drawn afresh are right as often as wanted; and below it, they abstain."""
    rng = np.random.default_rng(8)
    question = Choice("Which?", ["a", "b", "c"])

    def drawn(n, **options):
        logits = rng.normal(0, 3, (n, 1, 3))
        decisions = [
            answer_question(question, each, [1.0], [None], UsedTemperature(1.5), min_mass=0.5, **options)
            for each in logits
        ]
        right = [rng.choice(3, p=decision.probs) == decision.index for decision in decisions]
        return decisions, right

    decisions, right = drawn(2000)
    threshold = threshold_for(0.8, [decision.probability for decision in decisions], right)
    assert 0 < threshold.min_confidence < 1
    decisions, right = drawn(4000, min_confidence=threshold.min_confidence)
    answered = [hit for decision, hit in zip(decisions, right, strict=True) if not decision.abstained]
    assert np.mean(answered) >= 0.8 and 0 < len(answered) < len(decisions)
