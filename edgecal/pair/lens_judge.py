"""Judges whether one model's lens reproduces the model's own logits, from its captures.

All commands use this judge, so that `doctor` and `fit` agree on which models are accepted.
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

# Used where a model has no epsilon, or one too small to matter in float32.
_LEAST_EPS = 1e-10


class LensJudge:
    """Collects the errors of a model's lens, and refuses the lens if they are too large."""

    def __init__(self, name: str, head: Head) -> None:
        """`name` is the model's, for messages; `head` has, in ascending order, the tokens of `check_token_ids` and all
        tokens that are passed to `add`."""
        self.head = head
        self._name = name
        self._check_ids = check_token_ids(head.n_vocab, np.zeros(0, np.int32))
        self._errors: list[float] = []
        self._epsilon_check: LensCheck | None = None

    @classmethod
    def of_model(
        cls,
        name: str,
        model: Model,
        settings: CaptureSettings,
        stream: ResidualStream,
        choice_ids: NDArray[np.int32],
    ) -> LensJudge:
        """Makes the judge of a loaded model for prompts with these choices, and checks the epsilon.

        Raises
        ------
        ModelError: the head cannot be read, or llama.cpp failed.
        """
        from edgecal.llama.library import dequantize_rows
        from edgecal.pair.resident_model import read_shards

        ids = check_token_ids(model.n_vocab, choice_ids)
        judge = cls(name, read_head(read_shards(str(model.path)), ids, dequantize_rows))
        judge.watch_epsilon(model, settings, stream)
        return judge

    def watch_epsilon(self, model: Model, settings: CaptureSettings, stream: ResidualStream) -> None:
        """Checks the epsilon: runs the model once with a last block's output so small that epsilon is half of the sum
        under the norm's root. Does nothing for a model whose last block cannot be made small."""
        from edgecal.llama.steered import run_with_small_ending

        if not self.head.normalized:
            return
        size = math.sqrt(max(self.head.eps, _LEAST_EPS))
        hidden_and_logits = run_with_small_ending(model, settings, stream, size, centered=self.head.centered)
        if hidden_and_logits is not None:
            error = self._error(*hidden_and_logits, self._check_ids)
            where = f"{len(self._check_ids)} tokens of a prompt whose last block was made so small that epsilon matters"
            self._epsilon_check = LensCheck(math.sqrt(error), where)

    def add(self, hidden: NDArray[np.float32], logits: NDArray[np.float32], ids: NDArray[np.int32]) -> float:
        """Adds one prompt. Returns its mean square error over the tokens to check and `ids` (int32 [k]), in units of
        the logits' spread.

        hidden: float32 [width], the last block's output; logits: float32 [n_vocab], llama.cpp's own.
        """
        error = self._error(hidden, logits, np.union1d(self._check_ids, ids))
        self._errors.append(error)
        return error

    @property
    def is_sure(self) -> bool:
        """Whether enough prompts were added for `judge` to be final."""
        return len(self._errors) >= CHECK_PROMPTS

    @property
    def rms(self) -> float:
        """The larger of the rms errors over all prompts and with a small last block; NaN where one is not finite."""
        return float(np.max([check.rms for check in self._checks()], initial=0.0))

    def judge(self) -> None:
        """Raises ModelError if the prompts added so far, or the epsilon, show that the lens is wrong."""
        for check in self._checks():
            check.raise_if_refused(self._name, self.head.architecture)

    def _checks(self) -> list[LensCheck]:
        checks = []
        if self._errors:
            where = f"{len(self._check_ids)} tokens of {len(self._errors)} prompts"
            checks.append(LensCheck(float(np.sqrt(np.mean(self._errors))), where))
        return checks if self._epsilon_check is None else [*checks, self._epsilon_check]

    def _error(
        self, hidden: NDArray[np.float32], logits: NDArray[np.float32], ids: NDArray[np.integer]
    ) -> float:
        rows = np.searchsorted(self.head.token_ids, ids)
        spread = np.array([logits.astype(np.float64).std()])
        return float(
            mean_square_errors(reproduce(hidden[None], self.head, rows), logits[None, ids], spread)[0]
        )
