"""Loads the native hook. Only this module opens edgecal's shared library.

A `HiddenCapture` belongs to one llama.cpp context. Before each decode it takes a plan (which rows of which micro-batch
to capture, and where to write them); llama.cpp calls the library during the decode; `finish()` raises any error. The
library is in the installed package, or where the environment variable EDGECAL_NATIVE_LIBRARY points.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgecal.architectures import PLAIN_STREAM, ResidualStream
from edgecal.errors import ModelError

__all__ = [
    "ENVIRONMENT_VARIABLE",
    "HOOK_ABI",
    "HiddenCapture",
    "PlannedMicroBatch",
    "PlannedRow",
    "load_hook",
]

HOOK_ABI: Final = 2
ENVIRONMENT_VARIABLE: Final = "EDGECAL_NATIVE_LIBRARY"

_FILE_NAMES = {"win32": "edgecal_hook.dll", "darwin": "libedgecal_hook.dylib"}

PlannedRow = tuple[int, int, int]  # row among all tokens, row among outputs (-1: none), prompt
PlannedMicroBatch = tuple[int, int, Sequence[PlannedRow]]  # tokens, outputs, wanted rows


class _Getters(ctypes.Structure):
    _fields_ = (
        ("get_name", ctypes.c_void_p),
        ("nrows", ctypes.c_void_p),
        ("nbytes", ctypes.c_void_p),
        ("element_size", ctypes.c_void_p),
        ("is_contiguous", ctypes.c_void_p),
        ("tensor_get", ctypes.c_void_p),
    )


class _Residual(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("n_embd", ctypes.c_int32),
        ("n_streams", ctypes.c_int32),
        ("by_stream", ctypes.c_bool),
    )


class _Report(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_int32),
        ("block", ctypes.c_int32),
        ("microbatch", ctypes.c_int32),
        ("n_microbatches", ctypes.c_int32),
        ("got_rows", ctypes.c_int64),
        ("got_bytes", ctypes.c_int64),
        ("got_element_bytes", ctypes.c_int64),
        ("expected_rows", ctypes.c_int64),
        ("expected_outputs", ctypes.c_int64),
        ("expected_row_bytes", ctypes.c_int64),
    )


# Error codes of the library's reports.
_NOT_CONTIGUOUS, _ELEMENT_SIZE, _ROW_SIZE, _ROW_COUNT = 1, 2, 3, 4
_BLOCK_MISSING, _BLOCK_REPEATED, _BLOCK_BEYOND, _NO_OUTPUT_ROW, _UNEXPECTED = 5, 6, 7, 8, 9

_REMEDY = "this model's hidden states cannot be read; methods that need none (--method daca) still work"


def load_hook() -> ctypes.CDLL:
    """Returns the hook's library with typed prototypes; opens it once per path.

    Raises ModelError if the library is missing, cannot be opened, or has another ABI than this package.
    """
    override = os.environ.get(ENVIRONMENT_VARIABLE)
    file_name = _FILE_NAMES.get(sys.platform, "libedgecal_hook.so")
    path = Path(override) if override else Path(__file__).resolve().parent.parent / "_native" / file_name
    return _open(path, bool(override))


@functools.cache
def _open(path: Path, is_override: bool) -> ctypes.CDLL:
    remedy = (
        f"correct or unset the environment variable {ENVIRONMENT_VARIABLE}"
        if is_override
        else f"reinstall edgecal with `pip install .` or name the library in {ENVIRONMENT_VARIABLE}"
    )
    if not path.is_file():
        raise ModelError(f"edgecal's native library is missing: no file {path}; {remedy}")
    try:
        library = ctypes.CDLL(str(path))
        abi_of = library.edgecal_hook_abi
    except OSError as error:
        raise ModelError(f"edgecal's native library {path} cannot be loaded ({error}); {remedy}") from error
    except AttributeError as error:
        raise ModelError(
            f"{path} is not edgecal's native library: it has no function edgecal_hook_abi; {remedy}"
        ) from error
    abi_of.argtypes = []
    abi_of.restype = ctypes.c_int32
    abi = abi_of()
    if abi != HOOK_ABI:
        raise ModelError(
            f"edgecal's native library {path} has ABI {abi}, this edgecal needs ABI {HOOK_ABI}; {remedy}"
        )
    library.edgecal_capture_new.argtypes = [
        ctypes.POINTER(_Getters),
        ctypes.c_int32,
        ctypes.POINTER(_Residual),
    ]
    library.edgecal_capture_new.restype = ctypes.c_void_p
    library.edgecal_capture_free.argtypes = [ctypes.c_void_p]
    library.edgecal_capture_free.restype = None
    library.edgecal_capture_plan.argtypes = [
        ctypes.c_void_p,  # capture
        ctypes.c_void_p,  # destination
        ctypes.c_void_p,  # captured
        ctypes.c_int32,  # n_prompts
        ctypes.c_void_p,  # microbatches
        ctypes.c_int32,
        ctypes.c_void_p,  # rows
        ctypes.c_int32,
    ]
    library.edgecal_capture_plan.restype = ctypes.c_bool
    library.edgecal_capture_finish.argtypes = [ctypes.c_void_p, ctypes.POINTER(_Report)]
    library.edgecal_capture_finish.restype = ctypes.c_int32
    return library


class HiddenCapture:
    """Captures the residual stream of wanted tokens after every block in one llama.cpp context.

    `n_layer` and `n_embd` are the model's, `getters` the addresses of ggml's functions
    (`edgecal.llama.library.ggml_addresses()`); `stream` says where the graph holds the residual stream. `callback` and
    `user` are the addresses to put into the context's `cb_eval` and `cb_eval_user_data`; they are valid until
    `close()`, so close the context first.
    """

    def __init__(
        self, n_layer: int, n_embd: int, getters: Sequence[int], stream: ResidualStream = PLAIN_STREAM
    ) -> None:
        self._library = load_hook()
        self._stream = stream
        residual = _Residual(
            self._stream.node.encode(), n_embd, self._stream.n_streams, self._stream.by_stream
        )
        self._handle = self._library.edgecal_capture_new(
            ctypes.byref(_Getters(*getters)), n_layer, ctypes.byref(residual)
        )
        if not self._handle:
            raise ModelError(
                f"cannot capture {n_layer} blocks of {self._stream.n_streams} x {n_embd} floats named "
                f"{self._stream.node!r}: sizes must be positive and the name have 1 to 30 bytes; is there enough "
                "memory?"
            )
        self.n_layer = n_layer
        self.n_embd = n_embd * self._stream.n_streams
        self._buffers: tuple[NDArray[np.float32], NDArray[np.uint8]] | None = None

    @property
    def callback(self) -> int:
        address = ctypes.cast(self._library.edgecal_capture_eval, ctypes.c_void_p).value
        assert address is not None
        return address

    @property
    def user(self) -> int:
        return int(self._handle)

    def plan(
        self,
        hidden: NDArray[np.float32],
        captured: NDArray[np.uint8],
        microbatches: Sequence[PlannedMicroBatch],
    ) -> None:
        """Prepares the next decode.

        `hidden`, float32 [n_prompts, n_layer, n_streams * n_embd], receives the rows; `captured`, uint8
        [n_prompts, n_layer], becomes 1 for each row written. Both must be C-contiguous and are kept alive until
        `finish()`. `microbatches` are in the order in which llama.cpp computes them.

        Raises ModelError if the plan is inconsistent (for example, a row outside its micro-batch).
        """
        shape = (hidden.shape[0], self.n_layer, self.n_embd)
        if (
            hidden.shape != shape
            or captured.shape != shape[:2]
            or hidden.dtype != np.float32
            or captured.dtype != np.uint8
            or not (hidden.flags.c_contiguous and captured.flags.c_contiguous)
        ):
            raise ModelError(
                f"hidden must be contiguous float32 {shape} and captured uint8 {shape[:2]}, "
                f"got {hidden.dtype} {hidden.shape} and {captured.dtype} {captured.shape}"
            )
        parts = []
        rows: list[PlannedRow] = []
        for n_tokens, n_outputs, wanted in microbatches:
            parts.append((n_tokens, n_outputs, len(rows), len(rows) + len(wanted)))
            rows.extend(wanted)
        part_array = np.array(parts, dtype=np.int32).reshape(-1, 4)
        row_array = np.array(rows, dtype=np.int32).reshape(-1, 3)
        self._buffers = (hidden, captured)
        is_planned = self._library.edgecal_capture_plan(
            self._handle,
            hidden.ctypes.data,
            captured.ctypes.data,
            hidden.shape[0],
            part_array.ctypes.data,
            len(part_array),
            row_array.ctypes.data,
            len(row_array),
        )
        if not is_planned:
            self._buffers = None
            raise ModelError(
                f"a capture plan of {len(parts)} micro-batches and {len(rows)} rows for {hidden.shape[0]} "
                "prompts was refused: a row lies outside its micro-batch, a prompt is out of range, or memory is short"
            )

    def finish(self) -> None:
        """Ends the decode. Raises ModelError naming the block and its sizes if a tensor differed from the plan."""
        report = _Report()
        self._buffers = None
        if self._library.edgecal_capture_finish(self._handle, ctypes.byref(report)) != 0:
            raise ModelError(f"{_explain(report, self._stream.node)}; {_REMEDY}")

    def close(self) -> None:
        """Frees the capture; may be called again."""
        if self._handle:
            self._library.edgecal_capture_free(self._handle)
            self._handle = None

    def __enter__(self) -> HiddenCapture:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _explain(report: _Report, node: str) -> str:
    where = f"block {report.block} ({node}-{report.block}), micro-batch {report.microbatch + 1}"
    where += f" of {report.n_microbatches}"
    rows = f"{report.expected_rows} rows (or {report.expected_outputs} in the last block)"
    got = f"{report.got_rows} rows and {report.got_bytes} bytes"
    row_bytes = report.expected_row_bytes
    messages = {
        _NOT_CONTIGUOUS: f"{where}: the tensor of {got} is not contiguous",
        _ELEMENT_SIZE: f"{where}: float32 elements of 4 bytes expected, got elements of "
        f"{report.got_element_bytes} bytes, {got}",
        _ROW_SIZE: f"{where}: rows of {row_bytes} bytes expected, got {got}",
        _ROW_COUNT: f"{where}: {rows} of {row_bytes} bytes expected, got {got}",
        _BLOCK_MISSING: f"{where}: not captured; llama.cpp's graph has no such tensor, "
        f"{rows} of {row_bytes} bytes expected",
        _BLOCK_REPEATED: f"{where}: computed more than once per planned micro-batch, now with {got}",
        _BLOCK_BEYOND: f"{where}: the model has fewer blocks, got {got}",
        _NO_OUTPUT_ROW: f"{where}: the tensor holds only output rows ({got}), and a wanted token is not one of them",
        _UNEXPECTED: f"{where}: llama.cpp passed a tensor that the hook did not ask for, {got}",
    }
    return messages.get(report.code, f"{where}: unknown error code {report.code}")
