"""What the methods of a model are given: InputError for what makes no sense. Knows no models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, SupportsFloat, SupportsIndex

from edgecal.errors import InputError

__all__ = ["check_generation", "check_share", "holds_half_a_character", "is_real", "listed"]


def listed(texts: Sequence[str]) -> object:
    """A list of whatever sequence it is; a single text, which is a mistake, stays one and is refused later."""
    return texts if isinstance(texts, str) or not isinstance(texts, Sequence) else list(texts)


def check_share(share: float | None) -> None:
    """`min_confidence`."""
    if share is not None and not (is_real(share) and 0.0 <= share <= 1.0):  # also NaN
        raise InputError(f"min_confidence is {share!r:.60}, expected a number from 0 to 1")


def is_real(value: Any) -> bool:
    """Whether it is a number; texts and truth values are none."""
    return isinstance(value, SupportsFloat) and not isinstance(value, (str, bool))


def _is_whole(value: Any) -> bool:
    return isinstance(value, SupportsIndex) and not isinstance(value, bool)


def check_generation(max_tokens: int, sampling: float, seed: int, stop: Sequence[str], n_top: int) -> None:
    """The options of `Model.generate`."""
    if not _is_whole(max_tokens) or max_tokens < 1:
        raise InputError(f"max_tokens is {max_tokens!r:.60}, expected a whole number of at least 1")
    if not (is_real(sampling) and math.isfinite(sampling) and sampling >= 0):
        raise InputError(f"sampling is {sampling!r:.60}, expected a finite number of at least 0")
    if not _is_whole(seed) or not 0 <= seed < 2**64:
        raise InputError(f"the seed is {seed!r:.60}, expected a whole number from 0 to 2^64 - 1")
    if not isinstance(stop, Sequence) or isinstance(stop, str) or not all(map(_is_stop, stop)):
        raise InputError("stop must be a list of texts, none of them empty")
    if not _is_whole(n_top) or n_top < 0:
        raise InputError(f"n_top is {n_top!r:.60}, expected a whole number of at least 0")


def _is_stop(text: Any) -> bool:
    """Whether it can come up in a text."""
    return isinstance(text, str) and text != "" and not holds_half_a_character(text)


def holds_half_a_character(text: str) -> bool:
    """Whether a lone surrogate is in it, which is no text."""
    return any("\ud800" <= char <= "\udfff" for char in text)
