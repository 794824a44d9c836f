"""What the answers of a data set mean, decided once from all of its rows.

An answer that is a number may be an option's label, count from 0 or from 1, or be an option's text; one that is a
letter may be a label (of the place, where options have none) or a text. A reading that some rows refuse and that
explains none better is out. Where two are left that differ for some row, a layout's own convention decides; without
one the data are refused, never guessed.
Does not know where questions come from.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from edgecal.data.model import fail
from edgecal.data.spelling import LABEL, ONE, TEXT, ZERO, Shown, Spelled, fail_several
from edgecal.prompts import LABEL_LETTERS

__all__ = ["Meaning", "decide"]

_WORDS = {
    LABEL: "the label of an option",
    ZERO: "counted from 0",
    ONE: "counted from 1",
    TEXT: "the text of an option",
}
# A mark is by the order of the labels, or by the order in which the options stand.
_CANDIDATES = {"letter": (LABEL, TEXT), "number": (LABEL, ZERO, ONE, TEXT), "mark": (TEXT, LABEL)}
_MAP = "--map answer-base=0, =1, =label, =text"
# A reading is out if another explains rows that it refuses, and it explains next to none that the other refuses.
_OVERWHELMING = 20
_NO_ACCIDENT = 3


@dataclass(frozen=True)
class Meaning:
    """How the answers of a column are read.

    Attributes
    ----------
    readings: the position in `READINGS` for each kind of answer but words.
    says: one phrase, such as "answers counted from 0".
    """

    readings: Mapping[str, int] = field(default_factory=dict)
    says: str = "no answers"

    def index(self, answer: Spelled, shown: Shown) -> int:
        """The option that an answer names.

        Raises
        ------
        InputError: it names none.
        """
        index = answer.indices[self.readings.get(answer.kind, TEXT)]
        if index is None:
            _refuse(answer, shown, self.readings.get(answer.kind))
        return index


def decide(
    name: str,
    column: str,
    rows: Sequence[tuple[Shown, Spelled]],
    *,
    base: int | None = None,
    told: int | None = None,
    owners: Sequence[str] = (),
    others: Sequence[int | None] = (),
) -> Meaning:
    """Decides what the answers of a column mean.

    Parameters
    ----------
    name: of the data set, for messages.
    column: the column's name, for messages.
    rows: every answer of the data set with the options that it chooses from.
    base: 0 or 1 where the layout's makers say what its numbers count from.
    told: the position in `READINGS` that the user says.
    owners: for each of the rows its file, none of which may contradict what is decided.
    others: for each of the rows the option that another column says is right, where there is one.

    Raises
    ------
    InputError: two readings are left; the message names both and how to say which.
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
        if told is not None and (told in candidates or kind == "mark"):
            left[kind] = [told if told in candidates else TEXT]
        elif others and len(_distinct(left[kind], chosen)) > 1:
            said = [others[index] for index in picked]
            left[kind] = [reading for reading in left[kind] if _agrees(reading, chosen, said)] or left[kind]
    n_words = sum(answer.kind == "word" and answer.indices[TEXT] is not None for _, answer in rows)
    n_texts = n_words + sum(len(by_kind[kind]) for kind in ("letter", "number") if left.get(kind) == [TEXT])
    readings: dict[str, int] = {}
    for kind, open_to in left.items():
        chosen = [rows[index] for index in by_kind[kind]]
        if len(_distinct(open_to, chosen)) > 1 and kind != "mark":
            open_to = _prefer(open_to, chosen, n_texts, base)
        open_to = _distinct(open_to, chosen)
        if len(open_to) > 1:
            _refuse_both(name, column, open_to, chosen)
        readings[kind] = open_to[0]
        if told is None:
            files = [owners[index] for index in by_kind[kind] if owners]
            _check_each(column, kind, open_to[0], _CANDIDATES[kind], chosen, files)
            if open_to[0] != TEXT and n_texts and kind != "mark":
                _check_mixture(name, column, open_to[0], chosen, n_texts)
    return Meaning(readings, _say(readings, rows, n_words))


def _survivors(answers: Sequence[Spelled], candidates: Sequence[int]) -> list[int]:
    """The readings that no other explains away; where none explains anything, the plainest."""
    patterns = Counter(_pattern(answer.indices) for answer in answers)
    left = [
        reading
        for reading in candidates
        if any(pattern[reading] is not None for pattern in patterns)
        and not any(_beats(other, reading, patterns) for other in candidates if other != reading)
    ]
    return left or [LABEL if len(candidates) == 2 else ZERO]


def _distinct(readings: Sequence[int], rows: Sequence[tuple[Shown, Spelled]]) -> list[int]:
    """One of those that say the same of every row."""
    found: dict[tuple[int | None, ...], int] = {}
    for reading in readings:
        found.setdefault(tuple(answer.indices[reading] for _, answer in rows), reading)
    return list(found.values())


def _check_each(
    column: str,
    kind: str,
    reading: int,
    candidates: Sequence[int],
    rows: Sequence[tuple[Shown, Spelled]],
    owners: Sequence[str],
) -> None:
    """Refuses files of which one says otherwise than all together."""
    by_owner: dict[str, list[Spelled]] = {}
    for owner, (_, answer) in zip(owners, rows, strict=False):
        by_owner.setdefault(owner, []).append(answer)
    for owner, answers in by_owner.items() if len(by_owner) > 1 else ():
        patterns = Counter(_pattern(answer.indices) for answer in answers)
        for other in candidates:
            if other != reading and _beats(other, reading, patterns):
                fail(
                    owner,
                    f"the answers in {column!r:.40} are {_WORDS[other]} here, but {_WORDS[reading]} in the other files "
                    f"of its kind; read them one by one, or say which: {_MAP}",
                )


def _beats(one: int, other: int, patterns: Mapping[tuple[int | None, ...], int]) -> bool:
    only_one = sum(n for p, n in patterns.items() if p[one] is not None and p[other] is None)
    only_other = sum(n for p, n in patterns.items() if p[other] is not None and p[one] is None)
    return only_one > 0 and only_other * _OVERWHELMING <= only_one


def _pattern(indices: tuple[int | None, ...]) -> tuple[int | None, ...]:
    """Which readings explain an answer, and which of them alike: the indices by their order of appearance."""
    seen: dict[int, int] = {}
    return tuple(None if index is None else seen.setdefault(index, len(seen)) for index in indices)


def _prefer(
    left: list[int], rows: Sequence[tuple[Shown, Spelled]], n_texts: int, base: int | None
) -> list[int]:
    """What decides between readings that all rows allow: that other answers are texts, that options have labels
    of their own, the layout's convention."""
    if TEXT in left and n_texts and all(answer.indices[TEXT] is not None for _, answer in rows):
        return [TEXT]
    spelled_out = all("." not in str(answer.value)[:-1] for _, answer in rows)  # 3.0 is hardly the label 3
    if LABEL in left and spelled_out and all(shown.labels is not None for shown, _ in rows):
        # that every answer is a text as well is no accident where not all labels are texts
        open_rows = sum(not set(shown.labels or ()) <= set(shown.texts) for shown, _ in rows)
        return [LABEL] if TEXT not in left or open_rows < _NO_ACCIDENT else left
    convention = {0: ZERO, 1: ONE, None: None}[base]
    if convention in left and (
        TEXT not in left
        or len(_distinct([convention, TEXT], rows)) == 1
        or all(answer.typed for _, answer in rows)
    ):
        return [convention]
    return left


def _agrees(reading: int, rows: Sequence[tuple[Shown, Spelled]], others: Iterable[int | None]) -> bool:
    pairs = [
        (answer.indices[reading], other)
        for (_, answer), other in zip(rows, others, strict=True)
        if other is not None
    ]
    return bool(pairs) and sum(one == other for one, other in pairs) * _OVERWHELMING >= (
        (_OVERWHELMING - 1) * len(pairs)
    )


def _check_mixture(
    name: str, column: str, reading: int, rows: Sequence[tuple[Shown, Spelled]], n_texts: int
) -> None:
    """Where other answers are texts, one that may be text or label is no label for sure."""
    differ = [
        row
        for row in rows
        if None not in (row[1].indices[TEXT], row[1].indices[reading])
        and row[1].indices[TEXT] != row[1].indices[reading]
    ]
    if differ and n_texts * _OVERWHELMING > len(rows):
        _refuse_both(name, column, [reading, TEXT], differ)


def _refuse_both(
    name: str, column: str, left: Sequence[int], rows: Sequence[tuple[Shown, Spelled]]
) -> NoReturn:
    one, other = left[:2]
    shown, answer = next((row for row in rows if row[1].indices[one] != row[1].indices[other]), rows[0])
    meant = [
        f"{_WORDS[reading]} ({'none' if index is None else repr(shown.texts[index]):.60})"
        for reading in left
        for index in [answer.indices[reading]]
    ]
    fail(
        name,
        f"the answers in {column!r:.40} can be read in {len(left)} ways: {' or '.join(meant)} for the answer "
        f"{answer.value!r:.40} of {shown.where}; no row settles it, so say which: {_MAP}",
    )


def _say(readings: Mapping[str, int], rows: Sequence[tuple[Shown, Spelled]], n_words: int) -> str:
    parts = []
    if (reading := readings.get("number")) is not None:
        parts.append(
            ("by the options' labels", "counted from 0", "counted from 1", "as texts of options")[reading]
        )
    if (reading := readings.get("letter")) is not None:
        parts.append("by letter" if reading == LABEL else "as texts of options")
    if n_words:
        parts.append("as texts of options")
    if any(answer.kind == "mark" for _, answer in rows):
        parts.append("as a mark on each option")
    return f"answers {' and '.join(dict.fromkeys(parts))}" if parts else "no answers"


def _refuse(answer: Spelled, shown: Shown, reading: int | None) -> NoReturn:
    n = len(shown.texts)
    text = str(answer.value).strip().upper()
    labels = shown.labels or tuple(LABEL_LETTERS[:n])
    parts = [part for part in re.split(r"[\s,;/&+]+|\band\b", text, flags=re.I) if part]
    if len(parts) == 1 and answer.kind == "word" and 1 < len(text) <= n:
        parts = list(text)
    if len(parts) > 1 and all(part in labels for part in parts):
        fail_several(answer.value, shown)
    counted = f", {_WORDS[reading]}" if reading in (ZERO, ONE) else ""
    named = f" (labels {', '.join(shown.labels)[:80]})" if shown.labels and reading == LABEL else ""
    fail(shown.where, f"the answer {answer.value!r:.60} is none of the {n} options{counted}{named}")
