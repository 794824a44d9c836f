"""Streams that are closed or full, and file names and metadata that hold anything."""

import json
import os
import subprocess
import sys
from pathlib import Path

import gguf
import pytest
from support.prompts import random_token_prompts, write_json_lines
from support.tiny_models import tiny_folder, write_tiny_llama, write_tiny_pair

EDGECAL = [sys.executable, "-m", "edgecal"]


@pytest.fixture(scope="module")
def model():
    return write_tiny_llama(
        tiny_folder() / "streams.gguf", seed=5, metadata={"general.name": "a\x1b]0;title\x07 \u202eb\nc é"}
    )


def run(*arguments, **options):
    return subprocess.run([*EDGECAL, *arguments], capture_output=True, timeout=120, **options)


def shell(line, *arguments):
    """Runs edgecal from a shell line in which `edgecal` stands for it."""
    line = line.replace("edgecal", 'exec "$@"', 1)
    return subprocess.run(
        ["sh", "-c", line, "sh", *EDGECAL, *map(str, arguments)], capture_output=True, timeout=120
    )


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_full_standard_output(model, options):
    done = shell("edgecal >/dev/full", "show", model, *options)
    assert done.returncode == 5
    assert done.stderr == b"edgecal: standard output cannot be written to: No space left on device\n"


@pytest.mark.parametrize("closed", [">&-", "<&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(model, closed):
    done = shell(f"edgecal {closed}", "show", model)
    assert (done.returncode, done.stderr) == (0, b"")
    assert bool(done.stdout) is (">&- " not in f"{closed} ".replace("2>&-", ""))
    assert shell(f"edgecal {closed}", "show", f"{model}.none").returncode == 2


def test_terminal_controls_in_metadata_are_shown_not_sent(model):
    done = run("show", model)
    line = next(line for line in done.stdout.decode().splitlines() if line.startswith("name"))
    assert line.split(maxsplit=1)[1] == r"a\x1b]0;title\x07 \u202eb\nc é"
    assert json.loads(run("show", model, "--json").stdout)["name"] == "a\x1b]0;title\x07 \u202eb\nc é"


def test_a_character_set_that_lacks_characters(model):
    done = run("show", model, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0 and rb"c \xe9" in done.stdout


def test_any_file_name_and_a_stderr_that_is_full(tmp_path):
    """Spaces, line breaks, a leading dash and bytes that are no text, in every name; complaints stay one line."""
    folder = tmp_path / os.fsdecode(b"a \n\xff\xe9")
    folder.mkdir()
    names = [
        os.fsdecode(name)
        for name in (b"-base \xff.gguf", b"chat\n\xe9.gguf", b"d \xff\n.jsonl", b"-o\xff\n.gguf")
    ]
    base, chat, data, output = names
    write_tiny_pair(folder / base, folder / chat, seed=5, base_metadata={"general.name": None})
    write_json_lines(folder / data, random_token_prompts(60, seed=1))
    options = ["fit", "-t", "1", "--bootstrap", "20", "--method", "naive", "--unsettled", "--data", data]
    options += ["--", base, chat]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*EDGECAL, *options[:1], "--json", "-o", output, *options[1:]],
            stdout=subprocess.PIPE, stderr=full, timeout=120, cwd=folder,
                env={key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"},
        )  # fmt: skip
    assert done.returncode == 0
    told = json.loads(done.stdout)
    assert (told["output"], told["models"]["base"]["path"]) == (output, base)
    assert done.stdout.count(b"\n") == 1
    assert "edgecal.base.name" in gguf.GGUFReader(folder / output).fields
    done = subprocess.run([*EDGECAL, *options, "x"], capture_output=True, timeout=120, cwd=folder)
    assert done.returncode == 2
    (folder / data).write_bytes(b"")
    done = subprocess.run([*EDGECAL, *options], capture_output=True, timeout=120, cwd=folder)
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1
