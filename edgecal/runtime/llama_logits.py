"""The next token's logits after a prompt, from a `llama_cpp.Llama`, their log-probabilities, and protection from forks.

Logits come from llama.cpp's getter for one position; `logits_all` would compute and copy those of every token.

llama.cpp's threads do not survive a fork, and a child that waits for them hangs. So a model refuses to work in a
process that was forked after it was loaded, and a new one is not loaded in a child whose parent has computed with
threads.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from edgecal.errors import InputError, ModelError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = [
    "begin",
    "check_can_load",
    "check_causal",
    "check_not_forked",
    "context_size",
    "extend",
    "log_softmax",
    "remember_threads",
    "start",
]


def context_size(llama: Any) -> int:
    """The tokens that a `llama_cpp.Llama` has room for. llama.cpp rounds the requested number up; the wrapper's own
    arrays do not."""
    return min(int(llama.n_ctx()), len(llama.input_ids))


def start(llama: Any, tokens: npt.NDArray[np.int32], what: str, n_more: int = 0) -> npt.NDArray[np.float32]:
    """Clears the context, runs a prompt, and returns the next token's logits.

    The numbers depend on the model, the tokens and the settings alone: whatever ran before, the cache is overwritten
    with zeros.

    Parameters
    ----------
    llama: a `llama_cpp.Llama`.
    tokens: int32 [n_tokens], n_tokens >= 1, all in the vocabulary.
    what: the prompt, for messages.
    n_more: tokens for which there must be room after the prompt.

    Returns
    -------
    float32 [n_vocab], a copy. A masked token's logit may be minus infinity.

    Raises
    ------
    InputError: the prompt and `n_more` tokens do not fit into the context.
    ModelError: llama.cpp failed, or a logit is NaN or plus infinity.
    """
    begin(llama, tokens, what, n_more)
    return extend(llama, tokens.tolist())


def begin(llama: Any, tokens: npt.NDArray[np.int32], what: str, n_more: int = 0) -> None:
    """Clears the context for a prompt; InputError if the prompt and `n_more` tokens do not fit into it."""
    from edgecal.llama.library import load_library

    n_ctx = context_size(llama)
    if len(tokens) + n_more > n_ctx:
        more = f" and {n_more} more are to follow" if n_more else ""
        raise InputError(
            f"{what}: has {len(tokens)} tokens{more}, but the context is {n_ctx}; shorten it, or load the model "
            "with a larger n_ctx"
        )
    library = load_library()
    llama.reset()
    library.llama_memory_clear(library.llama_get_memory(llama.ctx), True)


def extend(llama: Any, tokens: list[int]) -> npt.NDArray[np.float32]:
    """Runs further tokens after those that ran, and returns the next token's logits, as `start` does."""
    import numpy as np

    from edgecal.llama.library import clear_log, last_error_lines, load_library, note_compute
    from edgecal.llama.machine import threads_for_decode

    clear_log()
    note_compute()
    library, most = load_library(), max(llama.n_threads, llama.n_threads_batch)
    if most > 1:
        remember_threads()
    fused = llama.context_params.flash_attn_type != library.LLAMA_FLASH_ATTN_TYPE_DISABLED
    try:
        with threads_for_decode(most, all_of_them=fused) as n:
            library.llama_set_n_threads(llama.ctx, min(n, llama.n_threads), min(n, llama.n_threads_batch))
            llama.eval(tokens)
    except Exception as error:
        reason = last_error_lines() or " ".join(str(error).split()) or type(error).__name__
        raise ModelError(
            f"{llama.model_path}: llama.cpp's decode of {len(tokens)} tokens failed ({reason})"
        ) from None
    finally:
        library.llama_set_n_threads(llama.ctx, llama.n_threads, llama.n_threads_batch)
    pointer = library.llama_get_logits_ith(llama.ctx, -1)
    if not pointer:
        raise ModelError(f"{llama.model_path}: llama.cpp has no logits after a decode")
    logits: npt.NDArray[np.float32] = np.ctypeslib.as_array(pointer, (llama.n_vocab(),)).copy()
    if not (logits < np.inf).all() or not np.isfinite(logits).any():
        raise ModelError(
            f"{llama.model_path}: the logits are not finite numbers; are the model's weights damaged?"
        )
    return logits


def log_softmax(logits: npt.NDArray[np.floating[Any]], divisor: float) -> npt.NDArray[np.float64]:
    """log softmax(logits / divisor) in nats, float64 of the same shape [n]; minus infinity stays."""
    import numpy as np

    z = logits.astype(np.float64)
    z = (z - z.max()) / divisor
    log_probs: npt.NDArray[np.float64] = z - np.log(np.exp(z).sum())
    return log_probs


def check_causal(llama: Any) -> None:
    """ModelError unless the model predicts one next token from the tokens before it."""
    from edgecal.llama.library import load_library

    library = load_library()
    if library.llama_model_has_encoder(llama.model) or library.llama_model_is_diffusion(llama.model):
        raise ModelError(
            f"{llama.model_path}: does not predict one next token from the tokens before it; edgecal needs a causal "
            "language model"
        )
    if not library.llama_get_memory(llama.ctx):
        raise ModelError(
            f"{llama.model_path}: keeps no memory of earlier tokens; edgecal needs a causal language model"
        )


# The process in which llama.cpp has computed with several threads, or None.
_process_with_threads: int | None = None


def remember_threads() -> None:
    """Remembers that llama.cpp has threads in this process."""
    global _process_with_threads
    _process_with_threads = os.getpid()


def check_not_forked(process: int, path: object) -> None:
    """InputError unless this is the process in which the model was loaded."""
    if os.getpid() != process:
        raise InputError(
            f"{path}: was loaded before this process was forked, and llama.cpp's threads do not survive that; load the "
            "model after the fork, in each process that uses it"
        )


def check_can_load(path: object, *, one_thread: bool) -> None:
    """InputError if llama.cpp would hang in this process. With a single thread it does not."""
    if _process_with_threads not in (None, os.getpid()) and not one_thread:
        raise InputError(
            f"{path}: this process was forked from one in which a model had answered already, so that llama.cpp's "
            "threads would hang here; start processes by multiprocessing's 'spawn', fork before the first answer, or "
            "load with n_threads=1 and n_threads_batch=1"
        )
