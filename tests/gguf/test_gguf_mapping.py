"""A header is read through a map wherever that is safe, and nothing that happens to the file kills the reader."""

import fcntl
import mmap
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from support.file_systems import MADE, mounted
from support.gguf_files import bare_tensor, key, raw_gguf, write_bytes

from edgecal.gguf.bounded_reader import WINDOW_BYTES, BoundedReader
from edgecal.gguf.header import read_header
from edgecal.gguf.values import Value, ValueType

TEXTS = [f"a token with the number {i}" for i in range(100_000)]
LONG = raw_gguf(
    [key("t", Value.array(ValueType.STRING, TEXTS)), key("u", Value.uint32(7))],
    [bare_tensor("w", [2])],
    bytes(8),
)
assert len(LONG) > 3 * WINDOW_BYTES
# As `stat -f` names what edgecal maps from; on other file systems the tests see plain reads.
MAPPED = {"bcachefs", "btrfs", "ext2/ext3", "f2fs", "overlayfs", "tmpfs", "xfs"}


def can_map(folder):
    """Whether edgecal should map a file in this folder: what the file system is, and what the kernel can do."""
    named = subprocess.run(["stat", "-f", "-c", "%T", folder], check=True, capture_output=True, text=True)
    probe = write_bytes(folder / "probe", bytes(4096))
    try:
        with probe.open("rb") as file, mmap.mmap(file.fileno(), 4096, access=mmap.ACCESS_READ) as mapped:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            mapped.madvise(22)  # MADV_POPULATE_READ
    except OSError:
        return False
    finally:
        probe.unlink()
    return named.stdout.strip() in MAPPED


def maps_of(path):
    """The sizes of this process's maps of a file."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    spans = [line.split()[0].split("-") for line in lines if line.endswith(f" {path}")]
    return [int(end, 16) - int(start, 16) for start, end in spans]


@pytest.fixture(params=["here", *MADE])
def folder(request, tmp_path):
    if request.param == "here":
        yield tmp_path
    else:
        with mounted(request.param, tmp_path) as there:
            yield there


def test_one_window_is_mapped_at_a_time_and_none_afterwards(folder):
    path = write_bytes(folder / "m.gguf", LONG)
    with BoundedReader(path) as reader:
        for position in (0, 5, WINDOW_BYTES + 4097, 3 * WINDOW_BYTES):
            reader.position = position
            assert reader.take(100, "it") == LONG[position : position + 100]
            assert len(maps_of(path)) == can_map(folder)
            assert all(size <= WINDOW_BYTES + (1 << 16) for size in maps_of(path))
        if can_map(folder):
            with pytest.raises(BlockingIOError):
                os.open(path, os.O_RDWR | os.O_NONBLOCK)
    assert maps_of(path) == []
    header = read_header(path)
    assert header.get("u") == 7
    assert header.array("t") == TEXTS
    assert maps_of(path) == []
    os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))  # the lease was given back as well


def test_a_file_that_is_open_for_writing_is_not_mapped(folder):
    path = write_bytes(folder / "m.gguf", LONG)
    with path.open("r+b"), BoundedReader(path) as reader:
        reader.position = 4097
        assert reader.take(100, "it") == LONG[4097:4197]
        assert maps_of(path) == []


def test_many_readers_at_once(tmp_path):
    path = write_bytes(tmp_path / "m.gguf", LONG)
    with BoundedReader(path) as one, BoundedReader(path) as other:
        assert one.take(4, "it") == other.take(4, "it") == b"GGUF"
        assert len(maps_of(path)) == 2 * can_map(tmp_path)
        assert read_header(path).get("u") == 7


def test_who_wants_to_write_waits_no_longer_than_the_reading(tmp_path):
    path = write_bytes(tmp_path / "m.gguf", LONG)
    with BoundedReader(path) as reader:
        reader.take(4, "it")
        writer = subprocess.Popen([sys.executable, "-c", f"open({str(path)!r}, 'r+b').truncate(50)"])
        time.sleep(0.5)
        assert reader.take(4, "it") == LONG[4:8]
        if can_map(tmp_path):
            assert path.stat().st_size == len(LONG)
    assert writer.wait(30) == 0
    assert path.stat().st_size == 50


CUTTER = """
    import os, random, sys, time
    path, keeps_open, whole = sys.argv[1], sys.argv[2] == "keeps it open", open(sys.argv[1], "rb").read()
    file = os.open(path, os.O_RDWR) if keeps_open else None
    print("ready", flush=True)
    chance = random.Random(0)
    while True:
        for size in (0, 10, 4096, len(whole) // 2, len(whole) - 100):
            time.sleep(chance.uniform(0, 0.05))
            if keeps_open:
                os.ftruncate(file, size)
                time.sleep(chance.uniform(0, 0.02))
                os.pwrite(file, whole[size:], size)
            else:
                os.truncate(path, size)
                time.sleep(chance.uniform(0, 0.02))
                again = os.open(path, os.O_WRONLY)
                os.pwrite(again, whole[size:], size)
                os.close(again)
"""
READER = """
    import sys, time
    from edgecal.errors import InputError
    from edgecal.gguf.header import read_header
    whole = cut = 0
    end_s = time.monotonic() + float(sys.argv[2])
    while time.monotonic() < end_s or not (whole and cut):
        try:
            read_header(sys.argv[1])
            whole += 1
        except InputError as error:
            assert str(error).count(chr(10)) == 0
            cut += 1
    print(whole, cut)
"""


def cut_while_read(path, way, seconds):
    """How often a reader saw the whole file and a cut one, while another process cut it short and restored it."""
    cutter = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CUTTER), path, way], stdout=subprocess.PIPE
    )
    try:
        cutter.stdout.readline()
        found = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(READER), path, str(seconds)],
            capture_output=True,
            text=True,
            timeout=seconds + 60,
        )
    finally:
        cutter.kill()
        cutter.communicate()
    assert found.returncode == 0, f"exit code {found.returncode}: {found.stderr}"
    return map(int, found.stdout.split())


@pytest.mark.parametrize("way", ["opens it each time", "keeps it open"])
def test_cut_short_by_another_process_while_it_is_read(tmp_path, way):
    path = write_bytes(tmp_path / "m.gguf", LONG)
    whole, cut = cut_while_read(path, way, 4)
    assert whole > 0
    assert cut > 0


def test_a_disk_that_fails_is_an_error(tmp_path):
    """The image of a mounted file system loses its blocks: what is not in memory cannot be read any more. The
    first window is in memory, so that it is the scan that meets the failure, and not the first read."""
    with mounted("ext4", tmp_path) as there:
        path = write_bytes(there / "m.gguf", LONG)
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        subprocess.run(["sync", "-f", there], check=True)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)  # nothing is read ahead
        os.pread(descriptor, WINDOW_BYTES, 0)
        os.close(descriptor)
        image, size = tmp_path / "image", (tmp_path / "image").stat().st_size
        kept = image.read_bytes()
        os.truncate(image, 0)
        try:
            command = [sys.executable, "-m", "edgecal", "show", path]
            found = subprocess.run(command, check=False, capture_output=True, text=True)
        finally:
            image.write_bytes(kept)
            assert image.stat().st_size == size
        assert (found.returncode, found.stdout) == (2, "")
        assert found.stderr == f"edgecal: {path}: cannot be read: Input/output error\n"


if __name__ == "__main__":
    seconds = float(sys.argv[2])
    target = write_bytes(Path(sys.argv[1]) / "cut.gguf", LONG)
    for how in ("opens it each time", "keeps it open"):
        n_whole, n_cut = cut_while_read(target, how, seconds)
        print(f"{how}: read {n_whole} times whole, refused {n_cut} times, never killed")
    target.unlink()
