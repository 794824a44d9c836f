"""`edgecal ask` from a shell: the table, the JSON, abstention, and what is refused."""

import json
import subprocess
import sys

import pytest
from support.calibrated import CHAT, MODELS, TEMPERATURE, bake, stamp

from edgecal.runtime import load

RECORD = json.loads((MODELS / "questions/dev.jsonl").read_text("utf-8").splitlines()[0])
OPTIONS = [word for choice in RECORD["choices"] for word in ("-c", choice)]


def ask(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "edgecal", "ask", *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )


@pytest.fixture(scope="module")
def stamped(tmp_path_factory):
    return stamp(tmp_path_factory.mktemp("ask") / "stamped.gguf")


def test_the_json_is_what_the_model_answers(stamped):
    result = ask(stamped, RECORD["question"], *OPTIONS, "--json")
    assert (result.returncode, result.stderr) == (0, "")
    said = json.loads(result.stdout)
    with load(stamped) as model:
        assert said["answer"] == model.choose(RECORD["question"], RECORD["choices"]).to_dict()
    assert said["calibration"] == {
        "kind": "stamped",
        "temperature": pytest.approx(TEMPERATURE),
        "divisor": pytest.approx(TEMPERATURE),
        "doubts": [],
    }
    assert (said["model"], said["question"], said["choices"]) == (
        str(stamped),
        RECORD["question"],
        RECORD["choices"],
    )


def test_the_table(stamped):
    result = ask(stamped, RECORD["question"], *OPTIONS)
    assert (result.returncode, result.stderr) == (0, "")
    with load(stamped) as model:
        answer = model.choose(RECORD["question"], RECORD["choices"])
    lines = result.stdout.splitlines()
    assert lines[0].split(maxsplit=1) == ["answer", f"{answer.label}: {answer.text}"]
    assert lines[1].split() == ["confidence", f"{answer.confidence:.1%}"]
    for line, label, prob, choice in zip(
        lines[2:], "ABCDEFGH", answer.probs, RECORD["choices"], strict=False
    ):
        words = line.removeprefix("options").split()
        assert words[:2] == [label, f"{prob:.1%}"] and line.endswith(choice)
    assert lines[-1].startswith("calibration") and "divided by the file's temperature, 3.843" in lines[-1]


def test_baked_and_plain_say_so(stamped, tmp_path):
    baked = bake(tmp_path / "baked.gguf", source=stamped, temperature=None)
    said = {}
    for path in (baked, stamped, CHAT):
        result = ask(path, RECORD["question"], *OPTIONS)
        assert result.stderr == ""
        said[path] = result.stdout.splitlines()[-1]
    assert "baked into the weights, so logits are taken as they are" in said[baked]
    assert "holds no calibration" in said[CHAT] and "edgecal fit" in said[CHAT]


def test_abstaining_is_no_failure(stamped):
    result = ask(stamped, RECORD["question"], *OPTIONS, "--min-confidence", "0.9999")
    assert result.returncode == 0
    assert result.stdout.splitlines()[0].startswith("answer       none: less sure than 100.0%")
    said = json.loads(ask(stamped, RECORD["question"], *OPTIONS, "--min-confidence", "1", "--json").stdout)
    assert said["answer"]["abstained"] and said["answer"]["min_confidence"] == 1.0


def test_a_model_that_would_rather_say_something_else_is_told_of(stamped, tmp_path):
    (tmp_path / "odd.jinja").write_text("{{ question }} {{ choices | length }}\n", encoding="utf-8")
    result = ask(stamped, RECORD["question"], *OPTIONS, "--template", tmp_path / "odd.jinja")
    assert result.returncode == 0
    assert "warning: only" in result.stderr and "--template" in result.stderr
    quiet = ask(stamped, RECORD["question"], *OPTIONS, "--template", tmp_path / "odd.jinja", "-q")
    assert quiet.stderr == "" and quiet.stdout == result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["none.gguf", "Which?", "-c", "a", "-c", "b"], 2, "no such file"),
        ([CHAT, "Which?", "-c", "a"], 2, "2 to 26"),
        ([CHAT, "Which?"], 2, "--choice"),
        ([CHAT, " ", "-c", "a", "-c", "b"], 2, "non-empty text"),
        ([CHAT, "Which?", "-c", "a", "-c", "b", "--template", "nowhere"], 2, "the template is 'nowhere'"),
        ([CHAT, "Which?", "-c", "a", "-c", "b", "--chat-template"], 2, "no chat template"),
        (["--chat-template", CHAT, "Which?", "-c", "a", "-c", "b"], 2, "is a model, not a template"),
        ([CHAT, "Which?", "-c", "a", "-c", "b", "--min-confidence", "2"], 2, "min-confidence"),
    ],
)
def test_what_is_refused(arguments, code, told):
    result = ask(*arguments)
    assert result.returncode == code, result.stderr
    assert result.stdout == "" and told in result.stderr and "Traceback" not in result.stderr


def test_an_abort_of_llama_cpp_is_one_line(tmp_path):
    """The vocabulary claims a type that llama.cpp aborts on; the process that runs it is not the command's."""
    from edgecal.gguf.header import read_header
    from edgecal.gguf.rewrite import write_edited
    from edgecal.gguf.values import Value

    broken = tmp_path / "broken.gguf"
    write_edited(
        read_header(CHAT),
        broken,
        changes={"tokenizer.ggml.model": Value.string("no-such-tokenizer")},
        remove=frozenset(),
    )
    result = ask(broken, "Which?", "-c", "a", "-c", "b")
    assert result.returncode == 3
    assert len(result.stderr.splitlines()) == 1 and "broken.gguf" in result.stderr
