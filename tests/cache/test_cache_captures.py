"""What was kept is found again, bit for bit, and only by whom it belongs to."""

import hashlib
import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from edgecal.cache import CaptureCache, list_stores
from edgecal.cache.captures import pack_arrays, unpack_arrays

CONTEXT = {"model": "Tiny", "content_sha256": "ab" * 32, "n_threads": 2, "flash_attn": False, "scale": 1.0}


def same(found, wanted):
    """Bit for bit: shapes, types, and NaNs too."""
    if found is None or list(found) != list(wanted):
        return False
    return all(
        found[name].dtype == array.dtype.newbyteorder("=")
        and found[name].shape == array.shape
        and found[name].tobytes() == array.astype(array.dtype.newbyteorder("=")).tobytes()
        for name, array in wanted.items()
    )


ARRAYS = {
    "final": np.array([1.5, -0.0, np.nan, np.inf, 1e-45], np.float32),
    "layers": np.arange(24, dtype=np.float64).reshape(2, 3, 4),
    "ids": np.array([[-(2**31), 2**31 - 1]], np.int32),
    "scalar": np.array(2.5),
    "nothing": np.zeros((0, 7), np.float32),
    "transposed": np.arange(6, dtype=np.int32).reshape(2, 3).T,
    "big-endian": np.arange(5, dtype=">f8"),
    "αβγ": np.arange(3, dtype=np.float32)[::-1],
}


def test_arrays_are_packed_exactly():
    found = unpack_arrays(pack_arrays(ARRAYS))
    assert same(found, ARRAYS)
    assert all(array.flags.writeable and array.flags.c_contiguous for array in found.values())
    assert unpack_arrays(pack_arrays({})) == {}
    nan = np.array([0x7FC12345, 0xFFC00001], np.uint32).view(np.float32)
    assert (unpack_arrays(pack_arrays({"n": nan}))["n"].view(np.uint32) == nan.view(np.uint32)).all()


@pytest.mark.parametrize("dtype", ["float16", "int64", "bool", "uint8", "complex64", "U3"])
def test_other_types_are_refused(dtype):
    with pytest.raises(TypeError, match="expected float32, float64 or int32"):
        pack_arrays({"a": np.zeros(3, dtype)})
    with pytest.raises(ValueError, match="at most 255"):
        pack_arrays({"a" * 256: np.zeros(3)})


def test_what_was_written_is_read(tmp_path):
    with CaptureCache(tmp_path / "c", CONTEXT) as cache:
        assert cache.read([b"k", b"l"]) == [None, None]
        cache.write([(b"k", ARRAYS), (b"", {"one": np.zeros(1)})])
        assert same(cache.read([b"k"])[0], ARRAYS)
        assert cache.read([]) == []
        cache.write([])
    with CaptureCache(tmp_path / "c", dict(reversed(CONTEXT.items()))) as cache:
        found = cache.read([b"l", b"k", b"", b"k"])
        assert [arrays is None for arrays in found] == [True, False, False, False]
        assert same(found[1], ARRAYS)
        assert same(found[3], ARRAYS)
        assert cache.warning is None
    assert cache.read([b"k"]) == [None]
    cache.write([(b"m", ARRAYS)])


def test_a_large_store(tmp_path):
    rng = np.random.default_rng(0)
    items = {
        rng.bytes(32): {
            "final": rng.normal(size=4).astype(np.float32),
            "layers": rng.normal(size=(int(rng.integers(1, 400)), 4)).astype(np.float32),
        }
        for _ in range(2000)
    }
    with CaptureCache(tmp_path, CONTEXT) as cache:
        for start in range(0, 2000, 500):
            cache.write(list(items.items())[start : start + 500])
    with CaptureCache(tmp_path, CONTEXT) as cache:
        keys = [*items, b"other"]
        *found, other = cache.read(keys)
    assert other is None
    assert all(same(arrays, items[key]) for key, arrays in zip(keys[:-1], found, strict=True))


@pytest.mark.parametrize(
    "change",
    [
        {"n_threads": 3},
        {"n_threads": 2.0},
        {"n_threads": "2"},
        {"flash_attn": 0},
        {"flash_attn": True},
        {"scale": 1},
        {"content_sha256": "ab" * 31 + "ac"},
        {"more": ""},
    ],
)
def test_contexts_share_nothing(tmp_path, change):
    with CaptureCache(tmp_path, CONTEXT) as cache:
        cache.write([(b"k", ARRAYS)])
    with CaptureCache(tmp_path, {**CONTEXT, **change}) as cache:
        assert cache.read([b"k"]) == [None]
        assert cache.warning is None


def test_the_name_of_a_store_is_the_digest_of_its_context(tmp_path):
    with CaptureCache(tmp_path, {"b": 1, "a": "ä"}) as cache:
        canonical = b'{"a":"\\u00e4","b":1}'
        assert cache.path == tmp_path / f"captures-{hashlib.sha256(canonical).hexdigest()}.v1.sqlite"
    with pytest.raises(ValueError, match="JSON compliant"):
        CaptureCache(tmp_path, {"a": float("nan")})


def test_more_arrays_replace_fewer(tmp_path):
    few, many = (
        {"final": np.ones(4, np.float32)},
        {"final": np.ones(4, np.float32), "layers": np.ones((2, 4))},
    )
    with CaptureCache(tmp_path, CONTEXT) as cache:
        cache.write([(b"k", few), (b"l", many)])
        cache.write([(b"k", many), (b"l", few)])
        assert same(cache.read([b"k"])[0], many)
        assert same(cache.read([b"l"])[0], many)
        newer = {"final": np.zeros(4, np.float32), "layers": np.zeros((2, 4))}
        cache.write([(b"k", newer), (b"k", few)])
        assert same(cache.read([b"k"])[0], newer)


def test_a_write_is_whole_or_not_at_all(tmp_path):
    def items():
        yield b"k", ARRAYS
        raise KeyboardInterrupt

    with CaptureCache(tmp_path, CONTEXT) as cache:
        with pytest.raises(KeyboardInterrupt):
            cache.write(items())
        with pytest.raises(TypeError):
            cache.write([(b"k", ARRAYS), (b"l", {"a": np.zeros(1, bool)})])
        assert cache.read([b"k", b"l"]) == [None, None]
        cache.write([(b"k", ARRAYS)])
        assert same(cache.read([b"k"])[0], ARRAYS)
        assert cache.warning is None


def test_threads_may_share_a_cache(tmp_path):
    rng = np.random.default_rng(0)
    values = {bytes([i]): {"a": rng.normal(size=50)} for i in range(80)}
    with CaptureCache(tmp_path, CONTEXT) as cache:

        def work(keys):
            for key in keys:
                cache.write([(key, values[key])])
                assert same(cache.read([key])[0], values[key])

        failures = []
        threading.excepthook, before = (lambda args: failures.append(args)), threading.excepthook
        try:
            threads = [threading.Thread(target=work, args=(list(values)[i::4],)) for i in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            threading.excepthook = before
        assert not failures
        assert all(map(same, cache.read(list(values)), values.values()))
        assert cache.warning is None


def test_files_are_for_this_user_alone_and_hold_no_more_than_was_given(tmp_path):
    folder = tmp_path / "a" / "b"
    before = os.umask(0)
    try:
        with CaptureCache(folder, CONTEXT) as cache:
            cache.write([(b"k", ARRAYS)])
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in folder.iterdir()] == [0o600]
    (store,) = list_stores(folder)
    assert (store.path, store.context, store.n_prompts) == (cache.path, CONTEXT, 1)
    assert store.n_bytes == cache.path.stat().st_size


def test_python_without_sqlite(tmp_path):
    code = (
        "import sys, json; sys.modules['sqlite3'] = None\n"
        "import numpy as np; from pathlib import Path; from edgecal.cache import *\n"
        "folder = Path(sys.argv[1])\n"
        "with CaptureCache(folder, {'a': 1}) as cache, DigestMemo(folder) as memo:\n"
        "    cache.write([(b'k', {'a': np.zeros(1)})])\n"
        "    print(json.dumps([cache.read([b'k']), cache.warning, memo.warning, list_stores(folder),\n"
        "                      memo.recall([Path(sys.executable)], ['a'], lambda: {'a': 'b'})]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    why = "the cache is not used: this Python was built without SQLite, which the cache needs"
    assert json.loads(done.stdout) == [[None], *[f"{tmp_path}: {why}"] * 2, [], {"a": "b"}]


def test_importing_loads_no_sqlite():
    code = "import edgecal.cache, edgecal.cli.cache, sys; print('sqlite3' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"False\n"
