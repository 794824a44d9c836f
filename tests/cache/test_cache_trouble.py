"""Full disks, folders that cannot be used, locks and kills: no error, no wrong number, one warning at most."""

import os
import shutil
import sqlite3
import subprocess
import time

import pytest
from support.file_systems import mounted
from support.kill import kill_after_every_call, kill_at_random_moments
from support.stores import CONTEXT, ITEMS, KEYS, check_use, equal, make_items, put

from edgecal.cache import CaptureCache, DigestMemo, list_stores
from edgecal.cache.store import CheckedStore


def test_a_full_disk(tmp_path):
    with mounted("tmpfs", tmp_path, mib=1) as folder:
        with CaptureCache(folder / "c", CONTEXT) as cache:
            cache.write(list(ITEMS.items())[:30])
            filler = folder / "filler"
            with pytest.raises(OSError, match="No space"), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            cache.write(list(ITEMS.items())[30:])
            assert "full" in cache.warning
            assert str(folder) in cache.warning
            warning = cache.warning
            found = cache.read(KEYS)
            assert all(map(equal, found[:30], list(ITEMS.values())[:30]))
            assert found[30:] == [None] * 30
            cache.write(list(ITEMS.items())[30:])
            assert cache.warning == warning
        n_found, complete, warning = check_use(folder / "c")
        assert (n_found, complete) == (30, False)
        assert "full" in warning
        with CaptureCache(folder / "d", {"another": 1}) as cache:
            cache.write(ITEMS.items())
            assert cache.read(KEYS) == [None] * 60
            assert "full" in cache.warning or "No space" in cache.warning
        filler.unlink()
        (folder / "c" / "left").write_bytes(b"")
        assert check_use(folder / "c") == (30, True, None)


def test_a_full_disk_after_part_of_a_write(tmp_path):
    with mounted("tmpfs", tmp_path, mib=1) as folder, CaptureCache(folder, CONTEXT) as cache:
        few = make_items(8, seed=1)
        cache.write(few.items())
        cache.write(make_items(400, seed=2).items())
        assert "full" in cache.warning
        assert all(map(equal, cache.read(list(few)), few.values()))
        assert not any(cache.read(list(make_items(400, seed=2))))


def test_a_folder_that_is_read_only(tmp_path):
    with mounted("tmpfs", tmp_path) as folder:
        with CaptureCache(folder, CONTEXT) as cache:
            cache.write(list(ITEMS.items())[:30])
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        n_found, complete, warning = check_use(folder)
        assert (n_found, complete) == (30, False)
        assert "the cache is no longer written" in warning
        assert "readonly" in warning
        with CaptureCache(folder, {"another": 1}) as cache:
            cache.write(ITEMS.items())
            assert cache.read(KEYS) == [None] * len(KEYS)
            assert "Read-only" in cache.warning
        with DigestMemo(folder / "deeper") as memo:
            assert memo.recall([], ["a"], lambda: {"a": "b"}) == {"a": "b"}
            assert "Read-only" in memo.warning


@pytest.mark.parametrize(
    "how", ["a file", "a broken link", "a folder for a store", "a pipe for a store", "none", "\0"]
)
def test_folders_that_cannot_be_used(tmp_path, whole, how):
    folder = tmp_path / "c"
    if how == "a file":
        folder.write_bytes(b"")
    elif how == "a broken link":
        folder.symlink_to("nowhere")
    elif how == "none":
        folder = None
    elif how == "\0":
        folder = tmp_path / "\0"
    else:
        folder.mkdir()
        (os.mkfifo if "pipe" in how else os.mkdir)(folder / whole[0])
    n_found, complete, warning = check_use(folder)
    assert (n_found, complete) == (0, False)
    assert warning
    assert list_stores(folder) == []


# Others at the same time


@pytest.mark.parametrize("lock", ["EXCLUSIVE", "IMMEDIATE"])
def test_a_lock_that_is_held_too_long(tmp_path, whole, lock):
    put(tmp_path / "c", whole, whole[1])
    other = sqlite3.connect(tmp_path / "c" / whole[0], isolation_level=None)
    other.execute(f"BEGIN {lock}")
    began = time.monotonic()
    items = {**ITEMS, b"new": ITEMS[KEYS[0]]}
    n_found, complete, warning = check_use(tmp_path / "c", items, lock_timeout_s=0.3)
    assert 0.25 < time.monotonic() - began < 2
    assert "locked" in warning
    assert (n_found, complete) == (0 if lock == "EXCLUSIVE" else len(ITEMS), False)
    other.execute("ROLLBACK")
    other.close()
    assert (tmp_path / "c" / whole[0]).read_bytes() == whole[1]
    assert check_use(tmp_path / "c", items) == (len(ITEMS), True, None)


def test_a_lock_that_is_taken_while_it_is_open(tmp_path):
    with CaptureCache(tmp_path, CONTEXT, lock_timeout_s=0.3) as cache:
        cache.write(ITEMS.items())
        other = sqlite3.connect(cache.path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        for _ in range(5):
            assert cache.read(KEYS) == [None] * len(KEYS)
            cache.write([(b"new", ITEMS[KEYS[0]])])
        assert time.monotonic() - began < 2  # it waits once
        assert "locked" in cache.warning
        other.close()
    assert check_use(tmp_path)[0] == len(ITEMS)


def test_a_damaged_store_that_somebody_else_has_begun_anew_is_not_removed(tmp_path, whole):
    """Both found it damaged; the second must not remove what the first has written since."""
    put(tmp_path / "c", whole, whole[1])
    path = tmp_path / "c" / whole[0]
    with CaptureCache(tmp_path / "c", CONTEXT) as slow:
        path.unlink()
        check_use(tmp_path / "c")
        fresh = path.stat().st_ino
        broken = next(iter(slow.read(KEYS[:1])))
        assert broken is None or equal(broken, ITEMS[KEYS[0]])
        slow._store._fail(sqlite3.DatabaseError("database disk image is malformed"), writing=False)
        assert path.stat().st_ino == fresh
        assert all(map(equal, slow.read(KEYS), ITEMS.values()))


# Kills


def test_a_kill_after_every_system_call(tmp_path, whole):
    """The store is as it was before the write or after it."""
    old, new = list(ITEMS.items())[:8], list(ITEMS.items())[8:20]
    folder = tmp_path / "c"

    def prepare():
        shutil.rmtree(folder, ignore_errors=True)
        with CaptureCache(folder, CONTEXT) as cache:
            cache.write(old)

    def work():
        with CaptureCache(folder, CONTEXT) as cache:
            cache.write(new)

    def check(when):
        with CaptureCache(folder, CONTEXT) as cache:
            found = cache.read([key for key, _ in old + new])
            assert cache.warning is None, (when, cache.warning)
        assert all(map(equal, found[:8], (arrays for _, arrays in old))), when
        there = [arrays is not None for arrays in found[8:]]
        assert all(there) or not any(there), when
        if all(there):
            assert all(map(equal, found[8:], (arrays for _, arrays in new))), when
        seen.add(all(there))
        with CaptureCache(folder, CONTEXT) as cache:
            cache.write(old + new)
            assert all(map(equal, cache.read([key for key, _ in old + new]), dict(old + new).values())), when
            assert cache.warning is None, when

    seen = set()
    names = kill_after_every_call(prepare, work, check)
    assert seen == {True, False}
    assert len(names) > 10


def test_a_kill_while_a_store_is_made(tmp_path):
    folder = tmp_path / "c"
    few = make_items(3)

    def work():
        with CaptureCache(folder, CONTEXT) as cache:
            cache.write(few.items())

    def check(when):
        assert check_use(folder, few)[1:] == (True, None), when

    kill_after_every_call(lambda: shutil.rmtree(folder, ignore_errors=True), work, check)


def test_kills_at_random_moments(tmp_path):
    """One file through all kills: each batch is there wholly or not at all, and none without those before it."""
    folder = tmp_path / "c"
    batches = [make_items(40, seed=10 + i) for i in range(6)]
    written = {key: arrays for batch in batches for key, arrays in batch.items()}

    def work():
        with CaptureCache(folder, CONTEXT) as cache:
            for batch in batches:
                cache.write(batch.items())

    def prepare():
        with CheckedStore(path, about) as store:
            store.keep_newest(0)

    def check(when):
        with CaptureCache(folder, CONTEXT) as cache:
            found = dict(zip(written, cache.read(list(written)), strict=True))
            assert cache.warning is None, (when, cache.warning)
        assert all(arrays is None or equal(arrays, written[key]) for key, arrays in found.items()), when
        batches_there = [{found[key] is not None for key in batch} for batch in batches]
        assert all(len(there) == 1 for there in batches_there), when
        assert batches_there == sorted(batches_there, key=min, reverse=True), when
        n_there.add(sum(map(min, batches_there)))

    n_there: set[int] = set()
    with CaptureCache(folder, CONTEXT) as cache:
        path, about = cache.path, b'{"model":"Tiny","n":1}'
    kill_at_random_moments(25, prepare, work, check)
    assert len(n_there) > 2
