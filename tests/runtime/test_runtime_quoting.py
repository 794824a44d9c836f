"""Quoting is read back by what it is for: a shell, and a reading of Modelfiles by Ollama's rules."""

import struct
import subprocess

import pytest

from edgecal.errors import InputError
from edgecal.runtime.export_targets import quote_modelfile, quote_shell, short_float32

NAMES = [
    "/models/plain.gguf",
    "/models/with space.gguf",
    "/models/it's.gguf",
    '/models/a "quoted" one.gguf',
    "/models/$HOME `id` $(id) \\ !x.gguf",
    "/models/line\nbreak.gguf",
    '/models/line\n"break" x.gguf',
    '/models/"\nstarts a line.gguf',
    "/models/# no comment.gguf",
    "/models/ends with space ",
    '/models/ends with quote"',
    "/models/tab\tin it.gguf",
    "/models/grün 模型.gguf",
    "-starts-with-dash",
    '"starts with quote',
]


def read_modelfile(text):
    """The instructions of a Modelfile as (name, value), by the rules of Ollama's parser: outside quotes a value ends
    with its line; a value that starts with a quote ends with the first line whose end closes it."""
    instructions, lines = [], text.splitlines(keepends=True)
    while lines:
        line = lines.pop(0)
        if line.startswith("#") or not line.strip():
            continue
        name, _, value = line.partition(" ")
        while not closes(value.strip()):
            assert lines, "the last value never ends"
            value += lines.pop(0)
        value = value.strip()
        for mark in ('"""', '"'):
            if value.startswith(mark):
                value = value[len(mark) : -len(mark)]
                break
        instructions.append((name, value))
    return instructions


def closes(value):
    for mark in ('"""', '"'):
        if value.startswith(mark):
            return len(value) >= 2 * len(mark) and value.endswith(mark)
    return True


@pytest.mark.parametrize("name", NAMES)
def test_modelfiles(name):
    text = f"# comment\nFROM {quote_modelfile(name)}\nPARAMETER temperature 2.5\n"
    assert read_modelfile(text) == [("FROM", name), ("PARAMETER", "temperature 2.5")]


def test_plain_names_stay_plain():
    assert quote_modelfile("/models/with space.gguf") == "/models/with space.gguf"
    assert quote_shell("/models/plain.gguf") == "/models/plain.gguf"


@pytest.mark.parametrize(
    "name", ["/a\x00b", "/bell\x07", "/no-break\u00a0space", "/\u200bzero", '/x"""\n"\n']
)
def test_names_that_no_modelfile_can_hold(name):
    """Ollama's parser drops what does not print; and nothing escapes a quote at a line's end."""
    with pytest.raises(InputError, match="Modelfile") as error:
        quote_modelfile(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", NAMES)
def test_shells(name):
    command = f"printf %s {quote_shell(name)}"
    assert subprocess.run(["sh", "-c", command], capture_output=True, check=True).stdout.decode() == name


@pytest.mark.parametrize("number", [3.843, 1.0, 0.1, 2 / 3, 1e-6, 123.456, 3.0000002, 1.1754944e-38, 3.4e38])
def test_short_floats(number):
    exact = struct.unpack("<f", struct.pack("<f", number))[0]
    text = short_float32(exact)
    assert struct.pack("<f", float(text)) == struct.pack("<f", number)
    assert len(text) <= len(f"{exact:.9g}")
    assert short_float32(struct.unpack("<f", struct.pack("<f", 3.843))[0]) == "3.843"
