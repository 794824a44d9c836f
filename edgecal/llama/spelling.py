"""Which characters a vocabulary can spell.

A SentencePiece or RWKV tokenizer spells a character that is no token by the tokens of its bytes. Where those are
missing too, llama.cpp ends the process or never comes back, so this is asked first. Knows the texts of tokens only.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Spelling", "read_spelling"]

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
