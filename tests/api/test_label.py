"""`edgecal.label`: the session and its file, which survives everything but the answer being typed."""

import json
import math
import os
import subprocess
import sys

import pytest
from support.calibrated import BASE, CHAT, MODELS, stamp
from support.label_sessions import SOURCE, make_session
from support.prompts import write_json_lines

import edgecal
from edgecal import InputError, OutputError, QuestionOptions, RunOptions
from edgecal.api.label_session import MIN_LABELS, read_source
from edgecal.llama.settings import CaptureSettings

RUN = RunOptions(CaptureSettings(n_threads=1))
FEW = QuestionOptions(limit=40)


def lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_answers_are_on_disk_at_once_with_their_probabilities(tmp_path):
    path = tmp_path / "labels.jsonl"
    session, truth = make_session(path)
    assert not path.exists() and session.undo() is False
    for n in range(1, 8):
        shown = session.question
        session.answer(truth[n - 1])
        found = lines(path)
        assert [line["answer"] for line in found] == truth[:n]
        assert found[-1]["question"] == shown.text
        assert found[-1]["choices"] == [text for _, text in shown.options]
        expected = session._order.inclusion_probabilities(n)
        assert [line["inclusion_probability"] for line in found] == expected.tolist()
        assert all(line["label_source"] == SOURCE for line in found)
    assert session.fit.n_labelled == 7


def test_unsure_is_kept_as_a_question_without_an_answer(tmp_path):
    path = tmp_path / "labels.jsonl"
    session, truth = make_session(path)
    before = session.fit
    session.answer(None)
    assert (session.n_unsure, session.fit.n_labelled, session.fit.interval) == (1, 0, before.interval)
    assert not {"answer", "inclusion_probability"} & lines(path)[0].keys()
    session.answer(truth[1])
    assert (session.n_unsure, session.fit.n_labelled) == (1, 1)
    assert "unsure" in session.result().warnings[-1]  # half of them
    assert lines(path)[1]["inclusion_probability"] == session._order.inclusion_probabilities(2)[1]


def test_what_the_data_say_of_answers_is_not_written(tmp_path):
    records = [
        {"question": f"{n}?", "choices": ["y", "n"], "answer": 1, "inclusion_probability": 0.25}
        for n in range(9)
    ]
    path = tmp_path / "labels.jsonl"
    session, _ = make_session(path, records=records)
    session.answer(None)
    session.answer(0)
    skipped, answered = lines(path)
    assert not {"answer", "inclusion_probability"} & skipped.keys()
    assert answered["answer"] == 0 and answered["inclusion_probability"] != 0.25
    assert make_session(path, records=records)[0].answers == [None, 0]


def test_undo_restores_bytes_and_fit(tmp_path):
    path = tmp_path / "labels.jsonl"
    session, truth = make_session(path)
    session.answer(truth[0])
    before, fit = path.read_bytes(), session.fit
    for answer in (truth[1], None):
        session.answer(answer)
        assert session.undo()
        assert (path.read_bytes(), session.fit) == (before, fit)
    assert session.undo() and path.read_bytes() == b"" and session.answers == []


def test_a_session_is_continued_where_it_was_left(tmp_path):
    path, whole = tmp_path / "labels.jsonl", tmp_path / "whole.jsonl"
    session, truth = make_session(whole)
    given = [None if n % 7 == 3 else answer for n, answer in enumerate(truth[:20])]
    for answer in given:
        session.answer(answer)
    for answer in given:
        make_session(path)[0].answer(answer)
    again = make_session(path)[0]
    assert again.answers == given and again.fit == session.fit and again.question == session.question
    assert path.read_bytes() == whole.read_bytes()


def test_it_stops_when_narrow_and_goes_on_if_asked_for_more(tmp_path):
    path = tmp_path / "labels.jsonl"
    session, truth = make_session(path, ratio=2.5)
    while session.question is not None:
        session.answer(truth[len(session.answers)])
    low, high = session.fit.interval
    assert session.stopped == session.result().stopped == "narrow" and high / low <= 2.5
    assert session.fit.n_labelled == MIN_LABELS
    with pytest.raises(InputError, match="no more"):
        session.answer(0)
    further = make_session(path, ratio=1.2)[0]
    assert further.stopped is None and further.result().stopped == "left"
    assert session.undo() and session.stopped is None


def test_every_question_asked_ends_it(tmp_path):
    session, truth = make_session(tmp_path / "labels.jsonl", n=12)
    for answer in truth:
        session.answer(answer)
    assert session.stopped == "all" and session.question is None
    assert all(line["inclusion_probability"] == 1 for line in lines(tmp_path / "labels.jsonl"))


def test_an_option_that_is_not_there(tmp_path):
    session, _ = make_session(tmp_path / "labels.jsonl")
    for choice in (-1, len(session.question.options)):
        with pytest.raises(InputError, match="no option"):
            session.answer(choice)
    assert not (tmp_path / "labels.jsonl").exists()


def test_a_ready_made_prompt_goes_by_its_labels_where_they_are_letters(tmp_path):
    records = [
        {"prompt": "1+1=3?", "labels": [" yes", " no"]},
        {"prompt": "2+2=?", "labels": [" 3", " 4"]},
        {"prompt": "x", "labels": [" b", " a"]},
    ]
    seen = {}
    session, _ = make_session(tmp_path / "labels.jsonl", records=records)
    while (shown := session.question) is not None:
        seen[shown.text] = shown.options
        session.answer(1)
    assert seen == {
        "1+1=3?": (("A", " yes"), ("B", " no")),
        "2+2=?": (("3", " 3"), ("4", " 4")),
        "x": (("B", " b"), ("A", " a")),
    }
    read = edgecal.read_questions(tmp_path / "labels.jsonl")
    assert [question["answer"] for question in read.questions] == [1, 1, 1]


def test_what_is_written_reads_back_as_questions_without_a_remark(tmp_path):
    path = tmp_path / "labels.jsonl"
    session, truth = make_session(path)
    for answer in [*truth[:10], None]:
        session.answer(answer)
    read = edgecal.read_questions(path)
    assert [question.get("answer") for question in read.questions] == [*truth[:10], None]
    assert read.warnings == []


def test_two_sessions_on_one_file_do_not_overwrite_each_other(tmp_path):
    path = tmp_path / "labels.jsonl"
    (one, truth), (other, _) = make_session(path), make_session(path)
    one.answer(truth[0])
    with pytest.raises(OutputError, match="another program"):
        other.answer(truth[0])
    assert other.answers == [] and len(lines(path)) == 1


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_label_that_cannot_be_written_does_not_count(tmp_path):
    session, truth = make_session(tmp_path / "labels.jsonl")
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError):
        session.answer(truth[0])
    tmp_path.chmod(0o700)
    assert session.answers == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda line: {}, "line 2: was not written by edgecal label"),
        (lambda line: [], "line 2: was not written by edgecal label"),
        (lambda line: line | {"label_source": SOURCE | {"chat": "e"}}, "another chat model"),
        (lambda line: line | {"label_source": SOURCE | {"base": None}}, "another base model"),
        (lambda line: line | {"label_source": SOURCE | {"questions": "e"}}, "other questions"),
        (lambda line: line | {"label_source": SOURCE | {"seed": 7}}, "the seed 7"),
        (lambda line: line | {"label_source": SOURCE | {"temperature": math.nan}}, "the temperature is nan"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path, change, message):
    path = tmp_path / "labels.jsonl"
    session, truth = make_session(path)
    for answer in truth[:3]:
        session.answer(answer)
    found = lines(path)
    found[1] = change(found[1])
    path.write_text("".join(json.dumps(line) + "\n" for line in found), "utf-8")
    with pytest.raises(InputError, match=message):
        read_source(path, SOURCE)


def test_lines_out_of_order_or_half_written_are_refused(tmp_path):
    path = tmp_path / "labels.jsonl"
    session, truth = make_session(path)
    for answer in truth[:3]:
        session.answer(answer)
    whole = path.read_text("utf-8").splitlines(keepends=True)
    path.write_text("".join(whole[::-1]), "utf-8")
    with pytest.raises(InputError, match="line 1: is not question 1"):
        make_session(path)
    path.write_bytes("".join(whole).encode()[:-30])
    with pytest.raises(InputError, match="line 3"):
        read_source(path, SOURCE)
    path.write_bytes(b"\xff")
    with pytest.raises(InputError, match="not UTF-8"):
        read_source(path, SOURCE)


KILLED = """
import os, signal, sys
from pathlib import Path
from support.label_sessions import make_session
session, truth = make_session(Path(sys.argv[1]))
for answer in truth[:int(sys.argv[2])]:
    session.answer(answer)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
def test_a_killed_session_loses_nothing_that_was_answered(tmp_path):
    path = tmp_path / "labels.jsonl"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(MODELS.parent / "tests"), *sys.path])}
    subprocess.run([sys.executable, "-c", KILLED, path, "4"], env=environment, check=False)
    session, truth = make_session(path)
    assert session.answers == truth[:4]
    assert [file.name for file in tmp_path.iterdir()] == ["labels.jsonl"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("label") / "data.jsonl"
    path.write_text((MODELS / "questions/dev.jsonl").read_text("utf-8"), "utf-8")
    return path


def test_a_real_pair_from_its_files(data, tmp_path):
    path = tmp_path / "labels.jsonl"

    def start(base=BASE, chat=CHAT, *, questions=FEW, source=data, output=path):
        return edgecal.label(base, chat, source, output=output, questions=questions, run=RUN)

    session = start()
    result = session.result()
    assert result.prior_temperature == result.temperature and result.n_questions == 40
    assert any("40 questions have an answer already" in warning for warning in result.warnings)
    for answer in (0, None, 1):
        session.answer(answer)
    assert start().answers == [0, None, 1]
    stamped = stamp(tmp_path / "stamped.gguf")  # another temperature in the metadata is the same model
    assert start(chat=stamped).fit == session.fit
    other = MODELS / "edgecal-tiny-chat-Q4_0.gguf"
    for changes, message in (
        ({"chat": other}, "another chat model"),
        ({"base": MODELS / "edgecal-tiny-base-Q4_0.gguf"}, "another base model"),
        ({"questions": QuestionOptions(limit=41)}, "other questions"),
        ({"questions": QuestionOptions(limit=40, template="brief")}, "other questions"),
        ({"questions": QuestionOptions(limit=40, seed=1)}, "other questions|the seed 0"),
        ({"output": data}, "the file of the questions"),
        ({"source": [{"tokens": [1], "choice_tokens": [2, 3]}]}, "cannot be shown"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            start(**changes)
        assert "\n" not in str(caught.value)
    repeated = [{"question": "?", "choices": ["a", "b"]}, {"question": "!", "choices": ["a", "b"]}] * 2
    again = start(source=repeated, questions=None, output=tmp_path / "again.jsonl")
    assert again.n_questions == 2 and "2 questions repeat another" in again.result().warnings[-1]
    with pytest.raises(OutputError):
        start(output=tmp_path / "no/labels.jsonl")
    with pytest.raises(InputError, match="above 1"):
        edgecal.label(BASE, CHAT, data, output=path, ratio=1.0)
    write_json_lines(tmp_path / "other.jsonl", [{"question": "?", "choices": ["a", "b"]}])
    with pytest.raises(InputError, match="was not written by edgecal label"):
        start(output=tmp_path / "other.jsonl")
