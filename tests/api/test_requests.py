"""Requests from files and from Python: what counts as one, and that a bad one costs only itself."""

import io
import json
import sys

import pytest

from edgecal import Choice, InputError, Noul
from edgecal.api.requests import read_requests, request_files
from edgecal.decisions import parse_request

GOOD = {
    "state": "It rains.",
    "questions": {"wet": {"type": "noul", "instructions": "Is it wet?", "answer": True}},
}
TWO = {
    "model": "m",
    "state": {"sky": "grey"},
    "questions": {
        "a": {"type": "choice", "instructions": "Which?", "criteria": {"x": None, "y": "why"}},
        "b": {"type": "noul", "instructions": "So?"},
    },
}


def lines(path, *texts):
    path.write_bytes(b"\n".join(text if isinstance(text, bytes) else text.encode() for text in texts))
    return path


def test_one_request_on_each_line(tmp_path):
    path = lines(tmp_path / "t.jsonl", "\ufeff" + json.dumps(GOOD), "", json.dumps(TWO) + "\r")
    read = read_requests([path], strict=True)
    assert [request.source for request in read.requests] == [f"{path}, line 1", f"{path}, line 3"]
    asked = read.questions
    assert [(one.state, type(one.question), one.answer) for one in asked] == [
        ("It rains.", Noul, 0),
        ({"sky": "grey"}, Choice, None),
        ({"sky": "grey"}, Noul, None),
    ]
    assert asked[2].source == f"{path}, line 3, question 'b'"
    assert read.files == (str(path),) and not read.skipped


@pytest.mark.parametrize(
    ("text", "places"),
    [
        (json.dumps(TWO, indent=2), [""]),
        (json.dumps(TWO), [", line 1"]),
        (json.dumps([GOOD, TWO]), [", request 1", ", request 2"]),
        (json.dumps([GOOD, TWO], indent=1), [", request 1", ", request 2"]),
    ],
)
def test_a_file_may_be_one_request_or_a_list(tmp_path, text, places):
    path = lines(tmp_path / "t.json", text)
    assert [one.source for one in read_requests(path).requests] == [f"{path}{place}" for place in places]


BAD = [
    '{"state": "cut off',
    '{"state": 5, "questions": {"a": {"type": "noul", "instructions": "x"}}}',
    '{"state": "s", "questions": {}}',
    '{"state": "s", "questions": {"a": {"type": "noul", "instructions": NaN}}}',
    '{"state": "s", "state": "t", "questions": {"a": {"type": "noul", "instructions": "x"}}}',
    b'{"state": "\xff", "questions": {"a": {"type": "noul", "instructions": "x"}}}',
    "7",
    "[" * 100_000,
    json.dumps({"state": "\ud800", "questions": {"a": {"type": "noul", "instructions": "x"}}}),
    json.dumps({"state": "x" * 10_000_000, "questions": {"a": {"type": "noul", "instructions": "x"}}}),
]


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
@pytest.mark.parametrize("first", [True, False])
def test_a_bad_request_costs_itself(tmp_path, bad, first):
    path = lines(tmp_path / "t.jsonl", *((bad, json.dumps(GOOD)) if first else (json.dumps(GOOD), bad)))
    read = read_requests([path])
    assert len(read.requests) == 1
    (skipped,) = read.skipped
    assert skipped.where == f"{path}, line {1 if first else 2}"
    (warning,) = read.warnings()
    assert warning.startswith(f"skipped: {skipped.where}: ") and "\n" not in warning and len(warning) < 400
    with pytest.raises(InputError, match="line"):
        read_requests([path], strict=True)


def test_none_left_is_an_error_that_says_why(tmp_path):
    path = lines(tmp_path / "t.jsonl", BAD[2], BAD[0])
    with pytest.raises(InputError, match=r"no request that can be used: .*line 1: questions"):
        read_requests([path])
    with pytest.raises(InputError, match="give at least one"):
        read_requests([lines(tmp_path / "empty.jsonl", "\n ")])
    with pytest.raises(InputError, match="no such file"):
        read_requests([tmp_path / "none.jsonl"])


def test_python_and_standard_input(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps(GOOD).encode())))
    sources = ["-", TWO, parse_request(GOOD, "mine"), tmp_path / "t.jsonl"]
    lines(sources[-1], json.dumps(TWO))
    read = read_requests(sources)
    assert [one.source for one in read.requests] == [
        "-, line 1",
        "request 2",
        "mine",
        f"{sources[-1]}, line 1",
    ]
    assert read.files == ("-", str(sources[-1]))
    assert request_files(sources) == [sources[-1]]
    with pytest.raises(InputError, match="one request; give a list"):
        read_requests(GOOD)
    misspelt = {**GOOD, "questions": {"wet": {**GOOD["questions"]["wet"], "criterion": {}}}}
    assert "an unknown field" in read_requests([misspelt]).warnings()[0]
