"""One answer beside its options: all that it may mean.

    3 "3" 3.0    a number: an option's label, its place from 0 or from 1, or its text
    "C" "(c)"    a letter: an option's label (that of its place, where options have none), or its text
    [0, 0, 1]    a mark on each option

Does not know what the other rows hold, by which one of the readings is chosen.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from edgecal.data.delimited import column_key
from edgecal.data.fields import is_blank, parsed, whole_number
from edgecal.data.model import fail
from edgecal.data.options import plain_label
from edgecal.prompts import LABEL_LETTERS

__all__ = ["LABEL", "ONE", "READINGS", "TEXT", "ZERO", "Shown", "Spelled", "fail_several", "spell"]

LABEL, ZERO, ONE, TEXT = range(4)
READINGS = ("label", "0", "1", "text")
_LETTER = re.compile(r"[(\[]?([A-Za-z])[)\].:]?")
_NAMED = re.compile(
    r"(?:the\s+)?(?:option|choice|answer|alternative|opt)[\s_:#-]*([A-Za-z]|\d{1,2})[).]?", re.I
)
_WITH_LABEL = re.compile(r"[(\[]?([A-Za-z]|\d{1,2})[)\].:]+\s*(.+)", re.DOTALL)


class Shown(NamedTuple):
    """What a row offers.

    Attributes
    ----------
    where: its place.
    texts: its options.
    labels: their labels, or None where they have none.
    columns: the keys of the columns that they stand in, if each has one.
    numbers: whether some came as numbers and not as texts.
    """

    where: str
    texts: tuple[str, ...]
    labels: tuple[str, ...] | None
    columns: tuple[str, ...]
    numbers: bool = False


class Spelled(NamedTuple):
    """An answer as it stands.

    Attributes
    ----------
    kind: "number", "letter" or "word"; "mark" where the option is marked in itself.
    value: what stands there.
    indices: the option by each of `READINGS`, None where it is none.
    typed: whether it came as a number and not as text, as no option did.
    """

    kind: str
    value: object
    indices: tuple[int | None, int | None, int | None, int | None]
    typed: bool = False


def spell(value: object, shown: Shown) -> Spelled | None:
    """Looks at one answer: what it may mean for this row's options.

    Returns
    -------
    None where there is no answer: blank, an empty list, or -1 that is no option's text.

    Raises
    ------
    InputError: there are several right answers.
    """
    texts = shown.texts
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "(") and _find(texts, value) is None:
        value = parsed(value)
    if isinstance(value, (list, tuple)):
        flags = [int(item) if isinstance(item, bool) else whole_number(item) for item in value]
        if len(flags) == len(texts) > 1 and set(flags) <= {0, 1}:
            if flags.count(1) > 1:
                fail_several(value, shown)
            if 1 not in flags:
                return None
            place = flags.index(1)
            by_label = place if shown.labels is None else shown.labels.index(_sorted(shown.labels)[place])
            return Spelled("mark", value, (by_label, None, None, place))
        if len(value) > 1:
            fail_several(value, shown)
        value = value[0] if value else None
    if is_blank(value):
        return None
    text = value.strip() if isinstance(value, str) else str(value)
    number = whole_number(value)
    if number is not None:
        found = _find(texts, text, number)
        if number == -1 and found is None:
            return None
        return Spelled(
            "number",
            value,
            (*_by_number(number, shown), found),
            not (isinstance(value, str) or shown.numbers),
        )
    letter = _LETTER.fullmatch(text)
    found = _find(texts, text)
    if letter:
        return Spelled("letter", value, (_by_label(letter[1].upper(), shown), None, None, found))
    if isinstance(value, bool) and found is None:
        found = _find(texts, "yes" if value else "no")
    if found is None:
        found = _by_name(text, shown)
        named = _NAMED.fullmatch(text) if found is None else None
        if named and (count := whole_number(named[1])) is not None:
            return Spelled("number", value, (*_by_number(count, shown), None))
        if named:
            return Spelled("letter", value, (_by_label(named[1].upper(), shown), None, None, None))
    return Spelled("word", value, (None, None, None, found))


def _by_number(number: int, shown: Shown) -> tuple[int | None, int | None, int | None]:
    n = len(shown.texts)
    labelled = _by_label(str(number), shown) if shown.labels else None
    if shown.labels is not None and list(shown.labels) != _sorted(shown.labels):
        # it may count the labels or the places
        return labelled, None, None
    return labelled, number if 0 <= number < n else None, number - 1 if 0 < number <= n else None


def _sorted(labels: Sequence[str]) -> list[str]:
    return sorted(labels, key=lambda label: (len(label), label))


def _by_label(label: str, shown: Shown) -> int | None:
    if shown.labels is not None:
        return shown.labels.index(label) if label in shown.labels else None
    index = LABEL_LETTERS.find(label)
    return index if 0 <= index < len(shown.texts) else None


def _by_name(text: str, shown: Shown) -> int | None:
    """The option that a column's name, a longer label, or a label with the option's text names."""
    key = column_key(text)
    if key in shown.columns:
        return shown.columns.index(key)
    if shown.labels is not None and plain_label(text) in shown.labels:
        return shown.labels.index(plain_label(text))
    match = _WITH_LABEL.fullmatch(text)
    found = _find(shown.texts, match[2]) if match else None
    if match and found is not None and _by_label(match[1].upper(), shown) not in (None, found):
        return None
    return found


def _find(texts: Sequence[str], text: str, number: int | None = None) -> int | None:
    """The one option that says a text: exactly, or else but for case and blanks, or else as a number."""
    text = text.strip()
    if text in texts:
        return texts.index(text) if texts.count(text) == 1 else None
    folded = " ".join(text.casefold().split())
    near = 2 * len(text)  # no text is folded to half its length, and blanks aside few grow so
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


def fail_several(value: object, shown: Shown) -> NoReturn:
    """Refuses an answer of more than one option."""
    fail(shown.where, f"has several right answers ({value!r:.60}), which is not multiple choice with one")
