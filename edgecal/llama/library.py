"""Loads llama.cpp when it is first needed, buffers its log instead of printing it, and calls ggml's functions by name.

`load_library()` returns the ctypes bindings of llama-cpp-python (module `llama_cpp.llama_cpp`), typed as `Any`,
because the bindings' annotations change more often than their functions. llama.cpp's log goes into a ring buffer;
`last_error_lines()` quotes it in messages. `ggml_addresses()` returns the addresses of the ggml functions that the
native hook calls. `dequantize_rows()` uses ggml's own function for each type, `dequantize_row_<type>`: there is no
second implementation to keep equal, and types newer than gguf-py work too.
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

import numpy as np
from numpy.typing import NDArray

from edgecal.errors import ModelError

__all__ = [
    "GGML_GETTERS",
    "buffer_bytes",
    "clear_log",
    "dequantize_rows",
    "describe_llama_cpp",
    "find_function",
    "first_error_line",
    "ggml_addresses",
    "last_error_lines",
    "load_library",
    "note_compute",
    "steady_experts",
    "system_info",
]

# The functions by which the native hook reads a tensor, in the order of its struct of getters.
GGML_GETTERS = (
    "ggml_get_name",
    "ggml_nrows",
    "ggml_nbytes",
    "ggml_element_size",
    "ggml_is_contiguous",
    "ggml_backend_tensor_get",
)

_LOG_LINES = 200
# As in ggml.h; the numbers in the bindings' own logger are wrong.
_LEVEL_WARN = 3
_LEVEL_ERROR = 4
_LEVEL_CONT = 5

# (level, text) of llama.cpp's latest log lines. One buffer, because llama.cpp has one log for the whole process.
_log: deque[tuple[int, str]] = deque(maxlen=_LOG_LINES)

# Keeps the log callback alive: llama.cpp may call it for the life of the process.
_log_callbacks: list[object] = []


def _on_log_line(level: int, text: bytes, _user: object) -> None:
    """Called by llama.cpp, from any of its threads; never raises. Level CONT continues the last line."""
    decoded = (text or b"").decode("utf-8", "replace")
    if level == _LEVEL_CONT and _log:
        last_level, last_text = _log[-1]
        _log[-1] = (last_level, last_text + decoded)
    else:
        _log.append((level, decoded))


@functools.cache
def load_library() -> Any:
    """Returns the bindings module `llama_cpp.llama_cpp`, with llama.cpp's backend initialised and its log buffered.

    Raises ModelError if llama-cpp-python is missing or its shared library cannot be loaded.
    """
    try:
        bindings: Any = importlib.import_module("llama_cpp.llama_cpp")
    except ModuleNotFoundError as error:
        raise ModelError(
            f"llama-cpp-python, which runs the models, is not installed ({error}); "
            "install it with `pip install 'llama-cpp-python>=0.3.36,<0.4'`"
        ) from error
    except (FileNotFoundError, OSError, RuntimeError) as error:
        raise ModelError(
            f"llama-cpp-python is installed but its llama.cpp cannot be loaded ({_one_line(str(error))}); "
            "reinstall it with `pip install --force-reinstall --no-cache-dir llama-cpp-python`"
        ) from error
    _log_callbacks.append(bindings.llama_log_callback(_on_log_line))
    bindings.llama_log_set(_log_callbacks[0], ctypes.c_void_p(0))
    bindings.llama_backend_init()
    return bindings


_STEADY = "GGML_CPU_TILED_MM_FORCE"
_computed_unsteadily = False


def note_compute() -> None:
    """Remembers, before llama.cpp computes, whether `steady_experts` comes too late for this process from now on."""
    global _computed_unsteadily
    _computed_unsteadily = _computed_unsteadily or os.environ.get(_STEADY) != "1"


def steady_experts() -> bool:
    """Makes llama.cpp compute an expert's rows with the same kernel, whatever their number.

    With K- and IQ-quants that are not repacked, llama.cpp takes another kernel for fewer than 8 rows, and how many rows
    go to an expert depends on all rows of the decode. So a prompt's last bits would depend on which prompts share the
    decode. llama.cpp reads the variable once, when it first computes in a process, so call this before. Small decodes
    take longer (measured with 32 experts of which 4 are used: 1.6 times as long for 40 rows, as long as before for 160;
    5 times for a single row).

    Returns whether it holds: false where this process has computed without it (see `note_compute`), or the user has
    set the variable otherwise.
    """
    os.environ.setdefault(_STEADY, "1")
    return not _computed_unsteadily and os.environ[_STEADY] == "1"


def clear_log() -> None:
    """Empties the log buffer, so that later lines belong to the next call; also sets the log callback again, because
    another module of this process may have replaced it."""
    load_library().llama_log_set(_log_callbacks[0], ctypes.c_void_p(0))
    _log.clear()


def buffer_bytes(name: str) -> int:
    """Returns the size of the model buffers whose names contain `name` ("REPACK"), as logged since `clear_log`."""
    pattern = re.compile(rf"{re.escape(name)}\w* model buffer size = +([0-9.]+) MiB")
    return sum(round(float(mib) * (1 << 20)) for _, text in list(_log) for mib in pattern.findall(text))


def first_error_line() -> str:
    """Returns the first line that llama.cpp has logged as an error since `clear_log`, empty if there is none. When
    loading fails, the first line names the cause; later ones only report which callers gave up."""
    return next((_one_line(text) for level, text in _log if level == _LEVEL_ERROR and text.strip()), "")


def last_error_lines(n: int = 1) -> str:
    """Returns the last `n` lines that llama.cpp logged as errors (if none, as warnings), joined by "; ".

    Empty if there are none. Line breaks inside a message become spaces, so the result is one line.
    """
    lines = list(_log)
    for wanted in (_LEVEL_ERROR, _LEVEL_WARN):
        texts = [_one_line(text) for level, text in lines if level == wanted and text.strip()]
        if texts:
            return "; ".join(texts[-n:])
    return ""


def describe_llama_cpp() -> str:
    """Returns the versions that results record: "llama-cpp-python 0.3.36 (llama.cpp <version>, ggml <version>, commit
    <id>)". A version that the build does not export is "unknown"."""
    load_library()
    parts = {name: _version_string(name) for name in ("llama_version", "ggml_version", "ggml_commit")}
    return (
        f"llama-cpp-python {importlib.metadata.version('llama-cpp-python')} "
        f"(llama.cpp {parts['llama_version']}, ggml {parts['ggml_version']}, commit {parts['ggml_commit']})"
    )


def system_info() -> str:
    """Returns llama.cpp's own line about the processor features in use. Kernels, and so the last bits of results,
    differ with them."""
    return _one_line(load_library().llama_print_system_info().decode("utf-8", "replace")).rstrip(" |")


def ggml_addresses() -> tuple[int, ...]:
    """Returns the addresses of the functions GGML_GETTERS in this process's llama.cpp, in that order.

    Raises ModelError naming the first function that this build does not export.
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
    """Returns a new function object of that name, or None. It is new so that setting its prototype affects no other
    caller."""
    return next((library[name] for library in _libraries() if hasattr(library, name)), None)


@functools.cache
def _libraries() -> tuple[ctypes.CDLL, ...]:
    """llama.cpp's libraries. A handle also finds the symbols of the libraries that it depends on, except on Windows,
    where ggml's base library must be opened by its name."""
    bindings = load_library()
    llama = ctypes.CDLL(bindings._lib._name)
    base_name = {"win32": "ggml-base.dll", "darwin": "libggml-base.dylib"}.get(
        sys.platform, "libggml-base.so"
    )
    base = Path(bindings._lib._name).with_name(base_name)
    return (llama, ctypes.CDLL(str(base))) if base.exists() else (llama,)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def dequantize_rows(type_name: str, raw: NDArray[np.uint8], n_per_row: int) -> NDArray[np.float32]:
    """Returns rows of a quantized type as float32 [n, n_per_row].

    Parameters
    ----------
    type_name: the type as GGUF files name it: "Q4_K", "IQ2_XXS", "MXFP4".
    raw: uint8 [n, bytes of a row], n may be 0. The type's block size must divide `n_per_row`, and the blocks must fill
        the rows: ggml reads as many bytes as `n * n_per_row` numbers take.

    Raises
    ------
    ModelError: ggml exports no function for the type; the message begins with the type's name.
    """
    name = f"dequantize_row_{type_name.lower().replace('_k', '_K')}"
    function = find_function(name)
    if function is None:
        raise ModelError(f"{type_name}: {describe_llama_cpp()} exports no {name} to turn it into numbers")
    function.restype, function.argtypes = None, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
    raw = np.ascontiguousarray(raw, np.uint8)
    rows = np.empty((len(raw), n_per_row), np.float32)
    function(raw.ctypes.data, rows.ctypes.data, rows.size)
    return rows
