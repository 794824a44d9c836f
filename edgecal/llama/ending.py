"""Which prompts end side by side in one decode, and how many rows of each.

Does not know what prompts share, nor llama.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgecal.llama.rows import (
    LEAST_ROWS,
    beyond_blocks,
    filled,
    lead_rows,
    lengths_together,
    price,
    rows_each,
)
from edgecal.llama.steps import EndStep, LeadStep, Step

__all__ = ["Endings"]


@dataclass(frozen=True)
class _Ending:
    """A prompt that waits to be ended: where its step stands, its rows, and how many it has room for."""

    at: int
    n_rows: int
    room: int

    @property
    def has_room(self) -> bool:
        """Whether it can be filled up; else it is run as it is and alone."""
        return filled(self.n_rows) <= self.room


class Endings:
    """Puts prompts that end side by side into decodes, whatever they go on from, and collects all steps.

    What one has more rows than the others it runs alone before. What a prompt goes on from is taken at once, since
    the state will not stay.
    """

    def __init__(self, most: int, width: int, n_cells: int) -> None:
        """`most` prompts in a decode of at most `width` rows; a sequence holds at most `n_cells` tokens."""
        self.steps: list[Step] = []
        self._most, self._width, self._n_cells = most, width, n_cells
        self._waiting: list[_Ending] = []

    def sort_key(self, n_rows: int) -> tuple[int, int]:
        """Prompts in this order fill up few rows: the short ones, which run side by side whole, by length; the others
        by what is left behind rows in sixteens, which they run alone."""
        if n_rows <= rows_each(self._width, self._most):
            return n_rows, 0
        return self._width + beyond_blocks(n_rows), n_rows

    def add(self, prompt: int, depth: int, start: int, n_rows: int) -> None:
        """A prompt goes on from the state that is kept at `depth` now; it has `n_rows` behind that."""
        ending = _Ending(len(self.steps), n_rows, self._n_cells - start)
        if not self._can_end([*self._waiting, ending]):
            self.flush()
            ending = replace(ending, at=len(self.steps))
        self.steps.append(LeadStep(depth, len(self._waiting), prompt, start, start))
        self._waiting.append(ending)

    def flush(self) -> None:
        """Ends the prompts that wait."""
        if not self._waiting:
            return
        length = self._length(self._waiting)
        n_alone = lead_rows(np.array([ending.n_rows for ending in self._waiting]), np.array(length)).tolist()
        leads = []
        for ending, n_rows in zip(self._waiting, n_alone, strict=True):
            lead = self.steps[ending.at]
            assert isinstance(lead, LeadStep)
            lead = replace(lead, stop=lead.start + n_rows)
            self.steps[ending.at] = lead
            leads.append(lead)
        self.steps.append(
            EndStep(length, tuple(lead.prompt for lead in leads), tuple(lead.stop for lead in leads))
        )
        self._waiting = []

    def _can_end(self, endings: Sequence[_Ending]) -> bool:
        if len(endings) == 1:
            return True
        if len(endings) > self._most or not all(ending.has_room for ending in endings):
            return False
        # No prompt has more rows than this, whatever the length; so it need not be found out yet.
        most = max(ending.n_rows for ending in endings) + LEAST_ROWS
        return most <= min(ending.room for ending in endings) or self._length(endings) > 0

    def _length(self, endings: Sequence[_Ending]) -> int:
        """Rows of each prompt when these end side by side, for the least cost; 0: there is no room."""
        n = len(endings)
        if n == 1:
            return filled(endings[0].n_rows) if endings[0].has_room else endings[0].n_rows
        n_rows = np.array([[ending.n_rows] for ending in endings])
        room = np.array([[ending.room] for ending in endings])
        lengths = lengths_together(min(int(n_rows.max()), 2 * rows_each(self._width, n)), n)
        leads = lead_rows(n_rows, lengths)
        fits = (leads + lengths <= room).all(axis=0)
        if not fits.any():
            return 0
        cost = price(leads, 1, self._width).sum(axis=0) + price(lengths, n, self._width)
        return int(lengths[fits][cost[fits].argmin()])
