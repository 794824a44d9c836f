"""Whatever happens to a store's bytes: no error, no wrong number, one warning at most."""

import random
import sqlite3

import pytest
from support.stores import CONTEXT, ITEMS, KEYS, check_use, equal, heals, put

from edgecal.cache import CaptureCache, list_stores


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
        assert "recreated" in cache.warning
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
        assert "has been recreated empty" in warning


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
    assert "its context is not the one in its name" in warning


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
        assert "recreated" in cache.warning
        cache.write(ITEMS.items())
        assert all(map(equal, cache.read(KEYS), ITEMS.values()))
        cache.path.write_bytes(b"\0" * 30000)
        cache.write([(b"k", ITEMS[KEYS[0]])])
        assert cache.read(KEYS) == [None] * len(KEYS)
        assert cache.warning.count("recreated") == 1


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
