"""What every test can rely on: a neutral working folder, a cache of its own, and a Ctrl-C that arrives."""

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


@pytest.fixture(scope="session", autouse=True)
def _session_cache(tmp_path_factory):
    """What the user has computed is not found, nor is anything left in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGECAL_CACHE_DIR", str(tmp_path_factory.mktemp("session-cache")))
        yield


@pytest.fixture(autouse=True)
def _own_cache(_session_cache, tmp_path_factory, monkeypatch):
    """Nothing that another test has computed is found."""
    monkeypatch.setenv("EDGECAL_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
