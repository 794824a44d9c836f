"""What reading data gives: records and what was left out, and the rows that stand between bytes and records.

Does not know containers or formats.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from edgecal.errors import InputError
from edgecal.prompts import Prompt, Question

__all__ = ["DamagedFileError", "Data", "Row", "SkippedRow", "Table", "damaged", "fail", "line_of"]


class DamagedFileError(InputError):
    """A file that certainly holds data, and is broken: leaving it aside would lose questions."""


@dataclass(frozen=True)
class SkippedRow:
    """A row that does not fit.

    Attributes
    ----------
    where: `"path, line 7"`; in Parquet and in JSON that holds columns, where a row has no line,
        `"path, row 7"`. Both count from 1.
    reason: one line.
    subject: the row's subject, where it could be told.
    """

    where: str
    reason: str
    subject: str | None = None


@dataclass(frozen=True)
class Data:
    """What was read.

    Attributes
    ----------
    records: the questions and prompts, in the order of the files and of the rows in them.
    skipped: the rows that did not fit, in the same order.
    worked: the questions of the `dev` split of an MMLU-like folder and those that were given as such: worked
        examples, never evaluated.
    files: every file that was read; those of `worked` come last.
    formats: the format of each file, a name from `FORMATS`.
    notes: remarks of one line each, such as a split that was left out.
    decisions: what was decided for the data set as a whole, of one line each, such as "answers counted from 0;
        options from choice0 to choice3; passage from context".
    """

    records: tuple[Question | Prompt, ...]
    skipped: tuple[SkippedRow, ...] = ()
    worked: tuple[Question, ...] = ()
    files: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    decisions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """One row of a container.

    Attributes
    ----------
    where: its place, for messages.
    value: what it holds; a dict for rows with keys or columns, a list of cells where there is no header.
    flaw: why the row cannot be used, found while decoding; None if it was decoded cleanly.
    subject: what the container says of it, for rows that say nothing themselves; None if it says nothing.
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


def fail(where: str, reason: str) -> NoReturn:
    """Refuses a row or a file: raises `InputError("where: reason")`, on one line whatever the data hold."""
    raise InputError(_one_line(f"{where}: {reason}"))


def damaged(where: str, reason: str) -> NoReturn:
    """Refuses a file as `fail` does, as one that is broken."""
    raise DamagedFileError(_one_line(f"{where}: {reason}"))


def line_of(text: str, position: int) -> int:
    """The line, from 1, in which a character of the text stands."""
    return text.count("\n", 0, position) + 1


def _one_line(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text)
