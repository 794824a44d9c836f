"""Options for `llama_cpp.Llama`: edgecal's own defaults, and which ones a calibrated model cannot have.

The defaults are those of `edgecal eval`, so that the same prompt gives the same logits, to rounding: `edgecal eval`
fills a prompt's rows up to fours and computes the logits of four rows, and llama.cpp has other kernels for other
numbers of rows. Measured over whole vocabularies of tiny models, rms of the difference over the logits'
spread: not one bit with Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, IQ4_NL, MXFP4, TQ1_0 and TQ2_0; else mostly 2e-7, and where
such a last bit tips over a rounding further on, up to 7e-6 with F32, 1e-3 with F16 and BF16, and 8e-3 with Q2_K and
Q4_K, which round what they multiply to 8 bits. Loads nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from edgecal.errors import InputError
from edgecal.gguf.header import Header
from edgecal.gguf.tensors import GGML_TYPES

__all__ = ["check_options", "default_options"]

MAX_DEFAULT_CONTEXT = 4096

# What would take away logits of a whole model's next token.
_REFUSED = {
    "model_path": "is the first argument",
    "vocab_only": "leaves nothing that could answer",
    "embedding": "gives embeddings instead of logits",
}


# Numbers of tokens or threads, and the least that makes sense; 0 lets llama.cpp choose.
_SIZES = {"n_ctx": 0, "n_batch": 1, "n_ubatch": 1, "n_threads": 0, "n_threads_batch": 0}
_MAX_SIZE = 2**31 - 1


def default_options(header: Header) -> dict[str, Any]:
    """What `Llama` is given unless the app says otherwise.

    The context is as long as the model was trained for, but at most 4,096 tokens, since its memory is set aside
    at once; at most one thread for each physical core; no flash attention, whose sums depend on how tokens are batched;
    whole caches, also for sliding windows; nothing printed.
    """
    from edgecal.llama.settings import count_physical_cores

    n_threads = count_physical_cores()
    trained = header.get(f"{header.architecture}.context_length")
    return {
        "n_ctx": min(trained, MAX_DEFAULT_CONTEXT)
        if isinstance(trained, int) and trained > 1
        else MAX_DEFAULT_CONTEXT,
        "n_threads": n_threads,
        "n_threads_batch": n_threads,
        "flash_attn": False,
        "swa_full": True,
        "no_perf": True,
        "verbose": False,
    }


def check_options(options: Mapping[str, Any], llama: Any) -> None:
    """InputError for an option that `llama` (the class `llama_cpp.Llama`) does not have (it would be ignored
    without a word), that takes the logits away, or that is no size where C wants one (it would be cut to 32 bits)."""
    for name, reason in _REFUSED.items():
        if options.get(name):
            raise InputError(f"the option {name} {reason}; leave it out")
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
