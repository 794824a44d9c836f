"""The worker's side: reads one request from stdin, calls the function, writes frames to stdout.

Leaves at once when the parent is gone (stdin ends), also in the middle of a native call.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import traceback
from typing import IO, Any

from edgecal.errors import EdgecalError
from edgecal.worker.protocol import Failure, Result, Sign, read_frame, write_frame


def main() -> None:
    """Serves one request."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    frames = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever native code prints must not get between the frames
    requests = sys.stdin.buffer
    request = read_frame(requests)
    if request is None:
        return
    threading.Thread(target=_leave_with_parent, args=(requests,), daemon=True).start()
    lock = threading.Lock()

    def report(progress: Any) -> None:
        with lock:
            write_frame(frames, Sign(progress))

    try:
        module, name = request.function.split(":")
        value = getattr(importlib.import_module(module), name)(request.argument, report)
    except EdgecalError as error:
        write_frame(frames, Failure(error, traceback.format_exc()))
    except MemoryError:
        write_frame(frames, Failure(MemoryError(), traceback.format_exc()))
    except Exception:
        write_frame(frames, Failure(None, traceback.format_exc()))
    else:
        write_frame(frames, Result(value))
    frames.close()
    os._exit(0)  # native libraries may abort in their exit handlers; everything has been said


def _leave_with_parent(requests: IO[bytes]) -> None:
    requests.read(1)
    os._exit(1)


if __name__ == "__main__":
    main()
