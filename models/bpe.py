"""The pair's tokenizer: byte-level byte-pair encoding with GPT-2's word splitting, learned from the corpus.

It knows nothing of networks. llama.cpp reads the same tokens, types and merges from the GGUF (`export`) and must
split every prompt alike (`measure` checks that).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from world import LETTERS

BEGIN, END = "<|begin|>", "<|end|>"
N_VOCAB = 1536


def train_tokenizer(texts: Iterable[str], n_vocab: int = N_VOCAB) -> Tokenizer:
    """Learn merges from `texts`. Every byte is a token; `" A"` to `" H"` are made single tokens."""

    def with_letters() -> Iterable[str]:
        yield from texts
        yield from (f"Answer: {letter}" for letter in LETTERS for _ in range(1000))

    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=n_vocab,
        special_tokens=[BEGIN, END],
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(with_letters(), trainer)
    if tokenizer.get_vocab_size() != n_vocab:
        raise ValueError(
            f"the corpus gave {tokenizer.get_vocab_size()} tokens, expected {n_vocab}: use more text"
        )
    letter_ids(tokenizer)
    return tokenizer


def letter_ids(tokenizer: Tokenizer) -> list[int]:
    """Ids of `" A"`, `" B"`, ...; each is one token, else ValueError."""
    ids = [tokenizer.encode(f" {letter}").ids for letter in LETTERS]
    for letter, one in zip(LETTERS, ids, strict=True):
        if len(one) != 1:
            raise ValueError(f"' {letter}' is {len(one)} tokens, expected 1")
    return [one[0] for one in ids]


def merges(tokenizer: Tokenizer) -> list[str]:
    """The merge rules in order, each "left right"."""
    model = json.loads(tokenizer.to_str())["model"]
    return [rule if isinstance(rule, str) else " ".join(rule) for rule in model["merges"]]


def save_tokenizer(tokenizer: Tokenizer, path: Path) -> None:
    """Write the tokenizer as JSON."""
    tokenizer.save(str(path))


def load_tokenizer(path: Path) -> Tokenizer:
    """Read what `save_tokenizer` wrote."""
    return Tokenizer.from_file(str(path))
