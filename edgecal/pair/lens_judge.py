"""Judges the lens of one model on what is captured of it: the one judge of `doctor`, `fit` and all others.

Knows a model that is loaded, hidden states and logits. Does not know what the lens is for.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgecal.lens import Head, LensCheck, check_token_ids, mean_square_errors, read_head, reproduce
from edgecal.lens.self_check import CHECK_PROMPTS

if TYPE_CHECKING:
    from edgecal.architectures import ResidualStream
    from edgecal.llama.model import Model
    from edgecal.llama.settings import CaptureSettings

__all__ = ["LensJudge"]

# Where a model has no epsilon, or one so small that float32 could not show it.
_LEAST_EPS = 1e-10


class LensJudge:
    """Collects how far a model's lens is off, and refuses one that is too far."""

    def __init__(self, name: str, head: Head) -> None:
        """`name` is the model's, for messages; `head` has, in ascending order, the tokens of `check_token_ids` and
        whatever else is given to `add`."""
        self.head = head
        self._name = name
        self._check_ids = check_token_ids(head.n_vocab, np.zeros(0, np.int32))
        self._errors: list[float] = []
        self._small: LensCheck | None = None

    @classmethod
    def of_model(
        cls,
        name: str,
        model: Model,
        settings: CaptureSettings,
        stream: ResidualStream,
        choice_ids: NDArray[np.int32],
    ) -> LensJudge:
        """The judge of a loaded model, for prompts with these choices, which has seen whether the epsilon is right.

        Raises
        ------
        ModelError: the head cannot be read, or llama.cpp failed.
        """
        from edgecal.llama.dequantize import dequantize_rows
        from edgecal.pair.resident_model import read_shards

        ids = check_token_ids(model.n_vocab, choice_ids)
        judge = cls(name, read_head(read_shards(str(model.path)), ids, dequantize_rows))
        judge.watch_epsilon(model, settings, stream)
        return judge

    def watch_epsilon(self, model: Model, settings: CaptureSettings, stream: ResidualStream) -> None:
        """Runs the model once with a last block's output so small that half of what the norm makes of it is the
        epsilon's doing. Nothing happens where that cannot be done."""
        from edgecal.llama.steered import run_with_small_ending

        if not self.head.normalized:
            return
        size = math.sqrt(max(self.head.eps, _LEAST_EPS))
        seen = run_with_small_ending(model, settings, stream, size, centered=self.head.centered)
        if seen is not None:
            error = self._error(*seen, self._check_ids)
            where = f"{len(self._check_ids)} tokens of a prompt whose last block was made small, so that epsilon counts"
            self._small = LensCheck(math.sqrt(error), where)

    def add(self, hidden: NDArray[np.float32], logits: NDArray[np.float32], ids: NDArray[np.int32]) -> float:
        """The mean square error of one prompt over the tokens to check and `ids` (int32 [k]), in units of the spread.

        hidden: float32 [width], the last block's output; logits: float32 [n_vocab], llama.cpp's own.
        """
        error = self._error(hidden, logits, np.union1d(self._check_ids, ids))
        self._errors.append(error)
        return error

    @property
    def is_sure(self) -> bool:
        """Whether so many prompts were seen that `judge` has the last word."""
        return len(self._errors) >= CHECK_PROMPTS

    @property
    def rms(self) -> float:
        """The larger of the errors over all prompts and with a small last block; NaN where one is not finite."""
        return float(np.max([check.rms for check in self._checks()], initial=0.0))

    def judge(self) -> None:
        """Raises ModelError if the lens is refused on what was seen so far."""
        for check in self._checks():
            check.raise_if_refused(self._name, self.head.architecture)

    def _checks(self) -> list[LensCheck]:
        checks = []
        if self._errors:
            where = f"{len(self._check_ids)} tokens of {len(self._errors)} prompts"
            checks.append(LensCheck(float(np.sqrt(np.mean(self._errors))), where))
        return checks if self._small is None else [*checks, self._small]

    def _error(
        self, hidden: NDArray[np.float32], logits: NDArray[np.float32], ids: NDArray[np.integer]
    ) -> float:
        rows = np.searchsorted(self.head.token_ids, ids)
        spread = np.array([logits.astype(np.float64).std()])
        return float(
            mean_square_errors(reproduce(hidden[None], self.head, rows), logits[None, ids], spread)[0]
        )
