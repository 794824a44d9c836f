"""How edgecal compiles its kernels: numba, cached on disk where a disk can be written, never relaxed maths.

`fastmath` stays off, and kernels only ever write to places that one loop index owns, so a result does not
depend on the number of threads. A division by zero gives what IEEE 754 says, as in NumPy: the check for an error
would keep whole loops from becoming vector instructions. Knows nothing of what the kernels compute.
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
    """Compile `function` for use inside kernels, of this file or of one that imports it by its name.

    Not cached on its own: it becomes part of its callers.
    """
    return cast("F", njit(error_model="numpy")(function))


def kernel(*, parallel: bool = False) -> Callable[[F], F]:
    """Compile a kernel that Python calls, and keep the machine code between runs.

    numba looks for a writable place in this order: `NUMBA_CACHE_DIR`, `__pycache__` beside the source, the
    user's cache folder. Where none can be written, or the disk is full when the code is to be stored, the
    kernel is compiled in memory for this process only: slower to start, same results.
    """

    def decorate(function: F) -> F:
        def compile_in_memory() -> Any:
            return njit(parallel=parallel, error_model="numpy")(function)

        compiled = [compile_in_memory()]
        with contextlib.suppress(RuntimeError, OSError):  # no folder to write in, or no source to go by
            compiled[0]._cache = _Cache(function)

        @functools.wraps(function)
        def call(*args: Any) -> Any:
            try:
                return compiled[0](*args)
            except OSError:  # the cache went bad after it was found: a full disk, a folder taken away
                compiled[0] = compile_in_memory()
                return compiled[0](*args)

        return cast("F", call)

    return decorate


class _Cache(FunctionCache):
    """numba's cache goes by the kernel's own file; this one also by its inner functions' files and by this file."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]
        self._parts = tuple(sorted(map(_hash_file, {__file__, *_find_files(function)})))

    def _index_key(self, *args: Any) -> tuple[Any, ...]:
        return (*super()._index_key(*args), self._parts)  # type: ignore[no-untyped-call]


def _find_files(function: Any) -> set[str]:
    """Files of `function`, of the inner functions that it names, and of those that they name."""
    files = {function.__code__.co_filename}
    for name in function.__code__.co_names:
        part = getattr(function.__globals__.get(name), "py_func", None)
        if part is not None:
            files |= _find_files(part)
    return files


@functools.cache
def _hash_file(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
