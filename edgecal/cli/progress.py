"""Progress on stderr: a live bar on a terminal, and a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgecal.cli.stdio import say

if TYPE_CHECKING:
    from edgecal.api import Progress

__all__ = ["show_bytes", "show_progress"]

_LINE_EVERY_S = 5.0
_LEAST_BYTES = 1 << 28  # smaller stages end before a progress bar could be drawn
_STAGES = {
    "hash": "hashing the base model",
    "fit": "fitting the temperature (the first time, this compiles for some seconds)",
    "project": "fitting the map, and hashing both models",
    "judge": "fitting and judging (the first time, this compiles for some seconds)",
    "write": "writing the file",
    "compare": "comparing tensor data",
}
_BYTES = ("digest", "hash", "write", "compare")  # stages whose progress is counted in bytes
_RUNS = {
    "run": "running the {} model",
    "permute": "running the {} model on permuted options",
    "generate": "asking the {} model for its confidence",
    "effects": "running the {} model on other prompts",
}


@contextmanager
def show_progress(*, quiet: bool) -> Iterator[Callable[[Progress], None] | None]:
    """Yields a function that shows progress; None if `quiet`."""
    if quiet:
        yield None
    elif sys.stderr.isatty():
        with _bar() as show:
            yield show
    else:
        yield _Lines().show


@contextmanager
def show_bytes(stage: str, n_bytes: int, *, quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """Yields a function that shows (bytes done, bytes in total) of a stage of about `n_bytes` bytes; None if `quiet`,
    or if the stage ends too soon to be seen."""
    with show_progress(quiet=quiet or n_bytes < _LEAST_BYTES) as show:
        if show is None:
            yield None
        else:
            from edgecal.api import Progress

            tell = show
            yield lambda done, total: tell(Progress(stage, None, done, total))


def _describe(progress: Progress) -> str:
    if progress.stage == "load":
        return _named("loading the {} model", progress)
    if progress.stage == "digest":
        return _named("reading the {} model to look it up in the cache", progress)
    if progress.stage in _RUNS:
        return _named(_RUNS[progress.stage], progress)
    return _STAGES[progress.stage]


def _look_text(progress: Progress) -> str:
    """An intermediate temperature. Later looks may change it, so its interval is not a result."""
    look = progress.look
    assert look is not None
    so_far = f"after {progress.done:.0f} of {progress.total:.0f} questions"
    if look.temperature is None or look.interval is None:
        return f"{so_far}: the {look.what} is not determined yet"
    low, high = look.interval
    return f"{so_far}: {look.what} {look.temperature:.4g} ({low:.4g} to {high:.4g}, ±{look.tolerance:.1%})"


def _named(text: str, progress: Progress) -> str:
    return text.format(progress.model).replace("the model model", "the model")


class _Lines:
    """Writes a line at the start of each stage, every few seconds, and at the end of each run."""

    def __init__(self) -> None:
        self._stage = ""
        self._started_s = self._said_s = 0.0

    def show(self, progress: Progress) -> None:
        if progress.look is not None:
            say(_look_text(progress))
            self._stage = ""  # the next run starts afresh
            return
        now = time.monotonic()
        stage = _describe(progress)
        new = stage != self._stage
        finished = progress.stage in _RUNS and progress.done == progress.total
        if new:
            self._stage, self._started_s = stage, now
        elif not finished and now - self._said_s < _LINE_EVERY_S:
            return
        self._said_s = now
        text = stage
        if progress.stage in _RUNS:
            text += f": {progress.done:.0f} of {progress.total:.0f} prompts"
            elapsed_s = now - self._started_s
            if progress.n_tokens_done and elapsed_s > 0:
                rate = progress.n_tokens_done / elapsed_s
                left_s = (progress.n_tokens_total - progress.n_tokens_done) / rate
                text += f", {rate:.0f} tokens/s, {left_s:.0f} s left"
        elif progress.stage == "judge" and progress.done:
            text += f": {progress.done:.0f} of {progress.total:.0f} fits"
        elif progress.stage in _BYTES and not new:
            text += f": {progress.done / 1e9:.1f} of {progress.total / 1e9:.1f} GB"
        say(text)


@contextmanager
def _bar() -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeRemainingColumn(compact=True),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, tuple[TaskID, float]] = {}

        def show(progress: Progress) -> None:
            if progress.look is not None:
                bars.console.print(_look_text(progress), highlight=False, markup=False)
                for task, _ in tasks.values():
                    bars.remove_task(task)
                tasks.clear()
                return
            stage = _describe(progress)
            now = time.monotonic()
            if stage not in tasks:
                for task, _ in tasks.values():
                    bars.update(task, visible=False)
                tasks[stage] = (bars.add_task(stage, total=None, detail=""), now)
            task, started_s = tasks[stage]
            if progress.stage in _RUNS:
                rate = progress.n_tokens_done / max(now - started_s, 1e-3)
                bars.update(
                    task,
                    completed=progress.n_tokens_done,
                    total=progress.n_tokens_total,
                    detail=f"{progress.done:.0f} of {progress.total:.0f} prompts, {rate:.0f} tokens/s",
                )
            else:
                bars.update(task, completed=progress.done, total=progress.total or None)

        yield show
