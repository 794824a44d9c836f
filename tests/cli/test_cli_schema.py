"""`edgecal schema`, and every command's --json held to it: no key that it does not name, none that it lacks."""

import json
import subprocess
import sys

import click
import numpy as np
import pytest
from jsonschema import Draft202012Validator, ValidationError
from support.calibrated import BASE, CHAT, MODELS, TEMPERATURE, bake, stamp
from support.prompts import write_json_lines
from support.questions import make_questions
from support.tiny_models import tiny_folder, write_tiny_pair

import edgecal
from edgecal.cache import CaptureCache
from edgecal.cli.commands import cli
from edgecal.evaluation.splits import make_splits
from edgecal.metrics import FIGURES, compute_ece, softmax_probs
from edgecal.results.schema import PRINTED, make_schema

DEV = MODELS / "questions/dev.jsonl"
WHOLE = make_schema()
QUICK = ("--json", "-q", "-t", "1")


def holds(command, value):
    """The value is what the command's schema says, and what the schema of all commands says of that command."""
    Draft202012Validator(make_schema(command)).validate(value)
    Draft202012Validator(WHOLE | {"anyOf": [{"$ref": f"#/$defs/edgecal {command}"}]}).validate(value)


@pytest.fixture
def printed(run):
    """Runs a command; what it printed, held to the schema of the command."""

    def printed_by(command, *arguments, code=0):
        done = run(command, *arguments)
        assert done.code == code, done.err
        value = json.loads(done.out)
        holds(command, value)
        return value

    return printed_by


@pytest.fixture(scope="module")
def stamped(tmp_path_factory):
    facts = {"interval": (3.6, 4.0), "bracket": (1.5, None), "settled": False, "reasons": ("too wide",)}
    return stamp(tmp_path_factory.mktemp("schema") / "stamped.gguf", **facts)


@pytest.fixture(scope="module")
def pair():
    folder = tiny_folder() / "schema"
    folder.mkdir()
    return write_tiny_pair(folder / "base.gguf", folder / "chat.gguf", seed=5, perturbation=0.3)


@pytest.fixture
def data(tmp_path):
    return write_json_lines(tmp_path / "data.jsonl", make_questions(60, seed=2, n_choices=(2, 4)))


def test_every_command_with_json_has_a_schema():
    context = click.Context(cli)
    commands = {name: cli.get_command(context, name) for name in cli.list_commands(context)}
    with_json = {
        name
        for name, command in commands.items()
        if any("--json" in option.opts for option in command.params)
    }
    assert with_json | {"decide", "export"} == set(PRINTED)


@pytest.mark.parametrize("name", [None, *PRINTED])
def test_a_schema_is_one_closed_and_explains_every_key(name):
    schema = make_schema(name)
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    shapes = {name: shape for name, shape in schema["$defs"].items() if "properties" in shape}
    assert shapes
    for where, shape in shapes.items():
        assert shape["additionalProperties"] is False, where
        assert shape["description"], where
        for key, value in shape["properties"].items():
            assert value.get("description"), f"{where}.{key}"


def test_the_same_bytes_in_another_process(run):
    for arguments in ((), ("compare",)):
        code = "import sys; from edgecal.cli import main; main(['schema', *sys.argv[1:]])"
        made = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
        )
        done = run("schema", *arguments)
        assert (done.code, done.err, made.stderr) == (0, "", "")
        assert done.out == made.stdout and json.loads(done.out) == make_schema(*arguments)


def test_a_command_without_json_is_refused(run):
    done = run("schema", "plot")
    assert done.code == 2 and "expected one of ask, bake" in done.err


def test_a_key_that_is_not_named_is_refused():
    cleared = {"folder": None, "files": 0, "freed_bytes": 0}
    holds("cache", cleared)
    for wrong in (cleared | {"more": 1}, {"folder": None, "files": 0}, cleared | {"files": -1}):
        with pytest.raises(ValidationError):
            holds("cache", wrong)


def test_fit(printed, pair, data, tmp_path):
    output = tmp_path / "out.gguf"
    options = ("--data", DEV, "--limit", "110", "--bootstrap", "40", *QUICK)
    value = printed("fit", BASE, CHAT, *options, "-o", output)
    assert value["adaptive"] and value["label_check"] and value["lens"]
    printed("stamp", CHAT, "--from", _saved(value, tmp_path), "-o", tmp_path / "again.gguf", "--json", "-q")
    planned = printed("fit", *pair, "--data", data, *QUICK, "--plan")
    assert list(planned["models"]) == ["base", "chat"]


def _saved(value, folder):
    path = folder / "fit.json"
    path.write_text(json.dumps(value), "utf-8")
    return path


def test_a_fit_that_is_refused_and_one_without_layers(printed, pair, data):
    options = ("--data", data, "--bootstrap", "40", "--dry-run", "--all", *QUICK)
    refused = printed("fit", *pair, *options, "--method", "naive", code=4)
    assert refused["reasons"] and refused["adaptive"] is None and refused["pdl_histogram"] is None


def test_project(printed, pair, data, tmp_path):
    output = tmp_path / "chat.basecal.gguf"
    options = ("--data", data, "--bootstrap", "40", *QUICK, "-o", output)
    refused = printed("project", *pair, *options, code=4)
    assert refused["reasons"] and refused["output"] is None and not output.exists()
    written = printed("project", *pair, *options, "--unsettled")
    assert written["output"] == str(output) and written["n_bytes"] == output.stat().st_size
    question = ("Which of them?", "-c", "this", "-c", "that", "-c", "another")
    answer = printed("ask", pair[1], *question, "--basecal", output, *QUICK)["answer"]
    assert 0 < answer["base_confidence"] < 1
    assert printed("ask", pair[1], *question, *QUICK)["answer"] == answer | {"base_confidence": None}


@pytest.mark.parametrize("options", [(), ("--temperature", "2", "--shots", "1")])
def test_eval(printed, pair, data, options):
    value = printed("eval", pair[1], "--data", data, "--bootstrap", "20", *QUICK, *options)
    assert (value["figures"]["after"] is None) == (not options)
    names = [figure.name for figure in FIGURES]
    for figures in [value["figures"]["before"], *(row["before"] for row in value["subjects"])]:
        assert list(figures) == names


def test_compare(printed, pair, data):
    options = (
        "--splits",
        "1",
        "--bootstrap",
        "20",
        "--fit-share",
        "0.6",
        "--permutations",
        "2",
        "--method",
        "naive",
    )
    value = printed(
        "compare", *pair, "--data", data, *options, *QUICK, "--shots", "1", "--effect-sample", "4"
    )
    assert value["headline"] and value["extra_runs"]["cape"] and value["extra_runs"]["effects"]
    assert all(value["ablations"].values())


def test_compare_re_evaluates_the_bundled_pairs_answers(printed):
    """The row is in what is printed, and is the base model's probability of the chat model's choice."""
    options = (
        "--limit",
        "80",
        "--splits",
        "2",
        "--bootstrap",
        "20",
        "--permutations",
        "0",
        "--no-verbalized",
    )
    value = printed("compare", BASE, CHAT, "--data", DEV, *options, "--method", "daca", *QUICK)
    (row,) = (row for row in value["rows"] if row["name"] == "basecal-reeval")
    assert row["withheld"] is None and row["figures"]["nll"]["values"] == [None, None]
    (proj,) = (row for row in value["rows"] if row["name"] == "basecal-proj")
    assert proj["withheld"].endswith("at least 30 questions to fit on, got 24")
    asked = edgecal.load_prompts(DEV, limit=80)
    run_options = edgecal.RunOptions(settings=edgecal.CaptureSettings(n_threads=1))
    logits = edgecal.capture(BASE, CHAT, asked, layers=False, run=run_options).logits
    for split, ece in zip(make_splits(80, [0, 1]), row["figures"]["ece"]["values"], strict=True):
        part = logits.take(split.judge)
        answers = part.chat_final.argmax(axis=1)
        sure = softmax_probs(part.base_final, part.n_choices)[np.arange(len(answers)), answers]
        assert ece == pytest.approx(compute_ece(sure, answers == part.labels), abs=1e-12)


def test_doctor(printed, here):
    assert printed("doctor", CHAT, "--json")["lens_rms"] is None
    assert printed("doctor", CHAT, "--run", *QUICK)["lens_rms"] is not None
    assert printed("doctor", "m.gguf", "--json", code=2)["reason"]


def test_questions(run, tmp_path):
    lines = [
        {"question": "q", "choices": ["a", "b"], "passage": "p", "answer": 1, "subject": "s"},
        {"question": "q2", "choices": ["a", "b"]},
        {"prompt": "p", "labels": [" A", " B"], "answer": 0},
        {"tokens": [1, 2], "choice_tokens": [3, 4], "subject": "s"},
    ]
    done = run("questions", write_json_lines(tmp_path / "q.jsonl", lines), "--json", "-q")
    assert done.code == 0
    printed_lines = [json.loads(line) for line in done.out.splitlines()]
    assert printed_lines == lines
    for line in printed_lines:
        holds("questions", line)


def test_files(printed, stamped, tmp_path):
    printed("show", CHAT, "--json")
    assert printed("show", stamped, "--json")["calibration"]["edgecal.bracket"][1] is None
    printed("ask", stamped, "Which?", "-c", "this", "-c", "that", "--min-confidence", "0.9", *QUICK)
    assert printed("diff", CHAT, stamped, "--json", code=1)["keys"]
    out = tmp_path / "out.gguf"
    assert printed("stamp", CHAT, "--temperature", "2", "-o", out, "--json", "-q")["temperature"] == 2
    assert printed("set", out, "general.name", "string", "x", "--in-place", "--json", "-q")["in_place"]
    assert printed("unset", out, "general.name", "--in-place", "--json", "-q")["keys"]
    assert printed("strip", out, "-o", tmp_path / "stripped.gguf", "--json", "-q", "--verify")["verified"]
    printed("bake", stamped, "-o", tmp_path / "baked.gguf", "--json", "-t", "1")
    assert printed("diff", CHAT, tmp_path / "baked.gguf", "--json", code=1)["tensors"]
    assert printed("unbake", tmp_path / "baked.gguf", "-o", tmp_path / "back.gguf", "--json")["exact"]


def test_export(printed, stamped, tmp_path):
    assert printed("export", stamped, "--to", "json")["fit"]["interval"] is not None
    baked = bake(tmp_path / "baked.gguf")
    assert printed("export", baked, "--to", "json")["temperature"] == pytest.approx(TEMPERATURE)


def test_cache(printed, tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("EDGECAL_CACHE_DIR", str(folder))
    assert printed("cache", "--json")["stores"] == []
    with CaptureCache(folder, {"model": "abc", "n_ubatch": 512, "exact": True}) as cache:
        cache.write([(b"key", {"a": np.zeros(10, np.float32)})])
    (folder / "captures-broken.sqlite").write_bytes(b"no store")
    assert printed("cache", "--json")["stores"][0]["context"]["exact"] is True
    assert printed("cache", "clear", "--json")["files"] > 0
