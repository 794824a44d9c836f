"""Rows of decodes: how they are filled up and cut, and what they cost.

What a prompt gets never depends on its company, and that rests on rules found by measuring (docs/log.md):

- llama.cpp's kernels take rows in fours, and use another kernel for the rest and, with some weight types, for
  fewer than 8 rows. So each decode has a multiple of 4 rows, and each of its sequences at least 8. What is missing
  is filled with tokens behind the last, which a causal model cannot see from there.
- The last block and the head compute the output rows only, so that each decode that ends prompts has 4 of them.

Numbers only: does not know prompts, plans or llama.cpp.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "LEAST_ROWS",
    "OUTPUT_ROWS",
    "ROW_STEP",
    "Room",
    "beyond_blocks",
    "decode_cuts",
    "filled",
    "lead_rows",
    "lengths_together",
    "price",
    "rows_each",
]

ROW_STEP = 4
LEAST_ROWS = 8
OUTPUT_ROWS = 4

# Kernels of repacked weights take 16 rows at a time and the rest in fours, and a row of the rest costs this much more
# (docs/log.md).
_ROW_BLOCK = 16
_REST_COST = 0.3

# What a decode costs beside its rows, in rows: to start, and for each sequence, since attention works on one after the
# other. A kept state is copied, for itself and for what goes on from it.
_DECODE_COST = 1
_SEQUENCE_COST = 1
_STATE_COST = 4

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Room:
    """What a model leaves to prompts that share and are filled up.

    Attributes
    ----------
    n_ctx_train: tokens that the model can hold.
    can_rewind: it can forget the last tokens of a sequence, and so what filled up a shared beginning.
    width: rows that a decode may have.
    """

    n_ctx_train: int
    can_rewind: bool
    width: int

    @property
    def step(self) -> int:
        """Lengths of shared beginnings are multiples of this."""
        return 1 if self.can_rewind else ROW_STEP

    def sharable(self, length: int) -> int:
        """Tokens that a prompt may share at most: its last rows are always run for it alone."""
        if self.can_rewind:
            return max(0, length - LEAST_ROWS + ROW_STEP - 1) if self._is_rewindable(length) else 0
        n_rows = filled(length)
        return (
            min(n_rows - LEAST_ROWS, (length - 1) // ROW_STEP * ROW_STEP) if n_rows <= self.n_ctx_train else 0
        )

    def most_cells(self, length: int) -> int:
        """Tokens that a prompt's sequence may come to hold, whatever it shares."""
        if self.can_rewind and self._is_rewindable(length):
            return length + ROW_STEP - 1
        return filled(length) if filled(length) <= self.n_ctx_train else length

    def is_worth_keeping(self, length: int, n_users: int) -> bool:
        """Whether to keep the state behind so many more tokens, where so many prompts or longer beginnings go on."""
        if length < LEAST_ROWS and not self.can_rewind:
            return False  # what would fill it up cannot be forgotten
        return n_users * length > price(filled(length), 1, self.width) + _STATE_COST

    def _is_rewindable(self, length: int) -> bool:
        return length + ROW_STEP - 1 <= self.n_ctx_train


def filled(n_rows: int) -> int:
    """Rows that a decode of one sequence has for so many tokens."""
    return max(LEAST_ROWS, -(-n_rows // ROW_STEP) * ROW_STEP)


def beyond_blocks(n_rows: int) -> int:
    """What is left of so many rows behind as many in sixteens as leave enough for a decode of its own."""
    return LEAST_ROWS + (n_rows - LEAST_ROWS) % _ROW_BLOCK


def lead_rows(n_rows: Counts, n_together: Counts) -> Counts:
    """Rows that a prompt of `n_rows` runs alone before `n_together` beside others: none, or filled up."""
    rest = np.maximum(n_rows - n_together, 0)
    return np.where(rest > 0, np.maximum(LEAST_ROWS, -(-rest // ROW_STEP) * ROW_STEP), 0)


def lengths_together(most: int, n_sequences: int) -> Counts:
    """Rows that each of several sequences may have in a decode, ascending, up to about `most`."""
    lengths = np.arange(LEAST_ROWS, max(LEAST_ROWS, most) + ROW_STEP, dtype=np.int64)
    are_whole: NDArray[np.bool_] = lengths * n_sequences % ROW_STEP == 0
    return lengths[are_whole]


def rows_each(width: int, n_sequences: int) -> int:
    """Rows that each sequence may have in a decode of at most `width` rows."""
    return width // n_sequences // ROW_STEP * ROW_STEP


def decode_cuts(n_rows: int, width: int, n_sequences: int = 1) -> list[int]:
    """Where rows of each of some sequences are cut into decodes, ascending; empty if one holds them.

    Parameters
    ----------
    n_rows: of each sequence.
    width: rows of a decode at most, a multiple of 4 and at least 16 for each sequence.
    n_sequences: that run side by side.

    Returns
    -------
    Cuts into as few and as equal decodes as can be, each of at least 8 rows of a sequence. All but the last have a
    multiple of 4 rows; of 16 where `width` allows.
    """
    each = rows_each(width, n_sequences)
    step = _ROW_BLOCK // math.gcd(_ROW_BLOCK, n_sequences)
    if each % step or each < 2 * step:
        step = ROW_STEP
    n_decodes = -(-n_rows // each)
    n_steps = -(-n_rows // step)
    return [step * (n_steps * at // n_decodes) for at in range(1, n_decodes)]


@overload
def price(n_rows: int, n_sequences: int, width: int) -> float: ...


@overload
def price(n_rows: Counts, n_sequences: int, width: int) -> NDArray[np.float64]: ...


def price(n_rows: Any, n_sequences: int, width: int) -> Any:
    """What it costs to run so many rows of each of some sequences side by side, in rows of a full decode."""
    total = n_rows * n_sequences
    n_decodes = -(-n_rows // rows_each(width, n_sequences))
    beside = _DECODE_COST + _SEQUENCE_COST * n_sequences
    return total + _REST_COST * (total % _ROW_BLOCK) + beside * n_decodes
