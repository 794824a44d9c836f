"""Every format in every container that it comes in, against the questions that were written into it."""

import json
from collections import Counter

import numpy as np
import pytest
from support import datasets as ds
from support.data_formats import FLAT, expected, facts
from support.datasets import CONTAINERS, FOUR, LETTERS, QUESTIONS

from edgecal import InputError
from edgecal.data import FORMATS, read_data
from edgecal.prompts import Prompt, Question, parse_record


def test_the_formats_have_names():
    names = "edgecal mmlu arc openbookqa commonsenseqa medmcqa mathqa truthfulqa agieval bbh race"
    assert {kind for kind, _, _ in FLAT.values()} == set(names.split()) < set(FORMATS)
    assert len(set(FORMATS)) == len(FORMATS) and FORMATS[:2] == ("edgecal", "mmlu")


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("shape", FLAT)
def test_each_format_in_each_container(tmp_path, shape, container):
    kind, rows, wanted = FLAT[shape]
    path = CONTAINERS[container](tmp_path / f"rows.{container}", rows())
    data = read_data([path])
    assert data.formats == (kind,) and data.files == (str(path),) and data.skipped == ()
    reference = read_data([ds.write_json_lines(tmp_path / "reference.jsonl", rows())])
    assert facts(data) == facts(reference)
    if wanted is not None:
        assert facts(data) == wanted
    assert all(isinstance(record, Question) for record in data.records)
    assert read_data([path], format=kind).records == data.records
    assert read_data([path], strict=True).records == data.records
    place = "row" if container == "parquet" else "line"
    assert all(record.source.startswith(f"{path}, {place} ") for record in data.records)


@pytest.mark.parametrize("container", CONTAINERS)
def test_our_own_forms_mixed_in_a_table(tmp_path, container):
    rows = [
        {"prompt": "Say:", "labels": [" A", " B"], "answer": 1},
        {"tokens": [1, 5], "choice_tokens": [7, 9], "subject": "ids"},
        {"prompt": "Is it?", "labels": [" yes", " no"]},
    ]
    path = CONTAINERS[container](tmp_path / f"rows.{container}", rows)
    records = read_data([path]).records
    assert [r.source for r in records] == [
        f"{path}, {w}" for w in (WHERE.get(container) or ["line 2", "line 3", "line 4"])
    ]
    assert records == tuple(parse_record(row, r.source) for row, r in zip(rows, records, strict=True))
    assert all(isinstance(record, Prompt) for record in records)


WHERE = {
    "jsonl": ["line 1", "line 2", "line 3"],
    "json": ["line 2", "line 10", "line 21"],
    "parquet": ["row 1", "row 2", "row 3"],
}


@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
def test_mmlu_without_a_header(tmp_path, delimiter):
    rows = [[q, *o, LETTERS[a]] for q, o, a, _ in FOUR]
    path = ds.write_cells(tmp_path / "everyday_things_test.csv", rows, delimiter=delimiter)
    data = read_data([path])
    assert facts(data) == expected(FOUR, subjects=False, subject="everyday_things")
    assert data.formats == ("mmlu",)
    # the third question starts on the third line and ends on the fourth
    assert [record.source.split(", ")[-1] for record in data.records] == [
        f"line {n}" for n in (1, 2, 3, 5, 6)
    ]


@pytest.mark.parametrize("n_options", [2, 3, 26])
def test_mmlu_without_a_header_of_other_widths(tmp_path, n_options):
    rows = [[f"Question {i}?", *(f"o{k}" for k in range(n_options)), LETTERS[i]] for i in range(2)]
    data = read_data([ds.write_cells(tmp_path / "x.csv", rows)])
    assert [(len(r.choices), r.answer, r.subject) for r in data.records] == [
        (n_options, 0, None),
        (n_options, 1, None),
    ]


@pytest.mark.parametrize("prefix", ["", "data/"])
def test_mmlu_folder(tmp_path, prefix):
    root = tmp_path / "mmlu"
    rows = [[q, *o, LETTERS[a]] for q, o, a, _ in FOUR]
    for subject in ("soil_science", "knots"):
        ds.write_cells(root / f"{prefix}test/{subject}_test.csv", rows[:3])
        ds.write_cells(root / f"{prefix}dev/{subject}_dev.csv", rows[3:4])
        ds.write_cells(root / f"{prefix}val/{subject}_val.csv", rows[4:])
    ds.write_cells(root / f"{prefix}auxiliary_train/arc_easy.csv", rows)
    (root / "README.txt").write_text("Some words.")
    (root / ".hidden.csv").write_text("x")
    data = read_data([root])
    assert facts(data) == [
        (*item[:3], subject) for subject in ("knots", "soil_science") for item in expected(FOUR[:3])
    ]
    assert [(q.question, q.subject) for q in data.worked] == [
        (FOUR[3][0], "knots"),
        (FOUR[3][0], "soil_science"),
    ]
    assert [name.rsplit("/", 1)[1] for name in data.files] == [
        "knots_test.csv",
        "soil_science_test.csv",
        "knots_dev.csv",
        "soil_science_dev.csv",
    ]
    assert data.formats == ("mmlu",) * 4
    stray, note = data.notes
    assert stray == f"{root}: not read, since they are not data files: README.txt"
    assert "of its splits (test, validation, dev, train) the first with answers is read" in note
    assert facts(read_data([root / prefix / "test"])) == facts(data)
    assert Counter(r.subject for r in read_data([root / prefix / "val"]).records) == {
        "knots": 1,
        "soil_science": 1,
    }


def test_hub_mmlu_columns(tmp_path):
    rows = [{"question": q, "subject": s, "choices": o, "answer": a} for q, o, a, s in FOUR]
    data = read_data([ds.write_parquet(tmp_path / "test-00000-of-00001.parquet", rows)])
    assert facts(data) == expected(FOUR) and data.formats == ("mmlu",)
    ds.write_parquet(tmp_path / "dev-00000-of-00001.parquet", rows[:2])
    whole = read_data([tmp_path])
    assert facts(whole) == facts(data) and len(whole.worked) == 2
    lines = read_data([ds.write_json_lines(tmp_path / "mmlu.jsonl", rows)])
    assert facts(lines) == facts(data) and lines.formats == ("mmlu",)


@pytest.mark.parametrize("as_text", [json.dumps, repr, ds.numpy_text], ids=["json", "python", "numpy"])
@pytest.mark.parametrize("shape", ["edgecal", "mmlu-pro", "arc", "agieval", "race", "truthfulqa-mc"])
def test_lists_that_went_through_a_text_column(tmp_path, shape, as_text):
    _, rows, _ = FLAT[shape]
    path = ds.write_delimited(tmp_path / "rows.csv", rows(), as_text=as_text)
    reference = ds.write_json_lines(tmp_path / "rows.jsonl", rows())
    assert facts(read_data([path])) == facts(read_data([reference]))


def test_numpy_itself_prints_lists_so(tmp_path):
    options = ["it's", 'say "so"', "a, b", "back\\slash", "two\nlines", "end"]
    path = ds.write_delimited(
        tmp_path / "x.csv",
        [
            {"question": "q?", "choices": str(np.array(options, dtype=object)), "answer": 2},
            {"question": "r?", "choices": str(np.array(["x", "y"])), "answer": 1},
        ],
    )
    records = read_data([path], strict=True).records
    assert [list(r.choices) for r in records] == [options, ["x", "y"]]


@pytest.mark.parametrize("container", ["jsonl", "json"])
def test_the_original_nested_forms(tmp_path, container):
    for more, kind in (({}, "arc"), ({"fact1": "Spoons are tools."}, "openbookqa")):
        path = CONTAINERS[container](tmp_path / f"{kind}.{container}", ds.nested_rows(**more))
        data = read_data([path])
        assert data.formats == (kind,) and facts(data) == expected(subjects=False)
    rows = ds.nested_rows()
    for row in rows:
        row["question"]["question_concept"] = "thing"
    del rows[0]["answerKey"]
    rows[1]["answerKey"] = ""
    data = read_data([CONTAINERS[container](tmp_path / f"csqa.{container}", rows)])
    assert data.formats == ("commonsenseqa",)
    assert [record.answer for record in data.records] == [None, None, *(q[2] for q in QUESTIONS[2:])]
    rows = [{**row, "id": f"9-{i}"} for i, row in enumerate(ds.nested_rows())]
    assert read_data([ds.write_json_lines(tmp_path / "ob.jsonl", rows)]).formats == ("openbookqa",)


def test_arc_csv_has_options_in_the_text(tmp_path):
    rows = [
        {
            "questionID": "x1",
            "AnswerKey": "C",
            "isMultipleChoiceQuestion": 1,
            "question": "Which floats? (A) iron (B) lead, in lumps (C) cork (D) both (A) and (B)",
            "subject": "",
        },
        {
            "questionID": "x2",
            "AnswerKey": "2",
            "isMultipleChoiceQuestion": 1,
            "question": "Plans (A) and (B) failed. Why? (1) rain (2) wind (3) frost",
            "subject": "weather",
        },
        {"questionID": "x3", "AnswerKey": "1", "question": "No options here?", "subject": ""},
    ]
    data = read_data([ds.write_delimited(tmp_path / "arc.csv", rows)])
    assert data.formats == ("arc",)
    assert facts(data) == [
        ("Which floats?", ["iron", "lead, in lumps", "cork", "both (A) and (B)"], 2, None),
        ("Plans (A) and (B) failed. Why?", ["rain", "wind", "frost"], 1, "weather"),
    ]
    assert "no options in its text" in data.skipped[0].reason


def test_arc_ships_each_split_twice(tmp_path):
    for split in ("Train", "Dev", "Test"):
        ds.write_json_lines(tmp_path / f"ARC-Easy-{split}.jsonl", ds.arc_rows())
        ds.write_delimited(tmp_path / f"ARC-Easy-{split}.csv", ds.arc_rows())
    data = read_data([tmp_path])
    assert [name.rsplit("/", 1)[1] for name in data.files] == ["ARC-Easy-Test.jsonl"]
    assert len(data.notes) == 2 and not data.worked


@pytest.mark.parametrize(
    ("cops", "answers", "decided"),
    [
        ([0, 3, 2], [0, 3, 2], "counted from 0"),
        ([1, 4, 3], [0, 3, 2], "counted from 1"),
        ([-1, 2, 0], [None, 2, 0], "counted from 0"),
        ([None, None], [None, None], "no answers"),
        (["4", "1"], [3, 0], "counted from 1"),
        ([0] * 20 + [3] * 5 + [4], [0] * 20 + [3] * 5, "counted from 0"),
    ],
)
@pytest.mark.parametrize("container", ["jsonl", "csv", "parquet"])
def test_medmcqa_counts_from_0_or_from_1(tmp_path, container, cops, answers, decided):
    rows = [{**ds.medmcqa_rows()[0], "question": f"q{i}?", "cop": cop} for i, cop in enumerate(cops)]
    data = read_data([CONTAINERS[container](tmp_path / f"m.{container}", rows)])
    assert [record.answer for record in data.records] == answers
    assert len(data.skipped) == len(cops) - len(answers)
    assert decided in data.decisions[0] and data.decisions[0].endswith("; options from opa to opd")


@pytest.mark.parametrize("cops", [[0, 4, 3], [1, 2, 3], [-1, 2, 1]])
def test_medmcqa_is_refused_where_its_rows_do_not_show_it(tmp_path, cops):
    """Both ways of counting are public, so neither is taken for granted; what the rows contradict is no typo."""
    rows = [{**ds.medmcqa_rows()[0], "question": f"q{i}?", "cop": cop} for i, cop in enumerate(cops)]
    path = ds.write_json_lines(tmp_path / "m.jsonl", rows)
    with pytest.raises(
        InputError, match=r"2 ways: counted from 0 .* or counted from 1 .*--map answer-base=0"
    ):
        read_data([path])
    for base in (0, 1):
        data = read_data([path], mapping={"answer-base": base})
        wanted = [None if cop == -1 else cop - base for cop in cops]
        assert [r.answer for r in data.records] == [a for a in wanted if a is None or 0 <= a < 4]
        assert len(data.skipped) == len(cops) - len(data.records)


@pytest.mark.parametrize(
    ("answers", "read", "decided"),
    [
        ([0, 1, 3], [0, 1, 3], "answers counted from 0"),
        ([1, 2, 4], [0, 1, 3], "answers counted from 1"),
        (["7", "8", "9"], [1, 2, 3], "answers as texts of options"),
    ],
)
def test_numbers_as_answers_of_a_table(tmp_path, answers, read, decided):
    rows = [
        {"question": f"q{i}?", "A": "6", "B": "7", "C": "8", "D": "9", "answer": answer}
        for i, answer in enumerate(answers)
    ]
    data = read_data([ds.write_delimited(tmp_path / "x.csv", rows)])
    assert [record.answer for record in data.records] == read
    assert data.decisions == (f"{decided}; options from A to D",) and not data.notes
