"""Killed at random moments while a file is written anew: bake, unbake, stamp and strip, whose results are put under
their names when they are complete. Every file afterwards is the old one or the new one, and the next run removes
whatever the killed one left.

EDGECAL_KILLS sets how many kills must fall inside; `python THIS_FILE [FOLDER]` does 1,000.
"""

import collections
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from support.bake_files import CALIBRATED, SHAPES, bakeable, write_split
from support.gguf_files import write_bytes
from support.kill import kill_at_random_moments

from edgecal.baking.bake import bake as bake_model
from edgecal.baking.bake import unbake as unbake_model
from edgecal.gguf.output import plan_output
from edgecal.gguf.placing import write_output
from edgecal.gguf.shards import find_shards
from edgecal.stamping.changes import strip_edits
from edgecal.stamping.edit import write_calibrated
from edgecal.stamping.record import CalibrationRecord

PLAIN = bakeable(CALIBRATED, tail=random.Random(3).randbytes(1 << 20))


def bake(source, target):
    bake_model(source, check=False, **where(source, target))


def unbake(source, target):
    unbake_model(source, **where(source, target))


def stamp(source, target):
    shards = find_shards(source)
    plan = plan_output(shards, target, force=True)
    write_calibrated(shards, plan, CalibrationRecord(temperature=1.75, method="daca"))


def strip(source, target):
    shards = find_shards(source)
    changes, remove = strip_edits(shards.header)
    write_output(plan_output(shards, target, force=True), changes=changes, remove=remove)


def where(source, target):
    return {"in_place": True} if source == target else {"output": target, "force": True}


def write_plain(folder):
    return write_bytes(folder / "m.gguf", PLAIN)


def write_baked(folder):
    bake(write_plain(folder), folder / "m.gguf")
    return folder / "m.gguf"


def write_stamped(folder):
    stamp(write_bytes(folder / "m.gguf", SHAPES["calibrated"] + bytes(1 << 20)), folder / "stamped.gguf")
    return (folder / "stamped.gguf").rename(folder / "m.gguf")


# name: what makes the input, the work, and whether its result goes over the input, over an earlier result, or under
# a new name.
WORKS = {
    "bake to a new file": (write_plain, bake, "new"),
    "bake over a result": (write_plain, bake, "over"),
    "bake in place": (write_plain, bake, "in place"),
    "bake a split model": (write_split, bake, "new"),
    "unbake to a new file": (write_baked, unbake, "new"),
    "unbake in place": (write_baked, unbake, "in place"),
    "stamp to a new file": (write_plain, stamp, "new"),
    "stamp over a result": (write_plain, stamp, "over"),
    "strip to a new file": (write_stamped, strip, "new"),
}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Scenario:
    """One work on one model in a folder of its own, which is made anew from `old` each time."""

    def __init__(self, folder, name):
        make, self._work, how = WORKS[name]
        self.folder = folder / "work"
        self.folder.mkdir()
        self.source = make(self.folder)
        self.target = self.source
        if how != "in place":
            self.target = self.source.with_name(self.source.name.replace("m", "b", 1))
        if how == "over":
            write_bytes(self.target, b"an earlier result")
        self.old = contents(self.folder)
        self.work()
        self.new = contents(self.folder)
        assert self.new != self.old and self.old.keys() <= self.new.keys()
        self.found = collections.Counter()

    def prepare(self):
        shutil.rmtree(self.folder)
        self.folder.mkdir()
        for name, data in self.old.items():
            write_bytes(self.folder / name, data)

    def work(self):
        self._work(self.source, self.target)

    def check(self, when):
        now = contents(self.folder)
        hidden = {name for name in now if name.startswith(".edgecal-")}
        for name in self.new:
            assert now.get(name) in (self.old.get(name), self.new[name]), f"{when}: {name} is neither"
        assert now.keys() - hidden <= self.new.keys(), when
        done = now.get(self.target.name) == self.new[self.target.name]
        if done:  # of a split model the first file comes last
            assert {name: now[name] for name in self.new} == self.new, when
        self.found[("new" if done else "old") + (", a draft left" if hidden else "")] += 1
        for name, data in self.old.items():
            write_bytes(self.folder / name, data)
        self.work()
        assert contents(self.folder) == self.new, f"{when}: the next run left something"


def random_kills(folder, name, n, seed=0):
    """`n` kills inside the work: how many it took, and what was found afterwards."""
    scenario = Scenario(folder, name)
    total = kill_at_random_moments(n, scenario.prepare, scenario.work, scenario.check, seed)
    assert total == sum(scenario.found.values())
    shutil.rmtree(scenario.folder)
    return total, scenario.found


@pytest.mark.parametrize("name", WORKS)
def test_at_random_moments(tmp_path, name):
    n = -(-int(os.environ.get("EDGECAL_KILLS", "90")) // len(WORKS))
    total, found = random_kills(tmp_path, name, n)
    assert total >= n
    assert any(outcome.startswith("old") for outcome in found), found


if __name__ == "__main__":
    n_kills = -(-int(os.environ.get("EDGECAL_KILLS", "1000")) // len(WORKS))
    n_total = 0
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as work_folder:
        for seed, work_name in enumerate(WORKS):
            n_taken, outcomes = random_kills(Path(work_folder), work_name, n_kills, seed)
            n_total += n_taken
            said = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
            print(f"{work_name}: {said}", flush=True)
    print(
        f"{n_kills * len(WORKS)} of {n_total} kills fell inside; every file was the old or the new one, and the next "
        "run left nothing behind"
    )
