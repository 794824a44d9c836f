"""llama.cpp as a library: imported when first needed, its log kept instead of printed, its versions named.

`load_library()` gives the ctypes bindings of llama-cpp-python (module `llama_cpp.llama_cpp`). They are typed
as `Any`: the bindings change their annotations more often than their functions. llama.cpp's log goes into a
small ring; `last_error_lines()` quotes it in messages. The addresses of ggml's functions that the native hook
calls come from `ggml_addresses()`.

Does not know models, contexts, prompts or the hook.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.metadata
import os
import re
import sys
from collections import deque
from pathlib import Path
from typing import Any

from edgecal.errors import ModelError

__all__ = [
    "GGML_GETTERS",
    "buffer_bytes",
    "clear_log",
    "describe_llama_cpp",
    "find_function",
    "first_error_line",
    "ggml_addresses",
    "last_error_lines",
    "load_library",
    "recent_log",
    "steady_experts",
    "system_info",
]

# What the native hook asks of a tensor, in the order of its struct of getters.
GGML_GETTERS = (
    "ggml_get_name",
    "ggml_nrows",
    "ggml_nbytes",
    "ggml_element_size",
    "ggml_is_contiguous",
    "ggml_backend_tensor_get",
)

_LOG_LINES = 200
# As in ggml.h; the bindings' own logger numbers them differently, and wrongly.
_LEVEL_WARN = 3
_LEVEL_ERROR = 4
_LEVEL_CONT = 5

# (level, text) of llama.cpp's latest log lines. llama.cpp has one log for the whole process, so one ring.
_log: deque[tuple[int, str]] = deque(maxlen=_LOG_LINES)

# llama.cpp keeps the log callback for the life of the process; so does this list.
_alive: list[object] = []


def _keep_log_line(level: int, text: bytes, _user: object) -> None:
    """Called by llama.cpp, also from its other threads; never raises. Level CONT continues the last line."""
    decoded = (text or b"").decode("utf-8", "replace")
    if level == _LEVEL_CONT and _log:
        last_level, last_text = _log[-1]
        _log[-1] = (last_level, last_text + decoded)
    else:
        _log.append((level, decoded))


@functools.cache
def load_library() -> Any:
    """The bindings module `llama_cpp.llama_cpp`, with llama.cpp's backend initialised and its log silenced.

    Raises ModelError if llama-cpp-python is missing or its shared library cannot be loaded.
    """
    try:
        bindings: Any = importlib.import_module("llama_cpp.llama_cpp")
    except ModuleNotFoundError as error:
        raise ModelError(
            f"llama-cpp-python is not installed ({error}): edgecal runs models through it; "
            "install it with `pip install 'llama-cpp-python>=0.3.36,<0.4'`"
        ) from error
    except (FileNotFoundError, OSError, RuntimeError) as error:
        raise ModelError(
            f"llama-cpp-python is installed but its llama.cpp cannot be loaded ({_one_line(str(error))}): "
            "reinstall it with `pip install --force-reinstall --no-cache-dir llama-cpp-python`"
        ) from error
    _alive.append(bindings.llama_log_callback(_keep_log_line))
    bindings.llama_log_set(_alive[0], ctypes.c_void_p(0))
    bindings.llama_backend_init()
    return bindings


def steady_experts() -> None:
    """Makes llama.cpp compute an expert's rows by one and the same kernel, however many there are.

    With K- and IQ-quants that are not repacked, it takes another kernel for fewer than 8 rows, and how many of a
    decode's rows go to an expert depends on all of them: a prompt's last bits would depend on its company. llama.cpp
    reads the variable once, when it first computes in a process, so this comes before. Few rows take longer with it
    (measured, 32 experts of which 4 are used: 1.6 times for 40 rows, nothing for 160; 5 times for a single row).
    """
    os.environ.setdefault("GGML_CPU_TILED_MM_FORCE", "1")


def recent_log() -> list[str]:
    """llama.cpp's latest log lines, oldest first, at most 200, of every level."""
    return [line for _, text in list(_log) for line in text.splitlines() if line.strip()]


def clear_log() -> None:
    """Forgets the log so far, so that what follows is about what is done next; and takes the log back if
    somebody else in this process has asked llama.cpp for it meanwhile."""
    load_library().llama_log_set(_alive[0], ctypes.c_void_p(0))
    _log.clear()


def buffer_bytes(name: str) -> int:
    """Bytes of the model buffers with `name` in theirs ("REPACK"), as llama.cpp logged them since `clear_log`."""
    pattern = re.compile(rf"{re.escape(name)}\w* model buffer size = +([0-9.]+) MiB")
    found = (pattern.search(line) for line in recent_log())
    return sum(round(float(match[1]) * (1 << 20)) for match in found if match)


def first_error_line() -> str:
    """The first line that llama.cpp has logged as an error since `clear_log`, empty if there is none. Where loading
    fails it names the cause; the lines after it only tell who gave up because of it."""
    return next((_one_line(text) for at, text in _log if at == _LEVEL_ERROR and text.strip()), "")


def last_error_lines(n: int = 1) -> str:
    """The last `n` lines that llama.cpp logged as errors (or, if none, as warnings), joined by "; ".

    Empty if there are none. Line breaks inside a message are spaces, so the result is one line.
    """
    lines = list(_log)
    for level in (_LEVEL_ERROR, _LEVEL_WARN):
        found = [_one_line(text) for at, text in lines if at == level and text.strip()]
        if found:
            return "; ".join(found[-n:])
    return ""


def describe_llama_cpp() -> str:
    """What ran the model, as recorded with results: "llama-cpp-python 0.3.36 (llama.cpp <version>, ggml
    <version>, commit <id>)". What the build does not tell is "unknown"."""
    load_library()
    parts = {name: _version_string(name) for name in ("llama_version", "ggml_version", "ggml_commit")}
    return (
        f"llama-cpp-python {importlib.metadata.version('llama-cpp-python')} "
        f"(llama.cpp {parts['llama_version']}, ggml {parts['ggml_version']}, commit {parts['ggml_commit']})"
    )


def system_info() -> str:
    """llama.cpp's own line on the processor features that it was built to use; kernels, and so the last bits
    of the numbers, differ with them."""
    return _one_line(load_library().llama_print_system_info().decode("utf-8", "replace")).rstrip(" |")


def ggml_addresses() -> tuple[int, ...]:
    """Addresses of the functions GGML_GETTERS in this process's llama.cpp, in that order.

    Raises ModelError naming the first that this build does not export.
    """
    addresses = []
    for name in GGML_GETTERS:
        function = find_function(name)
        address = ctypes.cast(function, ctypes.c_void_p).value if function is not None else None
        if address is None:
            raise ModelError(
                f"{describe_llama_cpp()} does not export {name}, which reading hidden states needs; "
                "install llama-cpp-python>=0.3.36,<0.4 built with shared libraries"
            )
        addresses.append(address)
    return tuple(addresses)


def _version_string(name: str) -> str:
    function = find_function(name)
    if function is None:
        return "unknown"
    function.restype = ctypes.c_char_p
    function.argtypes = []
    text: bytes | None = function()
    return text.decode("utf-8", "replace") if text else "unknown"


def find_function(name: str) -> Any:
    """A fresh function object of that name (so that prototypes set on it meet nobody else), or None."""
    return next((library[name] for library in _libraries() if hasattr(library, name)), None)


@functools.cache
def _libraries() -> tuple[ctypes.CDLL, ...]:
    """llama.cpp's libraries. A handle also finds the symbols of what it depends on, except on Windows, where
    ggml's base library has to be opened by its name."""
    bindings = load_library()
    loaded = ctypes.CDLL(bindings._lib._name)
    pattern = {"win32": "ggml-base.dll", "darwin": "libggml-base.dylib"}.get(sys.platform, "libggml-base.so")
    base = Path(bindings._lib._name).with_name(pattern)
    return (loaded, ctypes.CDLL(str(base))) if base.exists() else (loaded,)


def _one_line(text: str) -> str:
    return " ".join(text.split())
