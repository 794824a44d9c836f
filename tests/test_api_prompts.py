"""What `edgecal.load_prompts` takes from Python, and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest
from support.data_formats import FLAT
from support.datasets import write_json_lines

import edgecal
from edgecal import QuestionOptions
from edgecal.prompts import Prompt, Question

QUESTION = {"question": "Which?", "choices": ["this", "that"]}


def test_every_kind_of_source_in_one_list(tmp_path):
    (tmp_path / "q.jsonl").write_text('{"prompt": "Say:", "labels": [" A", " B"]}\n')
    mixed = [
        tmp_path / "q.jsonl",
        QUESTION,
        Question("Who?", ("he", "she")),
        Prompt(tokens=(1, 2), choice_tokens=(3, 4)),
        Prompt(text="So", labels=("A", "B"), labels_verbatim=False),
    ]
    prompts = edgecal.load_prompts(item for item in mixed)
    backwards = edgecal.load_prompts(reversed(mixed))
    assert len(prompts) == 5
    assert [replace(p, source="") for p in prompts] == [replace(p, source="") for p in backwards]
    assert {prompt.source for prompt in prompts} >= {"prompt 2", "prompt 3", "prompt 4", "prompt 5"}


class NothingKnown:
    """As pandas' NA: neither equal to itself nor different from itself."""

    def __ne__(self, other):
        return self

    def __bool__(self):
        raise TypeError("boolean value of NA is ambiguous")


@pytest.mark.parametrize("shape", FLAT)
def test_dicts_are_read_as_the_same_rows_of_a_file(tmp_path, shape):
    rows = FLAT[shape][1]()
    rows.insert(1, dict.fromkeys(rows[0]))
    file = edgecal.read_questions(write_json_lines(tmp_path / "x.jsonl", rows))
    records = edgecal.read_questions(rows)
    assert (records.questions, records.prompts) == (file.questions, file.prompts)
    assert records.data["decisions"] == file.data["decisions"] and records.data["files"] == []
    for name in ("n_read", "n_questions", "n_skipped", "sha256"):
        assert records.data[name] == file.data[name], name
    assert [row["reason"] for row in records.data["skipped"]] == [
        row["reason"] for row in file.data["skipped"]
    ]
    assert file.data["skipped"] and "prompt 2" in [row["where"] for row in records.data["skipped"]]


def test_what_is_no_record_is_skipped_and_counted_and_keeps_its_place(tmp_path):
    (tmp_path / "q.jsonl").write_text('{"question": "From a file?", "choices": ["yes", "no"]}\n')
    good = [{**QUESTION, "question": f"Which {n}?", "answer": n % 2} for n in range(20)]
    mixed = [
        *good[:3], Question("Who?", ("he",)), tmp_path / "q.jsonl", Question("Whose?", ("his", "hers"), 1), None,
        {"question": "Which?"}, *good[3:], Prompt(text="a", labels=("A", "A"), source="mine"), 7,
    ]  # fmt: skip
    read = edgecal.read_questions(mixed)
    assert (read.data["n_read"], read.data["n_questions"], read.data["n_skipped"]) == (27, 22, 5)
    assert [row["where"] for row in read.data["skipped"]] == [
        "prompt 4",
        "prompt 7",
        "prompt 8",
        "mine",
        "prompt 27",
    ]
    reasons = [row["reason"] for row in read.data["skipped"]]
    assert reasons[0].startswith('"choices" must hold 2 to 26') and "got NoneType" in reasons[1]
    assert not any(row["reason"].startswith(row["where"]) for row in read.data["skipped"])
    assert [question["question"] for question in read.questions[:6]] == [
        "From a file?", "Which 0?", "Which 1?", "Which 2?", "Whose?", "Which 3?",
    ]  # fmt: skip
    assert any("5 of 27 rows do not fit" in text for text in read.warnings)
    with pytest.raises(edgecal.InputError, match=r"^prompt 4: "):
        edgecal.read_questions(mixed, questions=QuestionOptions(strict=True))
    with pytest.raises(edgecal.InputError, match=r"^prompt 1: .* \(0 of 2 rows could be read\)$"):
        edgecal.read_questions([Question("Who?", ("he",)), None])


def test_answers_of_dicts_are_decided_together_and_those_of_objects_stand():
    counted = [{**QUESTION, "question": f"Which {n}?", "answer": 1 + n % 2} for n in range(6)]
    made = Question("Who?", ("he", "she"), 1)
    read = edgecal.read_questions([*counted, made])
    assert [question["answer"] for question in read.questions] == [0, 1, 0, 1, 0, 1, 1]
    assert "answers counted from 1" in read.data["decisions"][0]
    named = [{"q": "Which?", "a": "this", "b": "that"}] * 2
    mapping = {"question": "q", "options": ["a", "b"]}
    assert edgecal.read_questions(named, questions=QuestionOptions(mapping=mapping)).questions[0][
        "choices"
    ] == ["this", "that"]
    with pytest.raises(edgecal.InputError, match="of the format race"):
        edgecal.read_questions(counted, questions=QuestionOptions(format="race"))


def test_subjects_of_dicts_and_objects_are_chosen_as_those_of_files():
    records = [{**QUESTION, "subject": " tea "}, Question("Who?", ("he", "she"), subject="Knots"), QUESTION]
    read = edgecal.read_questions(records, questions=QuestionOptions(subjects=["TEA", "knots"]))
    assert [question["subject"] for question in read.questions] == ["tea", "Knots"]
    with pytest.raises(
        edgecal.InputError, match="no question has the subject 'coal'; the subjects are: Knots, tea"
    ):
        edgecal.read_questions(records, questions=QuestionOptions(subjects=["coal"]))


def test_numpys_values_are_pythons():
    record = {
        "question": np.str_("Which?"), "choices": np.array(["this", "that"]), "answer": np.float32(1), 7: np.arange(2),
    }  # fmt: skip
    assert edgecal.read_questions([record]).questions == [{**QUESTION, "answer": 1}]
    odd = {**QUESTION, "question": np.longdouble(1.5), "subject": NothingKnown()}
    assert edgecal.read_questions([odd]).questions == [{**QUESTION, "question": "1.5"}]


def test_numpy_integers_are_integers():
    ours = {"tokens": [1, 2], "choice_tokens": [3, 4], "answer": 1}
    theirs = {
        "tokens": list(np.array([1, 2])),
        "choice_tokens": list(np.array([3, 4])),
        "answer": np.int64(1),
    }
    assert edgecal.load_prompts([ours]) == edgecal.load_prompts([theirs])
    assert type(edgecal.load_prompts([theirs])[0].tokens[0]) is int


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (QUESTION, "one record"),
        ([], "no prompts"),
        ([QUESTION, 5], "prompt 2: expected a file's path, .* got int"),
        ([{"question": "Which?"}], "the records: no known data set has the keys 'question'"),
        ([QUESTION, {"question": "Which?"}], "prompt 2: the options must be a list"),
        ([QUESTION, {**QUESTION, "answer": 7}], "prompt 2: the answer 7 is none of the 2 options"),
        ([Question("Which?", ("this",))], '"choices" must hold 2 to 26 items, got 1'),
        ([Question("Which?", ("this", "that"), answer=2)], '"answer" must be an index'),
        ([Question("Which?", ("this", "that"), source="here")] * 1 + [Question("", ("a", "b"))], "prompt 2"),
        ([Prompt()], "prompt 1: expected one of"),
        ([Prompt(text="a", labels=("A", "B"), tokens=(1,))], "got both"),
        ([Prompt(tokens=(1,), choice_tokens=(-1, 2))], '"choice_tokens" item 0'),
        ([Prompt(text="a", labels=("A", "A"))], "are the same"),
    ],
)
def test_what_is_refused(source, told):
    with pytest.raises(edgecal.InputError, match=told):
        edgecal.load_prompts(source)


@pytest.mark.parametrize(
    ("options", "told"), [({"limit": 0}, "limit"), ({"seed": -1}, "seed"), ({"seed": 2**64}, "seed")]
)
def test_options_that_make_no_sense(options, told):
    with pytest.raises(edgecal.InputError, match=told):
        edgecal.load_prompts([QUESTION], **options)
