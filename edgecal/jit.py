"""Compiles edgecal's kernels with numba and caches the machine code on disk where it can.

`fastmath` stays off, and each element of a kernel's output is written by one loop index only, so a result does not
depend on the number of threads. Division by zero follows IEEE 754, as in NumPy, because a check for it would keep
numba from vectorizing whole loops.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import njit
from numba.core.caching import FunctionCache

F = TypeVar("F", bound=Callable[..., Any])

__all__ = ["inner", "kernel"]


def inner(function: F) -> F:
    """Compile `function` for use inside kernels of the same module or of modules that import it under its name.

    It is not cached on its own but as part of its callers.
    """
    return cast("F", njit(error_model="numpy")(function))


def kernel(*, parallel: bool = False) -> Callable[[F], F]:
    """Compile a kernel that Python calls, and cache the machine code between runs.

    numba looks for a writable folder in this order: `NUMBA_CACHE_DIR`, `__pycache__` beside the source, the
    user's cache folder. If none is writable, or the disk is full when the code is stored, the kernel is compiled
    in memory for this process only: slower to start, same results.
    """

    def decorate(function: F) -> F:
        def compile_in_memory() -> Any:
            return njit(parallel=parallel, error_model="numpy")(function)

        compiled = [compile_in_memory()]
        with contextlib.suppress(RuntimeError, OSError):  # no writable folder, or no source file
            compiled[0]._cache = _KernelCache(function)

        @functools.wraps(function)
        def call(*args: Any) -> Any:
            try:
                return compiled[0](*args)
            except OSError:  # the cache failed after it was found: the disk is full or the folder was removed
                compiled[0] = compile_in_memory()
                return compiled[0](*args)

        return cast("F", call)

    return decorate


class _KernelCache(FunctionCache):
    """numba invalidates a kernel's cache when its own file changes; this one also when the file of an inner function
    or this file does."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]
        self._source_hashes = tuple(sorted(map(_hash_file, {__file__, *_find_files(function)})))

    def _index_key(self, *args: Any) -> tuple[Any, ...]:
        return (*super()._index_key(*args), self._source_hashes)  # type: ignore[no-untyped-call]


def _find_files(function: Any) -> set[str]:
    """The source files of `function` and of the inner functions that it calls, directly or through others."""
    files = {function.__code__.co_filename}
    for name in function.__code__.co_names:
        called = getattr(function.__globals__.get(name), "py_func", None)
        if called is not None:
            files |= _find_files(called)
    return files


@functools.cache
def _hash_file(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
