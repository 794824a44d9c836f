"""Whatever is wrong with a file or a row is said in one line, with the place, and never by a traceback."""

import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import datasets as ds

from edgecal import InputError
from edgecal.data import read_data

GOOD = '{"question": "q?", "choices": ["x", "y"], "answer": 0}'
MMLU = "question,A,B,C,answer"
TABLE = f"{MMLU}\nq1,x,y,z,A\n"

OWN = {"question": "q?", "choices": ["x", "y"], "answer": 0}
ARC = {"question": "q?", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "A"}
PRO = {"question": "q", "options": ["x", "y", "N/A"], "answer": "A", "answer_index": 0}
MC1 = {"question": "q", "mc1_targets": {"x": 1, "y": 0}}
MATH = {"Problem": "p", "options": "a ) 1 , b ) 2", "correct": "a"}
RACE = {"article": "a", "question": "q", "options": ["x", "y"], "answer": "A"}
ARTICLE = {"article": "a", "questions": ["q"], "options": [["x", "y"]], "answers": ["A"]}
BBH = {"input": "q\nOptions:\n- x\n- y", "target": "x"}
MED = {"question": "q", "opa": "x", "opb": "y", "opc": "z", "opd": "u", "cop": 0}


def after(good, **changes):
    """A good row on line 1, and on line 2 the same with changes; "(gone)" takes a key away."""
    bad = {key: value for key, value in {**good, **changes}.items() if value != "(gone)"}
    return f"{json.dumps(good)}\n{json.dumps(bad)}"


def choices(*labels, text=("x", "y")):
    return {"text": list(text), "label": list(labels)}


# name: (text, the line that is at fault, part of the reason); the other rows of each file are good
BAD_ROWS = {
    "broken line": (f'{GOOD}\n{{"question": \n{GOOD}', 2, "not valid JSON"),
    "words": (f"{GOOD}\n{GOOD}\nnonsense\n", 3, "not valid JSON"),
    "first line": (f"nonsense\n{GOOD}\n{GOOD}\n", 1, "not valid JSON"),
    "two on a line": (f"{GOOD}\n{GOOD} {GOOD}\n{GOOD}", 2, "Extra data"),
    "not an object": (f"{GOOD}\n[1]\n3\n{GOOD}", 2, "expected a JSON object"),
    "key twice": (f'{GOOD}\n{{"question": "q", "question": "r", "choices": ["x", "y"]}}', 2, "twice"),
    "NaN": (after(OWN, question=float("nan")), 2, "the question is empty"),
    "huge number": (f"{GOOD}\n{GOOD.replace('0', '9' * 5000)}", 2, "5000 digits"),
    "infinite": (f"{GOOD}\n{GOOD.replace('0', '1e999')}", 2, "the answer inf is none of the 2 options"),
    "deep": (f'{GOOD}\n{{"question": {"[" * 100_000}\n{GOOD}', 2, "nested too deep"),
    "surrogate": (after(OWN, question="\ud800"), 2, "surrogate"),
    "surrogate in a subject": (after(OWN, subject="\ud800"), 2, "surrogate"),
    "null character": (f"{GOOD}\n\0{GOOD}\n{GOOD}", 2, "not valid JSON"),
    "no choices": (after(OWN, choices="(gone)"), 2, "the options must be a list"),
    "one choice": (after(OWN, choices=["x"]), 2, "2 to 26"),
    "27 choices": (after(OWN, choices=list(map(str, range(27)))), 2, "2 to 26"),
    "equal choices": (after(OWN, choices=["x", "x "]), 2, "the same"),
    "endless": (after(OWN, question="q" * 1_000_001), 2, "more than 1000000"),
    "answer outside": (after(OWN, answer=2), 2, "the answer 2 is none of the 2 options, counted from 0"),
    "element of an array": (f'[\n{GOOD},\n{GOOD},\n{{"question":\n"q"}}\n]', 4, "the options must be a list"),
    "key twice in an array": (f'[{GOOD},\n{{"question": "q", "question": "r"}}]', 2, "twice"),
    "arc: no such label": (after(ARC, answerKey="E"), 2, "none of the 2 options (labels A, B)"),
    "arc: labels missing": (after(ARC, choices=choices("A")), 2, "2 texts but 1 labels"),
    "arc: label twice": (after(ARC, choices=choices("A", "A")), 2, "same label twice"),
    "arc: choices null": (after(ARC, choices=None), 2, "no options in its text"),
    "arc: choices a number": (after(ARC, choices=3), 2, "or of objects with text and label; got 3"),
    "arc: option null": (after(ARC, choices=choices("A", "B", text=("x", None))), 2, "choice 1 is empty"),
    "csv: too few columns": (f"{TABLE}q2,x\nq3,x,y,z,B\n", 3, "has 2 columns, the header has 5"),
    "csv: too many columns": (f"{TABLE}q2,x,y,z,u,A\n", 3, "has 6 columns, the header has 5"),
    "csv: hole": (f"{TABLE}q2,x,,z,A\n", 3, "choice 1 is empty"),
    "csv: answer": (f"{TABLE}q2,x,y,z,E\n", 3, "the answer 'E' is none of the 3 options"),
    "csv: several answers": (f"{TABLE}q2,x,y,z,AB\n", 3, "several right answers"),
    "csv: unclosed quote": (f'{TABLE}"q2,x,y,z,A\nq3,x,y,z,A\n', 3, "quote that opens here"),
    "csv: unclosed before others": (f'{TABLE}"q2,x,y,z,A\nq3,"x",y,z,A\n', 3, "quote that opens here"),
    "csv: unclosed before long ones": (f'{TABLE}q2,"x,y,z,A\n"q4\nb",x,y,z,A\n', 3, "quote that opens here"),
    "csv: text after a quote": (f'{TABLE}"q" 2,x,y,z,A\nq3,x,y,z,A\n', 3, "closes before"),
    "csv: endless column": (f'{TABLE}"{"q" * 1_000_100}",x,y,z,A\nq3,x,y,z,A\n', 3, "quote that opens here"),
    "csv: null character": (f"{TABLE}q\0,x,y,z,A\n", 3, "NUL character"),
    "csv: rows after a long one": (f'{MMLU}\n"q\n\n1",x,y,z,A\nq2\n', 5, "has 1 columns"),
    "mmlu: no letter": (
        'q1,x,y,z,A\nq2,x,y,z,"ab"\nq3,x,y,z,C\n',
        2,
        "has several right answers ('ab')",
    ),
    "mmlu: width": ("q1,x,y,z,A\nq2,x,y,A\nq3,x,y,z,C\n", 2, "has 4 columns, most rows of the file have 5"),
    "csv: list": (
        'question,choices,answer\nq,"[""x"", ""y""]",0\nq,"[""x"", ""y""",0\n',
        3,
        "must be a list",
    ),
    "pro: contradiction": (after(PRO, answer_index=1), 2, "contradict"),
    "pro: not an option": (after(PRO, answer="C", answer_index=2), 2, "none of the 2 options"),
    "truthfulqa: two right": (after(MC1, mc1_targets={"x": 1, "y": 1}), 2, "one option as right, got 2"),
    "truthfulqa: option twice": (
        f'{json.dumps(MC1)}\n{{"question": "q", "mc1_targets": {{"x": 1, "x": 0}}}}',
        2,
        "twice",
    ),
    "truthfulqa: label": (after(MC1, mc1_targets={"x": 1, "y": "no"}), 2, "label of 0 or 1"),
    "truthfulqa: a list": (after(MC1, mc1_targets=[1]), 2, "must be an object"),
    "truthfulqa: too many": (after(MC1, mc1_targets={str(i): int(i == 0) for i in range(27)}), 2, "2 to 26"),
    "mathqa": (after(MATH, options="1, 2"), 2, "the options must be a list"),
    "mathqa: bracketed": (after(MATH, options="['a ) 1', 'c ) 2']"), 2, "a letter in between is missing"),
    "race": (after(RACE, options="xy"), 2, "options must be a list"),
    "race: lists": (after(ARTICLE, questions=["q", "r"]), 2, "2 questions, 1 lists"),
    "bbh": (after(BBH, input="q\nOptions:\nx\ny"), 2, "expected lines like"),
    "medmcqa": (after(MED, cop=7), 2, "none of the 4 options"),
    "line breaks in what is shown": (after(MED, opb=["a\nb\u2028"]), 2, "must be a text"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_row_is_told_and_the_others_are_read(tmp_path, name):
    text, line, reason = BAD_ROWS[name]
    path = tmp_path / "rows"
    path.write_text(text, "utf-8", newline="")
    data = read_data([path])
    assert len(data.records) > 0
    assert data.skipped[0].where == f"{path}, line {line}"
    assert reason in data.skipped[0].reason and data.skipped[0].reason.isprintable()
    # it is this row alone, or others of the same make
    assert all(f"{path}, line {line}" != record.source for record in data.records)
    with pytest.raises(InputError) as caught:
        read_data([path], strict=True)
    assert str(caught.value) == f"{path}, line {line}: {data.skipped[0].reason}"
    # alone, it makes the file useless
    assert len(str(caught.value)) < 400 + len(str(path))


def test_after_a_quote_that_never_closes_the_rest_is_read(tmp_path):
    rows = [f"q{i},x,y,z,A" for i in range(40)]
    rows[3] = '"q3,x,y,z,A'
    rows[20] = 'q20,"x",y,"z ""and"" more",A'
    path = tmp_path / "x.csv"
    path.write_text("\n".join([MMLU, *rows]))
    data = read_data([path])
    assert [row.where for row in data.skipped] == [f"{path}, line 5"]
    assert [record.question for record in data.records] == [f"q{i}" for i in range(40) if i != 3]
    assert data.records[19].choices == ("x", "y", 'z "and" more')


def test_quotes_in_tsv_are_often_just_quotes(tmp_path):
    path = tmp_path / "x.tsv"
    path.write_text('question\tA\tB\tanswer\n"Oh" he said\tx\t"y\tA\n"quoted\nquestion"\t"x"\ty\tB\n')
    data = read_data([path], strict=True)
    assert [(r.question, r.choices, r.answer) for r in data.records] == [
        ('"Oh" he said', ("x", '"y'), 0),
        ("quoted\nquestion", ("x", "y"), 1),
    ]


# name: (bytes, part of the message after the path)
BAD_FILES = {
    "empty": (b"", ": the file is empty"),
    "blank": (b" \n\t\r\n", ": the file is empty"),
    "mark": (b"\xef\xbb\xbf", ": the file is empty"),
    "utf-16": (GOOD.encode("utf-16"), ": UTF-16 or binary"),
    "utf-16 without a mark": (GOOD.encode("utf-16-le"), ": UTF-16 or binary"),
    "latin-1": (
        GOOD.encode() + b'\n{"question": "caf\xe9"}',
        ", line 2: not UTF-8 text (byte 18 of the line is 0xe9)",
    ),
    "latin-1 after a mark": (b"\xef\xbb\xbfq\xe9", ", line 1: not UTF-8 text (byte 5 of the line is 0xe9)"),
    "words": (b"Just some words.\nAnd more.\n", ", line 1: neither JSON nor a table of questions"),
    "other columns": (b"name,age\nx,3\n", ": no known data set has the columns 'name', 'age'"),
    "one column": (b"question\nq1\nq2\n", "1 column(s): 'question'"),
    "header with unknown options": (
        b"question,foo,bar\nq,1,2\n",
        "no known data set has the columns 'question', 'foo', 'bar'",
    ),
    "header alone": (b"question,A,B,answer\n", ": holds no rows"),
    "column twice": (b"question,A,B,a,answer\nq,x,y,z,A\n", ", line 1: the column 'a' is there twice"),
    "header with a quote": (b'question,"A,B,answer\nq,x,y,A\n', ", line 1: "),
    "other keys": (
        b'{"name": "x", "age": 3}',
        ": no known data set has the keys 'name', 'age'; rename them to question, choices",
    ),
    "no keys": (b"[{}]", "no known data set has the keys (none)"),
    "empty array": (b"[\n]", ": holds no rows"),
    "empty wrapper": (b'{"data": []}', ": holds no rows"),
    "array of numbers": (b"[\n1, 2]", ", line 2: expected a JSON object"),
    "unfinished": (b'[\n{"question": "q", "choices": ["x", "y"]},\n{"question"', ", line 3: not valid JSON"),
    "no comma": (f"[{GOOD}\n{GOOD}]".encode(), ", line 2: not valid JSON (a comma or ] is missing)"),
    "comma at the end": (f"[{GOOD},\n]".encode(), ", line 2: not valid JSON"),
    "text after the array": (f"[{GOOD}]\n\nmore".encode(), ", line 3: not valid JSON (more text after"),
    "one long broken line": (b'{"question": "q", "choices": ["x"', ", line 1: not valid JSON"),
    "deep": (b"[" * 200_000, ", line 1: not valid JSON (nested too deep)"),
    "deep object": (b'{"a":' * 200_000, ", line 1: not valid JSON (nested too deep)"),
    "gzip": (b"\x1f\x8b\x08\x00", ": a broken gzip file (Truncated compressed stream)"),
    "zip": (b"PK\x03\x04aaaa", ": it is a ZIP archive"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\n", ": it is a Git LFS pointer, not the data"),
    "gguf": (b"GGUF\x03\x00\x00\x00", ": it is a GGUF model"),
    "parquet cut short": (b"PAR1" + b"\0" * 20, ": not a valid Parquet file"),
    "parquet alone": (b"PAR1", ": not a valid Parquet file"),
    "all rows bad": (
        b'{"question": "q", "choices": ["x"]}\n' * 3,
        ', line 1: "choices" must hold 2 to 26 items, got 1 (0 of 3 rows',
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ""])
def test_a_file_that_cannot_be_understood(tmp_path, name, suffix):
    content, message = BAD_FILES[name]
    path = tmp_path / f"file{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_data([path])
    assert str(caught.value).startswith(str(path)) and message in str(caught.value)
    assert str(caught.value).isprintable()


def test_paths_that_lead_nowhere(tmp_path):
    for path, message in (
        (tmp_path / "none.csv", "no such file"),
        ("a\0b", "cannot be read"),
        (tmp_path, "the folder holds no data files"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            read_data([path])
        assert str(caught.value).isprintable()
    with pytest.raises(InputError, match="no data: expected at least one"):
        read_data([])
    with pytest.raises(InputError, match="unknown data format 'mnlu'; the formats are: edgecal, mmlu"):
        read_data([tmp_path], format="mnlu")


def test_a_row_of_another_format_is_refused_not_guessed(tmp_path):
    path = ds.write_json_lines(tmp_path / "x.jsonl", [*ds.arc_rows(), *ds.mathqa_rows()[:1]])
    data = read_data([path])
    assert len(data.records) == 5 and data.skipped[0].where == f"{path}, line 6"
    with pytest.raises(InputError, match="none of its first rows is of the format medmcqa"):
        read_data([ds.write_json_lines(tmp_path / "y.jsonl", ds.arc_rows())], format="medmcqa")
    headless = ds.write_cells(tmp_path / "x.csv", [["q?", "x", "y", "A"]])
    with pytest.raises(InputError, match="line 1: the file has no header"):
        read_data([headless], format="arc")


def test_parquet_of_other_types(tmp_path):
    table = pa.table({"question": [b"\xff", b"q"], "A": [1, 2], "B": [2.5, 3.0], "answer": [None, "A"]})
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(InputError, match=r"row 1: the question must be a text, got b'.xff'"):
        read_data([tmp_path / "x.parquet"], strict=True)
    assert read_data([tmp_path / "x.parquet"]).records[0].question == "q"
    table = pa.table({"question": ["p", "q"], "A": [1, 7], "B": [2.5, 3.0], "answer": [float("nan"), 2.0]})
    pq.write_table(table, tmp_path / "x.parquet")
    data = read_data([tmp_path / "x.parquet"])
    assert [(r.choices, r.answer) for r in data.records] == [(("1", "2.5"), None), (("7", "3.0"), 1)]


SEEDS = {
    **{
        f"{shape}.{suffix}": (rows, suffix)
        for suffix in ("jsonl", "json", "csv", "tsv", "parquet")
        for shape, rows in {
            "edgecal": ds.edgecal_rows,
            "pro": ds.mmlu_pro_rows,
            "arc": ds.arc_rows,
            "medmcqa": ds.medmcqa_rows,
            "mathqa": ds.mathqa_rows,
            "truthfulqa": ds.truthfulqa_mc_rows,
            "agieval": ds.agieval_rows,
            "bbh": ds.bbh_rows,
            "race": ds.race_rows,
        }.items()
    },
    "nested.json": (ds.nested_rows, "json"),
    "race.txt": (lambda: [ds.race_original()], "json"),
}


@pytest.mark.parametrize("name", SEEDS)
def test_damaged_files_raise_nothing_else(tmp_path, name):
    rows, suffix = SEEDS[name]
    path = tmp_path / name
    ds.CONTAINERS[suffix](path, rows())
    original = path.read_bytes()
    rng = random.Random(name)
    places = f"{path}, {'row' if suffix == 'parquet' else 'line'} "
    read = refused = 0
    for _ in range(60):
        path.write_bytes(_damage(bytearray(original), rng))
        try:
            data = read_data([path])
        except InputError as error:
            refused += 1
            assert str(error).startswith(str(path)) and str(error).isprintable()
        else:
            read += 1
            assert all(row.where.startswith(places) and row.reason.isprintable() for row in data.skipped)
    assert read + refused == 60 and refused > 0


def _damage(data, rng):
    for _ in range(rng.choice([1, 1, 2, 5])):
        if not data:
            break
        at = rng.randrange(len(data))
        match rng.randrange(7):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                data[at : at + rng.randrange(1, 20)] = b""
            case 2:
                del data[at:]
            case 3:
                data[at:at] = rng.choice(
                    [b'"', b"\n", b",", b"\0", b"\xff", b"[" * 3000, b"{", b"}", b"]", b"\\ud800"]
                )
            case 4:
                data[at:at] = data[rng.randrange(len(data)) :][:50]
            case 5:
                data[at] ^= 1 << rng.randrange(8)
            case 6:
                data[at : at + 1] = rng.choice(
                    [b"null", b"1e999", b"NaN", b"9" * 5000, b"[]", b"''", b"array("]
                )
    return bytes(data)


@pytest.mark.parametrize("container", ["jsonl", "csv"])
def test_subjects_are_names_or_none(tmp_path, container):
    subjects = [" law ", "", "  ", "x" * 200, "x" * 201]
    rows = [{"question": "q?", "choices": ["a", "b"], "answer": 0, "subject": s} for s in subjects]
    write = ds.write_json_lines if container == "jsonl" else ds.write_delimited
    data = read_data([write(tmp_path / f"x.{container}", rows)])
    assert [record.subject for record in data.records] == ["law", None, None, "x" * 200]
    assert "the subject has 201 characters" in data.skipped[0].reason
