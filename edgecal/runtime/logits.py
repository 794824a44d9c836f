"""The next token's logits after a prompt, out of a `llama_cpp.Llama`; and log-probabilities.

Logits come from llama.cpp's getter for one position. (`logits_all` would compute and copy those of every token.)
Knows nothing of questions, labels or calibration beyond a divisor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgecal.errors import InputError, ModelError
from edgecal.runtime.forks import note_threads

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["check_causal", "context_size", "extend", "log_softmax", "start"]


def context_size(llama: Any) -> int:
    """Tokens that a `llama_cpp.Llama` has room for: llama.cpp rounds up what it is asked for, the wrapper's own
    arrays do not."""
    return min(int(llama.n_ctx()), len(llama.input_ids))


def start(llama: Any, tokens: npt.NDArray[np.int32], what: str, n_more: int = 0) -> npt.NDArray[np.float32]:
    """Forgets everything, runs a prompt, and returns the next token's logits.

    So the numbers depend on the model, the tokens and the settings, and on nothing that ran before: what was in
    the cache is overwritten with zeros.

    Parameters
    ----------
    llama: a `llama_cpp.Llama`.
    tokens: int32 [n_tokens], n_tokens >= 1, all in the vocabulary.
    what: the prompt, for messages.
    n_more: tokens for which there must be room behind the prompt.

    Returns
    -------
    float32 [n_vocab], the caller's own copy. A masked token's logit may be minus infinity.

    Raises
    ------
    InputError: the prompt and what is to follow do not fit the context.
    ModelError: llama.cpp failed, or a logit is no number.
    """
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
    return extend(llama, tokens.tolist())


def extend(llama: Any, tokens: list[int]) -> npt.NDArray[np.float32]:
    """Runs further tokens behind those that ran, and returns the next token's logits, as `start` does."""
    import numpy as np

    from edgecal.llama.library import clear_log, last_error_lines, load_library
    from edgecal.llama.machine import threads_for_decode

    clear_log()
    library, most = load_library(), max(llama.n_threads, llama.n_threads_batch)
    if most > 1:
        note_threads()
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
