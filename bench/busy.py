"""A whole capture beside other programs, with several ways for llama.cpp's threads to wait for each other.

    python bench/busy.py [WORK_FOLDER] [--models FILE ...] [--only WAY ...] [--repetitions N] [--json FILE] [--quick]

Each way runs alone, beside one and two programs that keep a core busy, and beside two that compute and sleep in turn,
all in turn in one session. Printed is what a capture (hidden states included) takes beside them against alone, and
alone against the best way. `default` is edgecal as it comes. `app, ...` are questions to `edgecal.load` in a process
that first imported what is named: a library that brings OpenMP with it has read the environment before edgecal can say
anything. The other ways are what users may set: threads that sleep at once, that spin for a while, or for ever.

Models are two real ones, the smallest and the largest of those that `make test-real` has fetched, but for any above
600 MB, unless `--models` names others; where neither is there, random weights of real dimensions. A run that
takes ten times what it takes alone is stopped, and its time scaled up by the rows that are left.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from questions import make_sets, split_bank
from sides import read_prompts, write_prompts
from timing import Ratio, Taken, finish, make_parser, middle, pair, report, run_side, say_machine

from models import find_vocabulary, make_model

_LIMIT = 10.0  # times alone
_LARGEST_BYTES = 600e6
_SPINNING = "while True: pass"
_BURSTING = """
import time
while True:
    began = time.perf_counter()
    while time.perf_counter() - began < 0.005: pass
    time.sleep(0.005)
"""
# What runs beside: a name, programs, and what a capture may then take at most, in times of alone (on 2 cores).
_BESIDE: tuple[tuple[str, tuple[str, ...], float | None], ...] = (
    ("alone", (), None),
    ("beside one", (_SPINNING,), 1.8),
    ("beside two", (_SPINNING, _SPINNING), 2.6),
    ("beside two that sleep in between", (_BURSTING, _BURSTING), None),
)
_BEST = 1.03
_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


class _TooLongError(Exception):
    """A run has taken too long."""


@dataclass(frozen=True)
class Way:
    """What differs from edgecal as it comes.

    Attributes
    ----------
    name: as printed.
    environment: variables of the process.
    imports: modules that an app has imported before; None for a capture.
    """

    name: str
    environment: Mapping[str, str] = field(default_factory=dict)
    imports: tuple[str, ...] | None = None

    @property
    def is_ours(self) -> bool:
        return not self.environment


def _spinning(rounds: int) -> Way:
    return Way(f"GOMP_SPINCOUNT {rounds:,}", {"GOMP_SPINCOUNT": str(rounds)})


WAYS = (
    Way("default"),
    *(_spinning(rounds) for rounds in (0, 1_000, 10_000, 100_000)),
    Way("OMP_WAIT_POLICY active", {"OMP_WAIT_POLICY": "active"}),
    Way("app", imports=()),
    Way("app, llama_cpp", imports=("llama_cpp",)),
    Way("app, torch", imports=("torch",)),
    Way("app, sklearn", imports=("sklearn.cluster",)),
)


def main() -> None:
    if sys.argv[1:2] == ["side"]:
        _run_side(*sys.argv[2:])
        return
    arguments = _parse()
    say_machine(arguments.threads)
    ratios: list[Ratio] = []
    times: dict[str, list[Taken]] = {}
    for model in _find_models(arguments):
        for imports in (False, True):
            ways = [way for way in _chosen(arguments.only) if (way.imports is not None) == imports]
            if ways:
                taken = take(model, ways, arguments)
                ratios += compare(model, ways, taken)
                times |= {f"{model.name}, {way}, {beside}": runs for (way, beside), runs in taken.items()}
    finish(arguments.json, ratios, times, n_threads=arguments.threads)


def _parse() -> argparse.Namespace:
    parser = make_parser(__doc__, repetitions=3)
    parser.add_argument("--models", type=Path, nargs="+", metavar="FILE", default=[])
    parser.add_argument("--only", nargs="+", metavar="WAY", help="ways whose names begin so")
    parser.add_argument(
        "--rows", type=int, default=2_000, help="tokens of a model of 0.1 GB; of larger ones fewer"
    )
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rows, arguments.repetitions = 300, 1
    return arguments


def _find_models(arguments: argparse.Namespace) -> Sequence[Path]:
    if arguments.models:
        return list(arguments.models)
    folder = Path(os.environ.get("EDGECAL_REAL_MODELS") or Path.home() / ".cache/edgecal-real-models")
    found = sorted(folder.glob("**/*.gguf"), key=lambda path: path.stat().st_size)
    found = [path for path in found if path.stat().st_size <= _LARGEST_BYTES]
    if len(found) > 1:
        return [found[0], found[-1]]
    print(f"no two models in {folder}: random weights of real dimensions")
    return [make_model(arguments.work_folder, shape, "Q4_0", arguments.source) for shape in ("0.1B", "0.5B")]


def _chosen(only: Sequence[str] | None) -> list[Way]:
    there = [way for way in WAYS if all(find_spec(name.split(".")[0]) for name in way.imports or ())]
    return there if only is None else [way for way in there if way.name.startswith(tuple(only))]


def take(
    model: Path, ways: Sequence[Way], arguments: argparse.Namespace
) -> dict[tuple[str, str], list[Taken]]:
    """All ways with all that runs beside them, round after round, every other backwards."""
    n_prompts = max(2, round(arguments.rows / 75 * min(1.0, 100e6 / model.stat().st_size)))
    vocabulary = (
        find_vocabulary(arguments.work_folder, arguments.source) if "edgecal" in model.name else model
    )
    questions = make_sets(vocabulary, n_zero=n_prompts, n_five=1, n_permuted=1, n_subjects=1)[0]
    taken: dict[tuple[str, str], list[Taken]] = {}
    with tempfile.TemporaryDirectory() as folder:
        prompts = write_prompts(Path(folder, "prompts.jsonl"), questions.tokens)
        for index in range(arguments.repetitions):
            for beside, programs, _ in _BESIDE:
                for way in ways[:: -1 if index % 2 else 1]:
                    alone = taken.get((way.name, _BESIDE[0][0]))
                    limit_s = _LIMIT * middle(alone) if programs and alone else 1e9
                    side = [__file__, "side", model, prompts, arguments.threads, limit_s]
                    with _running(programs):
                        run = run_side(*side, json.dumps(way.imports), environment=way.environment)
                    taken.setdefault((way.name, beside), []).append(run)
    return taken


@contextmanager
def _running(programs: Sequence[str]) -> Iterator[None]:
    started = [subprocess.Popen([sys.executable, "-c", program]) for program in programs]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def compare(
    model: Path, ways: Sequence[Way], taken: Mapping[tuple[str, str], Sequence[Taken]]
) -> list[Ratio]:
    """Prints the times of each way and what they are against alone, and alone against the way that is then best."""
    alone = _BESIDE[0][0]
    best = min((way.name for way in ways), key=lambda name: middle(taken[name, alone]))
    kinds = {run.said["digest"] for runs in taken.values() for run in runs} - {None}
    print(f"{model.name}: {'all bits equal' if len(kinds) == 1 else f'{len(kinds)} KINDS OF BITS'}")
    ratios = []
    for way in ways:
        print(f"  {way.name}: {middle(taken[way.name, alone]):.2f} s alone")
        if best != way.name:
            wanted = ("at most", _BEST) if way.is_ours else None
            runs = taken[way.name, alone], taken[best, alone]
            ratios.append(pair(f"{model.name}, {way.name}, alone / {best}", *runs, wanted=wanted))
            print(f"    {ratios[-1]}", flush=True)
        for beside, _, bound in _BESIDE[1:]:
            wanted = ("at most", bound) if way.is_ours and bound is not None else None
            runs = taken[way.name, beside], taken[way.name, alone]
            ratios.append(pair(f"{model.name}, {way.name}, {beside} / alone", *runs, wanted=wanted))
            print(f"    {ratios[-1]}", flush=True)
    return ratios


def _run_side(model: str, prompts: str, n_threads: str, limit_s: str, imports: str) -> None:
    """A side: loads and warms the model, then captures, or asks as many questions."""
    modules = json.loads(imports)
    tokens = read_prompts(Path(prompts))
    if modules is None:
        _capture(Path(model), tokens, int(n_threads), float(limit_s))
        return
    for name in modules:
        importlib.import_module(name)
    _ask(model, len(tokens), int(n_threads), float(limit_s))


def _capture(path: Path, prompts: list[np.ndarray], n_threads: int, limit_s: float) -> None:
    from edgecal.llama.capture import capture, plan_for
    from edgecal.llama.model import Model
    from edgecal.llama.settings import CaptureSettings

    settings, digests = CaptureSettings(n_threads=n_threads), [b""] * len(prompts)
    with Model(path) as model:
        for _ in capture(model, prompts[:2], settings, hidden=True):
            pass
        n_rows, done = plan_for(model, prompts, settings).n_rows, 0
        began = time.perf_counter()

        def watch(_n_prompts: int, n_rows_done: int) -> None:
            nonlocal done
            done = n_rows_done
            if time.perf_counter() - began > limit_s:
                raise _TooLongError

        try:
            for chunk in capture(model, prompts, settings, hidden=True, progress=watch):
                assert chunk.hidden is not None
                for at, index in enumerate(chunk.indices):
                    digests[index] = hashlib.sha256(
                        chunk.hidden[at].tobytes() + chunk.logits[at].tobytes()
                    ).digest()
        except _TooLongError:
            digests = []
        time_s = (time.perf_counter() - began) * n_rows / done
    report(time_s=time_s, digest=hashlib.sha256(b"".join(digests)).hexdigest() if digests else None)


def _ask(path: str, n_questions: int, n_threads: int, limit_s: float) -> None:
    import edgecal

    questions = split_bank()[0][: n_questions + 1]
    with edgecal.load(path, n_ctx=1024, n_threads=n_threads, n_threads_batch=n_threads) as model:
        answers = []
        for at, question in enumerate(questions):
            if at == 1:
                began = time.perf_counter()
            answers.append(model.choose(question.question, list(question.choices)).confidence)
            if at and time.perf_counter() - began > limit_s:
                break
        time_s = (time.perf_counter() - began) * n_questions / (len(answers) - 1)
    full = len(answers) == len(questions)
    report(time_s=time_s, digest=hashlib.sha256(repr(answers).encode()).hexdigest() if full else None)


if __name__ == "__main__":
    main()
