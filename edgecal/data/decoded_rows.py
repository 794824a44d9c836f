"""The rows that every decoder returns, which know their place in the file, and helpers that read the values in their
cells.

Tables and JSON spell the same value in many ways: a missing cell is null, NaN or a blank text; a list is a list, or the
text that JSON, Python or numpy printed of it:

    ["a", "b"]      ['a', "it's"]      ['a' 'b']      {'text': array(['a', 'b'], dtype=object), ...}

numpy prints no commas, and Python would read 'a' 'b' as the one text 'ab': hence a parser of our own.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from numbers import Integral
from typing import NoReturn

from edgecal.errors import InputError

__all__ = [
    "QUESTION_COLUMNS",
    "DamagedFileError",
    "Fields",
    "Row",
    "Table",
    "as_list",
    "as_text",
    "column_key",
    "damaged",
    "fail",
    "is_blank",
    "line_of",
    "listed",
    "look_up",
    "parsed",
    "read_fields",
    "running_text",
    "subject_text",
    "whole_number",
]

Fields = Mapping[str, object]  # a row's values by the keys that `column_key` makes of its columns' names

# Keys by which a header of a table of questions is told from a first row of data.
QUESTION_COLUMNS = frozenset(
    """
    question questions prompt problem question_stem input query article tokens question_text stem ctx sentence goal
    premise instruction questiontext questionstem
    """.split()
)


class DamagedFileError(InputError):
    """A broken data file. Unlike a file that holds something else, it stops the reading of a folder: skipping it
    would lose questions."""


@dataclass(frozen=True)
class Row:
    """One row of a container.

    Attributes
    ----------
    where: its place, for messages.
    value: a dict where the row has keys or column names; a list of cells where there is no header.
    flaw: why the row cannot be used, found while decoding; None if it was decoded cleanly.
    subject: the subject by which the file groups the row, for rows that name none; None if it groups none.
    """

    where: str
    value: object
    flaw: str | None = None
    subject: str | None = None


@dataclass(frozen=True)
class Table:
    """A decoded file.

    Attributes
    ----------
    rows: its rows in order.
    container: `"json"`, `"delimited"` or `"columnar"`.
    note: what of the file was left out, or None.
    """

    rows: Sequence[Row]
    container: str
    note: str | None = None


@lru_cache(maxsize=4096)
def column_key(name: Hashable) -> str:
    """The form in which column names are compared: lower case, with underscores for blanks and hyphens."""
    return str(name).strip().lower().replace(" ", "_").replace("-", "_")


def fail(where: str, reason: str) -> NoReturn:
    """Refuses a row or a file: raises InputError("where: reason"), with all control characters replaced."""
    raise InputError(_one_line(f"{where}: {reason}"))


def damaged(where: str, reason: str) -> NoReturn:
    """Refuses a broken file: as `fail`, but raises DamagedFileError."""
    raise DamagedFileError(_one_line(f"{where}: {reason}"))


def listed(texts: Sequence[str], most: int) -> str:
    """The first texts with commas between them, and how many more there are."""
    n_more = len(texts) - most
    return ", ".join(texts[:most]) + (f" and {n_more} more" if n_more > 0 else "")


def line_of(text: str, position: int) -> int:
    """The line number, from 1, of a position in the text."""
    return text.count("\n", 0, position) + 1


def _one_line(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text)


_WHOLE = re.compile(r"[+-]?\d{1,9}(?:\.0+)?")


def read_fields(value: object) -> dict[str, object] | None:
    """A row's values by `column_key`; of two columns with the same key the first is used.

    A question that is an object, such as AI2's `{"stem": ..., "choices": ...}`, is flattened into the row; also with
    "text" instead of "stem".

    Returns
    -------
    None if the row has no keys.
    """
    if not isinstance(value, dict):
        return None
    keys = list(map(column_key, value))
    fields: dict[str, object] = dict(zip(keys, value.values(), strict=True))
    if len(fields) < len(keys):
        fields = dict(zip(reversed(keys), reversed(value.values()), strict=True))
    held = fields.get("question")
    nested = parsed(held) if isinstance(held, str) and held.startswith("{") else held
    if isinstance(nested, Mapping) and ("stem" in nested or "text" in nested):
        del fields["question"]
        for key, item in nested.items():
            name = column_key(key)
            fields.setdefault("question" if name in ("stem", "text") else name, item)
    return fields


def look_up(value: object, path: str) -> object:
    """The value under a column name, or under a path such as `doc.answer.key`; None if there is none."""
    while isinstance(value, Mapping):
        if path in value:
            return value[path]
        by_key = {column_key(key): item for key, item in value.items()}
        if column_key(path) in by_key:
            return by_key[column_key(path)]
        head, dot, path = path.partition(".")
        value = by_key.get(column_key(head)) if dot else None
        value = parsed(value)
    if isinstance(value, (list, tuple)):
        head, _, rest = path.partition(".")
        inside = value[int(head)] if head.isdecimal() and int(head) < len(value) else None
        return look_up(inside, rest) if rest else inside
    return None


def is_blank(value: object) -> bool:
    """Whether a cell is empty: null, a text of blanks, or NaN, which tables hold where there is no value."""
    if type(value) is str:
        return not value or value.isspace()
    return value is None or (isinstance(value, str) and not value.strip()) or value != value


def whole_number(value: object) -> int | None:
    """The integer that a value is or spells (`3`, `3.0`, `"3"`), else None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        return int(float(value)) if _WHOLE.fullmatch(value.strip()) else None
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, float):
        return int(value) if math.isfinite(value) and value == int(value) else None
    return None


def as_text(value: object, what: str, where: str) -> str:
    """The text without surrounding blanks; numbers and booleans become texts.

    Raises
    ------
    InputError: the value is empty, or of another type.
    """
    if isinstance(value, str) and (text := value.strip()):
        return text
    if is_blank(value):
        fail(where, f"{what} is empty")
    if not isinstance(value, (int, float)):
        fail(where, f"{what} must be a text, got {value!r:.60}")
    return str(value)


def running_text(value: object, what: str, where: str) -> str:
    """A text, or a list of sentences or turns joined by line breaks; empty where there is none.

    Raises
    ------
    InputError: the value is of another type.
    """
    held = parsed(value) if isinstance(value, str) and value.lstrip()[:2] in ("['", '["') else value
    if isinstance(held, (list, tuple)):
        parts = [running_text(item, what, where) for item in held]
        return "\n".join(part for part in parts if part)
    return "" if is_blank(held) else as_text(held, what, where)


def subject_text(value: object) -> str | None:
    """The subject without surrounding blanks, or None."""
    return value.strip() if isinstance(value, str) and value.strip() else None


def parsed(value: object) -> object:
    """A list or an object that a table holds as printed text, parsed; any other value unchanged."""
    if isinstance(value, str):
        held = _parse_printed(value)
        return value if held is None else held
    return value


def as_list(value: object, what: str, where: str) -> list[object]:
    """A list, parsed first where a table holds it as printed text.

    Raises
    ------
    InputError: the value is not a list.
    """
    held = parsed(value)
    if isinstance(held, (list, tuple)):
        return list(held)
    fail(where, f"{what} must be a list, got {'nothing' if is_blank(value) else f'{value!r:.60}'}")


_STRING = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
_WORD = re.compile(r"[^\s,:\[\](){}'\"]+")
_GAP = re.compile(r"[\s,:]*")
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
_SIMPLE_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", '"': '"', "\n": ""}
_CLOSING = {"[": "]", "(": ")", "{": "}"}
_MAX_DEPTH = 20


def _parse_printed(text: str) -> list[object] | dict[str, object] | None:
    """The list or dict that was printed as this text (its numbers remain texts), or None if none was."""
    text = text.strip()
    if text[:1] not in ("[", "{", "("):
        return None
    try:
        value = json.loads(text, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        pass
    else:
        return value if isinstance(value, (list, dict)) else None
    try:
        value, end = _value(text, 0, 0)
    except ValueError:
        return None
    return value if end == len(text) and isinstance(value, (list, dict)) else None


def _value(text: str, position: int, depth: int) -> tuple[object, int]:
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deep")
    character = text[position : position + 1]
    if character in _CLOSING:
        return _group(text, position, depth)
    if character in ("'", '"'):
        match = _STRING.match(text, position)
        if not match:
            raise ValueError("a quote is not closed")
        return _string(match.group()), match.end()
    match = _WORD.match(text, position)
    if not match:
        raise ValueError("no value")
    word = match.group()
    if word == "array" and text[match.end() : match.end() + 1] == "(":
        # array([...], dtype=object): only the first argument matters
        items, end = _group(text, match.end(), depth)
        if isinstance(items, list) and items:
            return items[0], end
        raise ValueError("an empty array()")
    return {"None": None, "null": None, "nan": None}.get(word, word), match.end()


def _group(text: str, position: int, depth: int) -> tuple[object, int]:
    closing = _CLOSING[text[position]]
    items = []
    end = _skip_gap(text, position + 1)
    while text[end : end + 1] != closing:
        item, end = _value(text, end, depth + 1)
        items.append(item)
        end = _skip_gap(text, end)
    if closing != "}":
        return items, end + 1
    if len(items) % 2:
        raise ValueError("a key without a value")
    return {str(key): item for key, item in zip(items[::2], items[1::2], strict=True)}, end + 1


def _string(quoted: str) -> str:
    return _ESCAPE.sub(_unescape, quoted[1:-1]) if "\\" in quoted else quoted[1:-1]


def _unescape(match: re.Match[str]) -> str:
    escape = match.group(1)
    if len(escape) > 1:
        code = int(escape[1:], 16)
        return chr(code) if code < 0x110000 else match.group()
    return _SIMPLE_ESCAPES.get(escape, match.group())


def _skip_gap(text: str, position: int) -> int:
    match = _GAP.match(text, position)
    return match.end() if match else position
