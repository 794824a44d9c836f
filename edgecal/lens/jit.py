"""Compiling this folder's kernel: cached on disk between runs, in memory where no disk can be written.

`fastmath` stays off: sums are made in the order in which they are written. Knows nothing of the mathematics.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

F = TypeVar("F", bound=Callable[..., Any])

__all__ = ["inner", "parallel_kernel"]


def inner(function: F) -> F:
    """Compile `function` as a part of the kernels of its own file; it is not called from Python."""
    return cast("F", njit(function))


def parallel_kernel(function: F) -> F:
    """Compile a kernel that Python calls, its `prange` loops on all threads.

    numba looks for a folder to keep the machine code in when a kernel is made, and stores it at the first
    call; where the one finds no folder or the other no space, the kernel lives in this process only.
    """

    def in_memory() -> Any:
        return njit(parallel=True)(function)

    try:
        compiled = njit(parallel=True, cache=True)(function)
    except RuntimeError:
        compiled = in_memory()

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        nonlocal compiled
        try:
            return compiled(*args)
        except OSError:
            compiled = in_memory()
            return compiled(*args)

    return cast("F", call)
