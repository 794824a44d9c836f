"""Reads one gold answer beside its options and lists all that it can mean.

    3 "3" 3.0    a number: an option's label, its place counted from 0 or from 1, or its text
    "C" "(c)"    a letter: an option's label (its place, where options have no labels), or its text
    "iii" "Q2"   a code: a longer label of an option, or its text
    [0, 0, 1]    a mark for each option

Which of these readings holds cannot be told from one row: `gold_answers` decides it from all of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from edgecal.data.answer_options import Options, plain_label
from edgecal.data.decoded_rows import column_key, fail, is_blank, parsed, whole_number
from edgecal.prompts import LABEL_LETTERS

__all__ = ["LABEL", "ONE", "READINGS", "TEXT", "ZERO", "GoldReadings", "fail_several", "read_gold"]

LABEL, ZERO, ONE, TEXT = range(4)  # indices into READINGS and into GoldReadings.indices
READINGS = ("label", "0", "1", "text")
_LETTER = re.compile(r"[(\[]?([A-Za-z])[)\].:]?")
_NAMED = re.compile(
    r"(?:the\s+)?(?:option|choice|answer|alternative|opt)[\s_:#-]*([A-Za-z]|\d{1,2})[).]?", re.I
)
_WITH_LABEL = re.compile(r"[(\[]?([A-Za-z]|\d{1,2})[)\].:]+\s*(.+)", re.DOTALL)


class GoldReadings(NamedTuple):
    """The readings of one gold answer.

    Attributes
    ----------
    kind: "number", "letter", "code", "word", or "mark" (a list that marks the right option).
    value: the cell's value.
    indices: for each of `READINGS` the option that the answer names in this reading, or None.
    typed: whether the answer came as a number while all options came as texts.
    """

    kind: str
    value: object
    indices: tuple[int | None, int | None, int | None, int | None]
    typed: bool = False


def read_gold(value: object, options: Options) -> GoldReadings | None:
    """All readings of one gold answer for this row's options.

    Returns
    -------
    None where there is no answer: a blank cell, an empty list, or -1 (unless an option's text is -1).

    Raises
    ------
    InputError: several options are marked as right.
    """
    texts = options.texts
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "(") and _find(texts, value) is None:
        value = parsed(value)
    if isinstance(value, (list, tuple)):
        flags = [int(item) if isinstance(item, bool) else whole_number(item) for item in value]
        if len(flags) == len(texts) > 1 and set(flags) <= {0, 1}:
            if flags.count(1) > 1:
                fail_several(value, options)
            if 1 not in flags:
                return None
            place = flags.index(1)
            by_label = (
                place if options.labels is None else options.labels.index(_sorted(options.labels)[place])
            )
            return GoldReadings("mark", value, (by_label, None, None, place))
        if len(value) > 1:
            fail_several(value, options)
        value = value[0] if value else None
    if is_blank(value):
        return None
    text = value.strip() if isinstance(value, str) else str(value)
    number = whole_number(value)
    if number is not None:
        found = _find(texts, text, number)
        if number == -1 and found is None:
            return None
        return GoldReadings(
            "number",
            value,
            (*_by_number(number, options), found),
            not (isinstance(value, str) or options.numbers),
        )
    letter = _LETTER.fullmatch(text)
    found = _find(texts, text)
    if letter:
        return GoldReadings("letter", value, (_by_label(letter[1].upper(), options), None, None, found))
    if options.labels is not None and plain_label(text) in options.labels:
        return GoldReadings("code", value, (options.labels.index(plain_label(text)), None, None, found))
    if isinstance(value, bool) and found is None:
        found = _find(texts, "yes" if value else "no")
    if found is None:
        found = _by_name(text, options)
        named = _NAMED.fullmatch(text) if found is None else None
        if named and (count := whole_number(named[1])) is not None:
            return GoldReadings("number", value, (*_by_number(count, options), None))
        if named:
            return GoldReadings("letter", value, (_by_label(named[1].upper(), options), None, None, None))
    return GoldReadings("word", value, (None, None, None, found))


def _by_number(number: int, options: Options) -> tuple[int | None, int | None, int | None]:
    n = len(options.texts)
    labelled = _by_label(str(number), options) if options.labels else None
    if options.labels is not None and list(options.labels) != _sorted(options.labels):
        # A number could count the labels in their order or the options in theirs.
        return labelled, None, None
    return labelled, number if 0 <= number < n else None, number - 1 if 0 < number <= n else None


def _sorted(labels: Sequence[str]) -> list[str]:
    return sorted(labels, key=lambda label: (len(label), label))


def _by_label(label: str, options: Options) -> int | None:
    if options.labels is not None:
        return options.labels.index(label) if label in options.labels else None
    index = LABEL_LETTERS.find(label)
    return index if 0 <= index < len(options.texts) else None


def _by_name(text: str, options: Options) -> int | None:
    """The option that is named by its column, or by its label and text together."""
    key = column_key(text)
    if key in options.columns:
        return options.columns.index(key)
    match = _WITH_LABEL.fullmatch(text)
    found = _find(options.texts, match[2]) if match else None
    if match and found is not None and _by_label(match[1].upper(), options) not in (None, found):
        return None
    return found


def _find(texts: Sequence[str], text: str, number: int | None = None) -> int | None:
    """The one option with this text: exactly, else apart from case and blanks, else as the same number."""
    text = text.strip()
    if text in texts:
        return texts.index(text) if texts.count(text) == 1 else None
    folded = " ".join(text.casefold().split())
    near = 2 * len(text)  # folding never halves a text, so a longer option differs, blanks aside
    alike = [
        index
        for index, option in enumerate(texts)
        if len(option) <= near and " ".join(option.casefold().split()) == folded
    ]
    if not alike and number is not None:
        alike = [
            index
            for index, option in enumerate(texts)
            if option[0] in "+-0123456789" and whole_number(option) == number
        ]
    return alike[0] if len(alike) == 1 else None


def fail_several(value: object, options: Options) -> NoReturn:
    """Refuses a row with more than one right option."""
    fail(options.where, f"has several right answers ({value!r:.60}), but edgecal needs exactly one")
