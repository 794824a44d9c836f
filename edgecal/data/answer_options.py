"""Reads a question's options, in whatever shape a row holds them: a column each, a list, labelled lists, an object,
or one text that holds all of them; and the labels that options may carry in their own texts, such as "B. ".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

from edgecal.data.decoded_rows import as_list, as_text, fail, is_blank, parsed
from edgecal.prompts import LABEL_LETTERS

__all__ = [
    "Options",
    "carried_labels",
    "options_from_columns",
    "plain_label",
    "read_options",
    "split_inline_options",
]

# "(A) x", "A) x", "A)x", "A. x" (not "A.x", which may be a name), "A: x", "a ) x", the Chinese kind, and digits
_CARRIED = re.compile(
    r"(?:[(（\[]([A-Za-z]|\d{1,2})[)）\]]|([A-Za-z]|\d{1,2}) ?(?:[)）．、：]|[.](?=\s|[^\x00-\x7f]))"
    r"|([A-Za-z]):(?=\s))\s*(.+)",
    re.DOTALL,
)
_WRAPPED = re.compile(r"[(\[]?([A-Za-z]|\d{1,2})[)\].:]?")
_LETTERS = tuple(LABEL_LETTERS)
_MARK = re.compile(r"(?:^|,)\s*([a-z])\s*\)\s*", re.IGNORECASE)
_INLINE_MARK = re.compile(r"\(([A-Z]|[0-9])\)")

_TEXTS = tuple("text texts content option options choice choices value values body answer".split())
_LABELS = ("label", "labels", "key", "letter", "id", "index", "name")
_FLAGS = ("is_correct", "iscorrect", "correct", "is_answer", "is_right")


@dataclass(frozen=True)
class Options:
    """The options of one question.

    Attributes
    ----------
    where: the row's place, for messages.
    texts: the options in order.
    labels: one for each option, or None where they have none.
    columns: the keys of the options' columns, where each has a column.
    numbers: whether some options came as numbers and not as texts.
    gold: the option that the row marks as right beside its text, or None.
    """

    where: str
    texts: tuple[str, ...]
    labels: tuple[str, ...] | None = None
    columns: tuple[str, ...] = ()
    numbers: bool = False
    gold: int | None = None


class Carried(NamedTuple):
    """Labels found in the options' texts (in upper case), the texts without them, and whether a letter or number
    between them is missing."""

    labels: tuple[str, ...]
    texts: tuple[str, ...]
    has_gap: bool


def options_from_columns(
    cells: Sequence[object], columns: tuple[str, ...], labels: Sequence[str] | None, where: str
) -> Options:
    """Options that have a column each; where a question has fewer options than columns, the last cells are empty."""
    n = len(cells)
    while n and is_blank(cells[n - 1]):
        n -= 1
    texts = _texts(cells[:n], where)
    return Options(
        where, texts, None if labels is None else tuple(labels[:n]), columns, _are_numbers(cells[:n])
    )


def read_options(value: object, where: str) -> Options:
    """The options that a single cell holds.

    Parameters
    ----------
    value: a list of texts; `{"text": [...], "label": [...]}`; `[{"text": ..., "label": ...}, ...]`;
        `[["A", "..."], ...]`; `{"A": "...", ...}`; any of these as printed text; or one text with a mark such as
        `(A)` or `a )` before each option, or with an option on each line.

    Raises
    ------
    InputError: the value is none of these.
    """
    held = parsed(value)
    if isinstance(held, Mapping):
        return _from_mapping(held, where)
    if isinstance(held, str) and (cut := _cut(held)):
        return Options(where, _texts(cut, where), _LETTERS[: len(cut)])
    if isinstance(held, str):
        lines = [line.strip() for line in held.split("\n") if line.strip()]
        held = lines if len(lines) > 1 else held
    if not isinstance(held, (list, tuple)):
        shown = "nothing" if is_blank(value) else f"{value!r:.60}"
        fail(where, f"the options must be a list of texts, or of objects with text and label; got {shown}")
    items = list(held)
    if items and all(isinstance(item, Mapping) for item in items):
        return _from_mappings(items, where)
    if items and all(_is_pair(item) for item in items):
        return _labelled([item[1] for item in items], [item[0] for item in items], where)
    while items and is_blank(items[-1]):
        items.pop()
    return Options(where, _texts(items, where), numbers=_are_numbers(items))


def carried_labels(texts: Sequence[str]) -> Carried | None:
    """The labels in the options' texts; None unless every option has one, all letters or all numbers, and no two the
    same."""
    matches = []
    for text in texts:
        match = _CARRIED.fullmatch(text)
        if match is None:
            return None
        matches.append(match)
    labels = [(match[1] or match[2] or match[3]).upper() for match in matches]
    codes = sorted(int(label) if label.isdecimal() else ord(label) for label in labels)
    is_number = labels[0].isdecimal() if labels else False
    if len(set(codes)) < max(2, len(labels)) or any(label.isdecimal() != is_number for label in labels):
        return None
    has_gap = codes != list(range(codes[0], codes[0] + len(codes))) or (is_number and codes[0] > 1)
    return Carried(tuple(labels), tuple(match[4].strip() for match in matches), has_gap)


@lru_cache(maxsize=4096)
def _plain(text: str) -> str:
    match = _WRAPPED.fullmatch(text)
    return match[1].upper() if match else text


def plain_label(value: object) -> str:
    """A label or answer without the marks around a single letter or number: `(b)`, `B.` and `b` become `B`."""
    return _plain(str(value).strip())


def split_inline_options(text: str) -> tuple[str, list[str]] | None:
    """Splits "Which? (A) this (B) that" into the question and its options.

    The marks are `(A)`, `(B)`, ... or `(1)`, `(2)`, ... in order without a gap. Of several such sequences the
    longest is used; of equally long ones, the last.

    Returns
    -------
    The text before the first mark and the options, stripped; None if there is no such sequence.
    """
    marks = list(_INLINE_MARK.finditer(text))
    best: list[re.Match[str]] = []
    for start, mark in enumerate(marks):
        first = mark.group(1)
        if first not in ("A", "1"):
            continue
        chain = [mark]
        for following in marks[start + 1 :]:
            if following.group(1) == chr(ord(first) + len(chain)):
                chain.append(following)
        best = chain if len(chain) >= len(best) else best
    if len(best) < 2:
        return None
    ends = [mark.start() for mark in best[1:]] + [len(text)]
    options = [text[mark.end() : end].strip() for mark, end in zip(best, ends, strict=True)]
    return text[: best[0].start()].strip(), options


def _cut(text: str) -> list[str] | None:
    """The options of a text such as `(A) x (B) y`, or MathQA's `a ) x , b ) y`; None if it is not such a text."""
    inline = split_inline_options(text) if text.lstrip().startswith("(A)") else None
    if inline:
        return inline[1]
    starts: list[re.Match[str]] = []
    for mark in _MARK.finditer(text):  # a mark with any other letter belongs to an option's text
        due = LABEL_LETTERS[len(starts)] if len(starts) < len(LABEL_LETTERS) else ""
        if mark[1].upper() == due and (starts or not text[: mark.start()].strip()):
            starts.append(mark)
    if len(starts) > 1:
        ends = [mark.start() for mark in starts[1:]] + [len(text)]
        return [text[mark.end() : end].strip(" \t\r\n,") for mark, end in zip(starts, ends, strict=True)]
    return None


def _from_mapping(held: Mapping[object, object], where: str) -> Options:
    fields = {str(key).strip().lower(): item for key, item in held.items()}
    texts = next((fields[key] for key in _TEXTS if isinstance(parsed(fields.get(key)), (list, tuple))), None)
    if texts is None:
        filled = {key: item for key, item in held.items() if not is_blank(item)}
        return _labelled(list(filled.values()), list(filled), where)
    labels = next((fields[key] for key in _LABELS if key in fields), None)
    listed = as_list(texts, "choices.text", where)
    if labels is None:
        return read_options(listed, where)
    return _labelled(listed, as_list(labels, "choices.label", where), where)


def _from_mappings(items: Sequence[Mapping[object, object]], where: str) -> Options:
    rows = [{str(key).strip().lower(): item for key, item in row.items()} for row in items]
    ending = [key for key in rows[0] if key.endswith("text")]  # "atext", "option_text"
    key = next((key for key in (*_TEXTS, *ending) if all(key in row for row in rows)), None)
    if key is None and all(len(row) == 1 for row in items):
        return _labelled(
            [*(next(iter(row.values())) for row in items)], [next(iter(row)) for row in items], where
        )
    if key is None:
        fail(
            where,
            f"the options must be a list of texts, or of objects with text and label; got {list(items)!r:.60}",
        )
    texts = [row[key] for row in rows]
    flag = next((key for key in _FLAGS if all(isinstance(row.get(key), (bool, int)) for row in rows)), None)
    label = next((key for key in _LABELS if any(not is_blank(row.get(key)) for row in rows)), None)
    labels = None if label is None else [row.get(label) for row in rows]
    made = Options(where, _texts(texts, where)) if labels is None else _labelled(texts, labels, where)
    if flag is None:
        return made
    marked = [index for index, row in enumerate(rows) if row[flag]]
    if len(marked) > 1:
        fail(where, "has several right answers, but edgecal needs exactly one")
    return replace(made, gold=marked[0] if marked else None)


def _labelled(texts: Sequence[object], labels: Sequence[object], where: str) -> Options:
    if len(texts) != len(labels):
        fail(where, f"choices hold {len(texts)} texts but {len(labels)} labels")
    named = [_plain(text) for text in _texts(labels, where, "the label of choice")]
    if len(set(named)) < len(named):
        fail(where, f"choices hold the same label twice: {', '.join(named)[:60]}")
    return Options(where, _texts(texts, where), tuple(named))


def _texts(items: Sequence[object], where: str, what: str = "choice") -> tuple[str, ...]:
    texts = tuple([item.strip() for item in items if isinstance(item, str)])
    if len(texts) == len(items) and all(texts):
        return texts
    return tuple(as_text(item, f"{what} {index}", where) for index, item in enumerate(items))


def _are_numbers(items: Sequence[object]) -> bool:
    return not all(isinstance(item, str) for item in items)


def _is_pair(item: object) -> bool:
    return (
        isinstance(item, (list, tuple))
        and len(item) == 2
        and isinstance(item[0], str)
        and _WRAPPED.fullmatch(item[0].strip()) is not None
    )
