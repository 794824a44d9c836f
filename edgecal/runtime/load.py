"""`edgecal.load`: a calibrated model for Python apps. Imports llama.cpp only when called."""

from __future__ import annotations

import os
from ctypes import ArgumentError
from pathlib import Path
from typing import Any

from edgecal.errors import InputError, ModelError, UnsettledWarning
from edgecal.runtime.chat_formats import templates_uncompiled
from edgecal.runtime.model import Model

__all__ = ["load"]


def load(path: str | Path, **llama_options: Any) -> Model:
    """Loads a model into this process and honours the temperature in its file.

        with edgecal.load("chat.calibrated.gguf") as model:
            answer = model.choose("Which planet is largest?", ["Mars", "Jupiter"])
            print(answer.text, answer.confidence)

    The file's header is checked before llama.cpp sees it. Unlike `edgecal.fit`, there is no process in between:
    should llama.cpp abort on a file, so does the app.

    Parameters
    ----------
    path: a GGUF file; of a split model the first shard.
    llama_options: of `llama_cpp.Llama`, such as `n_ctx`, `n_gpu_layers`, `n_threads` or `chat_format`; those that
        are not given are `edgecal eval`'s (see `edgecal.runtime.options`). The calibration is that of the file
        alone: with a `lora_path` it may be wrong.

    Returns
    -------
    A `Model`, a context manager. A file without calibration is loaded all the same, with temperature 1, and
    `model.calibration` says so. A file whose temperature edgecal had refused (`edgecal fit --unsettled`) is loaded
    with an `UnsettledWarning`; `model.calibration.doubts` are the reasons.

    Raises
    ------
    InputError: there is no such file, it is no model, its calibration makes no sense, or an option is wrong; or this
        process was forked from one in which llama.cpp has computed with several threads.
    ModelError: llama.cpp cannot load it or make a context, or it is no causal language model.
    """
    import warnings

    from edgecal.gguf.model_checks import check_model
    from edgecal.gguf.shards import find_shards
    from edgecal.llama.library import clear_log, first_error_line, last_error_lines, load_library
    from edgecal.runtime.forks import check_can_load
    from edgecal.runtime.options import check_options, default_options
    from edgecal.stamping.record import read_doubts, read_file_calibration

    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"the path is {path!r:.60}, expected that of a GGUF file")
    shards = find_shards(Path(path))
    check_model(shards.header)
    calibration = read_file_calibration(shards.header)
    for doubt in read_doubts(shards.header):
        warnings.warn(doubt, UnsettledWarning, stacklevel=2)
    try:
        name = os.fspath(shards.path)
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(
            f"{shards.path!a}: the file's name is not UTF-8, which llama-cpp-python needs; rename the file"
        ) from None
    load_library()  # before llama_cpp: sets how threads wait, and keeps the log
    from llama_cpp import Llama

    check_options(llama_options, Llama)
    options = {**default_options(shards.header), **llama_options}
    check_can_load(name, one_thread=options["n_threads"] == options["n_threads_batch"] == 1)
    clear_log()
    try:
        with templates_uncompiled():
            llama = Llama(name, **options)
    except MemoryError:
        raise ModelError(
            f"{name}: not enough memory for a context of this size; give a smaller n_ctx"
        ) from None
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        if llama_options and isinstance(error, (TypeError, OverflowError, AttributeError, ArgumentError)):
            raise InputError(f"an option of llama_cpp.Llama has a value of the wrong kind ({said})") from None
        raise ModelError(f"{name}: llama.cpp cannot load the model ({first_error_line() or said})") from None
    lora = llama_options.get("lora_path")
    if lora is not None and not getattr(
        llama, "_lora_adapter", True
    ):  # a null pointer, at which decoding crashes
        llama.close()
        raise ModelError(
            f"{lora}: llama.cpp cannot load the adapter ({last_error_lines(2) or 'no reason given'})"
        )
    return Model(llama, shards.header, calibration)
