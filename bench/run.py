"""`make bench`: runs every benchmark with its peer and keeps the results, one file per machine, in bench/results/.

    python bench/run.py [--quick] [--only NAME ...] [--source SOURCE]

Each benchmark is a script of its own that prints ratios; this one runs them in turn, and at the end shows all ratios
with what is wanted. One that lacks something is skipped, with what it lacks; one that fails does not stop the others.
What is kept for the next time is in build/bench. SOURCE is llama-cpp-python's source distribution (see models.py).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from timing import BENCH, SKIPPED, say_machine

from edgecal.llama.settings import count_physical_cores
from models import WORK

# Of these the first get a folder for files that are thrown away, the last have the options of timing.py.
_SCRATCH = ("gguf_files", "inplace")
_PLAIN = ("figures", "fit")
_MODELS = (
    "capture_overhead",
    "prefill",
    "perplexity",
    "pytorch",
    "time_to_temperature",
    "growth",
    "memory",
    "busy",
)
_QUICK_REPETITIONS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="little of everything, to see that everything runs"
    )
    parser.add_argument("--only", nargs="+", choices=(*_MODELS, *_PLAIN, *_SCRATCH), metavar="NAME")
    parser.add_argument(
        "--source", type=Path, help="llama-cpp-python's source distribution; else pip fetches it"
    )
    parser.add_argument("--work", type=Path, default=WORK, help="keeps models and programs for the next time")
    arguments = parser.parse_args()
    results = BENCH / "results" / f"{platform.node()}{'-quick' if arguments.quick else ''}.json"
    results.parent.mkdir(exist_ok=True)
    kept: dict[str, Any] = json.loads(results.read_text("utf-8")) if results.exists() else {}
    say_machine(count_physical_cores())
    skipped, failed = [], []
    with tempfile.TemporaryDirectory(prefix="edgecal-bench-") as scratch:
        for name in arguments.only or (*_MODELS, *_PLAIN, *_SCRATCH):
            print(f"\n== {name}", flush=True)
            written = Path(scratch) / f"{name}.json"
            code = run_script(name, Path(scratch), written, arguments)
            if code == SKIPPED:
                skipped.append(name)
            elif code:
                failed.append(name)
            else:
                kept[name] = json.loads(written.read_text("utf-8"))
                results.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
    print(f"\n== ratios of {results.name}, medians and ranges")
    for name, result in kept.items():
        show_ratios(name, result)
    print(f"\nresults are in {results}")
    for what, names in (("skipped", skipped), ("failed", failed)):
        if names:
            print(f"{what}: {', '.join(names)}")
    sys.exit(1 if failed else 0)


def run_script(name: str, scratch: Path, written: Path, arguments: argparse.Namespace) -> int:
    """Runs one benchmark; its exit code."""
    options: list[object] = ["--json", written]
    if name in _SCRATCH:
        options.insert(0, scratch)
    if name in _MODELS:
        options.insert(0, arguments.work)
        options += ["--quick"] if arguments.quick else []
        options += ["--source", arguments.source.resolve()] if arguments.source else []
    elif arguments.quick:
        options += ["--repetitions", _QUICK_REPETITIONS]
    command = [sys.executable, str(BENCH / f"{name}.py"), *map(str, options)]
    return subprocess.run(command, env={**os.environ, "PYTHONUNBUFFERED": "1"}, check=False).returncode


def show_ratios(name: str, result: Any) -> None:
    rows = result if isinstance(result, list) else result.get("ratios", [])
    for row in rows:
        median, values = row.get("median", row.get("ratio_median")), row.get("values", row.get("ratios"))
        verdict = {True: "met", False: "NOT MET", None: ""}[row.get("met")]
        wanted = row.get("wanted") or ""
        spread = f"{min(values):.3f} to {max(values):.3f}"
        print(f"{name:20} {row['name'][:75]:75} {median:8.3f}  {spread:20} {wanted:15} {verdict}")


if __name__ == "__main__":
    main()
