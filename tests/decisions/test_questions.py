"""Requests of typed questions: all that the format allows is read; whatever breaks a rule is named with its place."""

import json
import math
import pickle
import random
import time
from collections import OrderedDict
from types import MappingProxyType

import numpy as np
import pytest
from support.decision_requests import REQUEST, mutated, one_question

from edgecal.decisions import (
    Choice,
    DecisionPrompting,
    Noul,
    RequestError,
    Score,
    check_state,
    parse_question,
    parse_request,
    read_json,
    two_letter_labels,
)
from edgecal.errors import InputError

PAIRS = [f"{a}{b}" for a in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" for b in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"]


def names(n):
    return {f"option {at}": None for at in range(n)}


def problems_of(body):
    with pytest.raises(RequestError) as caught:
        parse_request(body, "r.json, line 7")
    assert "\n" not in str(caught.value) and str(caught.value).startswith("r.json, line 7: ")
    return [(".".join(map(str, problem.loc)), problem.type) for problem in caught.value.problems]


def test_all_that_the_format_allows():
    request = parse_request(REQUEST, "r.json")
    assert (request.state, request.model, request.source) == (REQUEST["state"], "any", "r.json")
    assert (request.answers, request.warnings) == ({}, ())
    assert list(request.questions.values()) == [
        Noul("Does the customer want money back?"),
        Noul(true="It is urgent."),
        Choice(["Route it.", {"to": "one team"}], REQUEST["questions"]["q3 team"]["criteria"]),
        Score("How angry?", ("calm", ["a", "bit"], "very")),
    ]
    assert list(request.questions) == list(REQUEST["questions"])
    again = parse_request({"state": REQUEST["state"], "questions": request.questions})
    assert again.questions == request.questions and again.model is None


@pytest.mark.parametrize(
    "state", ["", " \n", "text", {}, [], ["a", {"b": [1, 2.5, None, False]}], ("a", "b")]
)
def test_states(state):
    assert parse_request({"state": state, "questions": {"q": Noul("?")}}).state == state


@pytest.mark.parametrize(
    "question",
    [
        {"type": "noul", "instructions": "?", "criteria": None},
        {"type": "noul", "criteria": {"false": "never", "true": None}},
        {"type": "choice", "criteria": names(2)},
        {"type": "choice", "instructions": None, "criteria": names(255)},
        {"type": "choice", "criteria": names(255), "x_none_of_the_above": True},
        {"type": "choice", "criteria": {"none of the above": None, "b": ""}, "x_none_of_the_above": None},
        {"type": "score", "criteria": ["a"] * 2},
        {"type": "score", "criteria": [{"a": 1}] * 10, "x_more": 1},
        Choice("?", ["a", "b"], none_of_the_above=True),
        Score("?", ("a", "b")),
    ],
)
def test_questions_at_the_edge_of_the_rules(question):
    assert not parse_request({"state": "s", "questions": {"a.b[0] é": question}}).warnings


@pytest.mark.parametrize(
    ("body", "place", "kind"),
    [
        ([], "body", "wrong_type"),
        (None, "body", "wrong_type"),
        ({"questions": {"q": Noul("?")}}, "body.state", "missing"),
        *(({"state": odd, "questions": {"q": Noul("?")}}, "body.state", "wrong_type") for odd in (None, 3, True, b"")),
        ({"state": "s"}, "body.questions", "missing"),
        ({"state": "s", "questions": {}}, "body.questions", "out_of_range"),
        ({"state": "s", "questions": [Noul("?")]}, "body.questions", "wrong_type"),
        ({"state": "s", "questions": {"": Noul("?")}}, "body.questions", "invalid"),
        ({"state": "s", "questions": {"\ud800": Noul("?")}}, "body.questions", "invalid"),
        ({"state": "s", "questions": {3: Noul("?")}}, "body.questions", "invalid"),
        ({"state": "s", "questions": {"q": "noul"}}, "body.questions.q", "wrong_type"),
        ({"state": "s", "questions": {"q": Noul("?")}, "model": 3}, "body.model", "wrong_type"),
        ({"state": "s", "questions": {"q": Noul("?")}, "assets": ["x.png"]}, "body.assets", "invalid"),
        ({"state": MappingProxyType({}), "questions": {"q": Noul("?")}}, "body.state", "wrong_type"),
        ({"state": [np.float32(1)], "questions": {"q": Noul("?")}}, "body.state.0", "invalid"),
    ],
)  # fmt: skip
def test_requests_that_break_a_rule(body, place, kind):
    assert problems_of(body) == [(place, kind)]


@pytest.mark.parametrize(
    ("question", "place", "kind"),
    [
        ({"instructions": "?"}, "type", "invalid"),
        ({"type": "boolean", "instructions": "?"}, "type", "invalid"),
        ({"type": ["noul"], "instructions": "?"}, "type", "invalid"),
        ({"type": "noul"}, "instructions", "missing"),
        ({"type": "noul", "instructions": " "}, "instructions", "missing"),
        ({"type": "noul", "instructions": 3}, "instructions", "wrong_type"),
        ({"type": "noul", "instructions": "?", "criteria": ["a", "b"]}, "criteria", "wrong_type"),
        ({"type": "noul", "instructions": "?", "criteria": {"yes": "a"}}, "criteria", "invalid"),
        ({"type": "noul", "instructions": "?", "criteria": {"true": 1}}, "criteria.true", "wrong_type"),
        ({"type": "noul", "instructions": "?", "x_none_of_the_above": True}, "x_none_of_the_above", "invalid"),
        ({"type": "noul", "instructions": "?", "answer": "true"}, "answer", "invalid"),
        ({"type": "choice", "instructions": "?"}, "criteria", "wrong_type"),
        ({"type": "choice", "criteria": ["a", "b"]}, "criteria", "wrong_type"),
        ({"type": "choice", "criteria": {}}, "criteria", "out_of_range"),
        ({"type": "choice", "criteria": names(1)}, "criteria", "out_of_range"),
        ({"type": "choice", "criteria": names(256)}, "criteria", "out_of_range"),
        ({"type": "choice", "criteria": {" ": None, "b": None}}, "criteria", "invalid"),
        ({"type": "choice", "criteria": {"\udfff": None, "b": None}}, "criteria", "invalid"),
        ({"type": "choice", "criteria": {"a": 1, "b": None}}, "criteria.a", "wrong_type"),
        ({"type": "choice", "criteria": names(2), "answer": "b"}, "answer", "invalid"),
        ({"type": "choice", "criteria": names(2), "answer": 0}, "answer", "invalid"),
        ({"type": "choice", "criteria": names(2), "x_none_of_the_above": "yes"}, "x_none_of_the_above", "wrong_type"),
        (
            {"type": "choice", "criteria": {"none of the above": None, "b": None}, "x_none_of_the_above": True},
            "criteria.none of the above",
            "invalid",
        ),
        ({"type": "score", "criteria": {"0": "a", "1": "b"}}, "criteria", "wrong_type"),
        ({"type": "score", "criteria": "ab"}, "criteria", "wrong_type"),
        ({"type": "score", "criteria": ["a"]}, "criteria", "out_of_range"),
        ({"type": "score", "criteria": ["a"] * 11}, "criteria", "out_of_range"),
        ({"type": "score", "criteria": ["a", None]}, "criteria.1", "missing"),
        ({"type": "score", "criteria": ["a", ""]}, "criteria.1", "missing"),
        ({"type": "score", "criteria": ["a", 2]}, "criteria.1", "wrong_type"),
        *(
            ({"type": "score", "criteria": ["a", "b"], "answer": odd}, "answer", "invalid")
            for odd in (2, -1, 1.0, True, "0")
        ),
        ({"type": "noul", "instructions": ["a", {"b": [math.nan]}]}, "instructions.1.b.0", "invalid"),
        ({"type": "noul", "instructions": {"a": math.inf}}, "instructions.a", "invalid"),
        ({"type": "noul", "instructions": {"a": [10**5000]}}, "instructions.a.0", "invalid"),
        ({"type": "noul", "instructions": {"a": "\ud800"}}, "instructions.a", "invalid"),
        ({"type": "noul", "instructions": {"\ud800": "a"}}, "instructions", "invalid"),
        ({"type": "noul", "instructions": {1: "a"}}, "instructions", "invalid"),
        ({"type": "noul", "instructions": "a" * 10_000_000}, "instructions", "out_of_range"),
    ],
)  # fmt: skip
def test_questions_that_break_a_rule(question, place, kind):
    found = problems_of(one_question(**question))
    assert (f"body.questions.q.{place}", kind) == found[0]
    assert len(found) == 1 or place == "criteria.1"


@pytest.mark.parametrize("criteria", [["a", "a"], ["a", ["b"]], [{}, "b"], [1, 2], "ab", {"a", "b"}, 5, None])
def test_options_in_python_that_are_none(criteria):
    with pytest.raises(RequestError, match=r"^questions\.q\.criteria"):
        parse_question(Choice("?", criteria), "q")


def test_every_broken_rule_is_reported():
    body = {"state": 3, "questions": {"a": {"type": "score", "criteria": "x", "instructions": 1}, "b": None}}
    places = ["body.state", "body.questions.a.instructions", "body.questions.a.criteria", "body.questions.b"]
    assert [place for place, _ in problems_of(body)] == places


def test_nesting():
    def nested(depth):
        return {"state": json.loads("[" * depth + "]" * depth), "questions": {"q": Noul("?")}}

    assert parse_request(nested(60))
    assert problems_of(nested(100)) == [("body.state", "invalid")]
    endless = []
    endless.append(endless)
    with pytest.raises(RequestError, match=r"^state: is nested more than 64 deep"):
        check_state(endless)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not valid JSON"),
        ('{"state": NaN}', "NaN is not a JSON number"),
        ("[-Infinity]", "-Infinity is not a JSON number"),
        ('{"a": 1, "b": {"c": 1, "c": 1}}', "the field 'c' is there twice"),
        (b"\xff\xff", "is not UTF-8"),
        ("[" * 100_000, "is nested too deeply"),
        ("9" * 5000, "a number has too many digits"),
    ],
)
def test_text_that_is_not_json(text, said):
    with pytest.raises(RequestError, match=r"^r\.json: the request: ") as caught:
        read_json(text, "r.json")
    assert said in str(caught.value)
    assert caught.value.problems[0].loc == ("body",)


def test_json_with_a_byte_order_mark():
    assert read_json("\ufeff[1]", "r") == read_json(b"\xef\xbb\xbf[1]", "r") == [1]


def test_a_field_that_is_there_twice_among_many_is_found_at_once():
    fields = ", ".join(f'"{at}": 0' for at in [*range(200_000), 199_999])
    start_s = time.monotonic()
    with pytest.raises(RequestError, match="'199999' is there twice"):
        read_json("{" + fields + "}", "r")
    assert time.monotonic() - start_s < 5


def test_a_problem_as_servers_report_it():
    body = {
        "state": "s",
        "questions": {"a\n" + "b" * 500: {"type": "noul", "instructions": {"\udc00": {1: 2}}}},
    }
    with pytest.raises(RequestError) as caught:
        parse_request(body)
    (detail,) = [problem.to_dict() for problem in caught.value.problems]
    assert detail["loc"][:2] == ["body", "questions"] and detail["loc"][2] == "a\n" + "b" * 198
    assert json.loads(json.dumps(detail, ensure_ascii=False).encode("utf-8")) == detail
    assert str(caught.value).isprintable()


def test_the_error_goes_from_process_to_process():
    with pytest.raises(RequestError) as caught:
        parse_request({}, "line 3")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.problems) == (str(caught.value), caught.value.problems)
    assert isinstance(again, InputError) and len(again.problems) == 2


def test_answers_and_unknown_fields():
    body = {
        "state": "s",
        "temperature": 1,
        "questions": {
            "a": {"type": "noul", "instructions": "?", "answer": False},
            "b": {"type": "choice", "criteria": names(3), "answer": "option 2", "instuctions": "?"},
            "c": {"type": "score", "criteria": ["x", "y"], "answer": 1, "x_mine": {}},
            "d": {"type": "noul", "instructions": "?", "answer": None},
        },
    }
    request = parse_request(body)
    assert request.answers == {"a": 1, "b": 2, "c": 1}
    assert request.warnings == ("questions.b.instuctions: an unknown field, which is ignored",)


def test_the_model_is_needed_over_http_only():
    body = one_question(type="noul", instructions="?")
    assert parse_request(body).model is None
    with pytest.raises(RequestError, match=r"^model: is missing"):
        parse_request(body, needs_model=True)


def test_the_order_of_fields_is_kept():
    state = OrderedDict([("z", 1), ("a", 2)])
    assert list(parse_request({"state": state, "questions": {"q": Noul("?")}}).state) == ["z", "a"]


def test_thousands_of_mutated_requests():
    """Each is either refused in one line, or asked in prompts that are text."""
    prompting = DecisionPrompting(two_letter=two_letter_labels([PAIRS]))
    rng = random.Random(17)
    n_read = 0
    start_s = time.monotonic()
    for _ in range(2000):
        body = mutated(rng)
        try:
            request = parse_request(body, "r")
            for key, question in request.questions.items():
                order = range(prompting.n_places(question))
                text = prompting.render(request.state, question, order, f"questions.{key}").prompt.text
                assert text.encode("utf-8")
            n_read += 1
        except InputError as error:
            assert "\n" not in str(error) and len(str(error)) < 600
    assert 300 < n_read < 1700
    assert time.monotonic() - start_s < 60
