"""`edgecal diff`'s hashes and progress as people see them."""

import hashlib
import json
import os
import pty
import subprocess
import sys

import pytest
from support.gguf_files import bare_tensor, key, raw_gguf, write_bytes

from edgecal.gguf.values import Value

ARCH = key("general.architecture", Value.string("llama"))


def edgecal_diff(*arguments):
    command = [sys.executable, "-m", "edgecal", "diff", *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


@pytest.fixture
def pair(tmp_path):
    tensors = [bare_tensor("same", [8]), bare_tensor("w", [8], offset=32)]
    data = bytes(range(64))
    one = write_bytes(tmp_path / "a.gguf", raw_gguf([ARCH], tensors, data))
    more = [*tensors, bare_tensor("new", [2], offset=64)]
    other = write_bytes(tmp_path / "b.gguf", raw_gguf([ARCH], more, data[:40] + b"\xff" * 24 + b"12345678"))
    return one, other, [hashlib.sha256(x).hexdigest() for x in (data[32:], data[32:40] + b"\xff" * 24)]


def test_hashes_in_the_text(pair):
    a, b, (before, after) = pair
    done = edgecal_diff(a, b, "--hashes")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines() == [
        "~ w    F32 [8], data differ from byte 8 on",
        f"  - sha256 {before}",
        f"  + sha256 {after}",
        "+ new  F32 [2]",
        f"  + sha256 {hashlib.sha256(b'12345678').hexdigest()}",
        "1 keys equal, 0 differ; 1 tensors equal, 2 differ",
    ]
    assert "sha256" not in edgecal_diff(a, b).stdout


def test_hashes_in_json(pair):
    a, b, (before, after) = pair
    done = edgecal_diff(a, b, "--json")
    w, new = json.loads(done.stdout)["tensors"]
    assert (w["sha256_before"], w["sha256_after"]) == (before, after)
    assert (new["sha256_before"], new["sha256_after"]) == (None, hashlib.sha256(b"12345678").hexdigest())
    assert "sha256" not in edgecal_diff(a, b, "--json", "--keys-only").stdout


@pytest.mark.parametrize("other", ["--keys-only", "--quiet"])
def test_hashes_need_data_and_a_place(pair, other):
    done = edgecal_diff(pair[0], pair[1], "--hashes", other)
    assert done.returncode == 2
    assert f"--hashes and {other} exclude each other" in done.stderr


@pytest.fixture
def large(tmp_path):
    """Two sparse files of 200 MB that differ in the last byte."""
    n_bytes = 200 << 20
    head = raw_gguf([ARCH], [bare_tensor("w", [n_bytes // 4])])
    paths = tmp_path / "a.gguf", tmp_path / "b.gguf"
    for path, last in zip(paths, (b"\1", b"\2"), strict=True):
        write_bytes(path, head)
        os.truncate(path, len(head) + n_bytes - 1)
        with path.open("ab") as file:
            file.write(last)
    return paths


def test_progress_on_large_files(large):
    done = edgecal_diff(*large)
    assert done.returncode == 1
    assert done.stderr.startswith("edgecal: comparing tensor data\n")
    assert "data differ from byte" in done.stdout
    quiet = edgecal_diff(*large, "-q")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (1, "", "")
    assert edgecal_diff(*large, "--keys-only").stderr == ""


def test_a_bar_on_a_terminal(large):
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "edgecal", "diff", *map(str, large), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=terminal, text=True) as process:
        os.close(terminal)
        seen = b""
        try:
            while part := os.read(controller, 1 << 16):
                seen += part
        except OSError:
            pass  # Linux's way to say that nobody has the terminal open any more
        (only,) = json.loads(process.stdout.read())["tensors"]
    os.close(controller)
    assert process.returncode == 1
    assert b"comparing tensor data" in seen
    assert only["sha256_before"] != only["sha256_after"]
