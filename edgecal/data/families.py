"""Columns that belong together: one stem and a number or a letter each, without a gap.

    choice0 choice1 ...   "Option 1" "Option 2" ...   A B C D   answerA answerB ...   opa opb ...   option_01_text

Knows a few stems that are never options, such as `sentence`; not what else a column may be.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Family", "find_families"]

_NUMBER = re.compile(r"([^\d]*?)[_\[(.]*(\d{1,2})[\])_.]*([^\d]*)")
_LETTER = re.compile(r"(.*?)_?([a-z])")
_INNER_LETTER = re.compile(r"(?:(.+)_)?([a-z])_(.+)")


@dataclass(frozen=True)
class Family:
    """Columns of one kind.

    Attributes
    ----------
    stem: what their names have in common; empty where they are a number or a letter alone.
    columns: their keys in order.
    first: the first one's number or letter.
    """

    stem: str
    columns: tuple[str, ...]
    first: str

    @property
    def letters(self) -> tuple[str, ...] | None:
        """The columns' letters in upper case, or None where they are numbered or begin at A, as places do."""
        if self.first.isdecimal() or self.first == "a":
            return None
        return tuple(chr(ord(self.first.upper()) + index) for index in range(len(self.columns)))


def find_families(keys: Iterable[str]) -> list[Family]:
    """Every family of two columns or more among keys as `column_key` gives them, in the keys' order.

    Numbers begin at 0 or 1, or stand alone at 1 (`distractor1`); letters may begin anywhere.
    """
    held: dict[tuple[str, str, bool], dict[int, str]] = defaultdict(dict)
    for key in keys:
        for pattern, is_number in ((_NUMBER, True), (_INNER_LETTER, False), (_LETTER, False)):
            match = pattern.fullmatch(key)
            if match:
                before, mark, after = (*match.groups(), "")[:3]
                code = int(mark) if is_number else ord(mark)
                held[before or "", after or "", is_number].setdefault(code, key)
                break
    found = []
    for (before, after, is_number), members in held.items():
        for run in _runs(sorted(members)):
            alone = is_number and run == [1]
            if alone or (len(run) > 1 and (not is_number or run[0] in (0, 1))):
                first = str(run[0]) if is_number else chr(run[0])
                stem = "_".join(part.strip("_") for part in (before, after) if part.strip("_"))
                found.append(Family(stem, tuple(members[code] for code in run), first))
    return found


def _runs(codes: list[int]) -> list[list[int]]:
    """Splits ascending numbers where one is left out."""
    runs: list[list[int]] = []
    for code in codes:
        if runs and code == runs[-1][-1] + 1:
            runs[-1].append(code)
        else:
            runs.append([code])
    return runs
