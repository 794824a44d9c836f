"""Whether a file can be a language model at all, judged from its header before llama.cpp sees it.

Knows what makes llama.cpp abort or fail with an unhelpful message. Does not compare models.
"""

from __future__ import annotations

from edgecal.architectures import refusal_of
from edgecal.errors import InputError
from edgecal.gguf.header import Header
from edgecal.gguf.split import COUNT_KEY, TENSORS_KEY
from edgecal.gguf.tensors import why_not_run

__all__ = ["MAX_BLOCKS", "check_model"]

TOKENIZER_KEY = "tokenizer.ggml.model"
WORDPIECE = "bert"  # as llama.cpp calls that tokenizer
MAX_BLOCKS = 512  # llama.cpp aborts the process on more
_MATRICES = ("token_embd.weight", "output.weight")


def check_model(header: Header) -> None:
    """InputError, one line, unless the file (of a split model the first) can be loaded as a model.

    Refused: no tensors, no architecture or one that predicts no next token, an adapter or projector, a block
    count that is missing, not a whole number, zero, or more than llama.cpp can take, no word on the tokenizer
    (`no_vocab` is one), a model that reads a text from both sides (attention that is not causal, a WordPiece
    tokenizer), a tensor of a type that llama.cpp has removed, and an embedding or head of one that it cannot multiply
    by. A type that is not known passes: a later llama.cpp may know it.
    """
    path = header.path
    kind = header.get("general.type")
    if isinstance(kind, str) and kind != "model":
        raise InputError(f"{path}: general.type is {kind!r}, expected a model; give the model's own file")
    architecture = header.architecture
    if not architecture:
        raise InputError(
            f"{path}: general.architecture is missing; this is not a model that llama.cpp can run"
        )
    if (reason := refusal_of(architecture)) is not None:
        raise InputError(
            f"{path}: a model of the architecture {architecture} cannot be used: {reason}; "
            "edgecal needs a causal language model that llama.cpp runs right"
        )
    if not header.has_tensors and not _has_tensors_elsewhere(header):
        raise InputError(f"{path}: holds no tensors (a vocabulary or an empty model); give the model itself")
    key = f"{architecture}.block_count"
    if key not in header:
        raise InputError(
            f"{path}: {key} is missing, so it is not a language model that edgecal can calibrate"
        )
    if not header.type_of(key).is_integer:
        raise InputError(f"{path}: {key} is {header.type_of(key).name}, expected a whole number")
    n_blocks = int(header.get(key, 0))
    if not 1 <= n_blocks <= MAX_BLOCKS:
        raise InputError(f"{path}: {key} is {n_blocks}, expected 1 to {MAX_BLOCKS}")
    if not header.is_text(TOKENIZER_KEY):
        raise InputError(
            f"{path}: holds no tokenizer ({TOKENIZER_KEY} is missing), which llama.cpp needs to load a model; "
            "give a complete GGUF file"
        )
    if header.get(f"{architecture}.attention.causal") is False or header.get(TOKENIZER_KEY) == WORDPIECE:
        raise InputError(
            f"{path}: is a model of the architecture {architecture} that reads a text from both sides, to embed or to "
            "classify it or to fill in gaps; edgecal needs a causal language model, which predicts the next token"
        )
    for info in header.tensors.values():
        reason = why_not_run(info, weights=info.name in _MATRICES)
        if reason is not None:
            raise InputError(f"{path}: {reason}")


def _has_tensors_elsewhere(header: Header) -> bool:
    """A split model may keep all tensors out of its first shard."""
    n_shards, n_tensors = header.get(COUNT_KEY, 0), header.get(TENSORS_KEY, 0)
    return isinstance(n_shards, int) and isinstance(n_tensors, int) and n_shards > 1 and n_tensors > 0
