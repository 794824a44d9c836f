"""What all commands that edit models have in common, and `edgecal diff`: places, odd files, exit codes."""

import os
import shutil
import stat
import subprocess
import sys

import pytest
from support.edits import EDITS, KEYS, MODEL, names, real, refused
from support.gguf_files import key, raw_gguf, write_bytes

from edgecal.gguf.header import read_header
from edgecal.gguf.values import Value


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
