"""Showing a large header, and editing keys by copy and in place, against gguf-py's scripts and `cp`.

    python bench/gguf_files.py WORK_FOLDER [--json FILE] [--repetitions N]

Every side runs in a process of its own, both in turn. Show: a Llama-3-sized vocabulary (128k tokens, 280k merges);
the peer is gguf-py's dump script. Copy: a file of 0.5 GB with one key changed, flushed; the peer is `cp` followed by
a flush, and what is timed is the copying itself on either side, without Python's start (which the rows against
gguf-py's scripts do count). Memory is the peak of the whole process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

PYTHON = sys.executable
SLOW_REPETITIONS = 3  # of what takes gguf-py tens of seconds

# A process inherits the peak memory of the one that starts it, so a small one stands between. What is timed inside
# says its seconds by itself, on standard error.
LAUNCHER = """
import os, sys, time
null = os.open(os.devnull, os.O_WRONLY)
reading, writing = os.pipe()
actions = [(os.POSIX_SPAWN_DUP2, null, 1), (os.POSIX_SPAWN_DUP2, writing, 2)]
began = time.perf_counter()
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=actions)
os.close(writing)
said = open(reading).read()
_, status, usage = os.wait4(child, 0)
taken = time.perf_counter() - began
print(said.split()[-1] if said.startswith("seconds") else taken, usage.ru_maxrss * 1024)
sys.exit(os.waitstatus_to_exitcode(status))
"""
COPY = """
import sys, time
from pathlib import Path
from edgecal.gguf.header import read_header
from edgecal.gguf.rewrite import write_edited
from edgecal.gguf.values import Value
source, output = map(Path, sys.argv[1:])
began = time.perf_counter()
write_edited(read_header(source), output, changes={"general.name": Value.string("x")})
print("seconds", time.perf_counter() - began, file=sys.stderr)
"""
CP = """
import os, subprocess, sys, time
began = time.perf_counter()
subprocess.run(["cp", "--reflink=auto", *sys.argv[1:]], check=True)
descriptor = os.open(sys.argv[2], os.O_RDONLY)
os.fsync(descriptor)
print("seconds", time.perf_counter() - began, file=sys.stderr)
"""


@dataclass(frozen=True)
class Run:
    """What one run took: wall-clock seconds and peak memory in bytes."""

    time_s: float
    peak_bytes: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work_folder", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repetitions", type=int, default=7)
    arguments = parser.parse_args()
    work, n = arguments.work_folder, arguments.repetitions
    slow = min(n, SLOW_REPETITIONS)
    header, big = work / "header.gguf", work / "big.gguf"
    ours_out, peer_out = work / "edited.gguf", work / "copied.gguf"
    write_model(header, n_tokens=128_000, n_merges=280_000, n_bytes=1 << 20)
    write_model(big, n_tokens=100, n_merges=100, n_bytes=500 << 20)

    def fresh(*command: object) -> Callable[[], Run]:
        """A command that writes a new file: what it or the other side wrote before goes first."""

        def run_it() -> Run:
            ours_out.unlink(missing_ok=True)
            peer_out.unlink(missing_ok=True)
            return run(*command)

        return run_it

    results = [
        compare(
            "edgecal show against gguf-py's dump, 128k tokens and 280k merges",
            slow,
            lambda: run("-m", "edgecal", "show", header),
            lambda: run("-m", "gguf.scripts.gguf_dump", header),
        ),
        compare(
            "copy of 0.5 GB with a changed key against cp, both flushed",
            n,
            fresh("-c", COPY, big, ours_out),
            fresh("-c", CP, big, peer_out),
        ),
        compare(
            "edgecal set --output against gguf-py's new-metadata, 0.5 GB",
            slow,
            lambda: run(*edgecal_set(big), "--output", ours_out, "--force"),
            lambda: run(*new_metadata(big), peer_out),
        ),
        compare(
            "edgecal set --output against gguf-py's new-metadata, 128k tokens and 280k merges",
            slow,
            lambda: run(*edgecal_set(header), "--output", ours_out, "--force"),
            lambda: run(*new_metadata(header), peer_out),
        ),
        compare(
            "edgecal set --in-place of a number against gguf-py's set-metadata, 128k tokens and 280k merges",
            slow,
            alternating(lambda value: run(*edgecal_set(header, "llama.block_count", value), "--in-place")),
            alternating(
                lambda value: run(
                    "-m", "gguf.scripts.gguf_set_metadata", "--force", header, "llama.block_count", value
                )
            ),
        ),
    ]
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", "utf-8")


def edgecal_set(path: Path, key: str = "general.name", value: object = None) -> list[object]:
    typed = ["string", "x"] if value is None else ["uint32", value]
    return ["-m", "edgecal", "set", "--quiet", path, key, *typed]


def new_metadata(path: Path) -> list[object]:
    return ["-m", "gguf.scripts.gguf_new_metadata", "--force", "--general-name", "x", path]


def write_model(path: Path, *, n_tokens: int, n_merges: int, n_bytes: int) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"token {i}" for i in range(n_tokens)])
    writer.add_token_types([1] * n_tokens)
    writer.add_token_merges([f"to ken{i}" for i in range(n_merges)])
    rng = np.random.default_rng(0)
    writer.add_tensor("token_embd.weight", rng.random((n_bytes // 4 // 1024, 1024), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def run(*arguments: object) -> Run:
    """A Python process from its start to its end, or what it times inside."""
    command = [PYTHON, "-c", LAUNCHER, PYTHON, *map(str, arguments)]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    time_s, peak_bytes = map(float, found.stdout.split())
    return Run(time_s, peak_bytes)


def alternating(work: Callable[[int], Run]) -> Callable[[], Run]:
    """Writes 2 and 1 in turn, so that there is always something to change."""
    count = 0

    def again() -> Run:
        nonlocal count
        count += 1
        return work(1 + count % 2)

    return again


def compare(name: str, n: int, ours: Callable[[], Run], peer: Callable[[], Run]) -> dict[str, object]:
    """Runs both in turn n times after a warm-up; ratios are ours over the peer's, pair by pair."""
    pairs = [(ours(), peer()) for _ in range(n + 1)][1:]
    ratios = [one.time_s / other.time_s for one, other in pairs]
    memory = [one.peak_bytes / other.peak_bytes for one, other in pairs]
    times = {"ours": [one.time_s for one, _ in pairs], "peer": [other.time_s for _, other in pairs]}
    peaks = {"ours": [one.peak_bytes for one, _ in pairs], "peer": [other.peak_bytes for _, other in pairs]}
    middle, memory_middle = statistics.median(ratios), statistics.median(memory)
    faster = f", {1 / middle:.0f} times faster" if middle < 0.5 else ""
    print(
        f"{name}: time ours/peer {middle:.3f} (from {min(ratios):.3f} to {max(ratios):.3f}{faster}); "
        f"{statistics.median(times['ours']):.2f} s against {statistics.median(times['peer']):.2f} s; memory "
        f"{memory_middle:.2f}: {max(peaks['ours']) / 1e6:.0f} MB against {max(peaks['peer']) / 1e6:.0f} MB",
        flush=True,
    )
    return {
        "name": name,
        "ratio_median": middle,
        "ratios": ratios,
        "times_s": times,
        "memory_ratio_median": memory_middle,
        "peak_memory_bytes": peaks,
    }


if __name__ == "__main__":
    main()
