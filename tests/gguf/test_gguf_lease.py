"""Two edits of a file at the same time: one after the other, and the later one never undoes the earlier."""

import contextlib
import fcntl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support.gguf_files import bare_tensor, key, raw_gguf, write_bytes

from edgecal.errors import InputError, OutputError
from edgecal.gguf import draft as lease
from edgecal.gguf.draft import claimed, wait_for_lock
from edgecal.gguf.header import read_header
from edgecal.gguf.rewrite import write_edited
from edgecal.gguf.values import Value

MODEL = raw_gguf([key("k", Value.uint32(7))], [bare_tensor("w", [20_000])], bytes(80_000))
# A value where it is; a file that must be copied, since this test has it open.
EDITS = {"one sector": ["k", "uint32", "8"], "a copy": ["long", "string", "x" * 9000]}


def start(path, edit):
    return subprocess.Popen(
        [sys.executable, "-m", "edgecal", "set", path, *EDITS[edit], "--in-place", "--quiet"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until_opened(process, path):
    """Until the process holds the file that is locked here open for its last step."""
    inode, deadline = path.stat().st_ino, time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):  # one that was closed meanwhile
            if any(link.stat().st_ino == inode for link in Path(f"/proc/{process.pid}/fd").iterdir()):
                time.sleep(0.3)
                return
        time.sleep(0.01)
    raise AssertionError("the command ended or never opened the file")


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("meanwhile", ["nothing", "replaced", "changed"])
def test_a_file_that_another_edit_holds(tmp_path, edit, meanwhile):
    path = write_bytes(tmp_path / "m.gguf", MODEL)
    with path.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        process = start(path, edit)
        wait_until_opened(process, path)
        assert process.poll() is None and path.read_bytes() == MODEL  # it waits
        if meanwhile == "replaced":
            write_bytes(tmp_path / "new", MODEL + b"later")
            (tmp_path / "new").replace(path)
        elif meanwhile == "changed":
            file.write(MODEL[:-1] + b"!")
            file.flush()
        was = path.read_bytes()
        fcntl.flock(file, fcntl.LOCK_UN)
        _, err = process.communicate(timeout=30)
    if meanwhile == "nothing":
        assert (process.returncode, err) == (0, "")
        assert read_header(path).get(EDITS[edit][0]) is not None and path.read_bytes() != MODEL
    else:
        assert process.returncode in (2, 5) and "changed" in err and err.count("\n") == 1
        assert path.read_bytes() == was
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.gguf"]


@pytest.mark.parametrize("changed", [False, True])
def test_a_new_file_takes_the_place_of_one_that_another_edit_holds(tmp_path, changed):
    path = write_bytes(tmp_path / "m.gguf", MODEL)
    header = read_header(path)
    errors = []

    def replace():
        try:
            write_edited(header, path, changes={"k": Value.uint32(8)})
        except OutputError as error:
            errors.append(str(error))

    with path.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        thread = threading.Thread(target=replace)
        thread.start()
        time.sleep(0.5)
        assert thread.is_alive() and path.read_bytes() == MODEL
        if changed:
            file.write(MODEL + b"later")
            file.flush()
        fcntl.flock(file, fcntl.LOCK_UN)
        thread.join()
    if changed:
        assert (
            "changed while its new version was written" in errors[0] and path.read_bytes() == MODEL + b"later"
        )
    else:
        assert not errors and read_header(path).get("k") == 8
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.gguf"]


def test_many_edits_at_the_same_time(tmp_path):
    """Whoever says that it was done has its key in the file, whatever came after."""
    for turn in range(3):
        path = write_bytes(tmp_path / f"{turn}.gguf", MODEL)
        running = [
            subprocess.Popen(
                [sys.executable, "-m", "edgecal", "set", path, f"k{n}", "uint32", str(n), "--in-place", "-q"],
                stderr=subprocess.PIPE,
                text=True,
            )
            for n in range(4)
        ]
        said = [process.communicate(timeout=60)[1] for process in running]
        done = {f"k{n}" for n, process in enumerate(running) if process.returncode == 0}
        assert done and done == {name for name in read_header(path).keys if name[1:]} - {"edgecal.filler"}
        assert all("changed" in text for text in said if text)


def test_a_lock_is_waited_for_and_given_back(tmp_path, monkeypatch):
    path = write_bytes(tmp_path / "m.gguf", MODEL)
    with path.open("rb") as one, path.open("rb") as other:
        with claimed(one.fileno(), path):
            monkeypatch.setattr(lease, "WAIT_S", 0.05)
            with pytest.raises(InputError, match="another process"):
                wait_for_lock(other.fileno(), path)
        wait_for_lock(other.fileno(), path)
