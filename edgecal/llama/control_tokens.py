"""Control tokens in texts: which a text spells, and tokens of texts whose data parts spell none.

llama.cpp takes what looks like a control token for one anywhere in a text or nowhere. Here template parts may have
them, and parts that come from data may not, also where the two together spell one.

A mark is a token of the types control and unknown; one that ends a generation; and one that a file's maker added as
`<|...|>`, since some files (Command R) have the marks of turns so. Other added tokens (runs of spaces, `<b>`) are
words, as llama.cpp and transformers have them. Knows texts of tokens. Does not know prompts or labels.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from edgecal.errors import InputError

__all__ = ["Marks"]

Span = tuple[int, int]

_LOOKS_LIKE_A_MARK = re.compile(r"<[|\uff5c].+>|<.+[|\uff5c]>", re.DOTALL)

# What may stand before a text so that it is tokenized without a space of the tokenizer's own.
_PLACES = ("", "\n", 'x"', "x")

_WHITE_SPACE = " \t\n\v\f\r"  # C's


class Marks:
    """The control tokens of a vocabulary.

    Parameters
    ----------
    lib, vocab: llama.cpp's bindings, and its pointer to the vocabulary.
    tokenize: a text's tokens, nothing added and no control token found in it.
    piece_bytes: a token's bytes.
    """

    def __init__(
        self,
        lib: Any,
        vocab: int,
        tokenize: Callable[[str], list[int]],
        piece_bytes: Callable[[int], bytes],
    ) -> None:
        self._lib = lib
        self._vocab = vocab
        self._tokenize = tokenize
        self._piece_bytes = piece_bytes
        self._known: dict[int, str | None] = {}

    def find(self, tokens: Iterable[int]) -> list[str]:
        """The texts of the marks among some tokens, each once."""
        return [mark for token in dict.fromkeys(tokens) if (mark := self._text_of_mark(token))]

    def touch(self, text: str, data: Sequence[Span], tokens: Iterable[int]) -> bool:
        """Whether a mark among the tokens that llama.cpp makes of a text stands, even in part, in the text's data."""
        return any(
            _touches(data, *place)
            for mark in (self.find(tokens) if data else ())
            for place in _places(mark, text)
        )

    def tokenize(
        self, text: str, data: Sequence[Span], check: Callable[[str], None], where: str = ""
    ) -> list[int]:
        """Tokens of a text in which no mark touches the data; BOS is not added.

        The text is cut at the marks outside the data, as llama.cpp does it, and what lies between is tokenized as
        plain text: data together with what is around them.

        Parameters
        ----------
        check: called with each part that is tokenized as plain text.
        where: what messages begin with.

        Raises
        ------
        InputError: the vocabulary has no other tokens for the text of a mark.
        """
        parts: list[Span | int] = [(0, len(text))]
        for mark, token in self._found_first:
            if mark in text:
                forbidden = data if self._text_of_mark(token) else ()
                parts = list(self._cut(text, parts, mark, token, forbidden))
        tokens: list[int] = []
        for part in parts:
            if isinstance(part, int):
                tokens.append(part)
            else:
                plain = text[slice(*part)]
                check(plain)
                tokens += self._plain(plain, where)
        return tokens

    def _cut(
        self, text: str, parts: Iterable[Span | int], mark: str, token: int, forbidden: Sequence[Span]
    ) -> Iterator[Span | int]:
        """The parts, cut where the mark stands and touches nothing forbidden."""
        attributes = self._lib.llama_vocab_get_attr(self._vocab, token)
        for part in parts:
            if isinstance(part, int):
                yield part
                continue
            start, stop = part
            for at, end in _places(mark, text, start, stop):
                if at < start or _touches(forbidden, at, end):
                    continue
                left = text[start:at]
                if attributes & self._lib.LLAMA_TOKEN_ATTR_LSTRIP:
                    left = left.rstrip(_WHITE_SPACE)
                if left:
                    yield start, start + len(left)
                yield token
                start = end
                if attributes & self._lib.LLAMA_TOKEN_ATTR_RSTRIP:
                    start = stop - len(text[end:stop].lstrip(_WHITE_SPACE))
            if start < stop:
                yield start, stop

    def _plain(self, text: str, where: str) -> list[int]:
        """Tokens of a text without marks. Where the tokenizer itself joins characters to one (SentencePiece can), the
        text is cut behind the first of them."""
        tokens: list[int] = []
        waiting = [(text, True)]
        while waiting:
            piece, is_first = waiting.pop()
            found = self._tokenize(piece) if is_first else self._tokenize_behind(piece)
            joined = next((mark for mark in self.find(found) if mark in piece), None)
            if joined is None:
                tokens += found
                continue
            if len(joined) == 1:
                raise InputError(
                    f"{where}the vocabulary has {joined!r} as a control token only; leave it out"
                )
            cuts = [0, *(at + 1 for at, _ in _places(joined, piece)), len(piece)]
            pieces = [(piece[start:stop], is_first and start == 0) for start, stop in pairwise(cuts)]
            waiting += reversed(pieces)
        return tokens

    def _tokenize_behind(self, text: str) -> list[int]:
        """Tokens of a text that goes on from another: no space is put before it."""
        for place in _PLACES:
            start = self._tokenize(place) if place else []
            tokens = self._tokenize(place + text)
            rest = tokens[len(start) :]
            if tokens[: len(start)] == start and b"".join(map(self._piece_bytes, rest)) == text.encode():
                return rest
        return self._tokenize(text)

    def _text_of_mark(self, token: int) -> str | None:
        """The text of a mark; None for any other token."""
        if token not in self._known:
            lib = self._lib
            attributes = lib.llama_vocab_get_attr(self._vocab, token)
            text = self._text(token)
            is_mark = (
                attributes & (lib.LLAMA_TOKEN_ATTR_CONTROL | lib.LLAMA_TOKEN_ATTR_UNKNOWN)
                or lib.llama_vocab_is_eog(self._vocab, token)
                or (attributes & lib.LLAMA_TOKEN_ATTR_USER_DEFINED and _LOOKS_LIKE_A_MARK.fullmatch(text))
            )
            self._known[token] = text if is_mark and text else None
        return self._known[token]

    def _text(self, token: int) -> str:
        return (self._lib.llama_vocab_get_text(self._vocab, token) or b"").decode("utf-8", "replace")

    @functools.cached_property
    def _found_first(self) -> list[tuple[str, int]]:
        """What llama.cpp looks for in a text before it tokenizes the rest, in its order: the longest first."""
        lib = self._lib
        wanted = (
            lib.LLAMA_TOKEN_ATTR_CONTROL | lib.LLAMA_TOKEN_ATTR_USER_DEFINED | lib.LLAMA_TOKEN_ATTR_UNKNOWN
        )
        found = [
            (self._text(token), token)
            for token in range(lib.llama_vocab_n_tokens(self._vocab))
            if lib.llama_vocab_get_attr(self._vocab, token) & wanted
        ]
        return sorted(
            ((text, token) for text, token in found if text), key=lambda item: -len(item[0].encode())
        )


def _touches(data: Sequence[Span], start: int, stop: int) -> bool:
    """Whether any character from `start` up to `stop` is data."""
    return any(first < stop and start < last for first, last in data)


def _places(mark: str, text: str, start: int = 0, stop: int | None = None) -> Iterator[Span]:
    """Where a mark stands in a text, overlapping itself too."""
    at = text.find(mark, start, stop)
    while at >= 0:
        yield at, at + len(mark)
        at = text.find(mark, at + 1, stop)
