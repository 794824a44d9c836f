"""The comparison's numbers: rows against their own definitions, labels out of sight, honest gaps."""

import dataclasses
import json
import math

import numpy as np
import pytest
from support.choice_data import make_choice_logits, rebuild
from support.methods import variant_text

from edgecal.calibration import Method, fit_bracket, fit_temperature
from edgecal.evaluation.comparison import Permuted, Projected, Stated, compare_methods
from edgecal.evaluation.method_rows import DUAL_ALIGN_VARIANTS, TEMPERED_METHODS, fit_split, hide_labels
from edgecal.evaluation.splits import make_splits
from edgecal.metrics import compute_ece, compute_nll, softmax_probs


def compare(logits, *, method=None, **changes):
    n = logits.n_prompts
    options = {
        "base_mass": 0.99,
        "mass_words": {"rather": " and would rather say x", "remedy": "ask better"},
        "subjects": [f"s{i % 3}" if i % 4 else None for i in range(n)],
        "questions": [
            {"where": f"line {i}", "subject": None, "question": "q", "choices": ["a", "b"], "answer": 0}
            for i in range(n)
        ],
        "choice_labels": [tuple("ABCDE"[:k]) for k in logits.n_choices],
        "permuted": Permuted(softmax_probs(logits.chat_final, logits.n_choices), 1),
        "projected": Projected([logits.base_final[split.judge] for split in make_splits(n, range(2))]),
        "stated": Stated([(0, 0.5)] * n),
        "no_layers": None,
        "chat_name": "chat",
        "n_bootstrap": 50,
        "level": 0.95,
        "seed": 0,
    }
    splits = make_splits(n, range(2))
    return splits, compare_methods(logits, splits, method or Method(), **(options | changes))


@pytest.fixture(scope="module")
def logits():
    return make_choice_logits(500, 4, (2, 5), seed=3)


@pytest.fixture(scope="module")
def compared(logits):
    return compare(logits)


def test_all_methods_are_there(compared):
    names = [row["name"] for row in compared[1]["rows"]]
    assert names[:10] == [
        "plm", "polm", "verbalized", "cape", "internal-consistency", "basecal-reeval", "basecal-proj", "naive", "daca",
        "process",
    ]  # fmt: skip
    assert names[10:] == ["dual-align"] * 12 + ["ts", "anchored"]
    variants = [tuple(row["variant"].values()) for row in compared[1]["rows"] if row["name"] == "dual-align"]
    assert len(set(variants)) == len(DUAL_ALIGN_VARIANTS) == 12
    assert [row["uses_labels"] for row in compared[1]["rows"]] == [False] * 22 + [True] * 2
    assert [row["n_labelled"] for row in compared[1]["rows"]] == [None] * 23 + [30]
    assert [row["variant"] for row in compared[1]["rows"] if row["default"]] == [Method().variant]


@pytest.mark.parametrize("method", [Method("daca"), Method("ts"), Method()], ids=lambda m: m.name)
def test_a_row_is_what_fit_and_metrics_say(logits, compared, method):
    splits, result = compared
    row = next(
        row
        for row in result["rows"]
        if row["name"] == method.name and row["variant"] in (None, dict(method.variant))
    )
    for index, split in enumerate(splits):
        tau = fit_temperature(logits.take(split.fit), method, n_bootstrap=200, seed=split.seed).temperature
        part = logits.take(split.judge)
        probs = softmax_probs(part.chat_final, part.n_choices, tau)
        ece = compute_ece(probs.max(axis=1), probs.argmax(axis=1) == part.labels)
        assert row["temperature"]["values"][index] == tau
        assert math.isclose(row["figures"]["ece"]["values"][index], ece, abs_tol=1e-12)
        nll = compute_nll(probs, part.labels)
        assert math.isclose(row["figures"]["nll"]["values"][index], nll, rel_tol=1e-9)
    assert row["figures"]["ece"]["mean"] == pytest.approx(np.mean(row["figures"]["ece"]["values"]))
    assert row["figures"]["ece"]["sd"] == pytest.approx(np.std(row["figures"]["ece"]["values"]))


@pytest.mark.parametrize(
    "method", [m for m in TEMPERED_METHODS if not m.needs_labels], ids=lambda m: variant_text(m) or m.name
)
def test_label_free_methods_never_see_a_label(logits, method):
    split = make_splits(logits.n_prompts, [0])[0]
    wrong = rebuild(logits, labels=((logits.labels + 1) % logits.n_choices).astype(np.int32))
    found = fit_split(logits, method, split.fit, 0, 50)
    assert (
        found
        == fit_split(wrong, method, split.fit, 0, 50)
        == fit_split(hide_labels(logits), method, split.fit, 0, 50)
    )


def test_what_label_free_methods_are_handed_holds_no_label(logits, monkeypatch):
    handed = []

    def record(part, method, **options):
        handed.append((method.needs_labels, part.labels))
        return fit_temperature(part, method, **options)

    monkeypatch.setattr("edgecal.evaluation.method_rows.fit_temperature", record)
    compare(logits)
    assert any(needs for needs, _ in handed)
    assert all((labels == -1).all() for needs, labels in handed if not needs)
    assert all((labels >= 0).all() for needs, labels in handed if needs)


def test_the_same_numbers_every_time_and_valid_json(logits, compared):
    again = compare(logits)[1]
    assert json.dumps(again, allow_nan=False) == json.dumps(compared[1], allow_nan=False)


def test_before_and_after_are_paired_and_accuracy_stays(compared):
    figures = compared[1]["figures"]
    assert figures["difference"]["accuracy"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert figures["difference"]["ece"]["value"] == pytest.approx(
        figures["after"]["ece"]["value"] - figures["before"]["ece"]["value"]
    )
    assert figures["difference"]["nll"]["high"] < 0


def test_subjects_are_those_of_the_judged_part(compared):
    splits, result = compared
    expected = {}
    for i in splits[0].judge:
        if i % 4:
            expected[f"s{i % 3}"] = expected.get(f"s{i % 3}", 0) + 1
    assert {row["subject"]: row["n"] for row in result["subjects"]} == expected


def test_the_most_confidently_wrong_come_first(compared):
    wrong = compared[1]["wrong"]
    sure = [item["confidence_before"] for item in wrong]
    assert sure == sorted(sure, reverse=True)
    assert len(wrong) == 20
    assert all(item["confidence_after"] < item["confidence_before"] for item in wrong)


def test_layers_picture_is_over_agreement_and_disagreement(logits, compared):
    layers = compared[1]["plots"]["layers"]
    assert layers["n_agreement"] == int(logits.agreement.sum())
    assert sum(layers["pdl_histogram"]) == layers["n_disagreement"]
    assert len(layers["agreement"]) == len(layers["layer"]) == 4


def test_loss_picture_is_lowest_at_the_chosen_temperature(compared):
    loss = compared[1]["plots"]["loss"]
    assert loss["temperature"][int(np.argmin(loss["loss"]))] == pytest.approx(loss["chosen"])
    assert loss["interval"][0] < loss["chosen"] < loss["interval"][1]


def test_unreadable_statements_withhold_the_row(logits):
    n = logits.n_prompts
    some = [(0, 0.5) if i < 0.49 * n else None for i in range(n)]
    row = compare(logits, stated=Stated(some))[1]["rows"][2]
    assert row["withheld"].startswith("only 49.0%")
    assert row["parsed_share"] == pytest.approx(0.49)
    assert row["figures"]["ece"]["mean"] is None
    enough = [(0, 0.5) if i < 0.51 * n else None for i in range(n)]
    row = compare(logits, stated=Stated(enough))[1]["rows"][2]
    assert row["withheld"] is None
    assert row["figures"]["accuracy"]["mean"] is not None
    assert row["figures"]["nll"]["mean"] is None


def test_reevaluation_answers_as_the_chat_model_and_has_no_nll(logits, compared):
    splits, result = compared
    rows = {row["name"]: row for row in result["rows"]}
    mine, chat = rows["basecal-reeval"], rows["polm"]
    assert mine["figures"]["accuracy"] == chat["figures"]["accuracy"]
    assert mine["n"] == chat["n"] and mine["withheld"] is None and mine["temperature"] is None
    assert mine["figures"]["nll"] == {"mean": None, "sd": None, "values": [None] * len(splits)}
    for split, ece in zip(splits, mine["figures"]["ece"]["values"], strict=True):
        part = logits.take(split.judge)
        answers = part.chat_final.argmax(axis=1)
        sure = softmax_probs(part.base_final, part.n_choices)[np.arange(len(answers)), answers]
        assert ece == pytest.approx(compute_ece(sure, answers == part.labels), abs=1e-12)
    proj = rows["basecal-proj"][
        "figures"
    ]  # projected here: the base model's own logits of what each split judges
    assert proj == mine["figures"]
    same = rebuild(logits, base_final=logits.chat_final, base_layers=logits.chat_layers)
    rows = {row["name"]: row for row in compare(same)[1]["rows"]}
    assert rows["basecal-reeval"]["figures"]["ece"] == rows["polm"]["figures"]["ece"]


def test_a_projection_that_could_not_be_had_is_withheld_with_the_reason(logits):
    rows = {row["name"]: row for row in compare(logits, projected=Projected(None, "why not"))[1]["rows"]}
    assert rows["basecal-proj"]["withheld"] == "why not" and rows["basecal-reeval"]["withheld"] is None


def test_without_layers_what_needs_them_is_withheld_with_the_reason():
    logits = make_choice_logits(300, 4, 3, seed=5, layers=False)
    result = compare(logits, no_layers="the vocabularies differ")[1]
    withheld = {row["name"] for row in result["rows"] if row["withheld"] == "the vocabularies differ"}
    assert withheld == {"internal-consistency", "process", "dual-align"}
    assert result["headline"] is None
    assert "its layers cannot be compared" in result["verdict"]
    assert result["plots"]["layers"] is None
    assert result["ablations"]["losses"][0]["temperature"]["mean"] > 1
    daca = compare(logits, no_layers="x", method=Method("daca"))[1]
    assert daca["headline"]["method"] == "daca"


def test_too_few_questions_are_not_identified_rather_than_an_error():
    logits = make_choice_logits(40, 4, 3, seed=5)
    result = compare(logits)[1]
    rows = {row["name"]: row for row in result["rows"]}
    assert rows["daca"]["temperature"]["mean"] is None
    assert len(rows["daca"]["not_identified"]) == 2
    assert "needs at least 30" in rows["daca"]["not_identified"][0]
    assert result["figures"]["after"] is None


def test_a_variant_of_its_own_gets_its_row(logits):
    method = Method("dual-align", combine="sum", lam=0.5)
    rows = compare(logits, method=method)[1]["rows"]
    assert [row["variant"]["lambda"] for row in rows if row["default"]] == [0.5]


def test_ablations_change_one_thing(compared):
    ablations = compared[1]["ablations"]
    assert [row["name"] for row in ablations["tau_scope"]] == ["all", "final"]
    assert [row["name"] for row in ablations["ise"]] == ["mixture", "mean"]
    assert [row["name"] for row in ablations["combine"]] == ["stratified", "divergence", "sum"]
    taus = [row["temperature"]["mean"] for row in ablations["lambda"]]
    assert taus == sorted(taus)
    assert {row["n_prompts"] for row in ablations["prompts"]} == {50, 100, 150}
    both = ablations["losses"][-1]
    default = next(row for row in compared[1]["rows"] if row["default"])
    assert both["temperature"] == default["temperature"]
    assert dataclasses.asdict(Method())["combine"] == "sum"


def test_the_bracket_and_what_a_fit_would_say_are_those_of_the_headlines_split(logits, compared):
    splits, found = compared
    bracket = fit_bracket(logits.take(splits[0].fit), n_bootstrap=50, seed=splits[0].seed)
    assert found["bracket"] == found["plots"]["loss"]["bracket"] == bracket.to_dict()
    assert (found["settled"], found["harmful"], found["reasons"]) == (True, False, [])
    low, high = found["plots"]["loss"]["temperature"][0], found["plots"]["loss"]["temperature"][-1]
    assert low < bracket.low < bracket.high < high
    assert "refuses" not in found["verdict"] and "brings its calibration error" in found["verdict"]
    assert all((row["n_worse"] is None) == (row["temperature"] is None) for row in found["rows"])
    assert {row["n_worse"] for row in found["rows"] if row["name"] == "ts"} == {0}


def test_an_unsettled_method_is_not_praised_even_where_labels_confirm_it(logits):
    _, found = compare(logits, base_mass=0.5)
    assert (found["settled"], found["harmful"]) == (False, False)
    assert len(found["reasons"]) == 1 and "50.0%" in found["reasons"][0]
    assert "edgecal fit refuses that as unsettled" in found["verdict"]
    _, supervised = compare(logits, base_mass=0.5, method=Method("ts"))
    assert supervised["settled"] and "refuses" not in supervised["verdict"]


def test_a_harmful_method_is_not_praised_and_its_rows_say_so():
    """The chat model is as sure as it should be; the base model is hardly sure of anything."""
    logits = make_choice_logits(500, 4, 4, seed=3, sharpness=1.0, noise=0.1)
    logits = rebuild(
        logits,
        base_final=logits.base_final * np.float32(0.1),
        base_layers=logits.base_layers * np.float32(0.1),
    )
    _, found = compare(logits)
    assert found["harmful"] and any("does harm" in reason for reason in found["reasons"])
    assert "refuses that as harmful, since its NLL gets worse" in found["verdict"]
    assert "brings" not in found["verdict"]
    assert {row["n_worse"] for row in found["rows"] if row["name"] in ("naive", "daca")} == {2}
