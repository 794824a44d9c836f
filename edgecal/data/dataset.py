"""Reads data sets: from files, folders and Python records to questions, and to reasons why rows do not fit.

First every file is read (`raw_questions`), then the gold answers of all files are decided together (`gold_answers`),
and only then is each row checked as a `Question` or a `Prompt`.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from edgecal.data.column_map import ColumnMap, read_column_map
from edgecal.data.decoded_rows import DamagedFileError, fail, listed
from edgecal.data.gold_answers import decide_gold_answers, describe_decisions
from edgecal.data.layouts import FORMATS, LAYOUTS
from edgecal.data.raw_questions import Outcome, QuestionTable, RawQuestion, read_file, read_python_records
from edgecal.data.sources import Source, find_sources
from edgecal.errors import InputError
from edgecal.prompts import Prompt, Question, parse_record

__all__ = ["Data", "SkippedRow", "read_data"]

_MAX_SHOWN = 12
_MAX_CHARACTERS = 1_000_000
_MAX_SUBJECT = 200
# Data sets whose dev split is meant for worked examples.
_WITH_WORKED = frozenset(("mmlu", "cmmlu", "ceval", "kmmlu", "arabicmmlu"))


@dataclass(frozen=True)
class SkippedRow:
    """A row that does not fit.

    Attributes
    ----------
    where: `"path, line 7"`, or `"path, row 7"` in Parquet, Arrow and JSON objects of columns, where a row has no line
        of its own. Both count from 1.
    reason: why it does not fit, in one line.
    subject: the row's subject, or None where it is not known.
    """

    where: str
    reason: str
    subject: str | None = None


@dataclass(frozen=True)
class Data:
    """What was read.

    Attributes
    ----------
    records: the questions and prompts, in the order of the files and of their rows.
    skipped: the rows that do not fit, in the same order.
    worked: questions for worked examples, which are never evaluated: the dev split of MMLU and its like, or what
        `worked_from` named.
    files: every file that was read; those of `worked` come last.
    formats: the format of each file, a name from `FORMATS`, or "mapped".
    notes: remarks, such as on a split that was left out; one line each.
    decisions: what was decided for the data set as a whole, one line each, such as "answers counted from 0; options
        from choice0 to choice3; passage from context".
    """

    records: tuple[Question | Prompt, ...]
    skipped: tuple[SkippedRow, ...] = ()
    worked: tuple[Question, ...] = ()
    files: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    decisions: tuple[str, ...] = ()


@contextmanager
def _without_collector() -> Iterator[None]:
    """Switches off the cyclic garbage collector: reading makes many small objects but no cycles, and the collector's
    search for some took half the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@_without_collector()
def read_data(
    paths: Sequence[str | Path],
    *,
    format: str | None = None,
    strict: bool = False,
    seed: int = 0,
    subjects: Sequence[str] = (),
    mapping: Mapping[str, object] | None = None,
    worked_from: str | Path | None = None,
    python_records: Sequence[tuple[str, object]] = (),
) -> Data:
    """Reads multiple-choice questions from files, folders and Python records.

    Columns are recognised by their names in any usual spelling. What answers mean (a letter, a number counted from 0 or
    from 1, a text) is decided from all rows of all files of the same layout.

    Parameters
    ----------
    paths: files, folders, or `-` for standard input: JSON, JSON Lines, CSV, TSV, Parquet or Arrow, whatever the
        suffix. Of a folder with several splits the test split is read or, if its answers are withheld, the
        validation split.
    format: one of `FORMATS` for all files; None recognises each file's by its keys or columns.
    strict: refuse the first row that does not fit, instead of counting it.
    seed: shuffles the options of layouts that put the right one first.
    subjects: keep only these, whatever their case; empty keeps all.
    mapping: what the columns are, where their names do not tell: `question`, `options`, `labels`, `answer`, `passage`
        and `subject`, each a column's name or a path such as `doc.question` (several for options and passage), and
        `answer-base`: 0, 1, "label" or "text".
    worked_from: a file or folder of worked examples, instead of a folder's dev split. What their answers mean is
        decided together with the others.
    python_records: dicts, `Question` and `Prompt` objects, each with its place. They come after the files' records.
        Dicts are read as rows of a file; objects are taken as they are.

    Returns
    -------
    The records in order, each with its place as `source`, and the skipped rows.

    Raises
    ------
    InputError: a file as a whole cannot be understood, its answers can be read in two ways, no row fits, no question
        has a wanted subject, or, if `strict`, a row does not fit. One line, with the place.
    """
    if isinstance(paths, (str, Path)):
        paths = [paths]
    if format is not None and format not in LAYOUTS:
        raise InputError(f"unknown data format {format!r:.40}; the formats are: {', '.join(FORMATS)}")
    if not paths and not python_records:
        raise InputError("no data: expected at least one file or folder")
    column_map = read_column_map(mapping)

    def read(files: Sequence[str], is_folder: bool) -> tuple[list[QuestionTable], list[str]]:
        return _read_files(files, format, column_map, seed=seed, is_folder=is_folder)

    judged: list[QuestionTable] = []
    worked: list[QuestionTable] = []
    notes: list[str] = []
    sources = find_sources(paths)
    for source in sources:
        tables, strays = read(source.files, source.is_folder)
        if source.next_best and not any(table.has_gold for table in tables):
            tables, strays = read(source.next_best, True)
        judged += tables
        notes += (*source.notes, *strays)
        if worked_from is None and source.dev and {table.layout for table in tables} <= _WITH_WORKED:
            seen = {table.path for table in tables}
            tables, strays = read([path for path in source.dev if path not in seen], True)
            worked += tables
            notes += strays
    if python_records:
        judged.append(read_python_records(python_records, format, column_map, seed=seed))
    for source in () if worked_from is None else find_sources([worked_from]):
        files = [*source.files, *source.dev]
        tables, strays = _read_files(files, None, column_map, seed=seed, is_folder=source.is_folder)
        worked += tables
        notes += strays
    answer_base = column_map.answer_base if column_map else None
    try:
        decide_gold_answers([*judged, *worked], answer_base)
    except InputError:
        # The other splits may show what the answers count from.
        seen = {table.path for table in (*judged, *worked)}
        made = [
            _read_one(path, format, column_map, seed=seed, is_folder=True) for path in _unread(sources, seen)
        ]
        others = [table for table in made if not isinstance(table, InputError)]
        if not others:
            raise
        decide_gold_answers([*judged, *worked], answer_base, others)
    records, skipped = _finish(judged, strict)
    examples, skipped_examples = _finish(worked, strict)
    if not records:
        first = skipped[0]
        raise InputError(f"{first.where}: {first.reason} (0 of {len(skipped)} rows could be read)")
    skipped += skipped_examples
    tables = [*judged, *worked]
    notes += [note for table in tables for note in table.notes]
    return Data(
        records=tuple(_of_subjects(records, subjects)),
        skipped=tuple(row for row in skipped if _is_of(row.subject, subjects)),
        worked=tuple(item for item in examples if isinstance(item, Question) and item.answer is not None),
        files=tuple(table.path for table in tables if table.path),
        formats=tuple(table.layout for table in tables if table.path),
        notes=(*notes, *_note_unused(tables), *_note_unknown_subjects(skipped, subjects)),
        decisions=tuple(describe_decisions(tables)),
    )


def _read_files(
    paths: Sequence[str], format: str | None, column_map: ColumnMap | None, *, seed: int, is_folder: bool
) -> tuple[list[QuestionTable], list[str]]:
    """Reads the files that one path names. Of a folder, files without questions are left out and reported, unless no
    file has any."""
    tables: list[QuestionTable] = []
    strays: list[InputError] = []
    for path in paths:
        made = _read_one(path, format, column_map, seed=seed, is_folder=is_folder)
        if isinstance(made, InputError):
            strays.append(made)
        else:
            tables.append(made)
    if strays and not tables:
        raise strays[0]
    return tables, [f"{error} (the file was left out)" for error in strays]


def _read_one(
    path: str, format: str | None, column_map: ColumnMap | None, *, seed: int, is_folder: bool
) -> QuestionTable | InputError:
    """A file's questions; or, for a file that lies in a folder, why it holds none."""
    try:
        table = read_file(path, format, column_map, seed=seed)
        errors = [outcome for _, _, outcome in table.outcomes if isinstance(outcome, InputError)]
        if is_folder and len(errors) == len(table.outcomes):
            fail(table.name, f"none of its {len(errors)} rows is a question that fits: {errors[0]}")
    except DamagedFileError:
        raise
    except InputError as error:
        if not is_folder:
            raise
        return error
    return table


def _unread(sources: Sequence[Source], seen: set[str]) -> list[str]:
    return [
        path
        for source in sources
        for path in (*source.files, *source.dev, *source.next_best)
        if path not in seen
    ]


def _finish(
    tables: Sequence[QuestionTable], strict: bool
) -> tuple[list[Question | Prompt], list[SkippedRow]]:
    """The questions and the rows that do not fit; if `strict`, the first of these is raised."""
    records: list[Question | Prompt] = []
    skipped: list[SkippedRow] = []
    for table in tables:
        for outcome in table.outcomes:
            made = _made(outcome)
            if not isinstance(made, InputError):
                records.append(made)
            elif strict:
                raise made
            else:
                where, subject, _ = outcome
                skipped.append(SkippedRow(where, str(made).removeprefix(f"{where}: "), subject))
    return records, skipped


def _made(outcome: Outcome) -> Question | Prompt | InputError:
    where, _, item = outcome
    if isinstance(item, InputError):
        return item
    try:
        return _check(_record(where, item))
    except InputError as error:
        return error


def _record(where: str, item: RawQuestion | Question | Prompt) -> Question | Prompt:
    if isinstance(item, RawQuestion):
        values = {
            "question": item.question,
            "choices": item.options.texts,
            "answer": item.gold,
            "subject": item.subject,
            "passage": item.passage,
            "inclusion_probability": item.inclusion_probability,
        }
        return parse_record(values, where)
    return item


def _check(record: Question | Prompt) -> Question | Prompt:
    """Refuses what would break later: absurdly long texts, and subjects that are too long or not valid Unicode. Strips
    the subject."""
    if isinstance(record, Question):
        texts = (record.question, *record.choices, record.passage or "")
    else:
        texts = (record.text or "",)
    length = sum(map(len, texts))
    if length > _MAX_CHARACTERS:
        fail(record.source, f"has {length} characters, more than {_MAX_CHARACTERS}")
    if record.subject is None:
        return record
    subject = record.subject.strip()
    try:
        subject.encode()
    except UnicodeEncodeError:
        fail(record.source, "the subject holds half of a surrogate pair, which is not valid text")
    if len(subject) > _MAX_SUBJECT:
        fail(
            record.source,
            f"the subject has {len(subject)} characters, more than {_MAX_SUBJECT}; give a short name",
        )
    return record if subject and subject == record.subject else replace(record, subject=subject or None)


def _note_unused(tables: Sequence[QuestionTable]) -> list[str]:
    """Notes on text columns that no model is shown; one note for all files with the same ones."""
    by_columns: dict[tuple[str, ...], list[str]] = {}
    for table in tables:
        if table.roles is not None and table.roles.unused:
            unused = tuple(table.column_name(key) for key in table.roles.unused)
            by_columns.setdefault(unused, []).append(table.name)
    return [
        f"{listed(names, 1)}: not shown to the model: {listed([f'{name!r:.40}' for name in unused], _MAX_SHOWN)}"
        " (--map passage=... puts a column before the questions; --map answer=... names the answers' column)"
        for unused, names in by_columns.items()
    ]


def _of_subjects(records: list[Question | Prompt], subjects: Sequence[str]) -> list[Question | Prompt]:
    if not subjects:
        return records
    there = {record.subject.casefold(): record.subject for record in records if record.subject is not None}
    for subject in subjects:
        if subject.casefold() not in there:
            known = listed(sorted(there.values()), _MAX_SHOWN)
            raise InputError(
                f"no question has the subject {subject!r:.60}; "
                + (f"the subjects are: {known}" if known else "none has a subject")
            )
    return [record for record in records if _is_of(record.subject, subjects)]


def _is_of(subject: str | None, subjects: Sequence[str]) -> bool:
    """Whether a subject is one of those wanted; empty wants all."""
    folded = None if subject is None else subject.casefold()
    return not subjects or folded in {wanted.casefold() for wanted in subjects}


def _note_unknown_subjects(skipped: Sequence[SkippedRow], subjects: Sequence[str]) -> list[str]:
    """A note if rows that do not fit might be of a wanted subject, but do not name theirs."""
    unknown = [row for row in skipped if row.subject is None] if subjects else []
    return [
        f"{len(unknown)} rows do not fit, and their subject is unknown: {row.where}: {row.reason}"
        for row in unknown[:1]
    ]
