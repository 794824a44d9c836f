"""`edgecal decide` from a shell: what a file, a list and a pipe give, what a bad request costs, what is refused."""

import json
import subprocess
import sys
import threading
import time
import tracemalloc

import pytest
from jsonschema import Draft202012Validator
from support.calibrated import CHAT
from support.decision_requests import REQUEST, one_question
from support.edits import refused

from edgecal.decisions import parse_request
from edgecal.results.schema import make_schema
from edgecal.runtime import load, request_lines
from edgecal.runtime.request_lines import read_batches

NOUL = {"type": "noul", "instructions": "Is the ball red?"}
QUICK = ("-t", "1")


def body(at):
    return {
        "state": f"The ball is red in world {at % 3}.",
        "questions": {"q": NOUL, "n": {"type": "noul"} | NOUL},
    }


def bodies(n):
    return [body(at) for at in range(n)]


def write_lines(path, values):
    lines = [value if isinstance(value, str) else json.dumps(value) for value in values]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def without_cost(response):
    return {name: value for name, value in response.items() if name != "x_tokens_computed"}


def expected(requests, **options):
    with load(CHAT, n_threads=1, n_threads_batch=1) as model:
        return [
            without_cost(
                model.decide(one["state"], one["questions"], **options).to_dict()
                | {"model": one.get("model")}
            )
            for one in requests
        ]


@pytest.fixture
def decide(run):
    """Runs the command; the lines that it prints, each held to the schema."""
    schema = Draft202012Validator(make_schema("decide"))

    def decided(*arguments, code=0):
        done = run("decide", CHAT, *arguments, *QUICK)
        assert done.code == code, done.err
        lines = [json.loads(line) for line in done.out.splitlines()]
        for line in lines:
            schema.validate(line)
        return lines, done.err

    return decided


def test_one_request_over_many_lines(decide, tmp_path):
    path = tmp_path / "request.json"
    path.write_text("\ufeff\n" + json.dumps(REQUEST, indent=2), "utf-8")
    (line,), said = decide(path)
    assert [without_cost(line)] == expected([REQUEST])
    assert line["x_tokens_computed"] < line["usage"]["input_tokens"]
    assert said.count("warning: the file holds no temperature, so the probability is the model's own\n") == 1
    (options,), quiet = decide(path, "--orders", "1", "--readout", "letters", "--min-confidence", "1", "-q")
    asked = {"orders": 1, "readout": "letters", "min_confidence": 1.0}
    assert [without_cost(options)] == expected([REQUEST], **asked)
    assert quiet == "" and options["answers"]["q1 refund"]["x_abstained"]


def test_bad_requests_among_good_ones(decide, tmp_path):
    long = one_question(**NOUL) | {"state": "word " * 3000}
    lines = [
        *bodies(4),
        "",
        '{"state": "x"',
        one_question(type="noul"),
        long,
        body(4) | {"questions": {"q": NOUL | {"y": 1}}},
    ]
    path = write_lines(tmp_path / "r.jsonl", [json.dumps(3), *lines])
    found, said = decide(path, code=2)
    assert len(found) == 9
    good = [*bodies(4), {"state": body(4)["state"], "questions": {"q": NOUL}}]
    assert [without_cost(line) | {"model": None} for line in found if "answers" in line] == expected(good)
    errors = {at: line["error"] for at, line in enumerate(found) if "error" in line}
    assert {at: error["line"] for at, error in errors.items()} == {0: 1, 5: 7, 6: 8, 7: 9}
    assert errors[6]["detail"] == [
        {
            "loc": ["body", "questions", "q", "instructions"],
            "msg": "is missing, and there are no criteria either",
            "type": "missing",
        }
    ]
    assert errors[7]["detail"][0]["loc"] == ["body", "state"]
    messages = said.splitlines()
    for at, what in (
        (1, "expected an object"),
        (7, "is not valid JSON"),
        (8, "questions.q.instructions"),
        (9, "state: "),
    ):
        assert sum(f"r.jsonl, line {at}: " in text and what in text for text in messages) == 1
    assert sum("questions.q.y: an unknown field" in text for text in messages) == 1
    assert messages[-1].endswith("r.jsonl: 4 of 9 requests were refused; their lines say why")


def test_a_list_of_requests(decide, tmp_path):
    path = tmp_path / "list.json"
    path.write_text(json.dumps([body(0), 3, body(1)], indent=1), "utf-8")
    found, said = decide(path, code=2)
    assert [next(iter(line)) for line in found] == ["model", "error", "model"]
    assert found[1]["error"]["line"] == 2 and "list.json, request 2: the request: expected an object" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"state": 3, "questions": {}}', ", line 1: state: expected a text, an object or a list, got the number"),
        ('\n{"state": "x",\n "questions": {"q": }}', ": the request: is not valid JSON (Expecting value: line 3"),
        ('{"state": "x", "state": "y"}', "the field 'state' is there twice"),
        ('{"state": NaN}', "NaN is not a JSON number"),
        ("", ": holds no request"),
        (" \n\n", ": holds no request"),
        ("[]", ": holds no request"),
        ("hello", "is not valid JSON"),
        ("[" * 5000, "is nested too deeply"),
        ('{"state": "\\ud800", "questions": {"q": {"type": "noul", "instructions": "?"}}}', "state: holds half a char"),
        (json.dumps(one_question(**NOUL) | {"state": "a" * 10_000_000}), "state: has 10000000 characters"),
    ],
)  # fmt: skip
def test_a_single_bad_request_is_one_line(run, tmp_path, text, said):
    """Found before the model is loaded."""
    path = tmp_path / "bad.json"
    path.write_text(text, "utf-8")
    refused(run("decide", "no-such-model.gguf", path), 2, "bad.json", said)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["none.json"], "none.json: no such file; expected a file, or - for standard input"),
        (["."], "cannot be read"),
        (["r.json", "--orders", "few"], "orders is 'few'"),
        (["r.json", "--template", "none.j2"], "the decision template is 'none.j2'"),
        (["r.json", "--chat-template", "none.j2"], "the chat template is 'none.j2'"),
        (["r.json", "--chat-template=own"], "holds no chat template"),
        (["r.json", "--template", "{{ state }}"], "leaves out the instructions"),
        (["r.json", "--ctx-size", "16"], "r.json, line 1: state: has"),
    ],
)
def test_what_is_refused(run, tmp_path, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    write_lines(tmp_path / "r.json", bodies(1))
    refused(run("decide", CHAT, *arguments, *QUICK), 2, told)


def test_a_pipe_gets_each_answer_before_the_next_request():
    command = [sys.executable, "-m", "edgecal", "decide", str(CHAT), "-", "-q", *QUICK]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        timer = threading.Timer(90, process.kill)  # instead of waiting for ever
        timer.start()
        for at in (0, 1, 3):
            process.stdin.write(json.dumps(body(at) | {"model": f"m{at}"}).encode() + b"\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["model"] == f"m{at}"
        process.stdin.close()
        assert process.wait(30) == 0
        timer.cancel()


def test_an_abort_of_llama_cpp_is_one_line(run, tmp_path):
    from edgecal.gguf.header import read_header
    from edgecal.gguf.rewrite import write_edited
    from edgecal.gguf.values import Value

    broken = tmp_path / "broken.gguf"
    changes = {"tokenizer.ggml.model": Value.string("no-such-tokenizer")}
    write_edited(read_header(CHAT), broken, changes=changes, remove=frozenset())
    refused(run("decide", broken, write_lines(tmp_path / "r.json", bodies(2))), 3, "broken.gguf")


# Reading, without a model


def read(path):
    return [line for batch in read_batches(str(path)) for line in batch]


def test_files_are_read_in_batches(tmp_path):
    found = list(read_batches(str(write_lines(tmp_path / "r.jsonl", bodies(200)))))
    assert [len(batch) for batch in found] == [64, 64, 64, 8]
    lines = [line for batch in found for line in batch]
    assert [line.number for line in lines] == list(range(1, 201))
    assert [line.request for line in lines] == [
        parse_request(one, f"{tmp_path}/r.jsonl, line {at}") for at, one in enumerate(bodies(200), start=1)
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_lines_may_look_like(tmp_path, end):
    texts = ["", json.dumps(body(0)), "  ", f"  {json.dumps(body(1))}  ", "}", "[1]"]
    path = tmp_path / "r.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + end.join(texts).encode())
    found = read(path)
    assert [line.number for line in found] == [2, 4, 5, 6]
    assert [line.request.state for line in found[:2]] == [body(0)["state"], body(1)["state"]]
    assert [line.request.problems[0].loc for line in found[2:]] == [("body",)] * 2


def test_a_first_line_that_is_cut_off_costs_itself(tmp_path):
    first = json.dumps(body(0))[:-9]
    found = read(write_lines(tmp_path / "r.jsonl", [first, *bodies(2)]))
    assert [isinstance(line.request, Exception) for line in found] == [True, False, False]


def test_a_line_that_is_far_too_long_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(request_lines, "_MOST_BYTES", 2 << 20)
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps(body(0)) + "\n{" + "x" * (24 << 20) + "}\n" + json.dumps(body(1)))
    tracemalloc.start()
    found = read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [isinstance(line.request, Exception) for line in found] == [False, True, False]
    assert "line 2: the request: has more than 2 MiB" in str(found[1].request)
    assert peak < 12 << 20


def test_twenty_thousand_requests_are_read_quickly(tmp_path):
    path = write_lines(tmp_path / "r.jsonl", [json.dumps(body(0))] * 20_000)
    start_s = time.monotonic()
    assert sum(len(batch) for batch in read_batches(str(path))) == 20_000
    assert time.monotonic() - start_s < 60
