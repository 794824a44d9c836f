"""A worker that is called several times: what it keeps, and when it is another process."""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from edgecal import InputError, ModelError
from edgecal.worker import Worker

SUPPORT = str(Path(__file__).parents[1] / "support")

JOBS = textwrap.dedent("""
    import os
    KEPT = []

    def keep(argument, report):
        report(len(KEPT))
        KEPT.append(argument)
        return os.getpid(), list(KEPT)
""")


@pytest.fixture(autouse=True)
def jobs_are_importable(monkeypatch, tmp_path):
    (tmp_path / "keeping_jobs.py").write_text(JOBS)
    monkeypatch.syspath_prepend(SUPPORT)
    monkeypatch.syspath_prepend(str(tmp_path))


def keep(worker, argument, **options):
    return worker.call("keeping_jobs:keep", argument, what="model m.gguf", **options)


def assert_gone(pid):
    """Gone at once, and not even a zombie: the worker's end has been waited for."""
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def children():
    """Processes that this one has started and that are still there."""
    listed = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(os.getpid())],
        capture_output=True,
        text=True,
        check=True,
    )
    return [line for line in listed.stdout.splitlines() if "edgecal.worker" in line]


def test_calls_share_one_process_and_what_its_modules_keep():
    seen = []
    with Worker() as worker:
        answers = [keep(worker, text, on_progress=seen.append) for text in "abc"]
        assert len(children()) == 1
    (pid,) = {pid for pid, _ in answers}
    assert [kept for _, kept in answers] == [["a"], ["a", "b"], ["a", "b", "c"]]
    assert seen == [0, 1, 2]  # each call's signs, none of an earlier one's
    assert_gone(pid)
    assert children() == []


def test_two_workers_share_nothing():
    with Worker() as one, Worker() as other:
        first, second = keep(one, 1), keep(other, 2)
        assert first[0] != second[0] and second[1] == [2]
    assert children() == []


@pytest.mark.parametrize(
    ("job", "error"),
    [
        ("refuse", InputError),
        ("fail", RuntimeError),
        ("use_all_memory", ModelError),
        ("abort", ModelError),
        ("leave", ModelError),
        ("be_killed", ModelError),
    ],
)
def test_after_a_call_that_failed_the_next_one_starts_anew(job, error):
    with Worker() as worker:
        pid, _ = keep(worker, "before")
        with pytest.raises(error):
            worker.call(f"worker_jobs:{job}", "that", what="model m.gguf")
        assert_gone(pid)
        new_pid, kept = keep(worker, "after")
        assert new_pid != pid and kept == ["after"]
    assert_gone(new_pid)
    assert children() == []


def test_a_process_that_dies_between_two_calls_is_one_line_and_replaced():
    with Worker() as worker:
        pid, _ = keep(worker, 1)
        os.kill(pid, 9)
        with pytest.raises(ModelError, match=r"^model m\.gguf: .*SIGKILL"):
            keep(worker, 2)
        assert keep(worker, 3)[1] == [3]
    assert children() == []


def test_nothing_runs_before_the_first_call_nor_after_close():
    worker = Worker()
    assert children() == []
    worker.close()  # harmless
    pid, _ = keep(worker, 1)
    worker.close()
    worker.close()
    assert_gone(pid)
    assert keep(worker, 2)[1] == [2]  # a closed one may be called again
    worker.close()
    assert children() == []


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
def test_an_exception_of_the_callers_ends_the_process(error):
    pids = []
    with pytest.raises(error), Worker() as worker:
        pids.append(keep(worker, 1)[0])
        raise error
    assert_gone(pids[0])

    def refuse_to_listen(progress):
        raise error

    with pytest.raises(error), Worker() as worker:
        pids.append(keep(worker, 1)[0])
        keep(worker, 2, on_progress=refuse_to_listen)
    assert_gone(pids[1])
    assert children() == []


def test_a_hanging_call_ends_the_process_and_the_next_one_starts_anew(tmp_path):
    with Worker() as worker:
        with pytest.raises(ModelError, match=r"did not respond for 0\.4 s"):
            worker.call("worker_jobs:hang", str(tmp_path / "pid"), what="m", timeout_s=0.4)
        assert keep(worker, 1)[1] == [1]


def test_a_worker_of_a_parent_that_dies_between_calls_dies_too():
    script = (
        "import os, sys; from edgecal.worker import Worker; w = Worker(); "
        "print(w.call('keeping_jobs:keep', 1, what='m')[0], flush=True); os._exit(0)"
    )
    root = str(Path(sys.modules["edgecal"].__file__).parents[1])
    path = os.pathsep.join([sys.path[0], SUPPORT, root])
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    stat = Path(f"/proc/{int(done.stdout)}/stat")
    deadline_s = time.monotonic() + 20
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline_s, "the worker is still there"
        time.sleep(0.05)
