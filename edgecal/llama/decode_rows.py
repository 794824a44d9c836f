"""Rows of decodes: how they are padded and cut, and what they cost.

A prompt's results must not depend on which prompts share its decode. That rests on rules found by measuring
(docs/log.md):

- llama.cpp's kernels take rows four at a time, and use another kernel for the remainder and, with some weight types,
  for fewer than 8 rows. So each decode has a multiple of 4 rows, and each of its sequences at least 8. Missing rows
  are padded with tokens after the last one; a causal model's results for earlier tokens do not depend on them.
- The last block and the head compute output rows only, so each decode that finishes prompts has 4 of those.
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

# Kernels of repacked weights take 16 rows at a time and the remainder in fours; a row of the remainder costs this much
# more (docs/log.md).
_ROW_BLOCK = 16
_REST_COST = 0.3

# Fixed costs, in rows: of a decode, of each of its sequences (attention computes one after the other), and of a shared
# state, which is copied when it is made and when prompts continue from it.
_DECODE_COST = 1
_SEQUENCE_COST = 1
_STATE_COST = 4

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Room:
    """The limits within which prompts can share prefixes and be padded.

    Attributes
    ----------
    n_ctx_train: length of the model's context in tokens.
    can_rewind: whether the model can remove the last tokens of a sequence, and so the padding of a shared prefix.
    width: most rows of a decode.
    """

    n_ctx_train: int
    can_rewind: bool
    width: int

    @property
    def step(self) -> int:
        """The lengths of shared prefixes are multiples of this."""
        return 1 if self.can_rewind else ROW_STEP

    def sharable(self, length: int) -> int:
        """Most tokens of a prompt of `length` tokens that may be shared; its last rows always run for it alone."""
        if self.can_rewind:
            return max(0, length - LEAST_ROWS + ROW_STEP - 1) if self._is_rewindable(length) else 0
        n_rows = filled(length)
        return (
            min(n_rows - LEAST_ROWS, (length - 1) // ROW_STEP * ROW_STEP) if n_rows <= self.n_ctx_train else 0
        )

    def most_cells(self, length: int) -> int:
        """Most tokens that a prompt's sequence will hold, padding included, however much the prompt shares."""
        if self.can_rewind and self._is_rewindable(length):
            return length + ROW_STEP - 1
        return filled(length) if filled(length) <= self.n_ctx_train else length

    def is_worth_keeping(self, length: int, n_users: int) -> bool:
        """Whether to keep the state after `length` further tokens if `n_users` prompts or longer prefixes continue
        from it."""
        if length < LEAST_ROWS and not self.can_rewind:
            return False  # it would need padding, which could not be removed
        return n_users * length > price(filled(length), 1, self.width) + _STATE_COST

    def _is_rewindable(self, length: int) -> bool:
        return length + ROW_STEP - 1 <= self.n_ctx_train


def filled(n_rows: int) -> int:
    """Returns the rows of a decode of one sequence with `n_rows` tokens, padding included."""
    return max(LEAST_ROWS, -(-n_rows // ROW_STEP) * ROW_STEP)


def beyond_blocks(n_rows: int) -> int:
    """Returns the rows that remain after as many whole blocks of 16 as leave enough for a decode of its own."""
    return LEAST_ROWS + (n_rows - LEAST_ROWS) % _ROW_BLOCK


def lead_rows(n_rows: Counts, n_together: Counts) -> Counts:
    """Returns the rows, padded, that a prompt of `n_rows` runs alone before `n_together` side by side with others."""
    rest = np.maximum(n_rows - n_together, 0)
    return np.where(rest > 0, np.maximum(LEAST_ROWS, -(-rest // ROW_STEP) * ROW_STEP), 0)


def lengths_together(most: int, n_sequences: int) -> Counts:
    """Returns the numbers of rows that each of several sequences may have in a decode, ascending, to about `most`."""
    lengths = np.arange(LEAST_ROWS, max(LEAST_ROWS, most) + ROW_STEP, dtype=np.int64)
    are_whole: NDArray[np.bool_] = lengths * n_sequences % ROW_STEP == 0
    return lengths[are_whole]


def rows_each(width: int, n_sequences: int) -> int:
    """Returns the most rows of each sequence in a decode of at most `width` rows."""
    return width // n_sequences // ROW_STEP * ROW_STEP


def decode_cuts(n_rows: int, width: int, n_sequences: int = 1) -> list[int]:
    """Returns where the rows of each sequence are cut into decodes, ascending; empty if one decode holds them.

    Parameters
    ----------
    n_rows: rows of each sequence.
    width: most rows of a decode, a multiple of 4 and at least 16 for each sequence.
    n_sequences: sequences that run side by side.

    Returns
    -------
    Cuts into the fewest decodes, as equal as possible, each with at least 8 rows of a sequence. All but the last have a
    multiple of 4 rows, or of 16 where `width` allows.
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
    """Returns the cost of running `n_rows` rows of each sequence side by side, in rows of a full decode."""
    total = n_rows * n_sequences
    n_decodes = -(-n_rows // rows_each(width, n_sequences))
    beside = _DECODE_COST + _SEQUENCE_COST * n_sequences
    return total + _REST_COST * (total % _ROW_BLOCK) + beside * n_decodes
