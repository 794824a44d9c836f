"""The worker's side: reads requests from stdin, calls their functions, and writes frames to stdout.

Exits at once when stdin ends because the parent is gone, even in the middle of a native call.
"""

from __future__ import annotations

import importlib
import os
import queue
import signal
import sys
import threading
import traceback
from typing import IO, Any

from edgecal.errors import EdgecalError
from edgecal.worker.protocol import Failure, Request, Result, Sign, read_frame, write_frame


def main() -> None:
    """Serves requests one after the other until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    frames = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # native code that prints must not corrupt the frames
    requests: queue.Queue[Request] = queue.Queue()
    threading.Thread(target=_receive, args=(sys.stdin.buffer, requests), daemon=True).start()
    lock = threading.Lock()

    def report(progress: Any) -> None:
        with lock:
            write_frame(frames, Sign(progress))

    while True:
        outcome = _serve(requests.get(), report)
        with lock:
            write_frame(frames, outcome)


def _serve(request: Request, report: Any) -> Result | Failure:
    try:
        module, name = request.function.split(":")
        return Result(getattr(importlib.import_module(module), name)(request.argument, report))
    except EdgecalError as error:
        return Failure(error, traceback.format_exc())
    except MemoryError:
        return Failure(MemoryError(), traceback.format_exc())
    except Exception:
        return Failure(None, traceback.format_exc())


def _receive(stream: IO[bytes], requests: queue.Queue[Request]) -> None:
    while (request := read_frame(stream)) is not None:
        requests.put(request)
    os._exit(0)  # skips the exit handlers, in which native libraries may abort


if __name__ == "__main__":
    main()
