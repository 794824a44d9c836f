"""Decodes JSON and JSON Lines to rows that know their line.

An array is decoded element by element, so that each row knows where it starts, and a fault such as a repeated key or a
number of a thousand digits spoils only its own row. NaN, which pandas writes for a missing value, is null.

One object may also hold a whole table, as pandas' `to_json` or a dump of a dict of columns writes it:

    {"question": {"0": "...", "1": "..."}, "answer": {...}}     columns, then rows
    {"0": {"question": "...", "answer": ...}, "1": {...}}        rows by number or name
    {"columns": ["question", ...], "data": [["...", ...], ...]}  names once, then rows
    {"question": ["...", "..."], "answer": [...]}                columns as lists
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

from edgecal.data.decoded_rows import QUESTION_COLUMNS, Row, Table, column_key, fail, line_of
from edgecal.data.sources import SPLIT_ORDER, SPLITS

__all__ = ["read_json_text"]

# Keys under which files keep their rows: SQuAD's, BIG-Bench Hard's, our own, and those of the Hub's viewer.
_WRAPPERS = ("data", "examples", "questions", "rows")
_BLANK = re.compile(r"[ \t\r\n]*")
_MAX_DIGITS = 1000
_SAMPLE_LINES = 20


def read_json_text(name: str, text: str, wanted: frozenset[str] = frozenset()) -> Table:
    """Decodes JSON or JSON Lines.

    A single object may be a row; hold rows in a list under "data", "examples", "questions", "rows" or its only key;
    hold lists of rows by subject or by split; or hold a table (see above). `{"row": {...}}` around a row is removed.
    `wanted` is that of `read_table`.

    Raises
    ------
    InputError: the text as a whole is not valid JSON; the message has the line.
    """
    decoder = _Decoder()
    start = _skip_blank(text, 0)
    note = None
    if _is_json_lines(text, start, decoder):
        rows = _lines(name, text, decoder)
    elif text[start] == "[":
        rows = _array(name, text, start, decoder)
    else:
        value, end, flaw = _decode(name, text, start, decoder)
        if _skip_blank(text, end) < len(text):
            rows = _objects(name, text, start, decoder)
        elif (wrapper := _wrapper(value)) is not None:
            rows = _array(name, text, _find_value(text, start, wrapper, decoder), decoder, inside=True)
        elif (columns := _read_columns(value, wanted)) is not None:
            rows = (Row(f"{name}, row {number}", row, flaw) for number, row in enumerate(columns, start=1))
        elif sections := _sections(value, QUESTION_COLUMNS | wanted):
            splits = [
                split for split in SPLIT_ORDER if any(SPLITS.get(key.lower()) == split for key in sections)
            ]
            if len(sections) == sum(key.lower() in SPLITS for key in sections):
                sections = [key for key in sections if SPLITS[key.lower()] == splits[0]]
                note = f"{name}: of its splits ({', '.join(splits)}) {splits[0]} is read"
            rows = _in_sections(name, text, start, sections, decoder, are_subjects=note is None)
        else:
            rows = iter([Row(f"{name}, line {line_of(text, start)}", value, flaw)])
    return Table([_unwrap(row) for row in rows], "json", note)


class _Decoder:
    """Python's JSON decoder, except that a fault that spoils only one row is returned beside the value."""

    def __init__(self) -> None:
        self._flaw: str | None = None
        self._raw_decode = json.JSONDecoder(
            object_pairs_hook=self._object, parse_constant=self._constant, parse_int=self._integer
        ).raw_decode

    def decode(self, text: str, position: int) -> tuple[object, int, str | None]:
        """The value that starts at a position, where it ends, and its flaw.

        Raises
        ------
        json.JSONDecodeError: the text is not JSON.
        RecursionError: the value is nested too deep.
        """
        self._flaw = None
        value, end = self._raw_decode(text, position)
        return value, end, self._flaw

    def _object(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        made = dict(pairs)
        if len(made) < len(pairs):
            seen: set[str] = set()
            for key, _ in pairs:
                if key in seen:
                    self._flaw = f"holds the key {key!r:.60} twice"
                seen.add(key)
        return made

    def _constant(self, name: str) -> float | None:
        return None if name == "NaN" else float(name)

    def _integer(self, digits: str) -> int:
        if len(digits) > _MAX_DIGITS:
            self._flaw = f"holds a number of {len(digits)} digits"
            return 0
        return int(digits)


def _is_json_lines(text: str, start: int, decoder: _Decoder) -> bool:
    """Whether there is more than one line and at least half of the first ones are objects of their own."""
    lines = 0
    objects = 0
    position = start
    while position < len(text) and lines < _SAMPLE_LINES:
        end = text.find("\n", position)
        end = len(text) if end < 0 else end
        line = text[position:end].strip()
        position = end + 1
        if not line:
            continue
        lines += 1
        if lines == 1 and not text[position:].strip():
            return False
        if line[0] == "{" and line[-1] == "}":
            try:
                value, stop, _ = decoder.decode(line, 0)
            except (ValueError, RecursionError):
                continue
            objects += stop == len(line) and isinstance(value, dict)
    return objects * 2 >= lines


def _lines(name: str, text: str, decoder: _Decoder) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        content = line.strip(" \t\r\ufeff")
        if not content:
            continue
        where = f"{name}, line {number}"
        try:
            value, end, flaw = decoder.decode(content, 0)
        except (ValueError, RecursionError) as error:
            yield Row(
                where, None, f"not valid JSON ({_reason(error)}); expected one JSON object on each line"
            )
            continue
        if end < len(content):
            flaw = "not valid JSON (Extra data); expected one JSON object on each line"
        yield Row(where, value, flaw)


def _array(name: str, text: str, position: int, decoder: _Decoder, *, inside: bool = False) -> Iterator[Row]:
    """The elements of the array that starts at the position. `inside` another value, text may follow it."""
    line, counted = line_of(text, position), position
    position = _skip_blank(text, position + 1)
    first = True
    while text[position : position + 1] != "]":
        if not first:
            if text[position : position + 1] != ",":
                _refuse(name, text, position, "a comma or ] is missing")
            position = _skip_blank(text, position + 1)
        first = False
        line, counted = line + text.count("\n", counted, position), position
        value, end, flaw = _decode(name, text, position, decoder)
        yield Row(f"{name}, line {line}", value, flaw)
        position = _skip_blank(text, end)
    position = _skip_blank(text, position + 1)
    if not inside and position < len(text):
        _refuse(name, text, position, "more text after the end of the array")


def _objects(name: str, text: str, position: int, decoder: _Decoder) -> Iterator[Row]:
    """Values one after another, without an array around them."""
    while position < len(text):
        value, end, flaw = _decode(name, text, position, decoder)
        yield Row(f"{name}, line {line_of(text, position)}", value, flaw)
        position = _skip_blank(text, end)


def _in_sections(
    name: str, text: str, start: int, keys: list[str], decoder: _Decoder, *, are_subjects: bool
) -> Iterator[Row]:
    """The rows in the lists under some keys of the object at `start`."""
    for key in keys:
        for row in _array(name, text, _find_value(text, start, key, decoder), decoder, inside=True):
            yield replace(row, subject=key) if are_subjects else row


def _decode(name: str, text: str, position: int, decoder: _Decoder) -> tuple[object, int, str | None]:
    try:
        return decoder.decode(text, position)
    except (ValueError, RecursionError) as error:
        _refuse(name, text, getattr(error, "pos", position), _reason(error))


def _sections(value: object, text_columns: frozenset[str]) -> list[str]:
    """The keys of an object's lists of rows; empty if it holds anything else but plain values beside them."""
    if not isinstance(value, dict):
        return []
    held = {key: item for key, item in value.items() if isinstance(item, list)}
    if len(held) < 2 or any(isinstance(item, dict) for item in value.values()):
        return []
    rows = [row for item in held.values() for row in item]
    are_rows = all(isinstance(row, dict) for row in rows) and {
        column_key(key) for row in rows[:1] for key in row
    }
    return list(held) if are_rows and are_rows & text_columns else []


def _wrapper(value: object) -> str | None:
    if not isinstance(value, dict):
        return None
    for key in value if len(value) == 1 else _WRAPPERS:
        held = value.get(key)
        if isinstance(held, list) and (not held or isinstance(held[0], dict)):
            return key
    return None


def _find_value(text: str, position: int, wanted: str, decoder: _Decoder) -> int:
    """Where the last value of a key starts in the object at the position, which is known to be valid JSON."""
    found = -1
    position = _skip_blank(text, position + 1)
    while text[position] != "}":
        key, position, _ = decoder.decode(text, position)
        position = _skip_blank(text, _skip_blank(text, position) + 1)  # past the colon
        if key == wanted:
            found = position
        _, position, _ = decoder.decode(text, position)
        position = _skip_blank(text, position)
        if text[position] == ",":
            position = _skip_blank(text, position + 1)
    return found


def _unwrap(row: Row) -> Row:
    """Removes the Hub viewer's `{"row_idx": ..., "row": {...}, "truncated_cells": [...]}` around a row."""
    value = row.value
    if not isinstance(value, dict) or not isinstance(value.get("row"), dict):
        return row
    cut = value.get("truncated_cells")
    flaw = f"the viewer cut off its cells {cut!r:.60}; download the whole file" if cut else None
    return replace(row, value=value["row"], flaw=row.flaw or flaw)


def _skip_blank(text: str, position: int) -> int:
    match = _BLANK.match(text, position)
    return match.end() if match else position


def _refuse(name: str, text: str, position: int, reason: str) -> NoReturn:
    fail(f"{name}, line {line_of(text, position)}", f"not valid JSON ({reason})")


def _reason(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "nested too deep"
    return error.msg if isinstance(error, json.JSONDecodeError) else str(error)


def _read_columns(value: object, wanted: frozenset[str]) -> list[dict[str, Any]] | None:
    """The rows of an object that holds a table, in order; None if it holds something else, such as one row."""
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
    return any(column_key(name) in QUESTION_COLUMNS | wanted for name in names)


def _has_texts(value: Mapping[str, list[Any]], wanted: frozenset[str]) -> bool:
    """Whether a column of questions holds texts, and not the tokens of one prompt."""
    return any(
        bool(column) and all(isinstance(item, (str, dict)) for item in column)
        for name, column in value.items()
        if column_key(name) in QUESTION_COLUMNS | wanted
    )
