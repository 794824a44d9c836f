"""Examines models of every architecture that llama.cpp's own architecture test can make, and writes the table.

    python tests/tools/zoo.py [SOURCE] [--bin FOLDER] [--models FOLDER] [--output docs/architectures.md]

Builds llama.cpp's test program (10 to 20 minutes on 2 cores the first time), lets it save its random models, and runs
each through `edgecal doctor --run`: as it is, and with its keys for scale, cap and norm changed so that each
of them bites. What the program cannot make is examined with the models of tests/support/tiny_archs.py. SOURCE is as for
run.py; --models examines a folder that is there already. Exit code 1 if a model is neither right within 0.01 %
nor refused with a reason.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import edgecal
from edgecal.architectures import FAMILIES, REFUSALS
from edgecal.gguf.header import Header, read_header
from edgecal.gguf.rewrite import write_edited
from edgecal.gguf.values import Value, ValueType
from edgecal.llama.settings import CaptureSettings

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

WANTED_RMS = 0.0001
SETTINGS = CaptureSettings(n_threads=1)
TIMEOUT_S = 60.0
SEED = 1

# Keys, without `<architecture>.`, that every architecture gets where its file has them or llama.cpp would read them.
_FACTORS = {"logit_scale": 0.37, "residual_scale": 0.8, "embedding_scale": 2.5, "attention.scale": 0.9}
_EPSILONS = {"attention.layer_norm_rms_epsilon": 0.02, "attention.layer_norm_epsilon": 0.05}
_CAP = "final_logit_softcapping"


LLAMA_CPP, EDGECAL = "llama.cpp", "edgecal"


@dataclass(frozen=True)
class Row:
    """What was found of one model: as it is, and with its keys changed. `origin`: whose test made it."""

    name: str
    architecture: str
    origin: str
    plain: edgecal.DoctorResult
    changed: edgecal.DoctorResult

    @property
    def is_refused(self) -> bool:
        return not self.plain.methods

    @property
    def is_right(self) -> bool:
        return all(
            found.lens_rms is not None
            and found.lens_rms <= WANTED_RMS
            and found.captured_layers == found.n_layer
            for found in (self.plain, self.changed)
        )

    @property
    def is_explained(self) -> bool:
        """Not right, and both times with a reason, so that nothing would be computed from its layers."""
        return all(
            found.reason is not None and "dual-align" not in found.methods
            for found in (self.plain, self.changed)
        )

    @property
    def rms(self) -> float:
        """The larger of the two errors, NaN without one."""
        return max((found.lens_rms or 0.0 for found in (self.plain, self.changed)), default=math.nan)

    @property
    def works(self) -> str:
        if self.is_right:
            return f"layers ({self.rms:.1e})"
        return "no" if self.is_refused else "outputs"

    @property
    def why(self) -> str:
        """One line without the file's path; what says nothing to readers of a table is cut off."""
        reason = self.plain.reason or self.changed.reason or ""
        for found in (self.plain, self.changed):
            reason = reason.replace(f"{found.path}: ", "")
        for opening in ("a model of", "the layers of"):
            reason = reason.removeprefix(f"{opening} the architecture {self.architecture} cannot be used: ")
        return reason.split("; use --method")[0].split("; edgecal needs")[0].replace("|", "/")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", nargs="?", type=Path)
    parser.add_argument(
        "--work", type=Path, default=ROOT / "build/llama-zoo", help="what is kept between runs"
    )
    parser.add_argument("--bin", type=Path, help="where the test program is, instead of building it")
    parser.add_argument("--models", type=Path, help="examine these models instead of making some")
    parser.add_argument("--output", type=Path, help="write the table there (docs/architectures.md)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    models = options.models or make_zoo(options)
    rows = []
    for row in examine_all(models, options.jobs):
        rows.append(row)
        print(describe(row), flush=True)
    right = [row for row in rows if row.is_right]
    explained = [row for row in rows if not row.is_right and row.is_explained]
    wrong = [row for row in rows if not row.is_right and not row.is_explained]
    print(
        f"{len(rows)} models: {len(right)} right within {WANTED_RMS:.2%}, {len(explained)} refused with a reason, "
        f"{len(wrong)} wrong"
    )
    if options.output is not None:
        options.output.write_text(table(rows), "utf-8")
    sys.exit(1 if wrong else 0)


def make_zoo(options: argparse.Namespace) -> Path:
    """Lets llama.cpp's test program save its models; the folder that they are in."""
    from building import ZOO, build, find_source

    folder: Path = options.work / "models"
    bin_folder = options.bin
    if bin_folder is None:
        print(f"building {ZOO} in {options.work}", flush=True)
        bin_folder = build(
            find_source(options.source, options.work), options.work / "build", options.jobs, [ZOO]
        )
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.gguf"):
        old.unlink()
    subprocess.run([bin_folder / ZOO, "--out", folder, "--seed", str(SEED)], check=True)
    return folder


def examine_all(folder: Path, jobs: int) -> Iterator[Row]:
    """llama.cpp's models, then edgecal's own of those architectures that are not among them."""
    from support.tiny_archs import ARCHS, tiny_arch

    theirs = sorted(folder.glob("*.gguf"))
    seen = {read_header(path).architecture for path in theirs}
    ours = [tiny_arch(name) for name, spec in ARCHS.items() if spec.arch not in seen]
    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(examine, [*theirs, *ours], [LLAMA_CPP] * len(theirs) + [EDGECAL] * len(ours))


def examine(path: Path, origin: str) -> Row:
    header = read_header(path)
    plain = edgecal.doctor(path, run=edgecal.RunOptions(settings=SETTINGS, timeout_s=TIMEOUT_S))
    with tempfile.TemporaryDirectory() as folder:
        changed = Path(folder) / path.name
        write_edited(header, changed, changes=_changes(header, plain), remove=frozenset())
        found = edgecal.doctor(changed, run=edgecal.RunOptions(settings=SETTINGS, timeout_s=TIMEOUT_S))
    return Row(path.stem, header.architecture or "", origin, plain, found)


def _changes(header: Header, plain: edgecal.DoctorResult) -> dict[str, Value]:
    """Scale, cap and epsilons that bite; a cap of half the logits' spread does, whatever that is."""
    prefix = f"{header.architecture}."
    changes = {f"{prefix}{name}": Value.float32(factor) for name, factor in _FACTORS.items()}
    changes[prefix + _CAP] = Value.float32(0.5 * (plain.logit_spread or 1.0))
    for name, epsilon in _EPSILONS.items():
        if header.get(prefix + name):
            changes[prefix + name] = Value.float32(epsilon)
    return {
        key: value
        for key, value in changes.items()
        if key not in header or header.type_of(key) is ValueType.FLOAT32
    }


def describe(row: Row) -> str:
    def one(found: edgecal.DoctorResult) -> str:
        rms = "-" if found.lens_rms is None else f"{found.lens_rms:.1e}"
        return f"{found.captured_layers or 0}/{found.n_layer} {rms}"

    mark = "ok  " if row.is_right else "no  " if row.is_explained else "FAIL"
    reason = row.plain.reason or row.changed.reason or ""
    return f"{mark}  {row.name:28} {one(row.plain):16} {one(row.changed):16} {reason[-150:]}"


def is_bakeable(architecture: str, rows: list[Row]) -> bool:
    """By any model of the architecture: llama.cpp's test models also have what published ones lack, such as a
    classifier beside the head."""
    from support.tiny_archs import ARCHS, tiny_arch

    ours = (tiny_arch(name) for name, spec in ARCHS.items() if spec.arch == architecture)
    return any(row.plain.bakeable for row in rows) or any(edgecal.doctor(path).bakeable for path in ours)


def table(rows: list[Row]) -> str:
    """The page of the docs: what works for each architecture of the product's table, and what was not tried."""
    by_architecture: dict[str, list[Row]] = {}
    for row in rows:
        by_architecture.setdefault(row.architecture, []).append(row)
    ran = next(row.plain.llama_cpp for row in rows if row.plain.llama_cpp)
    n_right, n_refused = sum(row.is_right for row in rows), sum(row.is_refused for row in rows)
    n_unlayered = len(rows) - n_right - n_refused
    names = sorted({*FAMILIES, *REFUSALS, *by_architecture})
    lines = [
        "# Architectures",
        "",
        "Written by `python tests/tools/zoo.py --output docs/architectures.md`, which runs small random models through",
        f"`edgecal doctor --run` ({ran}).",
        "",
        f"Of {len(rows)} models {n_right} give all their layers: every block is captured, and the last one,",
        f"re-projected, gives llama.cpp's logits within {WANTED_RMS:.2%} rms of their spread, both as the model is and",
        "with its keys for scale, cap and norm changed so that they matter.",
        f"{n_unlayered} give their outputs only, for a reason that is said; {n_refused} are refused.",
        "A real model of an architecture is checked in the same way whenever it runs.",
        "",
        "- **layers**: all methods work, with the larger of the two errors; **outputs**: only methods without layers",
        "  (`daca`, `naive`, `ts`, `vanilla`); **no**: refused.",
        "- **baking**: whether `edgecal bake` can divide the logits inside the weights of such a model.",
        "- **untested**: in edgecal's table, by llama.cpp's source, but no model was made of it.",
        "",
        "| architecture | what works | baking | model made by | why not more |",
        "|---|---|---|---|---|",
    ]
    for name in names:
        found = by_architecture.get(name, [])
        if not found:
            works = "no" if name in REFUSALS else "untested"
            lines.append(f"| `{name}` | {works} | – | – | {REFUSALS.get(name, '')} |")
            continue
        worst = max(found, key=lambda row: (not row.is_right, row.rms))
        bakes = "yes" if is_bakeable(name, found) else "no"
        lines.append(f"| `{name}` | {worst.works} | {bakes} | {worst.origin} | {worst.why} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
