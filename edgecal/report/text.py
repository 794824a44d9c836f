"""Formats strings and numbers for people: hostile text made visible, shares as percent, a true minus sign.

The text is not escaped yet; each output format does that in its own way.
"""

from __future__ import annotations

import math

__all__ = ["clipped", "number", "percent", "plain", "points", "signed", "visible"]

_MAY_STAY = frozenset(
    "\u200c\u200d\u00a0\u2002\u2003\u2007\u2009\u202f\u3000"
)  # joiners and spaces of real scripts


def visible(text: str, keep: str = "") -> str:
    """The text with every character that would hide or reorder others written as an escape sequence.

    Control and direction characters, lone surrogates, private and unassigned code points become `\\x00`,
    `\\u202e` and so on; joiners and wide spaces, which Persian, Hindi and Japanese need, stay.

    Parameters
    ----------
    keep: further characters that stay, such as a line break.
    """
    if text.isprintable():
        return text
    return "".join(
        char
        if char.isprintable() or char in _MAY_STAY or char in keep
        else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def clipped(text: str, limit: int, keep: str = "") -> str:
    """`visible` text of at most about `limit` characters; a note replaces what was cut."""
    if len(text) <= limit:
        return visible(text, keep)
    return f"{visible(text[:limit], keep)}… ({len(text) - limit:,} more characters)"


def plain(value: float, digits: int = 3) -> str:
    """A number with `digits` significant digits, such as 3.84; with an exponent only where people would write one."""
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e7:
        return f"{value:.{digits}g}".replace("-", "−")
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}".replace("-", "−")


def number(value: float, decimals: int = 3) -> str:
    """A number with fixed decimals: 0.861; one that is too large for that in three digits."""
    if abs(value) >= 1e6:
        return plain(value)
    text = f"{value:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


def percent(share: float, decimals: int = 1) -> str:
    """A share as percent: 0.2785 is 27.9 %. The space before the sign does not break."""
    return f"{number(100 * share, decimals)}\u00a0%"


def points(share: float, decimals: int = 1) -> str:
    """A difference of shares in percentage points, with its sign: −12.3."""
    return signed(100 * share, decimals)


def signed(value: float, decimals: int = 3) -> str:
    """A number with its sign, plus too; zero has none."""
    text = number(value, decimals)
    return text if text.startswith("−") or not any(digit in text for digit in "123456789") else f"+{text}"
