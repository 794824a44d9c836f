"""The reader takes the three forms, and says what is wrong with anything else and on which line."""

import json

import pytest

from edgecal import InputError
from edgecal.prompts import Prompt, Question, parse_record, read_json_lines


def write(path, *lines):
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), "utf-8")
    return path


def test_the_three_forms(tmp_path):
    path = write(
        tmp_path / "data.jsonl",
        {"question": "Which?", "choices": ["x", "y", "z"], "answer": "B", "subject": "s", "id": 3},
        "",
        {"prompt": "Say:", "labels": [" A", " B"], "answer": 1},
        {"tokens": [1, 5], "choice_tokens": [7, 9], "answer": None},
    )
    question, prompt, tokens = read_json_lines(path)
    assert question == Question("Which?", ("x", "y", "z"), 1, "s", f"{path}, line 1")
    assert prompt == Prompt(text="Say:", labels=(" A", " B"), answer=1, source=f"{path}, line 3")
    assert tokens == Prompt(tokens=(1, 5), choice_tokens=(7, 9), source=f"{path}, line 4")
    assert [question.labels, prompt.n_choices, tokens.n_choices] == [("A", "B", "C"), 2, 2]


def test_byte_order_mark_and_windows_line_ends(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"question": "q?", "choices": ["1", "2"]}\r\n\r\n{"question": "r?", "choices": ["1", "2"]}\r\n'
    )
    assert [item.question for item in read_json_lines(path)] == ["q?", "r?"]


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
        ({"question": " ", "choices": ["a", "b"]}, '"question" must be a text that is not empty'),
        ({"question": 3, "choices": ["a", "b"]}, "got a number"),
        ({"question": "q", "choices": "ab"}, '"choices" must be a list of texts'),
        ({"question": "q", "choices": ["a"]}, "must hold 2 to 26 items, got 1"),
        ({"question": "q", "choices": ["a", " "]}, '"choices" item 1 is empty'),
        ({"question": "q", "choices": ["a", "b", "a "]}, "items 0 and 2 are the same"),
        ({"question": "q", "choices": ["a", 4]}, '"choices" item 1 must be a text, got a number'),
        (
            {"question": "q", "choices": ["a", "b"], "answer": 2},
            '"answer" must be an index from 0 to 1, got 2',
        ),
        ({"question": "q", "choices": ["a", "b"], "answer": "C"}, "or one of the labels 'A', 'B', got 'C'"),
        ({"question": "q", "choices": ["a", "b"], "answer": True}, "got True"),
        ({"question": "q", "choices": ["a", "b"], "subject": 1}, '"subject" must be a text'),
        ({"question": "q\ud800", "choices": ["a", "b"]}, "half of a surrogate pair"),
        ({"prompt": "p", "labels": ["A", ""]}, '"labels" item 1 is empty'),
        ({"tokens": [], "choice_tokens": [1, 2]}, '"tokens" is empty'),
        ({"tokens": [1, -1], "choice_tokens": [1, 2]}, '"tokens" item 1 must be a token id'),
        ({"tokens": [1], "choice_tokens": [2, 2]}, "holds the same id twice"),
        ({"tokens": [1.0], "choice_tokens": [1, 2]}, '"tokens" item 0 must be a token id'),
        ({"tokens": [1], "choice_tokens": [2**31, 2]}, '"choice_tokens" item 0 must be a token id'),
    ],
)
def test_a_record_that_does_not_fit(record, message):
    with pytest.raises(InputError) as caught:
        parse_record(record, "f.jsonl, line 7")
    text = str(caught.value)
    assert text.startswith("f.jsonl, line 7: ") and message in text and "\n" not in text


@pytest.mark.parametrize("line", ['{"question": ', "nonsense", '{"a": NaN}', "[" * 100_000])
def test_malformed_json_names_its_line(tmp_path, line):
    path = write(tmp_path / "bad.jsonl", {"question": "q", "choices": ["a", "b"]}, line)
    with pytest.raises(InputError, match=r"bad\.jsonl, line 2: not valid JSON"):
        list(read_json_lines(path))


def test_not_utf8_names_line_and_byte(tmp_path):
    path = tmp_path / "latin.jsonl"
    path.write_bytes(b'{"question": "q", "choices": ["a", "b"]}\n{"question": "caf\xe9"}')
    with pytest.raises(InputError, match=r"line 2: not UTF-8 text \(byte 18 of the line is 0xe9\)"):
        list(read_json_lines(path))


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        list(read_json_lines(tmp_path / "none.jsonl"))
    with pytest.raises(InputError, match="is a folder"):
        list(read_json_lines(tmp_path))
