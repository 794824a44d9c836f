"""What holds the rows, whatever the format: objects, tables, marks, several files, standard input."""

import io
import json
import sys

import pytest
from support import datasets as ds
from support.data_formats import FLAT, expected, facts
from support.datasets import CONTAINERS, FOUR, LETTERS, QUESTIONS

from edgecal import InputError
from edgecal.data import read_data


@pytest.mark.parametrize("wrapper", ["data", "examples", "questions", "rows"])
@pytest.mark.parametrize("indent", [None, 1, 4])
def test_json_objects_that_hold_the_rows(tmp_path, wrapper, indent):
    path = ds.write_json(tmp_path / "x.json", ds.edgecal_rows(), wrapper=wrapper, indent=indent)
    data = read_data([path])
    assert facts(data) == expected()
    text = path.read_text()
    starts = [text.count("\n", 0, text.index(json.dumps(q, ensure_ascii=False))) for q, *_ in QUESTIONS]
    wanted = [1] * 5 if indent is None else starts
    assert [int(r.source.rsplit(" ", 1)[1]) for r in data.records] == wanted


def test_rows_of_the_hubs_viewer(tmp_path):
    rows = [
        {"row_idx": i, "row": row, "truncated_cells": ["question"] if i == 1 else []}
        for i, row in enumerate(ds.edgecal_rows())
    ]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"features": [{"name": "question"}], "rows": rows, "num_rows_total": 5}))
    data = read_data([path])
    assert facts(data) == [item for i, item in enumerate(expected()) if i != 1]
    assert "cut off" in data.skipped[0].reason


@pytest.mark.parametrize("container", CONTAINERS)
def test_the_container_is_told_by_content(tmp_path, container):
    path = CONTAINERS[container](tmp_path / f"x.{container}", ds.edgecal_rows())
    for name in ("x.txt", "x", "x.wrong.parquet", "y.json", "y.csv", "y.jsonl"):
        other = tmp_path / "other" / name
        other.parent.mkdir(exist_ok=True)
        other.write_bytes(path.read_bytes())
        assert facts(read_data([other])) == expected()


@pytest.mark.parametrize("container", [c for c in CONTAINERS if c != "parquet"])
def test_marks_line_ends_and_blank_lines(tmp_path, container):
    path = CONTAINERS[container](tmp_path / "x", ds.arc_rows()[1:2] + ds.arc_rows()[4:])
    text = path.read_text("utf-8").replace("\r\n", "\n")
    wanted = facts(read_data([path]))
    for variant in (
        "\ufeff" + text,
        text.replace("\n", "\r\n"),
        text.replace("\n", "\r"),
        "\n\n" + text.replace("\n", "\n\n") + "\n \n",
        text.rstrip("\n"),
    ):
        path.write_bytes(variant.encode())
        assert facts(read_data([path])) == wanted


def test_standard_input(monkeypatch, tmp_path):
    path = ds.write_delimited(tmp_path / "x.csv", ds.edgecal_rows())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
    data = read_data(["-"])
    assert facts(data) == expected() and data.files == ("-",)
    assert data.records[0].source == "standard input, line 2"


def test_subjects(tmp_path):
    path = ds.write_json_lines(tmp_path / "x.jsonl", [*ds.edgecal_rows(), {"question": "q"}])
    data = read_data([path], subjects=["ANIMALS", "everyday"])
    assert [r.subject for r in data.records] == ["everyday", "animals", "everyday"]
    assert not data.skipped and "their subject is unknown" in data.notes[0]
    with pytest.raises(
        InputError, match="no question has the subject 'anim'; the subjects are: animals, everyday"
    ):
        read_data([path], subjects=["animals", "anim"])
    path = ds.write_json_lines(tmp_path / "y.jsonl", ds.arc_rows())
    with pytest.raises(InputError, match="none has a subject"):
        read_data([path], subjects=["x"])


def test_rows_that_do_not_fit_count_for_their_subject(tmp_path):
    bad = {"question": "q", "choices": ["x"], "subject": "Animals"}
    path = ds.write_json_lines(tmp_path / "x.jsonl", [*ds.edgecal_rows(), bad, bad | {"subject": "words"}])
    (skipped,) = read_data([path], subjects=["animals"]).skipped
    assert (skipped.where, skipped.subject) == (f"{path}, line 6", "Animals")
    assert len(read_data([path]).skipped) == 2


def test_blanks_around_cells_do_not_matter(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text(' question , A,B , C, answer,subject\n q1 , x, "y, z" ,, B , s ,  \nq2,u,v,w, ,\n')
    data = read_data([path], strict=True)
    assert facts(data) == [("q1", ["x", "y, z"], 1, "s"), ("q2", ["u", "v", "w"], None, None)]
    path.write_text("q1, x, y, B \n")
    assert facts(read_data([path])) == [("q1", ["x", "y"], 1, None)]


@pytest.mark.parametrize("bracket", ["[1] is what?", "{x} is what?"])
def test_a_table_may_start_with_a_bracket(tmp_path, bracket):
    path = ds.write_cells(tmp_path / "x", [[bracket, "p", "q", "A"], ["Why?", "r", "s", "B"]])
    assert [record.question for record in read_data([path]).records] == [bracket, "Why?"]


def test_mmlu_dev_alone_is_judged_and_not_worked(tmp_path):
    rows = [[q, *o, LETTERS[a]] for q, o, a, _ in FOUR]
    ds.write_cells(tmp_path / "dev/knots_dev.csv", rows)
    assert len(read_data([tmp_path]).records) == 5 and not read_data([tmp_path]).worked
    ds.write_cells(tmp_path / "val/knots_val.csv", rows[:2])
    data = read_data([tmp_path])
    assert (len(data.records), len(data.worked)) == (2, 5)
    ds.write_cells(
        tmp_path / "val/knots_val.csv", [[*row[:-1], "A" if i else ""] for i, row in enumerate(rows)]
    )
    assert len(read_data([tmp_path]).records) == 5


def test_several_files_keep_their_order(tmp_path):
    one = ds.write_json_lines(tmp_path / "z.jsonl", ds.edgecal_rows())
    two = ds.write_delimited(tmp_path / "a.csv", ds.medmcqa_rows())
    data = read_data([one, two, one])
    assert facts(data) == [*expected(), *expected(FOUR), *expected()]
    assert data.formats == ("edgecal", "medmcqa", "edgecal") and data.files == (str(one), str(two), str(one))
    assert facts(read_data([tmp_path])) == [*expected(FOUR), *expected()]


ORIENTED = {
    "columns": lambda rows: {key: {str(i): row[key] for i, row in enumerate(rows)} for key in rows[0]},
    "index": lambda rows: {str(i): row for i, row in enumerate(rows)},
    "split": lambda rows: {
        "columns": list(rows[0]),
        "index": list(range(len(rows))),
        "data": [list(row.values()) for row in rows],
    },
    "table": lambda rows: {"schema": {"fields": []}, "data": [{"index": i, **r} for i, r in enumerate(rows)]},
    "lists": lambda rows: {key: [row[key] for row in rows] for key in rows[0]},
    "only key": lambda rows: {"anatomy": rows},
}


@pytest.mark.parametrize("orient", ORIENTED)
@pytest.mark.parametrize("shape", ["edgecal", "mmlu-columns", "mmlu-pro", "arc", "medmcqa", "truthfulqa-mc"])
def test_one_object_that_holds_a_table(tmp_path, shape, orient):
    _, rows, _ = FLAT[shape]
    plain = read_data([ds.write_json_lines(tmp_path / "rows.jsonl", rows())], strict=True)
    path = tmp_path / "table.json"
    path.write_text(json.dumps(ORIENTED[orient](rows())), "utf-8")
    data = read_data([path], strict=True)
    assert facts(data) == facts(plain) and data.formats == plain.formats


def test_pandas_writes_tables_so(tmp_path):
    import pandas as pd

    rows = ds.mmlu_pro_rows()
    for orient in ("records", "columns", "index", "split", "table"):
        path = tmp_path / f"{orient}.json"
        path.write_text(pd.DataFrame(rows).to_json(orient=orient), "utf-8")
        assert facts(read_data([path], strict=True)) == expected()


def test_rows_of_a_table_in_json_are_numbered(tmp_path):
    path = tmp_path / "x.json"
    rows = [{"question": "q?", "choices": c, "answer": 0} for c in (["x", "y"], ["x"])]
    path.write_text(json.dumps(ORIENTED["lists"](rows)))
    (skipped,) = read_data([path]).skipped
    assert skipped.where == f"{path}, row 2"


@pytest.mark.parametrize(
    "row",
    [
        {"tokens": [1, 2], "choice_tokens": [3, 4]},
        {"question": {"stem": "q?", "choices": [{"text": "x", "label": "A"}, {"text": "y", "label": "B"}]}},
    ],
)
def test_one_row_is_not_taken_for_a_table(tmp_path, row):
    path = ds.write_json(tmp_path / "x.json", row)
    assert len(read_data([path], format=None if "tokens" in row else "arc").records) == 1


@pytest.mark.parametrize("names", [True, False])
@pytest.mark.parametrize("start", [0, 1])
def test_mmlu_rows_that_pandas_numbered(tmp_path, names, start):
    rows = [[start + i, q, *o[:4], LETTERS[a]] for i, (q, o, a, _) in enumerate(FOUR)]
    path = ds.write_cells(tmp_path / "x.csv", [["", *range(6)]] * names + rows)
    assert facts(read_data([path], strict=True)) == expected(FOUR, subjects=False)


def test_mmlu_questions_that_are_numbers(tmp_path):
    rows = [["1", "x", "y", "A"], ["3", "x", "y", "B"]]
    data = read_data([ds.write_cells(tmp_path / "x.csv", rows)], strict=True)
    assert [record.question for record in data.records] == ["1", "3"]


def test_mmlu_rows_of_many_widths(tmp_path):
    rows = [[f"q{n}?", *(f"option {i}" for i in range(n)), LETTERS[n - 1]] for n in range(2, 27)]
    data = read_data([ds.write_cells(tmp_path / "x.csv", rows)], strict=True)
    assert [(len(r.choices), r.answer) for r in data.records] == [(n, n - 1) for n in range(2, 27)]


def test_the_separator_that_excel_names(tmp_path):
    path = ds.write_delimited(tmp_path / "x.csv", ds.mmlu_column_rows(), delimiter=";")
    path.write_bytes(b"sep=;\r\n" + path.read_bytes() + b"q;x;y;A\n")
    data = read_data([path])
    assert facts(data) == expected(FOUR)
    assert data.skipped[0].where == f"{path}, line {path.read_bytes().count(10)}"


@pytest.mark.parametrize("container", ["jsonl", "csv"])
def test_answers_as_texts_that_look_like_numbers(tmp_path, container):
    texts = [("red", "blue", "4"), ("3", "4", "5"), ("1", "2", "3")]
    rows = [{"question": "q?", **dict(zip("ABC", t, strict=True)), "answer": t[1]} for t in texts]
    write = ds.write_json_lines if container == "jsonl" else ds.write_delimited
    data = read_data([write(tmp_path / f"x.{container}", rows)], strict=True)
    assert [record.answer for record in data.records] == [1, 1, 1]
    assert data.decisions == ("answers as texts of options; options from A to C",)


def test_openbookqa_tables_with_options_in_a_text(tmp_path):
    rows = [
        {"Question Stem": q, "Choices": " ".join(f"({LETTERS[i]}) {o}" for i, o in enumerate(options)),
         "Answer Key": LETTERS[a]}
        for q, options, a, _ in QUESTIONS
    ]  # fmt: skip
    data = read_data([ds.write_delimited(tmp_path / "test.tsv", rows, delimiter="\t")], strict=True)
    assert data.formats == ("openbookqa",) and facts(data) == expected(subjects=False)


def test_a_parquet_column_that_holds_the_rows(tmp_path):
    rows = [{"train": row} for row in ds.edgecal_rows()]
    assert facts(read_data([ds.write_parquet(tmp_path / "x.parquet", rows)], strict=True)) == expected()
