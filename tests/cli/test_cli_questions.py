"""`edgecal questions`: it shows how files are read, and what it prints is read as the same questions again."""

import io
import json
import re
import sys

import pytest
from support import datasets as ds
from support.data_formats import FLAT
from support.datasets import CONTAINERS

import edgecal
from edgecal import QuestionOptions
from edgecal.cli import main
from edgecal.data import FORMATS, read_data
from edgecal.prompts import describe_record

PROMPTS = [
    {"prompt": "Say: ", "labels": [" 1", " -1", " 0"], "answer": 1, "subject": "s"},
    {"prompt": "Is it?\n\n", "labels": [" yes", " no"]},
    {"tokens": [1, 5], "choice_tokens": [7, 9], "answer": 0},
]
CSV = (
    "Stem,Foo,Bar,Baz,Key,Ctx,Area\nWhat?,x,y,z,2,once,tea\nWho?,u,v,w,3,twice,rope\nWhy?,p,q,r,1,more,tea\n"
)
MAP = ["--map", "question=Stem,options=Foo+Bar+Baz,answer=Key,passage=Ctx", "--map", "subject=Area"]


@pytest.fixture
def run(capsys, monkeypatch):
    """Runs the command; gives the exit code, stdout and stderr."""

    def run(*arguments, stdin=None):
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        with pytest.raises(SystemExit) as ended:
            main(["questions", *map(str, arguments)])
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    return run


def without_source(records):
    return [describe_record(record) for record in records]


@pytest.mark.parametrize("container", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("shape", [*FLAT, "prompts"])
def test_what_it_prints_is_read_as_the_same_questions(tmp_path, run, shape, container):
    rows = PROMPTS if shape == "prompts" else FLAT[shape][1]()
    path = CONTAINERS[container](tmp_path / "in", rows)
    read = read_data([path], strict=True).records
    code, out, err = run(path, "--json", "--strict")
    assert (
        code == 0
        and out.count("\n") == len(read)
        and all(line.startswith("edgecal: ") for line in err.splitlines())
    )
    assert [json.loads(line) for line in out.splitlines()] == without_source(read)
    (tmp_path / "out.jsonl").write_text(out)
    again = read_data([tmp_path / "out.jsonl"], strict=True)
    assert without_source(again.records) == without_source(read)
    assert set(again.formats) == {"edgecal"}
    assert run("-", "--json", "-q", stdin=out) == (0, out, "")


@pytest.mark.parametrize("answers", [[1, 2, 1], [1, 1, 2], [2, 2, 2], [None, 1, None], [0, 0, 0]])
@pytest.mark.parametrize("choices", [["1", "2", "3"], ["B", "C", "A"], ["0", "1", "2"], ["x", "y", "z"]])
def test_no_answer_that_it_prints_has_two_readings(tmp_path, run, answers, choices):
    rows = [{"question": f"q{n}", "choices": choices, "answer": a} for n, a in enumerate(answers)]
    rows = [{key: value for key, value in row.items() if value is not None} for row in rows]
    path = ds.write_json_lines(tmp_path / "x.jsonl", rows)
    result = edgecal.read_questions(rows)
    assert result.questions == rows
    assert [json.loads(line) for line in run(path, "--json")[1].splitlines()] == rows


def test_it_shows_what_was_decided_and_what_a_model_sees(tmp_path, run):
    columns = ["context", "question", "choice0", "choice1", "answer", "subject"]
    rows = [
        dict(zip(columns, (f"Text {n}.", f"q{n}?", "x", f"y{n}", n % 2, "s"), strict=True)) for n in range(5)
    ]
    path = ds.write_delimited(tmp_path / "q.csv", rows)
    code, out, err = run(path)
    assert code == 0 and err == ""
    assert "answers counted from 0; options from choice0 to choice1; passage from context" in out
    assert f"{path}, line 2 (s)\n    Answer the following" in out
    assert "    Text 0.\n\n    q0?\n    A: x\n    B: y0\n    Answer:\n    [right: A]\n" in out
    assert "q2?" in out and "q3?" not in out
    shown = run(path, "--limit", "4", "--template", "brief")[1]
    assert sum(f"q{n}? A) x; B) y{n}" in shown for n in range(5)) == 4


def test_ready_made_prompts_are_shown_with_their_labels(tmp_path, run):
    path = ds.write_json_lines(tmp_path / "x.jsonl", PROMPTS)
    _, out, _ = run(path)
    assert "    Say: \n    [' 1', ' -1', ' 0'; right: ' -1']" in out
    assert "    [' yes', ' no'; no answer]" in out
    assert "    tokens 1 5\n    [7, 9; right: 7]" in out


def test_columns_by_name(tmp_path, run):
    path = tmp_path / "x.csv"
    path.write_text(CSV)
    code, _, err = run(path)
    assert code == 2 and "no known data set has the columns 'Stem', 'Foo'" in err
    wanted = [
        {"passage": "once", "question": "What?", "choices": ["x", "y", "z"], "answer": 1, "subject": "tea"},
        {"passage": "twice", "question": "Who?", "choices": ["u", "v", "w"], "answer": 2, "subject": "rope"},
        {"passage": "more", "question": "Why?", "choices": ["p", "q", "r"], "answer": 0, "subject": "tea"},
    ]
    code, out, err = run(path, "--json", *MAP)
    assert code == 0 and [json.loads(line) for line in out.splitlines()] == wanted
    assert "decided: answers counted from 1; options from Foo to Baz" in err
    columns = {
        "question": "Stem",
        "options": ["Foo", "Bar", "Baz"],
        "answer": "Key",
        "passage": "Ctx",
        "subject": "Area",
    }
    parts = [
        (key, name)
        for key, names in columns.items()
        for name in ([names] if isinstance(names, str) else names)
    ]
    one_by_one = [f"--map={key}={name}" for key, name in parts]
    assert run(path, "--json", *one_by_one)[1] == out
    assert [
        json.loads(line) for line in run(path, "--json", *MAP, "--subject", "rope")[1].splitlines()
    ] == wanted[1:2]
    again = edgecal.read_questions(path, questions=QuestionOptions(mapping=columns | {"answer-base": 1}))
    assert again.questions == wanted and again.sources[0] == f"{path}, line 2"
    path.write_text(CSV.partition("\n")[2])
    numbered = "question=1,options=2+3+4,answer=5,passage=6,subject=7"
    assert run(path, "--json", "--map", numbered)[1] == out
    assert run(path, "--json", "--map", f"{numbered},answer-base=1")[1] == out
    code, out, err = run(path, "--json", "--map", f"{numbered},answer-base=0")
    assert (code, out.count("\n")) == (0, 2) and "line 2: " in err


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("question", "expected KEY=COLUMN, got 'question'"),
        ("question=", "expected KEY=COLUMN"),
        ("stem=Stem", "the mapping has no key 'stem'; its keys are: question, options"),
        (
            "question=Steem,options=Foo+Bar",
            "question='Steem' is in no row; the columns are: 'Stem'",
        ),
        ("question=Stem,options=Foo+Bar,answer-base=2", "answer-base must be 0, 1, label or text"),
        ("question=Stem+Ctx,options=Foo+Bar", "the mapping's question must be"),
    ],
)
def test_a_map_that_does_not_fit(tmp_path, run, value, complaint):
    (tmp_path / "x.csv").write_text(CSV)
    code, out, err = run(tmp_path / "x.csv", "--map", value)
    assert (code, out) == (2, "") and complaint in err and "Traceback" not in err


def test_rows_that_do_not_fit_are_told_and_never_refuse_the_file(tmp_path, run):
    path = ds.write_json_lines(
        tmp_path / "x.jsonl", [{"question": "q", "choices": ["x"]}, *ds.edgecal_rows()[:2]]
    )
    code, out, err = run(path, "--json")
    assert code == 0 and out.count("\n") == 2
    assert f"edgecal: skipped: {path}, line 1: " in err and "more than a fifth of the rows do not fit" in err
    assert run(path, "--json", "-q") == (0, out, "")
    code, out, err = run(path, "--strict")
    assert (code, out) == (2, "") and err.startswith(f"edgecal: {path}, line 1: ")
    code, out, err = run(tmp_path / "none.csv")
    assert (code, out) == (2, "") and "no such file" in err


def test_the_formats_of_the_command_line_are_those_that_are_read(run, tmp_path):
    path = ds.write_json_lines(tmp_path / "x.jsonl", ds.edgecal_rows())
    assert run(path, "--format", "edgecal")[0] == 0
    _, _, err = run(path, "--format", "nonsense")
    assert tuple(re.findall(r"'(\w+)'", err.partition("is not one of")[2])) == FORMATS


def test_the_table_names_files_format_rows_and_what_was_drawn(tmp_path, run):
    rows = [*ds.edgecal_rows(), {"question": "q", "choices": ["x"]}]
    one = ds.write_json_lines(tmp_path / "one.jsonl", rows)
    two = ds.write_json_lines(tmp_path / "two.jsonl", ds.edgecal_rows())
    code, out, _ = run(one, two, "--limit", "2")
    assert code == 0 and f"{one}, {two}" in " ".join(out.split())
    assert "format" in out and "edgecal" in out
    assert "11, 1 do not fit, 2 questions drawn" in out
    assert run(one, two, "--json", "-q")[1].count("\n") == 10
