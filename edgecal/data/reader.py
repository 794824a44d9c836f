"""Reads data sets: files and folders to questions, and what did not fit to reasons.

Ties the parts together: which files, each file's questions, and then what the answers of all of them mean.
Does not know any format's details.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from edgecal.data.files import Source, find_sources
from edgecal.data.formats import FORMAT_TABLE, FORMATS
from edgecal.data.given import read_given
from edgecal.data.mapping import Told, read_mapping
from edgecal.data.model import DamagedFileError, Data, SkippedRow, fail
from edgecal.data.records import Asked
from edgecal.data.settle import Outcome, TableOfQuestions, decisions_of, settle
from edgecal.data.tables import read_questions
from edgecal.errors import InputError
from edgecal.prompts import Prompt, Question, parse_record

__all__ = ["read_data"]

_MAX_SHOWN = 12
_MAX_CHARACTERS = 1_000_000
_MAX_SUBJECT = 200
_WITH_WORKED = frozenset(("mmlu", "cmmlu", "ceval", "kmmlu", "arabicmmlu"))


@contextmanager
def _without_collector() -> Iterator[None]:
    """No search for cycles: reading makes many small objects and no cycle, and the search took half the time."""
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
    given: Sequence[tuple[str, object]] = (),
) -> Data:
    """Reads multiple-choice questions from files and folders, and from records that came from Python.

    Columns get their roles by their names, whatever their spelling; what answers mean (a letter, a number from 0 or
    from 1, a text) is decided once for all files of a make, from all their rows.

    Parameters
    ----------
    paths: files, folders, or `-` for standard input. JSON, JSON Lines, CSV, TSV, Parquet or Arrow, whatever the
        suffix. Of a folder with several splits the test split is judged, or, if its answers are hidden, the
        validation split.
    format: one of `FORMATS` for all files; None: recognised for each file by its keys or columns.
    strict: refuse the first row that does not fit instead of counting it.
    seed: for formats that list the right option first, whose options are shuffled.
    subjects: keep only these, compared without case; empty: all.
    mapping: what the columns are, where their names do not tell: `question`, `options`, `labels`, `answer`,
        `passage`, `subject`, each a column's name or a path such as `doc.question` (options and passages may be
        several), and `answer-base`: 0, 1, "label" or "text".
    worked_from: a file or folder of worked examples, instead of a folder's `dev` split; what their answers mean is
        decided together with the others.
    given: records as dicts, `Question` and `Prompt` objects, each with its place; they come after the files' and are
        read as the same rows of a file are. What answers of objects mean is not asked.

    Returns
    -------
    The records in order, each with its place as `source`, and the rows that were skipped.

    Raises
    ------
    InputError: a file cannot be understood as a whole, its answers can be read in two ways, no row is left, a
        subject is not there, or, if `strict`, a row does not fit; one line with the place.
    """
    if isinstance(paths, (str, Path)):
        paths = [paths]
    if format is not None and format not in FORMAT_TABLE:
        raise InputError(f"no data format {format!r:.40}; there are: {', '.join(FORMATS)}")
    if not paths and not given:
        raise InputError("no data: expected at least one file or folder")
    told = read_mapping(mapping)

    def read(files: Sequence[str], is_folder: bool) -> tuple[list[TableOfQuestions], list[str]]:
        return _read_files(files, format, told, seed=seed, is_folder=is_folder)

    judged: list[TableOfQuestions] = []
    worked: list[TableOfQuestions] = []
    notes: list[str] = []
    sources = find_sources(paths)
    for source in sources:
        tables, strays = read(source.files, source.is_folder)
        if source.next_best and not any(table.has_answers for table in tables):
            tables, strays = read(source.next_best, True)
        judged += tables
        notes += (*source.notes, *strays)
        if worked_from is None and source.dev and {table.kind for table in tables} <= _WITH_WORKED:
            seen = {table.path for table in tables}
            tables, strays = read([path for path in source.dev if path not in seen], True)
            worked += tables
            notes += strays
    if given:
        judged.append(read_given(given, format, told, seed=seed))
    for source in () if worked_from is None else find_sources([worked_from]):
        files = [*source.files, *source.dev]
        tables, strays = _read_files(files, None, told, seed=seed, is_folder=source.is_folder)
        worked += tables
        notes += strays
    reading = told.reading if told else None
    try:
        settle([*judged, *worked], reading)
    except InputError:
        # the splits that are not read otherwise may show what answers count from
        seen = {table.path for table in (*judged, *worked)}
        made = [_read_one(path, format, told, seed=seed, is_folder=True) for path in _unread(sources, seen)]
        others = [table for table in made if not isinstance(table, InputError)]
        if not others:
            raise
        settle([*judged, *worked], reading, others)
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
        formats=tuple(table.kind for table in tables if table.path),
        notes=(*notes, *_note_unused(tables), *_note_untold(skipped, subjects)),
        decisions=tuple(decisions_of(tables)),
    )


def _read_files(
    paths: Sequence[str], format: str | None, told: Told | None, *, seed: int, is_folder: bool
) -> tuple[list[TableOfQuestions], list[str]]:
    """Reads the files that one path names. In a folder those that hold no questions are named and left out, unless
    none does."""
    tables: list[TableOfQuestions] = []
    strays: list[InputError] = []
    for path in paths:
        made = _read_one(path, format, told, seed=seed, is_folder=is_folder)
        if isinstance(made, InputError):
            strays.append(made)
        else:
            tables.append(made)
    if strays and not tables:
        raise strays[0]
    return tables, [f"{error} (the file was left out)" for error in strays]


def _read_one(
    path: str, format: str | None, told: Told | None, *, seed: int, is_folder: bool
) -> TableOfQuestions | InputError:
    """A file's questions; or, in a folder, why it holds none."""
    try:
        table = read_questions(path, format, told, seed=seed)
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
    tables: Sequence[TableOfQuestions], strict: bool
) -> tuple[list[Question | Prompt], list[SkippedRow]]:
    """The questions with their answers, and the rows that do not fit; the first of these is an error if `strict`."""
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
        return _check(_recorded(where, item))
    except InputError as error:
        return error


def _recorded(where: str, item: Asked | Question | Prompt) -> Question | Prompt:
    if isinstance(item, Asked):
        values = {
            "question": item.question,
            "choices": item.shown.texts,
            "answer": item.right,
            "subject": item.subject,
            "passage": item.passage,
        }
        return parse_record(values, where)
    return item


def _check(record: Question | Prompt) -> Question | Prompt:
    """What would break later: absurdly long texts, subjects that are no names, and half characters in them.

    A subject loses the blanks around it; one of blanks alone is none.
    """
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
        fail(record.source, "the subject holds half of a surrogate pair, which is no text")
    if len(subject) > _MAX_SUBJECT:
        fail(
            record.source, f"the subject has {len(subject)} characters, more than {_MAX_SUBJECT}; give a name"
        )
    return record if subject and subject == record.subject else replace(record, subject=subject or None)


def _note_unused(tables: Sequence[TableOfQuestions]) -> list[str]:
    """A note on columns that no model is shown, once for files of which it says the same."""
    by_columns: dict[tuple[str, ...], list[str]] = {}
    for table in tables:
        if table.roles is not None and table.roles.unused:
            unused = tuple(table.spelling.get(key, key) for key in table.roles.unused)
            by_columns.setdefault(unused, []).append(table.name)
    return [
        f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: no model is shown "
        + ", ".join(f"{column!r:.40}" for column in unused[:_MAX_SHOWN])
        + (f" and {len(unused) - _MAX_SHOWN} more" if len(unused) > _MAX_SHOWN else "")
        + " (--map passage=... puts a column before the questions, answer=... names the answers)"
        for unused, names in by_columns.items()
    ]


def _of_subjects(records: list[Question | Prompt], subjects: Sequence[str]) -> list[Question | Prompt]:
    if not subjects:
        return records
    there = {record.subject.casefold(): record.subject for record in records if record.subject is not None}
    for subject in subjects:
        if subject.casefold() not in there:
            names = sorted(there.values())
            listed = ", ".join(names[:_MAX_SHOWN]) + (
                f" and {len(names) - _MAX_SHOWN} more" if len(names) > _MAX_SHOWN else ""
            )
            raise InputError(
                f"no question has the subject {subject!r:.60}; "
                + (f"there are: {listed}" if names else "none has a subject")
            )
    return [record for record in records if _is_of(record.subject, subjects)]


def _is_of(subject: str | None, subjects: Sequence[str]) -> bool:
    """Whether a subject is one of those that are wanted; every one is if none is named."""
    folded = None if subject is None else subject.casefold()
    return not subjects or folded in {wanted.casefold() for wanted in subjects}


def _note_untold(skipped: Sequence[SkippedRow], subjects: Sequence[str]) -> list[str]:
    """One note if rows that do not fit may be of a wanted subject and do not say."""
    untold = [row for row in skipped if row.subject is None] if subjects else []
    return [
        f"{len(untold)} rows do not fit, and of which subject they are is not said: {row.where}: {row.reason}"
        for row in untold[:1]
    ]
