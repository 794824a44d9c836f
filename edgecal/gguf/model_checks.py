"""Checks headers before llama.cpp sees a file: can it be a language model, and do two models have the same tokens?

llama.cpp aborts on some files that it cannot run, and fails on others with an unhelpful message. Vocabularies match if
they differ only in special tokens; merges, scores and pre-tokenizers are not compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgecal.architectures import refusal_of
from edgecal.errors import InputError
from edgecal.gguf.header import Header
from edgecal.gguf.shards import COUNT_KEY, TENSORS_KEY
from edgecal.gguf.tensors import why_not_run
from edgecal.gguf.values import quoted

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["MAX_BLOCKS", "VocabularyMatch", "check_model", "compare_vocabularies"]

TOKENIZER_KEY = "tokenizer.ggml.model"
WORDPIECE = "bert"  # llama.cpp's name for that tokenizer
MAX_BLOCKS = 512  # llama.cpp aborts the process on more
_MATRICES = ("token_embd.weight", "output.weight")


def check_model(header: Header) -> None:
    """Raises InputError, one line, unless the file (the first shard of a split model) can be loaded as a model.

    Refused: no tensors; no architecture, or one that predicts no next token; an adapter or projector; a block count
        that is missing, not a whole number, zero, or more than llama.cpp accepts; no tokenizer key (`no_vocab` counts
        as one); a bidirectional model (attention that is not causal, a WordPiece tokenizer); a tensor of a type that
        llama.cpp has removed; an embedding or head of a type that it cannot multiply by. An unknown type passes, since
        a later llama.cpp may know it.
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
            "edgecal needs a causal language model that llama.cpp runs correctly"
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
            f"{path}: is a model of the architecture {architecture} that reads text in both directions, to embed or "
            "classify it or fill in gaps; edgecal needs a causal language model, which predicts the next token"
        )
    for info in header.tensors.values():
        reason = why_not_run(info, weights=info.name in _MATRICES)
        if reason is not None:
            raise InputError(f"{path}: {reason}")


def _has_tensors_elsewhere(header: Header) -> bool:
    """A split model's first shard may hold no tensors."""
    n_shards, n_tensors = header.get(COUNT_KEY, 0), header.get(TENSORS_KEY, 0)
    return isinstance(n_shards, int) and isinstance(n_tensors, int) and n_shards > 1 and n_tensors > 0


MODEL_KEY = "tokenizer.ggml.model"
TOKENS_KEY = "tokenizer.ggml.tokens"
TYPES_KEY = "tokenizer.ggml.token_type"
NO_TOKENIZER = ("no_vocab", "none")  # both are llama.cpp's words for it

SPECIAL = (3, 4, 5)  # control, user-defined, unused


@dataclass(frozen=True)
class VocabularyMatch:
    """The comparison of two vocabularies.

    `equal`: they match except for special tokens. `reason`: one clause that says how they differ, empty if they match.
    `index`, `base_text`, `chat_text`: the first difference that counts, None if there is none or it is not about one
    token (a text is None if that side has no such token). `n_special`: how many special tokens differ.
    """

    equal: bool
    reason: str
    n_base: int
    n_chat: int
    n_special: int = 0
    index: int | None = None
    base_text: str | None = None
    chat_text: str | None = None


def compare_vocabularies(base: Header, chat: Header) -> VocabularyMatch:
    """Compares two vocabularies token by token.

    Tokens must be equal at each index, except where either side's is special (control, user-defined or
    unused); tokens beyond the shorter vocabulary must be special. Without a tokenizer on both sides the sizes
    (`vocab_size`, else the embedding's rows) must be equal. InputError if a file's tokenizer keys are
    malformed.
    """
    base_model, chat_model = _tokenizer(base), _tokenizer(chat)
    n_base, n_chat = _size(base, base_model), _size(chat, chat_model)
    if base_model != chat_model:
        reason = f"tokenizer {_said(base_model)} (base) and {_said(chat_model)} (chat)"
        return VocabularyMatch(False, reason, n_base, n_chat)
    if base_model is None:
        if n_base == n_chat:
            return VocabularyMatch(True, "", n_base, n_chat)
        return VocabularyMatch(False, f"{n_base} tokens (base) and {n_chat} (chat)", n_base, n_chat)
    if base.array_bytes(TOKENS_KEY) == chat.array_bytes(TOKENS_KEY):
        return VocabularyMatch(True, "", n_base, n_chat)
    base_special, chat_special = _special(base, n_base), _special(chat, n_chat)
    base_tokens, chat_tokens = base.array_strings(TOKENS_KEY), chat.array_strings(TOKENS_KEY)
    n_special = 0
    for index in range(min(n_base, n_chat)):
        if base_tokens[index] == chat_tokens[index]:
            continue
        if not (base_special[index] or chat_special[index]):
            return _difference(base_tokens, chat_tokens, index, n_special)
        n_special += 1
    rest = base_special[n_chat:] if n_base > n_chat else chat_special[n_base:]
    if not rest.all():
        index = min(n_base, n_chat) + int(rest.argmin())
        return _difference(base_tokens, chat_tokens, index, n_special)
    return VocabularyMatch(True, "", n_base, n_chat, n_special + len(rest))


def _difference(base: Sequence[bytes], chat: Sequence[bytes], index: int, n_special: int) -> VocabularyMatch:
    texts = [
        tokens[index].decode("utf-8", "replace") if index < len(tokens) else None for tokens in (base, chat)
    ]
    shown = ["none" if text is None else quoted(text) for text in texts]
    reason = f"token {index} is {shown[0]} (base) and {shown[1]} (chat)"
    return VocabularyMatch(False, reason, len(base), len(chat), n_special, index, texts[0], texts[1])


def _tokenizer(header: Header) -> str | None:
    """The tokenizer's kind; None for a file without a tokenizer."""
    model = header.get(MODEL_KEY)
    if model is None or model in NO_TOKENIZER:
        return None
    if not isinstance(model, str):
        raise InputError(f"{header.path}: {MODEL_KEY} is {header.type_of(MODEL_KEY).name}, expected STRING")
    if TOKENS_KEY not in header:
        raise InputError(f"{header.path}: names a tokenizer ({quoted(model)}) but holds no {TOKENS_KEY}")
    return model


def _said(model: str | None) -> str:
    return "none" if model is None else quoted(model)


def _size(header: Header, model: str | None) -> int:
    if model is not None:
        return header.array_length(TOKENS_KEY)
    size: Any = header.get(f"{header.architecture}.vocab_size")
    if isinstance(size, int):
        return size
    embedding = header.tensors.get("token_embd.weight")
    return embedding.ne[1] if embedding is not None and len(embedding.ne) > 1 else 0


def _special(header: Header, n_tokens: int) -> npt.NDArray[np.bool_]:
    """Which tokens are special, shape [n_tokens]; none without `tokenizer.ggml.token_type`."""
    import numpy as np

    if TYPES_KEY not in header:
        return np.zeros(n_tokens, np.bool_)
    types = header.array(TYPES_KEY)
    if isinstance(types, list) or types.dtype.kind not in "iu" or len(types) != n_tokens:
        raise InputError(f"{header.path}: {TYPES_KEY} is not one whole number for each of {n_tokens} tokens")
    return np.isin(types, SPECIAL)
