"""One JSON object that holds a whole table, as pandas' `to_json` writes it unless it is told otherwise, and as a
dict of columns is dumped.

    {"question": {"0": "...", "1": "..."}, "answer": {...}}     columns, then rows
    {"0": {"question": "...", "answer": ...}, "1": {...}}        rows by number or name
    {"columns": ["question", ...], "data": [["...", ...], ...]}  names once
    {"question": ["...", "..."], "answer": [...]}                lists

Knows the columns that tell a question; not what they mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgecal.data.delimited import TEXT_COLUMNS, column_key

__all__ = ["read_columns"]


def read_columns(value: object, wanted: frozenset[str] = frozenset()) -> list[dict[str, Any]] | None:
    """The rows of an object that is a table, in order; None if it is something else, such as one row.

    `wanted` names columns that are there, beside those that tell a question.
    """
    if not isinstance(value, dict) or not value:
        return None
    names, data = value.get("columns"), value.get("data")
    if isinstance(names, list) and isinstance(data, list) and _has_text_column(names, wanted):
        if all(isinstance(row, list) and len(row) == len(names) for row in data):
            return [dict(zip(map(str, names), row, strict=True)) for row in data]
        return None
    held = list(value.values())
    if all(isinstance(item, dict) for item in held):
        return _from_dicts(value, wanted)
    if all(isinstance(item, list) and len(item) == len(held[0]) for item in held) and _has_texts(
        value, wanted
    ):
        return [dict(zip(value, row, strict=True)) for row in zip(*held, strict=True)]
    return None


def _from_dicts(
    value: Mapping[str, Mapping[str, Any]], wanted: frozenset[str]
) -> list[dict[str, Any]] | None:
    first = next(iter(value.values()))
    if not first:
        return None
    if _has_text_column(list(value), wanted):
        if len(value) < 2 or not all(column.keys() == first.keys() for column in value.values()):
            return None
        return [{name: column[row] for name, column in value.items()} for row in first]
    return [dict(row) for row in value.values()] if _has_text_column(list(first), wanted) else None


def _has_text_column(names: Sequence[object], wanted: frozenset[str]) -> bool:
    return any(column_key(name) in TEXT_COLUMNS | wanted for name in names)


def _has_texts(value: Mapping[str, list[Any]], wanted: frozenset[str]) -> bool:
    """Whether a column of questions holds texts, and not one question's tokens."""
    return any(
        bool(column) and all(isinstance(item, (str, dict)) for item in column)
        for name, column in value.items()
        if column_key(name) in TEXT_COLUMNS | wanted
    )
