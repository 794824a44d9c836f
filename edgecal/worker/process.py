"""The parent's side of a worker process: starts it, listens to it, and turns its death into one clear error."""

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
from types import TracebackType
from typing import IO, Any, NoReturn

from edgecal.errors import ModelError
from edgecal.worker.protocol import Failure, Request, Result, Sign, read_frame, write_frame

__all__ = ["DEFAULT_TIMEOUT_S", "Worker", "run_in_worker"]

DEFAULT_TIMEOUT_S = 600.0
_POLL_S = 0.2
_MAX_STDERR_LINES = 200
_EXIT_TIMEOUT_S = 5.0


def run_in_worker(
    function: str,
    argument: Any,
    *,
    what: str,
    on_progress: Callable[[Any], None] | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
) -> Any:
    """Calls a function in a new worker process, which then ends; parameters and errors as for `Worker.call`."""
    with Worker() as worker:
        return worker.call(function, argument, what=what, on_progress=on_progress, timeout_s=timeout_s)


class Worker:
    """A process that calls functions, one after the other; a context manager that ends it.

    State that the functions keep in their modules (a loaded model) is available to the next call. The process starts
    with the first call, and again with the first call after one that failed.
    """

    def __init__(self) -> None:
        self._process: _Process | None = None

    def call(
        self,
        function: str,
        argument: Any,
        *,
        what: str,
        on_progress: Callable[[Any], None] | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> Any:
        """Calls a function in the worker and returns its result.

        Parameters
        ----------
        function: `"package.module:name"`; called with the argument and a callable that reports progress.
        argument: picklable.
        what: names the work in messages ("chat model x.gguf").
        on_progress: called in this process with each progress value that the function reports.
        timeout_s: seconds without a frame from the worker after which it counts as hung and is killed.

        Raises
        ------
        EdgecalError: raised by the function.
        ModelError: the worker died, ran out of memory or sent nothing for `timeout_s`.
        RuntimeError: the function raised anything else, which is a bug; the text contains the worker's traceback.
        KeyboardInterrupt: raised after the worker has been killed.
        """
        if self._process is None:
            self._process = _Process()
        process = self._process
        try:
            process.send(Request(function, argument))
            outcome = _listen(process.frames, what, on_progress, timeout_s)
            if outcome is None:
                raise ModelError(process.explain_exit(what))
            if isinstance(outcome, Failure):
                _reraise(outcome, what)
        except BaseException:
            self.close()
            raise
        return outcome.value

    def close(self) -> None:
        """Ends the process; harmless if it has ended."""
        if self._process is not None:
            self._process.end()
            self._process = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Process:
    """A running worker, and the threads that read its stdout and stderr."""

    def __init__(self) -> None:
        self._process = _start()
        assert self._process.stdout is not None and self._process.stderr is not None
        self.frames: queue.Queue[Any] = queue.Queue()
        self._stderr_lines: deque[str] = deque(maxlen=_MAX_STDERR_LINES)
        self._threads = [
            threading.Thread(target=_pump_frames, args=(self._process.stdout, self.frames), daemon=True),
            threading.Thread(
                target=_pump_lines, args=(self._process.stderr, self._stderr_lines), daemon=True
            ),
        ]
        for thread in self._threads:
            thread.start()

    def send(self, request: Request) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            write_frame(self._process.stdin, request)

    def explain_exit(self, what: str) -> str:
        """Why the worker sends no more frames, as an error message."""
        try:
            self._process.wait(timeout=_EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return f"{what}: the worker process sent a message that cannot be read"
        self._threads[1].join(timeout=5)
        return _explain_exit(self._process.returncode, what, self._stderr_lines)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for thread in self._threads:
            thread.join(timeout=5)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream is not None
            with contextlib.suppress(OSError):
                stream.close()


def _reraise(failure: Failure, what: str) -> NoReturn:
    if isinstance(failure.error, MemoryError):
        raise ModelError(f"{what}: not enough memory; use a smaller model or fewer prompts (--limit)")
    if failure.error is not None:
        raise failure.error
    raise RuntimeError(f"the worker failed on {what}\n{failure.trace}")


def _start() -> subprocess.Popen[bytes]:
    """Starts the worker with this process's module path, because the working folder and PYTHONPATH may hold modules
    with the same names."""
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
                    f"{what}: llama.cpp did not respond for {timeout_s:g} s and was stopped; "
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
    finally:  # the listener must not wait for more, even after an unexpected error
        frames.put(None)


def _pump_lines(stream: IO[bytes], lines: deque[str]) -> None:
    with contextlib.suppress(OSError, ValueError):
        for line in stream:
            lines.append(line.decode("utf-8", "replace").strip())


def _explain_exit(code: int, what: str, lines: deque[str]) -> str:
    reason = _find_reason(lines)
    because = f": {reason}" if reason else ""
    if code >= 0:
        return f"{what}: the worker process ended early with exit code {code}{because}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    end = f"{what}: llama.cpp ended the worker process with {name}"
    if name == "SIGKILL":
        return f"{end} (the system may have run out of memory); try a smaller model"
    if "bad_alloc" in reason:
        return f"{end}: it requested more memory than there is; is the file damaged?"
    return f"{end}{because}; the model file cannot be used as it is"


def _find_reason(lines: deque[str]) -> str:
    """The last line with the most specific mark of an error, or else the last line."""
    for mark in ("GGML_ASSERT", "GGML_ABORT", "terminate called", "what():", "error", "Error", "failed"):
        for line in reversed(lines):
            if mark in line:
                return line[-300:]
    return lines[-1][-300:] if lines else ""
