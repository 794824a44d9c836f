"""Values as tables and JSON hold them: blanks, numbers, texts and lists, and a row's keys as they are compared.

Knows neither formats nor roles.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from numbers import Integral

from edgecal.data.delimited import column_key
from edgecal.data.literals import parse_list_text
from edgecal.data.model import fail

__all__ = [
    "Fields",
    "as_list",
    "as_text",
    "is_blank",
    "look_up",
    "parsed",
    "read_fields",
    "running_text",
    "subject_text",
    "whole_number",
]

Fields = Mapping[str, object]

_WHOLE = re.compile(r"[+-]?\d{1,9}(?:\.0+)?")


def read_fields(value: object) -> dict[str, object] | None:
    """A row's values by their keys as these are compared; of keys that then are the same the first is kept.

    A question that is an object, `{"stem": ..., "choices": ...}` as AI2 writes it, is taken apart; also with "text".

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
    """What a row holds under a name, or under a path such as `doc.answer.key`; None if nothing."""
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
    """Whether a cell is empty: null, a text of blanks, or the NaN that tables have for nothing."""
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
    """A text without the blanks around it; numbers and truth values become texts.

    Raises
    ------
    InputError: it is something else, or empty.
    """
    if isinstance(value, str) and (text := value.strip()):
        return text
    if is_blank(value):
        fail(where, f"{what} is empty")
    if not isinstance(value, (int, float)):
        fail(where, f"{what} must be a text, got {value!r:.60}")
    return str(value)


def running_text(value: object, what: str, where: str) -> str:
    """A text, also one that is kept as a list of its sentences or turns; empty where there is none.

    Raises
    ------
    InputError: it is something else.
    """
    held = parsed(value) if isinstance(value, str) and value.lstrip()[:2] in ("['", '["') else value
    if isinstance(held, (list, tuple)):
        parts = [running_text(item, what, where) for item in held]
        return "\n".join(part for part in parts if part)
    return "" if is_blank(held) else as_text(held, what, where)


def subject_text(value: object) -> str | None:
    """The subject, or None where there is none."""
    return value.strip() if isinstance(value, str) and value.strip() else None


def parsed(value: object) -> object:
    """A list or an object, also from the text that a table's column keeps of it; anything else as it is."""
    if isinstance(value, str):
        held = parse_list_text(value)
        return value if held is None else held
    return value


def as_list(value: object, what: str, where: str) -> list[object]:
    """A list, also from the text that a table's column keeps of it.

    Raises
    ------
    InputError: it is no list.
    """
    held = parsed(value)
    if isinstance(held, (list, tuple)):
        return list(held)
    fail(where, f"{what} must be a list, got {'nothing' if is_blank(value) else f'{value!r:.60}'}")
