"""Control tokens in prompts: finds those that a text spells, and tokenizes data so that it can spell none.

llama.cpp parses text that looks like a control token either everywhere in a text or nowhere. A prompt mixes both cases:
its template may contain control tokens, but the data filled into it may not, not even where template and data together
spell one.

A *mark* is a token of type control or unknown, a token that ends generation, or a token that the file's maker added as
`<|...|>`, because some files (Command R) store the marks of turns that way. Other added tokens (runs of spaces, `<b>`)
count as words, as in llama.cpp and transformers.
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

# Prefixes after which a tokenizer adds no space of its own before a text; the first that works is used.
_PLACES = ("", "\n", 'x"', "x")

_WHITE_SPACE = " \t\n\v\f\r"  # C's


class Marks:
    """The control tokens (marks) of a vocabulary.

    Parameters
    ----------
    lib, vocab: llama.cpp's bindings, and its pointer to the vocabulary.
    tokenize: tokenizes a text as plain text: adds nothing, parses no control token.
    piece_bytes: returns a token's bytes.
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

    @functools.cached_property
    def texts(self) -> dict[int, str]:
        """The texts of all marks, by token."""
        tokens = range(self._lib.llama_vocab_n_tokens(self._vocab))
        return {token: mark for token in tokens if (mark := self._text_of_mark(token))}

    def find(self, tokens: Iterable[int]) -> list[str]:
        """Returns the texts of the marks among some tokens, each once."""
        return [mark for token in dict.fromkeys(tokens) if (mark := self._text_of_mark(token))]

    def touch(self, text: str, data: Sequence[Span], tokens: Iterable[int]) -> bool:
        """Whether a mark among llama.cpp's tokens of a text overlaps the text's data."""
        return any(
            _touches(data, *place)
            for mark in (self.find(tokens) if data else ())
            for place in _places(mark, text)
        )

    def tokenize(
        self, text: str, data: Sequence[Span], check: Callable[[str], None], where: str = ""
    ) -> list[int]:
        """Tokenizes a text so that no mark overlaps its data; does not add BOS.

        Cuts the text at the marks outside the data, as llama.cpp does, and tokenizes what lies between as plain text,
        data together with the template text around it.

        Parameters
        ----------
        check: called with each part that is tokenized as plain text.
        where: prefix of error messages.

        Raises
        ------
        InputError: the vocabulary can spell a mark's text only as the mark itself.
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
        """Cuts the parts at each occurrence of the mark that overlaps nothing forbidden."""
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
        """Tokenizes a text into no marks. Where the tokenizer itself merges characters into a mark (SentencePiece can),
        the text is cut after the first of those characters."""
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
        """Tokenizes the continuation of a text, without the space that a tokenizer may put before a text."""
        for place in _PLACES:
            start = self._tokenize(place) if place else []
            tokens = self._tokenize(place + text)
            rest = tokens[len(start) :]
            if tokens[: len(start)] == start and b"".join(map(self._piece_bytes, rest)) == text.encode():
                return rest
        return self._tokenize(text)

    def _text_of_mark(self, token: int) -> str | None:
        """Returns the text of a mark, None for any other token."""
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
        """The tokens that llama.cpp looks for before it tokenizes the rest, in its order: longest first."""
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
    """Whether any character in [start, stop) is data."""
    return any(first < stop and start < last for first, last in data)


def _places(mark: str, text: str, start: int = 0, stop: int | None = None) -> Iterator[Span]:
    """Yields the ranges of all occurrences of a mark in a text, overlapping ones included."""
    at = text.find(mark, start, stop)
    while at >= 0:
        yield at, at + len(mark)
        at = text.find(mark, at + 1, stop)
