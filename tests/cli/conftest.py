"""Fixtures of the commands that edit models."""

import sys

import pytest
from support.edits import MODEL, Done
from support.gguf_files import write_bytes

from edgecal.cli.commands import run_command
from edgecal.errors import EdgecalError


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_bytes(tmp_path / "m.gguf", MODEL)
    return tmp_path


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
