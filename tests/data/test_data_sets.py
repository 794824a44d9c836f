"""Data sets as their makers ship them and as people find them, with what is odd in each."""

import json

import numpy as np
import pytest
from support import datasets as ds
from support.data_formats import expected, facts
from support.datasets import FOUR, QUESTIONS

from edgecal.data import read_data


def test_mathqa_options_as_people_find_them(tmp_path):
    texts = {
        "a ) 38 , b ) 27.675 , c ) rs . 1 , 000 , d ) data inadequate , e ) none of these": [
            "38",
            "27.675",
            "rs . 1 , 000",
            "data inadequate",
            "none of these",
        ],
        "a) 5 ,b) 6, c) (a) or b": ["5", "6", "(a) or b"],
        "['a ) 5', 'b ) 6 , 7', 'c ) x']": ["5", "6 , 7", "x"],
        "a ) 1 / 2 , b ) a ) 3 , c ) 4": ["1 / 2", "a ) 3", "4"],
    }
    rows = [{"Problem": "how many ?", "options": text, "correct": "b"} for text in texts]
    data = read_data([ds.write_json(tmp_path / "train.json", rows)])
    assert [list(r.choices) for r in data.records] == list(texts.values())
    assert {r.answer for r in data.records} == {1}


def test_truthfulqa_forms_agree_and_are_shuffled_by_the_seed(tmp_path):
    csv_path = ds.write_delimited(tmp_path / "TruthfulQA.csv", ds.truthfulqa_rows())
    rows = ds.truthfulqa_mc_rows()
    mc = ds.write_json_lines(tmp_path / "mc.jsonl", rows)
    pairs = []
    for row in rows:
        targets = row["mc1_targets"]
        pairs.append({**row, "mc1_targets": dict(zip(targets["choices"], targets["labels"], strict=True))})
    old = ds.write_json(tmp_path / "mc_task.json", pairs)
    assert facts(read_data([mc])) == facts(read_data([old]))

    for path, questions in ((csv_path, QUESTIONS), (mc, QUESTIONS)):
        seen = []
        for seed in range(30):
            records = read_data([path], seed=seed).records
            assert records == read_data([path], seed=seed).records
            for record, (question, options, answer, _) in zip(records, questions, strict=True):
                assert record.question == question
                assert record.choices[record.answer].replace(";", ",") == options[answer].replace(";", ",")
                assert len(record.choices) == len(options)
            seen.append(tuple(record.answer for record in records))
        assert len(set(seen)) > 25
        by_question = np.array(seen)
        assert all(len(set(by_question[:, i])) == len(q[1]) for i, q in enumerate(questions))
    # neither the other rows nor the order in which they or the wrong options stand matter
    some = ds.write_json_lines(tmp_path / "some.jsonl", rows[3:1:-1])
    assert facts(read_data([some], seed=5))[::-1] == facts(read_data([mc], seed=5))[2:4]


def test_truthfulqa_with_a_best_incorrect_answer(tmp_path):
    row = {
        "Question": "Is it?",
        "Best Answer": "yes",
        "Best Incorrect Answer": "no",
        "Correct Answers": "yes; sure",
        "Incorrect Answers": "no; never;",
    }
    (record,) = read_data([ds.write_delimited(tmp_path / "t.csv", [row])]).records
    assert sorted(record.choices) == ["never", "no", "yes"] and record.choices[record.answer] == "yes"
    del row["Incorrect Answers"]
    (record,) = read_data([ds.write_delimited(tmp_path / "t.csv", [row])]).records
    assert sorted(record.choices) == ["no", "yes"] and record.choices[record.answer] == "yes"


def test_agieval(tmp_path):
    rows = ds.agieval_rows()
    rows.append({**rows[0], "label": ["A", "C"]})
    rows.append({**rows[0], "label": "AC"})
    rows.append({**rows[0], "options": None, "label": None, "answer": "12"})
    data = read_data([ds.write_json_lines(tmp_path / "lsat-ar.jsonl", rows)])
    wanted = [
        (f"A text about {s}.\nIt has two lines.\n\n{q}" if i % 2 else q, o, a, "lsat-ar")
        for i, (q, o, a, s) in enumerate(QUESTIONS)
    ]
    assert facts(data) == wanted
    assert [row.reason.split(" (")[0] for row in data.skipped] == [
        "has several right answers",
        "has several right answers",
        "has no options, so it is not multiple choice",
    ]


@pytest.mark.parametrize(
    ("query", "question"),
    [
        ("Q: Who? Answer Choices: (A)x (B)y\nA: Among A through B, the answer is", "Who?"),
        ("A text.\nMore.Q: Who? Answer Choices: (A)x (B)y\nA: ...", "A text.\nMore.\n\nWho?"),
        ("问题：谁？ 选项：(A)x (B)y\n答案：", "谁？"),
        ("Who? Choose well.", "Who? Choose well."),
        ("Which Answer Choices: (A)p (B)q are meant?", "Which Answer Choices: (A)p (B)q are meant?"),
    ],
)
def test_agieval_queries_of_the_hub(tmp_path, query, question):
    row = {"query": query, "choices": ["(A)x", "(B)y"], "gold": [1]}
    data = read_data([ds.write_json_lines(tmp_path / "x.jsonl", [row])])
    assert facts(data) == [(question, ["x", "y"], 1, None)]


def test_a_test_split_without_answers_gives_way(tmp_path):
    hidden = [{**row, "cop": -1} for row in ds.medmcqa_rows()]
    ds.write_json_lines(tmp_path / "test.json", hidden)
    ds.write_json_lines(tmp_path / "train.json", ds.medmcqa_rows())
    assert all(record.answer is None for record in read_data([tmp_path]).records)
    ds.write_json_lines(tmp_path / "dev.json", ds.medmcqa_rows()[:2])
    data = read_data([tmp_path])
    assert facts(data) == expected(FOUR[:2]) and data.files == (str(tmp_path / "dev.json"),)
    assert len(data.notes) == 1 and not data.worked


def test_answers_as_texts_of_options(tmp_path):
    rows = [{"question": "q?", "choices": ["red", "blue"], "answer": a} for a in ("blue", "red", "green")]
    data = read_data([ds.write_json_lines(tmp_path / "x.jsonl", rows)])
    assert [record.answer for record in data.records] == [1, 0] and "'green' is none" in data.skipped[
        0
    ].reason
    rows = [{"question": "q?", "options": {"A": "red", "B": "blue"}, "answer": "blue", "answer_idx": "B"}]
    (record,) = read_data([ds.write_json_lines(tmp_path / "x.jsonl", rows)]).records
    assert record.choices == ("red", "blue") and record.answer == 1
    rows = [{"question": "q?", "choices": ["red", "blue"], "label": label} for label in (1, 0)]
    data = read_data([ds.write_json_lines(tmp_path / "x.jsonl", rows)])
    assert [record.answer for record in data.records] == [1, 0]


def test_bbh_files(tmp_path):
    rows = [*ds.bbh_rows(), {"input": "not ( True ) is", "target": "False"}]
    rows.append({"input": "Pick.\nOptions: (A) this (B) that", "target": "that"})
    rows.append({"input": "Pick.\nOptions:\n(A) this\n(B) that", "target": "neither"})
    path = tmp_path / "snarks.json"
    path.write_text(json.dumps({"canary": "do not train", "examples": rows}, indent=1))
    data = read_data([path])
    assert facts(data) == [
        *expected(subjects=False, subject="snarks"),
        ("Pick.", ["this", "that"], 1, "snarks"),
    ]
    assert [row.reason[:26] for row in data.skipped] == [
        'the input has no "Options:',
        "the answer 'neither' is no",
    ]
    lines = path.read_text().split("\n")
    assert (
        data.skipped[0].where == f"{path}, line {next(i for i, line in enumerate(lines) if 'not (' in line)}"
    )


def test_race_as_shipped(tmp_path):
    wanted = [(f"{ds.ARTICLE}\n\n{q}", o, a, "high") for q, o, a, _ in QUESTIONS]
    flat = read_data([ds.write_parquet(tmp_path / "race.parquet", ds.race_rows())])
    assert facts(flat) == wanted
    for split in ("train", "dev", "test"):
        folder = tmp_path / "RACE" / split / "high"
        folder.mkdir(parents=True)
        (folder / "7.txt").write_text(json.dumps(ds.race_original()))
    data = read_data([tmp_path / "RACE"])
    assert facts(data) == wanted and data.formats == ("race",)
    assert data.files == (str(tmp_path / "RACE/test/high/7.txt"),)
    assert [r.source.split(", ", 1)[1] for r in data.records] == [
        f"line 1, question {i}" for i in range(1, 6)
    ]
    broken = ds.race_original()
    broken["options"][2] = ["same", "same"]
    data = read_data([ds.write_json_lines(tmp_path / "r.jsonl", [broken, {**broken, "answers": ["A"]}])])
    assert len(data.records) == 4
    assert [row.where.split(", ", 1)[1] for row in data.skipped] == ["line 1, question 3", "line 2"]


@pytest.mark.parametrize(
    ("options", "kept", "answer"),
    [
        (["(A) x", "(B) y"], ["x", "y"], 1),
        (["A. x", "B. y"], ["x", "y"], 1),
        (["A) x", "b) y"], ["x", "y"], 1),
        (["A: x", "B: y"], ["x", "y"], 1),
        (["(A)x", "(B)y"], ["x", "y"], 1),
        (["A)21", "B)7"], ["21", "7"], 1),
        (["（A）甲", "（B）乙"], ["甲", "乙"], 1),
        (["A．甲", "B．乙"], ["甲", "乙"], 1),
        (["A、甲", "B、乙"], ["甲", "乙"], 1),
        (["A.甲", "B.乙"], ["甲", "乙"], 1),
        (["A. x", "y"], None, 1),
        (["B. x", "A. y"], ["x", "y"], 0),
        (["B. x", "C. y", "D. z"], ["x", "y", "z"], 0),
        (["G. Bush", "B. Clinton", "J. Carter"], None, 1),
        (["A.x", "B.y"], None, 1),
        (["(A)", "(B)"], None, 1),
        (["A x", "B y"], None, 1),
        (["1: 2", "2: 1"], None, 1),
    ],
)
def test_letters_are_taken_off_only_where_every_option_carries_its_own(tmp_path, options, kept, answer):
    rows = [{"question": "q?", "options": options, "answer": "B"}]
    (record,) = read_data([ds.write_json_lines(tmp_path / "x.jsonl", rows)]).records
    assert list(record.choices) == (kept or options) and record.answer == answer
