"""Small but real vocabularies for test models: one of each of llama.cpp's families of tokenizers.

All but the unigram and the WordPiece one can encode any text. Letters with and without a leading space, digits
and a few words are single tokens, so that answer letters behave as they do in real models; everything else
falls apart into smaller pieces or bytes. Nothing here knows of models or files; `TinyVocab.metadata` gives the
`tokenizer.*` keys.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from string import ascii_letters, ascii_uppercase, digits
from typing import Any

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

WORDS = (
    "Answer", "Question", "answer", "question", "the", "of", "and", "is", "in", "to", "what", "which",
    "What", "Which", "Give", "only", "correct", "option", "with", "for", "are", "letter", "The", "yes",
    "no", "True", "False", "user", "assistant", "system",
)  # fmt: skip

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHAT_TOKENS = ("<|im_start|>", "<|im_end|>")


@dataclass(frozen=True)
class TinyVocab:
    """Tokens in order of their id, and all that llama.cpp wants to know of them."""

    model: str  # tokenizer.ggml.model
    pre: str | None
    tokens: tuple[bytes, ...]
    token_types: tuple[int, ...]
    scores: tuple[float, ...] = ()
    merges: tuple[str, ...] = ()
    special: dict[str, int | bool] = field(default_factory=dict)  # e.g. bos_token_id, add_bos_token

    def __len__(self) -> int:
        return len(self.tokens)

    def id_of(self, token: str) -> int:
        """Id of the token with this stored text (`Ġ`/`▁` written out)."""
        return self.tokens.index(token.encode())

    def extended(self, extra: tuple[str, ...]) -> TinyVocab:
        """The same vocabulary with control tokens added at the end."""
        n = len(extra)
        return TinyVocab(
            self.model,
            self.pre,
            self.tokens + tuple(t.encode() for t in extra),
            self.token_types + (CONTROL,) * n,
            self.scores + (0.0,) * n if self.scores else (),
            self.merges,
            self.special,
        )

    def padded(self, n_vocab: int) -> TinyVocab:
        """The same vocabulary filled up with unused tokens to `n_vocab`."""
        n = n_vocab - len(self)
        if n < 0:
            raise ValueError(f"n_vocab {n_vocab} is less than the {len(self)} tokens of the vocabulary")
        return TinyVocab(
            self.model,
            self.pre,
            self.tokens + tuple(f"<|unused_{i}|>".encode() for i in range(len(self), n_vocab)),
            self.token_types + (UNUSED,) * n,
            self.scores + (-1000.0,) * n if self.scores else (),
            self.merges,
            self.special,
        )

    def metadata(self) -> dict[str, Any]:
        """The `tokenizer.ggml.*` keys."""
        keys: dict[str, Any] = {
            "tokenizer.ggml.model": self.model,
            "tokenizer.ggml.tokens": list(self.tokens),
            "tokenizer.ggml.token_type": list(self.token_types),
        }
        if self.pre is not None:
            keys["tokenizer.ggml.pre"] = self.pre
        if self.scores:
            keys["tokenizer.ggml.scores"] = [float(s) for s in self.scores]
        if self.merges:
            keys["tokenizer.ggml.merges"] = list(self.merges)
        keys.update({f"tokenizer.ggml.{name}": value for name, value in self.special.items()})
        return keys


def byte_letters() -> list[str]:
    """The printable character that stands for each byte in a byte-level BPE, in order of the byte.

    Printable Latin-1 bytes stand for themselves, the other 68 for the code points from 256 on (GPT-2's
    published convention).
    """
    itself = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(256, 512))
    return [chr(b) if b in itself else chr(next(others)) for b in range(256)]


@cache
def bpe_vocab(add_bos: bool = False, pre: str = "gpt-2", glued: tuple[str, ...] = ()) -> TinyVocab:
    """Byte-level BPE: 256 bytes, space-letter and space-digit tokens, the words with their prefixes.

    `pre`: llama.cpp's name of the rule by which a text is cut into words first. `glued`: further tokens of two
    characters each, in stored form (`"(A"`, `"ĊĊ"`).
    """
    tokens = byte_letters()
    merges: list[str] = []

    def merge(left: str, right: str) -> None:
        if left + right not in tokens:
            merges.append(f"{left} {right}")
            tokens.append(left + right)

    for letter in ascii_letters + digits:
        merge("Ġ", letter)
    for word in WORDS:
        for start in ("", "Ġ"):
            piece = start + word[0]
            for letter in word[1:]:
                merge(piece, letter)
                piece += letter
    for left, right in glued:
        merge(left, right)
    types = [NORMAL] * len(tokens) + [CONTROL, CONTROL]
    tokens += ["<|bos|>", "<|endoftext|>"]
    special = {"bos_token_id": len(tokens) - 2, "eos_token_id": len(tokens) - 1, "add_bos_token": add_bos}
    stored = tuple(t.encode() for t in tokens)
    return TinyVocab("gpt2", pre, stored, tuple(types), merges=tuple(merges), special=special)


@cache
def spm_vocab(
    add_bos: bool = True, add_space_prefix: bool = True, lacking: str = "", byte_tokens: bool = True
) -> TinyVocab:
    """SentencePiece-like: <unk>, <s>, </s>, 256 byte tokens, single characters, words with their prefixes.

    The score falls with the position, and pieces that begin with a space come first, so that a word is
    built from its start and no shorter match can get in the way. `lacking`: characters that no piece has, so
    that they are spelled in bytes, if there are `byte_tokens`.
    """
    tokens = ["<unk>", "<s>", "</s>"]
    types = [UNKNOWN, CONTROL, CONTROL]
    if byte_tokens:
        tokens += [f"<0x{b:02X}>" for b in range(256)]
        types += [BYTE] * 256
    n_first = len(tokens)
    pieces: list[str] = [f"▁{c}" for c in ascii_letters + digits]
    for start in ("▁", ""):
        for word in WORDS:
            pieces += [start + word[:n] for n in range(2 if not start else 1, len(word) + 1)]
    pieces += list(ascii_letters + digits + "▁:.,?!()'\"-\n")
    seen = [piece for piece in dict.fromkeys(pieces) if not set(piece) & set(lacking)]
    tokens += seen
    types += [NORMAL] * len(seen)
    scores = [0.0] * n_first + [-float(i) for i in range(len(seen))]
    special: dict[str, int | bool] = {
        "bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0,
        "add_bos_token": add_bos, "add_space_prefix": add_space_prefix,
    }  # fmt: skip
    return TinyVocab(
        "llama", None, tuple(t.encode() for t in tokens), tuple(types), tuple(scores), special=special
    )


@cache
def unigram_vocab(add_bos: bool = False, add_space_prefix: bool = True) -> TinyVocab:
    """Unigram, as T5 and XLM-RoBERTa have it: no byte tokens, so much is unknown; the fewest pieces win."""
    tokens = ["<pad>", "</s>", "<unk>", "<s>"]
    types = [CONTROL, CONTROL, UNKNOWN, CONTROL]
    pieces = [f"▁{c}" for c in ascii_letters + digits] + [f"▁{word}" for word in WORDS]
    pieces += list(ascii_letters + digits + "▁:.,?!()'\"-")
    tokens += pieces
    types += [NORMAL] * len(pieces)
    scores = [0.0] * 4 + [-2 - i / 1000 for i in range(len(pieces))]
    special: dict[str, int | bool] = {
        "bos_token_id": 3, "eos_token_id": 1, "unknown_token_id": 2, "padding_token_id": 0,
        "add_bos_token": add_bos, "add_eos_token": True,
        "add_space_prefix": add_space_prefix, "remove_extra_whitespaces": True,
    }  # fmt: skip
    return TinyVocab(
        "t5", None, tuple(t.encode() for t in tokens), tuple(types), tuple(scores), special=special
    )


@cache
def wordpiece_vocab() -> TinyVocab:
    """WordPiece, as BERT has it: lower case, and no white space at all."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    types = [CONTROL] * 5
    words = [*ascii_letters[:26], *digits, *":.,?!()", *dict.fromkeys(word.lower() for word in WORDS)]
    pieces = list(dict.fromkeys([f"▁{word}" for word in words] + list(ascii_letters[:26])))
    special: dict[str, int | bool] = {
        "padding_token_id": 0, "unknown_token_id": 1, "cls_token_id": 2, "bos_token_id": 2, "mask_token_id": 4,
        "seperator_token_id": 3,
    }  # fmt: skip
    stored = tuple(token.encode() for token in tokens + pieces)
    return TinyVocab("bert", None, stored, tuple(types + [NORMAL] * len(pieces)), special=special)


@cache
def rwkv_vocab(byte_tokens: bool = True) -> TinyVocab:
    """RWKV's: the longest match wins; tokens are stored escaped (`\\n`, `\\xe4`) and begin with all bytes."""
    pieces = [bytes([byte]) for byte in range(256)] if byte_tokens else [b"\n", b" ", b":"]
    pieces += [b"\n\n", *(f" {c}".encode() for c in ascii_letters + digits)]
    if not byte_tokens:
        pieces += [c.encode() for c in ascii_letters + digits]
    for word in WORDS:
        pieces += [word.encode(), f" {word}".encode()]
    seen = tuple(repr(piece)[2:-1].encode() for piece in dict.fromkeys(pieces))
    special: dict[str, int | bool] = {"bos_token_id": 0, "eos_token_id": 0}
    return TinyVocab("rwkv", None, (b"<s>", *seen), (CONTROL,) + (NORMAL,) * len(seen), special=special)


def ids_of(vocab: TinyVocab, labels: str, space: bool = True) -> list[int]:
    """Ids of characters as single tokens, with or without the leading space."""
    mark = {"gpt2": "Ġ", "llama": "▁", "t5": "▁", "rwkv": " "}[vocab.model] if space else ""
    return [vocab.id_of(mark + label) for label in labels]


def letters(vocab: TinyVocab, count: int = 4, space: bool = True) -> list[int]:
    """Ids of the first `count` answer letters as single tokens, with or without the leading space."""
    return ids_of(vocab, ascii_uppercase[:count], space)
