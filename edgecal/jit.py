"""How edgecal compiles its kernels: numba, cached on disk where a disk can be written, never relaxed maths.

`fastmath` stays off, and kernels only ever write to places that one loop index owns, so a result does not
depend on the number of threads. Knows nothing of what the kernels compute.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

F = TypeVar("F", bound=Callable[..., Any])

__all__ = ["inner", "kernel"]


def inner(function: F) -> F:
    """Compile `function` for use inside kernels of the same file.

    Not cached on its own: it becomes part of its callers. Callers in another file would keep a stale copy in
    their cache when this one is edited, so there must be none.
    """
    return cast("F", njit(function))


def kernel(*, parallel: bool = False) -> Callable[[F], F]:
    """Compile a kernel that Python calls, and keep the machine code between runs.

    numba looks for a writable place in this order: `NUMBA_CACHE_DIR`, `__pycache__` beside the source, the
    user's cache folder. Where none can be written, or the disk is full when the code is to be stored, the
    kernel is compiled in memory for this process only: slower to start, same results.
    """

    def decorate(function: F) -> F:
        compiled: list[Any] = []

        def compile_in_memory() -> Any:
            return njit(parallel=parallel)(function)

        try:
            compiled.append(njit(parallel=parallel, cache=True)(function))
        except RuntimeError:  # numba found no folder that it can write
            compiled.append(compile_in_memory())

        @functools.wraps(function)
        def call(*args: Any) -> Any:
            try:
                return compiled[0](*args)
            except OSError:  # the cache went bad after it was found: a full disk, a folder taken away
                compiled[0] = compile_in_memory()
                return compiled[0](*args)

        return cast("F", call)

    return decorate
