"""`edgecal eval` and `edgecal compare` as a user runs them: what is printed where, and what is refused."""

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.prompts import write_json_lines
from support.questions import make_questions
from support.tiny_models import tiny_folder, write_tiny_llama, write_tiny_pair

QUICK = ["--bootstrap", "20", "--effect-sample", "4", "-t", "1"]
RECORDS = make_questions(30, seed=2)


@pytest.fixture(scope="module")
def models():
    folder = tiny_folder() / "cli-eval"
    folder.mkdir(exist_ok=True)
    return write_tiny_pair(folder / "base.gguf", folder / "chat.gguf", seed=5)


@pytest.fixture
def here(models, tmp_path):
    """A folder of the test's own with base.gguf, chat.gguf and data.jsonl."""
    for path in models:
        shutil.copy(path, tmp_path / path.name)
    write_json_lines(tmp_path / "data.jsonl", RECORDS)
    return tmp_path


def edgecal(here, *arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "edgecal", *map(str, arguments)],
        cwd=here,
        capture_output=True,
        timeout=120,
        text=True,
        encoding="utf-8",
        **options,
    )


def evaluate(here, *options, data="data.jsonl", **more):
    return edgecal(here, "eval", "chat.gguf", "--data", data, *QUICK, *options, **more)


def compare(here, *options, base="base.gguf"):
    quick = ["--splits", "1", "--permutations", "0", "--no-verbalized"]
    return edgecal(here, "compare", base, "chat.gguf", "--data", "data.jsonl", *QUICK, *quick, *options)


def as_json(result):
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def refused(result, code, *parts):
    assert result.returncode == code and result.stdout == "" and "Traceback" not in result.stderr
    complaint = result.stderr.splitlines()[-1]
    for part in parts:
        assert part in complaint, complaint


def test_every_form_tells_the_same_figures(here):
    told = as_json(evaluate(here, "--json", "--temperature", "2"))
    (overall, after, *_) = csv.DictReader(io.StringIO(evaluate(here, "--csv", "--temperature", "2").stdout))
    for row, state in ((overall, "before"), (after, "after")):
        assert row["state"] == state and int(row["n"]) == len(RECORDS)
        for name, interval in told["figures"][state].items():
            assert float(row[name]) == interval["value"] and float(row[f"{name}_low"]) == interval["low"]
    shown = f"{100 * told['figures']['before']['accuracy']['value']:.1f}"
    for form in ([], ["--markdown"]):
        result = evaluate(here, *form, "-q")
        assert shown in result.stdout and result.stderr == ""


def test_stdout_holds_the_result_alone(here):
    result = evaluate(here, "--json")
    assert result.stdout.count("\n") == 1 and json.loads(result.stdout)["kind"] == "eval"
    assert all(line.startswith("edgecal: ") for line in result.stderr.splitlines() if line)


def test_the_same_run_prints_the_same_bytes(here):
    write_json_lines(here / "other.jsonl", RECORDS[::-1])
    told = [
        as_json(evaluate(here, "--json", "-q", *options, data=data))
        for data, options in (("data.jsonl", []), ("data.jsonl", []), ("other.jsonl", ["-ub", "64"]))
    ]
    for result in told:
        del result["model"]["peak_memory_bytes"]
    assert told[0] == told[1]
    for name in ("figures", "subjects", "plots", "verdict"):
        assert told[0][name] == told[2][name]
    assert told[0]["data"]["sha256"] == told[2]["data"]["sha256"]


def test_rows_that_do_not_fit_are_counted_and_told(here):
    lines = (here / "data.jsonl").read_text().splitlines()
    lines[3:3] = ['{"question": "q', '{"question": "q?", "choices": ["a"], "answer": 0}', "null"]
    (here / "bad.jsonl").write_text("\n".join(lines))
    result = evaluate(here, "--json", data="bad.jsonl")
    told = as_json(result)["data"]
    assert (told["n_read"], told["n_questions"], told["n_skipped"]) == (33, 30, 3)
    assert [row["where"] for row in told["skipped"]] == [f"bad.jsonl, line {n}" for n in (4, 5, 6)]
    assert "edgecal: warning: 3 of 33 rows do not fit and were skipped: bad.jsonl, line 4" in result.stderr
    refused(
        evaluate(here, "--json", "--strict", "-q", data="bad.jsonl"), 2, "bad.jsonl, line 4: not valid JSON"
    )


@pytest.mark.parametrize("command", [evaluate, compare])
def test_questions_that_do_not_fit_the_model_are_skipped(here, command):
    long = {**RECORDS[4], "question": "Well now. " * 1000}
    write_json_lines(here / "data.jsonl", [*RECORDS[:4], long, *RECORDS[5:]])
    told = as_json(command(here, "--json", "-q"))
    (skipped,) = told["data"]["skipped"]
    assert told["data"]["n_questions"] == 29 and skipped["where"] == "data.jsonl, line 5"
    assert "more than the context" in skipped["reason"]
    refused(command(here, "--json", "-q", "--strict"), 2, "data.jsonl, line 5", "more than the context")


def test_where_no_question_fits_the_model_it_is_an_error(here):
    write_json_lines(here / "data.jsonl", [{**r, "question": "Well now. " * 1000} for r in RECORDS[:3]])
    refused(evaluate(here, "-q"), 2, "data.jsonl, line 1", "more than the context")


def test_prompting_that_only_works_as_asked_is_no_error(here):
    """The default template is too long for the model; what was asked for is not."""
    write_tiny_llama(here / "chat.gguf", seed=1, n_ctx_train=40)
    (here / "short.jinja").write_text("{{ choices | length }} {{ question[:12] }}:")
    result = evaluate(here, "--json", "--template", "short.jinja")
    told = as_json(result)
    assert [effect["name"] for effect in told["prompting"]["effects"]] == ["as asked: short.jinja"]
    assert "the effects of the prompting were not measured" in result.stderr


@pytest.mark.parametrize(
    ("options", "code", "parts"),
    [
        (["--json", "--csv"], 2, ["--json and --csv exclude each other"]),
        (["--temperature", "nan"], 2, ["temperature is nan"]),
        (["--temperature", "0"], 2, ["--temperature"]),
        (["--subject", "nothing"], 2, ["'nothing'", "birds, rivers, stones"]),
        (["--shots", "40"], 2, ["40 worked examples wanted", "there are only 9"]),
        (["--shots-from", "data.jsonl"], 2, ["--shots"]),
        (["--template", "none"], 2, ["the template is 'none', which cannot be read as a file"]),
        (["--chat-template", "none"], 2, ["the chat template is 'none', which cannot be read as a file"]),
        (["--report", "data.jsonl"], 5, ["data.jsonl", "not a report"]),
        (["--report", "chat.gguf"], 5, ["chat.gguf", "not a report"]),
        (["--report", "."], 5, [".: is a folder"]),
        (["--report", "none/x.html"], 5, ["there is no folder none"]),
    ],
)
def test_what_is_refused(here, options, code, parts):
    before = {path: path.read_bytes() for path in here.iterdir()}
    refused(evaluate(here, "-q", *options), code, *parts)
    assert {path: path.read_bytes() for path in here.iterdir()} == before


def test_chat_template_before_the_model(here):
    options = ["--data", "data.jsonl", *QUICK, "-q"]
    result = edgecal(here, "eval", "--chat-template", "chat.gguf", *options)
    refused(result, 2, "chat.gguf is a model, not a template", "--chat-template=own")
    told = as_json(edgecal(here, "eval", "--chat-template=own", "chat.gguf", *options, "--json"))
    assert told["prompting"]["chat_template"] == "the chat template of chat.gguf"


def test_subjects_and_limit(here):
    told = as_json(evaluate(here, "--json", "-q", "--subject", "BIRDS", "--limit", "4", "--seed", "7"))
    assert [(row["subject"], row["n"]) for row in told["subjects"]] == [("birds", 4)]
    assert told["data"]["limit"] == 4 and told["data"]["seed"] == 7


def test_a_report_and_pictures(here):
    result = evaluate(here, "--json", "--report", "report.html", "--temperature", "2")
    assert "report written to report.html" in result.stderr
    page = (here / "report.html").read_text("utf-8").replace("\N{NO-BREAK SPACE}", " ")
    assert as_json(result)["verdict"].split(";")[0] in page
    (here / "result.json").write_text(result.stdout)
    drawn = edgecal(here, "plot", "result.json", "--picture", "reliability", "--output", "pictures")
    assert drawn.returncode == 0 and drawn.stdout == "pictures/reliability.svg\n"
    assert (here / "pictures" / "reliability.svg").read_text("utf-8").startswith("<?xml")


def test_compare_with_a_base_of_another_depth(here):
    write_tiny_llama(here / "deep.gguf", seed=3, n_layer=6)
    told = as_json(compare(here, "--json", "-q", base="deep.gguf"))
    withheld = {row["name"]: row["withheld"] for row in told["rows"]}
    assert "6 blocks (base) and 4 blocks (chat)" in withheld["dual-align"]
    assert withheld["daca"] is None and "layers cannot be compared" in told["verdict"]


def test_standard_output_that_is_full(here):
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "edgecal", "eval", "chat.gguf", "--data", "data.jsonl", *QUICK, "-q"],
            cwd=here,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
        )
    assert result.returncode == 5 and "standard output cannot be written" in result.stderr
