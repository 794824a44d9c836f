"""Real question files, read as a plain reader of the format would read them: every row, no answer guessed."""

import csv
import json

import pytest
from support.real_runs import edgecal

FILES = ["arc-challenge-test.jsonl", "arc-easy-test.jsonl", "openbookqa-test.jsonl", "boolq-test.jsonl"]
FILES += ["tasks-cal.jsonl"]


def read(*arguments, **options):
    lines = edgecal("questions", *arguments, "--json", **options).stdout.splitlines()
    return [json.loads(line) for line in lines]


def test_mmlu_as_csv_with_columns_from_choice0(real_data):
    """The layout of which 10,276 of 10,281 rows once had a wrong answer."""
    expected = []
    for path in sorted((real_data / "mmlu/test").glob("*.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            expected += [
                {
                    "question": row["question"].strip(),
                    "choices": [row[f"choice{number}"].strip() for number in range(4)],
                    "answer": int(row["answer"]),
                    "subject": path.stem.removesuffix("_test"),
                }
                for row in csv.DictReader(file)
            ]
    found = read(real_data / "mmlu/test")
    assert found == expected and len(found) > 1700
    said = edgecal("questions", real_data / "mmlu/test", "--limit", 1).stdout
    assert "answers counted from 0" in said and "choice0 to choice3" in said


@pytest.mark.parametrize("name", FILES)
def test_our_own_form_comes_back_as_it_is(real_data, name, tmp_path):
    expected = [json.loads(line) for line in (real_data / name).read_text("utf-8").splitlines()]
    found = read(real_data / name)
    assert found == expected
    again = tmp_path / "again.jsonl"
    again.write_text("\n".join(map(json.dumps, found)), encoding="utf-8")
    assert read(again) == found
