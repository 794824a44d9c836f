"""`edgecal stamp`, `strip`, `set`, `unset` and `diff` as people run them: results, refusals, exit codes."""

import json
import os
import shutil
import stat
import subprocess
import sys

import pytest
from support.gguf_files import bare_tensor, key, raw_gguf, write_bytes
from support.prompts import random_token_prompts, write_json_lines
from support.tiny_models import tiny_folder, write_tiny_pair

from edgecal.cli.commands import run_command
from edgecal.errors import EdgecalError
from edgecal.gguf import Value, ValueType, read_header

SAMPLING = "general.sampling.temp"
KEYS = [
    key("general.architecture", Value.string("llama")),
    key(SAMPLING, Value.float32(0.6)),
    key("llama.block_count", Value.uint32(1)),
    key("tokenizer.ggml.model", Value.string("gpt2")),
    key("tokenizer.chat_template", Value.string("{{ messages }}")),
]
MODEL = raw_gguf(KEYS, [bare_tensor("w", [16])], bytes(range(64)) + b"tail", padding=b"\x07")
RESULT = {
    "temperature": 2.31,
    "interval": [2.2, 2.43],
    "method": "daca",
    "variant": {},
    "n_prompts": 500,
    "agreement_rate": 0.81,
    "prompts_sha256": "ab" * 32,
    "models": {"base": {"name": "Base", "sha256": "cd" * 32}, "chat": {}},
    "runtime": {"llama_cpp": "b1234", "edgecal": "0.1.0"},
}
EDITS = {
    "stamp": ["--temperature", "2.5"],
    "strip": [],
    "set": ["a.b", "uint8", "1"],
    "unset": [SAMPLING],
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_bytes(tmp_path / "m.gguf", MODEL)
    return tmp_path


class Done:
    """How a command ended; `json` is what it printed."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def run(capfd):
    """Runs a command in this process, its errors turned into exit codes as `main` does."""

    def run_it(*arguments):
        try:
            code = run_command([str(item) for item in arguments])
        except EdgecalError as error:
            code = error.exit_code
            print(f"edgecal: {error}", file=sys.stderr)
            assert "\n" not in str(error)
        captured = capfd.readouterr()
        return Done(code, captured.out, captured.err)

    return run_it


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def refused(done, code, *parts):
    assert done.code == code, done.err
    assert done.out == ""
    for part in parts:
        assert part in done.err


def real(*arguments, stdin=None):
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "edgecal", *arguments],
        capture_output=True,
        text=True,
        input=stdin,
        timeout=120,
    )


# stamp and strip


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
    fitted = real(*fit, "-o", "fitted.gguf")
    assert fitted.returncode == 0, fitted.stderr
    done = real("stamp", str(chat), "--from", "-", "-o", "stamped.gguf", stdin=fitted.stdout)
    assert done.returncode == 0, done.stderr
    assert (here / "stamped.gguf").read_bytes() == (here / "fitted.gguf").read_bytes()


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


# set and unset


@pytest.mark.parametrize(
    ("type_", "text", "value"),
    [
        ("uint8", "255", Value.of(ValueType.UINT8, 255)),
        ("INT32", "-5", Value.of(ValueType.INT32, -5)),
        ("float64", "-1e-3", Value.of(ValueType.FLOAT64, -1e-3)),
        ("float32", "-inf", Value.float32(float("-inf"))),
        ("bool", "TRUE", Value.of(ValueType.BOOL, True)),
        ("string", "", Value.string("")),
        ("string", "--not an option", Value.string("--not an option")),
        ("array[float32]", "[1, 2]", Value.array(ValueType.FLOAT32, [1, 2])),
        ("array[string]", '["a"]', Value.array(ValueType.STRING, ["a"])),
    ],
)
def test_set(here, run, type_, text, value):
    done = run("set", "m.gguf", "new.key", type_, text, "-o", "out.gguf")
    assert (done.code, done.err) == (0, "")
    header = read_header(here / "out.gguf")
    assert header.value("new.key") == value
    assert header.keys[-1] == "new.key"
    assert (here / "m.gguf").read_bytes() == MODEL
    assert run("unset", "out.gguf", "new.key", "--in-place").code == 0
    assert run("diff", "m.gguf", "out.gguf").code == 0


def test_set_changes_a_key_where_it_stands(here, run):
    before = read_header(here / "m.gguf").keys
    assert run("set", "m.gguf", SAMPLING, "float32", "0.9", "--in-place", "--verify").code == 0
    header = read_header(here / "m.gguf")
    assert header.keys == before
    assert header.value(SAMPLING) == Value.float32(0.9)
    assert "nothing to change" in run("set", "m.gguf", SAMPLING, "float32", "0.9", "--in-place").out


def test_a_value_from_a_file(here, run):
    (here / "t.jinja").write_bytes(b"{% if x %}\n\xff{% endif %}\n")
    done = run("set", "m.gguf", "tokenizer.chat_template", "string", "--value-from", "t.jinja", "--in-place")
    assert (done.code, done.err) == (0, "")
    raw = read_header(here / "m.gguf").value("tokenizer.chat_template").raw
    assert raw[8:] == b"{% if x %}\n\xff{% endif %}\n"
    refused(
        run("set", "m.gguf", "k", "string", "--value-from", "none", "--in-place"), 2, "none", "cannot be read"
    )
    both = run("set", "m.gguf", "k", "string", "x", "--value-from", "t.jinja", "--in-place")
    refused(both, 2, "not both")
    refused(run("set", "m.gguf", "k", "string", "--in-place"), 2, "VALUE")
    refused(
        run("set", "m.gguf", "k", "string", "--value-from", "t.jinja", "-o", "t.jinja", "--force"), 2, "input"
    )


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["k", "uint8", "256"], "out of the range of uint8: 0 to 255"),
        (["k", "uint9", "1"], "known are uint8"),
        (["k", "float32", "warm"], "not a number"),
        (["k", "array[uint8]", "[1.5]"], "expected a whole number"),
        (["k", "array", "[1]"], "array[float32]"),
        (["", "uint8", "1"], "not a name for a key"),
        (["general.alignment", "uint32", "64"], "cannot be edited"),
        (["edgecal.filler", "uint8", "1"], "edgecal.filler"),
    ],
)
@pytest.mark.parametrize("place", [["-o", "out.gguf"], ["--in-place"]])
def test_what_cannot_be_set(here, run, arguments, part, place):
    done = run("set", "m.gguf", *arguments, *place)
    assert done.code == 2
    assert part in done.err
    assert (here / "m.gguf").read_bytes() == MODEL
    assert names(here) == ["m.gguf"]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["general.architecture", "string", "gemma"], "will not load"),
        (["llama.block_count", "uint32", "2"], "a dimension or constant"),
        (["tokenizer.ggml.model", "string", "bert"], "other tokens"),
        (["split.count", "uint32", "3"], "other files"),
        (["edgecal.temperature", "float32", "2"], "edgecal stamp"),
        (["edgecal.previous.sampling.temp", "float32", "2"], "edgecal strip needs it"),
        (["edgecal.baked.temperature", "float32", "2"], "edgecal unbake needs it"),
        ([SAMPLING, "string", "2"], "was float32 and is string"),
        (["Some Key", "uint8", "1"], "unusual name"),
        (["general.quantization_version", "uint32", "3"], "how the tensors are stored"),
    ],
)
def test_warnings(here, run, arguments, part):
    done = run("set", "m.gguf", *arguments, "-o", "out.gguf", "--json")
    assert done.code == 0
    assert part in done.err
    assert part in " ".join(done.json["warnings"])
    assert run("set", "m.gguf", *arguments, "-o", "out2.gguf", "-q").err == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["tokenizer.chat_template", "string", "x"],
        ["general.name", "string", "x"],
        [SAMPLING, "float32", "1"],
        ["llama.block_count", "uint32", "1"],  # the value that it has
    ],
)
def test_no_warning_without_a_reason(here, run, arguments):
    assert run("set", "m.gguf", *arguments, "-o", "out.gguf").err == ""


def test_unset(here, run):
    done = run("unset", "m.gguf", SAMPLING, "tokenizer.ggml.model", "--in-place", "--json")
    assert [(item["name"], item["change"]) for item in done.json["keys"]] == [
        (SAMPLING, "removed"),
        ("tokenizer.ggml.model", "removed"),
    ]
    assert "tokenizer.ggml.model" in done.err
    assert read_header(here / "m.gguf").keys[:2] == ("general.architecture", "llama.block_count")
    refused(run("unset", "m.gguf", "--in-place"), 2, "KEY")


def test_the_keys_of_a_split_can_be_put_right(here, run):
    """They are those of one file: a wrong one must not keep the file from being mended."""
    original = (here / "m.gguf").read_bytes()
    assert run("set", "m.gguf", "split.count", "uint16", "3", "--in-place").code == 0
    refused(run("set", "m.gguf", "a.b", "uint8", "1", "--in-place"), 2, "first of 3 shards")
    assert run("set", "m.gguf", "split.no", "uint16", "7", "--in-place").code == 0
    assert run("unset", "m.gguf", "split.no", "split.count", "--output", "back.gguf").code == 0
    assert run("unset", "back.gguf", "edgecal.filler", "--in-place").code in (0, 2)  # 2: there is none
    header = read_header(here / "back.gguf")
    assert header.keys == read_header(write_bytes(here / "was.gguf", original)).keys


def test_what_cannot_be_is_said_alone(here, run):
    """An edit that is refused comes with no warnings about what it would have done."""
    done = run("set", "m.gguf", "", "uint8", "1", "--in-place")
    refused(done, 2, "is not a name for a key")
    assert done.err.count("\n") == 1


def test_unset_of_what_is_not_there(here, run):
    done = run("unset", "m.gguf", "llama.block_count", "llama.blockcount", "--in-place")
    refused(done, 2, "has no key 'llama.blockcount'", "did you mean 'llama.block_count'")
    refused(run("unset", "m.gguf", "zzz", "--in-place"), 2, "has no key 'zzz'")
    assert (here / "m.gguf").read_bytes() == MODEL


# What every editing command refuses


@pytest.mark.parametrize("command", EDITS)
def test_exactly_one_place(here, run, command):
    refused(run(command, "m.gguf", *EDITS[command]), 2, "--output", "--in-place")
    refused(run(command, "m.gguf", *EDITS[command], "-o", "x.gguf", "--in-place"), 2, "not both")
    refused(run(command, "m.gguf", *EDITS[command], "--in-place", "--force"), 2, "--force")
    assert names(here) == ["m.gguf"]
    assert (here / "m.gguf").read_bytes() == MODEL


@pytest.mark.parametrize("command", EDITS)
def test_an_output_is_overwritten_only_with_force(here, run, command):
    write_bytes(here / "out.gguf", b"precious")
    refused(run(command, "m.gguf", *EDITS[command], "-o", "out.gguf"), 2, "exists", "--force")
    assert (here / "out.gguf").read_bytes() == b"precious"
    assert run(command, "m.gguf", *EDITS[command], "-o", "out.gguf", "--force").code == 0
    assert read_header(here / "out.gguf").architecture == "llama"
    refused(run(command, "m.gguf", *EDITS[command], "-o", "m.gguf", "--force"), 2, "is an input")


@pytest.mark.parametrize("command", EDITS)
def test_files_that_cannot_be_edited(here, run, command):
    for name, part in (("none.gguf", "no such file"), (".", "a directory")):
        refused(run(command, name, *EDITS[command], "-o", "out.gguf"), 2, part)
    write_bytes(here / "text.gguf", b"hello, this is text")
    refused(run(command, "text.gguf", *EDITS[command], "--in-place"), 2, "not a GGUF file")
    write_bytes(here / "cut.gguf", MODEL[:-40])
    refused(run(command, "cut.gguf", *EDITS[command], "--in-place"), 2, "truncated")
    (here / "link.gguf").symlink_to("m.gguf")
    refused(run(command, "link.gguf", *EDITS[command], "--in-place"), 2, "symbolic link")
    os.link(here / "m.gguf", here / "second.gguf")
    refused(run(command, "m.gguf", *EDITS[command], "--in-place"), 2, "hard links")
    assert (here / "m.gguf").read_bytes() == MODEL


@pytest.mark.parametrize("command", EDITS)
def test_a_read_only_file(here, run, command):
    (here / "m.gguf").chmod(0o444)
    refused(run(command, "m.gguf", *EDITS[command], "--in-place"), 5, "read-only")
    assert run(command, "m.gguf", *EDITS[command], "-o", "out.gguf").code == 0


def test_links_that_lead_to_themselves(here, run):
    (here / "loop").symlink_to("loop")
    for options in ([], ["--force"]):
        refused(run("stamp", "m.gguf", "--temperature", "2", "-o", "loop", *options), 2, "symbolic link")
        refused(run("stamp", "m.gguf", "--temperature", "2", "-o", "loop/out.gguf", *options), 2, "folder")
    refused(run("stamp", "loop", "--temperature", "2", "--in-place"), 2, "symbolic link")
    assert names(here) == ["loop", "m.gguf"]


def test_a_working_directory_that_is_gone(here):
    """The file is given by its full path, the output is not."""
    for output, code in (("out.gguf", 5), (here / "out.gguf", 0)):
        (here / "gone").mkdir()
        command = [sys.executable, "-m", "edgecal", "set", here / "m.gguf", "a.b", "uint8", "1", "-q"]
        done = subprocess.run(
            ["sh", "-c", 'cd "$0" && rmdir "$0" && exec "$@"', here / "gone", *command, "-o", output],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == code and done.stderr.count("\n") == (code != 0), done.stderr


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root to become another user"
)
def test_a_file_that_may_not_be_read(here, run):
    """In one line, as any other file that cannot be used."""
    (here / "m.gguf").chmod(0)
    os.seteuid(65534)
    try:
        for command, more in EDITS.items():
            done = run(command, "m.gguf", *more, "-o", "out.gguf")
            refused(done, 2, "m.gguf: cannot be opened: Permission denied")
            assert done.err.count("\n") == 1
    finally:
        os.seteuid(0)


def test_an_output_that_cannot_be_written(here, run):
    refused(run("set", "m.gguf", "k", "uint8", "1", "-o", "/sys/out.gguf"), 5, "cannot be written to")


def test_a_disk_that_stores_something_else_is_found_out_with_verify(here, run, monkeypatch):
    """Fault in the tensor data, which only --verify reads."""
    flush = os.fsync

    def spoil(descriptor):
        flush(descriptor)
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode):
            os.pwrite(descriptor, b"\x55", status.st_size - 5)

    monkeypatch.setattr(os, "fsync", spoil)
    edit = ["set", "m.gguf", "k", "uint8", "1"]
    refused(run(*edit, "-o", "out.gguf", "--verify"), 5, "differs from what was copied")
    assert names(here) == ["m.gguf"]
    assert run(*edit, "-o", "out.gguf").code == 0


# diff


def test_diff(here, run):
    shutil.copy(here / "m.gguf", here / "same.gguf")
    same = run("diff", "m.gguf", "same.gguf")
    assert (same.code, same.out) == (0, "5 keys equal, 0 differ; 1 tensors equal, 0 differ\n")
    changed = MODEL.replace(b"gpt2", b"bert").replace(bytes(range(64)), bytes(range(63)) + b"\0")
    write_bytes(here / "other.gguf", changed)
    done = run("diff", "m.gguf", "other.gguf")
    assert done.code == 1
    assert done.out.splitlines() == [
        "~ tokenizer.ggml.model  string 'gpt2' -> string 'bert'",
        "~ w  F32 [16], data differ from byte 63 on",
        "4 keys equal, 1 differ; 0 tensors equal, 1 differ",
    ]
    found = run("diff", "m.gguf", "other.gguf", "--json")
    assert found.code == 1
    (only,) = found.json["tensors"]
    said = {"name": "w", "change": "changed", "before": "F32 [16]", "after": "F32 [16]", "at_byte": 63}
    assert said.items() < only.items()
    assert (found.json["equal"], found.json["data_compared"]) == (False, True)
    quiet = run("diff", "m.gguf", "other.gguf", "-q")
    assert (quiet.code, quiet.out, quiet.err) == (1, "", "")
    headers = run("diff", "m.gguf", "other.gguf", "--keys-only")
    assert headers.code == 1
    assert "data not compared" in headers.out
    refused(run("diff", "m.gguf", "other.gguf", "-q", "--json"), 2, "exclude")
    refused(run("diff", "m.gguf", "none.gguf"), 2, "no such file")


def test_names_and_values_that_do_not_print(here, run):
    write_bytes(here / "odd.gguf", raw_gguf([*KEYS, key("a\nb\x1b[1m", Value.string("c\n\x1b[0m"))], [], b""))
    done = run("diff", "m.gguf", "odd.gguf")
    assert "\x1b" not in done.out
    assert "a\\nb" in done.out
    done = run("unset", "odd.gguf", "a\nb\x1b[1m", "--in-place")
    assert done.code == 0
    assert "\x1b" not in done.out


def test_as_a_process(here):
    done = real("set", "m.gguf", "k", "int8", "-5", "--in-place")
    assert (done.returncode, done.stderr) == (0, "")
    done = real("diff", "m.gguf", "m.gguf", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    done = real("stamp", "m.gguf", "--temperature", "2", "-o", "out.gguf")
    assert (done.returncode, done.stderr) == (0, "")
    assert real("diff", "m.gguf", "out.gguf", "-q").returncode == 1
    done = real("strip", "m.gguf")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
