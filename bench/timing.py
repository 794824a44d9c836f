"""What the benchmarks share: sides in processes of their own, taken in turn, and ratios with their spread.

A side is a command that does its work, times it, and prints one JSON object as its last line; `report` prints it. Pairs
of runs that stand next to each other in time give a ratio each; the median of the ratios is what counts, and their
range says how far to trust it. Knows nothing of models.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from edgecal.llama.settings import count_physical_cores
from models import WORK

BENCH = Path(__file__).parent
SKIPPED = 77  # exit code of a benchmark that lacks something; its last line says what
_BUSY = 0.3  # load average per processor above which times are not to be believed


@dataclass(frozen=True)
class Taken:
    """One run of a side.

    Attributes
    ----------
    time_s: what the side timed itself.
    process_s: the whole process, from outside.
    peak_bytes: its peak resident memory, mapped files included; 0 where the side does not tell.
    said: all that it printed.
    """

    time_s: float
    process_s: float
    peak_bytes: int
    said: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ratio:
    """Ratios of paired runs. `wanted` is ("at most" or "at least", bound), or None where it is only shown."""

    name: str
    values: tuple[float, ...]
    wanted: tuple[str, float] | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def met(self) -> bool | None:
        if self.wanted is None:
            return None
        how, bound = self.wanted
        return self.median <= bound if how == "at most" else self.median >= bound

    def __str__(self) -> str:
        text = f"{self.name}: {self.median:.3f} (from {min(self.values):.3f} to {max(self.values):.3f})"
        if self.wanted is None:
            return text
        return f"{text}, wanted {self.wanted[0]} {self.wanted[1]:g}: {'met' if self.met else 'NOT MET'}"

    def to_dict(self) -> dict[str, Any]:
        wanted = None if self.wanted is None else f"{self.wanted[0]} {self.wanted[1]:g}"
        return {
            "name": self.name,
            "median": self.median,
            "values": self.values,
            "wanted": wanted,
            "met": self.met,
        }


def make_parser(doc: str | None, *, repetitions: int) -> argparse.ArgumentParser:
    """The options that all of these benchmarks have."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument(
        "work_folder", type=Path, nargs="?", default=WORK, help="keeps models and programs for the next time"
    )
    parser.add_argument("--json", type=Path, help="also write the results here")
    parser.add_argument("--repetitions", type=int, default=repetitions)
    parser.add_argument("--quick", action="store_true", help="little work once, to see that everything runs")
    parser.add_argument("--threads", type=int, default=count_physical_cores())
    parser.add_argument(
        "--source", type=Path, help="llama-cpp-python's source distribution or llama.cpp's source"
    )
    parser.add_argument("--settings", default="{}", help="CaptureSettings for our side, as JSON")
    return parser


def run_side(*command: object, environment: Mapping[str, str] | None = None) -> Taken:
    """Runs a side's Python script in a process of its own."""
    began = time.perf_counter()
    result = subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        env={**os.environ, **(environment or {})},
        check=False,
    )
    process_s = time.perf_counter() - began
    if result.returncode:
        sys.exit(f"{' '.join(map(str, command))} ended with {result.returncode}:\n{result.stderr[-3000:]}")
    said = json.loads(result.stdout.splitlines()[-1])
    return Taken(said["time_s"], process_s, said.get("peak_bytes", 0), said)


def take_in_turn(
    sides: Mapping[str, Callable[[], Taken]], repetitions: int, *, warm_up: bool = True
) -> dict[str, list[Taken]]:
    """Runs all sides in turn, every other round backwards; the first round, which fills the page cache, is dropped."""
    taken: dict[str, list[Taken]] = {name: [] for name in sides}
    for index in range(repetitions + warm_up):
        names = list(sides) if index % 2 else list(reversed(list(sides)))
        for name in names:
            run = sides[name]()
            if index >= warm_up:
                taken[name].append(run)
    return taken


def pair(
    name: str,
    upper: Sequence[Taken],
    lower: Sequence[Taken],
    *,
    wanted: tuple[str, float] | None = None,
    of: Callable[[Taken], float] = lambda run: run.time_s,
    scale: float = 1.0,
) -> Ratio:
    """upper / lower * scale, run by run."""
    values = tuple(scale * of(one) / of(other) for one, other in zip(upper, lower, strict=True))
    return Ratio(name, values, wanted)


def middle(runs: Sequence[Taken], of: Callable[[Taken], float] = lambda run: run.time_s) -> float:
    return statistics.median(of(run) for run in runs)


def peak_bytes() -> int:
    """Peak resident memory of this process so far. (getrusage would include that of the process that started it.)"""
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmHWM")


def report(**said: Any) -> None:
    """A side's last words."""
    print(json.dumps(said), flush=True)


def skip(reason: str) -> NoReturn:
    """Ends a benchmark that cannot run here."""
    print(f"skipped: {reason}")
    sys.exit(SKIPPED)


def say_machine(n_threads: int) -> None:
    """One line on the machine, and a warning where it has other work to do."""
    load = os.getloadavg()[0]
    busy = "; BUSY: take no figure from this run" if load > _BUSY * (os.cpu_count() or 1) else ""
    waiting = os.environ.get("OMP_WAIT_POLICY", "")
    said = f", OMP_WAIT_POLICY={waiting}" if waiting else ""
    print(f"{describe_processor()}, {n_threads} threads{said}, load average {load:.1f}{busy}", flush=True)


def describe_processor() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown processor"


def finish(
    path: Path | None, ratios: Sequence[Ratio], times: Mapping[str, Sequence[Taken]], **facts: Any
) -> None:
    """Writes what `make bench` keeps: the ratios, every time and every peak."""
    if path is None:
        return
    record = {
        "machine": describe_processor(),
        "load_average": os.getloadavg()[0],
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
        **facts,
        "ratios": [ratio.to_dict() for ratio in ratios],
        "times_s": {name: [run.time_s for run in runs] for name, runs in times.items()},
        "process_s": {name: [run.process_s for run in runs] for name, runs in times.items()},
        "peak_bytes": {name: [run.peak_bytes for run in runs] for name, runs in times.items()},
    }
    path.write_text(json.dumps(record, indent=2) + "\n", "utf-8")
