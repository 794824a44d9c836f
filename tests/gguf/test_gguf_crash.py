"""Failures while writing: a full disk, an interrupt, a kill. The old state or the new, and nothing left over."""

import errno
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from support.gguf_files import bare_tensor, key, raw_gguf, write_bytes

from edgecal.errors import InputError, OutputError
from edgecal.gguf import draft
from edgecal.gguf.draft import drafting, hidden_path
from edgecal.gguf.header import read_header
from edgecal.gguf.rewrite import write_edited
from edgecal.gguf.values import Value

N_DATA = 8 << 20
MODEL = raw_gguf([key("k", Value.uint32(0))], [bare_tensor("w", [N_DATA // 4])], bytes(N_DATA))
SMALL = raw_gguf([key("k", Value.uint32(0))], [bare_tensor("w", [4])], bytes(16))
ONE = {"k": Value.uint32(1)}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_full_disk(tmp_path):
    """A real limit on the file's size, which every user can set, stands for the full disk."""
    write_bytes(tmp_path / "m.gguf", MODEL)
    code = textwrap.dedent("""
        import resource, sys
        from pathlib import Path
        from edgecal.errors import OutputError
        from edgecal.gguf.header import read_header
        from edgecal.gguf.rewrite import write_edited
        from edgecal.gguf.values import Value
        resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, 3 << 20))
        try:
            write_edited(read_header(sys.argv[1]), Path(sys.argv[2]), changes={"k": Value.uint32(1)})
        except OutputError as error:
            print(error)
    """)
    for output in ("out.gguf", "m.gguf"):
        found = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "m.gguf"), str(tmp_path / output)],
            check=True,
            capture_output=True,
            text=True,
        )
        assert f"{len(MODEL)} bytes are needed" in found.stdout
        assert "are free" in found.stdout
        assert found.stdout.count("\n") == 1
        assert names(tmp_path) == ["m.gguf"]
        assert (tmp_path / "m.gguf").read_bytes() == MODEL


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("call", ["copy_file_range", "fsync", "write"])
def test_any_call_may_fail(tmp_path, monkeypatch, code, call):
    path = write_bytes(tmp_path / "m.gguf", SMALL)
    header = read_header(path)

    def fault(*_args, **_kwargs):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, fault)
    for output in (path, tmp_path / "out.gguf"):
        with pytest.raises(OutputError) as caught:
            write_edited(header, output, changes=ONE)
        assert os.strerror(code) in str(caught.value)
        assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert path.read_bytes() == SMALL
    assert names(tmp_path) == ["m.gguf"]


def test_a_rename_may_fail(tmp_path):
    path = write_bytes(tmp_path / "m.gguf", SMALL)
    (tmp_path / "out.gguf").mkdir()
    with pytest.raises(OutputError):
        write_edited(read_header(path), tmp_path / "out.gguf", changes=ONE)
    with pytest.raises(OutputError):
        write_edited(read_header(path), tmp_path / "no folder" / "out.gguf", changes=ONE)
    assert names(tmp_path) == ["m.gguf", "out.gguf"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
def test_an_interrupt_leaves_nothing(tmp_path, error):
    path = write_bytes(tmp_path / "m.gguf", SMALL)

    def stop(_done, _total):
        raise error

    with pytest.raises(error):
        write_edited(read_header(path), path, changes=ONE, progress=stop)
    assert path.read_bytes() == SMALL
    assert names(tmp_path) == ["m.gguf"]


def test_a_target_that_changed_meanwhile_is_not_replaced(tmp_path):
    path = write_bytes(tmp_path / "m.gguf", SMALL)
    other = write_bytes(tmp_path / "other.gguf", SMALL + b"another program's work")

    def swap(_done, _total):
        other.replace(path)

    with pytest.raises(OutputError, match="changed"):
        write_edited(read_header(path), path, changes=ONE, progress=swap)
    assert path.read_bytes().endswith(b"another program's work")
    assert names(tmp_path) == ["m.gguf"]


def test_a_target_that_another_edit_replaced_before_the_draft_was_made(tmp_path, monkeypatch):
    """The file that is open here has no name any more then, and looks as it did."""
    path = write_bytes(tmp_path / "m.gguf", SMALL)
    header = read_header(path)

    def edit_meanwhile(target):
        monkeypatch.undo()
        write_edited(read_header(target), target, changes={"theirs": Value.uint32(2)})

    monkeypatch.setattr(draft, "remove_stale", edit_meanwhile)
    with pytest.raises(OutputError, match="changed"):
        write_edited(header, tmp_path / "." / "m.gguf", changes=ONE)
    assert (read_header(path).get("k"), read_header(path).get("theirs")) == (0, 2)
    assert names(tmp_path) == ["m.gguf"]


def test_a_link_at_the_source_s_name_is_replaced(tmp_path):
    real = write_bytes(tmp_path / "real.gguf", SMALL)
    (tmp_path / "m.gguf").symlink_to("real.gguf")
    write_edited(read_header(tmp_path / "m.gguf"), tmp_path / "m.gguf", changes=ONE)
    assert not (tmp_path / "m.gguf").is_symlink() and read_header(tmp_path / "m.gguf").get("k") == 1
    assert real.read_bytes() == SMALL


def test_what_is_read_back_is_compared(tmp_path, monkeypatch):
    """A disk that stores something else is found out before the target is touched."""
    path = write_bytes(tmp_path / "m.gguf", SMALL)
    header = read_header(path)
    real = os.fsync

    def spoil(descriptor):
        real(descriptor)
        os.pwrite(descriptor, b"\x55", 28)

    monkeypatch.setattr(os, "fsync", spoil)
    with pytest.raises(OutputError, match="read back"):
        write_edited(header, path, changes=ONE)
    monkeypatch.undo()
    assert path.read_bytes() == SMALL
    assert names(tmp_path) == ["m.gguf"]


def test_stale_drafts_are_removed_and_live_ones_are_not(tmp_path):
    target = tmp_path / "m.gguf"
    write_bytes(target, SMALL)
    stale = write_bytes(hidden_path(target), b"from a killed run")
    of_another = write_bytes(hidden_path(tmp_path / "another.gguf"), b"not mine")
    hidden_path(target).symlink_to("m.gguf")
    with drafting(target, like=target.stat(), source=target) as live:
        write_edited(read_header(target), target, changes=ONE)
        assert live.path.exists()
        assert not stale.exists()
    assert names(tmp_path) == sorted([of_another.name, "m.gguf"])
    assert read_header(target).get("k") == 1


WRITER = textwrap.dedent("""
    import itertools, sys
    from pathlib import Path
    from edgecal.gguf.header import read_header
    from edgecal.gguf.rewrite import write_edited
    from edgecal.gguf.values import Value
    path = Path(sys.argv[1])
    print("ready", flush=True)
    for value in itertools.count(read_header(path).get("k") + 1):
        write_edited(read_header(path), path, changes={"k": Value.uint32(value)})
        print(value, flush=True)
""")


def test_killed_at_random_moments(tmp_path):
    """SIGKILL in the middle of edit after edit: the file is always whole, and at most one edit behind."""
    path = write_bytes(tmp_path / "m.gguf", MODEL)
    data = MODEL[read_header(path).data_start :]
    chance = random.Random(3)
    left_over = 0
    for _ in range(10):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            time.sleep(chance.uniform(0.0, 0.12))
            writer.send_signal(signal.SIGKILL)
            printed = writer.stdout.read().split()
        header = read_header(path)
        if printed:
            assert header.get("k") - int(printed[-1]) in (0, 1)
        assert path.read_bytes()[header.data_start :] == data
        assert len(names(tmp_path)) <= 2
        left_over += len(names(tmp_path)) - 1
    assert left_over > 0, "no kill fell inside an edit"
    write_edited(read_header(path), path, changes=ONE)
    assert names(tmp_path) == ["m.gguf"]


def test_a_read_only_folder(tmp_path):
    header = read_header(write_bytes(tmp_path / "m.gguf", SMALL))
    with pytest.raises(OutputError) as caught:
        write_edited(header, Path("/sys/edgecal.gguf"), changes=ONE)
    assert "could not be written" in str(caught.value)


def test_a_source_that_vanished(tmp_path):
    path = write_bytes(tmp_path / "m.gguf", SMALL)
    header = read_header(path)
    path.unlink()
    with pytest.raises(InputError, match="no such file"):
        write_edited(header, tmp_path / "out.gguf", changes=ONE)
    assert names(tmp_path) == []
