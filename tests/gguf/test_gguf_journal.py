"""Journals: torn, copied, renamed, restored, forged; power cuts put together sector by sector; edits under way."""

import os
import random
import shutil
import struct
import subprocess
import sys
import threading
import time

import pytest
from support.gguf_files import bare_tensor, key, raw_gguf, write_bytes
from support.kill import killed_after

from edgecal.errors import InputError
from edgecal.gguf import draft as lease
from edgecal.gguf.header import FILLER_KEY, read_header
from edgecal.gguf.inplace import journal as journals
from edgecal.gguf.inplace.engine import edit_in_place
from edgecal.gguf.inplace.journal import journaled, recover
from edgecal.gguf.inplace.kernel import shift_tail
from edgecal.gguf.inplace.patch import Patch, State, settle, state_of
from edgecal.gguf.shards import find_shards
from edgecal.gguf.values import Value, ValueType

DATA = random.Random(3).randbytes(400_000)
PLAIN = raw_gguf(
    [
        key("general.sampling.temp", Value.float32(0.7)),
        key("tokens", Value.array(ValueType.STRING, [f"token {i}" for i in range(500)])),
    ],
    [bare_tensor("w", [100_000])],
    DATA,
)
STAMP = ({"general.sampling.temp": Value.float32(1.5), "edgecal.temperature": Value.float32(1.5)}, [])
EDITS = {
    "insert": ([], STAMP),
    "write": ([STAMP], ({"general.sampling.temp": Value.float32(2.5), "n": Value.string("n" * 900)}, [])),
    "collapse": (
        [STAMP],
        ({"general.sampling.temp": Value.float32(0.7)}, ["edgecal.temperature", FILLER_KEY]),
    ),
}


class Killed:
    """A file whose edit was killed after the n-th call named `call`; `old` and `new` are its bytes.

    Of the edit's four flushes the third is the folder's, when the journal is there and nothing was changed,
    and the fourth the file's, when all was.
    """

    def __init__(self, folder, name="insert", call="fsync", nth=3):
        self.path = write_bytes(folder / "m.gguf", PLAIN)
        before, edit = EDITS[name]
        for each in before:
            self.edit(*each)
        self.old = self.path.read_bytes()
        self.edit(*edit)
        self.new = self.path.read_bytes()
        n, found = 0, 0
        while found < nth:
            n += 1
            write_bytes(self.path, self.old)
            for left in folder.glob(".edgecal-*"):
                left.unlink()
            said = killed_after(n, lambda: self.edit(*edit))
            assert said is not None, f"the edit made {found} calls of {call}"
            found += said == call
        self.journal = next(iter(folder.glob(".edgecal-*.journal")), None)

    def edit(self, changes, remove):
        edit_in_place(read_header(self.path), changes, remove)

    def patch(self):
        raw = self.journal.read_bytes()
        patch = journals._decode(raw, self.journal)
        assert isinstance(patch, Patch)
        return patch


@pytest.fixture
def shifted(tmp_path):
    """Killed when the tail was moved and nothing else: only the journal can make the file whole."""
    killed = Killed(tmp_path, call="fallocate", nth=1)
    assert killed.path.read_bytes() not in (killed.old, killed.new)
    return killed


def test_finished_by_the_next_command(shifted):
    said = recover(shifted.path)
    assert said is not None
    assert said.startswith(str(shifted.path))
    assert said.endswith("has been finished")
    assert "\n" not in said
    assert shifted.path.read_bytes() == shifted.new
    assert not shifted.journal.exists()
    assert recover(shifted.path) is None


def test_whoever_looks_for_the_model_recovers_it(shifted):
    assert find_shards(shifted.path).header.keys
    assert shifted.path.read_bytes() == shifted.new


def test_show_recovers(shifted):
    done = subprocess.run([sys.executable, "-m", "edgecal", "show", str(shifted.path)], capture_output=True)
    assert done.returncode == 0
    assert shifted.path.read_bytes() == shifted.new


def test_by_a_symbolic_link(shifted, tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "link.gguf").symlink_to(shifted.path)
    recover(folder / "link.gguf")
    assert shifted.path.read_bytes() == shifted.new


def test_the_next_edit_recovers_first(tmp_path):
    """Also where nobody called `recover` before it read the header."""
    killed = Killed(tmp_path, nth=4)
    assert killed.path.read_bytes() == killed.new
    assert killed.journal.exists()
    edit_in_place(read_header(killed.path), {"edgecal.temperature": Value.float32(3.0)})
    assert read_header(killed.path).get("edgecal.temperature") == 3.0
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]


def test_renamed(shifted, tmp_path):
    moved = shifted.path.rename(tmp_path / "renamed.gguf")
    assert recover(moved).endswith("finished")
    assert moved.read_bytes() == shifted.new


def test_the_folder_was_copied(shifted, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in (shifted.path.name, shifted.journal.name):
        shutil.copy(tmp_path / name, copy / name)
    assert recover(copy / shifted.path.name).endswith("finished")
    assert (copy / shifted.path.name).read_bytes() == shifted.new
    recover(shifted.path)
    assert shifted.path.read_bytes() == shifted.new


@pytest.mark.parametrize(
    "other", ["another model", "of the same size", "of the new size", "the old one", "the new one"]
)
def test_another_file_in_its_place(shifted, tmp_path, other):
    """Whatever lies there now is right as it is, and stays."""
    raw = {
        "another model": raw_gguf([key("k", Value.uint32(1))], [bare_tensor("w", [4])], bytes(16)),
        "of the same size": shifted.old[:-5] + b"other",
        "of the new size": shifted.new[:-5] + b"other",
        "the old one": shifted.old,
        "the new one": shifted.new,
    }[other]
    write_bytes(tmp_path / "x", raw).replace(shifted.path)
    said = recover(shifted.path)
    assert (said is not None) == (raw in (shifted.old, shifted.new))
    assert shifted.path.read_bytes() == raw
    edit_in_place(read_header(shifted.path), {"k": Value.uint32(7)})
    assert read_header(shifted.path).get("k") == 7


def test_a_file_that_was_restored_while_its_own_is_elsewhere(shifted, tmp_path):
    """The journal of the file that was moved away is kept for it, and finds it again."""
    away = shifted.path.rename(tmp_path / "away.gguf")
    write_bytes(shifted.path, shifted.old[:-5] + b"other")
    assert recover(shifted.path) is None
    assert shifted.journal.exists()
    assert recover(away).endswith("finished")
    assert away.read_bytes() == shifted.new


def test_changed_by_another_program_since(tmp_path):
    """Killed when all was done but the journal was there; then somebody set another value."""
    killed = Killed(tmp_path, nth=4)
    assert killed.path.read_bytes() == killed.new
    place = read_header(killed.path).entries["edgecal.temperature"].value_start
    with killed.path.open("r+b") as file:
        os.pwrite(file.fileno(), struct.pack("<f", 99.0), place)
    said = recover(killed.path)
    assert said.endswith("left as it is")
    assert read_header(killed.path).get("edgecal.temperature") == 99.0
    assert not killed.journal.exists()


def test_broken_by_another_program_since(shifted):
    with shifted.path.open("r+b") as file:
        os.pwrite(file.fileno(), b"broken", shifted.patch().after[-1][0] + 8)
    raw = shifted.path.read_bytes()
    with pytest.raises(InputError, match="another program has changed the file since") as caught:
        recover(shifted.path)
    assert "\n" not in str(caught.value)
    assert shifted.path.read_bytes() == raw
    assert shifted.journal.exists()


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.97, 0.999])
def test_a_torn_journal(tmp_path, share):
    """Nothing was changed before the journal was whole."""
    killed = Killed(tmp_path, nth=3)
    assert killed.path.read_bytes() == killed.old
    raw = killed.journal.read_bytes()
    killed.journal.write_bytes(raw[: int(share * len(raw))])
    assert "had not begun" in recover(killed.path)
    assert killed.path.read_bytes() == killed.old
    assert not killed.journal.exists()


def test_a_journal_of_a_newer_edgecal(shifted):
    from hashlib import blake2b

    raw = bytearray(shifted.journal.read_bytes()[: -journals.DIGEST_BYTES])
    raw[len(journals.MAGIC)] = 2
    shifted.journal.write_bytes(raw + blake2b(raw, digest_size=journals.DIGEST_BYTES).digest())
    before = shifted.path.read_bytes()
    with pytest.raises(InputError, match="newer edgecal"):
        recover(shifted.path)
    assert shifted.path.read_bytes() == before


@pytest.mark.parametrize(
    "head",
    [
        b"{bad}",
        b"[]",
        b"[" * 9000,
        b'{"size": 1}',
        b'{"size": "1", "tail": 0, "offset": 0, "shift": 0, "anchor": "", "before": [], "after": []}',
        b'{"size": 9, "tail": 0, "offset": -1, "shift": 0, "anchor": "", "before": [], "after": []}',
        b'{"size": 9, "tail": 0, "offset": 0, "shift": 0, "anchor": "", "before": [[-4, 0]], "after": []}',
        b'{"size": 9, "tail": 0, "offset": 0, "shift": 0, "anchor": "", "before": [], "after": [[0, 5]]}',
    ],
)
def test_a_whole_journal_that_makes_no_sense(shifted, head):
    """Said in one line; the file and the journal stay."""
    from hashlib import blake2b

    raw = journals.MAGIC + struct.pack("<IQ", journals.FORMAT, len(head)) + head
    raw += blake2b(raw, digest_size=journals.DIGEST_BYTES).digest()
    shifted.journal.write_bytes(raw)
    before = shifted.path.read_bytes()
    with pytest.raises(InputError, match="a journal that edgecal did not write; remove it"):
        recover(shifted.path)
    assert shifted.path.read_bytes() == before and shifted.journal.read_bytes() == raw


def test_forged_journals_are_not_followed(shifted, tmp_path):
    """In a folder that others can write to: neither a link nor another user's journal decides about a file."""
    before = shifted.path.read_bytes()
    name = shifted.journal.rename(tmp_path / "kept")
    shifted.journal.symlink_to(name)
    assert recover(shifted.path) is None
    shifted.journal.unlink()
    shifted.journal.mkdir()
    assert recover(shifted.path) is None
    shifted.journal.rmdir()
    shutil.copy(name, shifted.journal)
    if os.geteuid() == 0:
        os.chown(shifted.journal, 12345, 12345)
        assert recover(shifted.path) is None
        os.chown(shifted.journal, 0, 0)
    assert shifted.path.read_bytes() == before
    assert recover(shifted.path).endswith("finished")


def test_without_the_right_to_finish(shifted):
    """Reading a half-edited file would give wrong numbers: refused, in one line."""
    if subprocess.run(["chattr", "+i", str(shifted.path)], check=False, capture_output=True).returncode:
        shifted.path.chmod(0o444)
    before = shifted.path.read_bytes()
    try:
        with pytest.raises(InputError, match="cannot be finished") as caught:
            recover(shifted.path)
        assert "\n" not in str(caught.value)
    finally:
        subprocess.run(["chattr", "-i", str(shifted.path)], check=False, capture_output=True)
        shifted.path.chmod(0o644)
    assert shifted.path.read_bytes() == before
    assert recover(shifted.path).endswith("finished")


def test_nothing_to_do(tmp_path):
    path = write_bytes(tmp_path / "m.gguf", PLAIN)
    assert recover(path) is None
    assert recover(tmp_path / "missing.gguf") is None
    assert recover(tmp_path / "no folder" / "m.gguf") is None
    write_bytes(tmp_path / ".edgecal-junk.journal", b"")
    write_bytes(tmp_path / ".edgecal-00000000-1.journal", b"of another file")
    assert recover(path) is None
    assert len(list(tmp_path.iterdir())) == 3


def test_an_edit_under_way_is_waited_for(tmp_path):
    path = write_bytes(tmp_path / "m.gguf", PLAIN)
    patch = Killed(tmp_path, nth=3).patch()
    write_bytes(path, PLAIN)
    recover(path)
    begun = threading.Event()

    def edit():
        with path.open("r+b") as file, journaled(path, file.fileno(), patch) as journal:
            begun.set()
            time.sleep(0.3)
            journal.remove()

    editor = threading.Thread(target=edit)
    editor.start()
    begun.wait()
    began = time.monotonic()
    assert recover(path) is None
    assert time.monotonic() - began > 0.2
    editor.join()


def test_an_edit_that_takes_too_long(tmp_path, monkeypatch):
    patch = Killed(tmp_path, nth=3).patch()
    path = tmp_path / "m.gguf"
    recover(path)
    monkeypatch.setattr(lease, "WAIT_S", 0.05)
    with path.open("r+b") as file, journaled(path, file.fileno(), patch) as journal:
        with pytest.raises(InputError, match="another process"):
            recover(path)
        journal.remove()


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("name", EDITS)
def test_power_cuts(tmp_path, name, moved):
    """Any mixture of sectors that were or were not written, with the tail in either place."""
    killed = Killed(tmp_path, name, nth=3)
    patch, raw = killed.patch(), killed.journal.read_bytes()
    assert killed.path.read_bytes() == killed.old
    chance = random.Random(7)
    outcomes = set()
    for trial in range(40):
        write_bytes(killed.path, killed.old)
        killed.journal.write_bytes(raw)
        with killed.path.open("r+b", buffering=0) as file:
            descriptor = file.fileno()
            if moved:
                shift_tail(descriptor, patch.offset, patch.shift)
            share = chance.random()
            for offset, data in patch.after:
                for start in range(offset // 512 * 512, offset + len(data), 512):
                    low, high = max(start, offset), min(start + 512, offset + len(data))
                    at = low
                    if not moved and patch.shift and low >= patch.offset:
                        at = low - patch.shift  # the block is the same one, it only has its old number
                        if patch.shift > 0 and low < patch.offset + patch.shift:
                            continue  # a fresh block, which an unmoved file does not have
                        high = min(high, low + 512)
                    if chance.random() < share:
                        os.pwrite(descriptor, data[low - offset : high - offset], at)
            assert state_of(descriptor, patch) in (State.OLD, State.UNMOVED, State.MOVED, State.NEW)
        recover(killed.path)
        now = killed.path.read_bytes()
        assert now in (killed.old, killed.new), trial
        outcomes.add(now == killed.new)
        assert not killed.journal.exists()
    assert outcomes == ({True, False} if name == "write" else {moved})


@pytest.mark.parametrize("name", ["insert", "collapse"])
def test_a_power_cut_while_the_tail_is_moved(tmp_path, name):
    """A gap at each place on its way through the file: closed, whatever the tensors hold."""
    killed = Killed(tmp_path, name, nth=3)
    patch, raw = killed.patch(), killed.journal.read_bytes()
    block = abs(patch.shift)
    gone = set()
    for gap in range(patch.offset, patch.size // block * block, 11 * block):
        write_bytes(killed.path, killed.old)
        killed.journal.write_bytes(raw)
        with killed.path.open("r+b", buffering=0) as file:
            descriptor = file.fileno()
            if patch.shift < 0:
                shift_tail(descriptor, patch.offset, patch.shift)
            shift_tail(descriptor, gap, block)
        recover(killed.path)
        now = killed.path.read_bytes()
        assert now in (killed.old, killed.new), gap
        gone.add(now == killed.new)
        assert not killed.journal.exists()
    assert gone == {True, False}


def test_a_patch_settles_nothing_foreign(tmp_path):
    killed = Killed(tmp_path, nth=3)
    patch = killed.patch()
    other = write_bytes(tmp_path / "other", bytes(patch.size))
    with other.open("r+b") as file:
        assert settle(file.fileno(), patch) is State.FOREIGN
    assert other.read_bytes() == bytes(patch.size)
