"""Reads data sets: files and folders to questions, and what did not fit to reasons.

Ties the parts together: which files, which container, which format, one row after the other.
Does not know any format's details.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgecal.data.columns import SUBJECT_KEYS, from_mmlu_cells
from edgecal.data.containers import read_table
from edgecal.data.delimited import column_key
from edgecal.data.fields import Context, Fields, subject_text
from edgecal.data.files import find_sources, read_bytes, subject_of
from edgecal.data.formats import FORMAT_TABLE, FORMATS, Format
from edgecal.data.model import DamagedFileError, Data, Row, SkippedRow, Table, fail
from edgecal.errors import InputError
from edgecal.prompts import Prompt, Question

__all__ = ["read_data"]

_SAMPLE_ROWS = 64
_MAX_SHOWN = 12
_MAX_CHARACTERS = 1_000_000
_MAX_SUBJECT = 200
_HUB_MMLU = ["question", "subject", "choices", "answer"]


def read_data(
    paths: Sequence[str | Path],
    *,
    format: str | None = None,
    strict: bool = False,
    seed: int = 0,
    subjects: Sequence[str] = (),
) -> Data:
    """Reads multiple-choice questions from files and folders.

    Parameters
    ----------
    paths: files, folders, or `-` for standard input. JSON, JSON Lines, CSV, TSV or Parquet, whatever the
        suffix. Of a folder with several splits the test split is judged, or, if its answers are hidden, the
        validation split.
    format: one of `FORMATS` for all files; None: recognised for each file by its keys or columns.
    strict: refuse the first row that does not fit instead of counting it.
    seed: for formats that list the right option first, whose options are shuffled.
    subjects: keep only these, compared without case; empty: all.

    Returns
    -------
    The records in order, each with its place as `source`, and the rows that were skipped.

    Raises
    ------
    InputError: a file cannot be understood as a whole, no row is left, a subject is not there, or, if
        `strict`, a row does not fit; one line with the place.
    """
    if isinstance(paths, (str, Path)):
        paths = [paths]
    if format is not None and format not in FORMAT_TABLE:
        raise InputError(f"no data format {format!r:.40}; there are: {', '.join(FORMATS)}")
    if not paths:
        raise InputError("no data: expected at least one file or folder")
    total, worked = _Part(), _Part()
    for source in find_sources(paths):
        total.notes += source.notes

        def read(files: Sequence[str], is_folder: bool = source.is_folder) -> _Part:
            return _read_files(files, format, strict=strict, seed=seed, is_folder=is_folder)

        judged = read(source.files)
        if source.next_best and all(record.answer is None for record in judged.records):
            judged = read(source.next_best)
        total.add(judged)
        if source.dev and set(judged.formats) == {"mmlu"}:
            worked.add(read([path for path in source.dev if path not in judged.files]))
    if not total.records:
        first = total.skipped[0]
        raise InputError(f"{first.where}: {first.reason} (0 of {len(total.skipped)} rows could be read)")
    skipped = total.skipped + worked.skipped
    return Data(
        records=tuple(_of_subjects(total.records, subjects)),
        skipped=tuple(row for row in skipped if _is_of(row.subject, subjects)),
        worked=tuple(
            record for record in worked.records if isinstance(record, Question) and record.answer is not None
        ),
        files=tuple(total.files + worked.files),
        formats=tuple(total.formats + worked.formats),
        notes=(*total.notes, *worked.notes, *_note_untold(skipped, subjects)),
    )


@dataclass
class _Part:
    records: list[Question | Prompt] = field(default_factory=list)
    skipped: list[SkippedRow] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    formats: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, other: _Part) -> None:
        self.records += other.records
        self.skipped += other.skipped
        self.files += other.files
        self.formats += other.formats
        self.notes += other.notes


def _read_files(
    paths: Sequence[str], format: str | None, *, strict: bool, seed: int, is_folder: bool
) -> _Part:
    """Reads the files that one path names. In a folder those that hold no questions are named and left out, unless
    none does."""
    total = _Part()
    strays: list[InputError] = []
    for path in paths:
        name = "standard input" if path == "-" else path
        name = name if name.isprintable() else repr(name)
        try:
            table = read_table(name, read_bytes(path))
            rows = [(row, _fields(row.value)) for row in table.rows]
            kind = format or _recognise(name, table, rows)
        except DamagedFileError:
            raise
        except InputError as error:
            if not is_folder:
                raise
            strays.append(error)
            continue
        part = _convert_rows(path, name, table, rows, kind, strict=strict, seed=seed)
        if is_folder and not part.records:
            first = part.skipped[0]
            reason = (
                f"none of its {len(part.skipped)} rows is a question that fits: {first.where}: {first.reason}"
            )
            strays.append(InputError(f"{name}: {reason}"))
            continue
        total.add(part)
    if strays and not total.files:
        raise strays[0]
    total.notes += [f"{error} (the file was left out)" for error in strays]
    return total


def _convert_rows(
    path: str,
    name: str,
    table: Table,
    rows: list[tuple[Row, Fields | None]],
    kind: str,
    *,
    strict: bool,
    seed: int,
) -> _Part:
    entry = FORMAT_TABLE[kind]
    part = _Part(files=[path], formats=[kind])
    part.notes += [table.note] if table.note else []
    base: int | None = 0
    if entry.find_base:
        base, note = entry.find_base(fields for row, fields in rows if fields and not row.flaw)
        part.notes += [f"{name}: {note}"] if note else []
    file_subject = subject_of(path, entry.tasks) if entry.subject_in_name or entry.tasks else None
    context = Context("", seed, base, file_subject, table.container == "json")
    for row, fields in rows:
        subject = row.subject or file_subject
        for where, outcome in _outcomes(row, fields, entry, replace(context, subject=subject)):
            if not isinstance(outcome, InputError):
                part.records.append(
                    replace(outcome, subject=row.subject) if outcome.subject is None else outcome
                )
            elif strict:
                raise outcome
            else:
                reason = str(outcome).removeprefix(f"{where}: ")
                part.skipped.append(SkippedRow(where, reason, _told_subject(fields) or subject))
    return part


def _told_subject(fields: Fields | None) -> str | None:
    """What a row that does not fit says of its subject."""
    return next((text for key in SUBJECT_KEYS if (text := subject_text((fields or {}).get(key)))), None)


def _fields(value: object) -> Fields | None:
    """The keys as they are compared; of keys that then are the same the first is kept."""
    if not isinstance(value, Mapping):
        return None
    fields: dict[str, object] = {}
    for key, item in value.items():
        fields.setdefault(column_key(key), item)
    return fields


def _recognise(name: str, table: Table, rows: list[tuple[Row, Fields | None]]) -> str:
    """The format that most of the first rows are of."""
    usable = [row for row, _ in rows if not row.flaw]
    if usable and isinstance(usable[0].value, list) and table.container == "delimited":
        return "mmlu"
    sample = [fields for row, fields in rows if fields is not None and not row.flaw][:_SAMPLE_ROWS]
    votes = Counter(
        next((kind for kind, entry in FORMAT_TABLE.items() if entry.recognise(fields)), "")
        for fields in sample
    )
    del votes[""]
    if votes:
        kind = votes.most_common(1)[0][0]
        # the Hub's MMLU has our own columns, which then tell themselves by their order alone
        hub_mmlu = kind == "edgecal" and list(sample[0]) == _HUB_MMLU
        return "mmlu" if hub_mmlu else kind
    if not sample:
        first = rows[0][0]
        fail(first.where, first.flaw or f"expected a JSON object with a question, got {first.value!r:.60}")
    first_value = next(row.value for row, fields in rows if fields is sample[0])
    found = list(first_value) if isinstance(first_value, Mapping) else []
    shown = ", ".join(f"{key!r:.40}" for key in found[:_MAX_SHOWN])
    shown += f" and {len(found) - _MAX_SHOWN} more" if len(found) > _MAX_SHOWN else ""
    what = "keys" if table.container == "json" else "columns"
    fail(
        name,
        f"no known data set has the {what} {shown or '(none)'}; rename them to question, choices (a list) and answer, "
        "or question, A, B, C, D and answer",
    )


def _outcomes(
    row: Row, fields: Fields | None, entry: Format, context: Context
) -> Iterator[tuple[str, Question | Prompt | InputError]]:
    """What becomes of a row: its question, or several, or why not; each with its place."""
    try:
        if row.flaw:
            fail(row.where, row.flaw)
        parts: list[tuple[str, Fields | None]] = [(row.where, fields)]
        if fields is not None and entry.expand:
            parts = list(entry.expand(fields, row.where))
    except InputError as error:
        yield row.where, error
        return
    for where, one in parts:
        yield where, _outcome(row, one, entry, replace(context, where=where, record=row.value))


def _outcome(
    row: Row, fields: Fields | None, entry: Format, context: Context
) -> Question | Prompt | InputError:
    try:
        return _check(_convert(row, fields, entry, context))
    except InputError as error:
        return error


def _convert(row: Row, fields: Fields | None, entry: Format, context: Context) -> Question | Prompt:
    if fields is not None:
        return entry.convert(fields, context)
    if isinstance(row.value, list) and entry is FORMAT_TABLE["mmlu"] and not context.from_json:
        return from_mmlu_cells(row.value, context)
    if isinstance(row.value, list) and not context.from_json:
        fail(row.where, "the file has no header with the columns' names, which this format needs")
    fail(row.where, f"expected a JSON object, got {row.value!r:.60}")


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
