"""The parent's side of a worker process: starts it, listens, and turns its death into one clear error.

Knows nothing of what the worker does.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from edgecal.errors import ModelError
from edgecal.worker.protocol import Failure, Request, Result, Sign, read_frame, write_frame

__all__ = ["DEFAULT_TIMEOUT_S", "run_in_worker"]

DEFAULT_TIMEOUT_S = 600.0
_POLL_S = 0.2
_KEPT_LINES = 200


def run_in_worker(
    function: str,
    argument: Any,
    *,
    what: str,
    on_progress: Callable[[Any], None] | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
) -> Any:
    """Calls a function in a process of its own and returns its result.

    Parameters
    ----------
    function: `"package.module:name"`; called with the argument and a callable that takes progress.
    argument: picklable.
    what: what is being run, for messages ("chat model x.gguf").
    on_progress: called here with each progress value that the function sends.
    timeout_s: seconds without a sign of life after which the worker counts as hung and is killed.

    Raises
    ------
    EdgecalError: the one that the function raised.
    ModelError: the worker died, or gave no sign of life for `timeout_s`.
    RuntimeError: the function raised anything else, which is a bug; the worker's traceback is in the text.
    KeyboardInterrupt: the worker has been killed.
    """
    process = _start()
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    frames: queue.Queue[Any] = queue.Queue()
    last_lines: deque[str] = deque(maxlen=_KEPT_LINES)
    threads = [
        threading.Thread(target=_pump_frames, args=(process.stdout, frames), daemon=True),
        threading.Thread(target=_pump_lines, args=(process.stderr, last_lines), daemon=True),
    ]
    for thread in threads:
        thread.start()
    try:
        with contextlib.suppress(BrokenPipeError):
            write_frame(process.stdin, Request(function, argument))
        outcome = _listen(frames, what, on_progress, timeout_s)
        if outcome is None:
            process.wait()
            threads[1].join(timeout=5)
            raise ModelError(_obituary(process.returncode, what, last_lines))
    finally:
        process.kill()
        process.wait()
        for thread in threads:
            thread.join(timeout=5)
        for stream in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(OSError):
                stream.close()
    if isinstance(outcome, Failure):
        if isinstance(outcome.error, MemoryError):
            raise ModelError(f"{what}: not enough memory; use a smaller model or fewer prompts (--limit)")
        if outcome.error is not None:
            raise outcome.error
        raise RuntimeError(f"the worker failed on {what}\n{outcome.trace}")
    return outcome.value


def _start() -> subprocess.Popen[bytes]:
    """Starts the worker, which finds its modules where this process finds them: the folder that it is started
    in and PYTHONPATH may hold anything."""
    root = str(Path(__file__).resolve().parents[2])
    path = [entry for entry in sys.path if isinstance(entry, str)]
    if root not in path:
        path.append(root)
    code = f"import sys; sys.path[:] = {path!a}; from edgecal.worker.__main__ import main; main()"
    environment = dict(os.environ)
    environment["GGML_NO_BACKTRACE"] = "1"  # an abort must not start a debugger
    try:
        return subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the parent, which kills the worker
        )
    except OSError as error:
        raise ModelError(f"cannot start a process to run llama.cpp in: {error}") from error


def _listen(
    frames: queue.Queue[Any], what: str, on_progress: Callable[[Any], None] | None, timeout_s: float
) -> Result | Failure | None:
    silent_s = 0.0
    while True:
        try:
            frame = frames.get(timeout=_POLL_S)
        except queue.Empty:
            silent_s += _POLL_S
            if silent_s >= timeout_s:
                raise ModelError(
                    f"{what}: llama.cpp gave no sign of life for {timeout_s:g} s and was stopped; "
                    "try again with a longer --timeout, or another model"
                ) from None
            continue
        silent_s = 0.0
        if isinstance(frame, Sign):
            if on_progress is not None:
                on_progress(frame.progress)
            continue
        if isinstance(frame, (Result, Failure)):
            return frame
        return None


def _pump_frames(stream: IO[bytes], frames: queue.Queue[Any]) -> None:
    try:
        with contextlib.suppress(OSError, ValueError):
            while (frame := read_frame(stream)) is not None:
                frames.put(frame)
    finally:  # whatever happens, the listener must not wait for more
        frames.put(None)


def _pump_lines(stream: IO[bytes], lines: deque[str]) -> None:
    with contextlib.suppress(OSError, ValueError):
        for line in stream:
            lines.append(line.decode("utf-8", "replace").strip())


def _obituary(code: int, what: str, lines: deque[str]) -> str:
    reason = _most_telling(lines)
    because = f": {reason}" if reason else ""
    if code >= 0:
        return f"{what}: the worker process ended early with exit code {code}{because}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    how = f"{what}: llama.cpp ended the worker process with {name}"
    if name == "SIGKILL":
        return f"{how} (the system may have run out of memory); try a smaller model"
    if "bad_alloc" in reason:
        return f"{how}: it asked for more memory than there is; is the file damaged?"
    return f"{how}{because}; the model file cannot be used as it is"


def _most_telling(lines: deque[str]) -> str:
    for mark in ("GGML_ASSERT", "GGML_ABORT", "terminate called", "what():", "error", "Error", "failed"):
        for line in reversed(lines):
            if mark in line:
                return line[-300:]
    return lines[-1][-300:] if lines else ""
