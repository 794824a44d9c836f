"""`edgecal stamp` and `strip` as people run them: results, refusals."""

import json
import subprocess
import sys

import pytest
from support.edits import KEYS, MODEL, RESULT, SAMPLING, names, real, refused
from support.gguf_files import bare_tensor, key, raw_gguf, write_bytes
from support.prompts import random_token_prompts, write_json_lines
from support.tiny_models import tiny_folder, write_tiny_pair

from edgecal.gguf.header import read_header
from edgecal.gguf.values import Value, ValueType


@pytest.mark.parametrize("place", [["-o", "out.gguf"], ["--in-place"]])
@pytest.mark.parametrize("sampling", [[], ["--no-sampling-key"]])
def test_stamp_and_strip(here, run, place, sampling):
    stamped = here / (place[-1] if place[0] == "-o" else "m.gguf")
    done = run("stamp", "m.gguf", "--temperature", "2.5", "--verify", *place, *sampling)
    assert done.code == 0
    assert "edgecal.temperature" in done.out
    assert "tensor data compared" in done.out
    assert ("wilder" in done.out) == (not sampling)
    header = read_header(stamped)
    assert header.get("edgecal.temperature") == 2.5
    assert header.value(SAMPLING) == Value.float32(0.6 if sampling else 2.5)
    if place[0] == "-o":
        assert (here / "m.gguf").read_bytes() == MODEL
    assert run("stamp", stamped, "--temperature", "3", "--in-place", "-q").out == ""
    assert run("strip", stamped, "--in-place", "--verify").code == 0
    assert stamped.read_bytes() == MODEL
    again = run("strip", stamped, "--in-place")
    assert (again.code, "nothing to change" in again.out) == (0, True)
    assert stamped.read_bytes() == MODEL


def test_what_was_done_as_json(here, run):
    done = run("stamp", "m.gguf", "--temperature", "2.5", "-o", "out.gguf", "--json").json
    assert done == {
        "file": "m.gguf",
        "output": "out.gguf",
        "in_place": False,
        "verified": False,
        "temperature": 2.5,
        "keys": done["keys"],
        "siblings": [],
        "warnings": [],
    }
    found = {item["name"]: (item["change"], item["before"], item["after"]) for item in done["keys"]}
    assert found["edgecal.temperature"] == ("added", None, "float32 2.5")
    assert found[SAMPLING] == ("changed", "float32 0.600000024", "float32 2.5")
    assert found["edgecal.previous.sampling.temp"] == ("added", None, "float32 0.600000024")
    done = run("strip", "out.gguf", "--in-place", "--json").json
    assert done["in_place"]
    assert {item["change"] for item in done["keys"]} == {"removed", "changed"}


def test_a_fits_result_is_its_provenance(here, run):
    (here / "r.json").write_text(json.dumps(RESULT))
    assert run("stamp", "m.gguf", "--from", "r.json", "-o", "a.gguf").code == 0
    header = read_header(here / "a.gguf")
    assert header.value("edgecal.temperature") == Value.float32(2.31)
    assert header.get("edgecal.interval") == pytest.approx([2.2, 2.43])
    assert header.get("edgecal.base.sha256") == "cd" * 32
    same = run("stamp", "m.gguf", "--from", "r.json", "--temperature", "2.31", "-o", "b.gguf")
    assert same.err == ""
    assert (here / "a.gguf").read_bytes() == (here / "b.gguf").read_bytes()
    other = run("stamp", "m.gguf", "--from", "r.json", "--temperature", "2", "-o", "c.gguf", "--json")
    assert "not the fit's 2.31" in other.err
    assert "not the fit's 2.31" in other.json["warnings"][0]
    header = read_header(here / "c.gguf")
    assert "edgecal.interval" not in header
    assert header.get("edgecal.method") == "daca"
    assert header.get("edgecal.temperature") == 2


def test_stamp_writes_what_the_fit_would_have_written(here):
    folder = tiny_folder() / "cli-edit"
    folder.mkdir(exist_ok=True)
    base, chat = write_tiny_pair(folder / "base.gguf", folder / "chat.gguf", seed=5)
    write_json_lines(here / "data.jsonl", random_token_prompts(20, seed=1))
    fit = ["fit", "-q", str(base), str(chat), "--data", "data.jsonl", "--method", "vanilla", "--json"]
    fitted = real(*fit, "-o", "fitted.gguf", "--unsettled")  # random models are
    assert fitted.returncode == 0, fitted.stderr
    stamp = ["stamp", str(chat), "--from", "-", "-o", "stamped.gguf"]
    done = real(*stamp, "--unsettled", stdin=fitted.stdout)
    assert done.returncode == 0, done.stderr
    assert (here / "stamped.gguf").read_bytes() == (here / "fitted.gguf").read_bytes()
    (here / "stamped.gguf").unlink()
    done = real(*stamp, stdin=fitted.stdout)
    assert done.returncode == 4 and not (here / "stamped.gguf").exists()
    reasons = json.loads(fitted.stdout)["reasons"]
    assert reasons and done.stderr.splitlines()[:-1] == [f"edgecal: refused: {reason}" for reason in reasons]
    assert "--unsettled" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (None, "No such file"),
        ("", "not JSON"),
        ("{}", "not the result of a fit"),
        ('{"kind": "eval"}', "result of edgecal eval"),
        (json.dumps({**RESULT, "temperature": "hot"}), "expected a positive number"),
    ],
)
def test_a_result_that_is_none(here, run, text, part):
    if text is not None:
        (here / "r.json").write_text(text)
    refused(run("stamp", "m.gguf", "--from", "r.json", "-o", "out.gguf"), 2, "r.json", part)
    assert "out.gguf" not in names(here)


def test_the_fit_of_another_model(here, run):
    """Said, not refused: a name is easily changed."""
    (here / "r.json").write_text(
        json.dumps(RESULT | {"models": {**RESULT["models"], "chat": {"name": "One"}}})
    )
    for name, warned in (("One", False), ("Other", True)):
        run("set", "m.gguf", "general.name", "string", name, "--in-place")
        done = run("stamp", "m.gguf", "--from", "r.json", "--output", f"{name}.gguf")
        assert done.code == 0 and ("is a fit of 'One', m.gguf is 'Other'" in done.err) == warned


def test_standard_input_that_is_closed(here):
    for command in (
        ["stamp", "m.gguf", "--from", "-"],
        ["set", "m.gguf", "a.b", "string", "--value-from", "-"],
    ):
        done = subprocess.run(
            ["sh", "-c", 'exec "$@" <&-', "sh", sys.executable, "-m", "edgecal", *command, "--in-place"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 2 and done.stderr == "edgecal: standard input is closed; give a file\n"


def test_the_result_is_not_overwritten(here, run):
    (here / "r.json").write_text(json.dumps(RESULT))
    done = run("stamp", "m.gguf", "--from", "r.json", "-o", "r.json", "--force")
    refused(done, 2, "is an input")


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "1e-50", "1e50"])
def test_a_temperature_that_makes_no_sense(here, run, value):
    refused(run("stamp", "m.gguf", f"--temperature={value}", "--in-place"), 2, "positive finite")
    assert (here / "m.gguf").read_bytes() == MODEL


def test_stamp_needs_a_temperature(here, run):
    refused(run("stamp", "m.gguf", "--in-place"), 2, "--temperature")
    refused(run("stamp", "m.gguf", "--temperature", "hot", "--in-place"), 2, "hot")


def test_a_baked_file(here, run):
    baked = raw_gguf([*KEYS, key("edgecal.baked.temperature", Value.float32(2))], [], b"")
    write_bytes(here / "m.gguf", baked)
    refused(run("stamp", "m.gguf", "--temperature", "2", "--in-place"), 2, "unbake", "--force-baked")
    refused(run("strip", "m.gguf", "--in-place"), 2, "edgecal unbake")
    assert (here / "m.gguf").read_bytes() == baked
    assert run("stamp", "m.gguf", "--temperature", "2", "--in-place", "--force-baked").code == 0


def test_split_models(here, run):
    for index in range(2):
        keys = [
            *(KEYS if index == 0 else []),
            key("split.count", Value.of(ValueType.UINT16, 2)),
            key("split.no", Value.of(ValueType.UINT16, index)),
            key("split.tensors.count", Value.uint32(2)),
        ]
        write_bytes(
            here / f"s-{index + 1:05d}-of-00002.gguf",
            raw_gguf(keys, [bare_tensor(f"w{index}", [4])], bytes(16)),
        )
    first, second = "s-00001-of-00002.gguf", "s-00002-of-00002.gguf"
    originals = [(here / name).read_bytes() for name in (first, second)]
    refused(run("stamp", second, "--temperature", "2", "--in-place"), 2, "shard 2 of 2", first)
    refused(run("stamp", first, "--temperature", "2", "-o", "t.gguf"), 2, "t-00001-of-00002.gguf")
    done = run("stamp", first, "--temperature", "2", "-o", "t-00001-of-00002.gguf", "--json").json
    assert [item["path"] for item in done["siblings"]] == ["t-00002-of-00002.gguf"]
    assert run("diff", first, "t-00001-of-00002.gguf", "-q").code == 1
    assert run("strip", "t-00001-of-00002.gguf", "--in-place").code == 0
    assert [(here / name.replace("s-", "t-")).read_bytes() for name in (first, second)] == originals
