"""Turns a file's rows into questions whose gold answers are not decided yet.

For a file: recognises the layout, reshapes each row, finds the columns' roles, and reads every row with them. Which
option is right can be decided only from all rows of all files together, so a `RawQuestion` keeps what its gold columns
hold; `gold_answers` decides. Records from Python are read as the same rows of a JSON Lines file.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral, Real

from edgecal.data.answer_options import Options, carried_labels, options_from_columns, read_options
from edgecal.data.column_map import ColumnMap
from edgecal.data.column_roles import SUBJECT_KEYS, Roles, find_roles
from edgecal.data.containers import read_table
from edgecal.data.decoded_rows import (
    Fields,
    Row,
    Table,
    as_list,
    as_text,
    column_key,
    fail,
    is_blank,
    listed,
    parsed,
    read_fields,
    running_text,
    subject_text,
    whole_number,
)
from edgecal.data.gold_readings import GoldReadings, read_gold
from edgecal.data.layouts import LAYOUTS, Layout
from edgecal.data.sources import read_bytes, subject_of
from edgecal.errors import InputError
from edgecal.prompts import LABEL_LETTERS, Prompt, Question, check_prompt, parse_record

__all__ = ["Outcome", "QuestionTable", "RawQuestion", "read_file", "read_python_records"]

_MAPPED = "mapped"  # the "format" of a file whose columns the user names
_MAPPED_LAYOUT = Layout(lambda fields: False)
_PADDING = "N/A"
_PROMPT_LISTS = ("labels", "tokens", "choice_tokens")
_SAMPLE_ROWS = 64
_MAX_SHOWN = 12
_RECORDS = "the records"


@dataclass(slots=True)
class RawQuestion:
    """A question whose gold answer may still be undecided.

    Attributes
    ----------
    question, passage, subject: as in `edgecal.prompts.Question`.
    options: its options.
    gold_cells: the gold columns and what this row holds in them.
    gold: the index of the right option; None until it is decided, unless the row marks the option itself.
    readings: by gold column, what its cell can mean; a column whose cell says nothing is not in it.
    inclusion_probability: as the row holds it, unchecked.
    """

    question: str
    passage: str | None
    subject: str | None
    options: Options
    gold_cells: tuple[tuple[str, object], ...]
    gold: int | None = None
    readings: dict[str, GoldReadings] = field(default_factory=dict)
    inclusion_probability: object = None

    def read_gold_cells(self) -> None:
        """Fills `readings`. Raises InputError where several options are marked as right."""
        for column, value in self.gold_cells:
            readings = read_gold(value, self.options)
            if readings is not None:
                self.readings[column] = readings


# A row's place; its subject, where it has one; and its question or prompt, or why it has none.
Outcome = tuple[str, str | None, RawQuestion | Question | Prompt | InputError]


@dataclass
class QuestionTable:
    """A file's questions.

    Attributes
    ----------
    path: the file; "" for records from Python.
    name: the file's name in messages.
    layout: a name in `LAYOUTS`, or "mapped" where the user names the columns.
    base: what the layout's authors count answers from, or None.
    roles: the columns' roles; None where every row is a ready-made prompt or does not fit.
    column_names: the columns' own names, by their keys.
    outcomes: what became of each row.
    notes: remarks on the file, one line each.
    decisions: what was decided about its gold answers, such as "answers counted from 0".
    """

    path: str
    name: str
    layout: str
    base: int | None
    roles: Roles | None
    column_names: dict[str, str]
    outcomes: list[Outcome]
    notes: list[str]
    decisions: list[str] = field(default_factory=list)

    @property
    def has_gold(self) -> bool:
        """Whether any row says which option is right."""
        return any(
            (outcome.gold is not None or bool(outcome.readings))
            if isinstance(outcome, RawQuestion)
            else isinstance(outcome, (Prompt, Question)) and outcome.answer is not None
            for _, _, outcome in self.outcomes
        )

    @property
    def kind(self) -> tuple[object, ...]:
        """The key of files whose gold answers are decided together."""
        return self.layout, self.roles.gold_columns if self.roles else ()

    def column_name(self, key: str) -> str:
        """The column's own name."""
        return self.column_names.get(key, key)

    def rows_with_gold(self, column: str) -> list[tuple[RawQuestion, GoldReadings]]:
        """The questions for which a gold column says anything."""
        return [
            (outcome, outcome.readings[column])
            for _, _, outcome in self.outcomes
            if isinstance(outcome, RawQuestion) and column in outcome.readings
        ]


def read_file(path: str, format: str | None, column_map: ColumnMap | None, *, seed: int) -> QuestionTable:
    """Reads a file's questions.

    Parameters
    ----------
    path: the file, or `-` for standard input.
    format: the name of its layout, or None to recognise it.
    column_map: what the user says of its columns.
    seed: shuffles the options of layouts that put the right one first.

    Raises
    ------
    InputError: the file as a whole cannot be understood.
    """
    name = "standard input" if path == "-" else path
    name = name if name.isprintable() else repr(name)
    table = read_table(name, read_bytes(path), column_map.names if column_map else ())
    return _read_rows(path, name, table, format, column_map, seed=seed)


def read_python_records(
    items: Sequence[tuple[str, object]], format: str | None, column_map: ColumnMap | None, *, seed: int
) -> QuestionTable:
    """Reads dicts as rows of JSON Lines, and takes `Question` and `Prompt` objects as they are.

    items: each with its place, for messages; an object of any other type is a row that does not fit. The other
    parameters and errors are those of `read_file`.
    """
    ready: dict[str, Outcome] = {}
    rows = []
    for where, item in items:
        if isinstance(item, (Question, Prompt)):
            ready[where] = _checked(where, item)
        else:
            rows.append(_record_row(where, item))
    table = QuestionTable("", _RECORDS, "edgecal", None, None, {}, [], [])
    if any(row.flaw is None for row in rows):
        table = _read_rows("", _RECORDS, Table(rows, "json"), format, column_map, seed=seed)
    else:
        ready |= {row.where: (row.where, None, InputError(f"{row.where}: {row.flaw}")) for row in rows}
    read = deque(table.outcomes)
    table.outcomes = []
    for where, _ in items:
        if where in ready:
            table.outcomes.append(ready[where])
        while read and f"{read[0][0]},".startswith(f"{where},"):  # a record may hold several questions
            table.outcomes.append(read.popleft())
    return table


def _read_rows(
    path: str, name: str, table: Table, format: str | None, column_map: ColumnMap | None, *, seed: int
) -> QuestionTable:
    if column_map:
        column_map.check(name, [row.value for row in table.rows])
    rows = [(row, read_fields(row.value)) for row in table.rows]
    kind = format or _recognise(name, table, rows, column_map)
    if format is not None and not column_map:
        _check_format(name, format, [fields for row, fields in rows if fields is not None and not row.flaw])
    layout = LAYOUTS.get(kind, _MAPPED_LAYOUT)
    parts = [
        (where, row, one)
        for row, fields in rows
        for where, one in _questions_of_row(row, fields, table, kind, layout, column_map)
    ]
    known_roles = {**layout.known_roles, **(column_map.known_roles if column_map else {})}
    roles = find_roles([fields for _, _, fields in parts if not isinstance(fields, InputError)], known_roles)
    file_subject = subject_of(path, layout.tasks) if layout.subject_in_name or layout.tasks else None
    outcomes = [
        _outcome(where, row, fields, roles, seed, row.subject or file_subject) for where, row, fields in parts
    ]
    bases = {
        layout.base_of(fields) for _, _, fields in parts[:_SAMPLE_ROWS] if not isinstance(fields, InputError)
    }
    base = bases.pop() if len(bases) == 1 else None
    column_names = _column_names([row.value for row in table.rows], roles)
    notes = [table.note] if table.note else []
    return QuestionTable(path, name, kind, base, roles, column_names, _with_readings(outcomes), notes)


def _column_names(values: Sequence[object], roles: Roles | None) -> dict[str, str]:
    """The own names of the columns that have a role, by their keys."""
    if roles is None:
        return {}
    wanted: set[str | None] = {roles.question, roles.gold_text, *roles.wrong, *roles.options, *roles.unused}
    wanted |= {*roles.passages, *roles.gold_columns}
    wanted.discard(None)
    found: dict[str, str] = {}
    for value in values:
        if wanted <= found.keys():
            break
        for key in value if isinstance(value, Mapping) else ():
            found.setdefault(column_key(key), str(key))
    return found


def _recognise(
    name: str,
    table: Table,
    rows: Sequence[tuple[Row, Fields | None]],
    column_map: ColumnMap | None,
) -> str:
    """The layout that recognises most of the first rows."""
    if column_map and ("question" in column_map.paths or "options" in column_map.paths):
        return _MAPPED
    usable = [row for row, _ in rows if not row.flaw]
    if usable and isinstance(usable[0].value, list) and table.container == "delimited":
        return "mmlu"
    sample = [fields for row, fields in rows if fields is not None and not row.flaw][:_SAMPLE_ROWS]
    votes = Counter(
        next((kind for kind, layout in LAYOUTS.items() if layout.recognise(fields)), "") for fields in sample
    )
    del votes[""]
    if votes:
        return votes.most_common(1)[0][0]
    if column_map and column_map.paths:
        return _MAPPED
    if not sample:
        first = rows[0][0]
        fail(first.where, first.flaw or f"expected a JSON object with a question, got {first.value!r:.60}")
    first_value = next(row.value for row, fields in rows if fields is sample[0])
    found = list(first_value) if isinstance(first_value, Mapping) else []
    shown = listed([f"{key!r:.40}" for key in found], _MAX_SHOWN)
    what = "keys" if table.container == "json" else "columns"
    fail(
        name,
        f"no known data set has the {what} {shown or '(none)'}; rename them to question, choices (a list) and answer, "
        "or say which is what: --map question=...,options=...,answer=...",
    )


def _check_format(name: str, format: str, rows: Sequence[Fields]) -> None:
    if rows and not any(map(LAYOUTS[format].recognise, rows[:_SAMPLE_ROWS])):
        fail(name, f"none of its first rows is of the format {format}; leave the format out, or name another")


def _questions_of_row(
    row: Row, fields: Fields | None, table: Table, kind: str, layout: Layout, column_map: ColumnMap | None
) -> list[tuple[str, Fields | InputError]]:
    """Place and values of each question in a row; or the row's place and why there is none."""
    try:
        if row.flaw:
            fail(row.where, row.flaw)
        if fields is None:
            if not isinstance(row.value, list) or table.container == "json":
                fail(row.where, f"expected a JSON object, got {row.value!r:.60}")
            if kind != "mmlu":
                fail(row.where, "the file has no header with column names, which this format needs")
            fields = _mmlu_cells(row.value, row.where)
        parts = list(layout.reshape(fields, row.where)) if layout.reshape else [(row.where, fields)]
    except InputError as error:
        return [(row.where, error)]
    return [(where, {**one, **column_map.fields(row.value)} if column_map else one) for where, one in parts]


def _mmlu_cells(cells: Sequence[str], where: str) -> Fields:
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
        prompt = _read_prompt(fields, where)
        if prompt is not None:
            return where, own, prompt if prompt.subject else replace(prompt, subject=subject)
        if roles is None:
            fail(where, "expected a question with its options, or a prompt with its labels")
        question = _read_question(fields, roles, where, seed=seed, subject=subject)
    except InputError as error:
        return where, own, error
    return where, question.subject, question


def _read_prompt(fields: Fields, where: str) -> Prompt | None:
    """The row's ready-made prompt, of text with labels or of tokens; None if it holds none.

    Raises
    ------
    InputError: the prompt breaks a rule of `edgecal.prompts.parse_record`.
    """
    is_text = not is_blank(fields.get("prompt")) and not is_blank(fields.get("labels"))
    if not is_text and is_blank(fields.get("tokens")) and is_blank(fields.get("choice_tokens")):
        return None
    keys = (*_PROMPT_LISTS, "prompt", "answer", "subject", "inclusion_probability")
    record = {key: fields[key] for key in keys if not is_blank(fields.get(key))}
    record |= {key: parsed(record[key]) for key in _PROMPT_LISTS if key in record}
    # -1 stands for an answer that is withheld, unless it is a label
    if whole_number(record.get("answer")) == -1 and "-1" not in as_list(
        record.get("labels", []), "labels", where
    ):
        del record["answer"]
    prompt = parse_record(record, where)
    assert isinstance(prompt, Prompt)
    return prompt


def _read_question(
    fields: Fields, roles: Roles, where: str, *, seed: int, subject: str | None
) -> RawQuestion:
    """The row's question; `subject` is for rows that name none. InputError if a part of it is missing or no text."""
    passages = [running_text(fields.get(key), "the passage", where) for key in roles.passages]
    cell = fields.get(roles.question)
    if is_blank(cell) and any(passages):  # an instruction without a question is the question
        cell = next(passage for passage in passages if passage)
        passages = [passage for passage in passages if passage != cell]
    question = as_text(cell, "the question", where)
    if roles.gold_text is not None:
        options = _shuffled_options(fields, roles, question, where, seed)
    elif len(roles.options) > 1:
        cells = [fields.get(key) for key in roles.options]
        options = options_from_columns(cells, roles.options, roles.labels, where)
    else:
        options = read_options(fields.get(roles.options[0]), where)
        if "answer_index" in roles.gold_columns:  # MMLU-Pro pads short lists of options
            options = _without_padding(options)
    return RawQuestion(
        question,
        "\n\n".join(passage for passage in passages if passage) or None,
        next((text for key in roles.subjects if (text := subject_text(fields.get(key)))), subject),
        options,
        tuple((key, fields.get(key)) for key in roles.gold_columns),
        options.gold,
        inclusion_probability=fields.get("inclusion_probability"),
    )


def _shuffled_options(fields: Fields, roles: Roles, question: str, where: str, seed: int) -> Options:
    """The right option and the wrong ones, in an order that depends on the seed and on this row's own texts alone: not
    on other rows, nor on the order in which the file lists the options."""
    assert roles.gold_text is not None
    right = as_text(fields.get(roles.gold_text), "the right answer", where)
    wrong = []
    for key in roles.wrong:
        cell = parsed(fields.get(key))
        items = cell if isinstance(cell, (list, tuple)) else [cell]
        wrong += [as_text(item, "a wrong answer", where) for item in items if not is_blank(item)]
    if not wrong:
        fail(where, "has a right answer but no wrong one")
    texts = sorted([right, *wrong], key=lambda option: _draw(seed, question, option))
    return Options(where, tuple(texts), gold=texts.index(right))


def _draw(seed: int, question: str, option: str) -> bytes:
    content = json.dumps([seed, question, option]).encode()
    return hashlib.sha256(content).digest()


def _without_padding(options: Options) -> Options:
    n = len(options.texts)
    while n > 2 and options.texts[n - 1] == _PADDING:
        n -= 1
    return Options(options.where, options.texts[:n], None if options.labels is None else options.labels[:n])


def _with_readings(outcomes: list[Outcome]) -> list[Outcome]:
    """Takes labels off the options' texts, which has to look at all questions of the file, and reads the gold cells."""
    places = [index for index, (_, _, item) in enumerate(outcomes) if isinstance(item, RawQuestion)]
    questions = [item for _, _, item in outcomes if isinstance(item, RawQuestion)]
    for index, question in zip(places, _with_labels_taken_off(questions), strict=True):
        where, subject, _ = outcomes[index]
        try:
            if question is None:
                fail(where, "its options are lettered, but a letter in between is missing")
            question.read_gold_cells()
            outcomes[index] = where, subject, question
        except InputError as error:
            outcomes[index] = where, subject, error
    return outcomes


def _with_labels_taken_off(questions: Sequence[RawQuestion]) -> list[RawQuestion | None]:
    """Questions whose options all begin with different labels, such as `B. `, `(B) ` or `2) `, get them as labels.

    Numbers count as labels only where all questions of the file carry them.

    Returns
    -------
    For each question, None if a letter is missing among its labels while most questions of the file have all.
    """
    found = [carried_labels(question.options.texts) for question in questions]
    n_even = sum(item is not None and not item.has_gap for item in found)
    n_labelled = n_even + sum(question.options.labels is not None for question in questions)
    made: list[RawQuestion | None] = []
    for question, carried in zip(questions, found, strict=True):
        labels = question.options.labels
        if carried is None:
            made.append(question)
        elif carried.has_gap:
            made.append(None if n_labelled * 2 >= len(questions) else question)
        elif (carried.labels[0].isdecimal() and n_even < len(questions)) or labels not in (
            None,
            carried.labels,
        ):
            made.append(question)
        else:
            options = replace(question.options, texts=carried.texts, labels=carried.labels)
            made.append(replace(question, options=options))
    return made


def _checked(where: str, item: Question | Prompt) -> Outcome:
    try:
        return where, item.subject, check_prompt(item, where)
    except InputError as error:
        return item.source or where, item.subject, error


def _record_row(where: str, item: object) -> Row:
    if isinstance(item, Mapping):
        return Row(where, _json_value(item))
    expected = "a file's path, a record (a dict), a Question or a Prompt"
    return Row(where, None, f"expected {expected}, got {type(item).__name__}")


def _json_value(value: object) -> object:
    """The value as JSON would hold it: numpy's numbers and arrays as plain ones, pandas' missing values as None."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, Real):
        return int(value) if isinstance(value, Integral) else float(value)
    if isinstance(value, Mapping):
        return {str(key): _json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_value(item) for item in value]
    if hasattr(value, "tolist"):
        return _json_value(value.tolist())
    try:
        return None if value != value else value
    except TypeError:
        return None
