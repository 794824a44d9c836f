"""Decides from all rows of a data set which option its gold answers name, and gives each question its own.

A number may be an option's label, a place counted from 0 or from 1, or an option's text; a letter may be a label (the
place, where options have no labels) or a text; and so may a code, a label of several characters. A reading is dropped
if another one explains many rows that it cannot explain. If two are left that differ for some row, the convention of
the layout's authors decides; if there is none, the data are refused, because a wrong guess would silently falsify every
figure.

Files of the same layout are decided together, since one of them alone may not show what its answers count from. Several
gold columns check each other.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from edgecal.data.answer_options import Options
from edgecal.data.decoded_rows import fail, listed
from edgecal.data.gold_readings import LABEL, ONE, TEXT, ZERO, GoldReadings, fail_several
from edgecal.data.raw_questions import Outcome, QuestionTable, RawQuestion
from edgecal.errors import InputError
from edgecal.prompts import LABEL_LETTERS

__all__ = ["decide_gold_answers", "describe_decisions"]

_WORDS = {
    LABEL: "the label of an option",
    ZERO: "counted from 0",
    ONE: "counted from 1",
    TEXT: "the text of an option",
}
# A list of marks is in the order of the labels, or in that of the options.
_CANDIDATES = {
    "letter": (LABEL, TEXT),
    "code": (LABEL, TEXT),
    "number": (LABEL, ZERO, ONE, TEXT),
    "mark": (TEXT, LABEL),
}
_MAP = "--map answer-base=0, =1, =label, =text"
# A reading is dropped if another one explains at least 20 times as many rows that only one of them explains.
_OVERWHELMING = 20
_NO_ACCIDENT = 3
_MOST = 0.8
_NO_ANSWERS = "no answers"


@dataclass(frozen=True)
class Convention:
    """How the answers of a gold column are read.

    Attributes
    ----------
    readings: for each kind of answer but words, the reading that holds, as an index into `READINGS`.
    says: one phrase for people, such as "answers counted from 0".
    """

    readings: Mapping[str, int] = field(default_factory=dict)
    says: str = _NO_ANSWERS

    def index(self, answer: GoldReadings, options: Options) -> int:
        """The index of the option that an answer names.

        Raises
        ------
        InputError: the answer names no option.
        """
        index = answer.indices[self.readings.get(answer.kind, TEXT)]
        if index is None:
            _refuse(answer, options, self.readings.get(answer.kind))
        return index


def decide_gold_answers(
    tables: Sequence[QuestionTable], answer_base: int | None, evidence: Sequence[QuestionTable] = ()
) -> None:
    """Decides what the gold answers of a data set's files mean, and gives each question its right option.

    Parameters
    ----------
    tables: the files. Their outcomes get their `gold`, or become an error where an answer names no option.
    answer_base: how the user says that answers are meant, as an index into `READINGS`; None if they do not say.
    evidence: further files of the data set, only to show what its answers count from.

    Raises
    ------
    InputError: the answers can be read in two ways.
    """
    groups: dict[tuple[object, ...], list[QuestionTable]] = {}
    for table in tables:
        if table.roles is not None:
            groups.setdefault(table.kind, []).append(table)
    decided = []
    for kind, group in groups.items():
        known = [*group, *(table for table in evidence if table.kind == kind)]
        decided.append((group, *_decide_group(group, known, answer_base)))
    for group, conventions, unused in decided:
        for table in group:
            _apply(table, conventions, unused)


def describe_decisions(tables: Sequence[QuestionTable]) -> list[str]:
    """One line on each group of files that was decided together."""
    lines: dict[str, list[str]] = {}
    for table in tables:
        if table.roles is not None:
            lines.setdefault(_describe(table), []).append(table.name)
    if len(lines) < 2:
        return list(lines)
    return [f"{listed(names, 1)}: {line}" for line, names in lines.items()]


def _describe(table: QuestionTable) -> str:
    roles = table.roles
    assert roles is not None

    def named(keys: Iterable[str]) -> str:
        return ", ".join(map(table.column_name, keys))

    parts = ["; ".join(dict.fromkeys(table.decisions)) or "no answers"]
    if roles.gold_text is not None:
        parts = [
            f"the right option from {named([roles.gold_text])}, the others from {named(roles.wrong)}, shuffled"
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


def _decide_group(
    group: list[QuestionTable], known: list[QuestionTable], answer_base: int | None
) -> tuple[dict[str, Convention], list[str]]:
    """The convention of each gold column, in the columns' order, and the columns that are not used."""
    columns = group[0].roles.gold_columns if group[0].roles else ()
    name = listed([table.name for table in group], 1)
    bases = {table.base for table in known}
    base = bases.pop() if len(bases) == 1 else None
    conventions: dict[str, Convention] = {}
    undecided: dict[str, InputError] = {}
    for column in columns:
        rows, owners = _collect(known, column)
        try:
            if rows:
                conventions[column] = _decide_column(
                    name,
                    group[0].column_name(column),
                    rows,
                    base=base,
                    answer_base=answer_base,
                    owners=owners,
                )
        except InputError as error:
            undecided[column] = error
    unused = _unreliable(known, conventions)
    conventions = {column: made for column, made in conventions.items() if column not in unused}
    # A column that can be read in two ways may still be decided by one that is sure and says the same.
    for column, reason in undecided.items():
        others = [
            _gold(question, conventions) for table in known for question, _ in table.rows_with_gold(column)
        ]
        rows, owners = _collect(known, column)
        try:
            conventions[column] = _decide_column(
                name,
                group[0].column_name(column),
                rows,
                base=base,
                answer_base=answer_base,
                owners=owners,
                others=others,
            )
        except InputError:
            if not conventions or columns.index(column) < min(map(columns.index, conventions)):
                raise reason from None
            unused.add(column)
    return (
        {column: conventions[column] for column in columns if column in conventions},
        [column for column in columns if column in unused],
    )


def _unreliable(tables: Sequence[QuestionTable], conventions: dict[str, Convention]) -> set[str]:
    """The gold columns that name no option in many rows, if there is one that does in most. A column of numbers that is
    called "label" does not count as the latter, since it may hold anything."""
    shares = {}
    for column, convention in conventions.items():
        named = [
            _gold(question, {column: convention}) is not None
            for table in tables
            for question, _ in table.rows_with_gold(column)
        ]
        shares[column] = sum(named) / len(named)
    sure = {
        column
        for column, share in shares.items()
        if share >= _MOST and not (column == "label" and "number" in conventions[column].readings)
    }
    return {column for column, share in shares.items() if share < _MOST} if sure else set()


def _collect(
    tables: Sequence[QuestionTable], column: str
) -> tuple[list[tuple[Options, GoldReadings]], list[str]]:
    rows, owners = [], []
    for table in tables:
        for question, answer in table.rows_with_gold(column):
            rows.append((question.options, answer))
            owners.append(table.name)
    return rows, owners


def _gold(question: RawQuestion, conventions: dict[str, Convention]) -> int | None:
    """The option that the first gold column names which names any."""
    for column, convention in conventions.items():
        if column in question.readings:
            try:
                return convention.index(question.readings[column], question.options)
            except InputError:
                continue
    return None


def _apply(table: QuestionTable, conventions: dict[str, Convention], unused: Sequence[str]) -> None:
    table.decisions = [made.says for made in conventions.values() if made.says != _NO_ANSWERS]
    table.notes += [
        f"{table.name}: not used, since it does not reliably tell which option is right: {table.column_name(column)}"
        for column in unused
    ]
    table.outcomes = [_with_gold(table, conventions, outcome) for outcome in table.outcomes]


def _with_gold(table: QuestionTable, conventions: dict[str, Convention], outcome: Outcome) -> Outcome:
    where, subject, question = outcome
    if not isinstance(question, RawQuestion) or not question.readings:
        return outcome
    try:
        gold = question.gold
        for column, convention in conventions.items():
            if column not in question.readings:
                continue
            index = convention.index(question.readings[column], question.options)
            if gold is not None and index != gold:
                said = " and ".join(
                    f"{table.column_name(key)} {question.readings[key].value!r:.20}"
                    for key in conventions
                    if key in question.readings
                )
                fail(where, f"its answers contradict each other: {said}")
            gold = index
    except InputError as error:
        return where, subject, error
    question.gold = gold
    return outcome


def _decide_column(
    name: str,
    column: str,
    rows: Sequence[tuple[Options, GoldReadings]],
    *,
    base: int | None = None,
    answer_base: int | None = None,
    owners: Sequence[str] = (),
    others: Sequence[int | None] = (),
) -> Convention:
    """Decides how the answers of one gold column are read.

    Parameters
    ----------
    name, column: the data set's and the column's name, for messages.
    rows: every answer of the column, with the options that it chooses from.
    base: what the layout's authors count from, 0 or 1, or None.
    answer_base: how the user says that answers are meant, or None.
    owners: each row's file. A file that by itself would be read in another way is refused.
    others: for each row the option that another gold column names, or None.

    Raises
    ------
    InputError: two readings are left. The message names both, and how the user says which one holds.
    """
    by_kind = {
        kind: [index for index, (_, answer) in enumerate(rows) if answer.kind == kind] for kind in _CANDIDATES
    }
    left: dict[str, list[int]] = {}
    for kind, picked in by_kind.items():
        if not picked:
            continue
        candidates = _CANDIDATES[kind]
        chosen = [rows[index] for index in picked]
        left[kind] = _survivors([answer for _, answer in chosen], candidates)
        if answer_base is not None and (answer_base in candidates or kind == "mark"):
            left[kind] = [answer_base if answer_base in candidates else TEXT]
        elif others and len(_distinct(left[kind], chosen)) > 1:
            said = [others[index] for index in picked]
            left[kind] = [reading for reading in left[kind] if _agrees(reading, chosen, said)] or left[kind]
    n_words = sum(answer.kind == "word" and answer.indices[TEXT] is not None for _, answer in rows)
    n_texts = n_words + sum(
        len(by_kind[kind]) for kind in ("letter", "code", "number") if left.get(kind) == [TEXT]
    )
    readings: dict[str, int] = {}
    for kind, open_to in left.items():
        chosen = [rows[index] for index in by_kind[kind]]
        if len(_distinct(open_to, chosen)) > 1 and kind != "mark":
            open_to = _prefer(open_to, chosen, n_texts, base)
        open_to = _distinct(open_to, chosen)
        if len(open_to) > 1:
            _refuse_both(name, column, open_to, chosen)
        readings[kind] = open_to[0]
        if answer_base is None:
            files = [owners[index] for index in by_kind[kind] if owners]
            _check_each(column, kind, open_to[0], _CANDIDATES[kind], chosen, files)
            if open_to[0] != TEXT and n_texts and kind != "mark":
                _check_mixture(name, column, open_to[0], chosen, n_texts)
    return Convention(readings, _say(readings, rows, n_words))


def _survivors(answers: Sequence[GoldReadings], candidates: Sequence[int]) -> list[int]:
    """The readings that no other one beats; if none explains anything, the most usual one."""
    patterns = Counter(_pattern(answer.indices) for answer in answers)
    left = [
        reading
        for reading in candidates
        if any(pattern[reading] is not None for pattern in patterns)
        and not any(_beats(other, reading, patterns) for other in candidates if other != reading)
    ]
    return left or [LABEL if len(candidates) == 2 else ZERO]


def _distinct(readings: Sequence[int], rows: Sequence[tuple[Options, GoldReadings]]) -> list[int]:
    """The readings without those that name the same option in every row as an earlier one."""
    found: dict[tuple[int | None, ...], int] = {}
    for reading in readings:
        found.setdefault(tuple(answer.indices[reading] for _, answer in rows), reading)
    return list(found.values())


def _check_each(
    column: str,
    kind: str,
    reading: int,
    candidates: Sequence[int],
    rows: Sequence[tuple[Options, GoldReadings]],
    owners: Sequence[str],
) -> None:
    """Refuses a file that by itself would be read in another way than all files together."""
    by_owner: dict[str, list[GoldReadings]] = {}
    for owner, (_, answer) in zip(owners, rows, strict=False):
        by_owner.setdefault(owner, []).append(answer)
    for owner, answers in by_owner.items() if len(by_owner) > 1 else ():
        patterns = Counter(_pattern(answer.indices) for answer in answers)
        for other in candidates:
            if other != reading and _beats(other, reading, patterns):
                fail(
                    owner,
                    f"the answers in {column!r:.40} are {_WORDS[other]} here, but {_WORDS[reading]} in the other files "
                    f"of its kind; read the files one by one, or say which: {_MAP}",
                )


def _beats(one: int, other: int, patterns: Mapping[tuple[int | None, ...], int]) -> bool:
    only_one = sum(n for p, n in patterns.items() if p[one] is not None and p[other] is None)
    only_other = sum(n for p, n in patterns.items() if p[other] is not None and p[one] is None)
    return only_one > 0 and only_other * _OVERWHELMING <= only_one


def _pattern(indices: tuple[int | None, ...]) -> tuple[int | None, ...]:
    """Which readings explain an answer, and which of them agree. Answers with one pattern are counted together."""
    seen: dict[int, int] = {}
    return tuple(None if index is None else seen.setdefault(index, len(seen)) for index in indices)


def _prefer(
    left: list[int], rows: Sequence[tuple[Options, GoldReadings]], n_texts: int, base: int | None
) -> list[int]:
    """Decides between readings that all rows allow: by other answers that are texts, by options with labels of their
    own, or by what the layout's authors count from."""
    if TEXT in left and n_texts and all(answer.indices[TEXT] is not None for _, answer in rows):
        return [TEXT]
    spelled_out = all("." not in str(answer.value)[:-1] for _, answer in rows)  # 3.0 is hardly the label 3
    if LABEL in left and spelled_out and all(options.labels is not None for options, _ in rows):
        # If options' texts are not simply their labels, it is not chance that every answer is also a text.
        open_rows = sum(not set(options.labels or ()) <= set(options.texts) for options, _ in rows)
        return [LABEL] if TEXT not in left or open_rows < _NO_ACCIDENT else left
    convention = {0: ZERO, 1: ONE, None: None}[base]
    if convention in left and (
        TEXT not in left
        or len(_distinct([convention, TEXT], rows)) == 1
        or all(answer.typed for _, answer in rows)
    ):
        return [convention]
    return left


def _agrees(reading: int, rows: Sequence[tuple[Options, GoldReadings]], others: Iterable[int | None]) -> bool:
    pairs = [
        (answer.indices[reading], other)
        for (_, answer), other in zip(rows, others, strict=True)
        if other is not None
    ]
    return bool(pairs) and sum(one == other for one, other in pairs) * _OVERWHELMING >= (
        (_OVERWHELMING - 1) * len(pairs)
    )


def _check_mixture(
    name: str, column: str, reading: int, rows: Sequence[tuple[Options, GoldReadings]], n_texts: int
) -> None:
    """Refuses answers that may be a label or a text, if other answers of the column are certainly texts."""
    differ = [
        row
        for row in rows
        if None not in (row[1].indices[TEXT], row[1].indices[reading])
        and row[1].indices[TEXT] != row[1].indices[reading]
    ]
    if differ and n_texts * _OVERWHELMING > len(rows):
        _refuse_both(name, column, [reading, TEXT], differ)


def _refuse_both(
    name: str, column: str, left: Sequence[int], rows: Sequence[tuple[Options, GoldReadings]]
) -> NoReturn:
    one, other = left[:2]
    options, answer = next((row for row in rows if row[1].indices[one] != row[1].indices[other]), rows[0])
    meant = [
        f"{_WORDS[reading]} ({'none' if index is None else repr(options.texts[index]):.60})"
        for reading in left
        for index in [answer.indices[reading]]
    ]
    fail(
        name,
        f"the answers in {column!r:.40} can be read in {len(left)} ways: {' or '.join(meant)} for the answer "
        f"{answer.value!r:.40} of {options.where}; no row decides which, so say it: {_MAP}",
    )


def _say(readings: Mapping[str, int], rows: Sequence[tuple[Options, GoldReadings]], n_words: int) -> str:
    parts = []
    if (reading := readings.get("number")) is not None:
        parts.append(
            ("by the options' labels", "counted from 0", "counted from 1", "as texts of options")[reading]
        )
    if (reading := readings.get("letter")) is not None:
        parts.append("by letter" if reading == LABEL else "as texts of options")
    if (reading := readings.get("code")) is not None:
        parts.append("by the options' labels" if reading == LABEL else "as texts of options")
    if n_words:
        parts.append("as texts of options")
    if any(answer.kind == "mark" for _, answer in rows):
        parts.append("as a mark on each option")
    return f"answers {' and '.join(dict.fromkeys(parts))}" if parts else _NO_ANSWERS


def _refuse(answer: GoldReadings, options: Options, reading: int | None) -> NoReturn:
    n = len(options.texts)
    text = str(answer.value).strip().upper()
    labels = options.labels or tuple(LABEL_LETTERS[:n])
    parts = [part for part in re.split(r"[\s,;/&+]+|\band\b", text, flags=re.I) if part]
    if len(parts) == 1 and answer.kind == "word" and 1 < len(text) <= n:
        parts = list(text)
    if len(parts) > 1 and all(part in labels for part in parts):
        fail_several(answer.value, options)
    counted = f", {_WORDS[reading]}" if reading in (ZERO, ONE) else ""
    named = (
        f" (labels {', '.join(options.labels)[:80]})" if options.labels and reading in (LABEL, None) else ""
    )
    fail(options.where, f"the answer {answer.value!r:.60} is none of the {n} options{counted}{named}")


_MOSTLY = 0.8
