"""A store of captured numbers, and whether one is read and written as it should be."""

import shutil

import numpy as np

from edgecal.cache import CaptureCache

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
