"""Records that come from Python: rows as those of a file, and questions that are made already.

Knows neither formats nor what answers mean.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from numbers import Integral, Real

from edgecal.data.mapping import Told
from edgecal.data.model import Row, Table
from edgecal.data.settle import Outcome, TableOfQuestions
from edgecal.data.tables import read_rows
from edgecal.errors import InputError
from edgecal.prompts import Prompt, Question, check_prompt

__all__ = ["read_given"]

_NAME = "the records"


def read_given(
    items: Sequence[tuple[str, object]], format: str | None, told: Told | None, *, seed: int
) -> TableOfQuestions:
    """Reads dicts as JSON Lines of the same are read, and takes `Question` and `Prompt` objects as they are.

    items: each with its place, for messages. Anything else among them is a row that does not fit. Errors as
    `edgecal.data.tables.read_questions`.
    """
    made: dict[str, Outcome] = {}
    rows = []
    for where, item in items:
        if isinstance(item, (Question, Prompt)):
            made[where] = _checked(where, item)
        else:
            rows.append(_row(where, item))
    table = TableOfQuestions("", _NAME, "edgecal", None, None, {}, [], [], {})
    if any(row.flaw is None for row in rows):
        table = read_rows("", _NAME, Table(rows, "json"), format, told, seed=seed)
    else:
        made |= {row.where: (row.where, None, InputError(f"{row.where}: {row.flaw}")) for row in rows}
    read = deque(table.outcomes)
    table.outcomes = []
    for where, _ in items:
        if where in made:
            table.outcomes.append(made[where])
        while read and f"{read[0][0]},".startswith(f"{where},"):  # a row may hold several questions
            table.outcomes.append(read.popleft())
    return table


def _checked(where: str, item: Question | Prompt) -> Outcome:
    try:
        return where, item.subject, check_prompt(item, where)
    except InputError as error:
        return item.source or where, item.subject, error


def _row(where: str, item: object) -> Row:
    if isinstance(item, Mapping):
        return Row(where, _plain(item))
    expected = "a file's path, a record (a dict), a Question or a Prompt"
    return Row(where, None, f"expected {expected}, got {type(item).__name__}")


def _plain(value: object) -> object:
    """What JSON would hold: numbers and arrays of other makes as its own, and null for pandas' marks of nothing."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, Real):
        return int(value) if isinstance(value, Integral) else float(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    try:
        return None if value != value else value
    except TypeError:
        return None
