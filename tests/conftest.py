"""What every test can rely on: a neutral working folder, and a Ctrl-C that arrives."""

import os
import signal
from pathlib import Path

import pytest

# A test run that was started in the background ignores Ctrl-C, and so would every process that it starts.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _neutral_folder(tmp_path_factory):
    """The repository's own `edgecal/` must not be found before the installed one by `python -m edgecal`."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("cwd"))
    yield
    os.chdir(before)
