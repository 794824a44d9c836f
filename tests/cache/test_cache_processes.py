"""Several processes use one store at once: nothing is lost, nothing is mixed up, nobody fails."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np

from edgecal.cache import CaptureCache, list_stores

CONTEXT = {"model": "Tiny"}
N_BATCHES, N_KEYS = 30, 8

WORK = f"""
import json, sys
from pathlib import Path
import numpy as np
from edgecal.cache import CaptureCache
folder, own, wait = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])

def value(key):
    return {{"a": np.frombuffer(key * 20, np.uint8).astype(np.float32), "b": np.full(700, key[0], np.float64)}}

def keys(process, batch):
    return [bytes([process, batch, i]) for i in range({N_KEYS})] + [bytes([255, batch, i]) for i in range({N_KEYS})]

print("ready", flush=True)
while not wait.exists():
    pass
wrong = 0
with CaptureCache(folder, {CONTEXT!r}, lock_timeout_s=60) as cache:
    for batch in range({N_BATCHES}):
        cache.write([(key, value(key)) for key in keys(own, batch)])
        for process in range(8):
            for key, found in zip(keys(process, batch), cache.read(keys(process, batch)), strict=True):
                if found is None:
                    wrong += process == own
                else:
                    wrong += any(not np.array_equal(found[name], array) for name, array in value(key).items())
    print(json.dumps([wrong, cache.warning]))
"""


def start(folder, n, go):
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", WORK, folder, str(i), go],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(n)
    ]
    for program in programs:
        assert program.stdout.readline() == "ready\n", program.communicate()[1]
    return programs


def finish(program):
    out, err = program.communicate(timeout=120)
    assert program.returncode == 0, err
    return json.loads(out)


def all_keys(processes):
    return [
        bytes([process, batch, i])
        for process in processes
        for batch in range(N_BATCHES)
        for i in range(N_KEYS)
    ]


def test_many_write_at_once(tmp_path):
    """They also make the store at the same moment."""
    folder, go = tmp_path / "c", tmp_path / "go"
    programs = start(folder, 5, go)
    go.touch()
    assert [finish(program) for program in programs] == [[0, None]] * 5
    wanted = all_keys([*range(5), 255])
    with CaptureCache(folder, CONTEXT) as cache:
        assert all(arrays["b"][0] == key[0] for key, arrays in zip(wanted, cache.read(wanted), strict=True))
        assert cache.warning is None
    (store,) = list_stores(folder)
    assert store.n_prompts == len(wanted)
    assert [path.name for path in folder.iterdir()] == [store.path.name]


def test_some_are_killed_while_all_write(tmp_path):
    folder, go = tmp_path / "c", tmp_path / "go"
    programs = start(folder, 4, go)
    go.touch()
    while not list_stores(folder):
        time.sleep(0.005)
    time.sleep(0.05)
    for program in programs[2:]:
        program.send_signal(signal.SIGKILL)
        program.communicate()
    assert [finish(program) for program in programs[:2]] == [[0, None]] * 2
    wanted = all_keys([0, 1, 255])
    others = all_keys([2, 3])
    with CaptureCache(folder, CONTEXT) as cache:
        assert all(arrays["b"][0] == key[0] for key, arrays in zip(wanted, cache.read(wanted), strict=True))
        found = cache.read(others)
        assert cache.warning is None
    assert all(
        arrays is None or np.all(arrays["b"] == key[0]) for key, arrays in zip(others, found, strict=True)
    )
    present = np.array([arrays is not None for arrays in found]).reshape(2, N_BATCHES, N_KEYS)
    assert (present.all(axis=2) == present.any(axis=2)).all()


def test_a_store_is_removed_under_those_who_use_it(tmp_path):
    """As `edgecal cache clear`, or the bound on all stores, may do."""
    folder, go = tmp_path / "c", tmp_path / "go"
    programs = start(folder, 3, go)
    go.touch()
    n_removed = 0
    while any(program.poll() is None for program in programs):
        for store in list_stores(folder):
            store.path.unlink(missing_ok=True)
            n_removed += 1
        time.sleep(0.1)
    for program in programs:
        out, err = program.communicate()
        assert program.returncode == 0, err
        assert json.loads(out)[1] is None or os.linesep not in json.loads(out)[1]
    assert n_removed
    with CaptureCache(folder, CONTEXT) as cache:
        wanted = all_keys([0, 1, 2, 255])
        found = cache.read(wanted)
    assert all(
        arrays is None or np.all(arrays["b"] == key[0]) for key, arrays in zip(wanted, found, strict=True)
    )
