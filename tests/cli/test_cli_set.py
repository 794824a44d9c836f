"""`edgecal set` and `unset` as people run them: values, warnings, refusals."""

import pytest
from support.edits import MODEL, SAMPLING, names, refused
from support.gguf_files import write_bytes

from edgecal.gguf.header import read_header
from edgecal.gguf.values import Value, ValueType


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
        (["", "uint8", "1"], "not a valid key name"),
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
    refused(done, 2, "is not a valid key name")
    assert done.err.count("\n") == 1


def test_unset_of_what_is_not_there(here, run):
    done = run("unset", "m.gguf", "llama.block_count", "llama.blockcount", "--in-place")
    refused(done, 2, "has no key 'llama.blockcount'", "did you mean 'llama.block_count'")
    refused(run("unset", "m.gguf", "zzz", "--in-place"), 2, "has no key 'zzz'")
    assert (here / "m.gguf").read_bytes() == MODEL
