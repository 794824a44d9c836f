"""What the tests of commands that edit models share: a small model, and how a command ended."""

import json
import subprocess
import sys

from support.gguf_files import bare_tensor, key, raw_gguf

from edgecal.gguf.values import Value

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


class Done:
    """How a command ended; `json` is what it printed."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    @property
    def json(self):
        return json.loads(self.out)


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
