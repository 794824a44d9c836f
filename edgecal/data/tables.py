"""From a file to its questions, answers aside: recognises the format, gives the columns their roles, reads row by row.

Knows neither folders nor what answers mean.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgecal.data.containers import read_table
from edgecal.data.delimited import column_key
from edgecal.data.fields import Fields, read_fields, subject_text
from edgecal.data.files import read_bytes, subject_of
from edgecal.data.formats import FORMAT_TABLE, Format
from edgecal.data.mapping import Told
from edgecal.data.model import Row, Table, fail
from edgecal.data.records import Asked, read_prompt, read_record, take_off_labels
from edgecal.data.roles import SUBJECT_KEYS, Roles, find_roles
from edgecal.data.settle import Outcome, TableOfQuestions
from edgecal.errors import InputError
from edgecal.prompts import LABEL_LETTERS

__all__ = ["MAPPED", "read_questions", "read_rows"]

MAPPED = "mapped"
_SAMPLE_ROWS = 64
_MAX_SHOWN = 12
_ONLY_MAPPED = Format(lambda fields: False)


def read_questions(path: str, format: str | None, told: Told | None, *, seed: int) -> TableOfQuestions:
    """Reads a file's rows as questions whose answers are still to be decided.

    Parameters
    ----------
    path: the file, or `-`.
    format: a name from `FORMATS`, or None to recognise it.
    told: what the user says of its columns.
    seed: of the order of options that come with the right one first.

    Raises
    ------
    InputError: the file cannot be understood as a whole.
    """
    name = "standard input" if path == "-" else path
    name = name if name.isprintable() else repr(name)
    table = read_table(name, read_bytes(path), told.names if told else ())
    return read_rows(path, name, table, format, told, seed=seed)


def read_rows(
    path: str, name: str, table: Table, format: str | None, told: Told | None, *, seed: int
) -> TableOfQuestions:
    """The same of rows that are there already; `path` says of their subject what a file's name does."""
    if told:
        told.check(name, [row.value for row in table.rows])
    rows = [(row, read_fields(row.value)) for row in table.rows]
    kind = format or _recognise(name, table, rows, told)
    if format is not None and not told:
        _check_format(name, format, [fields for row, fields in rows if fields is not None and not row.flaw])
    entry = FORMAT_TABLE.get(kind, _ONLY_MAPPED)
    parts = [
        (where, row, one)
        for row, fields in rows
        for where, one in _shaped(row, fields, table, kind, entry, told)
    ]
    given = {**entry.given, **(told.given if told else {})}
    roles = find_roles([fields for _, _, fields in parts if not isinstance(fields, InputError)], given)
    file_subject = subject_of(path, entry.tasks) if entry.subject_in_name or entry.tasks else None
    outcomes = [
        _outcome(where, row, fields, roles, seed, row.subject or file_subject) for where, row, fields in parts
    ]
    bases = {
        entry.base(fields) for _, _, fields in parts[:_SAMPLE_ROWS] if not isinstance(fields, InputError)
    }
    base = bases.pop() if len(bases) == 1 else None
    spelling = _spelling([row.value for row in table.rows], roles)
    notes = [table.note] if table.note else []
    return TableOfQuestions(path, name, kind, base, roles, spelling, _look_at(outcomes), notes, {})


def _spelling(values: Sequence[object], roles: Roles | None) -> dict[str, str]:
    """The columns' own names by their keys, as far as they have a role."""
    wanted = (
        set() if roles is None else {roles.question, roles.right, *roles.wrong, *roles.options, *roles.unused}
    )
    wanted |= set() if roles is None else {*roles.passages, *roles.answers}
    wanted.discard(None)
    found: dict[str, str] = {}
    for value in values:
        if wanted <= found.keys():
            break
        for key in value if isinstance(value, Mapping) else ():
            found.setdefault(column_key(key), str(key))
    return found


def _recognise(name: str, table: Table, rows: Sequence[tuple[Row, Fields | None]], told: Told | None) -> str:
    """The format that most of the first rows are of."""
    if told and ("question" in told.paths or "options" in told.paths):
        return MAPPED
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
        return votes.most_common(1)[0][0]
    if told and told.paths:
        return MAPPED
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
        "or say which is what: --map question=...,options=...,answer=...",
    )


def _check_format(name: str, format: str, rows: Sequence[Fields]) -> None:
    if rows and not any(map(FORMAT_TABLE[format].recognise, rows[:_SAMPLE_ROWS])):
        fail(name, f"none of its first rows is of the format {format}; leave the format out, or name another")


def _shaped(
    row: Row, fields: Fields | None, table: Table, kind: str, entry: Format, told: Told | None
) -> list[tuple[str, Fields | InputError]]:
    """The questions' values in a row, each with its place; or why there are none."""
    try:
        if row.flaw:
            fail(row.where, row.flaw)
        if fields is None:
            if not isinstance(row.value, list) or table.container == "json":
                fail(row.where, f"expected a JSON object, got {row.value!r:.60}")
            if kind != "mmlu":
                fail(row.where, "the file has no header with the columns' names, which this format needs")
            fields = _cells(row.value, row.where)
        parts = list(entry.shape(fields, row.where)) if entry.shape else [(row.where, fields)]
    except InputError as error:
        return [(row.where, error)]
    return [(where, {**one, **told.fields(row.value)} if told else one) for where, one in parts]


def _cells(cells: Sequence[str], where: str) -> Fields:
    """A row of MMLU's own files, which have no header: question, options, letter."""
    question, *options, letter = cells
    if len(options) < 2:
        fail(where, f"has {len(cells)} columns, expected a question, its options and a letter")
    return {"question": question, **dict(zip(LABEL_LETTERS.lower(), options, strict=False)), "answer": letter}


def _outcome(
    where: str, row: Row, fields: Fields | InputError, roles: Roles | None, seed: int, subject: str | None
) -> Outcome:
    if isinstance(fields, InputError):
        return where, row.subject or subject, fields
    own = next((text for key in SUBJECT_KEYS if (text := subject_text(fields.get(key)))), subject)
    try:
        prompt = read_prompt(fields, where)
        if prompt is not None:
            return where, own, prompt if prompt.subject else replace(prompt, subject=subject)
        if roles is None:
            fail(where, "expected a question with its options, or a prompt with its labels")
        asked = read_record(fields, roles, where, seed=seed, subject=subject)
    except InputError as error:
        return where, own, error
    return where, asked.subject, asked


def _look_at(outcomes: list[Outcome]) -> list[Outcome]:
    """Takes labels off the options, and looks at the answers."""
    asked = [(index, item) for index, (_, _, item) in enumerate(outcomes) if isinstance(item, Asked)]
    for (index, _), item in zip(asked, take_off_labels([item for _, item in asked]), strict=True):
        where, subject, _ = outcomes[index]
        outcomes[index] = where, subject, _spelled(item, where)
    return outcomes


def _spelled(asked: Asked | None, where: str) -> Asked | InputError:
    try:
        if asked is None:
            fail(where, "its options carry letters, and some between them are missing")
        asked.look_at_answers()
        return asked
    except InputError as error:
        return error
