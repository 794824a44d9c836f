"""Records in the three forms are read, and what is wrong with any other is said."""

import json
import math

import pytest

from edgecal import InputError
from edgecal.prompts import Prompt, Question, check_prompt, describe_record, parse_record


def test_the_three_forms():
    question = parse_record(
        {"question": "Which?", "choices": ["x", "y", "z"], "answer": "B", "subject": "s", "id": 3}, "here"
    )
    assert question == Question("Which?", ("x", "y", "z"), 1, "s", "here")
    prompt = parse_record({"prompt": "Say:", "labels": [" A", " B"], "answer": 1}, "here")
    assert prompt == Prompt(text="Say:", labels=(" A", " B"), answer=1, source="here")
    tokens = parse_record({"tokens": [1, 5], "choice_tokens": [7, 9], "answer": None}, "here")
    assert tokens == Prompt(tokens=(1, 5), choice_tokens=(7, 9), source="here")
    assert [question.labels, prompt.n_choices, tokens.n_choices] == [("A", "B", "C"), 2, 2]


@pytest.mark.parametrize(
    "item",
    [
        Question("q ", ("x", " y"), 0, "s", "here", "A text.\n"),
        Question("q", ("1", "0"), None, None, "here"),
        Prompt(text="Say: ", labels=("-1", "1"), answer=1, source="here"),
        Prompt(tokens=(1, 5), choice_tokens=(7, 9), answer=0, subject="s", source="here"),
    ],
)
def test_an_item_is_described_by_the_record_that_makes_it(item):
    record = json.loads(json.dumps(describe_record(item)))
    assert parse_record(record, "here") == item == check_prompt(item, "there")


@pytest.mark.parametrize(
    ("answer", "index"),
    [
        (1, 1), ("1", 1), (1.0, 1), ("1.0", 1), ("B", 1), ("b", 1), (" b ", 1), ("(B)", 1), ("B.", 1), (["B"], 1),
        ([1], 1),
        (0, 0), ("0", 0), ("a", 0), (None, None), (math.nan, None), ("", None), (" ", None), ([None], None),
    ],
)  # fmt: skip
def test_answers_in_their_kinds(answer, index):
    assert parse_record({"question": "q", "choices": ["x", "y"], "answer": answer}, "").answer == index


def test_numbers_are_texts_and_nothing_is_no_key():
    record = {
        "question": 7, "choices": [1, 2.5, "x"], "answer": 2, "subject": 3, "passage": math.nan, "prompt": None,
        "labels": None, "tokens": math.nan, "choice_tokens": "",
    }  # fmt: skip
    assert parse_record(record, "here") == Question("7", ("1", "2.5", "x"), 2, "3", "here")
    record = {"prompt": "p", "labels": [1, 2], "question": " "}
    assert parse_record(record, "here") == Prompt(text="p", labels=("1", "2"), source="here")
    record = {"tokens": ["1", 5.0], "choice_tokens": [7, "9"]}
    assert parse_record(record, "here") == Prompt(tokens=(1, 5), choice_tokens=(7, 9), source="here")


def test_an_answer_with_two_readings_is_refused():
    record = {"question": "q", "choices": ["1", "2", "3"], "answer": "1"}
    with pytest.raises(InputError, match="may be the index of '2' or choice 0 itself"):
        parse_record(record, "here")
    assert parse_record(record | {"answer": 1}, "here").answer == 1
    assert parse_record(record | {"choices": ["0", "1"]}, "here").answer == 1
    # of a ready-made prompt a text is a label, and a number is not
    record = {"prompt": "p", "labels": ["1", "2"]}
    assert [parse_record(record | {"answer": a}, "").answer for a in (1, "1", "2")] == [1, 0, 1]


def test_26_choices_are_the_most():
    texts = [str(i) for i in range(27)]
    assert parse_record({"question": "q", "choices": texts[:26]}, "here").labels[-1] == "Z"
    with pytest.raises(InputError, match='here: "choices" must hold 2 to 26 items, got 27'):
        parse_record({"question": "q", "choices": texts}, "here")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([], "expected a JSON object, got a list"),
        ({}, 'expected one of "question"'),
        ({"question": "q", "choices": ["a", "b"], "prompt": "p"}, "got both question and prompt"),
        ({"question": "q"}, '"question" needs "choices" beside it'),
        ({"question": " ", "choices": ["a", "b"]}, '"question" must be non-empty text'),
        ({"question": True, "choices": ["a", "b"]}, "got a boolean"),
        ({"question": "q", "choices": "ab"}, '"choices" must be a list of texts'),
        ({"question": "q", "choices": ["a"]}, "must hold 2 to 26 items, got 1"),
        ({"question": "q", "choices": ["a", " "]}, '"choices" item 1 is empty'),
        ({"question": "q", "choices": ["a", "b", "a "]}, "items 0 and 2 are the same"),
        ({"question": "q", "choices": ["a", None]}, '"choices" item 1 must be a text, got null'),
        ({"question": "q", "choices": ["a", "b"], "answer": "2"}, "from 0 to 1, got '2'"),
        ({"question": "q", "choices": ["a", "b"], "answer": ["A", "B"]}, "got ['A', 'B']"),
        ({"question": "q", "choices": ["a", "b"], "answer": 0.5}, "got 0.5"),
        ({"question": "q", "choices": ["a", "b"], "answer": math.inf}, "got inf"),
        (
            {"question": "q", "choices": ["a", "b"], "answer": 2},
            '"answer" must be an index from 0 to 1, got 2',
        ),
        ({"question": "q", "choices": ["a", "b"], "answer": "C"}, "or one of the labels 'A', 'B', got 'C'"),
        ({"question": "q", "choices": ["a", "b"], "answer": True}, "got True"),
        ({"question": "q", "choices": ["a", "b"], "subject": ["s"]}, '"subject" must be a text'),
        ({"question": "q\ud800", "choices": ["a", "b"]}, "half of a surrogate pair"),
        ({"prompt": "p", "labels": ["A", ""]}, '"labels" item 1 is empty'),
        ({"tokens": [], "choice_tokens": [1, 2]}, '"tokens" is empty'),
        ({"tokens": [1, -1], "choice_tokens": [1, 2]}, '"tokens" item 1 must be a token id'),
        ({"tokens": [1], "choice_tokens": [2, 2]}, "holds the same id twice"),
        ({"tokens": [1.5], "choice_tokens": [1, 2]}, '"tokens" item 0 must be a token id'),
        ({"tokens": [1], "choice_tokens": [2**31, 2]}, '"choice_tokens" item 0 must be a token id'),
    ],
)
def test_a_record_that_does_not_fit(record, message):
    with pytest.raises(InputError) as caught:
        parse_record(record, "f.jsonl, line 7")
    text = str(caught.value)
    assert text.startswith("f.jsonl, line 7: ") and message in text and "\n" not in text
