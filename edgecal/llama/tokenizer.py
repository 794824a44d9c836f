"""Tokenizes prompts with the model's own tokenizer inside llama.cpp, and finds each label's single token.

Three parts that need each other are here: the tokenizer; the end of a prompt, where each label must be the next token;
and the characters that a vocabulary can spell. These are checked before every call, because a SentencePiece or RWKV
tokenizer spells an unknown character by the tokens of its bytes, and if those are missing too, llama.cpp aborts the
process or never returns.
"""

from __future__ import annotations

import ctypes
import functools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecal.errors import InputError
from edgecal.llama.control_tokens import Marks
from edgecal.prompts.question_templates import follows_directly
from edgecal.prompts.records import Prompt

__all__ = ["PromptEnd", "ResolvedPrompt", "Spelling", "Tokenizer", "read_spelling"]


# llama.cpp's kinds of tokenizers, as far as this module distinguishes them.
_NONE, _SENTENCEPIECE, _BYTE_PAIR, _WORDPIECE, _UNIGRAM, _RWKV = range(6)

# Prefixes after which a label is tokenized as a text of its own: the first suits byte-pair tokenizers, the second those
# that add a space before a text's first word.
_PREFIXES = ("", 'x"')

_AS_TOKENS = 'or give prompts as {"tokens": ..., "choice_tokens": ...}'


@dataclass(frozen=True)
class ResolvedPrompt:
    """A prompt as one model's token ids.

    Attributes
    ----------
    tokens: int32 [n_tokens], including BOS if the model expects one.
    choice_tokens: int32 [m], m >= K, the labels' tokens in the order of the choices; one for each form of a label.
    label_of: int32 [m], ascending: which of the K labels each token stands for.
    """

    tokens: NDArray[np.int32]
    choice_tokens: NDArray[np.int32]
    label_of: NDArray[np.int32]

    @classmethod
    def of_labels(cls, tokens: NDArray[np.int32], choice_tokens: Sequence[int]) -> ResolvedPrompt:
        """A prompt in which each label is one token."""
        return cls(
            tokens, np.array(choice_tokens, dtype=np.int32), np.arange(len(choice_tokens), dtype=np.int32)
        )

    @property
    def has_forms(self) -> bool:
        """Whether several tokens stand for one label."""
        return len(self.label_of) != int(self.label_of[-1]) + 1

    def label_logits(self, logits: NDArray[np.floating]) -> NDArray[np.float64]:
        """Returns the labels' logits, float64 [..., K]: of each, the log-sum-exp over its forms.

        logits: float [..., m], those of `choice_tokens`. A label of one form keeps its logit exactly.
        """
        wide = logits.astype(np.float64)
        if not self.has_forms:
            return wide
        starts = np.flatnonzero(np.diff(self.label_of, prepend=-1))
        peaks = np.maximum.reduceat(wide, starts, axis=-1)
        # A masked token's logit is minus infinity, which must not be subtracted from itself.
        finite = np.where(np.isfinite(peaks), peaks, 0.0)
        shares = np.exp(wide - finite[..., self.label_of])
        with np.errstate(divide="ignore"):
            sums: NDArray[np.float64] = np.log(np.add.reduceat(shares, starts, axis=-1))
        return finite + sums


class Tokenizer:
    """The tokenizer of a loaded model.

    Parameters
    ----------
    vocab: llama.cpp's vocabulary pointer; the model must outlive this object.
    n_vocab: number of tokens for which the model has logits.
    model_name: how messages name the model.
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
        """Returns the token ids of a prompt, as llama.cpp's own programs tokenize it.

        BOS is added if the model's metadata say so. Text that spells a special token becomes that token, except for
        control tokens that overlap `data` (see `Marks`). A text that itself begins with BOS, as chat templates write
        it, gets it only once. An end-of-sequence token that the tokenizer appends is removed, because the model must
        predict the token after the prompt, not after the end of a sequence.

        Parameters
        ----------
        text: the prompt.
        source: the prompt's origin, for messages.
        data: the ranges of the text that come from data, [start, stop) in characters, ascending.

        Raises
        ------
        InputError: the model has no tokenizer or an unusable one, or the vocabulary cannot spell a part of the text.
        """
        where = f"{source}: " if source else ""

        def check(part: str) -> None:
            self._check_spelling(part, where, marks=False)

        self._check_spelling(text, where)
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

    def tokenize_as_given(self, text: str) -> list[int]:
        """Returns the tokens of a text to which nothing is added, not even BOS, and in which every special token that
        it spells becomes that token. llama.cpp's server tokenizes a decision model's template so.

        Raises
        ------
        InputError: as `tokenize`.
        """
        self._check_spelling(text)
        return self._tokenize(text, added=False, marks=True)

    def token_alone(self, text: str) -> int | None:
        """Returns the token that the tokenizer makes of a text by itself, with the space that it may put before a text;
        None if it makes several. llama.cpp's decision mode reads its letters so."""
        self._check_spelling(text)
        tokens = self._tokenize(text, added=False, marks=False)
        return tokens[0] if len(tokens) == 1 else None

    @property
    def marks(self) -> dict[int, str]:
        """The texts of all control tokens, by token (see `Marks`)."""
        return self._marks.texts

    def marks_of(self, prompt: Prompt, tokens: Sequence[int]) -> list[str]:
        """Returns the control tokens that a ready-made prompt spells, each once, without BOS at its beginning.

        `tokens` is the prompt as `prompt_tokens` returns it.
        """
        if prompt.text is None or prompt.data:
            return []
        return self._marks.find(tokens[int(tokens[0] == self._lib.llama_vocab_bos(self._vocab)) :])

    def piece(self, token: int) -> str:
        """Returns a token's text; for a special token, its name."""
        return self.piece_bytes(token).decode("utf-8", "replace")

    def piece_bytes(self, token: int) -> bytes:
        """Returns a token's bytes, which may be part of a character; for a special token, its name."""
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            count = self._lib.llama_token_to_piece(self._vocab, token, buffer, size, 0, True)
            if count >= 0:
                return buffer.raw[:count]
            size = -count

    def token_of(self, text: str) -> int | None:
        """Returns the token that the tokenizer makes of exactly this text where it joins no text before it.

        So it never returns another token with the same text: SentencePiece has `A` and, for the byte, `<0x41>`. None
        if the text is a single token neither at the beginning nor after a quote.
        """
        for prefix in _PREFIXES:
            if self._spelling is not None and self._spelling.find_gap(prefix) is not None:
                continue
            start, joint = self.tokenize(prefix), self.tokenize(prefix + text)
            is_one = len(joint) == len(start) + 1 and joint[:-1] == start
            if is_one and self.piece_bytes(joint[-1]) == text.encode():
                return joint[-1]
        return None

    def ends_generation(self, token: int) -> bool:
        """Whether the model ends its output with this token (end of the text, of its turn, ...)."""
        return bool(self._lib.llama_vocab_is_eog(self._vocab, token))

    def text_tokens(self, prompt: Prompt, tokens: NDArray[np.int32], texts: Sequence[str]) -> list[list[int]]:
        """Returns the tokens of several continuations of a prompt, whose `prompt_tokens` are given (see
        `PromptEnd.find_text`)."""
        end = PromptEnd(self, prompt, tokens.tolist())
        return [end.find_text(text) for text in texts]

    def likelier_mark(self, logits: NDArray[np.floating], than: float) -> str | None:
        """Returns the text of the likeliest control token (see `Marks`) whose logit is above `than`; None if there is
        none. logits: [n_vocab]."""
        above = np.flatnonzero(logits > than)
        return next(
            (
                self.piece(token)
                for token in above[np.argsort(-logits[above])].tolist()
                if self._marks.find([token])
            ),
            None,
        )

    def is_special(self, token: int) -> bool:
        """Whether a token is special (control or user-defined) rather than a piece of language."""
        attributes = self._lib.llama_vocab_get_attr(self._vocab, token)
        return bool(
            attributes & (self._lib.LLAMA_TOKEN_ATTR_CONTROL | self._lib.LLAMA_TOKEN_ATTR_USER_DEFINED)
        )

    def resolve(self, prompt: Prompt) -> ResolvedPrompt:
        """Returns a prompt's tokens and its labels' tokens as they follow it (see `PromptEnd`).

        Raises
        ------
        InputError: a label is not a single token, two labels are the same token, a token id is outside the vocabulary,
            or the prompt has no tokens.
        """
        tokens = self.prompt_tokens(prompt)
        if prompt.choice_tokens is not None:
            self._check_ids(prompt.choice_tokens, prompt)
            return ResolvedPrompt.of_labels(tokens, prompt.choice_tokens)
        labels = prompt.labels or ()
        end = PromptEnd(self, prompt, tokens.tolist())
        if prompt.labels_alone:
            return ResolvedPrompt.of_labels(tokens, end.find_alone(labels))
        if prompt.label_forms is not None:
            forms = end.find_forms(labels, prompt.label_forms)
            return ResolvedPrompt(
                tokens,
                np.array([token for found in forms for token in found], dtype=np.int32),
                np.repeat(np.arange(len(forms), dtype=np.int32), [len(found) for found in forms]),
            )
        choice_tokens = end.find_verbatim(labels) if prompt.labels_verbatim else end.find_letters(labels)
        if len(set(choice_tokens)) < len(choice_tokens):
            raise InputError(
                f"{prompt.source}: two labels are the same token in {self.model_name} "
                f"(labels {', '.join(map(repr, labels))}, tokens {choice_tokens}); each choice needs its own"
            )
        return ResolvedPrompt.of_labels(tokens, choice_tokens)

    def prompt_tokens(self, prompt: Prompt) -> NDArray[np.int32]:
        """Returns a prompt's tokens, int32 [n_tokens], without checking its labels.

        Raises
        ------
        InputError: a token id is outside the vocabulary, or the prompt has no tokens.
        """
        if prompt.tokens is not None:
            self._check_ids(prompt.tokens, prompt)
            return np.array(prompt.tokens, dtype=np.int32)
        tokens = self.tokenize(prompt.text or "", prompt.source, prompt.data)
        if not tokens:
            raise InputError(f"{prompt.source}: the prompt has no tokens in {self.model_name}")
        return np.array(tokens, dtype=np.int32)

    def _check_spelling(self, text: str, where: str = "", *, marks: bool = True) -> None:
        """InputError if no text can be tokenized, or not this one; `marks` as for `Spelling.find_gap`."""
        if self._flaw is not None:
            raise InputError(f"{self.model_name}: {self._flaw}")
        if self._spelling is not None and (gap := self._spelling.find_gap(text, marks=marks)) is not None:
            raise InputError(
                f"{where}the tokenizer of {self.model_name} has no token for {gap!r} (U+{ord(gap):04X}), nor for "
                "each of its bytes; leave out the character"
            )

    def _tokenize(self, text: str, *, added: bool, marks: bool) -> list[int]:
        """Calls llama.cpp's tokenizer. `added`: it adds BOS and the like; `marks`: text that spells a control token
        becomes that token."""
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
        """Why no text can be tokenized, or None. A missing token that llama.cpp has to add would make it abort."""
        if self._kind == _NONE:
            return f"has no tokenizer, so it cannot read text; use a GGUF file with one, {_AS_TOKENS}"
        if self._kind == _WORDPIECE:
            return (
                "its tokenizer is WordPiece, used by models that embed or classify text and do not predict a next "
                "token; give a causal language model"
            )
        if self._kind in (_SENTENCEPIECE, _BYTE_PAIR, _UNIGRAM):
            for name in ("bos", "eos"):
                is_added = getattr(self._lib, f"llama_vocab_get_add_{name}")(self._vocab)
                if is_added and getattr(self._lib, f"llama_vocab_{name}")(self._vocab) < 0:
                    return (
                        f"its tokenizer has to add a {name.upper()} token to every text, but the file names none "
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


_N_FIRST = 1024  # the byte tokens are usually among the first tokens


class Spelling:
    """The characters that a vocabulary can spell.

    Parameters
    ----------
    whole: the tokens' texts; a character among them is spelled by its own token.
    single: the bytes that have a token.
    marks: texts of the (special) tokens that llama.cpp finds in a text before it spells the rest.
    space: how `whole` writes a space.
    """

    def __init__(
        self, whole: frozenset[bytes], single: frozenset[int], marks: frozenset[bytes], space: str
    ) -> None:
        self._whole = whole
        self._single = single
        self._marks = sorted((mark.decode("utf-8", "replace") for mark in marks), key=len, reverse=True)
        self._space = space

    def find_gap(self, text: str, *, marks: bool = True) -> str | None:
        """Returns the first character of a text that cannot be spelled, or None. Checks a space in any case, because a
        tokenizer may add one.

        A character that occurs only within longer tokens counts as unspellable. `marks`: whether llama.cpp finds marks
        in this text.
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
    """Reads which characters a vocabulary can spell; None if every byte has a token, so that it can spell all.

    Parameters
    ----------
    n_tokens: the tokens are 0 to n_tokens - 1.
    text_of: returns a token's text.
    is_mark: whether llama.cpp finds a token in a text before it spells the rest.
    name_of_byte: returns the text of a byte's token (`<0x41>`); a token whose text is the byte itself counts as well.
    space: how the tokens' texts write a space.
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
    """The end of a prompt, where each label must be the next token.

    Parameters
    ----------
    tokenizer: the model's tokenizer.
    prompt, tokens: a prompt with a text, and its tokens by `tokenizer`.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Prompt, tokens: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._text = prompt.text or ""
        self._data = prompt.data
        self._tokens = list(tokens)
        self._source = prompt.source
        self._near = self._cut()

    def _cut(self) -> tuple[str, Sequence[tuple[int, int]], list[int]]:
        """The prompt from its last control token on, which is enough to find what follows, since a tokenizer joins
        nothing across one; else the whole prompt. Text, data and tokens."""
        is_special = self._tokenizer.is_special
        last = next((at for at in range(len(self._tokens) - 1, 0, -1) if is_special(self._tokens[at])), 0)
        mark = self._tokenizer.piece(self._tokens[last])
        at = self._text.rfind(mark) if last else -1
        if at >= max((stop for _, stop in self._data), default=0) and at > 0:
            text = self._text[at:]
            tokens = self._tokenizer.tokenize(text, self._source)
            n = len(self._tokens) - last
            if tokens[-n:] == self._tokens[last:] and len(tokens) - n <= 1:  # BOS may be added
                return text, (), tokens
        return self._text, self._data, self._tokens

    def find_letters(self, labels: Sequence[str]) -> list[int]:
        """Returns the labels' tokens, all with a leading space or all without, as the prompt's end requires.

        If the text shows that a word follows directly (see `follows_directly`, or a special token such as the start of
        the assistant's turn), the form without a space is tried first, otherwise the form with one. A form is used if
        every label is a single token in it, which the tokenizer adds to the unchanged tokens of the prompt. That token
        may include the space that the tokenizer itself adds after a special token (SentencePiece).

        Some tokenizers would join a bracket or line ends with the letter. Because the prompt is tokenized without the
        letter, only the letter's own token can follow, so that token is used. After a plain space it is not: a separate
        space token precedes a word only in texts with two spaces, so the form with a space, if any, is the right one.

        Raises
        ------
        InputError: neither form fits; the message names the first label that does not.
        """
        direct = follows_directly(self._text) or self._ends_in_mark()
        forms = ("", " ") if direct else (" ", "")
        after_space = self._text.endswith(" ")
        misfits: list[str] = []
        for space in forms:
            joins = direct and not space and not after_space
            candidates = [self._find_letter(space + label, joins=joins) for label in labels]
            tokens = [token for token in candidates if token is not None]
            if len(tokens) == len(labels):
                return tokens
            misfits.append(space + labels[candidates.index(None)])
        remedy = (
            "leave out the space at the end of the prompt, or use"
            if after_space
            else "use fewer choices, a template that ends where the letter comes, or"
        )
        raise InputError(
            f"{self._source}: the label {misfits[0].strip()!r} is not one token after this prompt in "
            f"{self._tokenizer.model_name}: {misfits[0]!r} becomes {self._describe(misfits[0])}; "
            f"{remedy} another model"
        )

    def find_verbatim(self, labels: Sequence[str]) -> list[int]:
        """Returns the labels' tokens by their exact texts.

        A label must be one token that the tokenizer adds to the unchanged tokens of the prompt. Where the tokenizer
        would join the label with the prompt's end, or add a space before it, the token that it makes of the label
        elsewhere is used.

        Raises
        ------
        InputError: a label is not a single token.
        """
        return [self._find_exact(label) for label in labels]

    def find_text(self, text: str) -> list[int]:
        """Returns the tokens of a text that continues the prompt, as data (it never becomes a control token): with a
        space before it or none, as `find_letters` decides. Where the tokenizer would join it with the prompt's end,
        its tokens as a text of its own.

        Raises
        ------
        InputError: it has no tokens.
        """
        near, data, tokens = self._near
        direct = follows_directly(self._text) or self._ends_in_mark()
        for space in ("", " ") if direct else (" ", ""):
            start = len(near) + len(space)
            spans = [*data, (start, start + len(text))]
            joint = self._tokenizer.tokenize(near + space + text, self._source, spans)
            if joint[: len(tokens)] == tokens and len(joint) > len(tokens):
                return joint[len(tokens) :]
        alone = self._tokenizer.tokenize(text, self._source, [(0, len(text))])
        alone = alone[int(alone[:1] == self._tokenizer.tokenize("", self._source)[:1]) :]
        if not alone:
            raise InputError(f"{self._source}: the option {text!r:.60} has no tokens; describe it in words")
        return alone

    def find_alone(self, labels: Sequence[str]) -> list[int]:
        """Returns the tokens that the tokenizer makes of the labels by themselves, wherever they stand.

        Raises
        ------
        InputError: a label is not a single token, or two labels are the same one.
        """
        tokens: list[int] = []
        for label in labels:
            token = self._tokenizer.token_alone(label)
            if token is None or token in tokens:
                why = "is several tokens" if token is None else "is the same token as another label"
                raise InputError(
                    f"{self._source}: the label {label!r} {why} in {self._tokenizer.model_name}; use another readout "
                    "(labels, texts), or another model"
                )
            tokens.append(token)
        return tokens

    def find_forms(self, labels: Sequence[str], forms: Sequence[Sequence[str]]) -> list[list[int]]:
        """Returns for each label the tokens of its forms, each once, in the forms' order.

        A form that is not a single token here (as in `find_verbatim`) is left out, and so is a token that two labels
        claim.

        Parameters
        ----------
        labels: K labels, for messages.
        forms: for each label the texts that count as it.

        Raises
        ------
        InputError: a label is left with no token.
        """
        found = [
            [token for token in dict.fromkeys(map(self._find_token, of_label)) if token is not None]
            for of_label in forms
        ]
        claims = Counter(token for tokens in found for token in tokens)
        own = [[token for token in tokens if claims[token] == 1] for tokens in found]
        for label, tokens, claimed, of_label in zip(labels, own, found, forms, strict=True):
            if not tokens:
                rest = "; ".join(f"{form!r} becomes {self._describe(form)}" for form in of_label[:3])
                why = (
                    "each token of it stands for another label too" if claimed else rest or "it has no forms"
                )
                raise InputError(
                    f"{self._source}: the label {label!r} is not one token after this prompt in "
                    f"{self._tokenizer.model_name} ({why}); use a readout that needs no labels (texts), fewer "
                    "options, or another model"
                )
        return own

    def _ends_in_mark(self) -> bool:
        """Whether the last token is special; a token that ends in a letter or digit, which a vocabulary's maker may
        have added, is not counted."""
        last = self._tokens[-1]
        return self._tokenizer.is_special(last) and not self._tokenizer.piece(last)[-1:].isalnum()

    def _find_letter(self, form: str, *, joins: bool) -> int | None:
        token = self._added(form, (form, f" {form}"))
        return self._tokenizer.token_of(form) if token is None and joins else token

    def _find_token(self, label: str) -> int | None:
        token = self._added(label, (label,))
        return self._tokenizer.token_of(label) if token is None else token

    def _find_exact(self, label: str) -> int:
        token = self._find_token(label)
        if token is not None:
            return token
        raise InputError(
            f"{self._source}: the label {label!r} is not one token after this prompt in "
            f"{self._tokenizer.model_name} (it becomes {self._describe(label)}); {self._find_remedy(label)}"
        )

    def _added(self, text: str, readings: tuple[str, ...]) -> int | None:
        """Returns the single token that this text adds to the prompt's tokens, if the token reads as one of
        `readings`."""
        near, data, tokens = self._near
        joint = self._tokenizer.tokenize(near + text, self._source, data)
        if joint[:-1] != tokens:
            return None
        # The reading is compared because tokenizers silently drop characters that their vocabulary lacks.
        piece = self._tokenizer.piece_bytes(joint[-1])
        return joint[-1] if piece in [reading.encode() for reading in readings] else None

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
            '"choices": [...]}: then the options may be texts of any length, and edgecal puts letters before them'
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
