"""The labels by which options are answered, and the texts (forms) that count as each.

A model that means "yes" may put its probability on `yes`, `Yes` or ` yes`; so a label stands for all of its forms that
are single tokens, less those that two labels claim, which the tokenizer finds out (`Tokenizer.resolve`).
"""

from __future__ import annotations

import string
from collections.abc import Collection, Sequence
from typing import Literal, get_args

from edgecal.errors import InputError

__all__ = ["LETTERS", "READOUTS", "WORDS", "Readout", "find_labels", "forms_of", "two_letter_labels"]

Readout = Literal["labels", "letters", "texts"]
READOUTS: tuple[Readout, ...] = get_args(Readout)

# The letters that llama.cpp's decision mode reads, in its order.
LETTERS = string.ascii_uppercase + string.ascii_lowercase
WORDS = ("yes", "no")
_PAIRS = tuple(a + b for a in string.ascii_uppercase for b in string.ascii_uppercase)


def two_letter_labels(vocabularies: Sequence[Collection[str]]) -> tuple[str, ...]:
    """The texts AA, AB, ..., ZZ that are tokens of every one of some vocabularies."""
    known = [set(vocabulary) for vocabulary in vocabularies]
    return tuple(pair for pair in _PAIRS if all(pair in tokens for tokens in known))


def find_labels(n: int, two_letter: Sequence[str], where: str) -> tuple[str, ...]:
    """The labels of n options: letters, or texts of two letters where there are more options than letters.

    Raises
    ------
    InputError: the vocabulary has too few tokens of two letters.
    """
    if n <= len(LETTERS):
        return tuple(LETTERS[:n])
    if n > len(two_letter):
        raise InputError(
            f"{where}: has {n} options, and the model has only {len(two_letter)} tokens of two letters to label them; "
            'score the options by their own texts instead (readout "texts")'
        )
    return tuple(two_letter[:n])


def forms_of(label: str, labels: Collection[str], readout: Readout) -> tuple[str, ...]:
    """The texts of single tokens that count as one of some labels. llama.cpp reads the bare letter alone ("letters").

    Cases that are themselves a label (of 30 options, A and a both are) count for that one only.
    """
    if readout == "letters":
        return (label,)
    cases = (label,) if label in _PAIRS else (label, label.lower(), label.upper(), label.capitalize())
    own = [case for case in dict.fromkeys(cases) if case == label or case not in labels]
    return tuple(f"{space}{case}" for case in own for space in ("", " "))
