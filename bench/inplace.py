"""Editing a file in place, flushes included, against copying it.

    python bench/inplace.py WORK_FOLDER [--json FILE] [--repetitions N]

A file of 0.8 GB gets a new key (a range is inserted), then another (which takes the room that the first one left), then
another value of the same size, and is stripped again (the range is taken out): once with nothing of it in the page
cache, once with all of it. The peer is `cp` followed by a flush, in the same state. Each side in its own process; ours
times the edit itself, from the header that it has read to the last flush, the peer the whole of `cp`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from gguf_files import write_model

SIZE = 800 << 20
EDIT = """
import json, sys, time
from edgecal.gguf.header import read_header
from edgecal.gguf.values import Value
from edgecal.gguf.inplace.engine import edit_in_place
path, changes, remove = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
values = {name: Value.float32(x) if isinstance(x, float) else Value.string(x) for name, x in changes.items()}
header = read_header(path)
before = header.identity.inode
began = time.perf_counter()
after = edit_in_place(header, values, remove)
taken = time.perf_counter() - began
print(json.dumps([taken, before == after.identity.inode]))
"""
EDITS: dict[str, tuple[dict[str, float | str], list[str]]] = {
    "a new key": ({"edgecal.temperature": 1.5}, []),
    "another key": ({"edgecal.method": "dual-align"}, []),
    "a value": ({"edgecal.temperature": 2.5}, []),
    "stripped": ({}, ["edgecal.temperature", "edgecal.method", "edgecal.filler"]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work_folder", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repetitions", type=int, default=7)
    arguments = parser.parse_args()
    path = arguments.work_folder / "inplace.gguf"
    write_model(path, n_tokens=128_000, n_merges=280_000, n_bytes=SIZE)
    with path.open("rb") as file:
        os.fsync(file.fileno())
    results = [
        result for cached in (False, True) for result in compare(path, arguments.repetitions, cached=cached)
    ]
    path.unlink()
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", "utf-8")


def compare(path: Path, n: int, *, cached: bool) -> list[dict[str, object]]:
    """Runs all edits and the copy in turn n times after a warm-up; ratios are run by run."""
    times: dict[str, list[float]] = {name: [] for name in (*EDITS, "copy")}
    stayed = True
    for index in range(n + 1):
        for name, (changes, remove) in EDITS.items():
            prepare(path, cached=cached)
            taken, same_inode = edit(path, changes, remove)
            stayed &= same_inode
            times[name].append(taken)
        prepare(path, cached=cached)
        times["copy"].append(copy(path))
        if index == 0:
            for taken_before in times.values():
                taken_before.clear()
    state = "cached" if cached else "not cached"
    print(
        f"{SIZE / 1e9:.2f} GB, {state}" + ("" if stayed else "; COPIED: this file system inserts no ranges")
    )
    results: list[dict[str, object]] = []
    for name in EDITS:
        ratios = [ours / peer for ours, peer in zip(times[name], times["copy"], strict=True)]
        print(
            f"  {name}: ours/peer {statistics.median(ratios):.4f} (from {min(ratios):.4f} to {max(ratios):.4f}); "
            f"{statistics.median(times[name]) * 1e3:.1f} ms (to {max(times[name]) * 1e3:.1f}) "
            f"against {statistics.median(times['copy']):.2f} s"
        )
        results.append(
            {
                "name": f"{name}, {state}",
                "in_place": stayed,
                "ratio_median": statistics.median(ratios),
                "ratios": ratios,
                "times_s": {"ours": times[name], "peer": times["copy"]},
            }
        )
    return results


def prepare(path: Path, *, cached: bool) -> None:
    """Nothing of the file unwritten; all of it in the page cache, or nothing."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        if cached:
            while file.read(1 << 24):
                pass
        else:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def edit(path: Path, changes: dict[str, float | str], remove: list[str]) -> tuple[float, bool]:
    command = [sys.executable, "-c", EDIT, str(path), json.dumps(changes), json.dumps(remove)]
    taken, same_inode = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return float(taken), bool(same_inode)


def copy(path: Path) -> float:
    target = path.with_name("copied.gguf")
    target.unlink(missing_ok=True)
    began = time.perf_counter()
    subprocess.run(["cp", "--reflink=never", path, target], check=True)
    with target.open("rb") as file:
        os.fsync(file.fileno())
    taken = time.perf_counter() - began
    target.unlink()
    return taken


if __name__ == "__main__":
    main()
