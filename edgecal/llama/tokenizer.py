"""Tokenizes prompts with the model's own tokenizer inside llama.cpp, and finds each label's single token.

Three things stand here together because each needs the others: the tokenizer, the end of a prompt, where a label has to
be the next token, and the characters that a vocabulary can spell. The last are asked first: a SentencePiece or RWKV
tokenizer spells an unknown character by the tokens of its bytes, and where those are missing too, llama.cpp ends the
process or never returns.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecal.errors import InputError
from edgecal.llama.control_tokens import Marks
from edgecal.prompts.question_templates import follows_directly
from edgecal.prompts.records import Prompt

__all__ = ["PromptEnd", "ResolvedPrompt", "Spelling", "Tokenizer", "read_spelling"]


# llama.cpp's kinds of tokenizers, as far as they differ here.
_NONE, _SENTENCEPIECE, _BYTE_PAIR, _WORDPIECE, _UNIGRAM, _RWKV = range(6)

# What a text may stand after so that it is tokenized by itself: byte-pair tokenizers want the first, those that put a
# space before a text's first word the second.
_PLACES = ("", 'x"')

_AS_TOKENS = 'or give prompts as {"tokens": ..., "choice_tokens": ...}'


@dataclass(frozen=True)
class ResolvedPrompt:
    """A prompt in one model's tokens.

    Attributes
    ----------
    tokens: int32 [n_tokens], BOS included where the model wants one.
    choice_tokens: int32 [K], the labels' tokens in the order of the choices.
    """

    tokens: NDArray[np.int32]
    choice_tokens: NDArray[np.int32]


class Tokenizer:
    """The tokenizer of a loaded model.

    Parameters
    ----------
    vocab: llama.cpp's vocabulary pointer; the model must outlive this object.
    n_vocab: number of tokens that the model has logits for.
    model_name: for messages.
    """

    def __init__(self, vocab: int, n_vocab: int, model_name: str) -> None:
        import llama_cpp

        self.model_name = model_name
        self._lib = llama_cpp
        self._vocab = vocab
        self._n_vocab = n_vocab
        self._kind = llama_cpp.llama_vocab_type(vocab)
        self.has_tokenizer = self._kind != _NONE
        self._marks = Marks(
            llama_cpp, vocab, functools.partial(self._tokenize, added=False, marks=False), self.piece_bytes
        )

    def tokenize(self, text: str, source: str = "", data: Sequence[tuple[int, int]] = ()) -> list[int]:
        """Token ids of a prompt, as llama.cpp's own programs tokenize one.

        BOS is added where the model's metadata say so, and text that spells a special token becomes that
        token, but for control tokens that stand, even in part, in `data` (see `Marks`). Text that begins by
        spelling BOS, as chat templates write it, has it once all the same. An end-of-sequence token that the
        tokenizer would append is left out: the model is asked for the token after the prompt, not after its end.

        Parameters
        ----------
        text: the prompt.
        source: where it came from, for messages.
        data: [start, stop) in characters of the parts of the text that come from data, ascending.

        Raises
        ------
        InputError: the model has no tokenizer or one that cannot be used, or the vocabulary has no token for a
            part of the text.
        """
        if self._flaw is not None:
            raise InputError(f"{self.model_name}: {self._flaw}")
        where = f"{source}: " if source else ""

        def check(part: str, marks: bool = False) -> None:
            if self._spelling is not None and (gap := self._spelling.find_gap(part, marks=marks)) is not None:
                raise InputError(
                    f"{where}the tokenizer of {self.model_name} has no token for {gap!r} (U+{ord(gap):04X}), nor for "
                    "each of its bytes; leave the character out"
                )

        check(text, marks=True)
        tokens = self._tokenize(text, added=True, marks=True)
        if self._lib.llama_vocab_get_add_eos(self._vocab) and tokens[-1:] == [
            self._lib.llama_vocab_eos(self._vocab)
        ]:
            tokens.pop()
        bos = self._lib.llama_vocab_bos(self._vocab)
        adds_bos = bool(self._lib.llama_vocab_get_add_bos(self._vocab))
        if self._marks.touch(text, data, tokens):
            tokens = [bos] * adds_bos + self._marks.tokenize(text, data, check, where)
        if adds_bos and tokens[:2] == [bos, bos]:
            tokens.pop(0)
        return tokens

    def marks_of(self, prompt: Prompt, tokens: Sequence[int]) -> list[str]:
        """The control tokens that a text given as it stands spells, each once; BOS at its beginning is none.

        `tokens` are the prompt's, as `prompt_tokens` gives them.
        """
        if prompt.text is None or prompt.data:
            return []
        return self._marks.find(tokens[int(tokens[0] == self._lib.llama_vocab_bos(self._vocab)) :])

    def piece(self, token: int) -> str:
        """The text that a token stands for; special tokens by their names."""
        return self.piece_bytes(token).decode("utf-8", "replace")

    def piece_bytes(self, token: int) -> bytes:
        """The bytes that a token stands for, which may be part of a character; special tokens by their names."""
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            count = self._lib.llama_token_to_piece(self._vocab, token, buffer, size, 0, True)
            if count >= 0:
                return buffer.raw[:count]
            size = -count

    def token_of(self, text: str) -> int | None:
        """The token that the tokenizer makes of exactly this text, where nothing before it is joined with it.

        So it is never one that only looks like it: SentencePiece has `A` and, for the byte, `<0x41>`. None where
        the text is no single token at the beginning, nor after a quote.
        """
        for before in _PLACES:
            if self._spelling is not None and self._spelling.find_gap(before) is not None:
                continue
            start, joint = self.tokenize(before), self.tokenize(before + text)
            is_one = len(joint) == len(start) + 1 and joint[:-1] == start
            if is_one and self.piece_bytes(joint[-1]) == text.encode():
                return joint[-1]
        return None

    def ends_generation(self, token: int) -> bool:
        """Whether the model says with this token that it has said all (end of the text, of its turn, ...)."""
        return bool(self._lib.llama_vocab_is_eog(self._vocab, token))

    def is_special(self, token: int) -> bool:
        """Whether a token is a mark for the model (control or user-defined), no part of the language."""
        attributes = self._lib.llama_vocab_get_attr(self._vocab, token)
        return bool(
            attributes & (self._lib.LLAMA_TOKEN_ATTR_CONTROL | self._lib.LLAMA_TOKEN_ATTR_USER_DEFINED)
        )

    def resolve(self, prompt: Prompt) -> ResolvedPrompt:
        """Finds a prompt's tokens and its labels' tokens as they follow it, as `PromptEnd` says.

        Raises
        ------
        InputError: a label is no single token, two labels share one, a token id is outside the vocabulary,
            or the prompt has no token at all.
        """
        tokens = self.prompt_tokens(prompt)
        if prompt.choice_tokens is not None:
            self._check_ids(prompt.choice_tokens, prompt)
            return ResolvedPrompt(tokens, np.array(prompt.choice_tokens, dtype=np.int32))
        labels = prompt.labels or ()
        end = PromptEnd(self, prompt, tokens.tolist())
        choice_tokens = end.find_verbatim(labels) if prompt.labels_verbatim else end.find_letters(labels)
        if len(set(choice_tokens)) < len(choice_tokens):
            raise InputError(
                f"{prompt.source}: two labels are the same token in {self.model_name} "
                f"(labels {', '.join(map(repr, labels))}, tokens {choice_tokens}); each choice needs its own"
            )
        return ResolvedPrompt(tokens, np.array(choice_tokens, dtype=np.int32))

    def prompt_tokens(self, prompt: Prompt) -> NDArray[np.int32]:
        """A prompt's tokens alone, int32 [n_tokens], whatever its labels are.

        Raises
        ------
        InputError: a token id is outside the vocabulary, or the prompt has no token at all.
        """
        if prompt.tokens is not None:
            self._check_ids(prompt.tokens, prompt)
            return np.array(prompt.tokens, dtype=np.int32)
        tokens = self.tokenize(prompt.text or "", prompt.source, prompt.data)
        if not tokens:
            raise InputError(f"{prompt.source}: the prompt has no tokens in {self.model_name}")
        return np.array(tokens, dtype=np.int32)

    def _tokenize(self, text: str, *, added: bool, marks: bool) -> list[int]:
        """llama.cpp's tokens; `added`: BOS and such; `marks`: what spells a control token becomes it."""
        encoded = text.encode("utf-8")
        size = len(encoded) + 8
        while True:
            buffer = (ctypes.c_int32 * size)()
            count = self._lib.llama_tokenize(self._vocab, encoded, len(encoded), buffer, size, added, marks)
            if count >= 0:
                return list(buffer[:count])
            size = -count

    @functools.cached_property
    def _flaw(self) -> str | None:
        """Why no text can be tokenized; over a token that is to be added and missing, llama.cpp would abort."""
        if self._kind == _NONE:
            return f"has no tokenizer, so it cannot read text; use a GGUF file with one, {_AS_TOKENS}"
        if self._kind == _WORDPIECE:
            return (
                "its tokenizer is WordPiece, that of models which embed or classify text and predict no next token; "
                "give a causal language model"
            )
        if self._kind in (_SENTENCEPIECE, _BYTE_PAIR, _UNIGRAM):
            for name in ("bos", "eos"):
                is_added = getattr(self._lib, f"llama_vocab_get_add_{name}")(self._vocab)
                if is_added and getattr(self._lib, f"llama_vocab_{name}")(self._vocab) < 0:
                    return (
                        f"its tokenizer is to add a {name.upper()} token to every text, but the file names none "
                        f"(tokenizer.ggml.{name}_token_id); name it, {_AS_TOKENS}"
                    )
        return None

    @functools.cached_property
    def _spelling(self) -> Spelling | None:
        lib, vocab = self._lib, self._vocab
        if self._kind == _SENTENCEPIECE:
            return read_spelling(
                lib.llama_vocab_n_tokens(vocab),
                lambda token: lib.llama_vocab_get_text(vocab, token) or b"",
                self._is_found_first,
                lambda byte: f"<0x{byte:02X}>".encode(),
                space="▁",
            )
        if self._kind == _RWKV:
            return read_spelling(
                lib.llama_vocab_n_tokens(vocab),
                self.piece_bytes,
                self._is_found_first,
                lambda byte: bytes([byte]),
                space=" ",
            )
        return None

    def _is_found_first(self, token: int) -> bool:
        """Whether llama.cpp looks for a token in a text before it tokenizes the rest."""
        attributes = self._lib.llama_vocab_get_attr(self._vocab, token)
        return self.is_special(token) or bool(attributes & self._lib.LLAMA_TOKEN_ATTR_UNKNOWN)

    def _check_ids(self, tokens: Sequence[int], prompt: Prompt) -> None:
        for token in tokens:
            if token >= self._n_vocab:
                raise InputError(
                    f"{prompt.source}: token id {token} is outside the vocabulary of {self.model_name}, "
                    f"which has {self._n_vocab} tokens"
                )


_N_FIRST = 1024  # the tokens of bytes stand among the first


class Spelling:
    """The characters that a vocabulary has.

    Parameters
    ----------
    whole: the tokens' texts, by which a character can be written as it is.
    single: the bytes that have a token.
    marks: texts of the tokens that are found in a text before it is spelled (special ones).
    space: what stands for a space in `whole`.
    """

    def __init__(
        self, whole: frozenset[bytes], single: frozenset[int], marks: frozenset[bytes], space: str
    ) -> None:
        self._whole = whole
        self._single = single
        self._marks = sorted((mark.decode("utf-8", "replace") for mark in marks), key=len, reverse=True)
        self._space = space

    def find_gap(self, text: str, *, marks: bool = True) -> str | None:
        """The first character of a text that cannot be spelled, or None; a space too, which a tokenizer may add.

        A character that is only part of longer tokens counts as one that cannot. `marks`: whether these are found.
        """
        parts = [text]
        for mark in self._marks if marks else ():
            parts = [piece for part in parts for piece in part.split(mark)]
        for character in " " + "".join(parts):
            encoded = (self._space if character == " " else character).encode()
            if encoded not in self._whole and not self._single.issuperset(encoded):
                return character
        return None


def read_spelling(
    n_tokens: int,
    text_of: Callable[[int], bytes],
    is_mark: Callable[[int], bool],
    name_of_byte: Callable[[int], bytes],
    space: str,
) -> Spelling | None:
    """Reads the characters of a vocabulary; None where every byte has a token, so that all can be spelled.

    Parameters
    ----------
    n_tokens: the tokens are 0 to n_tokens - 1.
    text_of: a token's text.
    is_mark: whether a token is found in a text before it is spelled.
    name_of_byte: the text of a byte's token (`<0x41>`); the byte itself counts as well.
    space: what stands for a space in the tokens' texts.
    """
    names = [name_of_byte(byte) for byte in range(256)]
    if frozenset(map(text_of, range(min(n_tokens, _N_FIRST)))).issuperset(names):
        return None
    whole = frozenset(map(text_of, range(n_tokens)))
    single = frozenset(byte for byte in range(256) if names[byte] in whole or bytes([byte]) in whole)
    if len(single) == 256:
        return None
    marks = frozenset(text_of(token) for token in range(n_tokens) if is_mark(token))
    return Spelling(whole, single, marks - {b""}, space)


class PromptEnd:
    """The end of a prompt, where a label is to be the next token.

    Parameters
    ----------
    tokenizer: the model's.
    prompt, tokens: the prompt, which has a text, and its tokens as `tokenizer` has them.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Prompt, tokens: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._text = prompt.text or ""
        self._data = prompt.data
        self._tokens = list(tokens)
        self._source = prompt.source

    def find_letters(self, labels: Sequence[str]) -> list[int]:
        """The labels' tokens, with or without a leading space as the text and the tokenizer have them.

        Either form is one token for every label, the same form for all. Where the text says that a word
        follows directly (see `follows_directly`, or a special token such as the mark of the assistant's turn), the
        form without a space is tried first, else the one with it. A token counts if the tokenizer adds it to the
        unchanged tokens of the prompt; its own space after a special token (SentencePiece) may be in it.

        Some tokenizers would join a bracket or line ends with the letter. The prompt is tokenized without it, so
        the letter's own token is the one that can follow. Not so after a plain space: a space by itself stands
        before a word only in texts with two of them, so there it is the form with a space, if any.

        Raises
        ------
        InputError: there is no such form; the message has the first label that is to blame.
        """
        direct = follows_directly(self._text) or self._ends_in_mark()
        forms = ("", " ") if direct else (" ", "")
        after_space = self._text.endswith(" ")
        to_blame: list[str] = []
        for space in forms:
            joins = direct and not space and not after_space
            found = [self._find_letter(space + label, joins=joins) for label in labels]
            tokens = [token for token in found if token is not None]
            if len(tokens) == len(labels):
                return tokens
            to_blame.append(space + labels[found.index(None)])
        what_to_do = (
            "leave out the space at the end of the prompt, or use"
            if after_space
            else "use fewer choices, a template that ends where the letter comes, or"
        )
        raise InputError(
            f"{self._source}: the label {to_blame[0].strip()!r} is not one token after this prompt in "
            f"{self._tokenizer.model_name}: {to_blame[0]!r} becomes {self._describe(to_blame[0])}; "
            f"{what_to_do} another model"
        )

    def find_verbatim(self, labels: Sequence[str]) -> list[int]:
        """The labels' tokens by their exact texts.

        A label must be one token that the tokenizer adds to the unchanged tokens of the prompt or, where it
        would join the label with the prompt's end or put a space of its own before it, the token that it makes of
        the label elsewhere.

        Raises
        ------
        InputError: a label is none.
        """
        return [self._find_exact(label) for label in labels]

    def _ends_in_mark(self) -> bool:
        """Whether the last token is a special one; a letter that a vocabulary's maker added is no mark."""
        last = self._tokens[-1]
        return self._tokenizer.is_special(last) and not self._tokenizer.piece(last)[-1:].isalnum()

    def _find_letter(self, form: str, *, joins: bool) -> int | None:
        token = self._added(form, (form, f" {form}"))
        return self._tokenizer.token_of(form) if token is None and joins else token

    def _find_exact(self, label: str) -> int:
        token = self._added(label, (label,))
        if token is None:
            token = self._tokenizer.token_of(label)
        if token is not None:
            return token
        raise InputError(
            f"{self._source}: the label {label!r} is not one token after this prompt in "
            f"{self._tokenizer.model_name} (it becomes {self._describe(label)}); {self._find_remedy(label)}"
        )

    def _added(self, text: str, readings: tuple[str, ...]) -> int | None:
        """The one token that the tokenizer adds to the prompt's for this text, if it reads as one of these."""
        joint = self._tokenize(self._text + text)
        if joint[:-1] != self._tokens:
            return None
        # The reading is compared too: a tokenizer drops characters that its vocabulary lacks without a word.
        said = self._tokenizer.piece_bytes(joint[-1])
        return joint[-1] if said in [reading.encode() for reading in readings] else None

    def _find_remedy(self, label: str) -> str:
        bare = label.lstrip(" ")
        if bare and bare != label and not self._text.endswith(" "):
            spaced = self._text + label[: -len(bare)]
            end = PromptEnd(
                self._tokenizer,
                Prompt(text=spaced, source=self._source, data=self._data),
                self._tokenize(spaced),
            )
            if end._added(bare, (bare,)) is not None:
                return f"end the prompt with the space, and give the label as {bare!r}"
        return (
            'give each label as the text of a single token, such as " A", or the record as {"question": ..., '
            '"choices": [...]}: then the options may be texts of any length, and letters are put before them'
        )

    def _tokenize(self, text: str) -> list[int]:
        return self._tokenizer.tokenize(text, self._source, self._data)

    def _describe(self, label: str) -> str:
        joint = self._tokenize(self._text + label)
        common = 0
        while common < min(len(self._tokens), len(joint)) and joint[common] == self._tokens[common]:
            common += 1
        if common < len(self._tokens):
            return "tokens that also change the end of the prompt: " + self._names(joint[common:])
        n_added = len(joint) - common
        return f"{n_added} token{'' if n_added == 1 else 's'}: {self._names(joint[common:])}"

    def _names(self, tokens: Sequence[int]) -> str:
        shown = ", ".join(repr(self._tokenizer.piece(token)) for token in tokens[:6])
        return shown + (", ..." if len(tokens) > 6 else "") if shown else "nothing"
