"""A worker's result comes back whole; its death in any form becomes one line."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from edgecal import InputError, ModelError
from edgecal.worker import run_in_worker

SUPPORT = str(Path(__file__).parents[1] / "support")


@pytest.fixture(autouse=True)
def jobs_are_importable(monkeypatch):
    monkeypatch.syspath_prepend(SUPPORT)


def run(name, argument=None, **options):
    return run_in_worker(f"worker_jobs:{name}", argument, what="model m.gguf", **options)


def test_result_and_progress():
    seen = []
    assert run("add", 41, on_progress=seen.append) == 42
    assert seen == [0, 1, 2]


def test_what_native_code_prints_does_not_get_between_the_frames():
    assert run("print_much", 5_000_000) == b"x" * 5_000_000


def test_our_errors_come_back_as_they_are():
    with pytest.raises(InputError, match=r"^not with that$"):
        run("refuse", "that")


def test_a_bug_keeps_its_traceback():
    with pytest.raises(RuntimeError, match=r"(?s)Traceback.*KeyError: .missing"):
        run("fail")


def test_a_bug_whose_exception_cannot_be_sent_keeps_its_traceback_too():
    with pytest.raises(RuntimeError, match=r"(?s)Traceback.*PickyError: one"):
        run("fail_oddly")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_frame_that_cannot_be_read_is_no_hang():
    """It is a bug, whose traceback the listening thread leaves on stderr, but the wait ends."""
    began_s = time.monotonic()
    with pytest.raises(ModelError):
        run("say_oddly")
    assert time.monotonic() - began_s < 30


def test_no_memory_is_one_line():
    with pytest.raises(ModelError, match=r"^model m\.gguf: not enough memory"):
        run("use_all_memory")


def test_modules_in_the_current_folder_are_nobodys_business(monkeypatch, tmp_path):
    """The worker finds its modules where its parent does."""
    for name in ("numpy.py", "pickle.py", "edgecal.py", "worker_jobs.py"):
        (tmp_path / name).write_text("raise SystemExit('the wrong module')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert run("add", 41) == 42


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("abort", "SIGABRT: some.cpp:12: GGML_ASSERT(x > 0) failed"),
        ("leave", "exit code 7"),
        ("be_killed", "SIGKILL (the system may have run out of memory)"),
    ],
)
def test_death_is_one_line(name, told):
    with pytest.raises(ModelError) as caught:
        run(name)
    text = str(caught.value)
    assert text.startswith("model m.gguf: ") and told in text and "\n" not in text


def test_a_hang_is_stopped(tmp_path):
    began_s = time.monotonic()
    with pytest.raises(ModelError, match="did not respond for 2 s"):
        run("hang", str(tmp_path / "pid"), timeout_s=2)
    assert time.monotonic() - began_s < 30
    assert_gone(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_its_parent(tmp_path, how):
    script = textwrap.dedent(f"""
        from edgecal.worker import run_in_worker
        try:
            run_in_worker("worker_jobs:hang", {str(tmp_path / "pid")!r}, what="m")
        except KeyboardInterrupt:
            raise SystemExit(130)
    """)
    root = str(Path(sys.modules["edgecal"].__file__).parents[1])
    parent = subprocess.Popen(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": os.pathsep.join([SUPPORT, root])}
    )
    pid_path = tmp_path / "pid"
    deadline_s = time.monotonic() + 30
    while not (pid_path.exists() and pid_path.read_text()):
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    parent.send_signal(how)
    assert parent.wait(timeout=10) == (130 if how == signal.SIGINT else -signal.SIGKILL)
    assert_gone(int(pid_path.read_text()))


def assert_gone(pid):
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        stat = Path(f"/proc/{pid}/stat")
        if stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.1)
    pytest.fail(f"process {pid} is still there")
