"""Decodes CSV, TSV and other delimited text to rows that know the line where they start.

Python's csv module swallows the rest of a file after a quote that is never closed, and does not tell where a row
starts. This reader reports the row with the faulty quote and continues with the next line. It knows the usual names
of question columns, by which it finds the delimiter and the header.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeAlias

from edgecal.data.decoded_rows import QUESTION_COLUMNS, Row, column_key, fail

__all__ = ["first_record", "read_delimited_text"]

_DELIMITERS = ("\t", ",", ";", "|")
_MAX_FIELD = 1_000_000
_MAX_NAME = 60
_SAMPLE_RECORDS = 50
_NAME = re.compile(r"[\w .:#\[\]()/-]{0,30}")
_EXCEL_SEPARATOR = re.compile(r"sep=[,;|\t]\r?\n")


@dataclass(frozen=True)
class _Record:
    line: int
    cells: list[str]
    flaw: str | None = None


_Read: TypeAlias = Callable[[str, Iterator[_Record]], list[Row]]


def read_delimited_text(name: str, text: str, wanted: frozenset[str] = frozenset()) -> list[Row] | None:
    """Decodes a delimited text.

    With a header that names a column of questions or one of those `wanted`, rows are dicts. Without one, rows are lists
    of cells if most of them end in an option's letter, as in MMLU's files; and dicts by column numbers from 1 if
    numbers are wanted. Otherwise the first row is taken for a header if it looks like one and all rows are as wide.

    Returns
    -------
    The rows, or None if the text is none of these.

    Raises
    ------
    InputError: the header names a column twice.
    """
    delimiter, read = _sniff(text, wanted)
    return read(name, _records(text, delimiter)) if read is not None else None


def first_record(text: str) -> list[str]:
    """The cells of the first row, to be shown in a message about a file that is not understood."""
    delimiter = max(_DELIMITERS, key=text[: text.find("\n")].count)
    for record in _records(text, delimiter):
        return record.cells
    return []


def _sniff(text: str, wanted: frozenset[str]) -> tuple[str, _Read | None]:
    """The delimiter, and the function that reads the records; None if the text is not a table of questions."""
    best: tuple[float, int, str, _Read | None] = (0.0, 0, "", None)
    for order, delimiter in enumerate(_DELIMITERS):
        sample = list(islice(_records(text, delimiter), _SAMPLE_RECORDS))
        if not sample:
            continue
        score, read = _judge(sample, wanted)
        if (score, -order) > best[:2] and score > 0:
            best = (score, -order, delimiter, read)
    return best[2:]


def _judge(sample: list[_Record], wanted: frozenset[str]) -> tuple[float, _Read]:
    """How well the first records fit together as a table, and the function that reads it."""
    names = {column_key(cell) for cell in sample[0].cells}
    width = len(sample[0].cells)
    numbers = {name for name in wanted if name.isdecimal()}
    if len(names) > 1 and (names & (QUESTION_COLUMNS | (wanted - numbers)) or (wanted and wanted <= names)):
        return 1.0 + len(names), _with_header
    if numbers and numbers == wanted:
        return (
            1.0 + width if 1 <= min(map(int, wanted)) <= max(map(int, wanted)) <= width else 0.0
        ), _numbered
    share = sum(_ends_in_letter(record.cells) for record in sample) / len(sample)
    if share >= 0.5 and not _heads_letters(sample):
        return share, _without_header
    is_even = len(sample) > 1 and all(len(record.cells) == width for record in sample)
    return (
        0.5 - 1 / (width + 1) if is_even and len(names) == width > 1 and _are_names(sample[0]) else 0.0
    ), _with_header


def _heads_letters(sample: list[_Record]) -> bool:
    """Whether the first row is a header over rows that end in a letter: short words, and no letter at its end."""
    first = sample[0]
    return (
        not _ends_in_letter(first.cells)
        and all(map(_NAME.fullmatch, first.cells))
        and len(first.cells[-1].strip()) > 1
        and first.cells[-1].strip()[0].isalpha()
    )


def _are_names(record: _Record) -> bool:
    """Whether a record may be a header: its cells are short, and none but the first is empty."""
    return not record.flaw and all(0 < len(cell.strip()) <= _MAX_NAME for cell in record.cells[1:])


def _ends_in_letter(cells: list[str]) -> bool:
    """Whether cells may be a question, at least two options, and the letter of one of them."""
    letter = cells[-1].strip().upper() if len(cells) >= 4 else ""
    return len(letter) == 1 and 0 <= ord(letter) - ord("A") < len(cells) - 2


def _with_header(name: str, records: Iterator[_Record]) -> list[Row]:
    header = next(records)
    where = f"{name}, line {header.line}"
    if header.flaw:
        fail(where, f"the header: {header.flaw}")
    columns = [cell.strip() for cell in header.cells]
    twice = [column for column, count in Counter(map(column_key, columns)).items() if count > 1 and column]
    if twice:
        fail(where, f"the column {twice[0]!r:.60} is there twice")
    rows = []
    for record in records:
        flaw = record.flaw
        cells = record.cells
        while len(cells) > len(columns) and not cells[-1].strip():
            cells.pop()
        if flaw is None and len(cells) != len(columns):
            flaw = f"has {len(cells)} columns, the header has {len(columns)}"
        rows.append(Row(f"{name}, line {record.line}", dict(zip(columns, cells, strict=False)), flaw))
    return rows


def _numbered(name: str, records: Iterator[_Record]) -> list[Row]:
    """Rows whose columns are named 1, 2, 3, ..."""
    return [
        Row(
            f"{name}, line {record.line}",
            {str(i): cell for i, cell in enumerate(record.cells, start=1)},
            record.flaw,
        )
        for record in records
    ]


def _without_header(name: str, records: Iterator[_Record]) -> list[Row]:
    held = _drop_numbering(list(records))
    widths = Counter(len(record.cells) for record in held if _ends_in_letter(record.cells))
    width, n_rows = widths.most_common(1)[0]
    # If most rows have one width, another width is a stray comma and not another number of options.
    is_even = n_rows * 2 > widths.total()
    rows = []
    for record in held:
        flaw = record.flaw
        if flaw is None and len(record.cells) != width and (is_even or not _ends_in_letter(record.cells)):
            flaw = f"has {len(record.cells)} columns, {'most' if is_even else 'many'} rows of the file have {width}"
        rows.append(Row(f"{name}, line {record.line}", record.cells, flaw))
    return rows


def _drop_numbering(held: list[_Record]) -> list[_Record]:
    """Removes the column of row numbers and the row of column numbers that pandas writes before a table."""
    body = held[1:] if len(held) > 1 and _counts_up(held[0].cells[1:]) else held
    if _counts_up([record.cells[0] for record in body]):
        body = [replace(record, cells=record.cells[1:]) for record in body]
    return body


def _counts_up(cells: list[str]) -> bool:
    """Whether cells are 0, 1, 2, ... or 1, 2, 3, ..."""
    start = cells[0].strip() if len(cells) > 1 else ""
    return start in ("0", "1") and all(
        cell.strip() == str(number) for number, cell in enumerate(cells, start=int(start))
    )


def _records(text: str, delimiter: str) -> Iterator[_Record]:
    """Splits a text into records, without blank lines, rows of empty cells, and Excel's first line `sep=;`."""
    match = _EXCEL_SEPARATOR.match(text)
    position = match.end() if match else 0
    line = 2 if match else 1
    while position < len(text):
        end = text.find("\n", position)
        end = len(text) if end < 0 else end
        raw = text[position:end]
        after = end + 1
        flaw = None
        if '"' in raw:
            split = _split_quoted(text, position, delimiter)
            if isinstance(split, str):
                cells, flaw = raw.rstrip("\r").split(delimiter), split
            else:
                cells, after = split
        else:
            cells = raw.rstrip("\r").split(delimiter)
        if flaw is None and "\0" in raw:
            flaw = "holds a NUL character; the file is damaged here"
        if flaw or any(cell and not cell.isspace() for cell in cells):
            yield _Record(line, cells, flaw)
        line += text.count("\n", position, after)
        position = after


def _split_quoted(text: str, position: int, delimiter: str) -> tuple[list[str], int] | str:
    """The cells of a record that has quotes, and where the next record starts; or what is wrong with the record."""
    cells = []
    while True:
        quote = position
        while text[quote : quote + 1] == " ":
            quote += 1
        cell: str | None = None
        if text[quote : quote + 1] == '"':
            closing = _find_closing(text, quote + 1)
            after = closing + 1
            while closing >= 0 and text[after : after + 1] in (" ", "\r"):
                after += 1
            if closing >= 0 and text[after : after + 1] in (delimiter, "\n", ""):
                cell = text[quote + 1 : closing].replace('""', '"')
                position = after
            elif delimiter != "\t":  # in TSV, a quote is often part of the text
                if closing < 0:
                    return "the quote that opens here is never closed"
                return f"the quote that opens here closes before {text[after : after + 10]!r}, not before a delimiter"
        if cell is None:
            line_end = text.find("\n", position)
            line_end = len(text) if line_end < 0 else line_end
            end = text.find(delimiter, position, line_end)
            end = line_end if end < 0 else end
            cell = text[position:end].rstrip("\r") if end == line_end else text[position:end]
            position = end
        cells.append(cell)
        if text[position : position + 1] != delimiter:
            return cells, position + 1
        position += 1


def _find_closing(text: str, position: int) -> int:
    """The position of the quote that closes a cell; -1 if there is none within the longest cell allowed."""
    limit = position + _MAX_FIELD
    while True:
        position = text.find('"', position, limit)
        if position < 0 or text[position + 1 : position + 2] != '"':
            return position
        position += 2
