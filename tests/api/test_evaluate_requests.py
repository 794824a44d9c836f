"""`edgecal.evaluate_requests`: what it judges are the answers that `decide` gives."""

import json

import numpy as np
import pytest
from support.calibrated import CHAT
from support.prompts import write_json_lines

import edgecal
from edgecal import CaptureSettings, DecisionOptions, InputError, RunOptions
from edgecal.gguf.header import read_header
from edgecal.gguf.rewrite import write_edited
from edgecal.metrics import compute_accuracy, compute_nll
from edgecal.runtime import load
from edgecal.stamping.decision_record import DecisionRecord, GroupRecord, decision_values

ONE_THREAD = RunOptions(CaptureSettings(n_threads=1))
THINGS = ("ball", "box", "key", "cup", "hat", "bag")
QUESTIONS = (
    {"type": "noul", "instructions": "Is it wet?", "answer": True},
    {"type": "noul", "instructions": "Is it old?", "answer": False},
    {
        "type": "choice",
        "instructions": "Where?",
        "criteria": {"house": None, "shop": "a place"},
        "answer": "shop",
    },
    {
        "type": "choice",
        "instructions": "Whose?",
        "criteria": {"Tom": None, "Sue": None, "Max": None},
        "x_none_of_the_above": True,
        "answer": "Tom",
    },
    {"type": "score", "instructions": "How big?", "criteria": ["small", "medium", "large"], "answer": 1},
)
REQUESTS = [
    {
        "state": f"Tom has a {colour} {thing}.",
        "questions": {f"q{at}": question for at, question in enumerate(QUESTIONS)},
    }
    for thing in THINGS
    for colour in ("red", "blue")
]
RECORD = DecisionRecord(
    {
        "noul": GroupRecord(1.5, settled=True),
        "choice": GroupRecord(2.0),
        "choice.3_5": GroupRecord(3.0, settled=False),
    },
    noul_bias=0.5,
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    target = tmp_path_factory.mktemp("judged") / "m.gguf"
    write_edited(read_header(CHAT), target, changes=decision_values(RECORD))
    return target


@pytest.fixture(scope="module")
def one_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("requests-cache")


@pytest.fixture(autouse=True)
def use_one_cache(one_cache, _own_cache, monkeypatch):
    monkeypatch.setenv("EDGECAL_CACHE_DIR", str(one_cache))


def judge(path, requests=REQUESTS, **options):
    return edgecal.evaluate_requests(path, requests, **({"run": ONE_THREAD, "n_bootstrap": 40} | options))


def answers(path, orders, readout="labels"):
    """Probabilities [n, 3] that `decide` gives, the labels, and the types."""
    probs, labels, kinds = [], [], []
    with load(path, n_threads=1, n_threads_batch=1) as model:
        for request in REQUESTS:
            given = model.decide(request["state"], request["questions"], orders=orders, readout=readout)
            for question, decision in zip(QUESTIONS, given.values(), strict=True):
                probs.append(np.pad(decision.probs, (0, 3 - len(decision.probs))))
                right = question["answer"]
                key = str(right).lower() if isinstance(right, bool) else str(right)
                labels.append(decision.keys.index(key))
                kinds.append(decision.type)
    return np.array(probs), np.array(labels), np.array(kinds)


@pytest.mark.parametrize(
    ("orders", "readout"), [(1, "labels"), (2, "labels"), ("all", "labels"), (1, "letters")]
)
def test_the_figures_are_those_of_what_decide_answers(path, orders, readout):
    result = judge(path, decisions=DecisionOptions(orders=orders, readout=readout), n_bootstrap=0)
    probs, labels, kinds = answers(path, orders, readout)
    after = result.figures["after"]
    assert after["nll"]["value"] == pytest.approx(compute_nll(probs, labels), rel=1e-5)
    assert after["accuracy"]["value"] == compute_accuracy(probs, labels)
    for row in result.subjects:
        those = kinds == row["subject"]
        assert row["n"] == those.sum()
        assert row["after"]["nll"]["value"] == pytest.approx(
            compute_nll(probs[those], labels[those]), rel=1e-5
        )
    before = judge(
        CHAT, decisions=DecisionOptions(orders=orders, readout=readout), temperature=1.0, n_bootstrap=0
    )
    assert result.figures["before"] == before.figures["after"]


def test_an_answer_has_flipped_if_two_orders_disagree(path):
    by_order = [answers(path, 1)[0], None]
    result = judge(path, decisions=DecisionOptions(orders=1))
    # one order is asked for, and the reverse is run to see the flips; two orders average them
    z = [np.log(np.maximum(by_order[0], 1e-300)), np.log(np.maximum(answers(path, 2)[0], 1e-300))]
    assert result.typed["groups"][0]["n_orders"] == 1.0
    two = judge(path, decisions=DecisionOptions(orders=2))
    for one, both in zip(result.typed["groups"], two.typed["groups"], strict=True):
        assert one["flips"] == both["flips"] and 0 <= one["flips"]["low"] <= one["flips"]["high"] <= 1
        assert one["n_tokens"] == one["n_tokens_once"] < both["n_tokens"] < 2 * both["n_tokens_once"]
    # an answer that the mean over both orders changes has flipped
    changed = np.mean(z[0].argmax(1) != z[1].argmax(1))
    assert result.typed["groups"][0]["flips"]["value"] >= changed


def test_groups_name_their_temperature(path):
    groups = {row["name"]: row for row in judge(path).typed["groups"]}
    assert list(groups) == ["all", "choice", "choice.2", "choice.3_5", "score", "score.3_5", "noul"]
    assert (groups["noul"]["temperature"], groups["noul"]["settled"]) == (1.5, True)
    assert (groups["choice.2"]["temperature"], groups["choice.3_5"]["temperature"]) == (2.0, 3.0)
    assert groups["choice.3_5"]["settled"] is False
    assert groups["choice"]["temperature"] is None and groups["all"]["temperature"] is None
    assert sum(groups[name]["n"] for name in ("choice", "score", "noul")) == groups["all"]["n"] == 60


def test_the_order_of_the_requests_reaches_no_number(path):
    first, second = judge(path), judge(path, REQUESTS[::-1])
    for name in ("figures", "subjects", "typed", "plots", "verdict"):
        assert getattr(first, name) == getattr(second, name)
    assert first.data["sha256"] == second.data["sha256"]
    assert json.loads(json.dumps(first.to_dict(), allow_nan=False)) == first.to_dict()


def test_a_bad_request_costs_itself(path, tmp_path):
    bad = {"state": "s", "questions": {"q": {"type": "choice", "criteria": {"a": None}}}}
    unlabelled = {"state": "s", "questions": {"q": {"type": "noul", "instructions": "So?"}}}
    file = write_json_lines(tmp_path / "r.jsonl", [bad, unlabelled, *REQUESTS])
    result = judge(path, file, limit=20)
    assert (result.data["n_questions"], result.data["n_skipped"], result.data["n_read"]) == (20, 2, 14)
    assert [row["where"] for row in result.data["skipped"]] == [
        f"{file}, line 1",
        f"{file}, line 2, question 'q'",
    ]
    skipped = [text for text in result.warnings if text.startswith("skipped: ")]
    assert len(skipped) == 2 and all(str(file) in text for text in skipped)
    for culprit in (bad, unlabelled):
        with pytest.raises(InputError):
            judge(path, [culprit, *REQUESTS], strict=True)
    with pytest.raises(InputError, match="answer"):
        judge(path, [unlabelled])


def test_a_question_that_does_not_fit_the_model_costs_itself(path):
    long = {"state": "word " * 5000, "questions": {"q": QUESTIONS[0]}}
    result = judge(path, [long, *REQUESTS])
    assert (result.data["n_questions"], result.data["n_skipped"]) == (60, 1)
    (told,) = [text for text in result.warnings if text.startswith("skipped: ")]
    assert told.startswith("skipped: request 1, question 'q': ") and told.count("request 1") == 1
    with pytest.raises(InputError, match="context"):
        judge(path, [long, *REQUESTS], strict=True)


def test_auto_stops_where_no_order_can_change_the_answer(path):
    """With no margin it stops after one order, with an endless one it asks in all, but yes and no in one."""
    few, many, all_ = (
        judge(path, decisions=DecisionOptions(orders=orders, order_margin=margin))
        for orders, margin in (("auto", 0.0), ("auto", 1e9), ("all", 0.0))
    )
    assert few.typed["groups"][0]["n_orders"] == 1.0
    for one, other in zip(many.subjects, all_.subjects, strict=True):
        assert (one == other) == (one["subject"] != "noul")
    for one, other in zip(many.typed["groups"], all_.typed["groups"], strict=True):
        assert (one == other) == (one["name"] not in ("all", "noul"))
    assert many.typed["groups"][-1]["n_orders"] == 1.0 and all_.typed["groups"][-1]["n_orders"] == 2.0


def test_what_it_refuses(path):
    for options, words in (
        ({"decisions": DecisionOptions(readout="texts")}, "texts"),
        ({"temperature": 0.0}, "temperature"),
        ({"limit": 0}, "limit"),
        ({"seed": -1}, "seed"),
        ({"n_bootstrap": 3}, "resamples"),
    ):
        with pytest.raises(InputError, match=words):
            judge(path, **options)
