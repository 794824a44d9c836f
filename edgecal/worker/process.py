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
from types import TracebackType
from typing import IO, Any, NoReturn

from edgecal.errors import ModelError
from edgecal.worker.protocol import Failure, Request, Result, Sign, read_frame, write_frame

__all__ = ["DEFAULT_TIMEOUT_S", "Worker", "run_in_worker"]

DEFAULT_TIMEOUT_S = 600.0
_POLL_S = 0.2
_KEPT_LINES = 200
_LAST_WORDS_S = 5.0


def run_in_worker(
    function: str,
    argument: Any,
    *,
    what: str,
    on_progress: Callable[[Any], None] | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
) -> Any:
    """Calls a function in a process of its own and returns its result; as `Worker.call`, once."""
    with Worker() as worker:
        return worker.call(function, argument, what=what, on_progress=on_progress, timeout_s=timeout_s)


class Worker:
    """A process that calls functions, one after the other; a context manager that ends it.

    What the functions keep in their modules (a loaded model) is there for the next call. The process starts with
    the first call, and again with the next one after a call that did not return.
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
        if self._process is None:
            self._process = _Process()
        process = self._process
        try:
            process.send(Request(function, argument))
            outcome = _listen(process.frames, what, on_progress, timeout_s)
            if outcome is None:
                raise ModelError(process.obituary(what))
            if isinstance(outcome, Failure):
                _raise_again(outcome, what)
        except BaseException:
            self.close()
            raise
        return outcome.value

    def close(self) -> None:
        """Ends the process; again is harmless."""
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
    """A running worker, and the threads that hear it."""

    def __init__(self) -> None:
        self._process = _start()
        assert self._process.stdout is not None and self._process.stderr is not None
        self.frames: queue.Queue[Any] = queue.Queue()
        self._last_lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._threads = [
            threading.Thread(target=_pump_frames, args=(self._process.stdout, self.frames), daemon=True),
            threading.Thread(target=_pump_lines, args=(self._process.stderr, self._last_lines), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def send(self, request: Request) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            write_frame(self._process.stdin, request)

    def obituary(self, what: str) -> str:
        """Why nothing more is heard of it."""
        try:
            self._process.wait(timeout=_LAST_WORDS_S)
        except subprocess.TimeoutExpired:
            return f"{what}: the worker process said something that cannot be read"
        self._threads[1].join(timeout=5)
        return _obituary(self._process.returncode, what, self._last_lines)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for thread in self._threads:
            thread.join(timeout=5)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream is not None
            with contextlib.suppress(OSError):
                stream.close()


def _raise_again(failure: Failure, what: str) -> NoReturn:
    if isinstance(failure.error, MemoryError):
        raise ModelError(f"{what}: not enough memory; use a smaller model or fewer prompts (--limit)")
    if failure.error is not None:
        raise failure.error
    raise RuntimeError(f"the worker failed on {what}\n{failure.trace}")


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
