"""Which column is what: passages and their names, what is left over, and what a user says of it."""

import pytest
from support import datasets as ds
from support.datasets import CONTAINERS

from edgecal import InputError
from edgecal.data import read_data
from edgecal.prompts import resolve_template

PASSAGES = (
    "context passage article support story premise Context Passage background paragraph document dialogue scenario "
    "text hint flores_passage reading_passage source-context"
).split()
ROW = {"question": "Which?", "A": "x", "B": "y", "answer": "B"}


def read(tmp_path, rows, container="jsonl", **options):
    return read_data([CONTAINERS[container](tmp_path / f"rows.{container}", rows)], **options)


@pytest.mark.parametrize("container", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("name", PASSAGES)
def test_passages_by_any_name(tmp_path, name, container):
    rows = [{name: held, **ROW} for held in (None, "A mill,\n\nof stone. ", "")]
    data = read(tmp_path, rows, container, strict=True)
    assert [record.passage for record in data.records] == [None, "A mill,\n\nof stone.", None]
    assert (
        data.decisions == (f"answers by letter; options from A to B; passage from {name}",) and not data.notes
    )
    assert "A mill,\n\nof stone.\n\nWhich?" in resolve_template("default").render(data.records[1]).text


@pytest.mark.parametrize("shape", ["edgecal", "mmlu", "arc", "medmcqa", "hellaswag", "sciq", "piqa"])
def test_passages_in_every_format(tmp_path, shape):
    rows = {
        "edgecal": {"question": "q", "choices": ["x", "y"], "answer": 1},
        "mmlu": ROW,
        "arc": {"question": "q", "choices": ds.labelled(["x", "y"]), "answerKey": "B"},
        "medmcqa": {"question": "q", "opa": "x", "opb": "y", "cop": 2},
        "hellaswag": {"ctx": "q", "endings": ["x", "y"], "label": 1},
        "sciq": {"question": "q", "correct_answer": "y", "distractor1": "x"},
        "piqa": {"goal": "q", "sol1": "x", "sol2": "y", "label": 1},
    }
    data = read(tmp_path, [{**rows[shape], "passage": "P."}], strict=True)
    (record,) = data.records
    assert data.formats == (shape,) and record.passage == "P." and record.choices[record.answer] == "y"


@pytest.mark.parametrize(
    ("row", "passage", "question"),
    [
        ({"instruction": "Say which.", "input": "Red or blue?"}, "Say which.", "Red or blue?"),
        ({"instruction": "Red or blue?", "input": ""}, None, "Red or blue?"),
        ({"context": "C.", "instruction": "Say.", "question": "q"}, "Say.\n\nC.", "q"),
        ({"story": ["One.", "Two."], "question": "q"}, "One.\nTwo.", "q"),
        ({"sentence1": "One.", "sentence2": "Two.", "question": "q"}, "One.\n\nTwo.", "q"),
        ({"dialogue": [["A: hi", "B: ho"]], "question": "q"}, "A: hi\nB: ho", "q"),
    ],
)
def test_what_comes_before_the_question(tmp_path, row, passage, question):
    (record,) = read(tmp_path, [{**row, "options": ["red", "blue"], "answer": "A"}], strict=True).records
    assert (record.passage, record.question) == (passage, question)


def test_a_prompt_that_holds_the_question_is_no_passage(tmp_path):
    asked = {**ROW, "question": "Which of these is red?"}
    data = read(tmp_path, [{**asked, "text": "Question: Which of these is red? Answer: B"}])
    assert data.records[0].passage is None and "'text'" in data.notes[0]
    data = read(tmp_path, [{**asked, "passage": "He asked: Which of these is red?", "text": "Some words."}])
    assert data.records[0].passage == "He asked: Which of these is red?\n\nSome words." and not data.notes


def test_a_passage_that_is_no_text_is_not_dropped(tmp_path):
    data = read(tmp_path, [ROW, {**ROW, "context": {"title": "x"}}])
    assert len(data.records) == 1 and "the passage must be a text" in data.skipped[0].reason


@pytest.mark.parametrize("container", ["jsonl", "csv", "parquet"])
def test_texts_that_are_left_over_are_named_once(tmp_path, container):
    rows = [
        {"id": f"row-{i}", "Lecture": "A long text.", **ROW, "mood": "glad", "score": 3} for i in range(3)
    ]
    paths = [CONTAINERS[container](tmp_path / f"{name}.{container}", rows) for name in "ab"]
    data = read_data(paths)
    (note,) = data.notes
    assert note.startswith(
        f"{paths[0]} and 1 more: not shown to the model: 'Lecture', 'mood' (--map passage="
    )
    data = read_data(paths, mapping={"passage": "Lecture"})
    assert {record.passage for record in data.records} == {"A long text."}
    assert "'mood'" in data.notes[0] and "Lecture" not in data.notes[0]


def test_an_answer_under_an_unknown_name_is_not_dropped_in_silence(tmp_path):
    rows = [{"question": f"q{i}", "A": "x", "B": "y", "Loesung": i} for i in (1, 2)]
    data = read(tmp_path, rows)
    assert [record.answer for record in data.records] == [None, None] and "'Loesung'" in data.notes[0]
    assert data.decisions[0].startswith("no answers")
    data = read(tmp_path, rows, mapping={"answer": "Loesung"})
    assert [record.answer for record in data.records] == [0, 1] and not data.notes


FRAGE = {"Nr": 7, "Frage": "Was?", "Bild": "Ein Text.", "X": "rot", "Y": "blau", "Z": "grau", "Lsg": 3}
NESTED = {
    "doc": {"ask": "Was?", "opts": ["rot", "blau", "grau"], "meta": {"key": [3]}},
    "about": {"text": "Ein Text."},
}


@pytest.mark.parametrize("container", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("options", ["X,Y,Z", ["X", "Y", "Z"], " x , y , z "])
def test_a_mapping_reads_what_no_reader_recognises(tmp_path, container, options):
    rows = [FRAGE, {**FRAGE, "Lsg": 2}]
    with pytest.raises(InputError, match="--map question="):
        read(tmp_path, rows, container)
    mapping = {"question": "Frage", "options": options, "answer": "Lsg", "answer-base": 1, "passage": "Bild"}
    data = read(tmp_path, rows, container, strict=True, mapping=mapping)
    assert [(r.passage, r.question, r.choices, r.answer) for r in data.records] == [
        ("Ein Text.", "Was?", ("rot", "blau", "grau"), 2),
        ("Ein Text.", "Was?", ("rot", "blau", "grau"), 1),
    ]
    assert data.formats == ("mapped",)
    assert data.decisions == (
        "answers counted from 1; options from X to Z; question from Frage; passage from Bild",
    )


@pytest.mark.parametrize("container", ["jsonl", "json", "parquet"])
def test_a_mapping_by_paths(tmp_path, container):
    mapping = {
        "question": "doc.ask",
        "options": "doc.opts",
        "answer": "doc.meta.key",
        "passage": "about.text",
    }
    data = read(tmp_path, [{**NESTED, "rest": "Noch ein Text."}], container, strict=True, mapping=mapping)
    (record,), (note,) = data.records, data.notes
    assert "not shown to the model: 'rest' (" in note
    assert (record.passage, record.question, record.choices, record.answer) == (
        "Ein Text.",
        "Was?",
        ("rot", "blau", "grau"),
        2,
    )


def test_a_mapping_of_labels_and_subjects(tmp_path):
    rows = [{"q": "Was?", "t": ["rot", "blau"], "k": ["II", "I"], "right": "I", "Fach": "Kunst"}]
    mapping = {"question": "q", "options": "t", "labels": "k", "answer": "right", "subject": "Fach"}
    (record,) = read(tmp_path, rows, strict=True, mapping=mapping).records
    assert (record.choices, record.answer, record.subject) == (("rot", "blau"), 1, "Kunst")


def test_a_mapping_beside_a_known_format(tmp_path):
    rows = [{"question": "q", "choices": ["x", "y"], "answer": "A", "second": "B", "field": "law"}]
    (record,) = read(tmp_path, rows, mapping={"answer": "second", "subject": "field"}).records
    assert (record.answer, record.subject) == (1, "law")


@pytest.mark.parametrize(
    ("mapping", "told"),
    [
        ({"questoin": "q"}, "the mapping has no key 'questoin'; its keys are: question, options"),
        ({"answer-base": 2}, "answer-base must be 0, 1, label or text, got 2"),
        ({"answer-base": True}, "answer-base must be"),
        ({"answer": ["A", "B"]}, "answer must be one column's name"),
        ({"question": 3.5}, "question must be a column's name"),
        ({"question": ""}, "question must be one column's name"),
        ({"labels": "A"}, "names labels but no options"),
        (
            {"passage": "nothing"},
            "passage='nothing' is in no row; the columns are: 'question', 'A', 'B'",
        ),
    ],
)
def test_a_mapping_that_is_wrong(tmp_path, mapping, told):
    with pytest.raises(InputError) as caught:
        read(tmp_path, [ROW], mapping=mapping)
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_families_that_are_no_options(tmp_path):
    rows = [{"question": "q", "question1": "a", "question2": "b", "x1": "u", "x2": "v", "y1": "s", "y2": "t"}]
    with pytest.raises(InputError, match="no known data set has the keys"):
        read(tmp_path, rows)
    assert read(tmp_path, rows, mapping={"options": "x1,x2"}).records[0].choices == ("u", "v")
