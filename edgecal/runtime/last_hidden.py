"""Reads a prompt's last hidden state while a `llama_cpp.Llama` runs it, by the native hook, for a BaseCal map.

The hook is a callback of the context, and `Llama` makes its context without one, so the context is made anew. The
logits are the same bits with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgecal.errors import InputError, ModelError
from edgecal.runtime.llama_logits import begin, extend

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from edgecal.gguf.header import Header
    from edgecal.gguf.shards import ShardSet
    from edgecal.llama.hook import HiddenCapture, PlannedMicroBatch
    from edgecal.stamping.projection import Projection

__all__ = ["check_belongs", "digest_content", "install_hook", "start_hooked"]


def digest_content(shards: ShardSet, cache_folder: Path | None) -> str:
    """SHA-256 (hex) of what a model computes with, from the cache if the files have not changed since."""
    from edgecal.cache import DigestMemo
    from edgecal.gguf.hashes import CONTENT_DIGEST as NAME
    from edgecal.gguf.hashes import content_sha256

    with DigestMemo(cache_folder) as memo:
        return memo.recall(shards.paths, [NAME], lambda: {NAME: content_sha256(shards)})[NAME]


def check_belongs(projection: Projection, where: str | Path, shards: ShardSet) -> None:
    """InputError unless the map in the file `where` was fitted for this chat model; a temperature that was stamped into
    the model since does not matter. The model is read once, and its digest remembered in the cache."""
    from edgecal.cache import default_cache_folder

    content = digest_content(shards, default_cache_folder())
    width = shards.get(f"{shards.header.architecture}.embedding_length")
    if content != projection.chat_content_sha256 or projection.weight.shape[1] != width:
        raise InputError(
            f"{where}: the map was made for another chat model ({projection.chat_name}, SHA-256 "
            f"{projection.chat_sha256[:12]}...) than {shards.path}; fit a map for this one (edgecal project)"
        )


def install_hook(llama: Any, header: Header) -> HiddenCapture:
    """Makes the context of a `llama_cpp.Llama` anew, with the native hook, which is freed with it.

    Raises
    ------
    ModelError: the hook is not installed, or llama.cpp has no memory for the context.
    """
    from llama_cpp._internals import LlamaContext

    from edgecal.architectures import stream_of
    from edgecal.llama.hook import HiddenCapture
    from edgecal.llama.library import ggml_addresses, load_library

    library = load_library()
    stream = stream_of(header.architecture or "", header.get, header.path)
    n_layer, n_embd = (
        int(read(llama.model)) for read in (library.llama_model_n_layer, library.llama_model_n_embd)
    )
    hook: HiddenCapture = llama._stack.enter_context(HiddenCapture(n_layer, n_embd, ggml_addresses(), stream))
    llama._ctx.close()
    llama.context_params.cb_eval = library.ggml_backend_sched_eval_callback(hook.callback)
    llama.context_params.cb_eval_user_data = hook.user
    try:
        llama._ctx = LlamaContext(model=llama._model, params=llama.context_params, verbose=False)
    except ValueError as error:
        raise ModelError(f"{header.path}: llama.cpp cannot make a context with the hook ({error})") from None
    llama._stack.callback(llama._ctx.close)
    return hook


def start_hooked(
    llama: Any, hook: HiddenCapture, tokens: npt.NDArray[np.int32], what: str
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The next token's logits after a prompt, as `start` gives them, and the last block's hidden state at its last
    token, float32 [n_embd].

    Raises
    ------
    InputError: as `start`.
    ModelError: as `start`; or a block was not as expected.
    """
    import numpy as np

    from edgecal.llama.library import load_library
    from edgecal.llama.microbatch import SplitRule, split

    begin(llama, tokens, what)
    # A plan is for a single decode, the last one.
    n_before = (len(tokens) - 1) // llama.n_batch * llama.n_batch
    if n_before:
        extend(llama, tokens[:n_before].tolist())
    last = tokens[n_before:].tolist()
    outputs = [llama._logits_all] * (len(last) - 1) + [True]
    hidden = np.empty((1, hook.n_layer, hook.n_embd), np.float32)
    n_ubatch = int(load_library().llama_n_ubatch(llama.ctx))
    parts = split([0] * len(last), outputs, n_ubatch, SplitRule.SIMPLE)
    plan: list[PlannedMicroBatch] = [(len(part.tokens), len(part.outputs), []) for part in parts[:-1]]
    n_tokens, n_outputs = len(parts[-1].tokens), len(parts[-1].outputs)
    hook.plan(
        hidden,
        np.zeros((1, hook.n_layer), np.uint8),
        [*plan, (n_tokens, n_outputs, [(n_tokens - 1, n_outputs - 1, 0)])],
    )
    logits = extend(llama, last)
    try:
        hook.finish()
    except ModelError as error:
        raise ModelError(f"{llama.model_path}: {error}") from None
    return logits, hidden[0, -1]
