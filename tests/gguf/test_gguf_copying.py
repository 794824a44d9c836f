"""Copying spans: every way of it, wherever the two places lie, shared blocks, and disks that refuse."""

import errno
import os
import subprocess

import pytest
from support.file_systems import mounted
from support.gguf_files import write_bytes

from edgecal.errors import OutputError
from edgecal.gguf import copying
from edgecal.gguf.copying import copy_span
from edgecal.gguf.spans import check_same_data, data_digest, first_difference

DATA = os.urandom(3_000_001)


def copy(folder, head, start, n_bytes=None, progress=None):
    """Appends a part of DATA to a file that begins with `head`, and checks what came of it."""
    source = write_bytes(folder / "source", DATA)
    n_bytes = len(DATA) - start if n_bytes is None else n_bytes
    with source.open("rb") as file, (folder / "target").open("w+b", buffering=0) as target:
        target.write(head)
        copy_span(file.fileno(), start, n_bytes, target.fileno(), progress)
        assert target.tell() == len(head) + n_bytes
    assert (folder / "target").read_bytes() == head + DATA[start : start + n_bytes]


PLACES = [(b"", 0), (b"h" * 96, 0), (b"h" * 4096, 4096), (b"h" * 100, 4196), (b"", 17), (b"h" * 5000, 3)]


@pytest.mark.parametrize(("head", "start"), PLACES)
def test_wherever_the_places_lie(tmp_path, head, start):
    copy(tmp_path, head, start)
    copy(tmp_path, head, start, n_bytes=1_000_000)
    copy(tmp_path, head, start, n_bytes=0)


@pytest.mark.parametrize(("head", "start"), PLACES)
def test_in_pieces_that_are_flushed_on_the_way(tmp_path, monkeypatch, head, start):
    sent = []
    real = copying._send_to_disk

    def watched(target, start, n_bytes):
        sent.append((start, n_bytes))
        real(target, start, n_bytes)

    monkeypatch.setattr(copying, "_send_to_disk", watched)
    monkeypatch.setattr(copying, "WINDOW_BYTES", 1 << 18)
    monkeypatch.setattr(copying, "CALL_BYTES", 100_000)
    seen = []
    copy(tmp_path, head, start, progress=lambda *counts: seen.append(counts))
    n_bytes = len(DATA) - start
    assert seen[-1] == (n_bytes, n_bytes)
    if len(seen) > 1:  # not where blocks were shared
        assert seen == sorted(seen)
        ends = [len(head), *(first + length for first, length in sent)]
        assert [first for first, _ in sent] == ends[:-1]  # each goes on where the one before ended
        assert n_bytes - (1 << 18) - 100_000 < ends[-1] - len(head) <= n_bytes


def test_a_full_flush_where_the_system_has_no_other(tmp_path, monkeypatch):
    flushed = []
    real = os.fsync
    monkeypatch.setattr(copying, "_sync_file_range", lambda: None)
    monkeypatch.setattr(os, "fsync", lambda descriptor: (flushed.append(descriptor), real(descriptor)))
    monkeypatch.setattr(copying, "WINDOW_BYTES", 1 << 20)
    monkeypatch.setattr(copying, "CALL_BYTES", 1 << 19)
    copy(tmp_path, b"h" * 96, 0)
    assert len(flushed) == 2


@pytest.mark.parametrize("window", [1 << 18, 1 << 21])  # the second fails in the last piece
def test_a_disk_that_fails_on_the_way_is_an_error(tmp_path, monkeypatch, window):
    monkeypatch.setattr(copying, "_sync_file_range", lambda: lambda *_arguments: errno.EIO)
    monkeypatch.setattr(copying, "WINDOW_BYTES", window)
    monkeypatch.setattr(copying, "CALL_BYTES", 100_000)
    with pytest.raises(OSError) as caught:
        copy(tmp_path, b"h" * 96, 0)
    assert caught.value.errno == errno.EIO


def test_a_file_system_that_cannot_flush_a_part_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(copying, "_sync_file_range", lambda: lambda *_arguments: errno.EINVAL)
    monkeypatch.setattr(copying, "WINDOW_BYTES", 1 << 18)
    monkeypatch.setattr(copying, "CALL_BYTES", 100_000)
    copy(tmp_path, b"h" * 96, 0)


def test_blocks_are_shared_where_the_file_system_can(tmp_path):
    with mounted("xfs", tmp_path) as folder:
        for head, start in PLACES:
            seen = []
            copy(folder, head, start, progress=lambda *counts, seen=seen: seen.append(counts))
            aligned = (start - len(head)) % 4096 == 0
            extents = subprocess.run(
                ["filefrag", "-v", "target"], capture_output=True, text=True, check=True, cwd=folder
            ).stdout
            assert ("shared" in extents) == aligned, (head, start, extents)
            source = (folder / "source").read_bytes()
            with (folder / "target").open(
                "r+b"
            ) as target:  # the copy is one: writing to it changes nothing else
                target.seek(-1, os.SEEK_END)
                target.write(b"\0")
            assert (folder / "source").read_bytes() == source == DATA


def test_a_span_beyond_the_source_is_not_shared_but_refused(tmp_path):
    source = write_bytes(tmp_path / "source", DATA)
    with (
        source.open("rb") as file,
        (tmp_path / "target").open("w+b") as target,
        pytest.raises(OSError) as caught,
    ):
        copy_span(file.fileno(), 0, len(DATA) + 4096, target.fileno())
    assert caught.value.errno == errno.EIO


def test_differences_are_found_wherever_they_are(tmp_path):
    first = write_bytes(tmp_path / "a", DATA)
    for at in (0, 1, (1 << 20) - 1, 1 << 20, len(DATA) - 1):
        second = write_bytes(tmp_path / "b", b"xy" + DATA[:at] + bytes([DATA[at] ^ 1]) + DATA[at + 1 :])
        with first.open("rb") as one, second.open("rb") as other:
            found = first_difference(one.fileno(), 0, other.fileno(), 2, len(DATA))
            assert found == at
            assert first_difference(one.fileno(), 0, other.fileno(), 2, at) is None
            with pytest.raises(OutputError, match=f"byte {at + 2}"):
                check_same_data(one.fileno(), 0, other.fileno(), 2, second)
            with pytest.raises(OutputError, match="another size"):
                check_same_data(one.fileno(), 0, other.fileno(), 3, second)
        assert data_digest(first, 0) != data_digest(second, 2)
    write_bytes(tmp_path / "b", b"xy" + DATA)
    assert data_digest(first, 0) == data_digest(tmp_path / "b", 2)
    with first.open("rb") as one, (tmp_path / "b").open("rb") as other:
        check_same_data(one.fileno(), 0, other.fileno(), 2, first)
        assert first_difference(one.fileno(), 0, other.fileno(), 2, len(DATA) + 1) == len(DATA)
