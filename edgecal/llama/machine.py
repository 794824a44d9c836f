"""What of the machine is free: memory for llama.cpp's caches, and processors beside other programs.

llama.cpp's threads wait for each other after every operation, many thousand times a second. With a processor for each
thread they should spin while they wait, because waking a thread takes longer than most waits. Where other programs want
the same processors, a spinning thread keeps the very thread from running that it waits for. So while llama.cpp
computes, a thread of edgecal counts what else wants a processor at that moment, and a decode gets

- all its threads, spinning, where there are processors for all;
- else as many threads as the others leave processors, if that is half of all processors or more;
- else all its threads, sleeping while they wait.

This changes no number: llama.cpp's results have the same bits with any number of threads, except with flash attention,
which splits one token's keys among them; there all threads are kept.

GNU's OpenMP lets threads spin only briefly (100 rounds) while it has more threads than there are processors; its manual
says so under GOMP_SPINCOUNT. So threads are put to sleep by a team of further threads that do nothing, for as long as
the thread that started the team lives. Environment variables would not do: OpenMP reads them when it is loaded, which
an app may have done before edgecal, and the best choice changes while a program runs. If the user sets one, edgecal
changes nothing. Other OpenMPs, and llama.cpp without any, wait as they do; there only the number of threads is
chosen. Nothing is done where the system does not tell what is running (no /proc).
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgecal.llama.library import find_function

__all__ = ["available_bytes", "is_crowded", "settle_cache_bytes", "threads_for_decode"]

# The variables by which a user may set how OpenMP's threads wait (the standard's, GNU's and LLVM's).
_WAIT_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")

_RUNNING = Path("/proc/loadavg")
_TASKS = Path("/proc/self/task")

_LOOK_S = 0.05  # between two looks
_STALE_S = 0.3  # a look older than this does not describe the present
# A first look takes the least of several counts, because a thread that has just called us may still be running.
_N_FIRST = 3
_FIRST_S = 0.0005  # between these counts
_WEIGHT = 0.3  # of a new look in the moving average
# Processors become crowded when there are more than _CROWDED threads too many, and stay so until _FREE or fewer.
_CROWDED, _FREE = 0.3, 0.1


@contextmanager
def threads_for_decode(
    n_threads: int, *, at_most: int | None = None, all_of_them: bool = False
) -> Iterator[int]:
    """Yields how many threads to compute with inside this context: at least 1, at most `n_threads` and `at_most`.
    Watches the load of other programs meanwhile. Any thread may enter it. `all_of_them`: always yields `n_threads`;
    only how they wait may change."""
    neighbours = _neighbours() if n_threads > 1 else None
    n_wanted = n_threads if at_most is None or all_of_them else min(n_threads, at_most)
    if neighbours is None:
        yield n_wanted
        return
    with neighbours.beside(n_wanted) as n:
        yield n_wanted if all_of_them else n


def is_crowded(n_threads: int) -> bool:
    """Whether `n_threads` of ours and the threads of other programs are more than the processors; False where the load
    is not watched."""
    neighbours = _neighbours() if n_threads > 1 else None
    return neighbours is not None and neighbours.are_too_many_beside(n_threads)


class Neighbours:
    """The load that other programs put on this process's processors: a moving average over looks.

    `count_others` returns how many threads of other programs want a processor at this moment; it may be off by a few,
    even below 0. `put_to_sleep` makes waiting threads sleep until the function that it returns is called; None where
    that is not possible.
    """

    def __init__(
        self,
        n_processors: int,
        count_others: Callable[[], int],
        put_to_sleep: Callable[[], Callable[[], None]] | None,
    ) -> None:
        self._n_processors = n_processors
        self._count_others = count_others
        self._put_to_sleep = put_to_sleep
        self._wake: Callable[[], None] | None = None
        self._lock = threading.Lock()
        self._computing = threading.Event()
        self._n_wanted = 0
        self._n_others = 0.0
        self._is_crowded = False
        self._looked_s = float("-inf")
        threading.Thread(target=self._watch, name="edgecal-neighbours", daemon=True).start()

    def are_too_many_beside(self, n_threads: int) -> bool:
        """Whether processors are short, by the last look or, if that is stale, by a new one with `n_threads` of
        ours."""
        with self._lock:
            if time.monotonic() - self._looked_s > _STALE_S:
                self._n_wanted += n_threads
                self._look()
                self._n_wanted -= n_threads
            return self._is_crowded

    @contextmanager
    def beside(self, n_threads: int) -> Iterator[int]:
        """Yields the number of threads for one decode that could use `n_threads`."""
        with self._lock:
            self._n_wanted += n_threads
            self._computing.set()
            if time.monotonic() - self._looked_s > _STALE_S:
                self._look()
            n = self._choose(n_threads)
        try:
            yield n
        finally:
            with self._lock:
                self._n_wanted -= n_threads
                if self._n_wanted == 0:
                    self._computing.clear()

    def _watch(self) -> None:
        while self._computing.wait():
            time.sleep(_LOOK_S)
            with self._lock:
                if self._n_wanted:
                    self._look()

    def _look(self) -> None:
        n_others, weight = self._count_others(), _WEIGHT
        if time.monotonic() - self._looked_s > _STALE_S:
            weight = 1.0
            for _ in range(_N_FIRST - 1):
                time.sleep(_FIRST_S)
                n_others = min(n_others, self._count_others())
        self._n_others += weight * (n_others - self._n_others)
        self._looked_s = time.monotonic()
        too_many = self._n_wanted + self._n_others - self._n_processors
        self._is_crowded = too_many > (_FREE if self._is_crowded else _CROWDED)
        if self._is_crowded and self._wake is None and self._put_to_sleep is not None:
            self._wake = self._put_to_sleep()
        elif not self._is_crowded and self._wake is not None:
            self._wake()
            self._wake = None

    def _choose(self, n_threads: int) -> int:
        if not self._is_crowded:
            return n_threads
        n_free = round(self._n_processors - self._n_others)
        if self._put_to_sleep is not None and 2 * n_free < self._n_processors:
            return n_threads
        return max(1, min(n_threads, n_free))


@functools.cache
def _neighbours() -> Neighbours | None:
    """This process's neighbours; None if the user has set how threads wait, or the system does not report threads."""
    if any(name in os.environ for name in _WAIT_VARIABLES) or not (_RUNNING.exists() and _TASKS.exists()):
        return None
    is_gnu = find_function("GOMP_parallel") is not None and find_function("__kmpc_fork_call") is None
    return Neighbours(len(os.sched_getaffinity(0)), _count_others, _put_to_sleep if is_gnu else None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_neighbours.cache_clear)  # the watching thread does not survive a fork


def _count_others() -> int:
    """Counts the runnable threads of the whole machine, less this process's own. The two are not counted at the same
    moment."""
    n_running = int(_RUNNING.read_bytes().split()[3].split(b"/")[0])
    for task in _TASKS.iterdir():
        with suppress(OSError):  # it has ended
            state = (task / "stat").read_bytes().rpartition(b")")[2].split()[0]
            n_running -= state == b"R"
    return n_running


def _put_to_sleep() -> Callable[[], None]:
    """Gives OpenMP more threads than there are processors; calling the returned function removes them."""
    parallel, idle = find_function("GOMP_parallel"), find_function("omp_get_thread_num")
    parallel.restype = None
    parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    n_threads = (os.cpu_count() or 1) + 1
    ended = threading.Event()

    def hold_team() -> None:
        parallel(ctypes.cast(idle, ctypes.c_void_p), None, n_threads, 0)
        ended.wait()  # the team ends with this thread

    threading.Thread(target=hold_team, name="edgecal-asleep", daemon=True).start()
    return ended.set


# More memory would only hold more sequences, and decodes are already full with these.
_MOST_CACHE_BYTES = 1 << 30
_CACHE_SHARE = 4

_CONTROL_GROUP = Path("/sys/fs/cgroup")


def available_bytes() -> int:
    """Returns the bytes that this process can allocate without swapping, within its container's limit."""
    import psutil

    available = int(psutil.virtual_memory().available)
    limit, used = _read_number("memory.max"), _read_number("memory.current")
    if limit is not None and used is not None:
        available = min(available, max(0, limit - used))
    return available


def settle_cache_bytes() -> int:
    """Returns the most bytes for all caches of one context: a quarter of the available memory, at most 1 GiB."""
    return min(_MOST_CACHE_BYTES, available_bytes() // _CACHE_SHARE)


def _read_number(name: str) -> int | None:
    try:
        text = (_CONTROL_GROUP / name).read_text("ascii")
    except (OSError, UnicodeDecodeError):
        return None
    return int(text) if text.strip().isdigit() else None
