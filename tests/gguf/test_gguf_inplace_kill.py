"""Killed after every single file system call, and at random moments: the old file, the new one, or one that
`recover` makes whole.

EDGECAL_KILLS sets how many random kills must fall inside an edit; `python THIS_FILE [FOLDER]` does 1,000.
"""

import collections
import itertools
import os
import random
import shutil
import sys
import tempfile
import zlib
from pathlib import Path

import pytest
from support.file_systems import MADE, can_insert, mounted
from support.gguf_files import bare_tensor, key, raw_gguf, write_bytes
from support.kill import kill_after_every_call, kill_at_random_moments, killed_after

from edgecal.gguf.header import FILLER_KEY, read_header
from edgecal.gguf.inplace.engine import edit_in_place
from edgecal.gguf.inplace.journal import recover
from edgecal.gguf.output import plan_output
from edgecal.gguf.placing import write_output
from edgecal.gguf.rewrite import write_edited
from edgecal.gguf.shards import find_shards
from edgecal.gguf.values import Value, ValueType
from edgecal.stamping.changes import strip_edits
from edgecal.stamping.edit import write_calibrated
from edgecal.stamping.record import CalibrationRecord

DATA = random.Random(2).randbytes(1 << 18)
PLAIN = raw_gguf(
    [
        key("general.architecture", Value.string("llama")),
        key("general.sampling.temp", Value.float32(0.7)),
        key("tokens", Value.array(ValueType.STRING, [f"token {i}" for i in range(3000)])),
    ],
    [bare_tensor("w", [len(DATA) // 4])],
    DATA,
)
STAMP = {"general.sampling.temp": Value.float32(1.5), "edgecal.temperature": Value.float32(1.5)}
LATER = {"general.sampling.temp": Value.float32(2.5), "edgecal.note": Value.string("n" * 500)}
AWAY = ["edgecal.temperature", FILLER_KEY]

# name: what is done before the edit, then the edit
EDITS = {
    "a value": ([], ({"general.sampling.temp": Value.float32(9.0)}, [])),
    "into an inserted range": ([], (STAMP, [])),
    "into the filler": ([(STAMP, [])], (LATER, [])),
    "out again": ([(STAMP, [])], ({"general.sampling.temp": Value.float32(0.7)}, AWAY)),
    "the vocabulary": ([], ({"tokens": Value.array(ValueType.STRING, ["t"] * 9000)}, [])),
}


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.name not in ("lost+found", "old.gguf"))


class Scenario:
    """One edit of one file: `prepare` makes the old file, `work` edits it, `check` wants the old or the new."""

    def __init__(self, folder, before, edit):
        self.path, self.kept, self.edit = folder / "m.gguf", folder / "old.gguf", edit
        write_bytes(self.path, PLAIN)
        for changes, remove in before:
            edit_in_place(read_header(self.path), changes, remove)
        self.old = self.path.read_bytes()
        self.kept.write_bytes(self.old)
        self.work()
        self.new = self.path.read_bytes()
        assert self.new != self.old
        self.outcomes = collections.Counter()

    def prepare(self):
        shutil.copyfile(self.kept, self.path)

    def work(self):
        edit_in_place(read_header(self.path), *self.edit)

    def check(self, when):
        said = recover(self.path)
        now = self.path.read_bytes()
        assert now in (self.old, self.new), f"{when}: neither old nor new ({said})"
        which = "new" if now == self.new else "old"
        self.outcomes[which if said is None else f"{which}, {said.partition(': ')[2]}"] += 1
        assert recover(self.path) is None, when
        assert not [name for name in names(self.path.parent) if name.endswith(".journal")], when


@pytest.fixture(params=["here", *(kind for kind in MADE if kind != "ext4")])
def folder(request, tmp_path):
    if request.param == "here":
        yield tmp_path
    else:
        with mounted(request.param, tmp_path) as there:
            yield there


@pytest.mark.parametrize("name", EDITS)
def test_after_every_call(folder, name):
    scenario = Scenario(folder, *EDITS[name])
    calls = kill_after_every_call(scenario.prepare, scenario.work, scenario.check)
    assert sum(scenario.outcomes.values()) == len(calls) + 1
    assert {outcome[:3] for outcome in scenario.outcomes} == {"old", "new"}
    if can_insert(folder) and name != "a value":
        assert ("fallocate" in calls) == (name != "into the filler")
        assert any("finished" in outcome for outcome in scenario.outcomes), "no kill fell between old and new"
    scenario.prepare()
    scenario.work()
    assert names(folder) == ["m.gguf"], "a killed edit's leavings were not removed by the next"


@pytest.mark.parametrize("name", ["into an inserted range", "into the filler", "out again"])
def test_recovery_killed_after_every_call(tmp_path, name):
    """Wherever the edit was killed, and wherever the recovery after it was: the next one finishes."""
    scenario = Scenario(tmp_path, *EDITS[name])
    seen, finished = set(), 0
    for n in itertools.count(1):

        def prepare(n=n):
            for left in tmp_path.glob(".edgecal-*"):
                left.unlink()
            scenario.prepare()
            return killed_after(n, scenario.work)

        if prepare() is None:
            break
        journals = tuple(path.stat().st_size for path in tmp_path.glob("*.journal"))
        state = zlib.crc32(scenario.path.read_bytes()), journals
        if journals and state not in seen:
            seen.add(state)
            calls = kill_after_every_call(prepare, lambda: recover(scenario.path), scenario.check)
            finished += "pwrite64" in calls
    assert len(seen) >= 4
    assert finished > 0, "no recovery had anything to write"


@pytest.mark.parametrize("where", ["new file", "over an old result", "in place"])
def test_stamping_killed_after_every_call(tmp_path, where):
    """The whole of stamping: plan, edit, publish. The input is never anything but itself."""
    record = CalibrationRecord(temperature=1.75, method="daca")
    chat, out = tmp_path / "chat.gguf", tmp_path / "out.gguf"
    in_place = where == "in place"
    target = chat if in_place else out
    before = {"new file": None, "over an old result": b"an old result", "in place": PLAIN}[where]

    def prepare():
        write_bytes(chat, PLAIN)
        out.unlink(missing_ok=True)
        if where == "over an old result":
            write_bytes(out, before)

    def work():
        shards = find_shards(chat)
        plan = plan_output(shards, None if in_place else out, in_place=in_place, force=bool(before))
        write_calibrated(shards, plan, record)

    def check(when):
        recover(target)
        now = target.read_bytes() if target.exists() else None
        assert now in (before, expected), when
        if not in_place:
            assert chat.read_bytes() == PLAIN, when

    prepare()
    work()
    expected = target.read_bytes()
    calls = kill_after_every_call(prepare, work, check)
    assert len(calls) > 10
    prepare()
    work()
    assert names(tmp_path) == (["chat.gguf"] if in_place else ["chat.gguf", "out.gguf"])


@pytest.mark.parametrize("stamped", ["in place", "to a new file"])
@pytest.mark.parametrize("stripped", ["in place", "to a new file"])
def test_stripping_killed_after_every_call(tmp_path, stamped, stripped):
    """The original bytes or the stamped ones, whichever way each was done."""
    chat, out = write_bytes(tmp_path / "chat.gguf", PLAIN), tmp_path / "out.gguf"
    shards = find_shards(chat)
    plan = plan_output(shards, None if stamped == "in place" else out, in_place=stamped == "in place")
    write_calibrated(shards, plan, CalibrationRecord(temperature=1.75, method="daca"))
    before = plan.path.read_bytes()
    out.unlink(missing_ok=True)
    in_place = stripped == "in place"
    target = chat if in_place else out

    def prepare():
        write_bytes(chat, before)
        out.unlink(missing_ok=True)

    def work():
        model = find_shards(chat)
        changes, remove = strip_edits(model.header)
        place = plan_output(model, None if in_place else out, in_place=in_place)
        write_output(place, changes=changes, remove=remove)

    def check(when):
        recover(target)
        assert not target.exists() or target.read_bytes() in ((before, PLAIN) if in_place else (PLAIN,)), when
        assert in_place or chat.read_bytes() == before, when

    calls = kill_after_every_call(prepare, work, check)
    assert len(calls) > 10
    assert target.read_bytes() == PLAIN
    assert names(tmp_path) == (["chat.gguf"] if in_place else ["chat.gguf", "out.gguf"])


def test_editing_to_a_new_file_killed_after_every_call(tmp_path):
    source, out = write_bytes(tmp_path / "m.gguf", PLAIN), tmp_path / "out.gguf"
    write_edited(read_header(source), out, changes=STAMP)
    expected = out.read_bytes()

    def check(when):
        assert source.read_bytes() == PLAIN
        assert not out.exists() or out.read_bytes() == expected, when

    calls = kill_after_every_call(
        lambda: out.unlink(missing_ok=True),
        lambda: write_edited(read_header(source), out, changes=STAMP),
        check,
    )
    assert {"rename", "fsync"} <= set(calls)
    assert names(tmp_path) == ["m.gguf", "out.gguf"]


def random_kills(folder, n):
    """`n` kills inside the edits, shared evenly: how many it took, and what was found afterwards, by edit."""
    total, found = 0, {}
    share = -(-n // (len(EDITS) - 1))
    for seed, name in enumerate(list(EDITS)[1:]):
        scenario = Scenario(folder, *EDITS[name])
        total += kill_at_random_moments(share, scenario.prepare, scenario.work, scenario.check, seed)
        found[name] = scenario.outcomes
        scenario.kept.unlink()
    assert total == sum(sum(outcomes.values()) for outcomes in found.values())
    return total, found


def test_at_random_moments(tmp_path):
    n = int(os.environ.get("EDGECAL_KILLS", "80"))
    total, found = random_kills(tmp_path, n)
    assert total >= n
    assert {outcome[:3] for outcomes in found.values() for outcome in outcomes} == {"old", "new"}


if __name__ == "__main__":
    n_kills = int(os.environ.get("EDGECAL_KILLS", "1000"))
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as work_folder:
        n_total, by_edit = random_kills(Path(work_folder), n_kills)
    for edit_name, outcomes in by_edit.items():
        print(edit_name)
        for outcome, count in sorted(outcomes.items()):
            print(f"  {count:4d} {outcome}")
    print(
        f"{n_kills} of {n_total} kills fell inside the edit; afterwards every file was the old or the new one"
    )
