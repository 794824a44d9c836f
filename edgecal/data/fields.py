"""What converters share: reading options, answers and subjects, and making a question of them.

Options may carry their own letters; answers come as letters, indices, texts, or blank where unknown.
Knows no format.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral

from edgecal.data.literals import parse_list_text
from edgecal.data.model import fail
from edgecal.prompts import LABEL_LETTERS, Question, parse_record

__all__ = [
    "Context",
    "Fields",
    "answer_index",
    "as_list",
    "as_text",
    "is_blank",
    "labelled_options",
    "letter_index",
    "make_question",
    "subject_text",
    "whole_number",
]

Fields = Mapping[str, object]

# "(A) x", "A) x", "A)x", "A. x" (not "A.x", which may be a name), and the Chinese kind
_CARRIED_LETTER = re.compile(
    r"(?:[(（]([A-Za-z])[)）]|([A-Za-z])(?:[)）．、：]|[.](?=\s|[^\x00-\x7f])))\s*(.+)", re.DOTALL
)
_WRAPPED_LETTER = re.compile(r"\(?([A-Za-z])[).]?")
_WHOLE = re.compile(r"[+-]?\d{1,9}(?:\.0+)?")


@dataclass(frozen=True)
class Context:
    """What a converter may know beside the row.

    Attributes
    ----------
    where: the row's place.
    seed: for formats that list the right option first.
    index_base: whether the file's numeric answers count from 0 or from 1; None if they are no indices but
        the options' texts.
    subject: what the file's name says, or None.
    from_json: whether the row came as JSON, with types, not from a table.
    record: the row as it was decoded.
    """

    where: str
    seed: int = 0
    index_base: int | None = 0
    subject: str | None = None
    from_json: bool = True
    record: object = field(default=None)


def is_blank(value: object) -> bool:
    """Whether a cell is empty: null, a text of blanks, or the NaN that tables have for nothing."""
    return value is None or (isinstance(value, str) and not value.strip()) or value != value


def whole_number(value: object) -> int | None:
    """The integer that a value is or spells (`3`, `3.0`, `"3"`), else None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, float):
        return int(value) if math.isfinite(value) and value == int(value) else None
    if isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
        return int(float(value))
    return None


def as_text(value: object, what: str, where: str) -> str:
    """A text without the blanks around it; numbers become texts.

    Raises
    ------
    InputError: it is something else, or empty.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool) and not is_blank(value):
        return str(value)
    if is_blank(value):
        fail(where, f"{what} is empty")
    if not isinstance(value, str):
        fail(where, f"{what} must be a text, got {value!r:.60}")
    return value.strip()


def subject_text(value: object) -> str | None:
    """The subject, or None where there is none."""
    return value.strip() if isinstance(value, str) and value.strip() else None


def as_list(value: object, what: str, where: str) -> list[object]:
    """A list, also from the text that a table's column keeps of it.

    Raises
    ------
    InputError: it is no list.
    """
    if isinstance(value, str):
        parsed = parse_list_text(value)
        value = value if parsed is None else parsed
    if isinstance(value, (list, tuple)):
        return list(value)
    fail(where, f"{what} must be a list, got {'nothing' if is_blank(value) else f'{value!r:.60}'}")


def labelled_options(value: object, where: str) -> tuple[list[str], list[str]]:
    """Options with labels of their own.

    Parameters
    ----------
    value: `{"text": [...], "label": [...]}`, `[{"text": ..., "label": ...}, ...]` or `{"A": "...", ...}`;
        also as the text that a table's column keeps of it.

    Returns
    -------
    The texts and the labels.
    """
    if isinstance(value, str):
        parsed = parse_list_text(value)
        value = value if parsed is None else parsed
    if isinstance(value, Mapping):
        if "text" in value and "label" in value:
            texts = as_list(value["text"], "choices.text", where)
            labels = as_list(value["label"], "choices.label", where)
        else:
            labels, texts = list(value), list(value.values())
    elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        texts = [item.get("text") for item in value]
        labels = [item.get("label") for item in value]
    else:
        fail(where, f"choices must hold text and label, got {value!r:.60}")
    if len(texts) != len(labels):
        fail(where, f"choices hold {len(texts)} texts but {len(labels)} labels")
    named = [as_text(label, f"the label of choice {index}", where) for index, label in enumerate(labels)]
    if len(set(named)) < len(named):
        fail(where, f"choices hold the same label twice: {', '.join(named)[:60]}")
    return [as_text(text, f"choice {index}", where) for index, text in enumerate(texts)], named


def letter_index(value: object, n_options: int) -> int | None:
    """The index that a letter names: `"B"`, `"b"`, `"(B)"`, `"B."` are 1; None if it is no letter of an option."""
    match = _WRAPPED_LETTER.fullmatch(value.strip()) if isinstance(value, str) else None
    index = LABEL_LETTERS.index(match.group(1).upper()) if match else n_options
    return index if index < n_options else None


def answer_index(
    value: object, options: Sequence[str], where: str, *, index_base: int | None = 0, texts: bool = True
) -> int | None:
    """The option that an answer names.

    Parameters
    ----------
    value: a letter, an index from `index_base`, the option's text if `texts`, a list with one of these, or
        blank or -1 where it is unknown.

    Raises
    ------
    InputError: it names none of the options, or several.
    """
    if isinstance(value, (list, tuple)):
        if len(value) > 1:
            fail(where, f"has several right answers ({value!r:.60}), which is not multiple choice with one")
        value = value[0] if value else None
    if is_blank(value):
        return None
    number = whole_number(value)
    if number is not None and index_base is not None:
        index = number - index_base
        if 0 <= index < len(options):
            return index
        if number == -1:
            return None
    else:
        letter = letter_index(value, len(options))
        if letter is not None:
            return letter
    if texts and isinstance(value, str) and options.count(value.strip()) == 1:
        return options.index(value.strip())
    if isinstance(value, str) and 1 < len(value.strip()) <= len(options):
        letters = value.strip().upper()
        if all(letter in LABEL_LETTERS[: len(options)] for letter in letters):
            fail(where, f"has several right answers ({value!r:.60}), which is not multiple choice with one")
    fail(where, f"the answer {value!r:.60} is none of the {len(options)} options")


def make_question(
    where: str,
    question: object,
    options: Iterable[object],
    answer: int | None,
    *,
    subject: str | None = None,
    passage: object = None,
) -> Question:
    """Makes the question and holds it to the rules for records.

    Letters that the options carry are taken off where every option carries its own.

    Raises
    ------
    InputError: it breaks a rule.
    """
    text = as_text(question, "the question", where)
    read = None if is_blank(passage) else as_text(passage, "the passage", where)
    choices = [as_text(option, f"choice {index}", where) for index, option in enumerate(options)]
    record = {
        "question": text,
        "choices": strip_letters(choices),
        "answer": answer,
        "subject": subject,
        "passage": read,
    }
    made = parse_record(record, where)
    assert isinstance(made, Question)
    return made


def strip_letters(options: list[str]) -> list[str]:
    """Takes `(A) `, `A. `, `A)` or `A、` off the options, if each of them carries the letter of its place."""
    stripped = []
    for letter, option in zip(LABEL_LETTERS, options, strict=False):
        match = _CARRIED_LETTER.fullmatch(option)
        if not match or (match.group(1) or match.group(2)).upper() != letter:
            return options
        stripped.append(match.group(3))
    return stripped if len(stripped) == len(options) else options
