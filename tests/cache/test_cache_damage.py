"""Whatever happens to a store's file or its folder: no error, no wrong number, one warning at most."""

import os
import random
import shutil
import sqlite3
import subprocess
import time

import numpy as np
import pytest
from support.file_systems import mounted
from support.kill import kill_after_every_call, kill_at_random_moments

from edgecal.cache import CaptureCache, DigestMemo, list_stores
from edgecal.cache.store import CheckedStore

CONTEXT = {"model": "Tiny", "n": 1}


def make_items(n=60, seed=0):
    """Values of 100 bytes to 10 KB, so that some lie in a page and some over several."""
    rng = np.random.default_rng(seed)
    sizes = [4, 40, 400, 2500]
    return {
        rng.bytes(32): {
            "final": rng.normal(size=4).astype("f4"),
            "layers": rng.normal(size=sizes[i % 4]).astype("f4"),
        }
        for i in range(n)
    }


ITEMS = make_items()
KEYS = list(ITEMS)


def equal(found, wanted):
    return found.keys() == wanted.keys() and all(
        found[name].dtype == wanted[name].dtype and np.array_equal(found[name], wanted[name])
        for name in wanted
    )


def check_use(folder, items=ITEMS, **options):
    """Reads, writes what is missing and reads again: (how many were found at first, all at last, the warning)."""
    with CaptureCache(folder, CONTEXT, **options) as cache:
        found = cache.read(list(items))
        assert all(
            arrays is None or equal(arrays, items[key]) for key, arrays in zip(items, found, strict=True)
        )
        missing = [key for key, arrays in zip(items, found, strict=True) if arrays is None]
        cache.write([(key, items[key]) for key in missing])
        again = cache.read(list(items))
        assert all(
            arrays is None or equal(arrays, items[key]) for key, arrays in zip(items, again, strict=True)
        )
        warning = cache.warning
    assert warning is None or "\n" not in warning
    return len(items) - len(missing), all(arrays is not None for arrays in again), warning


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A store's bytes."""
    folder = tmp_path_factory.mktemp("whole")
    with CaptureCache(folder, CONTEXT) as cache:
        cache.write(ITEMS.items())
    return cache.path.name, cache.path.read_bytes()


def put(folder, whole, data):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / whole[0]).write_bytes(data)


def heals(folder):
    """A damaged store is good again for the next run, or, where only writing met the damage, for the one after."""
    first = check_use(folder)
    second = check_use(folder)
    if second != (len(ITEMS), True, None):
        assert second[1], (first, second)
        assert check_use(folder) == (len(ITEMS), True, None), (first, second)
    return first


def test_flipped_bytes_everywhere(tmp_path, whole):
    chance = random.Random(0)
    size = len(whole[1])
    # The header and the schema, the head of every page, and anywhere.
    places = [*range(16, 32), *range(32, 100, 4)]
    places += [page + chance.randrange(12) for page in range(0, size, 8192)]
    places += [chance.randrange(100, 4096) for _ in range(25)] + [chance.randrange(size) for _ in range(40)]
    kept = lost = 0
    for place in places:
        data = bytearray(whole[1])
        data[place] ^= chance.choice([0xFF, 0x01, 0x80, chance.randrange(1, 256)])
        put(tmp_path / "c", whole, bytes(data))
        n_found = heals(tmp_path / "c")[0]
        kept += n_found
        lost += len(ITEMS) - n_found
    assert kept > lost > 0


def test_wiped_and_swapped_regions(tmp_path, whole):
    chance = random.Random(1)
    size = len(whole[1])
    for _ in range(30):
        data = bytearray(whole[1])
        start, n_bytes = chance.randrange(size), chance.choice([16, 512, 4096, 30000])
        how = chance.choice(["zeros", "noise", "swap", "cut out"])
        end = min(start + n_bytes, size)
        if how == "zeros":
            data[start:end] = bytes(end - start)
        elif how == "noise":
            data[start:end] = chance.randbytes(end - start)
        elif how == "cut out":
            del data[start:end]
        else:
            first, second = (4096 * chance.randrange(size // 4096) for _ in range(2))
            data[first : first + 4096], data[second : second + 4096] = (
                data[second : second + 4096],
                data[first : first + 4096],
            )
        put(tmp_path / "c", whole, bytes(data))
        heals(tmp_path / "c")


def test_values_that_change_places_are_not_found(tmp_path, whole):
    """Damage that SQLite cannot see: every page is as it should be."""
    put(tmp_path / "c", whole, whole[1])
    statement = 'UPDATE cells SET "check" = (SELECT "check" FROM cells WHERE key = ?2), body = (SELECT body FROM cells '
    with sqlite3.connect(tmp_path / "c" / whole[0]) as connection:
        connection.execute(statement + "WHERE key = ?2) WHERE key = ?1", (KEYS[0], KEYS[4]))
        connection.execute('UPDATE cells SET "rank" = 7 WHERE key = ?', (KEYS[1],))
        connection.execute("UPDATE cells SET body = x'00' WHERE key = ?", (KEYS[2],))
        connection.execute("UPDATE cells SET body = 'text' WHERE key = ?", (KEYS[3],))
    connection.close()
    assert check_use(tmp_path / "c") == (len(ITEMS) - 4, True, None)
    assert check_use(tmp_path / "c") == (len(ITEMS), True, None)


def test_values_of_another_context_are_not_found(tmp_path):
    items = list(ITEMS.items())[:5]
    paths = []
    for context in ({"model": "Other"}, CONTEXT):
        with CaptureCache(tmp_path, context) as cache:
            cache.write(items if context is not CONTEXT else [])
        paths.append(cache.path)
    with sqlite3.connect(paths[1]) as connection:
        connection.execute("ATTACH ? AS other", (str(paths[0]),))
        connection.execute("INSERT INTO cells SELECT * FROM other.cells")
    connection.close()
    assert check_use(tmp_path, dict(items)) == (0, True, None)


def test_a_file_that_only_says_it_is_read_only(tmp_path, whole):
    data = bytearray(whole[1])
    data[18] = 3  # the version of the format that is needed to write
    put(tmp_path / "c", whole, bytes(data))
    with CaptureCache(tmp_path / "c", CONTEXT) as cache:
        cache.write([(b"new", ITEMS[KEYS[0]])])
        assert "readonly" in cache.warning
        assert "begun anew" in cache.warning
        assert equal(cache.read([b"new"])[0], ITEMS[KEYS[0]])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"TABLE cells (", b"TABLE cel\xdf\xff ("),  # SQLite quotes it, and it is not text
        (b"TABLE cells (", b"TABLE ce\0ls ("),
        (b"tablecells", b"tablecell\xdf"),
        (b", body BLOB", b", b\xdfdy BLOB"),
        (b'"check" BLOB', b'"chexk" BLOB'),
        (b"KEY, ", b"KEX, "),
    ],
)
def test_a_damaged_schema(tmp_path, whole, old, new):
    at = whole[1].index(old)
    assert at < 4096
    put(tmp_path / "c", whole, whole[1][:at] + new + whole[1][at + len(new) :])
    warning = heals(tmp_path / "c")[2]
    assert "was damaged" in warning
    assert list_stores(tmp_path / "c")[0].n_prompts == len(ITEMS)


def test_values_that_share_a_page_do_not_damage_each_other_again_and_again(tmp_path, whole):
    """The link from one page of a long value to the next leads into another value."""
    first, second = (
        whole[1].index(ITEMS[key]["layers"][-20:].tobytes()) // 4096 for key in (KEYS[3], KEYS[7])
    )
    numbers = [(page + 1).to_bytes(4, "big") for page in (first, second)]
    links = [
        4096 * page for page in range(len(whole[1]) // 4096) if whole[1][4096 * page :][:4] == numbers[0]
    ]
    assert len(links) == 1
    data = bytearray(whole[1])
    data[links[0] : links[0] + 4] = numbers[1]
    put(tmp_path / "c", whole, bytes(data))
    n_found, _, warning = heals(tmp_path / "c")
    assert n_found == len(ITEMS) - 1
    assert "its values overlap" in warning


@pytest.mark.parametrize("size", [0, 1, 15, 16, 99, 100, 512, 4095, 4096, 4097, 8192, 20000, -4096, -1])
def test_truncated_files(tmp_path, whole, size):
    put(tmp_path / "c", whole, whole[1][:size])
    n_found, _, warning = heals(tmp_path / "c")
    assert n_found < len(ITEMS)
    if size in (
        0,
        1,
        -1,
    ):  # SQLite takes the first two for empty files, and zeros for the byte that is missing
        assert warning is None
    else:
        assert "has been begun anew" in warning


@pytest.mark.parametrize("data", [b"GGUF" * 5000, b"SQLite format 3\0" + bytes(4080), bytes(20000)])
def test_files_that_are_something_else(tmp_path, whole, data):
    put(tmp_path / "c", whole, data)
    warning = heals(tmp_path / "c")[2]
    assert "was damaged" in warning
    assert str(tmp_path) in warning


def test_another_store_under_this_name(tmp_path, whole):
    with CaptureCache(tmp_path / "d", {"model": "Other"}) as other:
        other.write(ITEMS.items())
    put(tmp_path / "c", whole, other.path.read_bytes())
    found, complete, warning = check_use(tmp_path / "c")
    assert (found, complete) == (0, True)
    assert "something else" in warning


def test_a_store_of_another_version_is_left_alone(tmp_path, whole):
    put(tmp_path / "c", whole, whole[1])
    newer = tmp_path / "c" / whole[0].replace(".v1.", ".v2.")
    (tmp_path / "c" / whole[0]).rename(newer)
    assert check_use(tmp_path / "c") == (0, True, None)
    assert newer.read_bytes() == whole[1]


def test_damage_while_it_is_open(tmp_path):
    with CaptureCache(tmp_path, CONTEXT) as cache:
        cache.write(ITEMS.items())
        cache.path.write_bytes(b"\0" * 30000)
        assert cache.read(KEYS) == [None] * len(KEYS)
        assert "begun anew" in cache.warning
        cache.write(ITEMS.items())
        assert all(map(equal, cache.read(KEYS), ITEMS.values()))
        cache.path.write_bytes(b"\0" * 30000)
        cache.write([(b"k", ITEMS[KEYS[0]])])
        assert cache.read(KEYS) == [None] * len(KEYS)
        assert cache.warning.count("begun anew") == 1


def test_a_store_that_is_cleared_while_it_is_open(tmp_path):
    with CaptureCache(tmp_path, CONTEXT) as cache:
        cache.write(ITEMS.items())
        cache.path.unlink()
        found = cache.read(KEYS)
        assert all(
            arrays is None or equal(arrays, ITEMS[key]) for key, arrays in zip(KEYS, found, strict=True)
        )
        cache.write(ITEMS.items())
        cache.read(KEYS)
    check_use(tmp_path)
    assert check_use(tmp_path) == (len(ITEMS), True, None)


# A folder or a disk that does not take what it is given


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
        assert "keeps nothing more" in warning
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
