"""`edgecal.load`: a calibrated model for Python apps. llama.cpp is imported only when it is called.

The default options are those of `edgecal eval`, so that the same prompt gives the same logits but for rounding:
`edgecal eval` pads a prompt's rows to a multiple of four and computes the logits of four rows at once, and llama.cpp
has other kernels for other numbers of rows. Measured over whole vocabularies of tiny models, as rms of the difference
over the spread
of the logits: exactly equal with Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, IQ4_NL, MXFP4, TQ1_0 and TQ2_0. Else mostly 2e-7; but
where such a last bit tips a later rounding, up to 7e-6 with F32, 1e-3 with F16 and BF16, and 8e-3 with Q2_K and Q4_K,
whose products round one factor to 8 bits.

llama-cpp-python compiles all chat templates of a file when it loads a model, with a Jinja that knows less than the
one the templates were written for. A template that it cannot compile would keep the model from loading, even if
nobody uses it. So templates are compiled here only when a chat asks for one. (edgecal's own chats use
`edgecal.prompts.chat_template`.)
"""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from ctypes import ArgumentError
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecal.errors import InputError, ModelError, UnsettledWarning
from edgecal.runtime.calibrated_model import Model
from edgecal.runtime.last_hidden import install_hook
from edgecal.runtime.llama_logits import check_can_load

if TYPE_CHECKING:
    from edgecal.gguf.header import Header
    from edgecal.gguf.shards import ShardSet
    from edgecal.stamping.projection import Projection

__all__ = ["load"]

_MAX_DEFAULT_CONTEXT = 4096

# Options that would take away the logits of a whole model's next token.
_REFUSED = {
    "model_path": "is the first argument",
    "vocab_only": "leaves nothing that could answer",
    "embedding": "gives embeddings instead of logits",
}

# Options that are numbers of tokens or threads, with the least value that makes sense; 0 lets llama.cpp choose.
_SIZES = {"n_ctx": 0, "n_batch": 1, "n_ubatch": 1, "n_threads": 0, "n_threads_batch": 0}
_MAX_SIZE = 2**31 - 1

_compiler_lock = threading.Lock()


def load(path: str | Path, *, basecal: str | Path | None = None, **llama_options: Any) -> Model:
    """Loads a model into this process and honours the temperature in its file.

        with edgecal.load("chat.calibrated.gguf") as model:
            answer = model.choose("Which planet is largest?", ["Mars", "Jupiter"])
            print(answer.text, answer.confidence)

    The file's header is checked before llama.cpp opens it. Unlike `edgecal.fit`, this uses no process of its own: if
    llama.cpp aborts on a file, so does the app.

    Parameters
    ----------
    path: a GGUF file; of a split model the first shard.
    basecal: a file that `edgecal.fit_projection` wrote for this model: answers then have a `base_confidence` too.
    llama_options: options of `llama_cpp.Llama`, such as `n_ctx`, `n_gpu_layers`, `n_threads` or `chat_format`. The
        defaults are `edgecal eval`'s (see `edgecal.runtime.load`). The calibration is that of the file alone and may be
        wrong with a `lora_path`. Of these options `Model.decide` follows `n_ctx` (most tokens of a prompt),
        `n_threads`, `n_gpu_layers` and those of positions; it runs in a context of its own, as large as prompts need.

    Returns
    -------
    A `Model`, which is a context manager. A file without calibration is loaded with temperature 1, and
    `model.calibration` says so. A file whose temperature edgecal had refused (`edgecal fit --unsettled`) is loaded with
    an `UnsettledWarning`; `model.calibration.doubts` gives the reasons.

    Raises
    ------
    InputError: the file does not exist or is not a model, or its calibration makes no sense; the BaseCal map is
        damaged or another model's; an option is wrong; or this process was forked from one in which llama.cpp had
        computed with several threads.
    ModelError: llama.cpp cannot load the file or make a context, or the model is not a causal language model.
    """
    import warnings

    from edgecal.gguf.model_checks import check_model
    from edgecal.gguf.shards import find_shards
    from edgecal.llama.library import clear_log, first_error_line, last_error_lines, load_library
    from edgecal.stamping.record import read_doubts, read_file_calibration

    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"the path is {path!r:.60}, expected that of a GGUF file")
    shards = find_shards(Path(path))
    check_model(shards.header)
    calibration = read_file_calibration(shards.header)
    projection = None if basecal is None else _read_map(basecal, shards, llama_options)
    for doubt in (*read_doubts(shards.header), *(() if projection is None else projection.reasons)):
        warnings.warn(doubt, UnsettledWarning, stacklevel=2)
    try:
        name = os.fspath(shards.path)
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(
            f"{shards.path!a}: the file's name is not UTF-8, which llama-cpp-python needs; rename the file"
        ) from None
    load_library()  # before llama_cpp, since it sets how threads wait and keeps the log
    from llama_cpp import Llama

    _check_options(llama_options, Llama)
    options = {**_default_options(shards.header), **llama_options}
    check_can_load(name, one_thread=options["n_threads"] == options["n_threads_batch"] == 1)
    clear_log()
    try:
        with _templates_uncompiled():
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
    # llama-cpp-python keeps a null pointer here and raises nothing; decoding would crash.
    if lora is not None and not getattr(llama, "_lora_adapter", True):
        llama.close()
        raise ModelError(
            f"{lora}: llama.cpp cannot load the adapter ({last_error_lines(2) or 'no reason given'})"
        )
    if projection is None:
        return Model(llama, shards.header, calibration)
    try:
        return Model(llama, shards.header, calibration, projection, install_hook(llama, shards.header))
    except BaseException:
        llama.close()
        raise


def _read_map(basecal: str | Path, shards: ShardSet, llama_options: Mapping[str, Any]) -> Projection:
    """The map in a file, which must be this model's. An adapter changes the hidden states that it was fitted on."""
    from edgecal.runtime.last_hidden import check_belongs
    from edgecal.stamping.projection import read_projection

    if not isinstance(basecal, (str, os.PathLike)):
        raise InputError(
            f"basecal is {basecal!r:.60}, expected the path of a file that edgecal project wrote"
        )
    if llama_options.get("lora_path") is not None:
        raise InputError(
            f"{basecal}: a BaseCal map is for the model without a lora_path; leave one of them out"
        )
    projection = read_projection(basecal)
    check_belongs(projection, basecal, shards)
    return projection


def _default_options(header: Header) -> dict[str, Any]:
    """The options of `Llama` that the app does not set.

    The context is what the model was trained for, but at most 4,096 tokens, since its memory is allocated at once. One
    thread per physical core. No flash attention, whose sums depend on how tokens are batched. Full caches for sliding
    windows, too. Nothing printed.
    """
    from edgecal.llama.settings import count_physical_cores

    n_threads = count_physical_cores()
    trained = header.get(f"{header.architecture}.context_length")
    return {
        "n_ctx": min(trained, _MAX_DEFAULT_CONTEXT)
        if isinstance(trained, int) and trained > 1
        else _MAX_DEFAULT_CONTEXT,
        "n_threads": n_threads,
        "n_threads_batch": n_threads,
        "flash_attn": False,
        "swa_full": True,
        "no_perf": True,
        "verbose": False,
    }


def _check_options(options: Mapping[str, Any], llama: Any) -> None:
    """InputError for an option that `llama` (the class `llama_cpp.Llama`) does not have and would silently ignore, that
    takes the logits away, or that is not a valid size and would be cut to 32 bits."""
    for name, reason in _REFUSED.items():
        if options.get(name):
            raise InputError(f"the option {name} {reason}; leave it out")
    from edgecal.gguf.tensors import GGML_TYPES

    known = inspect.signature(llama.__init__).parameters
    for name in options:
        if name not in known or known[name].kind is not inspect.Parameter.KEYWORD_ONLY:
            raise InputError(
                f"llama_cpp.Llama has no option {name!r:.60}; see its documentation for those it has"
            )
    for name, least in _SIZES.items():
        size = options.get(name, least)
        left_open = size is None and name.startswith("n_threads")
        if not left_open and (type(size) is not int or not least <= size <= _MAX_SIZE):
            raise InputError(
                f"the option {name} is {size!r:.60}, expected a whole number from {least} to {_MAX_SIZE}"
            )
    for name in ("type_k", "type_v"):
        kind = options.get(name)
        if kind is not None and (type(kind) is not int or kind not in GGML_TYPES):
            raise InputError(f"the option {name} is {kind!r:.60}, expected the number of a ggml type")


@contextmanager
def _templates_uncompiled() -> Iterator[None]:
    """In this context, a new `llama_cpp.Llama` defers the compilation of chat templates until a chat asks for one; that
    chat raises InputError if the template cannot be compiled."""
    formats: Any = import_module("llama_cpp.llama_chat_format")
    with _compiler_lock:
        formatter = formats.Jinja2ChatFormatter
        formats.Jinja2ChatFormatter = partial(_DeferredFormatter, formatter)
        try:
            yield
        finally:
            formats.Jinja2ChatFormatter = formatter


class _DeferredFormatter:
    """A chat formatter that is compiled when it is first used."""

    def __init__(self, formatter: Callable[..., Any], **arguments: Any) -> None:
        self._formatter = formatter
        self._arguments = arguments

    @cached_property
    def _handler(self) -> Callable[..., Any]:
        try:
            handler: Callable[..., Any] = self._formatter(**self._arguments).to_chat_handler()
        except Exception as error:
            said = " ".join(str(error).split()) or type(error).__name__
            raise InputError(
                f"llama-cpp-python cannot compile the file's chat template ({said}); give a chat_format, or use "
                'chat_template="own" of edgecal\'s methods'
            ) from None
        return handler

    def to_chat_handler(self) -> Callable[..., Any]:
        """The function to which llama-cpp-python passes a chat."""
        return lambda *given, **named: self._handler(*given, **named)
