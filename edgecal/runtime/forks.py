"""What is left of llama.cpp in a process that was forked: its threads are not, and who waits for them waits for ever.

Knows process numbers. Does not know models.
"""

from __future__ import annotations

import os

from edgecal.errors import InputError

__all__ = ["check_can_load", "check_not_forked", "note_threads"]

# The process in which llama.cpp has computed with several threads, or None.
_with_threads: int | None = None


def note_threads() -> None:
    """Remembers that llama.cpp computes with several threads in this process."""
    global _with_threads
    _with_threads = os.getpid()


def check_not_forked(process: int, path: object) -> None:
    """InputError if this is not the process with that number, in which the model was loaded."""
    if os.getpid() != process:
        raise InputError(
            f"{path}: was loaded before this process was forked, and llama.cpp's threads do not survive that; load the "
            "model after the fork, in each process that uses it"
        )


def check_can_load(path: object, *, one_thread: bool) -> None:
    """InputError if llama.cpp would wait for ever in this process. A single thread waits for nobody."""
    if _with_threads not in (None, os.getpid()) and not one_thread:
        raise InputError(
            f"{path}: this process was forked from one in which a model had answered already, so that llama.cpp's "
            "threads would hang here; start processes by multiprocessing's 'spawn', fork before the first answer, or "
            "load with n_threads=1 and n_threads_batch=1"
        )
