"""Whether a text ends where a word follows without a space: in white space, or in something that is left open.

Open are brackets, quotes, emphasis (`**`) and tags (`<answer>`). Looks at the text's end only. Knows nothing of
tokens.
"""

from __future__ import annotations

import re
import unicodedata

__all__ = ["find_opening", "follows_directly"]

_CLOSINGS = {
    "(": ")", "[": "]", "{": "}", "“": "”", "‘": "’", "„": "“", "«": "»", "‹": "›",
    "（": "）", "［": "］", "｛": "｝", "【": "】", "〔": "〕", "「": "」", "『": "』", "《": "》", "〈": "〉",
}  # fmt: skip

# These open and close alike, so what stands before says which it is.
_QUOTE = re.compile(r"[\"'`]\Z")
_EMPHASIS = re.compile(r"\*{1,3}\Z")
_TAG = re.compile(r"<(?P<name>[A-Za-z][\w.-]*)>\Z")
_BEFORE_A_QUOTE = (":", "=", ",", "：", "，")


def find_opening(text: str) -> tuple[str, str]:
    """What is left open at the very end of a text, and what closes it: `("(", ")")`, `("<b>", "</b>")`.

    A straight quote or asterisks open where nothing, white space or something open stands before them; a
    quote also after `:`, `=` or `,`. Both are empty where nothing is open.
    """
    if text[-1:] in _CLOSINGS:
        return text[-1], _CLOSINGS[text[-1]]
    if tag := _TAG.search(text):
        return tag[0], f"</{tag['name']}>"
    mark = _QUOTE.search(text) or _EMPHASIS.search(text)
    if mark is None:
        return "", ""
    before = text[: mark.start()]
    after_sign = before.endswith(_BEFORE_A_QUOTE) and "*" not in mark[0]
    opens = not before or before[-1].isspace() or after_sign or find_opening(before)[0]
    return (mark[0], mark[0]) if opens else ("", "")


def follows_directly(text: str) -> bool:
    """Whether the next word follows this text without a space.

    So it is after white space, after something open, and after the wide punctuation of East Asian scripts.
    """
    return text[-1:].isspace() or bool(find_opening(text)[0]) or _is_wide_punctuation(text[-1:])


def _is_wide_punctuation(character: str) -> bool:
    return (
        character != ""
        and unicodedata.east_asian_width(character) in ("W", "F")
        and unicodedata.category(character).startswith("P")
    )
