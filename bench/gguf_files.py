"""Reading a large header and writing an edited copy, against gguf-py and `cp`.

    python bench/gguf_files.py WORK_FOLDER [--json FILE] [--repetitions N]

Header: a Llama-3-sized vocabulary (128k tokens, 280k merges); the peer is gguf-py's reader, which parses the same
header. Copy: a file of 0.5 GB with one key changed, flushed to disk; the peer is `cp` followed by a flush.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np

from edgecal.gguf import Value, read_header, write_edited

HEADER_PEER = "import sys, gguf; gguf.GGUFReader(sys.argv[1])"
HEADER_OURS = "import sys; from edgecal.gguf import read_header; read_header(sys.argv[1])"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work_folder", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repetitions", type=int, default=7)
    arguments = parser.parse_args()
    work, n = arguments.work_folder, arguments.repetitions
    header_path, big_path = work / "header.gguf", work / "big.gguf"
    write_model(header_path, n_tokens=128_000, n_merges=280_000, n_bytes=1 << 20)
    write_model(big_path, n_tokens=100, n_merges=100, n_bytes=500 << 20)

    results = [
        compare(
            "header, in a new process each",
            n,
            run_python(HEADER_OURS, header_path),
            run_python(HEADER_PEER, header_path),
        ),
        compare(
            "copy of 0.5 GB with a changed key, flushed", n, lambda: edit(big_path), lambda: cp(big_path)
        ),
    ]
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", "utf-8")


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


def run_python(code: str, path: Path) -> Callable[[], None]:
    return lambda: subprocess.run([sys.executable, "-c", code, str(path)], check=True) and None


def edit(path: Path) -> None:
    write_edited(
        read_header(path), path.with_name("edited.gguf"), changes={"general.name": Value.string("x")}
    )


def cp(path: Path) -> None:
    copy = path.with_name("copied.gguf")
    copy.unlink(missing_ok=True)
    subprocess.run(["cp", "--reflink=never", path, copy], check=True)
    with copy.open("rb") as file:
        os.fsync(file.fileno())


def compare(name: str, n: int, ours: Callable[[], None], peer: Callable[[], None]) -> dict[str, object]:
    """Runs both in turn n times after a warm-up; the ratio is ours over the peer's, pair by pair."""
    ratios, times = [], {"ours": [], "peer": []}
    for index in range(n + 1):
        taken = {}
        for who, work in (("ours", ours), ("peer", peer)):
            began = time.perf_counter()
            work()
            taken[who] = time.perf_counter() - began
        if index:
            ratios.append(taken["ours"] / taken["peer"])
            for who in taken:
                times[who].append(taken[who])
    middle = statistics.median(ratios)
    print(
        f"{name}: ours/peer {middle:.3f} (from {min(ratios):.3f} to {max(ratios):.3f}); "
        f"{statistics.median(times['ours']):.2f} s against {statistics.median(times['peer']):.2f} s"
    )
    return {"name": name, "ratio_median": middle, "ratios": ratios, "times_s": times}


if __name__ == "__main__":
    main()
