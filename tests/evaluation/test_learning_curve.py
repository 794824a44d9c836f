"""The learning curve and the forms of scaling on splits: against fits by hand, and without a glance at other labels."""

import numpy as np
import pytest
from support.choice_data import make_choice_logits, rebuild

from edgecal.calibration import Method, fit_anchored, fit_temperature
from edgecal.evaluation.learning_curve import draw_labelled, fit_anchored_draws, measure_learning
from edgecal.evaluation.method_rows import anchored_row
from edgecal.evaluation.scalings import compare_scalings, warn_of_scaling
from edgecal.evaluation.splits import make_splits
from edgecal.metrics import compute_ece, compute_nll, softmax_probs

MASS = 0.99


def curve(logits, splits, label_free=None):
    anchored = [fit_anchored_draws(logits, split, MASS) for split in splits]
    return measure_learning(logits, splits, anchored, label_free or {"vanilla": [1.0] * len(splits)})


def points(found, method):
    line = next(line for line in found["lines"] if line["method"] == method)
    return {point["n_labels"]: point for point in line["points"]}


@pytest.fixture(scope="module")
def logits():
    return make_choice_logits(500, 4, (2, 5), seed=3)


@pytest.fixture(scope="module")
def splits():
    return make_splits(500, range(2))


def test_every_point_is_what_fit_and_metrics_say(logits, splits):
    """Anchored with the rest of the split's questions unlabelled, supervised on the labels alone."""
    found = curve(logits, splits, {"daca": [2.0, None], "vanilla": [1.0, 1.0]})
    n = 50
    expected = {"anchored": [], "ts": [], "daca": [], "vanilla": []}
    for at, split in enumerate(splits):
        part, judge = logits.take(split.fit), logits.take(split.judge)
        oracle = fit_temperature(judge, Method("ts"), n_bootstrap=0).temperature
        taus = {"anchored": [], "ts": [], "daca": [[2.0], []][at], "vanilla": [1.0]}
        for order in draw_labelled(split):
            labels = np.where(np.isin(np.arange(part.n_prompts), order[:n]), part.labels, -1)
            taus["anchored"].append(fit_anchored(rebuild(part, labels=labels), MASS).temperature)
            taus["ts"].append(fit_temperature(part.take(order[:n]), Method("ts"), n_bootstrap=0).temperature)
        as_it_is = compute_nll(softmax_probs(judge.chat_final, judge.n_choices), judge.labels)
        for method, each in taus.items():
            runs = []
            for tau in each:
                probs = softmax_probs(judge.chat_final, judge.n_choices, tau)
                nll = compute_nll(probs, judge.labels)
                ece = compute_ece(probs.max(axis=1), probs.argmax(axis=1) == judge.labels)
                runs.append((abs(np.log(tau / oracle)), ece, nll, nll > as_it_is))
            if runs:
                expected[method].append(runs)
    for method, by_split in expected.items():
        point = points(found, method)[0 if method in ("daca", "vanilla") else n]
        assert point["n_runs"] == sum(map(len, by_split))
        assert point["n_harmful"] == sum(run[3] for runs in by_split for run in runs)
        for column, name in enumerate(("error", "ece", "nll")):
            means = [np.mean([run[column] for run in runs]) for runs in by_split]
            assert point[name]["mean"] == pytest.approx(np.mean(means), abs=1e-6)
            if len(means) > 1:
                assert point[name]["error"] == pytest.approx(np.std(means, ddof=1) / 2**0.5, abs=1e-6)
            else:
                assert point[name]["error"] is None
    assert [line["method"] for line in found["lines"]] == ["anchored", "ts", "daca", "vanilla"]
    assert sorted(points(found, "anchored")) == [0, 10, 20, 30, 50, 100]  # 150 questions to fit on
    assert sorted(points(found, "ts")) == [10, 20, 30, 50, 100]


def test_no_label_but_those_drawn_changes_a_fit(logits, splits):
    split = splits[0]
    first = fit_anchored_draws(logits, split, MASS)
    drawn = split.fit[draw_labelled(split)[0][:50]]
    wrong = ((logits.labels + 1) % logits.n_choices).astype(np.int32)
    wrong[drawn] = logits.labels[drawn]
    second = fit_anchored_draws(rebuild(logits, labels=wrong), split, MASS)
    assert first[0] == second[0] and len(set(first[0])) == 1
    assert [first[n][0] for n in (10, 20, 30, 50)] == [second[n][0] for n in (10, 20, 30, 50)]
    assert first[30][1] != second[30][1]


def test_the_same_every_time_and_for_every_order_of_the_choices():
    logits = make_choice_logits(300, 2, 4, seed=8)
    splits = make_splits(300, range(2))
    order = [2, 0, 3, 1]
    turned = rebuild(
        logits,
        labels=np.argsort(order)[logits.labels],
        **{
            name: getattr(logits, name)[..., order]
            for name in ("base_final", "chat_final", "base_layers", "chat_layers")
        },
    )
    found, other = curve(logits, splits), curve(turned, splits)
    assert found == curve(logits, splits)
    for method in ("anchored", "ts"):
        for n, point in points(found, method).items():
            for name in ("error", "ece", "nll"):
                assert points(other, method)[n][name]["mean"] == pytest.approx(point[name]["mean"], abs=1e-5)


def test_a_minimum_at_a_bound_is_clipped_and_counted():
    logits = make_choice_logits(200, 1, 4, seed=1, layers=False)
    certain = rebuild(logits, labels=logits.chat_final.argmax(axis=1).astype(np.int32))
    found = curve(certain, make_splits(200, range(2)))
    for point in points(found, "ts").values():
        assert point["n_at_bound"] == point["n_runs"] == 20
        assert point["error"] == {"mean": None, "error": None}  # the oracle is at the bound too
        assert point["nll"]["mean"] < 0.01 and point["n_harmful"] == 0


def test_the_anchored_row_is_the_first_draw_of_30_labels_or_says_why_not(logits, splits):
    anchored = [fit_anchored_draws(logits, split, MASS) for split in splits]
    row = anchored_row(logits, splits, anchored)
    assert row["temperature"]["values"] == [found[30][0] for found in anchored]
    assert (row["uses_labels"], row["n_labelled"], row["withheld"]) == (True, 30, None)
    few = logits.take(np.arange(60))
    splits = make_splits(60, range(2))
    row = anchored_row(few, splits, [fit_anchored_draws(few, split, MASS) for split in splits])
    assert row["withheld"] == "needs 30 questions to label, has 18"


def test_scalings_are_judged_on_the_other_questions(logits):
    splits = make_splits(500, range(2))
    subjects = [f"s{i % 3}" for i in range(500)]
    letters = [tuple("ABCDE"[:k]) for k in logits.n_choices]
    found = compare_scalings(logits, splits, subjects, letters)
    rows = {row["form"]: row for row in found["rows"]}
    assert list(rows) == ["none", "temperature", "subject", "bias", "vector"]
    assert (
        found["chosen"] == "temperature"
        and rows["temperature"]["n_chosen"] == 2
        and found["n_labelled"] == 150
    )
    assert warn_of_scaling(found, 2) == []
    for form, tau in (("none", 1.0), ("temperature", None)):
        for at, split in enumerate(splits):
            fitted = tau or fit_temperature(logits.take(split.fit), Method("ts"), n_bootstrap=0).temperature
            part = logits.take(split.judge)
            nll = compute_nll(softmax_probs(part.chat_final, part.n_choices, fitted), part.labels)
            assert rows[form]["nll"]["values"][at] == pytest.approx(nll, abs=1e-9)
    assert rows["subject"]["accuracy"] == rows["none"]["accuracy"]
    assert rows["none"]["found"] is rows["temperature"]["gain"] is None
    assert set(rows["subject"]["found"]["subjects"]) == {"s0", "s1", "s2"}
    assert len(rows["bias"]["found"]["biases"]) == len(rows["vector"]["found"]["scales"]) == 5


def test_where_one_temperature_is_not_enough_it_says_so(logits):
    rng = np.random.default_rng(0)
    subjects = [f"s{i % 2}" for i in range(500)]
    scales = np.where(np.arange(500) % 2, 0.15, 1.5)[:, None]
    probs = softmax_probs(logits.chat_final * scales, logits.n_choices)
    labels = (rng.uniform(size=(500, 1)) > probs.cumsum(axis=1)).sum(axis=1)
    drawn = rebuild(logits, labels=np.minimum(labels, logits.n_choices - 1))
    found = compare_scalings(drawn, make_splits(500, range(2)), subjects, [("A", "B")] * 499 + [("B", "A")])
    (warning,) = warn_of_scaling(found, 2)
    assert warning.startswith(
        "one temperature is not enough here: a temperature for each subject lowers the NLL"
    )
    assert warning.endswith("chosen on 2 of 2 splits), but a GGUF file carries one number")
    rows = {row["form"]: row for row in found["rows"]}
    assert rows["subject"]["nll"]["mean"] < rows["temperature"]["nll"]["mean"] < rows["none"]["nll"]["mean"]
    assert rows["subject"]["gain"]["low"] > 0
