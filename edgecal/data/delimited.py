"""CSV, TSV and their kin: from a text to rows that know the line where they start.

Python's csv module swallows the rest of the file after a quote that is never closed, and cannot tell where a
row started. This reader blames the row whose quote is at fault and goes on with the next line.
Knows which column names questions come with, so as to find the delimiter and the header; not what they mean.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import TypeAlias

from edgecal.data.model import Row, fail

__all__ = ["TEXT_COLUMNS", "column_key", "first_record", "read_delimited_text"]

_DELIMITERS = ("\t", ",", ";", "|")
_MAX_FIELD = 1_000_000
_MAX_NAME = 60
_SAMPLE_RECORDS = 50
_NAME = re.compile(r"[\w .:#\[\]()/-]{0,30}")
_EXCEL_SEPARATOR = re.compile(r"sep=[,;|\t]\r?\n")
TEXT_COLUMNS = frozenset(
    """
    question questions prompt problem question_stem input query article tokens question_text stem ctx sentence goal
    premise instruction questiontext questionstem
    """.split()
)


@dataclass(frozen=True)
class _Record:
    line: int
    cells: list[str]
    flaw: str | None = None


_Read: TypeAlias = Callable[[str, Iterator[_Record]], list[Row]]


@lru_cache(maxsize=4096)
def column_key(name: Hashable) -> str:
    """How column names and keys are compared: lower case, blanks and hyphens as underscores."""
    return str(name).strip().lower().replace(" ", "_").replace("-", "_")


def read_delimited_text(name: str, text: str, wanted: frozenset[str] = frozenset()) -> list[Row] | None:
    """Decodes a text of delimited columns.

    Rows become dicts if there is a header with a known text column or one of those that are `wanted`; lists of
    cells if there is none but most rows end in an option's letter (as MMLU's files do); dicts by the columns'
    numbers from 1 if numbers are wanted; and else dicts if all rows are as wide as a first one of names.

    Returns
    -------
    The rows, or None if the text is neither.

    Raises
    ------
    InputError: the header holds a name twice.
    """
    delimiter, read = _sniff(text, wanted)
    return read(name, _records(text, delimiter)) if read is not None else None


def first_record(text: str) -> list[str]:
    """The cells of the first row, split at commas or tabs: what to show of a file that is not understood."""
    delimiter = max(_DELIMITERS, key=text[: text.find("\n")].count)
    for record in _records(text, delimiter):
        return record.cells
    return []


def _sniff(text: str, wanted: frozenset[str]) -> tuple[str, _Read | None]:
    """The delimiter, and what reads the records; None if nothing does."""
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
    """How well the first records of a text fit together as a table, and what reads it."""
    names = {column_key(cell) for cell in sample[0].cells}
    width = len(sample[0].cells)
    numbers = {name for name in wanted if name.isdecimal()}
    if len(names) > 1 and (names & (TEXT_COLUMNS | (wanted - numbers)) or (wanted and wanted <= names)):
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
    """Whether a first row names the columns of rows that end in a letter: short words, the last one too."""
    first = sample[0]
    return (
        not _ends_in_letter(first.cells)
        and all(map(_NAME.fullmatch, first.cells))
        and len(first.cells[-1].strip()) > 1
        and first.cells[-1].strip()[0].isalpha()
    )


def _are_names(record: _Record) -> bool:
    """Whether cells may be a header: short, and none but the first empty."""
    return not record.flaw and all(0 < len(cell.strip()) <= _MAX_NAME for cell in record.cells[1:])


def _ends_in_letter(cells: list[str]) -> bool:
    """Whether cells may be a question, two options or more, and the letter of one of them."""
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
    """Rows whose columns are called 1, 2, 3, ..."""
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
    # where most rows are of one width, another width is a comma too many, and not another number of options
    is_even = n_rows * 2 > widths.total()
    rows = []
    for record in held:
        flaw = record.flaw
        if flaw is None and len(record.cells) != width and (is_even or not _ends_in_letter(record.cells)):
            flaw = f"has {len(record.cells)} columns, {'most' if is_even else 'many'} rows of the file have {width}"
        rows.append(Row(f"{name}, line {record.line}", record.cells, flaw))
    return rows


def _drop_numbering(held: list[_Record]) -> list[_Record]:
    """Without the column of row numbers, and the row of column numbers, that pandas puts before a table."""
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
    """Splits a text into records; blank lines, rows of empty cells and Excel's first line `sep=;` are passed over."""
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
    """The cells of a record with quotes and where the next record starts, or what is wrong with it."""
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
            elif delimiter != "\t":  # in TSV a quote is often just a quote
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
    """The position of the quote that closes a column, -1 if there is none within the longest column allowed."""
    limit = position + _MAX_FIELD
    while True:
        position = text.find('"', position, limit)
        if position < 0 or text[position + 1 : position + 2] != '"':
            return position
        position += 2
