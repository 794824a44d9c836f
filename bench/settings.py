"""One setting changed at a time: what a whole capture takes against the default, and whether the bits stay.

    python bench/settings.py [WORK_FOLDER] [--kind Q4_0 Q8_0 Q4_K BF16] [--only flash_attn n_ubatch]
                             [--library NAME=FOLDER] [--repetitions N] [--prompts 24 16] [--shape 0.5B] [--json FILE]

Each line has the processor time and the time of a capture (hidden states included) with the change, divided by those
of the default next to it in the same run, as medians with their ranges; rows that are run; how many prompts' logits
and hidden states are those of the default bit for bit, and how far logits are from them otherwise. Processor time is
to be believed on a busy machine too, but says nothing of threads.

Changed are edgecal's settings, its packing constants and the repacking of weights, all in one process with the default
between every few; and what a process has one of, each in a process of its own beside one with the default: variables of
the environment, and llama.cpp's libraries. `--library` names a folder with `libllama.so` and what it needs, built
otherwise. llama.cpp's pool of threads (its polling and priorities) is not among them: builds with OpenMP, as
llama-cpp-python's are, take OpenMP's threads instead.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from questions import PromptSet, make_sets
from sides import checked_tokens, deviation, read_prompts, write_prompts
from timing import Ratio, Taken, finish, make_parser, report, run_side, say_machine, take_in_turn

from models import SHAPES, find_vocabulary, make_model

_SPAN = 3  # changes between two runs of the default


@dataclass(frozen=True)
class Change:
    """What differs from the default.

    Attributes
    ----------
    name: as printed.
    settings: of `CaptureSettings`.
    constants: of edgecal.llama's modules, by "module.NAME".
    repack: whether llama.cpp may rearrange weights for its kernels.
    environment: variables of the process.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    constants: dict[str, int] = field(default_factory=dict)
    repack: bool = True
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One capture: its times, the rows of its plan, and of each prompt a digest of all bits and some logits."""

    name: str
    processor_s: float
    time_s: float
    n_rows: int
    digests: list[str]
    logits: list[list[float]]


@dataclass
class Compared:
    """Runs of one change, each with the mean of the default's times beside it."""

    processor: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)

    def add(self, run: Run, *beside: Run) -> None:
        self.processor.append(run.processor_s / statistics.mean(each.processor_s for each in beside))
        self.wall.append(run.time_s / statistics.mean(each.time_s for each in beside))
        self.runs.append(run)


DEFAULT = Change("default")
_FLASH, _UNIFIED = {"flash_attn": True}, {"kv_unified": True}


def _output_rows(n_together: int, n_filled: int | None = None) -> dict[str, int]:
    """Prompts that may end in one decode, and its output rows at least."""
    n_filled = n_together if n_filled is None else n_filled
    modules = {"packing": n_together, "capture": n_together, "running": n_filled}
    return {f"{module}.OUTPUT_ROWS": n for module, n in modules.items()}


_UNFILLED = {"rows.ROW_STEP": 1, "rows.LEAST_ROWS": 1, **_output_rows(8, 1)}


def make_changes(n_threads: int) -> list[Change]:
    """Everything that is tried, without other libraries."""
    counts = sorted({1, 2, os.cpu_count() or 1} - {n_threads})
    return [
        *(Change(f"_WIDTH {n}", constants={"packing._WIDTH": n}) for n in (32, 48, 64, 128, 192, 512)),
        *(Change(f"n_threads {n}", {"n_threads": n}) for n in counts),
        Change("flash_attn", _FLASH),
        Change("kv_unified", _UNIFIED),
        Change("flash_attn kv_unified", _FLASH | _UNIFIED),
        Change("share off", {"share": False}),
        *(Change(f"n_seq_max {n}", {"n_seq_max": n}) for n in (4, 8, 24)),
        Change("use_extra_bufts off", repack=False),
        *(Change(f"OUTPUT_ROWS {n}", {"n_seq_max": n + 6}, _output_rows(n)) for n in (8, 16)),
        *(Change(f"_DECODE_COST {n}", constants={"rows._DECODE_COST": n}) for n in (2, 12, 20)),
        *(Change(f"_REST_COST {n}", constants={"rows._REST_COST": n}) for n in (0, 1)),
        *(Change(f"_STATE_COST {n}", constants={"rows._STATE_COST": n}) for n in (0, 20, 60)),
        Change("rows not filled", constants=_UNFILLED),
        Change("rows not filled, flash_attn", _FLASH, _UNFILLED),
        Change("rows not filled, flash_attn kv_unified", _FLASH | _UNIFIED, _UNFILLED),
        Change("OMP_WAIT_POLICY active", environment={"OMP_WAIT_POLICY": "active"}),
        *(
            Change(f"GOMP_SPINCOUNT {n}", environment={"GOMP_SPINCOUNT": str(n)})
            for n in (1_000, 10_000, 1_000_000)
        ),
        Change("GGML_CPU_TILED_MM_FORCE 1", environment={"GGML_CPU_TILED_MM_FORCE": "1"}),
    ]


def main() -> None:
    if sys.argv[1:2] == ["side"]:
        _run_side(*sys.argv[2:])
        return
    arguments = _parse()
    work: Path = arguments.work_folder
    say_machine(arguments.threads)
    n_zero, n_five = arguments.prompts
    vocabulary = find_vocabulary(work, arguments.source)
    sets = make_sets(vocabulary, n_zero=n_zero, n_five=n_five, n_permuted=1, n_subjects=1)[:2]
    ratios: list[Ratio] = []
    facts: dict[str, Any] = {}
    for kind in arguments.kind:
        model = make_model(work, arguments.shape, kind, arguments.source)
        for prompt_set in sets:
            found = compare(model, prompt_set, arguments)
            for name, compared in found.items():
                label = f"{kind}, {prompt_set.name}, {name}"
                ratios += [Ratio(f"{label}, processor time / default", tuple(compared.processor))]
                ratios += [Ratio(f"{label}, time / default", tuple(compared.wall))]
                facts[label] = _facts(found, name)
    finish(
        arguments.json, ratios, {}, n_threads=arguments.threads, settings=arguments.settings, changes=facts
    )


def compare(model: Path, prompt_set: PromptSet, arguments: argparse.Namespace) -> dict[str, Compared]:
    """Runs and prints all changes for one model and one set of prompts; the default comes first in what it returns."""
    path = write_prompts(arguments.work_folder / "settings-prompts.jsonl", prompt_set.tokens)
    side = partial(_start_side, model, path, arguments)
    changes = _chosen(make_changes(arguments.threads), arguments.only)
    found: dict[str, Compared] = {}
    shared = [change for change in changes if not change.environment]
    for index in range(arguments.repetitions if shared else 0):
        _add_in_turn(found, side(_with_defaults(shared[:: -1 if index % 2 else 1])))
    own = [change for change in changes if change.environment] + arguments.library
    for change in own:
        pair = {each.name: partial(_as_taken, side, each) for each in (DEFAULT, change)}
        taken = take_in_turn(pair, arguments.repetitions, warm_up=False)
        for default, run in zip(*(taken[name] for name in pair), strict=True):
            found.setdefault(DEFAULT.name, Compared()).add(default.said["run"], default.said["run"])
            found.setdefault(change.name, Compared()).add(run.said["run"], default.said["run"])
    _print(model, prompt_set, found)
    return found


def _parse() -> argparse.Namespace:
    parser = make_parser(__doc__, repetitions=5)
    parser.add_argument("--shape", default="0.5B", choices=SHAPES)
    parser.add_argument("--kind", nargs="+", default=["Q4_0", "Q8_0", "Q4_K", "BF16"])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="changes whose names begin so")
    parser.add_argument("--prompts", type=int, nargs=2, default=[24, 16], metavar="N", help="of each set")
    parser.add_argument("--library", nargs="+", default=[], type=_library, metavar="NAME=FOLDER")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.shape, arguments.kind, arguments.prompts, arguments.repetitions = (
            "0.1B",
            ["Q4_0"],
            [6, 4],
            1,
        )
    return arguments


def _library(text: str) -> Change:
    name, separator, folder = text.partition("=")
    if not separator or not Path(folder, "libllama.so").exists():
        raise argparse.ArgumentTypeError(f"{text}: expected NAME=FOLDER, and libllama.so in the folder")
    return Change(f"library {name}", environment={"LLAMA_CPP_LIB_PATH": str(Path(folder).resolve())})


def _chosen(changes: list[Change], only: Sequence[str] | None) -> list[Change]:
    return changes if only is None else [each for each in changes if each.name.startswith(tuple(only))]


def _with_defaults(changes: Sequence[Change]) -> list[Change]:
    """The default at both ends and after every few changes."""
    order = [DEFAULT]
    for start in range(0, len(changes), _SPAN):
        order += [*changes[start : start + _SPAN], DEFAULT]
    return order


def _start_side(
    model: Path, prompts: Path, arguments: argparse.Namespace, changes: Sequence[Change]
) -> list[Run]:
    """Runs changes of one environment in a process of their own."""
    settings = {"n_threads": arguments.threads, **json.loads(arguments.settings)}
    told = [{**asdict(change), "settings": settings | change.settings} for change in changes]
    path = arguments.work_folder / "settings-changes.json"
    path.write_text(json.dumps(told), "utf-8")
    taken = run_side(__file__, "side", model, prompts, path, environment=changes[-1].environment)
    return [Run(**run) for run in taken.said["runs"]]


def _as_taken(side: Any, change: Change) -> Taken:
    [run] = side([change])
    return Taken(run.time_s, 0.0, 0, {"run": run})


def _add_in_turn(found: dict[str, Compared], runs: Sequence[Run]) -> None:
    defaults = [at for at, run in enumerate(runs) if run.name == DEFAULT.name]
    for at, run in enumerate(runs):
        before = runs[max(each for each in defaults if each <= at)]
        after = runs[min(each for each in defaults if each >= at)]
        found.setdefault(run.name, Compared()).add(run, before, after)


def _facts(found: dict[str, Compared], name: str) -> dict[str, Any]:
    base, runs = found[DEFAULT.name].runs[0], found[name].runs
    equal = [
        sum(x == y for x, y in zip(run.digests, base.digests, strict=True)) / len(base.digests)
        for run in runs
    ]
    return {
        "processor_s": [run.processor_s for run in runs],
        "time_s": [run.time_s for run in runs],
        "n_rows": runs[0].n_rows,
        "equal": min(equal),
        "logits_off": max(deviation(base.logits, run.logits) for run in runs),
    }


def _print(model: Path, prompt_set: PromptSet, found: dict[str, Compared]) -> None:
    default = found[DEFAULT.name].runs
    processor_s = statistics.median(run.processor_s for run in default)
    time_s = statistics.median(run.time_s for run in default)
    print(f"{model.name}, {prompt_set.describe()}; load average {os.getloadavg()[0]:.1f}")
    print(f"  default: {processor_s:.2f} s of processors, {time_s:.2f} s")
    for name, compared in found.items():
        facts = _facts(found, name)
        bits = "equal bits" if facts["equal"] == 1 else f"bits of {facts['equal']:.0%} of the prompts equal"
        off = f", logits off by {facts['logits_off']:.2%}" if facts["logits_off"] else ""
        print(
            f"  {name:40} {_spread(compared.processor)}, time {_spread(compared.wall)}, "
            f"{facts['n_rows']:,} rows, {bits}{off}",
            flush=True,
        )


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def _run_side(model: str, prompts: str, changes: str) -> None:
    """A side: each change once, one after the other, on a model that is loaded and warm."""
    wanted = [Change(**each) for each in json.loads(Path(changes).read_text("utf-8"))]
    tokens = read_prompts(Path(prompts))
    began = time.perf_counter()
    with ExitStack() as stack:
        loaded = {repack: stack.enter_context(_load(model, repack)) for repack in {c.repack for c in wanted}}
        for repack, each in loaded.items():
            _take(each, tokens[:2], Change("warm up", wanted[0].settings, repack=repack))
        runs = [_take(loaded[change.repack], tokens, change) for change in wanted]
        ended = time.perf_counter()
    report(time_s=ended - began, runs=[asdict(run) for run in runs])


def _load(path: str, repack: bool) -> Any:
    from edgecal.llama.library import load_library
    from edgecal.llama.model import Model

    library = load_library()
    default = library.llama_model_default_params

    def params() -> Any:
        changed = default()
        changed.use_extra_bufts = repack
        return changed

    with mock.patch.object(library, "llama_model_default_params", params):
        return Model(path)


def _take(model: Any, prompts: list[np.ndarray], change: Change) -> Run:
    from edgecal.llama.capture import capture, plan_for
    from edgecal.llama.settings import CaptureSettings

    settings = CaptureSettings(**change.settings)
    with ExitStack() as stack:
        for name, value in change.constants.items():
            stack.enter_context(mock.patch(f"edgecal.llama.{name}", value))
        n_rows = plan_for(model, prompts, settings).n_rows
        began, began_processor = time.perf_counter(), time.process_time()
        chunks = list(capture(model, prompts, settings, hidden=True))
        processor_s, time_s = time.process_time() - began_processor, time.perf_counter() - began
    digests, logits = [""] * len(prompts), [[0.0]] * len(prompts)
    ids = checked_tokens(model.n_vocab)
    for chunk in chunks:
        assert chunk.hidden is not None
        for at, index in enumerate(chunk.indices):
            digests[index] = hashlib.sha256(
                chunk.hidden[at].tobytes() + chunk.logits[at].tobytes()
            ).hexdigest()
            logits[index] = chunk.logits[at][ids].tolist()
    return Run(change.name, processor_s, time_s, n_rows, digests, logits)


if __name__ == "__main__":
    main()
