"""Reads the answers of a whole data set: files of one make are decided together, and then row by row.

Knows which files belong together and how several columns of answers check each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgecal.data.answers import Meaning, decide
from edgecal.data.model import fail
from edgecal.data.records import Asked
from edgecal.data.roles import Roles
from edgecal.data.spelling import Shown, Spelled
from edgecal.errors import InputError
from edgecal.prompts import Prompt, Question

__all__ = ["Outcome", "TableOfQuestions", "decisions_of", "settle"]

_MOSTLY = 0.8

# A row's place, its subject where it says one, and its question, a ready-made one or a prompt, or why it is none.
Outcome = tuple[str, str | None, Asked | Question | Prompt | InputError]


@dataclass
class TableOfQuestions:
    """A file whose rows were read, but for their answers.

    Attributes
    ----------
    path, name: the file, "" for what came from Python, and what messages call it.
    kind: its format.
    base: what the format's makers count from, or None.
    roles: what its columns are; None where every row is a ready-made prompt or does not fit.
    spelling: the columns' own names by their keys.
    outcomes: its rows.
    notes: remarks.
    meanings: by column of answers, once they are settled.
    """

    path: str
    name: str
    kind: str
    base: int | None
    roles: Roles | None
    spelling: dict[str, str]
    outcomes: list[Outcome]
    notes: list[str]
    meanings: dict[str, Meaning]

    @property
    def has_answers(self) -> bool:
        """Whether any row says which option is right."""
        return any(
            (outcome.right is not None or bool(outcome.answers))
            if isinstance(outcome, Asked)
            else isinstance(outcome, (Prompt, Question)) and outcome.answer is not None
            for _, _, outcome in self.outcomes
        )

    @property
    def make(self) -> tuple[object, ...]:
        """What files have in common that are decided together."""
        return self.kind, self.roles.answers if self.roles else ()

    def rows(self, column: str) -> list[tuple[Asked, Spelled]]:
        """The rows in which a column says anything."""
        return [
            (outcome, outcome.answers[column])
            for _, _, outcome in self.outcomes
            if isinstance(outcome, Asked) and column in outcome.answers
        ]


def settle(
    tables: Sequence[TableOfQuestions], told: int | None, evidence: Sequence[TableOfQuestions] = ()
) -> None:
    """Decides what the answers of a data set's files mean, and gives each question its right option.

    Parameters
    ----------
    tables: the files; their outcomes get `right`, or an error where an answer is none of the options.
    told: the position in `READINGS` that the user says, or None.
    evidence: files of the data set that are not read otherwise, which may show what answers count from.

    Raises
    ------
    InputError: two readings are left.
    """
    groups: dict[tuple[object, ...], list[TableOfQuestions]] = {}
    for table in tables:
        if table.roles is not None:
            groups.setdefault(table.make, []).append(table)
    for make, group in groups.items():
        further = [table for table in evidence if table.make == make]
        _settle_group(group, [*group, *further], told)


def decisions_of(tables: Sequence[TableOfQuestions]) -> list[str]:
    """One line for each group of files that was decided together."""
    lines: dict[str, list[str]] = {}
    for table in tables:
        if table.roles is not None:
            lines.setdefault(_describe(table), []).append(table.name)
    if len(lines) < 2:
        return list(lines)
    return [
        f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {line}"
        for line, names in lines.items()
    ]


def _describe(table: TableOfQuestions) -> str:
    roles = table.roles
    assert roles is not None

    def named(keys: Iterable[str]) -> str:
        return ", ".join(table.spelling.get(key, key) for key in keys)

    says = [meaning.says for meaning in table.meanings.values() if meaning.says != "no answers"]
    parts = ["; ".join(dict.fromkeys(says)) or "no answers"]
    if roles.right is not None:
        parts = [
            f"the right option from {named([roles.right])}, the others from {named(roles.wrong)}, shuffled"
        ]
    elif len(roles.options) > 1:
        parts.append(f"options from {named(roles.options[:1])} to {named(roles.options[-1:])}")
    else:
        parts.append(f"options from {named(roles.options)}")
    if roles.question != "question":
        parts.append(f"question from {named([roles.question])}")
    if roles.passages:
        parts.append(f"passage from {named(roles.passages)}")
    return "; ".join(parts)


def _settle_group(group: list[TableOfQuestions], known: list[TableOfQuestions], told: int | None) -> None:
    columns = group[0].roles.answers if group[0].roles else ()
    name = group[0].name + (f" and {len(group) - 1} more" if len(group) > 1 else "")
    bases = {table.base for table in known}
    base = bases.pop() if len(bases) == 1 else None
    meanings: dict[str, Meaning] = {}
    # what one column leaves open another may tell that says the same
    unclear: dict[str, InputError] = {}
    for column in columns:
        rows, owners = _collect(known, column)
        try:
            if rows:
                meanings[column] = decide(
                    name, _spelled(group[0], column), rows, base=base, told=told, owners=owners
                )
        except InputError as error:
            unclear[column] = error
    idle = _idle(known, meanings)
    meanings = {column: meaning for column, meaning in meanings.items() if column not in idle}
    for column, reason in unclear.items():
        # what it leaves open another column may tell that says the same
        others = [_right(asked, meanings) for table in known for asked, _ in table.rows(column)]
        rows, owners = _collect(known, column)
        try:
            meanings[column] = decide(
                name, _spelled(group[0], column), rows, base=base, told=told, owners=owners, others=others
            )
        except InputError:
            if not meanings or columns.index(column) < min(map(columns.index, meanings)):
                raise reason from None
            idle.add(column)
    for table in group:
        table.meanings = {column: meanings[column] for column in columns if column in meanings}
        table.notes += [
            f"{table.name}: not used, since it does not say for certain which option is right: "
            + _spelled(table, column)
            for column in columns
            if column in idle
        ]
        table.outcomes = [_answered(table, outcome) for outcome in table.outcomes]


def _idle(tables: Sequence[TableOfQuestions], meanings: dict[str, Meaning]) -> set[str]:
    """The columns that mostly name no option, where another does; a column of numbers called "label" alone may be
    anything."""
    shares = {}
    for column, meaning in meanings.items():
        named = [
            _right(asked, {column: meaning}) is not None
            for table in tables
            for asked, _ in table.rows(column)
        ]
        shares[column] = sum(named) / len(named)
    sure = {
        column
        for column, share in shares.items()
        if share >= _MOSTLY and not (column == "label" and "number" in meanings[column].readings)
    }
    return {column for column, share in shares.items() if share < _MOSTLY} if sure else set()


def _collect(
    tables: Sequence[TableOfQuestions], column: str
) -> tuple[list[tuple[Shown, Spelled]], list[str]]:
    rows, owners = [], []
    for table in tables:
        for asked, spelled in table.rows(column):
            rows.append((asked.shown, spelled))
            owners.append(table.name)
    return rows, owners


def _spelled(table: TableOfQuestions, column: str) -> str:
    return table.spelling.get(column, column)


def _right(asked: Asked, meanings: dict[str, Meaning]) -> int | None:
    """The option that the decided columns name, where they do."""
    for column, meaning in meanings.items():
        if column in asked.answers:
            try:
                return meaning.index(asked.answers[column], asked.shown)
            except InputError:
                continue
    return None


def _answered(table: TableOfQuestions, outcome: Outcome) -> Outcome:
    where, subject, asked = outcome
    if not isinstance(asked, Asked) or not asked.answers:
        return outcome
    try:
        right = asked.right
        for column, meaning in table.meanings.items():
            if column not in asked.answers:
                continue
            index = meaning.index(asked.answers[column], asked.shown)
            if right is not None and index != right:
                said = " and ".join(
                    f"{_spelled(table, key)} {asked.answers[key].value!r:.20}"
                    for key in table.meanings
                    if key in asked.answers
                )
                fail(where, f"its answers contradict each other: {said}")
            right = index
    except InputError as error:
        return where, subject, error
    asked.right = right
    return outcome
